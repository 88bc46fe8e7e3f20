"""Rows of the audit log that are old: read in pages to be archived, then cut off in slices.

The mark of where the log begins moves in the transaction that cuts a slice, so that it is right whatever happens.
"""

from __future__ import annotations

from dataclasses import dataclass

import msgspec
from sqlalchemy import Connection, delete, insert, select, update

from otpbridge.errors import ConflictError, StoreError
from otpbridge.store import about, tables
from otpbridge.store.archive import Row
from otpbridge.store.chain import BEGINNING, BrokenChainError, Chain, Mark

CUT = "audit cut"
"""The row of `meta` that holds the mark."""


class _When(msgspec.Struct):
    at: float


_when = msgspec.json.Decoder(_When).decode


@dataclass(frozen=True, slots=True)
class Page:
    """Rows in order, the mark behind them, and whether they were all that was asked for."""

    rows: list[Row]
    ends: Mark
    last: bool


def begins(connection: Connection, chain: Chain) -> Mark:
    """Where the log begins. Raises BrokenChainError where that was changed."""
    meta = tables.meta
    found = connection.execute(select(meta.c.number, meta.c.value).where(meta.c.name == CUT)).one_or_none()
    return BEGINNING if found is None else chain.opened(found.number, bytes(found.value))


def page(connection: Connection, chain: Chain, mark: Mark, *, before: float | None, end: int, most: int) -> Page:
    """The rows behind a mark, `most` at most, up to number `end` or the first not older than `before` (Unix seconds).

    Raises BrokenChainError where the log is not whole.
    """
    audit = tables.audit
    query = (
        select(audit.c.sequence, audit.c.entry, audit.c.mac)
        .where(audit.c.sequence > mark.sequence, audit.c.sequence <= end)
        .order_by(audit.c.sequence)
        .limit(most)
    )
    rows: list[Row] = []
    found = connection.execute(query).all()
    for sequence, text, mac in found:
        entry = text.encode()
        ends = chain.follow(mark, sequence, entry, bytes(mac))
        if before is not None and _when(entry).at >= before:
            return Page(rows, mark, last=True)
        rows.append(Row(sequence, entry, ends.mac))
        mark = ends
    last = len(found) < most
    if last and mark.sequence < end:
        raise BrokenChainError(f"the log ends at entry {mark.sequence}, but there were {end}")
    return Page(rows, mark, last)


def holds(connection: Connection, mark: Mark) -> bool:
    """Whether a mark is a place in the log, as it stands in the store."""
    audit = tables.audit
    mac = connection.execute(select(audit.c.mac).where(audit.c.sequence == mark.sequence)).scalar_one_or_none()
    return mac is not None and bytes(mac) == mark.mac


def oldest(connection: Connection) -> float | None:
    """When the oldest row was written (Unix seconds); None in an empty log."""
    audit = tables.audit
    entry = connection.execute(select(audit.c.entry).order_by(audit.c.sequence).limit(1)).scalar_one_or_none()
    return None if entry is None else _when(entry).at


def cut(connection: Connection, chain: Chain, start: Mark, to: Mark) -> None:
    """Cut off the rows between two marks, of which `start` is where the log begins now.

    Raises ConflictError where the log has changed meanwhile, StoreError where the database keeps rows.
    """
    audit, meta = tables.audit, tables.meta
    if begins(connection, chain) != start:
        raise ConflictError("the audit log was cut by another daemon meanwhile")
    if not holds(connection, to):
        raise ConflictError(f"entry {to.sequence} of the audit log is not the one that was archived")
    between = (audit.c.sequence > start.sequence) & (audit.c.sequence <= to.sequence)
    connection.execute(delete(tables.about).where(about.of_entries(between)))
    gone, wanted = connection.execute(delete(audit).where(between)).rowcount, to.sequence - start.sequence
    if gone != wanted:
        raise StoreError(
            f"the database has deleted {gone} of {wanted} audit entries. Which entries the daemon's role may delete: "
            "docs/postgresql.md, section The audit log for a limited time"
        )
    values = {"number": to.sequence, "value": chain.sealed(to)}
    if not connection.execute(update(meta).where(meta.c.name == CUT).values(values)).rowcount:
        connection.execute(insert(meta).values(name=CUT, **values))
