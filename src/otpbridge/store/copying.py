"""Copy rows to another database, a slice at a time: who was interrupted goes on where it was.

What is in a table with a number for a key is compared, whoever has put it there, and only what differs is copied.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import msgspec
from sqlalchemy import Connection, LargeBinary, Table, delete, func, select, text

from otpbridge.store.engine import is_shared, transaction

SLICE = 10_000
"""Rows that are committed together: fewer than a statement may have parameters."""

_encode = msgspec.json.Encoder().encode


def count(connection: Connection, table: Table) -> int:
    """The rows of a table."""
    return connection.execute(select(func.count()).select_from(table)).scalar_one()


def make_equal(source: Connection, target: Connection, table: Table, told: Callable[[int], None]) -> None:
    """Make a table like that of the source. Its first column is its key, a number. `told` hears of rows done."""
    key = table.c[0]
    # All that is wrong goes first: it could hold names that are others' now.
    for rows in slices(target, table):
        right = set(map(tuple, source.execute(select(table).where(key.between(rows[0][0], rows[-1][0])))))
        wrong = [row[0] for row in rows if tuple(row) not in right]
        if wrong:
            with transaction(target):
                target.execute(delete(table).where(key.in_(wrong)))
    for rows in slices(source, table):
        there = set(target.execute(select(key).where(key.between(rows[0][0], rows[-1][0]))).scalars())
        missing = [row for row in rows if row[0] not in there]
        if missing:
            with transaction(target):
                put(target, table, missing)
        told(len(rows))


def slices(connection: Connection, table: Table, after: int = 0) -> Iterator[Sequence[Any]]:
    """The rows of a table in the order of its first column, a number, from behind one."""
    key = table.c[0]
    while True:
        rows = connection.execute(select(table).where(key > after).order_by(key).limit(SLICE)).all()
        if not rows:
            return
        yield rows
        after = rows[-1][0]


def everything(connection: Connection, table: Table) -> Iterator[Sequence[Any]]:
    """The rows of a table in slices, in no order."""
    return connection.execute(select(table), execution_options={"yield_per": SLICE}).partitions()


def put(connection: Connection, table: Table, rows: Sequence[Sequence[Any]]) -> None:
    """Insert rows, all columns of each, in one statement where the database allows it."""
    names = ", ".join(f'"{column.name}"' for column in table.c)
    if not is_shared(connection.engine):
        places = ", ".join("?" * len(table.c))
        connection.exec_driver_sql(
            f'INSERT INTO "{table.name}" ({names}) VALUES ({places})',  # noqa: S608 - names of ours
            [tuple(row) for row in rows],
        )
        return
    # Not COPY, which a table with row-level security does not take.
    binary = {column.name for column in table.c if isinstance(column.type, LargeBinary)}
    kinds = {column.name: column.type.compile(connection.dialect) for column in table.c}
    taken = ", ".join(f'"{name}" {"text" if name in binary else kind}' for name, kind in kinds.items())
    chosen = ", ".join(f"decode(\"{name}\", 'base64')" if name in binary else f'"{name}"' for name in kinds)
    connection.execute(
        text(
            f'INSERT INTO "{table.name}" ({names}) '  # noqa: S608 - names of ours
            f"SELECT {chosen} FROM json_to_recordset(CAST(:rows AS json)) AS v({taken})"
        ),
        # msgspec writes bytes as base64.
        {"rows": _encode([dict(zip(kinds, row, strict=True)) for row in rows]).decode()},
    )
