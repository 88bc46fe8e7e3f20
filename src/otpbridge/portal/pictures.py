"""QR codes for as long as their window is open, at addresses that cannot be guessed.

Whoever has the address has the seed, cookie or not: WinAuth fetches it without one, and more than once. So it
works for a short time, and ends with the window.
"""

from __future__ import annotations

import io
import secrets
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field

import segno

_QUIET_ZONE = 4
"""Light modules around the code (ISO/IEC 18004 §6.3.8)."""
_SCALE = 6
"""Pixels of a module."""
_MOST = 4096


@dataclass(frozen=True, slots=True)
class _Picture:
    png: bytes = field(repr=False)
    client: str
    user: str
    until: float


class Pictures:
    """The pictures that can be fetched now, one per user, the oldest first."""

    def __init__(self, seconds: float, clock: Callable[[], float]) -> None:
        self._seconds = seconds
        self._clock = clock
        self._held: OrderedDict[str, _Picture] = OrderedDict()

    def keep(self, client: str, user: str, png: bytes, seconds: float) -> str:
        """Hold a picture for a time, the usual one or less, in place of the user's older one; the name it gets."""
        now = self._clock()
        self.drop_of(client, user)
        while self._held and (len(self._held) >= _MOST or next(iter(self._held.values())).until <= now):
            self._held.popitem(last=False)
        name = secrets.token_urlsafe(32)
        self._held[name] = _Picture(png, client, user, now + min(self._seconds, seconds))
        return name

    def find(self, client: str, name: str) -> bytes | None:
        """The picture of this name, if it can be fetched still."""
        found = self._held.get(name)
        if found is None or found.client != client:
            return None
        if found.until <= self._clock():
            del self._held[name]
            return None
        return found.png

    def drop(self, name: str) -> None:
        """Let nobody fetch it any more."""
        self._held.pop(name, None)

    def drop_of(self, client: str, user: str) -> None:
        """Let nobody fetch a user's picture any more."""
        for name, picture in [*self._held.items()]:
            if (picture.client, picture.user) == (client, user):
                del self._held[name]


def draw(uri: str) -> bytes:
    """The QR code of an otpauth URI as PNG: dark on light, with its quiet zone."""
    out = io.BytesIO()
    code = segno.make_qr(uri, error="l", boost_error=True)
    code.save(out, kind="png", border=_QUIET_ZONE, scale=_SCALE, dark="#000", light="#fff")
    return out.getvalue()
