"""Admin.Import: lines come in several calls, are checked as they come, and count only when the last has come."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from otpbridge.daemon.desk import Desk, client_of, event
from otpbridge.daemon.ids import new_token_id
from otpbridge.enroll.lines import ImportLine, parse_line
from otpbridge.errors import EnrolError
from otpbridge.model import Kind, OtpParameters, State, Token
from otpbridge.otp.yubiotp import YubiKey, modhex
from otpbridge.store import imports
from otpbridge.store.writer import Transaction
from otpbridge.vault.seal import token_identity
from otpbridge.wire.messages import Import, ImportReply, LineError
from otpbridge.wire.service import Call

_SPOOL = "import"
_WATCHED = "import watched"
_MOST_ERRORS = 100
_PENDING_SECONDS = 30 * 86_400
"""How long an imported pending token waits: people get round to it within the month."""
_LINES_PER_TURN = 50


@dataclass(slots=True)
class _Spool:
    """An import under way on one connection."""

    id: str
    key_id: bytes
    errors: list[LineError] = field(default_factory=list)


class ImportDesk:
    """The handler of Admin.Import."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    async def take(self, call: Call, asked: Import) -> ImportReply:
        """Stage some lines; with the last, take all over or none."""
        desk, client = self._desk, client_of(asked.client)
        spool: _Spool = call.connection.state.get(_SPOOL) or self._open(call)
        rows = await self._parse(spool, asked, client)
        # After an error nothing will be stored; later lines are only checked, so that all errors show at once.
        if rows and not spool.errors:
            await desk.change(lambda transaction: imports.stage(transaction, spool.id, rows))
        if not asked.last:
            return ImportReply(imported=0, errors=())
        del call.connection.state[_SPOOL]
        if spool.key_id != desk.store.vault.keyring.primary.id:
            spool.errors.append(LineError(line=0, reason="the master key was rotated meanwhile; import again"))
        taken, found = 0, spool.errors
        if not found:

            def work(transaction: Transaction) -> tuple[int, list[tuple[int, str]]]:
                duplicates = imports.duplicates(transaction, spool.id, _MOST_ERRORS)
                if duplicates:
                    return 0, duplicates
                count = imports.finish(transaction, spool.id)
                detail: dict[str, str | int | bool] = {"tokens": count, "pending": bool(asked.pending)}
                transaction.audit(event(call, "tokens imported", client=client, detail=detail))
                return count, []

            taken, duplicates = await desk.change(work)
            found = [LineError(line=line, reason=reason) for line, reason in duplicates]
        if found:
            await desk.change(lambda transaction: imports.drop(transaction, spool.id))
        return ImportReply(imported=taken, errors=tuple(found[:_MOST_ERRORS]))

    def _open(self, call: Call) -> _Spool:
        spool = _Spool(new_token_id(self._desk.random), self._desk.store.vault.keyring.primary.id)
        state = call.connection.state
        state[_SPOOL] = spool
        if _WATCHED not in state:
            state[_WATCHED] = True
            call.connection.on_close(partial(self._abandon, state))
        return spool

    def _abandon(self, state: dict[str, Any]) -> None:
        """Forget an import whose connection has ended before its last call."""
        spool: _Spool | None = state.get(_SPOOL)
        if spool is not None:
            change = self._desk.store.change(
                lambda transaction: imports.drop(transaction, spool.id), self._desk.now_ms
            )
            change.add_done_callback(lambda done: done.cancelled() or done.exception())

    async def _parse(self, spool: _Spool, asked: Import, client: str) -> list[tuple[int, Token, bytes, bytes]]:
        rows = []
        for offset, line in enumerate(asked.lines):
            number = asked.first_line + offset
            try:
                parsed = parse_line(line)
            except EnrolError as error:
                if len(spool.errors) < _MOST_ERRORS:
                    spool.errors.append(LineError(line=number, reason=str(error)))
                continue
            if parsed is not None and not spool.errors:
                rows.append((number, *self._seal(parsed, client, pending=bool(asked.pending))))
            if offset % _LINES_PER_TURN == _LINES_PER_TURN - 1:
                await asyncio.sleep(0)  # let logins through
        return rows

    def _seal(self, line: ImportLine, client: str, *, pending: bool) -> tuple[Token, bytes, bytes]:
        desk, now, key = self._desk, int(self._desk.clock()), line.key
        token = Token(
            id=new_token_id(desk.random),
            user=line.user,
            client=client,
            kind=Kind.YUBIOTP,
            state=State.PENDING if pending else State.ACTIVE,
            parameters=OtpParameters(),
            created_at=now,
            expires_at=now + _PENDING_SECONDS if pending else None,
            confirmed_at=None if pending else now,
        )
        if isinstance(key, YubiKey):
            token = token._replace(label=modhex(key.public_id))
            seed, sealed = key.aes_key, key.pack()
        else:
            token = token._replace(
                kind=key.kind,
                parameters=key.parameters,
                moving_factor=key.counter,
                drift=line.drift,
                label=key.account,
                issuer=key.issuer,
            )
            seed = sealed = key.secret
        return token, desk.store.vault.seal(sealed, token_identity(token)), desk.store.fingerprint(seed)
