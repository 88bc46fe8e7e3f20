"""Move the store to another database, with all daemons stopped."""

from __future__ import annotations

import os
import sys
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
_AGAIN = "Run the same command again: it goes on where it was"


def move(options: Options, target: str) -> str:
    """Move the configured store, or go on with that; returns what to tell the admin.

    `target` is a database URL, or `sqlite` for the file in the state folder. Raises StoreError, VaultError or
    ConfigError.
    """
    harden()
    settings = config.read(options.config_file).parse()
    prepare_folder(options.state_dir)
    lock = StoreLock(options.state_dir)
    old = open_engine(settings.store.url, options.state_dir)
    new = open_engine(None if target == FILE else target, options.state_dir)
    progress = _Progress()
    try:
        if old.url == new.url:
            raise StoreError("the store is there already")
        vault = Vault(key_place(settings, options).load(), os.urandom)
        with old.connect() as source, new.connect() as fresh:
            if schema.version(source) is None:
                raise StoreError(f"{shown(old)}: there is no store to move")
            schema.migrate(source)
            schema.migrate(fresh)
            done = moving.move(source, fresh, vault, int(time.time()), random=os.urandom, told=progress)
    except DBAPIError as error:
        said = str(error.orig).partition("\n")[0]
        raise StoreError(f"the store cannot be moved: {said}. {_AGAIN}") from None
    except KeyboardInterrupt:
        raise StoreError(f"interrupted. {_AGAIN}") from None
    finally:
        progress.end()
        old.dispose()
        new.dispose()
        lock.close()
    if done.rows:
        counts = ", ".join(f"{count} {table}" for table, count in done.rows.items())
        lines = [f"Moved {shown(old)} to {shown(new)}: {counts}.", f"The audit log is whole, up to {done.anchor}."]
    else:
        lines = [f"{shown(old)} was moved to {shown(new)} already, all of it."]
    where = "take [store] url out of" if target == FILE else "put the new [store] url into"
    lines.append(f"Now {where} otpbridge.toml of every daemon and start them. The old store opens no more.")
    return "\n".join(lines)


class _Progress:
    """A line on the terminal that says how far it is."""

    def __init__(self) -> None:
        self._live = sys.stderr.isatty()
        self._what = ""

    def __call__(self, what: str, done: int, total: int) -> None:
        """See moving.Told."""
        if self._live:
            before = "" if what == self._what else self._newline()
            self._what = what
            print(
                f"{before}\r{done} of {total} {what} ({100 * done // total} %)", end="", file=sys.stderr, flush=True
            )

    def end(self) -> None:
        """Leave the line."""
        print(self._newline(), end="", file=sys.stderr, flush=True)
        self._what = ""

    def _newline(self) -> str:
        return "\n" if self._what else ""
