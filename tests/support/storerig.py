"""A store of its own for a test, in this process, with a clock that the test sets."""

from __future__ import annotations

import asyncio
import os
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select

from otpbridge.config import Key
from otpbridge.model import (
    AuditEvent,
    Backoff,
    Kind,
    OtpParameters,
    Secret,
    State,
    ThrottleState,
    Token,
    Verdict,
)
from otpbridge.store import tables, tokens, users
from otpbridge.store.engine import snapshot
from otpbridge.store.settle import Settlement, Sighting, Spend, Strike
from otpbridge.store.store import Store, open_store
from otpbridge.vault.keys import KeyPlace
from otpbridge.vault.seal import token_identity

NOW = 1_800_000_000_000
RULE = Backoff(limit=3, first_wait=1000, longest_wait=300_000, forget=900_000)
SOURCE_RULE = Backoff(limit=5, first_wait=1000, longest_wait=300_000, forget=900_000)


class Backend:
    """Where stores of a folder are: in it, unless a test is run on another database."""

    def __init__(self):
        self.url = self.beside

    def beside(self, folder):
        """SQLite in the folder."""


backend = Backend()


def only(*names):
    """Mark a test of the store that is about these databases."""

    def mark(test):
        test.backends = names
        return test

    return mark


def place(folder):
    """The embedded key of a folder."""
    return KeyPlace(Key(), folder, None)


def opened(folder, per_source=SOURCE_RULE):
    """The store of a folder, not started."""
    return open_store(backend.url(folder), folder, place(folder), os.urandom, per_source)


def checked(store, anchor=None):
    """What a check of the audit log finds."""
    with store.engine.connect() as connection:
        connection.exec_driver_sql(snapshot(store.engine))
        try:
            return store.audit.check(connection, anchor)
        finally:
            connection.exec_driver_sql("ROLLBACK")


@asynccontextmanager
async def running(folder, rule=RULE, per_source=SOURCE_RULE, *, quick=0.0):
    """The store of a folder, started; its commits go to the thread unless `quick` says otherwise."""
    store = opened(folder, per_source)
    store.start(quick=quick)
    try:
        yield Rig(store, rule)
    finally:
        await store.close()


@dataclass
class Rig:
    """Short ways to do things to a store."""

    store: Store
    rule: Backoff = RULE
    """Back-off of subjects, where an attempt says nothing else."""

    async def change(self, work: Any, now: int = NOW) -> Any:
        """Run a change."""
        return await self.store.change(work, now)

    async def token(self, name="alice", token_id="t1", *, kind=Kind.TOTP, state=State.ACTIVE, seed=None, label="l"):
        """Add a user (if new) with a token; returns it as stored."""
        token = Token(
            token_id,
            name,
            "local",
            kind,
            State.PENDING,
            OtpParameters(),
            label=label,
            created_at=NOW // 1000,
            expires_at=NOW // 1000 + 600,
        )
        seed = Secret(os.urandom(20)) if seed is None else seed

        def work(transaction):
            users.ensure(transaction, "local", name)
            sealed = self.store.vault.seal(seed, token_identity(token))
            tokens.add(transaction, token, sealed, self.store.fingerprint(seed))
            if state is not State.PENDING:
                tokens.confirm(transaction, token_id, 0, 0)
            if state not in {State.PENDING, State.ACTIVE}:
                tokens.change_state(transaction, token_id, {State.ACTIVE}, state)

        await self.change(work)
        return self.find(token_id)

    def find(self, token_id):
        """A token as stored."""
        return self.read(lambda connection: tokens.find(connection, token_id))

    def read(self, work):
        """Read from a connection of the test's own."""
        with self.store.engine.connect() as connection:
            return work(connection)

    def throttle(self, key):
        """What back-off knows of a key."""
        t = tables.throttle
        row = self.read(lambda connection: connection.execute(select(t).where(t.c.key == key)).one_or_none())
        return ThrottleState() if row is None else ThrottleState(row.misses, row.refused, row.last, row.not_before)

    async def put(self, name="alice", token_id="r1", *, kind=Kind.RECOVERY, label="", expires_at=None, seed=None):
        """Give a user (added if new) a token that is active at once; returns it as stored."""
        token = Token(
            token_id,
            name,
            "local",
            kind,
            State.ACTIVE,
            OtpParameters(),
            label=label,
            created_at=NOW // 1000,
            expires_at=expires_at,
        )
        seed = Secret(os.urandom(20)) if seed is None else seed

        def work(transaction):
            users.ensure(transaction, "local", name)
            sealed = self.store.vault.seal(seed, token_identity(token))
            return tokens.put(transaction, token, sealed, self.store.fingerprint(seed))

        await self.change(work)
        return self.find(token_id)

    def settlement(
        self,
        name="alice",
        *,
        spend=None,
        strike=None,
        passed=None,
        source=None,
        now=NOW,
        rule=None,
        reserving=False,
        reserved=(),
        service=None,
    ):
        """One judged attempt; with `service` its success is remembered. It concludes with the ruling."""
        spends = () if spend is None else (Spend(*spend, 0),)
        spends += () if strike is None else (Strike(*strike),)
        return Settlement(
            users.subject_key("local", name),
            None if source is None else users.source_key(source),
            bool(spends) if passed is None else passed,
            spends,
            now,
            self.rule if rule is None else rule,
            lambda ruling: (AuditEvent("verify", user=name, verdict=Verdict.AUTH_ERR), ruling),
            reserving=reserving,
            reserved=tuple(reserved),
            sighting=None if service is None else Sighting("local", name, service, source or ""),
        )

    def attempt(self, name="alice", **how):
        """Settle one attempt, as `settlement` makes it; the future gives the ruling."""
        return self.store.settle(self.settlement(name, **how))

    def misses(self, name="alice"):
        """What back-off knows of a user."""
        return self.throttle(users.subject_key("local", name))

    def source_misses(self, source):
        """What back-off knows of a source."""
        return self.throttle(users.source_key(source))


def run(work):
    """Run a coroutine function's coroutine."""
    return asyncio.run(work)
