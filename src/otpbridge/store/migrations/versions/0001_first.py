"""Users, tokens, back-off, audit, imports."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

Number = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    """Make all tables of the first version."""
    op.create_table(
        "user",
        sa.Column("id", Number, primary_key=True),
        sa.Column("client", sa.Text, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("enforcement", sa.Text),
        sa.Column("locked_at", Number),
        sa.Column("exempt_until", Number),
        sa.Column("notice", sa.Text),
        sa.Column("created_at", Number, nullable=False),
        sa.UniqueConstraint("client", "name", name="uq_user_client_name"),
        sa.CheckConstraint("enforcement IN ('required', 'optional')", name="ck_user_enforcement"),
    )
    op.create_table(
        "token",
        sa.Column("seq", Number, primary_key=True),
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("user_id", Number, nullable=False),
        *_token_columns(),
        sa.Column("drift", sa.Integer, nullable=False),
        sa.Column("sealed", sa.LargeBinary),
        sa.Column("fingerprint", sa.LargeBinary),
        sa.Column("last_used_at", Number),
        sa.Column("serials", sa.Text),
        sa.UniqueConstraint("id", name="uq_token_id"),
        sa.ForeignKeyConstraint(["user_id"], ["user.id"], name="fk_token_user_id", ondelete="CASCADE"),
        sa.CheckConstraint("state IN ('pending', 'active', 'disabled', 'revoked')", name="ck_token_state"),
        sa.CheckConstraint("(state = 'revoked') = (sealed IS NULL)", name="ck_token_sealed"),
    )
    op.create_index("ix_token_user_id", "token", ["user_id"])
    op.create_index("ix_token_expires_at", "token", ["expires_at"], sqlite_where=sa.text("expires_at IS NOT NULL"))
    op.create_index("uq_token_fingerprint", "token", ["fingerprint"], unique=True)
    op.create_table(
        "throttle",
        sa.Column("key", sa.Text, primary_key=True),
        sa.Column("misses", sa.Integer, nullable=False),
        sa.Column("refused", sa.Integer, nullable=False),
        sa.Column("last", Number, nullable=False),
        sa.Column("since", Number, nullable=False),
        sa.Column("not_before", Number, nullable=False),
    )
    op.create_index("ix_throttle_last", "throttle", ["last"])
    op.create_table(
        "seen",
        sa.Column("client", sa.Text, primary_key=True),
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("service", sa.Text, primary_key=True),
        sa.Column("source", sa.Text, primary_key=True),
        sa.Column("at", Number, nullable=False),
    )
    op.create_index("ix_seen_at", "seen", ["at"])
    op.create_table(
        "audit",
        sa.Column("sequence", Number, primary_key=True, autoincrement=False),
        sa.Column("client", sa.Text),
        sa.Column("name", sa.Text),
        sa.Column("entry", sa.Text, nullable=False),
        sa.Column("mac", sa.LargeBinary, nullable=False),
    )
    op.create_table(
        "about",
        sa.Column("client", sa.Text, primary_key=True),
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("sequence", Number, primary_key=True, autoincrement=False),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "meta",
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("number", Number, nullable=False),
        sa.Column("value", sa.LargeBinary, nullable=False),
    )
    op.create_table(
        "relay",
        sa.Column("serial", sa.Text, primary_key=True),
        sa.Column("host", sa.Text, nullable=False),
        sa.Column("issued_at", Number, nullable=False),
        sa.Column("expires_at", Number),
        sa.Column("revoked_at", Number),
    )
    op.create_index("ix_relay_host_issued_at", "relay", ["host", "issued_at"])
    op.create_table(
        "staged",
        sa.Column("import_id", sa.Text, primary_key=True),
        sa.Column("line", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("client", sa.Text, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("id", sa.Text, nullable=False),
        *_token_columns(),
        sa.Column("drift", sa.Integer, nullable=False),
        sa.Column("sealed", sa.LargeBinary, nullable=False),
        sa.Column("fingerprint", sa.LargeBinary, nullable=False),
    )


def _token_columns() -> list[sa.Column[object]]:
    return [
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("algorithm", sa.Text, nullable=False),
        sa.Column("digits", sa.Integer, nullable=False),
        sa.Column("period", sa.Integer, nullable=False),
        sa.Column("t0", Number, nullable=False),
        sa.Column("moving_factor", Number, nullable=False),
        sa.Column("label", sa.Text, nullable=False),
        sa.Column("issuer", sa.Text, nullable=False),
        sa.Column("created_at", Number, nullable=False),
        sa.Column("expires_at", Number),
        sa.Column("confirmed_at", Number),
    ]
