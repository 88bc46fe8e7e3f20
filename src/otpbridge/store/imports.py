"""Imports: rows are staged as they come and become users and tokens in one transaction, or not at all."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import delete, exists, func, insert, literal, select

from otpbridge.model import Token
from otpbridge.store import tables, tokens
from otpbridge.store.writer import Transaction


def stage(transaction: Transaction, import_id: str, rows: Sequence[tuple[int, Token, bytes, bytes]]) -> None:
    """Put rows aside: (line, token, sealed seed, fingerprint)."""
    transaction.connection.execute(
        insert(tables.staged),
        [
            {
                **tokens.columns(token),
                "import_id": import_id,
                "line": line,
                "client": token.client,
                "name": token.user,
                "drift": token.drift,
                "sealed": sealed,
                "fingerprint": fingerprint,
            }
            for line, token, sealed, fingerprint in rows
        ],
    )


def duplicates(transaction: Transaction, import_id: str, most: int) -> list[tuple[int, str]]:
    """Staged lines whose seed is a token already, or stands twice in the import, with the reason."""
    staged, token = tables.staged, tables.token
    here = staged.c.import_id == import_id
    stored = transaction.connection.execute(
        select(staged.c.line)
        .join(token, token.c.fingerprint == staged.c.fingerprint)
        .where(here)
        .order_by(staged.c.line)
        .limit(most)
    )
    found = {row.line: "this key is a token in the store already" for row in stored}
    first = func.min(staged.c.line).over(partition_by=staged.c.fingerprint).label("first")
    lines = select(staged.c.line, first).where(here).subquery()
    twice = transaction.connection.execute(
        select(lines).where(lines.c.line > lines.c.first).order_by(lines.c.line).limit(most)
    )
    found |= {row.line: f"this key stands in line {row.first} too" for row in twice}
    return sorted(found.items())


def finish(transaction: Transaction, import_id: str) -> int:
    """Turn staged rows into users (those that are not there yet) and tokens; returns the number of tokens."""
    user, token, staged = tables.user, tables.token, tables.staged
    run = transaction.connection.execute
    here = staged.c.import_id == import_id
    run(
        insert(user).from_select(
            ["client", "name", "created_at"],
            select(
                staged.c.client,
                staged.c.name,
                literal(transaction.now // 1000),
            )
            .distinct()
            .where(here, ~exists().where(user.c.client == staged.c.client, user.c.name == staged.c.name)),
        )
    )
    shared = [column.name for column in staged.c if column.name in token.c]
    taken = run(
        insert(token).from_select(
            [*shared, "user_id"],
            select(*(staged.c[name] for name in shared), user.c.id)
            .join(user, (user.c.client == staged.c.client) & (user.c.name == staged.c.name))
            .where(here)
            .order_by(staged.c.line),
        ),
        execution_options={"preserve_rowcount": True},
    )
    drop(transaction, import_id)
    return taken.rowcount


def drop(transaction: Transaction, import_id: str | None = None) -> None:
    """Forget the staged rows of one import, or of all."""
    change = delete(tables.staged)
    if import_id is not None:
        change = change.where(tables.staged.c.import_id == import_id)
    transaction.connection.execute(change)


def drop_older(transaction: Transaction, created: int) -> None:
    """Forget the staged rows that were made before a time (Unix seconds): nobody sends their last call any more."""
    transaction.connection.execute(delete(tables.staged).where(tables.staged.c.created_at < created))
