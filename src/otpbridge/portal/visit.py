"""One request of one person: what a page is made from, and the replies that it can give."""

from __future__ import annotations

import hmac
import logging
import secrets
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, urlencode

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from otpbridge.client import AsyncClient, Context, Notice
from otpbridge.portal.pages import Pages
from otpbridge.portal.pictures import Pictures
from otpbridge.portal.sessions import COOKIE, Session, Sessions
from otpbridge.portal.settings import Brand, Portal
from otpbridge.portal.texts import Texts
from otpbridge.portal.waiting import Waiting

log = logging.getLogger(__name__)

LANGUAGE_COOKIE = "__Host-otpbridge-language"
LOGIN_COOKIE = "__Host-otpbridge-login"
SERVICE = "portal"
_LONGEST_NAME = 256
_LONGEST_REASON = 150
_MOST_FIELDS = 32


class RefusedError(Exception):
    """The person cannot have this page; `status` and the key of what they are told."""

    def __init__(self, status: int, key: str) -> None:
        super().__init__(key)
        self.status = status
        self.key = key


@dataclass(frozen=True)
class House:
    """What all requests share."""

    portal: Portal
    otp: AsyncClient
    sessions: Sessions
    pictures: Pictures
    waiting: Waiting
    pages: Pages
    languages: Mapping[str, Texts]
    secret: bytes = field(default_factory=lambda: secrets.token_bytes(32), repr=False)
    """For the forms of those who are not logged in."""


@dataclass(slots=True)
class Visit:
    """A request with what is known of who sent it."""

    house: House
    request: Request
    brand: Brand
    texts: Texts
    form: Mapping[str, str]
    name: str = ""
    """Of the session: what the cookie said."""
    login_name: str = ""
    """Of the login page, likewise."""
    session: Session | None = None
    cookies: list[tuple[str, str | None]] = field(default_factory=list)
    """To be set with the reply; None: to be taken back."""

    # --- who ---

    @property
    def client(self) -> str:
        """The client whose portal this is."""
        return self.brand.name

    @property
    def person(self) -> Session:
        """The session of who is logged in."""
        assert self.session is not None
        return self.session

    @property
    def is_admin(self) -> bool:
        """Whether who is logged in may act on the other users."""
        return self.session is not None and self.brand.is_admin(self.session.user)

    @property
    def context(self) -> Context:
        """What the daemon is told of an attempt."""
        address: str = self.request.scope["state"]["address"]
        return Context(service=SERVICE, rhost=address, language=self.texts.language)

    @property
    def whom(self) -> str:
        """The user that a page is about: who is logged in, or another one for admins. Raises RefusedError."""
        named = self.form.get("name") or self.request.query_params.get("name") or self.person.user
        if named != self.person.user and not self.is_admin:
            # As if there were no such user: nobody finds out who there is.
            raise RefusedError(404, "error.absent")
        if len(named.encode()) > _LONGEST_NAME or not named.isprintable():
            raise RefusedError(404, "error.absent")
        return named

    @property
    def reason(self) -> str:
        """Who acts, and why if they say so, for the daemon's audit log: it knows only that it was the portal."""
        who = f"portal, by {self.person.user}"
        said = self.form.get("reason", "").strip()[:_LONGEST_REASON]
        return f"{who}: {said}" if said.isprintable() and said else who

    def note(self, what: str, whom: str) -> None:
        """Say in our own log too which admin did something to another user."""
        if whom != self.person.user:
            log.info("%s/%s: %s, by %s", self.client, whom, what, self.person.user)

    def pass_on(self, notices: Iterable[Notice]) -> None:
        """Show on the next page what the daemon tells the person: in our words, where we have some for it."""
        for notice in notices:
            key = f"told.{notice.name}"
            self.person.tell(self.texts(key, count=notice.count) if key in self.texts else notice.text)

    def is_fresh(self, *, has_authenticator: bool) -> bool:
        """Whether who is logged in has shown lately what they have to show."""
        recent = time.monotonic() - self.person.proven < self.house.portal.settings.sessions.fresh
        return recent and (self.person.by_token or not has_authenticator)

    # --- replies ---

    def page(self, template: str, status: int = 200, **values: Any) -> Response:
        """A page. What was to be told once is told here."""
        notices = self.session.take_notices() if self.session is not None else ()
        html = self.house.pages.render(template, self, notices=notices, **values)
        return self.done(Response(html, status, media_type="text/html"))

    def to(self, path: str, **query: str) -> Response:
        """On to another of our pages. `path` is never from the request."""
        assert path.startswith("/")
        assert not path.startswith("//")
        where = f"{path}?{urlencode(query)}" if query else path
        return self.done(RedirectResponse(where, 303))

    def done(self, response: Response) -> Response:
        """The reply with its cookies."""
        for name, value in self.cookies:
            if value is None:
                response.delete_cookie(name, path="/", secure=True, httponly=True, samesite="strict")
            else:
                age = 31_536_000 if name == LANGUAGE_COOKIE else None
                response.set_cookie(name, value, max_age=age, path="/", secure=True, httponly=True, samesite="strict")
        return response

    # --- sessions ---

    def log_in(self, user: str, *, by_token: bool) -> Session:
        """A new session with a name that nobody could know before; the one before is over."""
        self.house.sessions.end(self.name)
        self.name, self.session = self.house.sessions.start(self.client, user, by_token=by_token)
        self.cookies += [(COOKIE, self.name), (LOGIN_COOKIE, None)]
        return self.session

    def log_out(self) -> None:
        """The session is over."""
        self.house.sessions.end(self.name)
        self.session = None
        self.cookies.append((COOKIE, None))

    # --- forms ---

    def login_form(self) -> str:
        """The proof that a form of who is not logged in yet is from our page: fits the cookie that comes with it."""
        if not self.login_name:
            self.login_name = secrets.token_urlsafe(24)
            self.cookies.append((LOGIN_COOKIE, self.login_name))
        return self._signed(self.login_name)

    def check_login_form(self) -> None:
        """Raise RefusedError unless the form is from the page that this browser was given."""
        right = self._signed(self.login_name)
        if not self.login_name or not hmac.compare_digest(right.encode(), self.form.get("form", "").encode()):
            raise RefusedError(403, "error.form")

    def check_form(self) -> None:
        """Raise RefusedError unless the form is from a page of this session."""
        if not self.person.right_form(self.form.get("form", "")):
            raise RefusedError(403, "error.form")

    def _signed(self, name: str) -> str:
        return hmac.digest(self.house.secret, f"{self.client}\0{name}".encode(), "sha256").hex()


def read_form(body: bytes) -> Mapping[str, str]:
    """The fields of a form. Raises RefusedError for one that no page of ours sends."""
    try:
        pairs = parse_qsl(body.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=_MOST_FIELDS)
    except ValueError:
        raise RefusedError(400, "error.form") from None
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise RefusedError(400, "error.form")
    return fields
