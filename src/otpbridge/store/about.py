"""Which entries of the audit log are about whom: a list beside it.

An index on the log itself would cost each login a page of its own in its commit. So the log is written without one,
and its entries are listed later (`lister`), in slices. What is not listed yet is looked through from the end. The
list is derived: where it is lost, and after a restore, it is made again.
"""

from __future__ import annotations

from sqlalchemy import ColumnElement, Connection, Select, and_, func, insert, literal_column, select, tuple_, update

from otpbridge.store import tables
from otpbridge.store.chain import HEAD, AuditRow

ENOUGH = 256
"""Entries that are worth a slice, and how many make one: it holds up a login for a few milliseconds at most."""
_MOST_SEARCHED = 200_000
"""Entries that are looked through at the end of the log."""

_about, _audit, _meta = tables.about, tables.audit, tables.meta
_IS_MARK = and_(_about.c.client == literal_column("''"), _about.c.name == literal_column("''"))
"""The row that says up to which entry the list goes; no user is called so."""


def unlisted(connection: Connection) -> int:
    """How many entries are not listed yet."""
    return _head(connection) - _start(connection, _mark(connection))


def list_slice(connection: Connection) -> int:
    """List the oldest entries that are not listed yet, in the caller's transaction; how many are left."""
    listed = _mark(connection)
    head, start = _head(connection), _start(connection, listed)
    end = max(start, min(start + ENOUGH, head))
    entries = (
        select(_audit.c.client, _audit.c.name, _audit.c.sequence)
        .where(_audit.c.sequence > start, _audit.c.sequence <= end)
        .where(_audit.c.client.is_not(None), _audit.c.name.is_not(None))
    )
    connection.execute(insert(_about).from_select(["client", "name", "sequence"], entries))
    if listed is None:
        connection.execute(insert(_about).values(client="", name="", sequence=end))
    else:
        connection.execute(update(_about).where(_IS_MARK).values(sequence=end))
    return head - end


def of_user(connection: Connection, client: str, name: str, before: int | None, most: int) -> list[AuditRow]:
    """The entries about a user, newest first, `most` at most: from the end, or from before a sequence."""
    mark, head = _mark(connection) or 0, _head(connection)
    end = head + 1 if before is None else before
    start = max(mark, head - _MOST_SEARCHED)
    found = connection.execute(_searched(client, name, start, end, most)).all()
    if len(found) < most:
        found = [*found, *connection.execute(listed(client, name, min(mark + 1, end), most - len(found))).all()]
    return [AuditRow(row.sequence, row.entry) for row in found]


def listed(client: str, name: str, before: int, most: int) -> Select[tuple[int, str]]:
    """The entries about a user that are listed, newest first."""
    return (
        select(_about.c.sequence, _audit.c.entry)
        .join(_audit, _audit.c.sequence == _about.c.sequence)
        .where(_about.c.client == client, _about.c.name == name, _about.c.sequence < before)
        .order_by(_about.c.sequence.desc())
        .limit(most)
    )


def of_entries(entries: ColumnElement[bool]) -> ColumnElement[bool]:
    """What is listed of some entries, which a condition on the log says."""
    chosen = select(_audit.c.client, _audit.c.name, _audit.c.sequence).where(entries)
    return tuple_(_about.c.client, _about.c.name, _about.c.sequence).in_(chosen)


def _searched(client: str, name: str, start: int, before: int, most: int) -> Select[tuple[int, str]]:
    return (
        select(_audit.c.sequence, _audit.c.entry)
        .where(_audit.c.sequence > start, _audit.c.sequence < before)
        .where(_audit.c.client == client, _audit.c.name == name)
        .order_by(_audit.c.sequence.desc())
        .limit(most)
    )


def _mark(connection: Connection) -> int | None:
    return connection.execute(select(_about.c.sequence).where(_IS_MARK)).scalar_one_or_none()


def _head(connection: Connection) -> int:
    """The number of the newest entry. A store that was moved elsewhere has none any more."""
    head: int | None = connection.execute(select(_meta.c.number).where(_meta.c.name == HEAD)).scalar_one_or_none()
    return 0 if head is None else head


def _start(connection: Connection, mark: int | None) -> int:
    """Behind which entry the list goes on: the mark, or where the log was cut behind it."""
    first: int | None = connection.execute(select(func.min(_audit.c.sequence))).scalar_one()
    return max(mark or 0, 0 if first is None else first - 1)
