"""Move the store to another database, with all daemons stopped."""

from __future__ import annotations

import os
import time

from sqlalchemy.exc import DBAPIError

from otpbridge import config
from otpbridge.daemon.main import Options, harden, key_place
from otpbridge.errors import StoreError
from otpbridge.store import moving, schema
from otpbridge.store.engine import StoreLock, open_engine, shown
from otpbridge.store.store import prepare_folder
from otpbridge.vault.seal import Vault

FILE = "sqlite"
"""What stands for the file in the state folder."""


def move(options: Options, target: str, *, again: bool) -> str:
    """Move the configured store; returns what to tell the admin. Raises StoreError, VaultError or ConfigError.

    `target` is a database URL, or `sqlite` for the file in the state folder.
    """
    harden()
    settings = config.read(options.config_file).parse()
    prepare_folder(options.state_dir)
    lock = StoreLock(options.state_dir)
    old = open_engine(settings.store.url, options.state_dir)
    new = open_engine(None if target == FILE else target, options.state_dir)
    try:
        if old.url == new.url:
            raise StoreError("the store is there already")
        vault = Vault(key_place(settings, options).load(), os.urandom)
        with old.connect() as source, new.connect() as fresh:
            if schema.version(source) is None:
                raise StoreError(f"{shown(old)}: there is no store to move")
            schema.migrate(source)
            schema.migrate(fresh)
            done = moving.move(source, fresh, vault, int(time.time()), again=again)
    except DBAPIError as error:
        said = str(error.orig).partition("\n")[0]
        raise StoreError(f"the store cannot be moved: {said}") from None
    finally:
        old.dispose()
        new.dispose()
        lock.close()
    counts = ", ".join(f"{count} {table}" for table, count in done.rows.items())
    lines = [f"Moved {shown(old)} to {shown(new)}: {counts}.", f"The audit log is whole, up to {done.anchor}."]
    where = "take [store] url out of" if target == FILE else "put the new [store] url into"
    lines.append(f"Now {where} otpbridge.toml of every daemon and start them. The old store opens no more.")
    return "\n".join(lines)
