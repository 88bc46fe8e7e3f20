"""The audit log: append-only rows, each with a MAC over itself and the MAC before it.

The key lives in the vault, so who can write the database cannot write history: an edited, removed, swapped or added
row breaks the chain (`chain`), and a cut end does not fit the head that `meta` holds. An anchor (`sequence:mac`)
noted elsewhere also finds a whole store put back to an older state. Old rows go to archives (`retention`).
"""

from __future__ import annotations

import hashlib
import hmac
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import msgspec
from sqlalchemy import Connection, Dialect, select

from otpbridge.errors import StoreError
from otpbridge.model import AuditEvent, Secret
from otpbridge.store import retention, statements, tables
from otpbridge.store.chain import BEGINNING, HEAD, AuditRow, BrokenChainError, Chain, Mark, parse_anchor
from otpbridge.store.statements import Prepared, json_rows

_BLOCKS = (64, 16, 4, 1)
_PIECE = 500

_encode = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True)
class AuditCheck:
    """What a check of the whole chain found. `fault` is None when it is intact.

    `entries` were written in all; those up to where the log `begins` are in archives alone.
    """

    begins: Mark
    entries: int
    anchor: str
    fault: str | None


class _Line(msgspec.Struct, omit_defaults=True):
    at: float
    event: str
    client: str | None = None
    user: str | None = None
    token: str | None = None
    verdict: str | None = None
    reason: str | None = None
    stack: str | None = None
    uid: int | None = None
    pid: int | None = None
    service: str | None = None
    rhost: str | None = None
    host: str | None = None
    detail: dict[str, str | int | bool] | None = None


class _About(msgspec.Struct):
    """Whom a line is about."""

    client: str | None = None
    user: str | None = None


_decode_about = msgspec.json.Decoder(_About).decode


def _nobody(_rows: int) -> None:
    """Is told nothing."""


class AuditLog:
    """Appends under one key, and checks."""

    def __init__(self, dialect: Dialect, key: Secret) -> None:
        self._key = key
        self.chain = Chain(key)
        self._head = Prepared(statements.head(), dialect)
        local = dialect.name == "sqlite"
        self._appends = statements.appends(dialect, _BLOCKS) if local else []
        self._append_rows = None if local else Prepared(statements.append_rows(dialect), dialect)
        self._move = Prepared(statements.move_head(), dialect)

    def append(self, cursor: Any, events: Sequence[tuple[int, AuditEvent]]) -> list[AuditRow]:
        """Write events (with their time in milliseconds) inside the caller's transaction."""
        sequence, mac = self._head.run(cursor).fetchone()
        key = self._key.reveal()
        rows: list[AuditRow] = []
        values: list[tuple[int, str | None, str | None, str, bytes]] = []
        for at, event in events:
            line = _Line(
                at / 1000,
                event.event,
                event.client,
                event.user,
                event.token,
                event.verdict,
                event.reason,
                event.stack,
                event.uid,
                event.pid,
                event.service,
                event.rhost,
                event.host,
                event.detail,
            )
            entry = _encode(line)
            sequence += 1
            mac = hmac.digest(key, bytes(mac) + sequence.to_bytes(8, "big") + entry, hashlib.sha256)
            rows.append(AuditRow(sequence, entry.decode()))
            values.append((sequence, event.client, event.user, rows[-1].entry, mac))
        self._insert(cursor, values)
        self._move.run(cursor, s=sequence, m=mac)
        return rows

    def _insert(self, cursor: Any, values: Sequence[tuple[int, str | None, str | None, str, bytes]]) -> None:
        """Insert in few statements: each costs the writer the interpreter lock, which all others want too."""
        if self._append_rows is not None:
            self._append_rows.run(cursor, rows=json_rows([(*row[:-1], row[-1].hex()) for row in values]))
            return
        done = 0
        for size, sql in self._appends:
            while len(values) - done >= size:
                cursor.execute(sql, [*chain.from_iterable(values[done : done + size])])
                done += size

    def follow(self, mark: Mark, row: Sequence[Any]) -> Mark:
        """The mark behind a row of the table that stands on `mark`. Raises BrokenChainError where it does not."""
        sequence, client, name, entry, mac = row
        mark = self.chain.follow(mark, sequence, entry.encode(), bytes(mac))
        about = _decode_about(entry)
        if (client, name) != (about.client, about.user):
            raise BrokenChainError(f"entry {sequence} is put down to somebody whom it is not about")
        return mark

    def check(
        self,
        connection: Connection,
        anchor: str | None = None,
        *,
        rest: float = 0.0,
        told: Callable[[int], None] = _nobody,
    ) -> AuditCheck:
        """Walk the whole chain. `anchor` is one that an earlier check gave. Raises ValueError for a bad anchor.

        After each piece it rests for `rest` times as long as that took, for others to work. `told` hears how many
        rows were checked.
        """
        expected = parse_anchor(anchor) if anchor else None
        found = connection.execute(
            select(tables.meta.c.number, tables.meta.c.value).where(tables.meta.c.name == HEAD)
        ).one_or_none()
        head = None if found is None else Mark(found.number, bytes(found.value))
        begins = mark = BEGINNING
        fault: str | None = None
        # Of this statement alone: options of the connection would be those of all that follow.
        rows = connection.execute(
            select(tables.audit).order_by(tables.audit.c.sequence), execution_options={"yield_per": _PIECE}
        )
        try:
            begins = mark = retention.begins(connection, self.chain)
            if expected and expected.sequence < begins.sequence:
                raise StoreError(
                    f"entry {expected.sequence}, which the anchor is of, was archived and cut off: check the anchor "
                    "together with the archive, otpbridge audit verify --anchor ANCHOR FILE"
                )
            _compare(mark, expected)
            for piece in rows.partitions():
                begun = time.perf_counter()
                for row in piece:
                    mark = self.follow(mark, row)
                    _compare(mark, expected)
                told(mark.sequence - begins.sequence)
                time.sleep(rest * (time.perf_counter() - begun))
            _check_end(mark, head, expected)
        except BrokenChainError as error:
            fault = str(error)
        finally:
            rows.close()
        return AuditCheck(begins, mark.sequence, mark.anchor, fault)


def anchor(connection: Connection) -> tuple[int, str]:
    """The number of entries, and the anchor of the newest."""
    number, value = connection.execute(
        select(tables.meta.c.number, tables.meta.c.value).where(tables.meta.c.name == HEAD)
    ).one()
    return number, f"{number}:{bytes(value).hex()}"


def newest(connection: Connection, count: int) -> list[AuditRow]:
    """The newest rows, oldest first."""
    audit = tables.audit
    rows = connection.execute(
        select(audit.c.sequence, audit.c.entry).order_by(audit.c.sequence.desc()).limit(count)
    ).all()
    return [AuditRow(row.sequence, row.entry) for row in reversed(rows)]


def after(connection: Connection, sequence: int, most: int) -> list[AuditRow]:
    """The rows that follow a sequence, oldest first, `most` at most."""
    audit = tables.audit
    rows = connection.execute(
        select(audit.c.sequence, audit.c.entry)
        .where(audit.c.sequence > sequence)
        .order_by(audit.c.sequence)
        .limit(most)
    ).all()
    return [AuditRow(row.sequence, row.entry) for row in rows]


def _compare(mark: Mark, expected: Mark | None) -> None:
    if expected and mark.sequence == expected.sequence and mark != expected:
        raise BrokenChainError(f"entry {mark.sequence} is not the one of the anchor: the log was replaced")


def _check_end(mark: Mark, head: Mark | None, expected: Mark | None) -> None:
    if head is None:
        raise BrokenChainError("the head of the log is missing")
    if head != mark:
        raise BrokenChainError(
            f"the log ends at entry {mark.sequence}, but its head says {head.sequence}: the end was cut or added to"
        )
    if expected and expected.sequence > mark.sequence:
        raise BrokenChainError(
            f"the log ends at entry {mark.sequence}, before the anchor's entry {expected.sequence}: it was put back"
        )
