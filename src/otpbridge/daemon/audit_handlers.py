"""Admin.AuditTail and Admin.AuditVerify: the audit log as admins read and check it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import msgspec

from otpbridge.daemon.desk import Desk, invalid
from otpbridge.daemon.followers import Board
from otpbridge.daemon.pages import send_but_last
from otpbridge.store import auditlog
from otpbridge.store.auditlog import AuditRow
from otpbridge.wire.messages import AuditTail, AuditTailReply, AuditVerify, AuditVerifyReply, Entry
from otpbridge.wire.service import Call

_PAGE = 100
_MOST_ENTRIES = 100_000


class AuditDesk:
    """The handlers of Admin.AuditTail and Admin.AuditVerify."""

    def __init__(self, desk: Desk, board: Board) -> None:
        self._desk = desk
        self._board = board

    async def tail(self, call: Call, asked: AuditTail) -> AuditTailReply:
        """The newest entries, then, when following, each new one."""
        count = 20 if asked.count is None else asked.count
        if not 0 <= count <= _MOST_ENTRIES:
            raise invalid("count")
        store = self._desk.store
        if not asked.follow:
            return await _send(call, await store.read_long(partial(auditlog.newest, count=count)))
        with self._board.following(every=True) as follower:
            follower.position, _ = await store.read(auditlog.anchor)
            rows = await store.read_long(partial(auditlog.newest, count=count))
            while not self._board.closed:
                if rows:
                    await call.send(await _send(call, rows))
                    follower.position = rows[-1].sequence
                follower.reading()
                rows = await store.read_long(partial(auditlog.after, sequence=follower.position, most=_PAGE))
                if not rows:
                    await follower.news()
            return AuditTailReply(entries=())

    async def verify(self, call: Call, asked: AuditVerify) -> AuditVerifyReply:
        """Check the whole chain."""
        store = self._desk.store
        try:
            found = await store.read_long(partial(store.audit.check, anchor=asked.anchor))
        except ValueError:
            raise invalid("anchor") from None
        return AuditVerifyReply(
            intact=found.fault is None, entries=found.entries, anchor=found.anchor, fault=found.fault
        )


async def _send(call: Call, rows: Sequence[AuditRow]) -> AuditTailReply:
    """Send rows but for those of the last reply, which is given back."""
    return await send_but_last(call, map(_entry, rows), lambda some: AuditTailReply(entries=some))


def _entry(row: AuditRow) -> Entry:
    return msgspec.convert({"sequence": row.sequence, **msgspec.json.decode(row.entry)}, Entry)
