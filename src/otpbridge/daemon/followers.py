"""Those who follow the audit log over a connection.

A follower holds no rows that wait for it: it is woken, and reads the log on from where it is. So one that is slow, or
does not read at all, costs logins nothing and misses nothing, in whatever order commits are told of.

What other daemons write to a shared store nobody here tells of. So while somebody follows, the end of the log is
looked at twice a second, whatever became of the server in between. (LISTEN would be a connection more that can be
lost without a sign, and NOTIFY would make each commit wait for those of all others.)
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from otpbridge.daemon.notices import telling
from otpbridge.errors import StoreError
from otpbridge.store import auditlog
from otpbridge.store.chain import AuditRow
from otpbridge.store.store import Store

log = logging.getLogger(__name__)

_LOOK_SECONDS = 0.5

MARK = 10_000
"""Rows that nobody is told of, after which a follower hears how far the log has come."""


class Follower:
    """One caller who follows the log. `position` is the row up to which it has been seen through.

    With `every` they hear of every row, else of those that people are told of.
    """

    __slots__ = ("_every", "_idle", "_news", "position", "told")

    def __init__(self, *, every: bool = False) -> None:
        self._every = every
        self.position = self.told = 0
        self._idle = False
        self._news = asyncio.Event()

    def reading(self) -> None:
        """The log is read from `position` on: what is written from now on is news."""
        self._news.clear()

    async def news(self) -> None:
        """Wait until something may have to be told."""
        self._idle = True
        try:
            await self._news.wait()
        finally:
            self._idle = False

    def wake(self) -> None:
        """There is something to do."""
        self._news.set()

    def heard(self, rows: Sequence[AuditRow], *, worth: bool) -> None:
        """Rows are on disk. Where nobody is told of them, and none is missing before them, they are done with."""
        follows = rows[0].sequence == self.position + 1 and rows[-1].sequence - self.told < MARK
        if self._idle and not self._news.is_set() and not worth and not self._every and follows:
            self.position = rows[-1].sequence
        else:
            self._news.set()


class Board:
    """All who follow the log of one daemon."""

    def __init__(self, store: Store) -> None:
        self.closed = False
        self._followers: set[Follower] = set()
        store.watch(self._written)

    @contextmanager
    def following(self, *, every: bool = False) -> Iterator[Follower]:
        """One more, while the block lasts."""
        follower = Follower(every=every)
        self._followers.add(follower)
        try:
            yield follower
        finally:
            self._followers.discard(follower)

    def places(self) -> list[int]:
        """How far each has come."""
        return [follower.position for follower in self._followers]

    def close(self) -> None:
        """Send all away: the daemon stops."""
        self.closed = True
        for follower in self._followers:
            follower.wake()

    async def keep_up(self, store: Store) -> None:
        """Wake those who follow when other daemons have written. Runs until it is cancelled."""
        failing = False
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            if not self._followers:
                continue
            try:
                end, _ = await store.read(auditlog.anchor)
            except StoreError as error:
                if not failing:
                    log.warning("those who follow the audit log hear only of what is written here: %s", error)
                failing = True
                continue
            failing = False
            for follower in self._followers:
                if follower.position < end:
                    follower.wake()

    def _written(self, rows: list[AuditRow]) -> None:
        if self._followers:
            worth = any(telling(row) is not None for row in rows)
            for follower in self._followers:
                follower.heard(rows, worth=worth)
