"""Users in the store. Functions that change take the transaction of the writer; those that read, a connection."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Row,
    delete,
    func,
    insert,
    literal_column,
    select,
    tuple_,
    update,
)

from otpbridge.errors import ConflictError, NotFoundError
from otpbridge.model import AUTHENTICATORS, Enforcement, State, ThrottleState, User
from otpbridge.store import tables
from otpbridge.store.writer import Transaction


class NoSuchUserError(NotFoundError):
    """There is no such user."""

    def __init__(self, client: str, user: str) -> None:
        self.client, self.user = client, user
        super().__init__(f"there is no user {user} of client {client}")


class UserExistsError(ConflictError):
    """There is such a user already."""

    def __init__(self, client: str, user: str) -> None:
        self.client, self.user = client, user
        super().__init__(f"user {user} of client {client} exists already")


class LockedUserError(ConflictError):
    """An administrator has locked the user, and only one may do this now."""

    def __init__(self, client: str, user: str) -> None:
        self.client, self.user = client, user
        super().__init__(f"user {user} of client {client} is locked: an administrator has to unlock them first")


class NotConfirmedError(ConflictError):
    """`required` is refused while the user has no active authenticator."""

    def __init__(self, client: str, user: str) -> None:
        self.client, self.user = client, user
        super().__init__(f"user {user} of client {client} has no confirmed token: a code must have proven one first")


class NoAuthenticatorError(ConflictError):
    """The user has no active authenticator, which the change needs."""

    def __init__(self, client: str, user: str) -> None:
        self.client, self.user = client, user
        super().__init__(f"user {user} of client {client} has no active authenticator: enrol one first")


@dataclass(frozen=True, slots=True)
class UserState:
    """A user with what an admin wants to see beside the name."""

    user: User
    active_tokens: int
    throttle: ThrottleState


def subject_key(client: str, name: str) -> str:
    """What back-off counts a user under, whether or not the user is in the store."""
    return f"user/{client}/{name}"


def source_key(rhost: str) -> str:
    """What back-off counts a source under."""
    return f"source/{rhost}"


def token_key(token_id: str) -> str:
    """What back-off counts the confirmation of a pending token under."""
    return f"token/{token_id}"


def add(transaction: Transaction, client: str, name: str) -> None:
    """Add a user without tokens, for whom holds what policy says. Raises UserExistsError."""
    if find(transaction.connection, client, name) is not None:
        raise UserExistsError(client, name)
    transaction.connection.execute(
        insert(tables.user).values(client=client, name=name, created_at=transaction.now // 1000)
    )


def ensure(transaction: Transaction, client: str, name: str) -> bool:
    """Add a user who is not there yet; says whether one was added."""
    if find(transaction.connection, client, name) is not None:
        return False
    add(transaction, client, name)
    return True


def find(connection: Connection, client: str, name: str) -> User | None:
    """The user of that name."""
    user = tables.user
    row = connection.execute(select(user).where(user.c.client == client, user.c.name == name)).one_or_none()
    return None if row is None else _user(row)


def state(connection: Connection, client: str, name: str) -> UserState:
    """A user with counts. Raises NoSuchUserError."""
    found = page(connection, client, None, 1, name=name)
    if not found:
        raise NoSuchUserError(client, name)
    return found[0]


def page(
    connection: Connection, client: str | None, after: tuple[str, str] | None, most: int, *, name: str | None = None
) -> list[UserState]:
    """The next users in order of client and name, after the given pair, `most` at most."""
    user, token, throttle = tables.user, tables.token, tables.throttle
    active = (
        select(func.count())
        .where(token.c.user_id == user.c.id, token.c.state == State.ACTIVE, token.c.kind.in_(AUTHENTICATORS))
        .scalar_subquery()
        .label("active")
    )
    key: ColumnElement[str] = literal_column("'user/'") + user.c.client + literal_column("'/'") + user.c.name
    query = (
        select(
            user,
            active,
            throttle.c.misses,
            throttle.c.refused,
            throttle.c.last,
            throttle.c.not_before,
        )
        .select_from(user)
        .outerjoin(throttle, throttle.c.key == key)
        .order_by(user.c.client, user.c.name)
        .limit(most)
    )
    if client is not None:
        query = query.where(user.c.client == client)
    if name is not None:
        query = query.where(user.c.name == name)
    if after is not None:
        # As one comparison of rows: by it an index is entered, by OR of two it is read from its beginning.
        query = query.where(tuple_(user.c.client, user.c.name) > after)
    return [
        UserState(
            _user(row),
            row.active,
            ThrottleState(row.misses or 0, row.refused or 0, row.last or 0, row.not_before or 0),
        )
        for row in connection.execute(query)
    ]


def remove(transaction: Transaction, client: str, name: str, *, spare_locked: bool = False) -> None:
    """Delete a user with tokens and back-off; with `spare_locked`, not one who is locked.

    Raises NoSuchUserError or LockedUserError.
    """
    user = tables.user
    change = delete(user).where(user.c.client == client, user.c.name == name)
    if spare_locked:
        change = change.where(user.c.locked_at.is_(None))
    if not transaction.connection.execute(change.returning(user.c.id)).all():
        if find(transaction.connection, client, name) is None:
            raise NoSuchUserError(client, name)
        raise LockedUserError(client, name)
    forget(transaction, client, name)


def enforce(
    transaction: Transaction, client: str, name: str, enforcement: Enforcement | None, *, force: bool = False
) -> None:
    """Set a user's enforcement: one statement, so that no token can vanish between check and change.

    None leaves it to policy. Raises NoSuchUserError, or NotConfirmedError for `required` without an active
    authenticator (unless forced).
    """
    user, token = tables.user, tables.token
    change = update(user).values(enforcement=enforcement).where(user.c.client == client, user.c.name == name)
    if enforcement is Enforcement.REQUIRED and not force:
        change = change.where(
            select(token.c.seq)
            .where(token.c.user_id == user.c.id, token.c.state == State.ACTIVE, token.c.kind.in_(AUTHENTICATORS))
            .exists()
        )
    if not transaction.connection.execute(change.returning(user.c.id)).all():
        if find(transaction.connection, client, name) is None:
            raise NoSuchUserError(client, name)
        raise NotConfirmedError(client, name)


def lock(transaction: Transaction, client: str, name: str, *, locked: bool) -> None:
    """Lock a user out of everything, or let them in again. Raises NoSuchUserError."""
    _set(transaction, client, name, locked_at=transaction.now // 1000 if locked else None)


def exempt(transaction: Transaction, client: str, name: str, until: int | None) -> None:
    """Ask no second factor of a user until a time (Unix seconds). Raises NoSuchUserError."""
    _set(transaction, client, name, exempt_until=until)


def leave_notice(transaction: Transaction, client: str, name: str, notice: str | None) -> None:
    """What the person is told at the next login; None when they were told. Raises NoSuchUserError."""
    _set(transaction, client, name, notice=notice)


def forget(transaction: Transaction, client: str, name: str) -> None:
    """Forget a user's back-off, and from where they came before."""
    throttle, seen = tables.throttle, tables.seen
    transaction.connection.execute(delete(throttle).where(throttle.c.key == subject_key(client, name)))
    transaction.connection.execute(delete(seen).where(seen.c.client == client, seen.c.name == name))


def _set(transaction: Transaction, client: str, name: str, **values: Any) -> None:
    user = tables.user
    change = update(user).values(**values).where(user.c.client == client, user.c.name == name)
    if not transaction.connection.execute(change.returning(user.c.id)).all():
        raise NoSuchUserError(client, name)


def _user(row: Row[Any]) -> User:
    return User(
        name=row.name,
        client=row.client,
        enforcement=Enforcement(row.enforcement) if row.enforcement else None,
        locked_at=row.locked_at,
        exempt_until=row.exempt_until,
        notice=row.notice,
        created_at=row.created_at,
    )
