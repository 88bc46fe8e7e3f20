"""Pictures of every page of the portal, at two widths, light and dark: `portal_pictures.py FOLDER`.

Without FOLDER the pictures of the documentation are written anew (docs/pictures/portal-*.png), and no others.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

HERE = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(HERE / "tests" / "support"))

from daemon_rig import private_folder  # noqa: E402
from playwright.sync_api import Browser, Page, sync_playwright  # noqa: E402
from portal_rig import Portal  # noqa: E402
from portal_tour import SCHEMES, WIDTHS, tour  # noqa: E402

OF_THE_DOCUMENTATION = {
    ("login", 390, "light"),
    ("login", 1280, "light"),
    ("user", 1280, "dark"),
    ("users", 1280, "light"),
    ("keys", 390, "dark"),
    ("keys", 1280, "light"),
    ("keys", 1280, "dark"),
}


@contextmanager
def looking(browser: Browser, width: int, scheme: str) -> Iterator[Page]:
    """A page of this width and scheme."""
    context = browser.new_context(viewport={"width": width, "height": 844}, color_scheme=scheme)  # type: ignore[arg-type]
    try:
        yield context.new_page()
    finally:
        context.close()


def main() -> int:
    """Take the pictures; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, nargs="?", default=HERE / "docs/pictures")
    folder: Path = parser.parse_args().folder
    everything = folder != HERE / "docs/pictures"
    folder.mkdir(exist_ok=True)
    with private_folder() as place, Portal(place) as portal, sync_playwright() as playwright:
        for user in ("dora", "emil", "fatima"):
            portal.add(user)
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
        names = iter(("alice", "ben", "clara", "daniel"))
        for width in WIDTHS:
            for scheme in SCHEMES:
                user = portal.add(next(names))
                with looking(browser, width, scheme) as page:

                    def show(name: str, page: Page = page, width: int = width, scheme: str = scheme) -> None:
                        if everything or (name, width, scheme) in OF_THE_DOCUMENTATION:
                            page.mouse.move(0, 0)
                            page.screenshot(path=folder / f"portal-{name}-{width}-{scheme}.png", full_page=True)

                    tour(portal, page, user, show)
        browser.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
