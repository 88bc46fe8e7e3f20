"""A card reader with a virtual key in it: who is connected to it, who has it alone, and when it is pulled out."""

from __future__ import annotations

import asyncio
import itertools
from dataclasses import dataclass
from enum import IntEnum

from virtualkey.key import VirtualKey

EXCLUSIVE, SHARED, DIRECT = 1, 2, 3


class Result(IntEnum):
    """Return codes of PC/SC that are used here."""

    SUCCESS = 0
    INTERNAL_ERROR = 0x80100001
    CANCELLED = 0x80100002
    INVALID_HANDLE = 0x80100003
    UNKNOWN_READER = 0x80100009
    SHARING_VIOLATION = 0x8010000B
    INVALID_VALUE = 0x80100011
    NOT_TRANSACTED = 0x80100016
    READER_UNAVAILABLE = 0x80100017
    UNSUPPORTED_FEATURE = 0x8010001F
    RESET_CARD = 0x80100068
    REMOVED_CARD = 0x80100069
    SECURITY_VIOLATION = 0x8010006A


class Failed(Exception):  # noqa: N818
    """The call returns this."""

    def __init__(self, result: Result):
        super().__init__(result.name)
        self.result = result


@dataclass(slots=True, eq=False)
class Handle:
    """A connection of a program to a card."""

    number: int
    mode: int
    reset_by_other: bool = False


@dataclass(slots=True)
class Cut:
    """The key is pulled in the middle of an APDU: of the one after so many, of those with this name."""

    after: int
    at: str | None
    executed: bool


class Reader:
    """Numbers of handles come from `numbers`, which never gives one twice."""

    def __init__(self, key: VirtualKey, name: str, numbers: itertools.count[int]):
        self.key = key
        self.name = name
        self.handles: list[Handle] = []
        self.events = 0
        self.cut: Cut | None = None
        self._numbers = numbers
        self._owner: Handle | None = None
        self._answering: tuple[Handle, asyncio.Task[bytes]] | None = None
        self._busy = asyncio.Lock()
        self._gone = asyncio.Event()
        self._quiet = False
        key.plug_in()

    @property
    def sharing(self) -> int:
        """How many programs share it, -1 for one that has it alone."""
        return -1 if any(handle.mode == EXCLUSIVE for handle in self.handles) else len(self.handles)

    def connect(self, mode: int) -> Handle:
        """A new connection; raises Failed."""
        self._must_be_there()
        if mode not in (EXCLUSIVE, SHARED, DIRECT):
            raise Failed(Result.INVALID_VALUE)
        if self.sharing < 0 or (mode == EXCLUSIVE and self.handles):
            raise Failed(Result.SHARING_VIOLATION)
        handle = Handle(next(self._numbers), mode)
        self.handles.append(handle)
        return handle

    def reconnect(self, handle: Handle, mode: int, *, reset: bool) -> None:
        """Another mode, and a reset if asked for; raises Failed."""
        self._must_be_there()
        if mode == EXCLUSIVE and len(self.handles) > 1:
            raise Failed(Result.SHARING_VIOLATION)
        handle.mode = mode
        handle.reset_by_other = False
        if reset:
            self._reset(handle)

    def disconnect(self, handle: Handle, *, reset: bool) -> None:
        """The end of a connection; raises Failed where the key is gone, as pcscd does."""
        self.drop(handle, reset=reset)
        if not self._quiet:
            self._must_be_there()

    def drop(self, handle: Handle, *, reset: bool) -> None:
        """The end of a connection that nobody asks about."""
        self.handles.remove(handle)
        if self._owner is handle:
            self._owner = None
        if self._answering is not None and self._answering[0] is handle:
            self._answering[1].cancel()
        if reset:
            self._reset(handle)

    def _reset(self, by: Handle) -> None:
        if self._gone.is_set():
            return
        self.key.reset()
        for other in self.handles:
            other.reset_by_other |= other is not by

    def begin(self, handle: Handle) -> None:
        """Takes the card for itself until `end`; raises Failed."""
        self._check(handle)
        self._owner = handle

    def end(self, handle: Handle, *, reset: bool) -> None:
        """Gives the card free; raises Failed."""
        if self._owner is not handle:
            raise Failed(Result.NOT_TRANSACTED)
        self._owner = None
        if reset:
            self._reset(handle)

    def check(self, handle: Handle) -> None:
        """Raises Failed where the card is gone or was reset."""
        self._must_be_there()
        if handle.reset_by_other:
            raise Failed(Result.RESET_CARD)

    def _check(self, handle: Handle) -> None:
        self.check(handle)
        if self._owner not in (None, handle):
            raise Failed(Result.SHARING_VIOLATION)

    def _must_be_there(self) -> None:
        if self._gone.is_set():
            raise Failed(Result.INVALID_VALUE)

    async def transmit(self, handle: Handle, apdu: bytes) -> bytes:
        """The key's answer; raises Failed, also where the key goes away meanwhile."""
        self._check(handle)
        async with self._busy:
            self._check(handle)
            if self._is_cut(apdu):
                await self._cut_off(apdu)
                raise Failed(Result.NOT_TRANSACTED)
            answering = asyncio.ensure_future(self.key.transmit(apdu))
            self._answering = handle, answering
            try:
                await asyncio.wait({answering})
                if self._gone.is_set():
                    raise Failed(Result.NOT_TRANSACTED)
                answer = answering.result()
                if self.key.reboots:
                    self._leave()
                return answer
            finally:
                self._answering = None
                answering.cancel()

    def _is_cut(self, apdu: bytes) -> bool:
        if self.cut is None or self.cut.at not in (None, self.key.name(apdu)):
            return False
        self.cut.after -= 1
        return self.cut.after < 0

    async def _cut_off(self, apdu: bytes) -> None:
        if self.cut is not None and self.cut.executed:
            await self.key.transmit(apdu)
        else:
            self.key.note(self.key.name(apdu), apdu, b"")
        self._leave()

    def pull(self, *, quietly: bool = False) -> None:
        """The key goes out now; `quietly`, those who are connected may disconnect as if it were there."""
        self._quiet = quietly
        self._leave()

    def _leave(self) -> None:
        """No power from here on: what the key has begun it does not end."""
        self._gone.set()
        if self._answering is not None:
            self._answering[1].cancel()

    async def pulled(self) -> None:
        """Returns when the key is out."""
        await self._gone.wait()
