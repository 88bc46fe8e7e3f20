"""Logins that wait for a security key: few, and not for long."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

from otpbridge.portal.sessions import Asked

KEY_SECONDS = 150.0
"""How long a key may take; the daemon itself waits a little longer."""
_MOST = 512


class Waiting:
    """What was asked of whom, by the cookie of their login page, the oldest first. Each holds a connection."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._held: OrderedDict[str, Asked] = OrderedDict()

    def put(self, name: str, asked: Asked) -> None:
        """Remember what was asked, in place of what this browser was asked before."""
        self._drop(name)
        while self._held and (len(self._held) >= _MOST or next(iter(self._held.values())).until <= self._clock()):
            self._drop(next(iter(self._held)))
        self._held[name] = asked

    def take(self, name: str) -> Asked | None:
        """What this browser was asked, which is answered once; None where it was nothing, or its time is up."""
        asked = self._held.pop(name, None)
        if asked is not None and asked.until <= self._clock():
            asked.talk.cancel()
            return None
        return asked

    def _drop(self, name: str) -> None:
        asked = self._held.pop(name, None)
        if asked is not None:
            asked.talk.cancel()
