"""The centres of a relay: which one is asked, on which connection, and when another one may be.

A call that holds an answer of a person is sent once. Whether a centre lives is found out before that, on the
connection that is then used; once the call is on its way, no other centre hears of it.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Generic

from otpbridge.config import Relay, endpoint
from otpbridge.daemon.relay.identity import Identity
from otpbridge.daemon.relay.line import Line, LostError
from otpbridge.errors import RemoteError
from otpbridge.wire.messages import R, Request

log = logging.getLogger(__name__)

_MOST_IDLE = 256
"""Connections that are kept for a centre's next calls."""
_MOST_OPENING = 16
"""Connections that are being made to a centre."""
_FRESH_SECONDS = 1.0
"""For so long after its last answer a centre is taken to live."""
_LOOK_SECONDS = 2.0
"""Between looks at centres that are away."""


@dataclass(slots=True)
class Central:
    """A central daemon, as far as it is known."""

    address: str
    host: str
    port: int
    fault: str | None = "not tried yet"
    """Why it is away; None where it is there."""
    idle: list[Line] = field(default_factory=list)
    opening: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(_MOST_OPENING))
    """Held while a new connection is made: a centre takes only so many handshakes of one address at a time."""
    busy: int = 0
    """Connections on which a call or a conversation is under way."""

    def drop(self) -> None:
        """Close the connections that are kept."""
        while self.idle:
            self.idle.pop().close()


@dataclass(frozen=True, slots=True)
class Asked(Generic[R]):
    """A call under way: the first reply, whether more follow, and where."""

    line: Line
    central: Central
    reply: R
    follows: bool


class Centres:
    """All of them, in the order in which they are tried."""

    def __init__(self, settings: Relay, identity: Identity) -> None:
        self._settings = settings
        self._identity = identity
        self.all = [_central(address) for address in settings.centres]

    @property
    def seconds(self) -> float:
        """How long an answer may take."""
        return float(self._settings.timeout)

    def use(self, settings: Relay, identity: Identity) -> None:
        """Let a new configuration count. Calls under way end as they began."""
        for central in self.all:
            central.drop()
        there = {central.address: central for central in self.all}
        self._settings, self._identity = settings, identity
        self.all = [there.get(address) or _central(address) for address in settings.centres]

    def close(self) -> None:
        """Close all that is kept."""
        for central in self.all:
            central.drop()

    # --- calls ---

    async def once(self, request: Request[R]) -> Asked[R]:
        """Make a call that is sent once. Raises LostError, after which it may have been judged, and RemoteError."""
        deadline = time.monotonic() + self.seconds
        central, line = await self._line(deadline, ())
        return await self._ask(central, line, request, more=False, seconds=_left(deadline))

    async def safely(self, request: Request[R], *, more: bool) -> Asked[R]:
        """Make a call that may be repeated, as nobody has answered anything in it. Raises LostError, RemoteError."""
        deadline = time.monotonic() + self.seconds
        tried: list[Central] = []
        while True:
            central, line = await self._line(deadline, tried)
            seconds = _left(deadline) / max(1, len(self.all) - len(tried))
            try:
                return await self._ask(central, line, request, more=more, seconds=seconds)
            except LostError as error:
                log.warning("centre %s: %s", central.address, error)
                tried.append(central)

    async def go_on(self, central: Central, line: Line, request: Request[R], *, more: bool) -> Asked[R]:
        """Make a call on the connection that belongs to its conversation. Raises LostError, RemoteError."""
        return await self._ask(central, line, request, more=more, seconds=self.seconds)

    async def _ask(
        self, central: Central, line: Line, request: Request[R], *, more: bool, seconds: float
    ) -> Asked[R]:
        try:
            await line.ask(request, more=more)
            reply, follows = await line.reply(type(request), seconds)
        except BaseException as error:
            self.give_back(central, line, keep=isinstance(error, RemoteError))
            raise
        return Asked(line, central, reply, follows)

    def give_back(self, central: Central, line: Line, *, keep: bool = True) -> None:
        """A call has ended: keep its connection for the next one, or close it."""
        central.busy -= 1
        if keep and line.usable and len(central.idle) < _MOST_IDLE and central in self.all:
            central.idle.append(line)
        else:
            line.close()

    # --- connections ---

    async def _line(self, deadline: float, tried: Collection[Central]) -> tuple[Central, Line]:
        """A connection to a centre that lives, not one of those that were tried. Raises LostError."""
        why = []
        for central in sorted(self.all, key=lambda each: each.fault is not None):
            if any(central is each for each in tried):
                continue
            if _left(deadline) <= 0:
                break
            try:
                line = await self._line_to(central, min(float(self._settings.connect), _left(deadline)))
            except LostError as error:
                self._is_away(central, str(error))
                why.append(f"{central.address}: {error}")
            else:
                central.busy += 1
                return central, line
        raise LostError("; ".join(why) or "no centre is left to ask")

    async def _line_to(self, central: Central, seconds: float) -> Line:
        """A connection to this centre, kept or new. Raises LostError."""
        while central.idle:
            line = central.idle.pop()
            if await self._lives(line, seconds):
                return line
            line.close()
        return await self._opened(central, seconds)

    async def _opened(self, central: Central, seconds: float) -> Line:
        """A new connection to this centre. Raises LostError."""
        deadline = time.monotonic() + seconds
        try:
            async with asyncio.timeout(seconds):
                await central.opening.acquire()
        except TimeoutError:
            raise LostError(f"no connection within {seconds:g} s") from None
        try:
            context = self._identity.context
            line = await Line.open(central.host, central.port, context, max(0.0, _left(deadline)))
        finally:
            central.opening.release()
        self._is_there(central)
        return line

    @staticmethod
    async def _lives(line: Line, seconds: float) -> bool:
        """Whether a kept connection can be used. Raises LostError where the centre does not answer in time."""
        if not line.usable or time.monotonic() - line.silent_since < _FRESH_SECONDS:
            return line.usable
        try:
            await line.greet(seconds)
        except LostError:
            line.close()
            if line.ended:
                return False
            raise
        except BaseException:
            line.close()
            raise
        return True

    def _is_away(self, central: Central, why: str) -> None:
        central.drop()
        if central.fault != why:
            log.warning("centre %s is away: %s", central.address, why)
        central.fault = why

    @staticmethod
    def _is_there(central: Central) -> None:
        if central.fault is not None:
            log.info("centre %s is there", central.address)
        central.fault = None

    # --- in the background ---

    async def look_after(self) -> None:
        """See when a centre that is away comes back, so that no login has to; close what nobody uses."""
        while True:
            away = [central for central in self.all if central.fault is not None]
            await asyncio.gather(*(self._try(central) for central in away))
            oldest = time.monotonic() - self._settings.idle
            for central in self.all:
                for line in [line for line in central.idle if line.silent_since < oldest or not line.usable]:
                    central.idle.remove(line)
                    line.close()
            await asyncio.sleep(_LOOK_SECONDS)

    async def _try(self, central: Central) -> None:
        try:
            line = await self._opened(central, float(self._settings.connect))
        except LostError as error:
            self._is_away(central, str(error))
        else:
            central.busy += 1
            self.give_back(central, line)


def _central(address: str) -> Central:
    where = endpoint(address)
    assert where is not None
    return Central(address, *where)


def _left(deadline: float) -> float:
    return deadline - time.monotonic()
