"""What an administrator watches of a store: how large it is, how far the audit log has come, whom back-off holds."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Connection, Engine, case, func, select

from otpbridge.store import auditlog, tables
from otpbridge.store.engine import is_shared

MOST_COUNTED = 10_000
"""Of back-off only the newest so many are looked at: their number is whatever a guesser likes."""

_KINDS = {"us": "user", "so": "source", "to": "token"}


@dataclass(frozen=True, slots=True)
class Census:
    """One look. `missed` and `held` by kind (user, source, token): with misses that count, and waiting now."""

    sequence: int
    bytes: int
    missed: Mapping[str, int]
    held: Mapping[str, int]


def take(connection: Connection, engine: Engine, now: int) -> Census:
    """Look, at a time in Unix milliseconds."""
    sequence, _ = auditlog.anchor(connection)
    t = tables.throttle
    newest = select(t.c.key, t.c.not_before).order_by(t.c.last.desc()).limit(MOST_COUNTED).subquery()
    kind = func.substr(newest.c.key, 1, 2).label("kind")
    waits = func.sum(case((newest.c.not_before > now, 1), else_=0))
    found = {row[0]: row for row in connection.execute(select(kind, func.count(), waits).group_by(kind))}
    return Census(
        sequence,
        _size(connection, engine),
        {name: int(found[short][1]) if short in found else 0 for short, name in _KINDS.items()},
        {name: int(found[short][2]) if short in found else 0 for short, name in _KINDS.items()},
    )


def free_bytes(engine: Engine) -> int | None:
    """Room on the disk of a database file; None where the store is on a server."""
    path = engine.url.database
    if is_shared(engine) or path is None:
        return None
    about = os.statvfs(Path(path).parent)
    return about.f_bavail * about.f_frsize


def _size(connection: Connection, engine: Engine) -> int:
    if is_shared(engine):
        size: int = connection.execute(select(func.pg_database_size(func.current_database()))).scalar_one()
        return size
    path = engine.url.database or ""
    files = (Path(path), Path(f"{path}-wal"))
    return sum(file.stat().st_size for file in files if file.exists())
