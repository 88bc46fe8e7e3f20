"""The finger on a key: there at once, late, or never."""

from __future__ import annotations

import asyncio
from enum import Enum


class Finger(Enum):
    """What happens when a key asks for a touch."""

    GIVEN = "given"
    LATE = "late"
    NEVER = "never"


class Contact:
    """The gold contact of a key."""

    def __init__(self) -> None:
        self._finger = Finger.GIVEN
        self._given = asyncio.Event()
        self._blinking = asyncio.Event()

    def put(self, finger: Finger) -> None:
        """What happens from now on; a key that is waiting hears of it."""
        self._finger = finger
        if finger is Finger.LATE:
            self._given.clear()
        else:
            self._given.set()

    async def touched(self) -> bool:
        """Whether somebody touches the key before it gives up."""
        if self._finger is Finger.LATE:
            self._blinking.set()
            try:
                await self._given.wait()
            finally:
                self._blinking.clear()
        return self._finger is Finger.GIVEN

    async def blinks(self) -> None:
        """Returns when the key waits for a touch."""
        await self._blinking.wait()
