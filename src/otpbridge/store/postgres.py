"""PostgreSQL: how it is reached, what each connection is set to and refused for, and what its errors mean.

Nothing here is needed, nor psycopg loaded, where the store is SQLite.
"""

from __future__ import annotations

import os
import socket
from typing import Any

from sqlalchemy import Engine, create_engine, event
from sqlalchemy.engine import URL

from otpbridge.errors import ConfigError, StoreError

_DRIVER = "postgresql+psycopg"
_SECRETS = frozenset({"password", "sslpassword", "passfile", "oauth_client_secret"})

LOCK_SECONDS = 4
"""How long a statement waits for somebody else's lock: for another daemon's commit, above all."""
STATEMENT_SECONDS = 5
"""How long a statement of a login may take: less than the 10 seconds that PAM waits."""
LONG_SECONDS = 300
"""How long one may take that an administrator waits for."""
HANG_SECONDS = 7
"""After which the line to a server that says nothing at all is cut."""
_IDLE_SECONDS = 5
"""How long a daemon that was stopped amid a transaction can keep the others from writing."""
_CONNECT_SECONDS = 3

_CONNECT = {
    "application_name": "otpbridged",
    "client_encoding": "utf8",
    "connect_timeout": str(_CONNECT_SECONDS),
    # A standby cannot spend a code: among several hosts, the one that can write is looked for.
    "target_session_attrs": "read-write",
    "keepalives_idle": "5",
    "keepalives_interval": "2",
    "keepalives_count": "3",
    "tcp_user_timeout": str(HANG_SECONDS * 1000),
}

_SETTINGS = {
    "statement_timeout": f"{STATEMENT_SECONDS}s",
    "lock_timeout": f"{LOCK_SECONDS}s",
    "idle_in_transaction_session_timeout": f"{_IDLE_SECONDS}s",
    "default_transaction_isolation": "read committed",
    "client_min_messages": "warning",
    "tcp_keepalives_idle": "5",
    "tcp_keepalives_interval": "2",
    "tcp_keepalives_count": "3",
}
_SET = "SELECT " + ", ".join(f"set_config('{name}', '{value}', false)" for name, value in _SETTINGS.items())
_LOOK = """
SELECT current_setting('synchronous_commit'), current_setting('fsync'), current_setting('server_encoding'),
    current_setting('server_version_num')::int
"""
_OLDEST = 130_000
_DURABLE = frozenset({"on", "remote_apply"})

_TRANSIENT = frozenset(
    {
        "25006",  # read-only: what was the primary is one no more
        "40001",  # serialization failure
        "40P01",  # deadlock
    }
)

BEGIN = "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE"
SNAPSHOT = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"
"""What opens a transaction that sees the store as it is at one moment."""
PATIENT = f"SET LOCAL statement_timeout = '{LONG_SECONDS}s'"
UNHURRIED = f"{PATIENT}; SET LOCAL idle_in_transaction_session_timeout = '{LONG_SECONDS}s'"
"""For who reads as quickly as somebody else takes what was read."""
HASTY = f"SET LOCAL statement_timeout = '{STATEMENT_SECONDS}s'"


def open_postgres(url: URL) -> Engine:
    """The engine for a PostgreSQL URL. Raises ConfigError where it cannot be used."""
    if url.drivername not in {"postgresql", "postgres", _DRIVER}:
        raise ConfigError("[store] url: write postgresql://…; its driver is psycopg, and no other one is supported")
    wanted = {name: value for name, value in _CONNECT.items() if name not in url.query}
    try:
        engine = create_engine(
            url.set(drivername=_DRIVER),
            isolation_level="AUTOCOMMIT",
            connect_args=wanted,
            hide_parameters=True,
            pool_size=4,
            max_overflow=8,
            pool_reset_on_return="rollback",
        )
    except ImportError as error:
        raise ConfigError(
            f"[store] url: psycopg cannot be loaded ({error.name or error}); install otpbridge[postgresql]"
        ) from None
    event.listen(engine, "connect", _prepare)
    return engine


def shown(url: URL) -> str:
    """A URL without anything secret."""
    plain = url.set(query={name: value for name, value in url.query.items() if name not in _SECRETS})
    return plain.render_as_string(hide_password=True)


def _prepare(connection: Any, _record: Any) -> None:
    """Set a new connection up. Raises StoreError where the server could forget what it has committed."""
    with connection.cursor() as cursor:
        cursor.execute(_SET)
        synchronous, fsync, encoding, version = cursor.execute(_LOOK).fetchone()
    fault = None
    if synchronous not in _DURABLE:
        fault = f"synchronous_commit is {synchronous}; a spent code could be forgotten. Set it to on for this role"
    elif fsync != "on":
        fault = "fsync is off: a spent code could be forgotten. Turn it on"
    elif encoding != "UTF8":
        fault = f"the database has the encoding {encoding}; make it anew with ENCODING 'UTF8'"
    elif version < _OLDEST:
        fault = f"the server has version {version // 10_000}; otpbridge needs {_OLDEST // 10_000} or later"
    if fault is not None:
        connection.close()
        raise StoreError(f"PostgreSQL: {fault}")


def is_lost(driver: Any) -> bool:
    """Whether a connection of psycopg has ended."""
    return bool(driver.closed or driver.broken)


def is_transient(error: BaseException) -> bool:
    """Whether the server has rolled back what may well succeed when it is tried again."""
    return getattr(getattr(error, "orig", error), "sqlstate", None) in _TRANSIENT


def is_forbidden(error: BaseException) -> bool:
    """Whether a role lacks a right that it needs."""
    return getattr(getattr(error, "orig", error), "sqlstate", None) == "42501"


def line_of(driver: Any) -> socket.socket:
    """The socket of a connection, under another number, which does not change hands when that one is closed."""
    return socket.socket(fileno=os.dup(driver.fileno()))
