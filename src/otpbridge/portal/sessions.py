"""Who is logged in: kept in this process alone, bounded in number and time. Browsers hold a random name."""

from __future__ import annotations

import hmac
import secrets
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field

from otpbridge.client import AsyncConversation

COOKIE = "__Host-otpbridge"
_MOST_OF_ONE = 32
"""Sessions of one user: nobody pushes the others out by logging in again and again."""


@dataclass(slots=True)
class Setup:
    """A token that waits for its code. Of the seed it knows nothing but where its picture is."""

    token: str
    user: str
    label: str
    picture: str = field(repr=False)


@dataclass(slots=True)
class Asked:
    """A security key that was asked, and waits for its answer in a conversation with the daemon."""

    talk: AsyncConversation = field(repr=False)
    user: str
    options: str = field(repr=False)
    until: float


@dataclass(slots=True)
class Session:
    """A person who has logged in. Times are those of the clock that `Sessions` is given, in seconds."""

    client: str
    user: str
    started: float
    seen: float
    proven: float
    """When they last showed a code, or, having none, their password."""
    by_token: bool
    """They have shown a second factor."""
    tested: bool
    """They logged in with it: since then, no authenticator was replaced."""
    csrf: str = field(default_factory=lambda: secrets.token_urlsafe(24), repr=False)
    setup: Setup | None = None
    registering: Setup | None = None
    """The same for a security key."""
    asked: Asked | None = None
    notices: tuple[str, ...] = ()
    """To be shown once, on the next page."""
    again: float | None = None
    """When they last showed a second factor after the login."""
    wanted: tuple[str, str] = ("/details", "")
    """The page that was left to show a code, and the user it is about."""
    chooses_password: bool = False
    """They came with a registration code and no password, and can do nothing but choose one."""

    def take_notices(self) -> tuple[str, ...]:
        """What is to be shown; it is not shown again."""
        taken, self.notices = self.notices, ()
        return taken

    def tell(self, text: str) -> None:
        """Show this on the next page."""
        self.notices = (*self.notices, text)

    def right_form(self, given: str) -> bool:
        """Whether a form is from a page of this session."""
        return hmac.compare_digest(given.encode(), self.csrf.encode())


class Sessions:
    """All sessions, the one that was idle longest first."""

    def __init__(
        self,
        *,
        idle: float,
        absolute: float,
        most: int,
        clock: Callable[[], float],
        ended: Callable[[Session], None],
    ) -> None:
        self._idle = idle
        self._absolute = absolute
        self._most = most
        self._clock = clock
        self._ended = ended
        self._held: OrderedDict[str, Session] = OrderedDict()

    def __len__(self) -> int:
        return len(self._held)

    def start(self, client: str, user: str, *, by_token: bool) -> tuple[str, Session]:
        """A session of somebody who has just logged in, and its name, which no one had before."""
        self._sweep()
        theirs = self._of(client, user)
        for name in theirs[: max(0, len(theirs) - _MOST_OF_ONE + 1)]:
            self._end(name)
        while len(self._held) >= self._most:
            self._end(next(iter(self._held)))
        name, now = secrets.token_urlsafe(32), self._clock()
        session = Session(client, user, now, now, now, by_token=by_token, tested=by_token)
        self._held[name] = session
        return name, session

    def find(self, name: str, client: str) -> Session | None:
        """The session of this name, if it is this client's and its time is not up."""
        session = self._held.get(name)
        if session is None or session.client != client:
            return None
        now = self._clock()
        if self._over(session, now):
            self._end(name)
            return None
        session.seen = now
        self._held.move_to_end(name)
        return session

    def end(self, name: str) -> None:
        """Log out."""
        if name in self._held:
            self._end(name)

    def end_of(self, client: str, user: str, *, but: Session | None = None) -> int:
        """Log a user out everywhere, except in the session `but`; how many sessions that ended."""
        theirs = [name for name in self._of(client, user) if self._held[name] is not but]
        for name in theirs:
            self._end(name)
        return len(theirs)

    def _of(self, client: str, user: str) -> list[str]:
        return [name for name, held in self._held.items() if (held.client, held.user) == (client, user)]

    def _over(self, session: Session, now: float) -> bool:
        return now - session.seen >= self._idle or now - session.started >= self._absolute

    def _sweep(self) -> None:
        """Let go of those that were idle too long: they are the first."""
        now = self._clock()
        while self._held and self._over(next(iter(self._held.values())), now):
            self._end(next(iter(self._held)))

    def _end(self, name: str) -> None:
        session = self._held.pop(name)
        if session.asked is not None:
            session.asked.talk.cancel()
        self._ended(session)
