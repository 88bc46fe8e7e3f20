"""Has the audit log listed by user while nobody waits: after the logins, not with them."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable

from otpbridge.errors import StoreError
from otpbridge.store.about import ENOUGH
from otpbridge.store.chain import AuditRow

log = logging.getLogger(__name__)

_MOST_UNLISTED = 100_000
"""With more entries than that, nobody waits for a lull any longer."""
_LULL = 0.1
"""Seconds without an entry after which a slice is listed."""
_PAUSE = 0.02
"""Seconds between two slices where there is no lull."""
_RETRY = 60.0
"""Seconds after a failure."""


class Lister:
    """Keeps the list of a store. Use it from one event loop.

    `list_slice` lists a slice in a transaction and gives how many entries are left, as `unlisted` was at first.
    """

    def __init__(self, list_slice: Callable[[], Awaitable[int]], unlisted: int) -> None:
        self._list_slice = list_slice
        self._loop = asyncio.get_running_loop()
        self._unlisted = unlisted
        self._newest = 0.0
        self._closed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._begin()

    def told(self, rows: list[AuditRow]) -> None:
        """Entries were committed."""
        self._unlisted += len(rows)
        self._newest = self._loop.time()
        self._begin()

    async def close(self) -> None:
        """Leave the rest unlisted."""
        self._closed.set()
        if self._task is not None:
            await self._task

    def _begin(self) -> None:
        if self._unlisted >= ENOUGH and self._task is None:
            self._task = asyncio.create_task(self._list())

    async def _list(self) -> None:
        while self._unlisted >= ENOUGH and await self._lull():
            try:
                self._unlisted = await self._list_slice()
            except StoreError as error:
                log.warning("the audit log cannot be listed by user: %s", error)
                await self._goes_on(_RETRY)
        self._task = None

    async def _lull(self) -> bool:
        """Wait until a slice may be listed; whether one is to be."""
        if self._unlisted > _MOST_UNLISTED:
            return await self._goes_on(_PAUSE)
        while (rest := self._newest + _LULL - self._loop.time()) > 0:
            if not await self._goes_on(rest):
                return False
        return not self._closed.is_set()

    async def _goes_on(self, seconds: float) -> bool:
        """Wait for so long, unless it is closed meanwhile."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._closed.wait(), seconds)
        return not self._closed.is_set()
