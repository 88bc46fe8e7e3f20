"""Room for threads: how many verifiers work at a time, and what becomes of those that never end."""

from __future__ import annotations

import asyncio
from collections import deque

from otpbridge.errors import OtpBridgeError

MOST_LOST = 8
"""With so many calls of a verifier that are overdue and not back, it is not called any more."""
MOST_THREADS = 512
"""Threads of all verifiers together, most of which wait for a person. Each costs a stack and three descriptors."""


class NoRoomError(OtpBridgeError):
    """A verifier cannot be called now."""


class Threads:
    """Counts the threads of all verifiers."""

    def __init__(self) -> None:
        self._count = 0

    @property
    def count(self) -> int:
        """How many there are now."""
        return self._count

    def one_more(self) -> None:
        """One is started. Raises NoRoomError."""
        if self._count >= MOST_THREADS:
            raise NoRoomError(f"{self._count} threads of verifiers are running or wait for a person")
        self._count += 1

    def one_less(self) -> None:
        """One has ended."""
        self._count -= 1


class Room:
    """The places in which one verifier works on attempts, for all rules that name it.

    Who waits for a person leaves their place. Whoever is left behind takes one up until they end, even where none
    is free: so what never ends cannot become more and more.
    """

    def __init__(self, places: int, threads: Threads) -> None:
        self.threads = threads
        self._free = places
        self._most_lost = min(places, MOST_LOST)
        self._lost = 0
        self._queue: deque[asyncio.Future[None]] = deque()

    @property
    def lost(self) -> int:
        """How many calls are overdue and not back."""
        return self._lost

    def check(self) -> None:
        """Raises NoRoomError where waiting for a place is in vain."""
        if self._lost >= self._most_lost:
            raise NoRoomError(f"{self._lost} calls of it are overdue and not back; restart the daemon")

    async def enter(self, seconds: float) -> None:
        """Take a place, in turn. Raises NoRoomError after `seconds`."""
        if self._free > 0:
            self._free -= 1
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._queue.append(turn)
        try:
            async with asyncio.timeout(max(seconds, 0.0)):
                await turn
        except BaseException as error:
            if turn.done() and not turn.cancelled():
                self.leave()
            if isinstance(error, TimeoutError):
                raise NoRoomError("it is busy with other attempts") from None
            raise

    def take(self) -> None:
        """Take a place whether or not there is one."""
        self._free -= 1

    def leave(self) -> None:
        """Give a place back; it goes to who waits longest."""
        self._free += 1
        while self._free > 0 and self._queue:
            turn = self._queue.popleft()
            if not turn.done():
                self._free -= 1
                turn.set_result(None)

    def lose(self) -> None:
        """A call is overdue. Its place stays taken."""
        self._lost += 1

    def find(self) -> None:
        """A call that was overdue has come back."""
        self._lost -= 1
