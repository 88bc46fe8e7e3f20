"""The one connection that a writer writes through: how its transactions begin, end, and are undone.

SQLite has one writer, this process. On PostgreSQL several daemons write: each transaction begins by locking the head
of the audit log, so that they come one after the other, see all that the one before has done, and chain their rows.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from sqlalchemy import Connection, Engine

from otpbridge.errors import StoreError
from otpbridge.store import postgres
from otpbridge.store.chain import AuditRow
from otpbridge.store.engine import begin, driver_of
from otpbridge.store.hangs import Hangs

_RETRY = 0.005
_SEARCH = 0.1


class Line(Protocol):
    """A connection with at most one transaction on it, which is begun, then committed or rolled back."""

    held: threading.Lock
    """Held by whoever uses the connection, from before a transaction until after it."""

    @property
    def connection(self) -> Connection:
        """The same connection, for statements that SQLAlchemy runs."""

    def begin(self, patience: float) -> Any | None:
        """Begin a transaction; a cursor in it. None where the store is held by others for `patience` seconds."""

    def save(self, cursor: Any) -> None:
        """Begin a change, which may be undone alone."""

    def keep(self, cursor: Any) -> None:
        """End a change."""

    def undo(self, cursor: Any, error: Exception) -> None:
        """Undo a change that failed. Raises where the whole transaction is lost."""

    def commit(self, cursor: Any, rows: Sequence[AuditRow]) -> None:
        """Commit a transaction that has written these rows. All of it is durable when this returns."""

    def roll_back(self, cursor: Any) -> None:
        """Undo the transaction, as far as there is still one."""

    def may_try_again(self, error: Exception) -> bool:
        """Whether it is certain that nothing was committed, and the same may succeed now."""

    def close(self) -> None:
        """Let go."""


class SqliteLine:
    """The connection to a database file."""

    def __init__(self, engine: Engine) -> None:
        self.held = threading.Lock()
        self.connection = engine.connect()
        # Who waits for the store decides that here, not SQLite.
        self.connection.exec_driver_sql("PRAGMA busy_timeout=0")
        self._begin = begin(engine)
        self.driver = driver_of(self.connection)
        """The same connection, for statements that are prepared."""

    def begin(self, patience: float) -> Any | None:
        """See Line."""
        cursor = self.driver.cursor()
        deadline = time.monotonic() + patience
        while True:
            try:
                cursor.execute(self._begin)
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode != sqlite3.SQLITE_BUSY:
                    raise
                if not patience:
                    return None
                if time.monotonic() > deadline:
                    raise
                time.sleep(_RETRY)
            else:
                return cursor

    def save(self, cursor: Any) -> None:
        """See Line."""
        cursor.execute("SAVEPOINT change")

    def keep(self, cursor: Any) -> None:
        """See Line."""
        cursor.execute("RELEASE SAVEPOINT change")

    def undo(self, cursor: Any, error: Exception) -> None:
        """See Line. Where SQLite has given up the whole transaction this fails too."""
        cursor.execute("ROLLBACK TO SAVEPOINT change")

    def commit(self, cursor: Any, rows: Sequence[AuditRow]) -> None:
        """See Line."""
        cursor.execute("COMMIT")

    def roll_back(self, cursor: Any) -> None:
        """See Line. SQLite ends a transaction by itself when the disk is full."""
        if cursor.connection.in_transaction:
            cursor.execute("ROLLBACK")

    def may_try_again(self, error: Exception) -> bool:
        """See Line. What fails on a disk of our own fails again."""
        return False

    def close(self) -> None:
        """See Line."""
        self.connection.close()


_LOCK = """
SELECT pg_current_xact_id()::text FROM meta WHERE name = 'audit head' FOR UPDATE
"""
_WRITTEN = "SELECT entry FROM audit WHERE sequence = %(sequence)s"
_BECAME = "SELECT pg_xact_status(%(transaction)s::text::xid8)"
_TOUCH = "UPDATE meta SET number = number WHERE name = 'audit head'"


class PostgresLine:
    """A connection to a PostgreSQL server, opened again where it was lost."""

    def __init__(self, engine: Engine, hangs: Hangs) -> None:
        self.held = threading.Lock()
        self._engine = engine
        self._hangs = hangs
        self._connection: Connection | None = None
        self._transaction = 0
        self._leave: Callable[[], None] = _nothing
        self._uncertain = False
        """Whether it is not known what became of the last COMMIT."""
        self._undone = False
        """Whether it is known that nothing came of it."""
        self._warned = False

    @property
    def connection(self) -> Connection:
        """See Line."""
        assert self._connection is not None
        return self._connection

    def begin(self, patience: float) -> Any:
        """See Line. Others are waited for as long as `postgres.LOCK_SECONDS` say."""
        self._uncertain = self._undone = False
        driver = self._driver()
        self._leave = self._hangs.watch(driver, postgres.HANG_SECONDS)
        cursor = driver.cursor()
        try:
            self._transaction = _begun(cursor)
        except BaseException:
            self.roll_back(cursor)
            raise
        return cursor

    def save(self, cursor: Any) -> None:
        """See Line. A change may take longer than a login: somebody waits for it who knows why."""
        self._watch(cursor, postgres.LONG_SECONDS)
        cursor.execute(f"SAVEPOINT change; {postgres.PATIENT}")

    def keep(self, cursor: Any) -> None:
        """See Line."""
        cursor.execute(f"RELEASE SAVEPOINT change; {postgres.HASTY}")
        self._watch(cursor, postgres.HANG_SECONDS)

    def undo(self, cursor: Any, error: Exception) -> None:
        """See Line."""
        if postgres.is_transient(error) or postgres.is_lost(cursor.connection):
            raise error
        cursor.execute("ROLLBACK TO SAVEPOINT change")

    def commit(self, cursor: Any, rows: Sequence[AuditRow]) -> None:
        """See Line. Where the answer to COMMIT is lost, the store is asked what became of it."""
        self._uncertain, self._warned = True, False
        try:
            cursor.execute("COMMIT")
            said = cursor.statusmessage
        except Exception:
            if not postgres.is_lost(cursor.connection):
                # The server has answered, and with an error: nothing was committed.
                self._uncertain = False
                raise
            if not self._was_written(rows):
                raise
        else:
            if said != "COMMIT":
                self._uncertain = False
                raise StoreError(f"the database has answered COMMIT with {said}")
            # It was told to stop waiting for its standbys: they may not have what was committed.
            if self._warned and not self._was_written(rows):
                raise StoreError("the database has not said that the commit is on its standbys")
        self._uncertain = False
        self._leave()

    def roll_back(self, cursor: Any) -> None:
        """See Line."""
        try:
            if not postgres.is_lost(cursor.connection):
                cursor.execute("ROLLBACK")
        finally:
            self._leave()

    def may_try_again(self, error: Exception) -> bool:
        """See Line."""
        if self._uncertain or self._connection is None:
            return False
        if postgres.is_transient(error):
            # A server that has become read-only is left for the one that can write now.
            self._drop()
            return True
        return self._undone or _has_ended(self._connection)

    def close(self) -> None:
        """See Line."""
        self._leave()
        self._drop()

    def _was_written(self, rows: Sequence[AuditRow]) -> bool:
        """Whether a transaction whose outcome is not known has written its rows, which then are durable.

        Raises where that cannot be found out.
        """
        if not rows:
            raise StoreError("the connection was lost while a change was committed: look whether it was made")
        deadline = time.monotonic() + postgres.LOCK_SECONDS
        while True:
            try:
                return self._look(rows[-1])
            except Exception:
                if time.monotonic() > deadline:
                    raise
                time.sleep(_SEARCH)

    def _look(self, row: AuditRow) -> bool:
        lost = self._transaction
        self._leave()
        driver = self._driver()
        self._leave = self._hangs.watch(driver, postgres.HANG_SECONDS)
        cursor = driver.cursor()
        try:
            self._undone = not self._committed(cursor, row, lost)
        except BaseException:
            self.roll_back(cursor)
            raise
        self._uncertain = False
        return not self._undone

    def _committed(self, cursor: Any, row: AuditRow, lost: int) -> bool:
        # Not before the lost transaction has ended, whatever keeps it: it holds the same lock.
        _begun(cursor)
        found = cursor.execute(_WRITTEN, {"sequence": row.sequence}).fetchone()
        became = None
        if found == (row.entry,):
            # Another daemon may have written the same, word for word. (Not by xmin: a change has a savepoint.)
            (became,) = cursor.execute(_BECAME, {"transaction": lost}).fetchone()
            if became not in {"committed", "aborted"}:
                raise StoreError(f"the database cannot say what became of a commit ({became})")
        # A commit that waits for standbys waits until they have all that was committed before it.
        cursor.execute(_TOUCH)
        cursor.execute("COMMIT")
        if cursor.statusmessage != "COMMIT":
            raise StoreError("the database has rolled back")
        return bool(became == "committed")

    def _driver(self) -> Any:
        if self._connection is not None and _has_ended(self._connection):
            self._drop()
        if self._connection is None:
            self._connection = self._engine.connect()
            driver_of(self._connection).add_notice_handler(self._noticed)
        return driver_of(self._connection)

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.invalidate()
            connection.close()
            # Those that lie idle were lost with it, as a rule.
            self._engine.dispose()

    def _noticed(self, diagnostic: Any) -> None:
        self._warned = self._warned or diagnostic.severity_nonlocalized == "WARNING"

    def _watch(self, cursor: Any, seconds: float) -> None:
        self._leave()
        self._leave = self._hangs.watch(cursor.connection, seconds)


def _begun(cursor: Any) -> int:
    """Begin, and lock the head of the audit log; the number of the transaction."""
    cursor.execute(f"{postgres.BEGIN}; {_LOCK}")
    cursor.nextset()
    row = cursor.fetchone()
    if row is None:
        raise StoreError("the store was moved to another database, or has lost the head of its audit log")
    return int(row[0])


def _has_ended(connection: Connection) -> bool:
    """Whether it was lost. Where a change has met that, SQLAlchemy has let go of the driver's connection already."""
    return connection.invalidated or postgres.is_lost(driver_of(connection))


def _nothing() -> None:
    """There is nothing to leave."""
