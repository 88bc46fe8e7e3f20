"""Move a whole store to another database, so that never two stores accept a code, wherever that is interrupted.

The old store is held while it lasts. The target has no head of its log yet, without which no daemon opens it, but a
mark in its place: how far the log was copied, and which move that is. It is committed slice by slice, and who
repeats the move goes on behind the mark. At the end the old store loses the head of its log, and keeps in its place
which move has taken it; then the mark becomes the head. Who was interrupted in between repeats the move, to this
target alone.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from sqlalchemy import ColumnElement, Connection, Table, delete, insert, literal, select, text, update
from sqlalchemy.exc import DBAPIError

from otpbridge.errors import StoreError
from otpbridge.model import AuditEvent, Secret
from otpbridge.store import auditlog, backup, copying, rekey, retention, tables
from otpbridge.store.auditlog import AuditLog
from otpbridge.store.chain import HEAD, BrokenChainError, Mark
from otpbridge.store.engine import alone, begin, driver_of, is_shared, roll_back, transaction
from otpbridge.store.postgres import is_forbidden
from otpbridge.vault.seal import Vault, derive

_MOVED = "audit head, moved"
"""What the row of `meta` is called, in a store that was moved away, that was the head of the log."""
_ARRIVING = "audit head, arriving"
"""What it is called in a store that has not arrived yet."""
_TABLES = (tables.meta, tables.user, tables.token, tables.throttle, tables.seen, tables.relay, tables.audit)
_AT_ONCE = (tables.throttle, tables.seen, tables.relay)
"""What is small, or of this day."""
_MAC = 32
_ID = 16

_audit, _meta = tables.audit, tables.meta


class Told(Protocol):
    """Hears how far a move is."""

    def __call__(self, what: str, done: int, total: int) -> None:
        """So many of all were `what`, rows copied for instance."""


@dataclass(frozen=True, slots=True)
class Moved:
    """What a move has done. No rows where all of it was done before."""

    rows: dict[str, int]
    anchor: str


@dataclass(frozen=True, slots=True)
class _Head:
    """The row that is the head of a log, or stands in its place."""

    name: str
    number: int
    value: bytes

    @property
    def mark(self) -> Mark:
        """Where the log ends."""
        return Mark(self.number, self.value[:_MAC])


@dataclass(frozen=True, slots=True)
class _Arrival:
    """How far the log was copied, and by which move. Sealed under a key of the store: to others it says nothing."""

    mark: Mark
    id: bytes

    def sealed(self, key: Secret) -> bytes:
        """The value of its row."""
        value = self.mark.mac + self.id
        number = self.mark.sequence.to_bytes(8, "big")
        return value + hmac.digest(key.reveal(), number + value, hashlib.sha256)


def refuse(connection: Connection, where: str) -> None:
    """Raises StoreError for a store that was moved away, or has not arrived yet."""
    head = _head(connection)
    if head is not None and head.name == _MOVED:
        raise StoreError(f"{where}: this store was moved to another database; [store] url names that")
    if head is not None and head.name == _ARRIVING:
        raise StoreError(
            f"{where}: only a part of this store has been moved here. Run the same `otpbridge store migrate` again, "
            "with the configuration of the old store: it goes on where it was"
        )


def move(
    source: Connection, target: Connection, vault: Vault, now: int, *, random: Callable[[int], bytes], told: Told
) -> Moved:
    """Move a store, or go on with that. `now` in Unix seconds. Raises StoreError or VaultError.

    Both databases have all tables; those of the target are empty, or hold what the same move has copied.
    """
    root = rekey.root(source, vault)
    if root is None:
        refuse(source, "the store that is to be moved")
        raise StoreError("there is nothing to move: the store has no secret yet")
    with alone(target.engine, target):
        for each in (source, target):
            if is_shared(each.engine):
                each.exec_driver_sql("SET idle_in_transaction_session_timeout = 0; SET statement_timeout = 0")
        _hold(source)
        try:
            return _Move(source, target, root, told).run(vault, now, random)
        finally:
            roll_back(source)


class _Move:
    """One run of a move, from a store that is held."""

    def __init__(self, source: Connection, target: Connection, root: Secret, told: Told) -> None:
        self._source = source
        self._target = target
        self._root = root
        self._key = derive(root, "move")
        self._log = AuditLog(target.dialect, derive(root, "audit"))
        self._tell = told
        self._counts = {table: copying.count(source, table) for table in _TABLES}
        self._done = 0

    def run(self, vault: Vault, now: int, random: Callable[[int], bytes]) -> Moved:
        """Go on, to the end."""
        head = _head(self._source)
        if head is None:
            raise StoreError("the store that is to be moved has lost the head of its audit log; restore a backup")
        if head.name == _MOVED and self._is_there(vault, head.mark):
            return Moved({}, auditlog.anchor(self._target)[1])
        with transaction(self._target):
            begins = retention.begins(self._source, self._log.chain)
            arrival = self._begun(begins, random)
            if head.name == _MOVED and head.value[_MAC:] != arrival.id:
                raise StoreError("this store was moved to another database already")
            arrival = self._met(arrival, begins)
        self._copied(arrival.mark.sequence - begins.sequence)
        arrival = self._log_copied(arrival, head.mark)
        for table in (tables.user, tables.token):
            copying.make_equal(self._source, self._target, table, self._copied)
        if is_shared(self._target.engine):
            _count_on(self._target)
        with transaction(self._target):
            moved = self._finished(arrival, now)
            self._source.execute(
                update(_meta).where(_meta.c.name == HEAD).values(name=_MOVED, value=head.mark.mac + arrival.id)
            )
            self._source.exec_driver_sql("COMMIT")
        return moved

    def _is_there(self, vault: Vault, mark: Mark) -> bool:
        """Whether the target is where the old store was moved to, and wholly."""
        head = _head(self._target)
        there = head is not None and head.name == HEAD and backup.same_store(self._target, vault, self._root)
        return there and retention.holds(self._target, mark)

    def _begun(self, begins: Mark, random: Callable[[int], bytes]) -> _Arrival:
        """How far this move is; begun where the target is empty."""
        head = _head(self._target)
        if head is None and not any(self._has(table) for table in tables.metadata.sorted_tables):
            arrival = _Arrival(begins, random(_ID))
            row = {"name": _ARRIVING, "number": begins.sequence, "value": arrival.sealed(self._key)}
            self._target.execute(insert(_meta), row)
            return arrival
        if head is None or head.name != _ARRIVING:
            raise StoreError(
                "there is a store in the target already; move it out of the way, or give an empty database"
            )
        arrival = _Arrival(head.mark, head.value[_MAC : _MAC + _ID])
        if not hmac.compare_digest(arrival.sealed(self._key), head.value):
            raise StoreError("a part of another store is in the target; give an empty database")
        return arrival

    def _has(self, table: Table, *which: ColumnElement[bool]) -> bool:
        """Whether there are rows in a table of the target."""
        return self._target.execute(select(literal(1)).select_from(table).where(*which).limit(1)).first() is not None

    def _met(self, arrival: _Arrival, begins: Mark) -> _Arrival:
        """Take back what the old store has cut off its log meanwhile; where to go on."""
        if self._has(_audit, _audit.c.sequence <= begins.sequence):
            self._cut(begins)
        if arrival.mark.sequence < begins.sequence:
            return self._advanced(arrival, begins)
        if arrival.mark != begins and not retention.holds(self._source, arrival.mark):
            raise StoreError(
                f"entry {arrival.mark.sequence}, which is in the target already, is not in the audit log of the "
                "store that is to be moved: it was put back since. Give an empty database"
            )
        return arrival

    def _cut(self, begins: Mark) -> None:
        """Cut off the log of the target what was copied of it before it was cut."""
        gone = _audit.c.sequence <= begins.sequence
        try:
            self._target.execute(delete(_audit).where(gone))
            kept = self._has(_audit, gone)
        except DBAPIError as error:
            if not is_forbidden(error):
                raise
            kept = True
        if kept:
            raise StoreError(
                f"the audit log was cut up to entry {begins.sequence} since this move was begun, but this role may "
                "not delete the entries that had been copied: move as one that may, or give an empty database"
            )

    def _log_copied(self, arrival: _Arrival, head: Mark) -> _Arrival:
        """Copy what is missing of the log, each entry checked against the one before."""
        try:
            for rows in copying.slices(self._source, _audit, arrival.mark.sequence):
                mark = arrival.mark
                for row in rows:
                    mark = self._log.follow(mark, row)
                with transaction(self._target):
                    copying.put(self._target, _audit, rows)
                    arrival = self._advanced(arrival, mark)
                self._copied(len(rows))
            if arrival.mark != head:
                raise BrokenChainError(
                    f"the log ends at entry {arrival.mark.sequence}, but its head says {head.sequence}"
                )
        except BrokenChainError as error:
            raise StoreError(f"the audit log of the store that is to be moved is not whole: {error}") from None
        return arrival

    def _advanced(self, arrival: _Arrival, mark: Mark) -> _Arrival:
        """Put the mark where the log ends now, in the transaction that has added to it."""
        new = _Arrival(mark, arrival.id)
        before = (_meta.c.name == _ARRIVING) & (_meta.c.value == arrival.sealed(self._key))
        values = {"number": mark.sequence, "value": new.sealed(self._key)}
        if self._target.execute(update(_meta).where(before).values(values)).rowcount != 1:
            raise StoreError("somebody else writes to the target")
        return new

    def _finished(self, arrival: _Arrival, now: int) -> Moved:
        """Copy what is left and check all of it, in the transaction that makes a store of the target."""
        mark = arrival.mark
        renamed = update(_meta).where(_meta.c.name == _ARRIVING).values(name=HEAD, value=mark.mac)
        self._target.execute(renamed)
        rest = select(_meta).where(_meta.c.name.not_in((HEAD, _MOVED)))
        copying.put(self._target, _meta, self._source.execute(rest).all())
        self._copied(self._counts[_meta])
        for table in _AT_ONCE:
            for rows in copying.everything(self._source, table):
                copying.put(self._target, table, rows)
                self._copied(len(rows))
        counts = {table: copying.count(self._target, table) for table in _TABLES}
        for table, wanted in self._counts.items():
            if counts[table] != wanted:
                raise StoreError(f"{wanted} rows of {table.name} became {counts[table]}")
        note = AuditEvent("store moved", detail={"rows": sum(counts.values())})
        self._log.append(driver_of(self._target).cursor(), [(now * 1000, note)])
        fault = self._log.check(self._target, told=self._checked).fault
        if fault is not None:
            raise StoreError(f"the audit log of the copy is not whole: {fault}. Give an empty database")
        return Moved({str(table.name): number for table, number in counts.items()}, auditlog.anchor(self._target)[1])

    def _copied(self, rows: int) -> None:
        self._done += rows
        self._tell("rows copied", self._done, sum(self._counts.values()))

    def _checked(self, entries: int) -> None:
        self._tell("audit entries checked", entries, self._counts[_audit] + 1)


def _head(connection: Connection) -> _Head | None:
    """What there is of the head of a log."""
    names = (HEAD, _MOVED, _ARRIVING)
    row = connection.execute(
        select(_meta.c.name, _meta.c.number, _meta.c.value).where(_meta.c.name.in_(names))
    ).one_or_none()
    return None if row is None else _Head(row.name, row.number, bytes(row.value))


def _hold(connection: Connection) -> None:
    """Begin a transaction in which nobody else writes."""
    connection.exec_driver_sql(begin(connection.engine))
    if is_shared(connection.engine):
        connection.exec_driver_sql("LOCK TABLE meta IN EXCLUSIVE MODE")


def _count_on(target: Connection) -> None:
    """Have numbers of new rows go on behind those that were copied."""
    for name, column in (("user", "id"), ("token", "seq")):
        newest = f'(SELECT max({column}) FROM "{name}")'  # noqa: S608 - two names of ours
        target.execute(text(f"SELECT setval(pg_get_serial_sequence('\"{name}\"', '{column}'), {newest})"))
