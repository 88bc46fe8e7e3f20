"""Log people out when an admin has reset, locked or removed them, wherever that was done."""

from __future__ import annotations

import asyncio
import logging
import math
from contextlib import aclosing

from otpbridge.client import Event, Happening, ProtocolError, RemoteError, Watch
from otpbridge.portal import faults
from otpbridge.portal.visit import House

log = logging.getLogger(__name__)

_ENDING = frozenset({Happening.USER_RESET, Happening.USER_LOCKED, Happening.USER_REMOVED})
_FIRST_WAIT = 0.2
_LONGEST_WAIT = 30.0
"""Seconds between attempts to follow a daemon that is away: each is twice the one before."""


async def follow(house: House) -> None:
    """Hear of what happens to users for as long as the portal runs. A portal without the right `notices` does not."""
    after: int | None = None
    wait = _FIRST_WAIT
    while True:
        try:
            async with aclosing(house.otp.stream(Watch(after=after), timeout=math.inf)) as replies:
                async for reply in replies:
                    after, wait = reply.sequence, _FIRST_WAIT
                    for event in reply.events:
                        _heard(house, event)
        except RemoteError as error:
            name = faults.name_of(error)
            if name == "PermissionDenied":
                log.warning(
                    "people stay logged in when an admin resets or locks them from the command line: give this"
                    ' portal the right "notices" in otpbridge.toml'
                )
                return
            # The store was put back to an older state: go on from its end.
            after = None if name == "BeyondEnd" else after
            log.warning("notices cannot be followed now: %s", error)
        except ProtocolError as error:
            log.warning("notices cannot be followed now: %s", error)
        await asyncio.sleep(wait)
        wait = min(2 * wait, _LONGEST_WAIT)


def _heard(house: House, event: Event) -> None:
    if event.event in _ENDING and event.user is not None:
        house.pictures.drop_of(event.client, event.user)
        ended = house.sessions.end_of(event.client, event.user)
        if ended:
            log.info("%s/%s is logged out: %s", event.client, event.user, event.event)
