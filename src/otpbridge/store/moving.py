"""Move a whole store to another database: all of it or nothing, and never two stores that both accept a code.

Both sides are held while it lasts. First the old store loses the head of its log, without which no daemon opens it or
writes to it any more; then the new one is committed. Who was interrupted in between moves the old one again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Table, func, insert, select, text, update

from otpbridge.errors import StoreError
from otpbridge.model import AuditEvent, Secret
from otpbridge.store import auditlog, rekey, tables
from otpbridge.store.auditlog import AuditLog
from otpbridge.store.chain import HEAD
from otpbridge.store.engine import begin, is_shared
from otpbridge.vault.seal import Vault, derive

_MOVED = "audit head, moved"
"""What the row of `meta` is called that was the head of the log."""
_TABLES = (tables.meta, tables.user, tables.token, tables.throttle, tables.seen, tables.relay, tables.audit)
_ROWS = 500


@dataclass(frozen=True, slots=True)
class Moved:
    """What a move has done."""

    rows: dict[str, int]
    anchor: str


def was_moved(connection: Connection) -> bool:
    """Whether a store was moved away."""
    return connection.execute(select(tables.meta.c.name).where(tables.meta.c.name == _MOVED)).first() is not None


def move(source: Connection, target: Connection, vault: Vault, now: int, *, again: bool) -> Moved:
    """Move a store. `now` in Unix seconds. Raises StoreError or VaultError; then nothing was moved.

    Both databases have all tables; those of the target are empty. With `again`, also a store that was moved before.
    """
    if was_moved(source) and not again:
        raise StoreError(
            "this store was moved already. If that was interrupted, and no daemon has used the target, empty it and "
            "repeat with --again"
        )
    root = rekey.root(source, vault)
    if root is None:
        raise StoreError("there is nothing to move: the store has no secret yet")
    if target.execute(select(tables.meta.c.name).limit(1)).first() is not None:
        raise StoreError("there is a store in the target already; give an empty database")
    _hold(source)
    try:
        _hold(target)
        try:
            _rename_head(source, _MOVED, HEAD)
            _intact(source, root, "the store that is to be moved")
            moved = _copied(source, target)
            note = AuditEvent("store moved", detail={"rows": sum(moved.rows.values())})
            AuditLog(target.dialect, derive(root, "audit")).append(_cursor(target), [(now * 1000, note)])
            _intact(target, root, "the copy")
            _rename_head(source, HEAD, _MOVED)
            source.exec_driver_sql("COMMIT")
        except BaseException:
            target.exec_driver_sql("ROLLBACK")
            raise
    except BaseException:
        if source.connection.dbapi_connection is not None and _in_transaction(source):
            source.exec_driver_sql("ROLLBACK")
        raise
    target.exec_driver_sql("COMMIT")
    return moved


def _hold(connection: Connection) -> None:
    """Begin a transaction in which nobody else writes."""
    if is_shared(connection.engine):
        connection.exec_driver_sql("SET idle_in_transaction_session_timeout = 0")
        connection.exec_driver_sql("SET statement_timeout = 0")
    connection.exec_driver_sql(begin(connection.engine))
    if is_shared(connection.engine):
        connection.exec_driver_sql("LOCK TABLE meta IN EXCLUSIVE MODE")


def _copied(source: Connection, target: Connection) -> Moved:
    rows = {}
    for table in _TABLES:
        found = source.execute(select(table), execution_options={"yield_per": _ROWS}).mappings()
        for part in found.partitions():
            target.execute(insert(table), [dict(row) for row in part])
        rows[str(table.name)] = _count(target, source, table)
    if is_shared(target.engine):
        for name, column in (("user", "id"), ("token", "seq")):
            newest = f'(SELECT max({column}) FROM "{name}")'  # noqa: S608 - two names of ours
            target.execute(text(f"SELECT setval(pg_get_serial_sequence('\"{name}\"', '{column}'), {newest})"))
    return Moved(rows, auditlog.anchor(target)[1])


def _count(target: Connection, source: Connection, table: Table) -> int:
    """The rows of a table in the target. Raises StoreError where the source has another number of them."""
    query = select(func.count()).select_from(table)
    here, there = target.execute(query).scalar_one(), source.execute(query).scalar_one()
    if here != there:
        raise StoreError(f"{there} rows of {table.name} became {here}")
    return int(here)


def _intact(connection: Connection, root: Secret, what: str) -> None:
    fault = AuditLog(connection.dialect, derive(root, "audit")).check(connection).fault
    if fault is not None:
        raise StoreError(f"the audit log of {what} is not whole: {fault}")


def _rename_head(source: Connection, name: str, new: str) -> None:
    meta = tables.meta
    source.execute(update(meta).where(meta.c.name == name).values(name=new))


def _cursor(connection: Connection) -> Any:
    driver = connection.connection.dbapi_connection
    assert driver is not None
    return driver.cursor()


def _in_transaction(connection: Connection) -> bool:
    driver: Any = connection.connection.dbapi_connection
    if is_shared(connection.engine):
        return not driver.closed and bool(driver.info.transaction_status)
    return bool(driver.in_transaction)
