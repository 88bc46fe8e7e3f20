"""The statements that decide: each state change of a verification is one conditional statement over many rows.

They are written in SQLAlchemy Core once for SQLite and PostgreSQL, compiled once per store and then run on the bare
DBAPI cursor, since they are all that a login costs. Rows come in as one JSON parameter; what they return are the
rows that won.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import msgspec
from sqlalchemy import (
    JSON,
    BigInteger,
    ColumnElement,
    Dialect,
    Executable,
    FromClause,
    Integer,
    LargeBinary,
    Select,
    Table,
    Text,
    and_,
    bindparam,
    case,
    cast,
    delete,
    func,
    insert,
    literal_column,
    or_,
    select,
    true,
    update,
)
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.types import TypeEngine

from otpbridge.model import Backoff
from otpbridge.store import tables

if TYPE_CHECKING:
    # That of PostgreSQL has the same.
    from sqlalchemy.dialects.sqlite import Insert

_encode = msgspec.json.Encoder().encode


class Prepared:
    """One statement, compiled for one dialect, run on a DBAPI cursor."""

    __slots__ = ("_fixed", "_names", "_positional", "sql")

    def __init__(self, statement: Executable, dialect: Dialect, **fixed: object) -> None:
        compiled = statement.compile(dialect=dialect)  # type: ignore[attr-defined]
        assert isinstance(compiled, SQLCompiler)
        self.sql = str(compiled)
        self._positional = compiled.positional
        self._names: Sequence[str] = compiled.positiontup or ()
        self._fixed: dict[str, Any] = {**compiled.params, **fixed}

    def run(self, cursor: Any, **values: Any) -> Any:
        """Execute on a cursor; returns the cursor."""
        everything = self._fixed | values
        cursor.execute(self.sql, [everything[name] for name in self._names] if self._positional else everything)
        return cursor


def json_rows(rows: Sequence[Sequence[Any]]) -> str:
    """Rows as the one parameter that `_rows` takes apart."""
    return _encode(rows).decode()


def _rows(dialect: Dialect, **columns: TypeEngine[Any]) -> FromClause:
    """The parameter `rows`, a JSON array of arrays, as a table with these columns."""
    if dialect.name == "sqlite":
        each = func.json_each(bindparam("rows", type_=Text)).table_valued("value", name="each")
        parts = [
            literal_column(f"json_extract(each.value, '$[{place}]')", kind).label(name)
            for place, (name, kind) in enumerate(columns.items())
        ]
    else:
        each = func.json_array_elements(cast(bindparam("rows", type_=Text), JSON)).table_valued("value", name="each")
        parts = [
            cast(literal_column(f"each.value ->> {place}", Text), kind).label(name)
            for place, (name, kind) in enumerate(columns.items())
        ]
    return select(*parts).select_from(each).subquery("v")


def candidate() -> Select[Any]:
    """A user and the active tokens they have; one row with null tokens if none, no row if no such user."""
    user, token = tables.user, tables.token
    return (
        select(*_of_candidate())
        .select_from(user)
        .outerjoin(token, _is_active_of_user())
        .where(user.c.client == bindparam("client"), user.c.name == bindparam("name"))
        .order_by(token.c.seq)
    )


def candidates(dialect: Dialect) -> Select[Any]:
    """`candidate` of many users at once; each row begins with the place of the user whom it is about."""
    user, token = tables.user, tables.token
    v = _rows(dialect, place=Integer(), client=Text(), name=Text())
    return (
        select(v.c.place, *_of_candidate())
        .select_from(v)
        .join(user, and_(user.c.client == v.c.client, user.c.name == v.c.name))
        .outerjoin(token, _is_active_of_user())
        .order_by(token.c.seq)
    )


def _of_candidate() -> tuple[ColumnElement[Any], ...]:
    user, token = tables.user, tables.token
    return (
        user.c.enforcement,
        user.c.locked_at,
        user.c.exempt_until,
        user.c.notice,
        token.c.seq,
        token.c.id,
        token.c.kind,
        token.c.algorithm,
        token.c.digits,
        token.c.period,
        token.c.t0,
        token.c.moving_factor,
        token.c.drift,
        token.c.sealed,
        token.c.expires_at,
    )


def _is_active_of_user() -> ColumnElement[bool]:
    user, token = tables.user, tables.token
    return and_(token.c.user_id == user.c.id, token.c.state == literal_column("'active'"))


def spend(dialect: Dialect) -> Executable:
    """Spend moving factors: each at most once, and only of an active token. Returns the tokens that won."""
    token = tables.token
    v = _rows(dialect, seq=BigInteger(), next=BigInteger(), drift=Integer(), at=BigInteger())
    return (
        update(token)
        .values(moving_factor=v.c.next, drift=v.c.drift, last_used_at=v.c.at)
        .where(
            token.c.seq == v.c.seq,
            token.c.moving_factor < v.c.next,
            token.c.state == literal_column("'active'"),
        )
        .returning(token.c.seq)
    )


def strike(dialect: Dialect) -> Executable:
    """Spend codes of lists, a bit of the moving factor each, at most once, and only of an active token."""
    token = tables.token
    v = _rows(dialect, seq=BigInteger(), bit=BigInteger(), at=BigInteger())
    return (
        update(token)
        .values(moving_factor=token.c.moving_factor.bitwise_or(v.c.bit), last_used_at=v.c.at)
        .where(
            token.c.seq == v.c.seq,
            token.c.moving_factor.bitwise_and(v.c.bit) == literal_column("0"),
            token.c.state == literal_column("'active'"),
        )
        .returning(token.c.seq)
    )


def remember(dialect: Dialect) -> Executable:
    """Keep the time of a success."""
    v = _rows(dialect, client=Text(), name=Text(), service=Text(), source=Text(), at=BigInteger())
    fresh = _insert(dialect, tables.seen).from_select(
        ["client", "name", "service", "source", "at"],
        select(v.c.client, v.c.name, v.c.service, v.c.source, v.c.at).where(true()),
    )
    return fresh.on_conflict_do_update(
        index_elements=["client", "name", "service", "source"], set_={"at": fresh.excluded.at}
    )


def throttled(dialect: Dialect) -> Select[Any]:
    """What back-off knows of some keys. Keys that never missed have no row."""
    t = tables.throttle
    v = _rows(dialect, key=Text())
    return select(t.c.key, t.c.not_before, t.c.last).select_from(t).join(v, t.c.key == v.c.key)


def miss(dialect: Dialect, rule: Backoff, *, reserving: bool = False) -> Executable:
    """Count a wrong code for each key, unless nothing is judged for it now.

    With `reserving` the miss may be taken back (`forgive`), and does not keep those before it from being forgotten.
    Returns the keys that were counted, until when nothing is judged for each, and when it was counted.
    """
    t = tables.throttle
    v = _rows(dialect, key=Text(), now=BigInteger())
    fresh = _insert(dialect, t).from_select(
        ["key", "misses", "refused", "last", "since", "not_before"],
        # `WHERE true` keeps SQLite from reading ON CONFLICT as a join condition.
        select(
            v.c.key, literal_column("1"), literal_column("0"), v.c.now, v.c.now.label("since"), v.c.now + rule.wait(1)
        ).where(true()),
    )
    now = fresh.excluded.last
    left = _remaining(rule, now)
    changes: dict[str, ColumnElement[int]] = {"misses": left + 1, "since": now}
    if reserving:
        some = left > literal_column("0")
        changes = {"misses": case((some, t.c.misses), else_=left) + 1, "since": case((some, t.c.since), else_=now)}
    return fresh.on_conflict_do_update(
        index_elements=[t.c.key],
        set_={**changes, "last": now, "not_before": now + _wait(rule, left + 1)},
        where=_open(rule, now),
    ).returning(t.c.key, t.c.not_before, t.c.last)


def hit(dialect: Dialect) -> Executable:
    """A right code ends the row of misses."""
    v = _rows(dialect, key=Text())
    return delete(tables.throttle).where(tables.throttle.c.key.in_(select(v.c.key)))


def forgive(dialect: Dialect) -> Executable:
    """Take back a miss that was counted for each key at a given time, before it was known to be none."""
    t = tables.throttle
    v = _rows(dialect, key=Text(), at=BigInteger())
    zero: ColumnElement[int] = literal_column("0", Integer)
    return (
        update(t)
        .values(
            misses=case((t.c.misses > zero, t.c.misses - 1), else_=zero),
            # The wait that this very miss began; one that another miss began stands.
            not_before=case((t.c.last == v.c.at, zero), else_=t.c.not_before),
        )
        .where(t.c.key == v.c.key)
    )


def refuse(dialect: Dialect) -> Executable:
    """Count attempts that were turned away unjudged. They do not lengthen the wait."""
    t = tables.throttle
    v = _rows(dialect, key=Text())
    return update(t).values(refused=t.c.refused + 1).where(t.c.key.in_(select(v.c.key)))


def head() -> Select[Any]:
    """The audit log's newest sequence and mac; the row stays locked until the commit."""
    meta = tables.meta
    return select(meta.c.number, meta.c.value).where(meta.c.name == literal_column("'audit head'")).with_for_update()


def appends(dialect: Dialect, sizes: Iterable[int]) -> list[tuple[int, str]]:
    """How so many audit rows are written at once, for SQLite: bound in the order of `tables.audit`, row by row."""
    sql = str(insert(tables.audit).compile(dialect=dialect))
    row = sql[sql.index("(?") :]
    return [(rows, ", ".join([sql, *[row] * (rows - 1)])) for rows in sizes]


def append_rows(dialect: Dialect) -> Executable:
    """Audit rows as one parameter, for PostgreSQL; `mac` comes in as hex digits.

    A statement that binds each value of many rows is longer than its driver remembers, and is taken apart each time.
    """
    v = _rows(dialect, sequence=BigInteger(), client=Text(), name=Text(), entry=Text(), mac=Text())
    columns = select(
        v.c.sequence,
        v.c.client,
        v.c.name,
        v.c.entry,
        func.decode(v.c.mac, literal_column("'hex'"), type_=LargeBinary),
    )
    return insert(tables.audit).from_select(["sequence", "client", "name", "entry", "mac"], columns)


def move_head() -> Executable:
    """Put the audit log's head where it is now."""
    meta = tables.meta
    return (
        update(meta)
        .values(number=bindparam("s", type_=BigInteger), value=bindparam("m", type_=LargeBinary))
        .where(meta.c.name == literal_column("'audit head'"))
    )


def _insert(dialect: Dialect, table: Table) -> Insert:
    """An INSERT with ON CONFLICT, as this dialect has it: the other one would take long to load."""
    made: Insert = importlib.import_module(f"sqlalchemy.dialects.{dialect.name}").insert(table)
    return made


def _open(rule: Backoff, now: ColumnElement[int]) -> ColumnElement[bool]:
    """`Backoff.blocked_for(...) == 0` in SQL."""
    not_before = tables.throttle.c.not_before
    return or_(not_before <= now, not_before > now + rule.longest_wait)


def _remaining(rule: Backoff, now: ColumnElement[int]) -> ColumnElement[int]:
    """`Backoff.remaining` in SQL."""
    t = tables.throttle.c
    elapsed = now - t.since
    left = t.misses - elapsed // rule.forget
    return case((elapsed <= 0, t.misses), (left > 0, left), else_=literal_column("0"))


def _wait(rule: Backoff, misses: ColumnElement[int]) -> ColumnElement[int]:
    """`Backoff.wait` in SQL."""
    doublings = 0
    while rule.wait(rule.limit + doublings) < rule.longest_wait:
        doublings += 1
    beyond = cast(misses - rule.limit, Integer)
    return case(
        (misses < rule.limit, literal_column("0")),
        (misses >= rule.limit + doublings, literal_column(str(rule.longest_wait))),
        else_=cast(literal_column(str(rule.first_wait)), BigInteger).bitwise_lshift(beyond),
    )
