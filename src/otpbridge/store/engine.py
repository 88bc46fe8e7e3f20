"""Open the database: one engine for SQLite and PostgreSQL, with what each needs to keep its word.

Every connection is in the driver's autocommit mode; who writes says BEGIN and COMMIT itself, so that one commit can
carry many verifications.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError
from sqlalchemy.pool import NullPool

from otpbridge.errors import ConfigError, StoreBusyError, StoreError
from otpbridge.store import postgres

SQLITE_NAME = "otpbridge.db"
_SETTING_UP = 8_389_754_676
"""The number of the lock under which a PostgreSQL store is set up: any, as long as all daemons have the same."""

# WAL with synchronous=FULL is the only pair besides DELETE+EXTRA that was seen to keep spent codes spent over a
# power cut. With many users each verification touches a page of its own, so small pages make small commits (only
# a new database takes the size). secure_delete overwrites seeds that were revoked or sealed anew. What a long import
# needs to be undone goes to a temporary file, not into memory, and its log is cut again after it.
_PRAGMAS = (
    "PRAGMA page_size=2048",
    "PRAGMA journal_mode=WAL",
    "PRAGMA synchronous=FULL",
    "PRAGMA foreign_keys=ON",
    "PRAGMA secure_delete=ON",
    "PRAGMA busy_timeout=10000",
    "PRAGMA temp_store=FILE",
    "PRAGMA journal_size_limit=67108864",
    "PRAGMA cache_size=-8000",
)


def open_engine(url: str | None, state_dir: Path) -> Engine:
    """The engine for a store URL; None is SQLite in the state folder.

    Raises ConfigError for a URL that cannot be used.
    """
    parsed = parse_url(f"sqlite:///{state_dir / SQLITE_NAME}" if url is None else url)
    if parsed.get_backend_name() != "sqlite":
        return postgres.open_postgres(parsed)
    engine = create_engine(
        parsed,
        poolclass=NullPool,
        isolation_level="AUTOCOMMIT",
        connect_args={"check_same_thread": False, "cached_statements": 256},
        hide_parameters=True,
    )
    event.listen(engine, "connect", _prepare_sqlite)
    return engine


def parse_url(url: str) -> URL:
    """A store URL. Raises ConfigError, which does not repeat it: it may hold a password."""
    try:
        parsed = make_url(url)
        backend = parsed.get_backend_name()
    except ArgumentError:
        raise ConfigError("[store] url: not a database URL; use sqlite:////path/to/file or postgresql://…") from None
    if backend not in {"sqlite", "postgresql", "postgres"}:
        raise ConfigError(f"[store] url: {backend} is not supported; use sqlite or postgresql")
    return parsed


def is_shared(engine: Engine) -> bool:
    """Whether other daemons may use the store at the same time."""
    return engine.dialect.name != "sqlite"


def begin(engine: Engine) -> str:
    """The statement that opens a writing transaction."""
    return postgres.BEGIN if is_shared(engine) else "BEGIN IMMEDIATE"


@contextmanager
def transaction(connection: Connection) -> Iterator[None]:
    """A transaction, which is undone where something fails."""
    connection.exec_driver_sql(begin(connection.engine))
    try:
        yield
    except BaseException:
        roll_back(connection)
        raise
    connection.exec_driver_sql("COMMIT")


def roll_back(connection: Connection) -> None:
    """Undo the transaction, as far as there is still one."""
    if connection.invalidated:
        return
    driver = driver_of(connection)
    if is_shared(connection.engine):
        there = not postgres.is_lost(driver) and bool(driver.info.transaction_status)
    else:
        there = driver.in_transaction
    if there:
        connection.exec_driver_sql("ROLLBACK")


def driver_of(connection: Connection) -> Any:
    """The driver's own connection, for statements that are prepared."""
    driver = connection.connection.dbapi_connection
    assert driver is not None
    return driver


def snapshot(engine: Engine) -> str:
    """The statement that opens a transaction which reads the store as it is at one moment."""
    return postgres.SNAPSHOT if is_shared(engine) else "BEGIN"


def shown(engine: Engine) -> str:
    """Where the store is, without anything secret."""
    return postgres.shown(engine.url)


@contextmanager
def alone(engine: Engine, connection: Connection) -> Iterator[None]:
    """Keep other daemons from setting the store up at the same time."""
    if not is_shared(engine):
        # There is one lock for all that a daemon does.
        yield
        return
    connection.exec_driver_sql(f"SELECT pg_advisory_lock({_SETTING_UP})")
    try:
        yield
    finally:
        if not connection.invalidated:
            connection.exec_driver_sql(f"SELECT pg_advisory_unlock({_SETTING_UP})")


def _prepare_sqlite(connection: Any, _record: Any) -> None:
    cursor = connection.cursor()
    for pragma in _PRAGMAS:
        cursor.execute(pragma)
    cursor.close()


class StoreLock:
    """Keeps a second daemon, or a restore, away from a store in use. Held until closed or the process ends."""

    def __init__(self, state_dir: Path) -> None:
        path = state_dir / "store.lock"
        try:
            self._handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            raise StoreError(f"{path}: cannot be opened: {error.strerror}. Is the state folder writable?") from error
        try:
            fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(self._handle, 32).decode(errors="replace").strip()
            os.close(self._handle)
            who = f" (pid {holder})" if holder.isdigit() else ""
            raise StoreBusyError(
                f"{state_dir}: another otpbridged{who} is using this store. Stop it first, or give another "
                "--state-dir"
            ) from None
        os.ftruncate(self._handle, 0)
        os.pwrite(self._handle, f"{os.getpid()}\n".encode(), 0)

    def close(self) -> None:
        """Let go."""
        os.close(self._handle)
