"""The tables. Migrations make them; a test holds the two equal."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
    text,
)

metadata = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
    }
)

Number = BigInteger().with_variant(Integer, "sqlite")
"""64 bits; on SQLite the type name that makes a primary key the row id."""

user = Table(
    "user",
    metadata,
    Column("id", Number, primary_key=True),
    Column("client", Text, nullable=False),
    Column("name", Text, nullable=False),
    # Null: what policy says.
    Column("enforcement", Text),
    Column("locked_at", Number),
    Column("exempt_until", Number),
    # What the person is told at the next login.
    Column("notice", Text),
    Column("created_at", Number, nullable=False),
    UniqueConstraint("client", "name"),
    CheckConstraint("enforcement IN ('required', 'optional')", name="enforcement"),
)

token = Table(
    "token",
    metadata,
    Column("seq", Number, primary_key=True),
    Column("id", Text, nullable=False, unique=True),
    Column("user_id", Number, ForeignKey("user.id", ondelete="CASCADE"), nullable=False),
    Column("kind", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("algorithm", Text, nullable=False),
    Column("digits", Integer, nullable=False),
    Column("period", Integer, nullable=False),
    Column("t0", Number, nullable=False),
    Column("moving_factor", Number, nullable=False),
    Column("drift", Integer, nullable=False),
    Column("label", Text, nullable=False),
    Column("issuer", Text, nullable=False),
    Column("sealed", LargeBinary),
    Column("fingerprint", LargeBinary),
    Column("created_at", Number, nullable=False),
    Column("expires_at", Number),
    Column("confirmed_at", Number),
    Column("last_used_at", Number),
    # Of hardware keys, with blanks between them.
    Column("serials", Text),
    CheckConstraint("state IN ('pending', 'active', 'disabled', 'revoked')", name="state"),
    CheckConstraint("(state = 'revoked') = (sealed IS NULL)", name="sealed"),
    Index(None, "user_id"),
    # Of the few whose time runs: each minute those are looked for whose time is up.
    Index(None, "expires_at", sqlite_where=text("expires_at IS NOT NULL")),
    # One seed is one token: a seed that came in twice would be accepted twice.
    Index("uq_token_fingerprint", "fingerprint", unique=True),
)

# What back-off counts, by `user/CLIENT/NAME`, `source/RHOST` or `token/ID`. Times in Unix milliseconds: `last` is
# that of the newest miss, from `since` on they are forgotten.
throttle = Table(
    "throttle",
    metadata,
    Column("key", Text, primary_key=True),
    Column("misses", Integer, nullable=False),
    Column("refused", Integer, nullable=False),
    Column("last", Number, nullable=False),
    Column("since", Number, nullable=False),
    Column("not_before", Number, nullable=False),
    Index(None, "last"),
)

# The last success of a user from a source at a service, where policy needs to know it. Times in Unix milliseconds.
seen = Table(
    "seen",
    metadata,
    Column("client", Text, primary_key=True),
    Column("name", Text, primary_key=True),
    Column("service", Text, primary_key=True),
    Column("source", Text, primary_key=True),
    Column("at", Number, nullable=False),
    Index(None, "at"),
)

# Append-only. `entry` is the JSON text that `mac` covers, together with the sequence and the mac before it. `client`
# and `name` say whom it is about, as `entry` does, for those who look for one user.
audit = Table(
    "audit",
    metadata,
    Column("sequence", Number, primary_key=True, autoincrement=False),
    Column("client", Text),
    Column("name", Text),
    Column("entry", Text, nullable=False),
    Column("mac", LargeBinary, nullable=False),
)

# Which entries of the audit log are about whom, as far as they are listed (`store.about`).
about = Table(
    "about",
    metadata,
    Column("client", Text, primary_key=True),
    Column("name", Text, primary_key=True),
    Column("sequence", Number, primary_key=True, autoincrement=False),
    sqlite_with_rowid=False,
)

# Small things there is one of: the sealed store secret, the audit log's head.
meta = Table(
    "meta",
    metadata,
    Column("name", Text, primary_key=True),
    Column("number", Number, nullable=False),
    Column("value", LargeBinary, nullable=False),
)

# Certificates of hosts: those issued here, and those of an authority elsewhere that were revoked. `serial` in hex.
relay = Table(
    "relay",
    metadata,
    Column("serial", Text, primary_key=True),
    Column("host", Text, nullable=False),
    Column("issued_at", Number, nullable=False),
    Column("expires_at", Number),
    Column("revoked_at", Number),
    Index(None, "host", "issued_at"),
)

# Rows of an import that is still being sent; nothing reads them before its last call.
staged = Table(
    "staged",
    metadata,
    Column("import_id", Text, primary_key=True),
    Column("line", Integer, primary_key=True, autoincrement=False),
    Column("client", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("id", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("algorithm", Text, nullable=False),
    Column("digits", Integer, nullable=False),
    Column("period", Integer, nullable=False),
    Column("t0", Number, nullable=False),
    Column("moving_factor", Number, nullable=False),
    Column("drift", Integer, nullable=False),
    Column("label", Text, nullable=False),
    Column("issuer", Text, nullable=False),
    Column("sealed", LargeBinary, nullable=False),
    Column("fingerprint", LargeBinary, nullable=False),
    Column("created_at", Number, nullable=False),
    Column("expires_at", Number),
    Column("confirmed_at", Number),
)
