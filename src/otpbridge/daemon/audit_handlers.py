"""The audit log as admins read, check, export and shorten it."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import aclosing
from functools import partial

import msgspec

from otpbridge.daemon.archiving import DAY, Archivist
from otpbridge.daemon.desk import Desk, event, invalid
from otpbridge.daemon.followers import Board
from otpbridge.daemon.pages import send_but_last
from otpbridge.model import AuditEvent
from otpbridge.store import auditlog, retention
from otpbridge.store.chain import AuditRow, BrokenChainError, parse_anchor
from otpbridge.wire.messages import (
    AuditCheckRows,
    AuditCheckRowsReply,
    AuditExport,
    AuditExportReply,
    AuditPrune,
    AuditPruneReply,
    AuditTail,
    AuditTailReply,
    AuditVerify,
    AuditVerifyReply,
    Entry,
)
from otpbridge.wire.service import Call

_PAGE = 100
_MOST_ENTRIES = 100_000
_PIECE = 24_000
_REST = 1.5
"""Of a check, in parts of the time that it works."""


class AuditDesk:
    """The handlers of Admin.Audit…"""

    def __init__(self, desk: Desk, board: Board, archivist: Archivist) -> None:
        self._desk = desk
        self._board = board
        self._archivist = archivist

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
            found = await store.read_long(partial(store.audit.check, anchor=asked.anchor, rest=_REST))
        except ValueError:
            raise invalid("anchor") from None
        return AuditVerifyReply(
            intact=found.fault is None,
            entries=found.entries,
            begins=found.begins.anchor,
            anchor=found.anchor,
            fault=found.fault,
        )

    async def export(self, call: Call, asked: AuditExport) -> AuditExportReply:
        """Stream entries as an archive; the last reply is empty."""
        piece: list[str] = []
        size = 0
        async with aclosing(self._archivist.lines(asked.before)) as lines:
            async for line in lines:
                piece.append(line.decode())
                size += len(line)
                if size >= _PIECE:
                    await call.send(AuditExportReply(data="".join(piece)))
                    piece, size = [], 0
        await call.send(AuditExportReply(data="".join(piece)))
        return AuditExportReply(data="")

    async def prune(self, call: Call, asked: AuditPrune) -> AuditPruneReply:
        """Archive old entries and cut them off, a reply per archive; the last reply is empty."""
        if asked.before > self._desk.clock() - DAY:
            raise invalid("before")

        def cause(name: str, detail: dict[str, str | int | bool]) -> AuditEvent:
            return event(call, name, detail=detail)

        async with aclosing(self._archivist.cut(asked.before, cause)) as cuts:
            async for cut in cuts:
                await call.send(AuditPruneReply(file=str(cut.file), first=cut.first, last=cut.last))
        return AuditPruneReply()

    async def check_rows(self, call: Call, asked: AuditCheckRows) -> AuditCheckRowsReply:
        """Check rows of an archive against the key."""
        chain = self._desk.store.audit.chain
        begins = await self._desk.store.read(partial(retention.begins, chain=chain))
        try:
            mark = parse_anchor(asked.anchor)
            macs = [bytes.fromhex(row.mac) for row in asked.rows]
        except ValueError:
            raise invalid("rows") from None
        try:
            for row, mac in zip(asked.rows, macs, strict=True):
                mark = chain.follow(mark, row.sequence, row.entry.encode(), mac)
        except BrokenChainError as error:
            return AuditCheckRowsReply(begins=begins.anchor, fault=str(error))
        return AuditCheckRowsReply(begins=begins.anchor)


async def _send(call: Call, rows: Sequence[AuditRow]) -> AuditTailReply:
    """Send rows but for those of the last reply, which is given back."""
    return await send_but_last(call, map(_entry, rows), lambda some: AuditTailReply(entries=some))


def _entry(row: AuditRow) -> Entry:
    return msgspec.convert({"sequence": row.sequence, **msgspec.json.decode(row.entry)}, Entry)
