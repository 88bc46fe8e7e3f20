"""Seal the store's secrets anew under the vault's primary key, a piece at a time."""

from __future__ import annotations

from sqlalchemy import ColumnElement, Connection, func, literal, select, update

from otpbridge.errors import VaultError
from otpbridge.model import Secret
from otpbridge.store import tables, tokens
from otpbridge.store.writer import Transaction
from otpbridge.vault.seal import Vault, token_identity

ROOT = "root"
ROOT_IDENTITY = b"otpbridge store secret"

_PIECE = 200


def stale(connection: Connection, vault: Vault) -> int:
    """How many seeds are not under the primary key yet."""
    table = tables.token
    return connection.execute(
        select(func.count()).select_from(table).where(table.c.sealed.is_not(None), _other(vault))
    ).scalar_one()


def reseal(transaction: Transaction, vault: Vault) -> int:
    """Seal some of the stale seeds anew; returns how many. Raises SealBrokenError for one that does not open."""
    table = tables.token
    rows = transaction.connection.execute(
        select(table.c.id).where(table.c.sealed.is_not(None), _other(vault)).order_by(table.c.seq).limit(_PIECE)
    ).all()
    for row in rows:
        stored = tokens.find(transaction.connection, row.id)
        assert stored.sealed is not None
        identity = token_identity(stored.token)
        transaction.connection.execute(
            update(table)
            .values(sealed=vault.seal(vault.open(stored.sealed, identity), identity))
            .where(table.c.seq == stored.seq, table.c.sealed == stored.sealed)
        )
    return len(rows)


def root(connection: Connection, vault: Vault) -> Secret | None:
    """The store's own secret, from which its audit, fingerprint and backup keys come. None in a new store.

    Raises SealBrokenError where the master key is not this store's.
    """
    meta = tables.meta
    sealed = connection.execute(select(meta.c.value).where(meta.c.name == ROOT)).scalar_one_or_none()
    return None if sealed is None else vault.open(bytes(sealed), ROOT_IDENTITY)


def has_root(connection: Connection) -> bool:
    """Whether a store has its own secret already."""
    return connection.execute(select(tables.meta.c.name).where(tables.meta.c.name == ROOT)).first() is not None


def reseal_root(transaction: Transaction, vault: Vault) -> None:
    """Seal the store's own secret anew."""
    secret = root(transaction.connection, vault)
    if secret is None:
        raise VaultError("the store has lost its own secret; restore a backup")
    meta = tables.meta
    transaction.connection.execute(
        update(meta).values(value=vault.seal(secret, ROOT_IDENTITY)).where(meta.c.name == ROOT)
    )


def _other(vault: Vault) -> ColumnElement[bool]:
    return func.substr(tables.token.c.sealed, 2, 4) != literal(vault.keyring.primary.id)
