"""Put a backup in place of the store, with the daemon stopped."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import BinaryIO

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from otpbridge import config
from otpbridge.daemon.main import Options, harden, key_place
from otpbridge.errors import StoreError, VaultError
from otpbridge.model import Secret
from otpbridge.store import backup, schema
from otpbridge.store.backup import Restored
from otpbridge.store.engine import SQLITE_NAME, StoreLock, begin, open_engine
from otpbridge.store.store import prepare_folder
from otpbridge.vault.seal import Vault
from otpbridge.verify.loading import widest_window


def restore(options: Options, source: str) -> str:
    """Restore from a file, or from standard input for `-`; returns what to tell the admin.

    The replaced store is kept beside the new one. Raises StoreError, VaultError or ConfigError; then nothing has
    changed.
    """
    harden()
    configuration = config.read(options.config_file)
    settings = configuration.parse()
    with configuration.told():
        reach = widest_window(settings)
    if settings.store.url is not None:
        raise StoreError("restore works on the SQLite store in the state folder; [store] url names another one")
    prepare_folder(options.state_dir)
    lock = StoreLock(options.state_dir)
    draft = options.state_dir / f"{SQLITE_NAME}.restoring"
    try:
        vault = Vault(key_place(settings, options).load(), os.urandom)
        with _opened(source, options.state_dir) as file:
            _remove(draft)
            done = _build(draft, options.state_dir, file, vault, reach)
        kept = _swap(draft, options.state_dir / SQLITE_NAME)
    except DBAPIError as error:
        raise StoreError(f"{draft}: {error.orig}") from None
    finally:
        _remove(draft)
        lock.close()
    return _summary(done, kept)


def _opened(source: str, state_dir: Path) -> BinaryIO:
    """The backup as a file that can be read twice."""
    if source == "-":
        spool = tempfile.TemporaryFile(dir=state_dir)  # noqa: SIM115 - the caller closes it
        shutil.copyfileobj(sys.stdin.buffer, spool)
        spool.seek(0)
        return spool
    try:
        return Path(source).open("rb")
    except OSError as error:
        raise StoreError(f"{source}: cannot be read: {error.strerror}") from None


def _build(draft: Path, state_dir: Path, file: BinaryIO, vault: Vault, reach: int) -> Restored:
    """Make the new store aside."""
    root = backup.check(file, vault)
    taken_at = backup.taken_at(file)
    now = int(time.time())
    engine = open_engine(f"sqlite:///{draft}", draft.parent)
    try:
        with engine.connect() as connection:
            schema.migrate(connection)
            connection.exec_driver_sql(begin(engine))
            rows = backup.load(connection, file)
            ended = _merge(connection, state_dir, vault, root)
            merged = ended is not None
            backup.spend_past(connection, now, reach)
            disabled = 0 if merged else backup.disable_counters(connection)
            done = Restored(taken_at, rows, merged, disabled, ended or 0)
            backup.note(connection, root, now, done)
            connection.exec_driver_sql("COMMIT")
            connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
    finally:
        engine.dispose()
    return done


def _merge(connection: Connection, state_dir: Path, vault: Vault, root: Secret) -> int | None:
    """Carry over from the store that is replaced; None where it cannot be read, or is another one.

    Returns how many exemptions end by it.
    """
    path = state_dir / SQLITE_NAME
    if not path.exists():
        return None
    engine = open_engine(None, state_dir)
    try:
        with engine.connect() as replaced:
            if schema.version(replaced) != schema.HEAD or not backup.same_store(replaced, vault, root):
                return None
            ended = backup.merge(connection, replaced)
            replaced.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
    except (DBAPIError, VaultError):
        # It cannot be read, which may be why the backup is wanted: HOTP tokens are disabled instead.
        return None
    finally:
        engine.dispose()
    return ended


def _swap(draft: Path, place: Path) -> Path | None:
    """Put the new store in place; the old one is kept under another name."""
    kept = None
    if place.exists():
        kept = place.with_name(f"{place.name}.before-{time.strftime('%Y%m%dT%H%M%S')}")
        for suffix in ("-wal", "-shm", ""):
            part = place.with_name(place.name + suffix)
            if part.exists():
                part.rename(kept.with_name(kept.name + suffix))
    draft.rename(place)
    folder = os.open(place.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
    return kept


def _remove(draft: Path) -> None:
    for suffix in ("", "-wal", "-shm"):
        draft.with_name(draft.name + suffix).unlink(missing_ok=True)


def _summary(done: Restored, kept: Path | None) -> str:
    taken = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(done.taken_at))
    lines = [f"Restored {done.rows} rows of the backup taken {taken}."]
    lines.append("TOTP: codes of the past are spent; the first new ones work within about a minute.")
    if done.merged:
        lines.append("Spent codes, revoked tokens and locks were carried over from the store that was replaced.")
        if done.ended:
            lines.append(f"Exemptions that were ended or shortened since stay so: {done.ended}.")
    elif done.disabled:
        lines.append(
            f"{done.disabled} tokens with counters or lists (HOTP, Yubico OTP, recovery codes) are disabled, as it "
            "cannot be known which codes were spent since. HOTP: otpbridge token resync ID CODE1 CODE2, then "
            "otpbridge token enable ID. The others: have them made anew, or enable them if you are sure."
        )
    if kept is not None:
        lines.append(f"The replaced store is kept as {kept}; remove it when all is well.")
    lines.append("Now start the daemon.")
    return "\n".join(lines)
