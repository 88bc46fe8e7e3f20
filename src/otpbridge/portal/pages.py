"""Pages from templates. Every value is escaped; a name that is not given is an error, not a blank."""

from __future__ import annotations

import hashlib
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jinja2

if TYPE_CHECKING:
    from otpbridge.portal.visit import Visit

_HERE = Path(__file__).parent
STATIC = {
    "portal.css": "text/css",
    "portal.js": "text/javascript",
    "icon.svg": "image/svg+xml",
}


class Pages:
    """The templates, and the files that go with them."""

    def __init__(self) -> None:
        self._templates = jinja2.Environment(
            loader=jinja2.FileSystemLoader(_HERE / "templates"),
            autoescape=True,
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            auto_reload=False,
        )
        self._templates.filters.update(date=_date, grouped=_grouped)
        self.files = {name: (_HERE / "static" / name).read_bytes() for name in STATIC}
        self.version = hashlib.sha256(b"".join(self.files.values())).hexdigest()[:12]

    def render(self, template: str, visit: Visit, **values: Any) -> str:
        """A page as HTML."""
        return self._templates.get_template(template).render(
            t=visit.texts,
            brand=visit.brand,
            visit=visit,
            session=visit.session,
            languages=visit.house.languages,
            version=self.version,
            path=visit.request.url.path,
            query=dict(visit.request.query_params),
            **values,
        )


def _date(at: int | None) -> str:
    """A Unix time as people read it everywhere, in UTC."""
    return "" if at is None else time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(at))


def _grouped(text: str) -> list[str]:
    """A key in groups for the eye."""
    return [text[start : start + 4] for start in range(0, len(text), 4)]
