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
    Token,
    User,
)
from otpbridge.store import about, auditlog, imports, moving, rekey, schema, tables
from otpbridge.store.auditlog import AuditLog
from otpbridge.store.chain import GENESIS, HEAD, AuditRow
from otpbridge.store.engine import StoreLock, alone, is_shared, open_engine, shown, transaction
from otpbridge.store.hangs import Hangs
from otpbridge.store.lines import Line, PostgresLine, SqliteLine
from otpbridge.store.lister import Lister
from otpbridge.store.postgres import is_forbidden
from otpbridge.store.readers import PostgresReader, Reader, SqliteReader
from otpbridge.store.settle import Settlement, Settler, Sighting
from otpbridge.store.tokens import StoredToken
from otpbridge.store.writer import QUICK_SECONDS, Tally, Transaction, Writer
from otpbridge.vault.keys import KeyPlace, Keyring
from otpbridge.vault.seal import Vault, derive, token_identity

T = TypeVar("T")

_LONGEST_SEEN = 604_800_000
"""Milliseconds: no policy may look further back."""
_LONGEST_IMPORT = 86_400
"""Seconds that the rows of an import are kept for its last call."""


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

    def __init__(
        self,
        engine: Engine,
        lock: StoreLock | None,
        vault: Vault,
        root: Secret,
        *,
        per_source: Backoff,
        unlisted: int,
    ) -> None:
        self.engine = engine
        self.vault = vault
        self.is_shared = is_shared(engine)
        """Whether other daemons use it too."""
        self._per_source = per_source
        self._lock = lock
        self._fingerprint_key = derive(root, "fingerprint")
        self.backup_key = derive(root, "backup")
        self.audit = AuditLog(engine.dialect, derive(root, "audit"))
        self._open: _Open | None = None
        self._unlisted = unlisted
        self._lister: Lister | None = None
        self._watchers: set[Callable[[list[AuditRow]], None]] = set()

    @property
    def url(self) -> str:
        """Where the store is, without a password."""
        return shown(self.engine)

    def start(self, *, quick: float = QUICK_SECONDS) -> None:
        """Begin to read and write. Commits to a file that take less than `quick` seconds hold up the event loop."""
        settler = Settler(self.engine.dialect, self._per_source)
        hangs: Hangs | None = None
        reader: Reader
        line: Line
        if self.is_shared:
            hangs, quick = Hangs(), 0.0
            hangs.start()
            reader, line = PostgresReader(self.engine, hangs), PostgresLine(self.engine, hangs)
        else:
            line = sqlite_line = SqliteLine(self.engine)
            reader = SqliteReader(self.engine, sqlite_line)
        writer = Writer(line, settler, self.audit, committed=self._tell, quick=quick)
        self._open = _Open(reader, writer, hangs)
        self._lister = Lister(self.list_slice, self._unlisted)

    async def close(self) -> None:
        """Write what is queued and let go of the store."""
        if self._lister is not None:
            await self._lister.close()
        if self._open is not None:
            await self._open.writer.close()
            await self._open.reader.close()
            if self._open.hangs is not None:
                self._open.hangs.close()
        self.engine.dispose()
        if self._lock is not None:
            self._lock.close()

    # --- verification ---

    async def candidate(self, client: str, name: str) -> Candidate:
        """Look a user up for a verification. Raises StoreError."""
        rows = await self._started.reader.candidate(client, name)
        # Who is not there, or has no token, is made up, so that it takes as long to find that out.
        there = rows or [_NOBODY]
        enforcement, locked_at, exempt_until, notice = there[0][:4]
        user = User(name, client, Enforcement(enforcement) if enforcement else None, locked_at, exempt_until, notice)
        active = [_active(row if row[4] is not None else _NOBODY, client, name) for row in there]
        return Candidate(user if rows else None, tuple(stored for stored in active if stored.seq))

    def settle(self, settlement: Settlement[T]) -> asyncio.Future[T]:
        """Settle a judged attempt; what it concludes comes once the ruling is on disk, or the store has failed."""
        return self._started.writer.settle(settlement)

    def seed(self, stored: StoredToken) -> Secret:
        """The seed of a token. Raises SealBrokenError."""
        if stored.sealed is None:
            raise StoreError(f"token {stored.token.id} is revoked: its seed is destroyed")
        return self.vault.open(stored.sealed, token_identity(stored.token))

    async def seen_at(self, sighting: Sighting) -> int | None:
        """When a user last passed at a service from a source (Unix milliseconds), where that was to be kept."""
        seen = tables.seen
        same = (
            (seen.c.client == sighting.client)
            & (seen.c.name == sighting.name)
            & (seen.c.service == sighting.service)
            & (seen.c.source == sighting.source)
        )
        found: int | None = await self.read(
            lambda connection: connection.execute(select(seen.c.at).where(same)).scalar_one_or_none()
        )
        return found

    # --- changes ---

    def change(self, work: Callable[[Transaction], T], now: int) -> asyncio.Future[T]:
        """Run a change in the writer's next transaction. Its own errors come through the future."""
        return self._started.writer.change(work, now)

    def list_slice(self) -> asyncio.Future[int]:
        """List some more of the audit log by user; how many entries are left. StoreError comes through the future."""
        return self._started.writer.change(lambda transaction: about.list_slice(transaction.connection), 0)

    async def read(self, work: Callable[[Connection], T]) -> T:
        """Run a short read. Raises StoreError."""
        return await self._started.reader.read(work)

    async def read_long(self, work: Callable[[Connection], T]) -> T:
        """Run a long read in a thread; it sees the store as it is at one moment. Raises StoreError."""
        return await self._started.reader.read_long(work)

    def fingerprint(self, seed: Secret) -> bytes:
        """What tells whether a seed is in the store already; useless without the store's own secret."""
        return hmac.digest(self._fingerprint_key.reveal(), seed.reveal(), hashlib.sha256)[:16]

    def tidy(self, transaction: Transaction) -> None:
        """Forget back-off that counts nothing any more, old successes, and imports that were given up."""
        t, seen = tables.throttle, tables.seen
        # Misses decay by the time that passes alone, so a row is only worth its place while some are left, or while
        # the wait that they began goes on: it may be longer than it takes to forget them. All rules forget alike.
        gone = (t.c.misses <= (transaction.now - t.c.since) // self._per_source.forget) & (
            t.c.not_before <= transaction.now
        )
        transaction.connection.execute(delete(t).where(gone))
        transaction.connection.execute(delete(seen).where(seen.c.at < transaction.now - _LONGEST_SEEN))
        imports.drop_older(transaction, transaction.now // 1000 - _LONGEST_IMPORT)

    # --- status and audit ---

    def counts(self, connection: Connection) -> Counts:
        """Sizes of the store."""
        entries, head = auditlog.anchor(connection)
        users = connection.execute(select(func.count()).select_from(tables.user)).scalar_one()
        active = connection.execute(
            select(func.count()).select_from(tables.token).where(tables.token.c.state == State.ACTIVE)
        ).scalar_one()
        return Counts(users, active, entries, head)

    @property
    def tally(self) -> Tally:
        """What was written since the start."""
        return self._started.writer.tally

    @property
    def waiting(self) -> int:
        """How many settlements and changes wait to be written."""
        return self._started.writer.waiting

    def watch(self, watcher: Callable[[list[AuditRow]], None]) -> Callable[[], None]:
        """Hear of audit rows once they are on disk; returns what ends it."""
        self._watchers.add(watcher)
        return lambda: self._watchers.discard(watcher)

    def _tell(self, rows: list[AuditRow]) -> None:
        if self._lister is not None:
            self._lister.told(rows)
        for watcher in tuple(self._watchers):
            watcher(rows)

    @property
    def _started(self) -> _Open:
        if self._open is None:
            raise StoreError("the store is not started")
        return self._open


@dataclass(frozen=True, slots=True)
class _Open:
    """What works for a store that was started."""

    reader: Reader
    writer: Writer
    hangs: Hangs | None


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
    engine = open_engine(url, state_dir)
    lock = None if is_shared(engine) else StoreLock(state_dir)
    try:
        with engine.connect() as connection, alone(engine, connection):
            fresh = schema.version(connection) is None
            if not fresh:
                moving.refuse(connection, shown(engine))
                fresh = not rekey.has_root(connection)
            vault = Vault(_keyring(keys, random, fresh=fresh), random)
            schema.migrate(connection)
            root = _root(engine, connection, vault, random)
            unlisted = about.unlisted(connection)
        return Store(engine, lock, vault, root, per_source=per_source, unlisted=unlisted)
    except BaseException as error:
        engine.dispose()
        if lock is not None:
            lock.close()
        if isinstance(error, DBAPIError):
            if is_forbidden(error):
                raise StoreError(
                    f"{shown(engine)}: {_first_line(error.orig)}. Run `otpbridge store upgrade --role OWNER` and "
                    "grant the daemon's role its rights (docs/postgresql.md)"
                ) from None
            raise StoreError(f"{shown(engine)}: cannot be opened: {_first_line(error.orig)}") from None
        raise


def _keyring(keys: KeyPlace, random: Callable[[int], bytes], *, fresh: bool) -> Keyring:
    """The keys of a store; made for one that has no secret yet."""
    return keys.create(random) if fresh and not keys.exists() else keys.load()


def _first_line(error: BaseException | None) -> str:
    return str(error).partition("\n")[0]


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
    with transaction(connection):
        if found is None:
            if connection.execute(select(tables.user.c.id).limit(1)).first() is not None:
                raise StoreError("the store has users but has lost its own secret; restore a backup")
            found = Secret(random(32))
            connection.execute(
                insert(tables.meta),
                [
                    {"name": rekey.ROOT, "number": 1, "value": vault.seal(found, rekey.ROOT_IDENTITY)},
                    {"name": HEAD, "number": 0, "value": GENESIS},
                ],
            )
        if not is_shared(engine):
            # Whoever sent them is gone. Elsewhere it may be another daemon's: those `tidy` sees to.
            imports.drop(Transaction(connection, 0))
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
