"""org.otpbridge.Notices: callers follow the audit log, as far as it is for people to hear."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from otpbridge.config import Right
from otpbridge.daemon.desk import Counter, Desk, client_of, denied, invalid
from otpbridge.daemon.followers import MARK, Board, Follower
from otpbridge.daemon.notices import Telling, telling
from otpbridge.daemon.policy import Authority
from otpbridge.model import Caller
from otpbridge.store import auditlog, tokens
from otpbridge.wire.messages import NOTICES, Event, Watch, WatchReply
from otpbridge.wire.service import Call, VarlinkError

_PAGE = 1000
"""Rows of the log that are read at a time."""
_EVENTS = 10
"""Events of a reply: with the longest names and reasons that there can be, they fit into a message."""


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
            end, _ = await store.read(auditlog.anchor)
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
                if follower.position - follower.told >= MARK:
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
            named = await self.desk.store.read(partial(tokens.named, ids=ids)) if ids else {}
            events = tuple(each.event(named.get(each.token or "")) for each in some)
            await self._send(call, follower, events, some[-1].sequence)

    @staticmethod
    async def _send(call: Call, follower: Follower, events: tuple[Event, ...], sequence: int) -> None:
        await call.send(WatchReply(events=events, sequence=sequence))
        follower.told = sequence
