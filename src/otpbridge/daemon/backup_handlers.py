"""Admin.Backup: a consistent copy of the store, streamed."""

from __future__ import annotations

import asyncio
import time
from contextlib import closing

from otpbridge.daemon.archiving import rest
from otpbridge.daemon.desk import Desk, event
from otpbridge.store import backup
from otpbridge.wire.messages import Backup, BackupReply
from otpbridge.wire.service import Call

_REST = 1.0


class BackupDesk:
    """The handler of Admin.Backup."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    async def backup(self, call: Call, _asked: Backup) -> BackupReply:
        """Stream a backup; the last reply is empty."""
        desk = self._desk
        await desk.change(lambda transaction: transaction.audit(event(call, "backup taken")))
        with (
            await asyncio.to_thread(desk.store.engine.connect) as connection,
            closing(backup.dump(connection, desk.store.backup_key, int(desk.clock()))) as pieces,
        ):
            begun = time.perf_counter()
            while (piece := await asyncio.to_thread(next, pieces, None)) is not None:
                await call.send(BackupReply(data=piece))
                await rest(begun, _REST)
                begun = time.perf_counter()
        return BackupReply(data="")
