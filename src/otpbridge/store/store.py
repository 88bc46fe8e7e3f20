"""The store as the daemon sees it: candidates to read, settlements and changes to write."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import os
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine, delete, func, insert, select
from sqlalchemy.exc import DBAPIError

from otpbridge.errors import StoreError
from otpbridge.model import (
    AUTHENTICATORS,
    Algorithm,
    Backoff,
    Enforcement,
    Kind,
    OtpParameters,
    Secret,
    State,
    ThrottleState,
    Token,
    User,
)
from otpbridge.store import auditlog, imports, rekey, schema, statements, tables
from otpbridge.store.auditlog import AuditLog, AuditRow
from otpbridge.store.engine import StoreLock, begin, open_engine
from otpbridge.store.settle import Settlement, Settler, Sighting
from otpbridge.store.statements import Prepared
from otpbridge.store.tokens import StoredToken
from otpbridge.store.writer import QUICK_SECONDS, Transaction, Writer
from otpbridge.vault.keys import KeyPlace
from otpbridge.vault.seal import Vault, derive, token_identity

T = TypeVar("T")

_LONGEST_SEEN = 604_800_000
"""Milliseconds: no policy may look further back."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """What a verification needs to know of a user: who they are (None: not in the store), and active tokens."""

    user: User | None
    tokens: tuple[StoredToken, ...]

    @property
    def has_authenticator(self) -> bool:
        """Whether there is a token that a second factor can be shown with, other than a stand-in."""
        return any(stored.token.kind in AUTHENTICATORS for stored in self.tokens)


@dataclass(frozen=True, slots=True)
class Counts:
    """Sizes, for status."""

    users: int
    active_tokens: int
    audit_entries: int
    audit_anchor: str


class Store:
    """One store, open. `start` it in the event loop that will use it; `close` it there."""

    def __init__(self, engine: Engine, lock: StoreLock, vault: Vault, root: Secret, per_source: Backoff) -> None:
        self.engine = engine
        self.vault = vault
        self._per_source = per_source
        self._lock = lock
        self._fingerprint_key = derive(root, "fingerprint")
        self.backup_key = derive(root, "backup")
        self.audit = AuditLog(engine.dialect, derive(root, "audit"))
        self._reader = engine.connect()
        self._candidate = Prepared(statements.candidate(), engine.dialect)
        self._writer: Writer | None = None
        self._watchers: set[Callable[[list[AuditRow]], None]] = set()

    @property
    def url(self) -> str:
        """Where the store is, without a password."""
        return self.engine.url.render_as_string(hide_password=True)

    def start(self, *, quick: float = QUICK_SECONDS) -> None:
        """Begin to write. Commits that take less than `quick` seconds are waited for on the event loop."""
        settler = Settler(self.engine.dialect, self._per_source)
        local = self.engine.dialect.name == "sqlite"
        self._writer = Writer(self.engine, settler, self.audit, committed=self._tell, quick=quick if local else 0.0)

    async def close(self) -> None:
        """Write what is queued and let go of the store."""
        if self._writer is not None:
            await self._writer.close()
        self._reader.close()
        self.engine.dispose()
        self._lock.close()

    # --- verification ---

    def candidate(self, client: str, name: str) -> Candidate:
        """Look a user up for a verification. Raises StoreError."""
        try:
            driver = self._reader.connection.dbapi_connection
            assert driver is not None
            rows = self._candidate.run(driver.cursor(), client=client, name=name).fetchall()
        except Exception as error:
            if isinstance(error, self.engine.dialect.dbapi.Error):  # type: ignore[union-attr]
                raise StoreError(f"the store cannot be read: {error}") from None
            raise
        # Who is not there, or has no token, is made up, so that it takes as long to find that out.
        there = rows or [_NOBODY]
        enforcement, locked_at, exempt_until, notice = there[0][:4]
        user = User(name, client, Enforcement(enforcement) if enforcement else None, locked_at, exempt_until, notice)
        active = [_active(row if row[4] is not None else _NOBODY, client, name) for row in there]
        return Candidate(user if rows else None, tuple(stored for stored in active if stored.seq))

    def settle(self, settlement: Settlement[T]) -> asyncio.Future[T]:
        """Settle a judged attempt; what it concludes comes once the ruling is on disk, or the store has failed."""
        return self._writing.settle(settlement)

    def seed(self, stored: StoredToken) -> Secret:
        """The seed of a token. Raises SealBrokenError."""
        if stored.sealed is None:
            raise StoreError(f"token {stored.token.id} is revoked: its seed is destroyed")
        return self.vault.open(stored.sealed, token_identity(stored.token))

    def seen_at(self, sighting: Sighting) -> int | None:
        """When a user last passed at a service from a source (Unix milliseconds), where that was to be kept."""
        seen = tables.seen
        same = (
            (seen.c.client == sighting.client)
            & (seen.c.name == sighting.name)
            & (seen.c.service == sighting.service)
            & (seen.c.source == sighting.source)
        )
        found: int | None = self.read(
            lambda connection: connection.execute(select(seen.c.at).where(same)).scalar_one_or_none()
        )
        return found

    # --- changes ---

    def change(self, work: Callable[[Transaction], T], now: int) -> asyncio.Future[T]:
        """Run a change in the writer's next transaction. Its own errors come through the future."""
        return self._writing.change(work, now)

    def read(self, work: Callable[[Connection], T]) -> T:
        """Run a short read. Raises StoreError."""
        try:
            return work(self._reader)
        except DBAPIError as error:
            raise StoreError(f"the store cannot be read: {error.orig}") from None

    async def read_long(self, work: Callable[[Connection], T]) -> T:
        """Run a long read in a thread, on a connection of its own. Raises StoreError."""

        def run() -> T:
            with self.engine.connect() as connection:
                return work(connection)

        try:
            return await asyncio.to_thread(run)
        except DBAPIError as error:
            raise StoreError(f"the store cannot be read: {error.orig}") from None

    def fingerprint(self, seed: Secret) -> bytes:
        """What tells whether a seed is in the store already; useless without the store's own secret."""
        return hmac.digest(self._fingerprint_key.reveal(), seed.reveal(), hashlib.sha256)[:16]

    def throttle(self, key: str) -> ThrottleState:
        """What back-off knows of a key."""
        t = tables.throttle
        row = self.read(lambda connection: connection.execute(select(t).where(t.c.key == key)).one_or_none())
        return ThrottleState() if row is None else ThrottleState(row.misses, row.refused, row.last, row.not_before)

    def tidy(self, transaction: Transaction) -> None:
        """Forget back-off that counts nothing any more, and successes that no policy looks back to."""
        t, seen = tables.throttle, tables.seen
        # Misses decay by the time that passes alone, so a row is only worth its place while some are left, or while
        # the wait that they began goes on: it may be longer than it takes to forget them. All rules forget alike.
        gone = (t.c.misses <= (transaction.now - t.c.since) // self._per_source.forget) & (
            t.c.not_before <= transaction.now
        )
        transaction.connection.execute(delete(t).where(gone))
        transaction.connection.execute(delete(seen).where(seen.c.at < transaction.now - _LONGEST_SEEN))

    # --- status and audit ---

    def counts(self, connection: Connection) -> Counts:
        """Sizes of the store."""
        entries, head = auditlog.anchor(connection)
        users = connection.execute(select(func.count()).select_from(tables.user)).scalar_one()
        active = connection.execute(
            select(func.count()).select_from(tables.token).where(tables.token.c.state == State.ACTIVE)
        ).scalar_one()
        return Counts(users, active, entries, head)

    def watch(self, watcher: Callable[[list[AuditRow]], None]) -> Callable[[], None]:
        """Hear of audit rows once they are on disk; returns what ends it."""
        self._watchers.add(watcher)
        return lambda: self._watchers.discard(watcher)

    def _tell(self, rows: list[AuditRow]) -> None:
        for watcher in tuple(self._watchers):
            watcher(rows)

    @property
    def _writing(self) -> Writer:
        if self._writer is None:
            raise StoreError("the store is not started")
        return self._writer


def open_store(
    url: str | None,
    state_dir: Path,
    keys: KeyPlace,
    random: Callable[[int], bytes],
    per_source: Backoff,
) -> Store:
    """Open the store, making it (and its key) if there is none.

    Raises StoreError, StoreBusyError, ConfigError, and of the key: KeyMissingError, KeyUnsafeError, SealBrokenError.
    """
    prepare_folder(state_dir)
    lock = StoreLock(state_dir)
    try:
        engine = open_engine(url, state_dir)
        try:
            with engine.connect() as connection:
                fresh = schema.version(connection) is None
                keyring = keys.create(random) if fresh and not keys.exists() else keys.load()
                vault = Vault(keyring, random)
                schema.migrate(connection)
                root = _root(engine, connection, vault, random)
        except DBAPIError as error:
            raise StoreError(f"{engine.url.render_as_string()}: cannot be opened: {error.orig}") from None
        return Store(engine, lock, vault, root, per_source)
    except BaseException:
        lock.close()
        raise


def prepare_folder(folder: Path) -> None:
    """Make a private folder, or check one. Raises StoreError."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        about = folder.stat()
    except OSError as error:
        raise StoreError(f"{folder}: cannot be made or read: {error.strerror}. Give another --state-dir") from None
    if not stat.S_ISDIR(about.st_mode) or not os.access(folder, os.W_OK | os.X_OK):
        raise StoreError(
            f"{folder}: is not a folder that uid {os.geteuid()} can write. chown it, or give --state-dir"
        )
    if about.st_mode & 0o022:
        raise StoreError(f"{folder}: others can write here (mode {stat.S_IMODE(about.st_mode):04o}); chmod 0700 it")


def _root(engine: Engine, connection: Connection, vault: Vault, random: Callable[[int], bytes]) -> Secret:
    """The store's own secret; made in a store that has no data yet."""
    found = rekey.root(connection, vault)
    connection.exec_driver_sql(begin(engine))
    try:
        if found is None:
            if connection.execute(select(tables.user.c.id).limit(1)).first() is not None:
                raise StoreError("the store has users but has lost its own secret; restore a backup")
            found = Secret(random(32))
            connection.execute(
                insert(tables.meta),
                [
                    {"name": rekey.ROOT, "number": 1, "value": vault.seal(found, rekey.ROOT_IDENTITY)},
                    {"name": auditlog.HEAD, "number": 0, "value": auditlog.GENESIS},
                ],
            )
        imports.drop(Transaction(connection, 0))
        connection.exec_driver_sql("COMMIT")
    except BaseException:
        connection.exec_driver_sql("ROLLBACK")
        raise
    return found


_NOBODY = (Enforcement.REQUIRED, None, None, None, 0, "", Kind.TOTP, Algorithm.SHA1, 6, 30, 0, 0, 0, b"", None)
"""A row of statements.candidate that is in no store: tokens are counted from 1."""


def _active(row: Any, client: str, name: str) -> StoredToken:
    seq, token_id, kind, algorithm, digits, period, t0, moving_factor, drift, sealed, expires_at = row[4:]
    token = Token(
        id=token_id,
        user=name,
        client=client,
        kind=Kind(kind),
        state=State.ACTIVE,
        parameters=OtpParameters(Algorithm(algorithm), digits, period, t0),
        moving_factor=moving_factor,
        drift=drift,
        expires_at=expires_at,
    )
    return StoredToken(token, seq, sealed)
