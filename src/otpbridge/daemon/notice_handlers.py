"""org.otpbridge.Notices: callers follow the audit log, as far as it is for people to hear.

A follower holds no rows that wait for it: it is woken, and reads the log on from where it is. So one that is slow, or
does not read at all, costs logins nothing and misses nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial

from otpbridge.config import Right
from otpbridge.daemon.desk import Counter, Desk, client_of, denied, invalid
from otpbridge.daemon.notices import Telling, telling
from otpbridge.daemon.policy import Authority
from otpbridge.model import Caller
from otpbridge.store import auditlog, tokens
from otpbridge.store.auditlog import AuditRow
from otpbridge.store.store import Store
from otpbridge.wire.messages import NOTICES, Event, Watch, WatchReply
from otpbridge.wire.service import Call, VarlinkError

_PAGE = 1000
"""Rows of the log that are read at a time."""
_EVENTS = 10
"""Events of a reply: with the longest names and reasons that there can be, they fit into a message."""
_MARK = 10_000
"""Rows that nobody is told of, after which a follower hears how far the log has come."""


class Follower:
    """One caller who follows the log. `position` is the row up to which it has been seen through."""

    __slots__ = ("_idle", "_news", "position", "told")

    def __init__(self) -> None:
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
        follows = rows[0].sequence == self.position + 1 and rows[-1].sequence - self.told < _MARK
        if self._idle and not self._news.is_set() and not worth and follows:
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
    def following(self) -> Iterator[Follower]:
        """One more, while the block lasts."""
        follower = Follower()
        self._followers.add(follower)
        try:
            yield follower
        finally:
            self._followers.discard(follower)

    def close(self) -> None:
        """Send all away: the daemon stops."""
        self.closed = True
        for follower in self._followers:
            follower.wake()

    def _written(self, rows: list[AuditRow]) -> None:
        if self._followers:
            worth = any(telling(row) is not None for row in rows)
            for follower in self._followers:
                follower.heard(rows, worth=worth)


class NoticesCounter(Counter):
    """The handler of org.otpbridge.Notices for one socket."""

    def __init__(self, desk: Desk, board: Board, *, admin: bool) -> None:
        super().__init__(desk, admin=admin)
        self._board = board

    async def watch(self, call: Call, asked: Watch) -> WatchReply:
        """What happened after a place in the log, then what happens."""
        caller, store = self.caller(call), self.desk.store
        client = None if asked.client is None else client_of(asked.client)
        self._permit(caller, client)
        with self._board.following() as follower:
            end, _ = store.read(auditlog.anchor)
            follower.position = follower.told = end if asked.after is None else asked.after
            if follower.position < 0:
                raise invalid("after")
            if follower.position > end:
                raise VarlinkError(f"{NOTICES}.BeyondEnd", {"sequence": end})
            await call.send(WatchReply(events=(), sequence=follower.position))
            while not self._board.closed:
                follower.reading()
                rows = await store.read_long(partial(auditlog.after, sequence=follower.position, most=_PAGE))
                # Again, as the configuration may have changed meanwhile.
                self._permit(caller, client)
                found = [each for row in rows if (each := telling(row)) and self._may_hear(caller, client, each)]
                await self._tell(call, follower, found)
                if rows:
                    follower.position = rows[-1].sequence
                if follower.position - follower.told >= _MARK:
                    await self._send(call, follower, (), follower.position)
                if len(rows) < _PAGE:
                    await follower.news()
            return WatchReply(events=(), sequence=follower.position)

    def _permit(self, caller: Caller, client: str | None) -> None:
        """Raise PermissionDenied where a caller may hear nothing of a client, or of any."""
        rights = self.desk.rights
        if client is None:
            permitted = rights.anywhere(caller, Right.NOTICES)
        else:
            permitted = rights.given(caller, client, Right.NOTICES) is not Authority.NONE
        if not permitted:
            raise denied()

    def _may_hear(self, caller: Caller, client: str | None, found: Telling) -> bool:
        wanted = client is None or client == found.client
        return wanted and self.desk.rights.given(caller, found.client, Right.NOTICES) is not Authority.NONE

    async def _tell(self, call: Call, follower: Follower, found: Sequence[Telling]) -> None:
        for start in range(0, len(found), _EVENTS):
            some = found[start : start + _EVENTS]
            ids = {each.token for each in some if each.token is not None}
            named = self.desk.store.read(partial(tokens.named, ids=ids)) if ids else {}
            events = tuple(each.event(named.get(each.token or "")) for each in some)
            await self._send(call, follower, events, some[-1].sequence)

    @staticmethod
    async def _send(call: Call, follower: Follower, events: tuple[Event, ...], sequence: int) -> None:
        await call.send(WatchReply(events=events, sequence=sequence))
        follower.told = sequence
