"""axe-core finds nothing serious on any page, on a phone and a wide screen, light and dark."""

from __future__ import annotations

import pytest
from axe_playwright_python.sync_playwright import Axe
from portal_tour import SCHEMES, WIDTHS, tour

pytestmark = pytest.mark.system


@pytest.mark.parametrize(("width", "scheme"), [*zip(WIDTHS, reversed(SCHEMES), strict=True)])
def test_axe_finds_nothing_serious(portal, new_page, width, scheme):
    """On every page of the tour; and no page is wider than the window."""
    page = new_page(viewport={"width": width, "height": 844}, color_scheme=scheme)
    page.emulate_media(reduced_motion="reduce", color_scheme=scheme)
    user = portal.add(f"axe-{width}-{scheme}")
    axe, seen, found = Axe(), [], []

    def look(name):
        seen.append(name)
        for violation in axe.run(page).response["violations"]:
            if violation["impact"] in {"serious", "critical", "moderate"}:
                found.append((name, violation["id"], [node["html"] for node in violation["nodes"]]))
        if page.evaluate("document.documentElement.scrollWidth > window.innerWidth"):
            found.append((name, "wider than the window", []))

    tour(portal, page, user, look)
    assert len(seen) >= 20
    assert found == []
