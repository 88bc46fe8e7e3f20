"""The audit log: append-only rows, each with a MAC over itself and the MAC before it.

`mac(n) = HMAC-SHA256(key, mac(n-1) | n as 8 bytes | entry(n))`. The key lives in the vault, so who can write the
database cannot write history: an edited, removed, swapped or added row breaks the chain, and a cut end does not fit
the head that `meta` holds. An anchor (`sequence:mac`) noted elsewhere also finds a whole store put back to an older
state.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
from sqlalchemy import Connection, Dialect, Select, select

from otpbridge.model import AuditEvent, Secret
from otpbridge.store import statements, tables
from otpbridge.store.statements import Prepared, json_rows

HEAD = "audit head"
GENESIS = bytes(32)
_BLOCKS = (64, 16, 4, 1)

_encode = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True)
class AuditRow:
    """A row as it stands in the log; `entry` is JSON text."""

    sequence: int
    entry: str


@dataclass(frozen=True, slots=True)
class AuditCheck:
    """What a check of the whole chain found. `fault` is None when it is intact."""

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
    uid: int | None = None
    pid: int | None = None
    service: str | None = None
    rhost: str | None = None
    detail: dict[str, str | int | bool] | None = None


class _About(msgspec.Struct):
    """Whom a line is about."""

    client: str | None = None
    user: str | None = None


_decode_about = msgspec.json.Decoder(_About).decode


class AuditLog:
    """Appends under one key, and checks."""

    def __init__(self, dialect: Dialect, key: Secret) -> None:
        self._key = key
        self._head = Prepared(statements.head(), dialect)
        local = dialect.name == "sqlite"
        self._appends = [(rows, Prepared(statements.append(rows), dialect)) for rows in _BLOCKS] if local else []
        self._append_rows = None if local else Prepared(statements.append_rows(dialect), dialect)
        self._move = Prepared(statements.move_head(), dialect)

    def append(self, cursor: Any, events: Sequence[tuple[int, AuditEvent]]) -> list[AuditRow]:
        """Write events (with their time in milliseconds) inside the caller's transaction."""
        sequence, mac = self._head.run(cursor).fetchone()
        key = self._key.reveal()
        rows: list[AuditRow] = []
        values: list[dict[str, Any]] = []
        for at, event in events:
            line = _Line(
                at / 1000,
                event.event,
                event.client,
                event.user,
                event.token,
                event.verdict,
                event.reason,
                event.uid,
                event.pid,
                event.service,
                event.rhost,
                event.detail,
            )
            entry = _encode(line)
            sequence += 1
            mac = hmac.digest(key, bytes(mac) + sequence.to_bytes(8, "big") + entry, hashlib.sha256)
            rows.append(AuditRow(sequence, entry.decode()))
            values.append({"s": sequence, "c": event.client, "n": event.user, "e": rows[-1].entry, "m": mac})
        self._insert(cursor, values)
        self._move.run(cursor, s=sequence, m=mac)
        return rows

    def _insert(self, cursor: Any, values: Sequence[dict[str, Any]]) -> None:
        """Insert in few statements: each costs the writer the interpreter lock, which all others want too."""
        if self._append_rows is not None:
            rows = [(row["s"], row["c"], row["n"], row["e"], row["m"].hex()) for row in values]
            self._append_rows.run(cursor, rows=json_rows(rows))
            return
        done = 0
        for size, statement in self._appends:
            while len(values) - done >= size:
                block = values[done : done + size]
                statement.run(
                    cursor, **{f"{name}{place}": v for place, row in enumerate(block) for name, v in row.items()}
                )
                done += size

    def check(self, connection: Connection, anchor: str | None = None) -> AuditCheck:
        """Walk the whole chain. `anchor` is one that an earlier check gave. Raises ValueError for a bad anchor."""
        expected = _parse_anchor(anchor) if anchor else None
        head = connection.execute(
            select(tables.meta.c.number, tables.meta.c.value).where(tables.meta.c.name == HEAD)
        ).one_or_none()
        key = self._key.reveal()
        mac = GENESIS
        count = 0
        fault: str | None = None
        # Of this statement alone: options of the connection would be those of all that follow.
        rows = connection.execute(
            select(tables.audit).order_by(tables.audit.c.sequence), execution_options={"yield_per": 1000}
        )
        for sequence, client, name, entry, stored in rows:
            count += 1
            if sequence != count:
                fault = f"entry {count} is missing"
                break
            mac = hmac.digest(key, mac + sequence.to_bytes(8, "big") + entry.encode(), hashlib.sha256)
            if not hmac.compare_digest(mac, bytes(stored)):
                fault = f"entry {count} was changed, or stands where another one stood"
                break
            about = _decode_about(entry)
            if (client, name) != (about.client, about.user):
                fault = f"entry {count} is put down to somebody whom it is not about"
                break
            if expected and expected[0] == count and not hmac.compare_digest(mac, expected[1]):
                fault = f"entry {count} is not the one of the anchor: the log was replaced"
                break
        rows.close()
        if fault is None and head is None:
            fault = "the head of the log is missing"
        elif fault is None and head is not None and (head[0] != count or bytes(head[1]) != mac):
            fault = f"the log ends at entry {count}, but its head says {head[0]}: the end was cut or added to"
        elif fault is None and expected and expected[0] > count:
            fault = f"the log ends at entry {count}, before the anchor's entry {expected[0]}: it was put back"
        return AuditCheck(count, f"{count}:{mac.hex()}", fault)


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


def of_user(connection: Connection, client: str, name: str, before: int | None, most: int) -> list[AuditRow]:
    """The rows about a user, newest first, `most` at most: from the end, or from before a sequence."""
    rows = connection.execute(query_of_user(client, name, before, most))
    return [AuditRow(row.sequence, row.entry) for row in rows]


def query_of_user(client: str, name: str, before: int | None, most: int) -> Select[Any]:
    """What `of_user` asks."""
    audit = tables.audit
    query = (
        select(audit.c.sequence, audit.c.entry)
        .where(audit.c.client == client, audit.c.name == name)
        .order_by(audit.c.sequence.desc())
        .limit(most)
    )
    return query if before is None else query.where(audit.c.sequence < before)


def _parse_anchor(text: str) -> tuple[int, bytes]:
    number, _, mac = text.partition(":")
    try:
        parsed = int(number), bytes.fromhex(mac)
    except ValueError:
        parsed = 0, b""
    if len(parsed[1]) != 32:
        raise ValueError("an anchor looks like 1234:64 hex digits, as `otpbridge audit verify` prints it")
    return parsed
