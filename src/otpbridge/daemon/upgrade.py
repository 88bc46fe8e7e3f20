"""Make or upgrade the tables of a store on a database server, as the role that owns them."""

from __future__ import annotations

from sqlalchemy.exc import DBAPIError

from otpbridge import config
from otpbridge.daemon.main import Options, harden
from otpbridge.errors import StoreError
from otpbridge.store import schema
from otpbridge.store.engine import alone, is_shared, open_engine, parse_url, shown


def upgrade(options: Options, role: str) -> str:
    """Bring the tables of the configured store to what this version needs; returns what to tell the admin.

    With `role`, as that role instead of the daemon's own. Raises StoreError or ConfigError.
    """
    harden()
    url = config.read(options.config_file).parse().store.url
    if url is None:
        raise StoreError("[store] url is not set: the store is a file in the state folder, which the daemon upgrades")
    parsed = parse_url(url)
    if role:
        # The daemon's password is not this role's.
        parsed = parsed.set(username=role, password=None)
    engine = open_engine(parsed.render_as_string(hide_password=False), options.state_dir)
    if not is_shared(engine):
        raise StoreError("[store] url names a file, which the daemon upgrades itself")
    try:
        with engine.connect() as connection, alone(engine, connection):
            before = schema.version(connection)
            schema.migrate(connection)
    except DBAPIError as error:
        said = str(error.orig).partition("\n")[0]
        raise StoreError(f"{shown(engine)}: cannot be upgraded: {said}") from None
    finally:
        engine.dispose()
    if before == schema.HEAD:
        return f"{shown(engine)} has schema {schema.HEAD} already."
    return f"{shown(engine)} has schema {schema.HEAD} now. Grant the daemon's role its rights: docs/postgresql.md."
