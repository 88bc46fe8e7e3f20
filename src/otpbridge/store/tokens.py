"""Tokens in the store. Every change of state is one statement that says which state it changes."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Row,
    ScalarSelect,
    Select,
    delete,
    exists,
    insert,
    or_,
    select,
    true,
    tuple_,
    update,
)

from otpbridge.errors import ConflictError, EnrolError, NotFoundError
from otpbridge.model import AUTHENTICATORS, Algorithm, Kind, OtpParameters, State, Token
from otpbridge.store import tables
from otpbridge.store.writer import Transaction


class NoSuchTokenError(NotFoundError):
    """There is no such token, or it waited too long for its code."""

    def __init__(self, token: str) -> None:
        self.token = token
        super().__init__(f"there is no token {token}; a pending one is gone once its time is up")


class WrongStateError(ConflictError):
    """The token is not in the state that the change needs."""

    def __init__(self, token: str, state: State) -> None:
        self.token = token
        self.state = state
        super().__init__(f"token {token} is {state}")


class LastTokenError(ConflictError):
    """A user who must show a second factor would be left without one."""

    def __init__(self, token: str) -> None:
        self.token = token
        super().__init__(f"token {token} is the last one of a user who must show a code; make it optional first")


class SpentError(ConflictError):
    """The code was spent before, or an older one than the last spent."""


@dataclass(frozen=True, slots=True)
class StoredToken:
    """A token as it lies in the store: `seq` is its row, `sealed` its seed (None once revoked)."""

    token: Token
    seq: int
    sealed: bytes | None


@dataclass(frozen=True, slots=True)
class Named:
    """What a token is called among people."""

    kind: Kind
    label: str


def columns(token: Token) -> dict[str, Any]:
    """A token's own columns, without user, seed and fingerprint."""
    parameters = token.parameters
    return {
        "id": token.id,
        "kind": token.kind,
        "state": token.state,
        "algorithm": parameters.algorithm,
        "digits": parameters.digits,
        "period": parameters.period,
        "t0": parameters.t0,
        "moving_factor": token.moving_factor,
        "label": token.label,
        "issuer": token.issuer,
        "created_at": token.created_at,
        "expires_at": token.expires_at,
        "confirmed_at": token.confirmed_at,
    }


def add(transaction: Transaction, token: Token, sealed: bytes, fingerprint: bytes | None) -> list[str]:
    """Add a pending token of a user who is there. Pending ones of the same kind go; returns their ids."""
    table = tables.token
    owner = _owner(token)
    older = transaction.connection.execute(
        delete(table)
        .where(table.c.user_id == owner, table.c.kind == token.kind, table.c.state == State.PENDING)
        .returning(table.c.id)
    ).all()
    transaction.connection.execute(
        insert(table).values(
            **columns(token), user_id=owner, drift=token.drift, sealed=sealed, fingerprint=fingerprint
        )
    )
    return [row.id for row in older]


def put(transaction: Transaction, token: Token, sealed: bytes, fingerprint: bytes | None) -> list[str]:
    """Add an active token of a user who is there; those of the same kind and label are revoked. Returns their ids."""
    table = tables.token
    owner = _owner(token)
    replaced = transaction.connection.execute(
        update(table)
        .values(state=State.REVOKED, sealed=None, fingerprint=None, expires_at=None)
        .where(
            table.c.user_id == owner,
            table.c.kind == token.kind,
            table.c.label == token.label,
            table.c.state.in_([State.ACTIVE, State.DISABLED]),
        )
        .returning(table.c.id)
    ).all()
    transaction.connection.execute(
        insert(table).values(
            **columns(token), user_id=owner, drift=token.drift, sealed=sealed, fingerprint=fingerprint
        )
    )
    return [row.id for row in replaced]


def authenticators(connection: Connection, client: str, name: str) -> list[str]:
    """The labels of a user's authenticators that are active or disabled."""
    user, table = tables.user, tables.token
    rows = connection.execute(
        select(table.c.label)
        .join(user, user.c.id == table.c.user_id)
        .where(
            user.c.client == client,
            user.c.name == name,
            table.c.kind.in_(AUTHENTICATORS),
            table.c.state.in_([State.ACTIVE, State.DISABLED]),
        )
    ).all()
    return [row.label for row in rows]


def find(connection: Connection, token_id: str) -> StoredToken:
    """The token with this id. Raises NoSuchTokenError."""
    row = connection.execute(_query().where(tables.token.c.id == token_id)).one_or_none()
    if row is None:
        raise NoSuchTokenError(token_id)
    return _stored(row)


def named(connection: Connection, ids: Collection[str]) -> dict[str, Named]:
    """What tokens are called, by id, as far as they are in the store."""
    table = tables.token
    rows = connection.execute(select(table.c.id, table.c.kind, table.c.label).where(table.c.id.in_(ids))).all()
    return {row.id: Named(Kind(row.kind), row.label) for row in rows}


def of_user(connection: Connection, client: str, name: str, *, revoked: bool = False) -> list[StoredToken]:
    """The tokens of one user, oldest first."""
    query = _query().where(tables.user.c.client == client, tables.user.c.name == name).order_by(tables.token.c.seq)
    if not revoked:
        query = query.where(tables.token.c.state != State.REVOKED)
    return [_stored(row) for row in connection.execute(query)]


def page(
    connection: Connection, client: str | None, after: tuple[str, str, int] | None, most: int, *, revoked: bool
) -> list[StoredToken]:
    """The next tokens in order of client, user and age, after the given (client, user, seq)."""
    user, token = tables.user, tables.token
    query = _query().order_by(user.c.client, user.c.name, token.c.seq).limit(most)
    if client is not None:
        query = query.where(user.c.client == client)
    if not revoked:
        query = query.where(token.c.state != State.REVOKED)
    if after is not None:
        # The first comparison is for the index.
        query = query.where(
            tuple_(user.c.client, user.c.name) >= after[:2],
            tuple_(user.c.client, user.c.name, token.c.seq) > after,
        )
    return [_stored(row) for row in connection.execute(query)]


def confirm(
    transaction: Transaction, token_id: str, spent: int, drift: int, serials: Collection[str] = ()
) -> list[str]:
    """Make a pending token active, its code spent; the active ones it takes over from are revoked.

    It takes over from tokens of the same user, kind and label. `spent` is the moving factor of the code, `serials`
    are those of the hardware keys that hold it. Returns the ids of the revoked ones. Raises NoSuchTokenError or
    WrongStateError.
    """
    values = {"moving_factor": spent + 1, "drift": drift, "serials": " ".join(serials) or None}
    return _activate(transaction, token_id, values, tables.token.c.moving_factor <= spent)


def complete(
    transaction: Transaction, token_id: str, sealed: bytes, fingerprint: bytes, moving_factor: int
) -> list[str]:
    """Make a pending security key active, what is sealed with it now complete; as `confirm`.

    Raises EnrolError where it is a token already.
    """
    table = tables.token
    if transaction.connection.execute(select(table.c.seq).where(table.c.fingerprint == fingerprint)).first():
        raise EnrolError("this security key is registered already")
    values = {"moving_factor": moving_factor, "sealed": sealed, "fingerprint": fingerprint}
    return _activate(transaction, token_id, values, true())


def _activate(
    transaction: Transaction, token_id: str, values: dict[str, Any], condition: ColumnElement[bool]
) -> list[str]:
    table = tables.token
    now = transaction.now // 1000
    changed = transaction.connection.execute(
        update(table)
        .values(state=State.ACTIVE, confirmed_at=now, last_used_at=now, expires_at=None, **values)
        .where(table.c.id == token_id, table.c.state == State.PENDING, table.c.expires_at > now, condition)
        .returning(table.c.user_id, table.c.kind, table.c.label)
    ).one_or_none()
    if changed is None:
        stored = find(transaction.connection, token_id)
        if stored.token.state is State.PENDING:
            raise NoSuchTokenError(token_id)
        raise WrongStateError(token_id, stored.token.state)
    replaced = transaction.connection.execute(
        update(table)
        .values(state=State.REVOKED, sealed=None, fingerprint=None)
        .where(
            table.c.user_id == changed.user_id,
            table.c.kind == changed.kind,
            table.c.label == changed.label,
            table.c.state.in_([State.ACTIVE, State.DISABLED]),
            table.c.id != token_id,
        )
        .returning(table.c.id)
    ).all()
    return [row.id for row in replaced]


def change_state(
    transaction: Transaction,
    token_id: str,
    sources: Collection[State],
    target: State,
    *,
    keep_one: bool = False,
) -> None:
    """Change a token's state from one of `sources`.

    With `keep_one`, never the last active authenticator of the user. Raises NoSuchTokenError, WrongStateError or
    LastTokenError.
    """
    table = tables.token
    values: dict[str, Any] = {"state": target}
    if target is State.REVOKED:
        values |= {"sealed": None, "fingerprint": None, "expires_at": None}
    change = update(table).values(**values).where(table.c.id == token_id, table.c.state.in_(sources))
    if keep_one:
        other = table.alias("other")
        change = change.where(
            or_(
                table.c.state != State.ACTIVE,
                table.c.kind.not_in(AUTHENTICATORS),
                exists().where(
                    other.c.user_id == table.c.user_id,
                    other.c.state == State.ACTIVE,
                    other.c.kind.in_(AUTHENTICATORS),
                    other.c.id != token_id,
                ),
            )
        )
    if not transaction.connection.execute(change.returning(table.c.seq)).all():
        state = find(transaction.connection, token_id).token.state
        raise LastTokenError(token_id) if state in sources else WrongStateError(token_id, state)


def discard(transaction: Transaction, token_id: str) -> None:
    """Delete a pending token. Raises NoSuchTokenError or WrongStateError."""
    table = tables.token
    gone = transaction.connection.execute(
        delete(table).where(table.c.id == token_id, table.c.state == State.PENDING).returning(table.c.seq)
    ).all()
    if not gone:
        raise WrongStateError(token_id, find(transaction.connection, token_id).token.state)


def expire(transaction: Transaction) -> list[tuple[str, str, str]]:
    """Delete pending tokens and registration codes whose time is up; returns (id, client, user) of each."""
    user, table = tables.user, tables.token
    due = transaction.connection.execute(
        select(table.c.id, user.c.client, user.c.name)
        .join(user, user.c.id == table.c.user_id)
        .where(
            or_(table.c.state == State.PENDING, table.c.kind == Kind.REGISTRATION),
            table.c.state != State.REVOKED,
            table.c.expires_at <= transaction.now // 1000,
        )
    ).all()
    for row in due:
        transaction.connection.execute(delete(table).where(table.c.id == row.id))
    return [(row.id, row.client, row.name) for row in due]


def revoke_all(transaction: Transaction, client: str, name: str) -> list[str]:
    """Revoke every token of a user but the password, pending ones too. Returns their ids."""
    user, table = tables.user, tables.token
    owner = select(user.c.id).where(user.c.client == client, user.c.name == name).scalar_subquery()
    rows = transaction.connection.execute(
        update(table)
        .values(state=State.REVOKED, sealed=None, fingerprint=None, expires_at=None)
        .where(table.c.user_id == owner, table.c.state != State.REVOKED, table.c.kind != Kind.PASSWORD)
        .returning(table.c.id)
    ).all()
    return [row.id for row in rows]


def resynchronise(transaction: Transaction, token_id: str, spent: int, drift: int) -> None:
    """Put an active or disabled token past the second of two consecutive codes.

    Raises SpentError where that one was spent meanwhile, NoSuchTokenError or WrongStateError.
    """
    table = tables.token
    changed = transaction.connection.execute(
        update(table)
        .values(moving_factor=spent + 1, drift=drift, last_used_at=transaction.now // 1000)
        .where(
            table.c.id == token_id,
            table.c.state.in_([State.ACTIVE, State.DISABLED]),
            table.c.moving_factor <= spent,
        )
        .returning(table.c.seq)
    ).all()
    if not changed:
        state = find(transaction.connection, token_id).token.state
        if state in {State.ACTIVE, State.DISABLED}:
            raise SpentError(f"token {token_id}: these codes were spent before; use two newer ones")
        raise WrongStateError(token_id, state)


def _owner(token: Token) -> ScalarSelect[int]:
    user = tables.user
    return select(user.c.id).where(user.c.client == token.client, user.c.name == token.user).scalar_subquery()


def _query() -> Select[Any]:
    user, token = tables.user, tables.token
    return select(token, user.c.client, user.c.name).join(user, user.c.id == token.c.user_id)


def _stored(row: Row[Any]) -> StoredToken:
    token = Token(
        id=row.id,
        user=row.name,
        client=row.client,
        kind=Kind(row.kind),
        state=State(row.state),
        parameters=OtpParameters(Algorithm(row.algorithm), row.digits, row.period, row.t0),
        moving_factor=row.moving_factor,
        drift=row.drift,
        label=row.label,
        issuer=row.issuer,
        created_at=row.created_at,
        expires_at=row.expires_at,
        confirmed_at=row.confirmed_at,
        last_used_at=row.last_used_at,
        serials=tuple((row.serials or "").split()),
    )
    return StoredToken(token, row.seq, None if row.sealed is None else bytes(row.sealed))
