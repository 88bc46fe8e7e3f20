"""A store that goes to another database: all of it, once, and not in two places."""

from __future__ import annotations

import contextlib
import os
import subprocess

import pytest
from daemon_rig import CLI
from pgcluster import cluster
from sqlalchemy import select, text, update
from storerig import NOW, RULE, SOURCE_RULE, backend, checked, opened, place, run, running

from otpbridge.errors import StoreError
from otpbridge.model import AuditEvent, Kind
from otpbridge.store import schema, tables
from otpbridge.store.engine import StoreLock, open_engine
from otpbridge.store.moving import move, was_moved
from otpbridge.store.settle import Settled
from otpbridge.vault.seal import Vault

TABLES = (tables.user, tables.token, tables.throttle, tables.seen)


@contextlib.contextmanager
def other(name, folder):
    """The URL of an empty database of the other kind."""
    if name == "postgresql":
        yield f"sqlite:///{folder / 'moved.db'}"
        return
    made = cluster().create()
    yield cluster().url(made)
    cluster().give_back(made)


@contextlib.contextmanager
def both(folder, url):
    """Connections to the store of a folder, and to where it goes."""
    engines = [open_engine(each, folder) for each in (backend.url(folder), url)]
    try:
        with engines[0].connect() as source, engines[1].connect() as target:
            schema.migrate(target)
            yield source, target
    finally:
        for engine in engines:
            engine.dispose()


def moved(folder, url, *, again=False):
    """Move it."""
    with both(folder, url) as (source, target):
        return move(source, target, Vault(place(folder).load(), os.urandom), NOW // 1000, again=again)


async def filled(folder):
    """Put something of all into a store; its rows."""
    async with running(folder) as rig:
        token = await rig.token()
        await rig.put("bob", "r1", kind=Kind.RECOVERY)
        await rig.attempt(spend=(token.seq, 21), source="192.0.2.1", service="sshd")
        for _ in range(RULE.limit):
            await rig.attempt("carol", source="192.0.2.2")
        for number in range(600):
            await rig.change(lambda t, number=number: t.audit(AuditEvent("noted", user=f"u{number}")))
        return rows(rig)


def rows(rig):
    """What is in a store, but for the log."""
    return [rig.read(lambda c, table=table: sorted(map(tuple, c.execute(select(table))))) for table in TABLES]


@pytest.fixture
def target(_backend, request, tmp_path):
    """Where the store goes."""
    with other(request.node.callspec.params["_backend"], tmp_path) as url:
        yield url


def use(url):
    backend.url = lambda _folder: url


def test_all_of_it_is_there_and_works(tmp_path, target):
    """Users, tokens, seeds, what was spent, back-off and the log; new ones can be added."""
    before = run(filled(tmp_path))
    done = moved(tmp_path, target)
    assert done.rows["user"] == 2
    use(target)

    async def after():
        async with running(tmp_path) as rig:
            assert rows(rig) == before
            found = checked(rig.store)
            assert found.fault is None
            assert found.entries == done.rows["audit"] + 1
            token = rig.find("t1")
            assert rig.store.seed(token).reveal()
            assert (await rig.attempt(spend=(token.seq, 21))).settled is Settled.SPENT
            assert (await rig.attempt(spend=(token.seq, 22))).settled is Settled.PASSED
            assert (await rig.attempt("carol")).settled is Settled.BLOCKED
            assert (await rig.token("dave", "t2", label="new")).seq > token.seq

    run(after())


def test_the_old_store_accepts_nothing_any_more(tmp_path, target):
    """Not when it is opened, nor at a daemon that has it open on a server: a code would be good twice."""
    run(filled(tmp_path))
    shared = backend.url(tmp_path) is not None

    async def still_open():
        async with running(tmp_path) as rig:
            token = rig.find("t1")
            moved(tmp_path, target)
            assert (await rig.attempt(spend=(token.seq, 30))).settled is Settled.FAILED

    if shared:
        run(still_open())
    else:
        moved(tmp_path, target)
    with pytest.raises(StoreError, match="was moved to another database"):
        opened(tmp_path)


def test_a_move_that_was_interrupted_goes_on(tmp_path, target):
    """The old store is closed, the new one was not committed: nothing is lost, and it is not done by accident."""
    before = run(filled(tmp_path))
    with both(tmp_path, target) as (source, _):
        source.execute(text("UPDATE meta SET name = 'audit head, moved' WHERE name = 'audit head'"))
        assert was_moved(source)
    with pytest.raises(StoreError, match="--again"):
        moved(tmp_path, target)
    moved(tmp_path, target, again=True)
    with pytest.raises(StoreError, match="a store in the target already"):
        moved(tmp_path, target, again=True)
    use(target)

    async def after():
        async with running(tmp_path) as rig:
            assert rows(rig) == before
            assert checked(rig.store).fault is None

    run(after())


def test_a_store_whose_log_was_changed_is_not_moved(tmp_path, target):
    """It stays where it is, and opens; nothing is in the target."""
    run(filled(tmp_path))
    audit = tables.audit
    with both(tmp_path, target) as (source, _):
        source.execute(update(audit).where(audit.c.sequence == 5).values(entry="{}"))
    with pytest.raises(StoreError, match="entry 5 was changed"):
        moved(tmp_path, target)
    with both(tmp_path, target) as (source, fresh):
        assert not was_moved(source)
        assert fresh.execute(select(tables.user)).first() is None
    run(opened(tmp_path, SOURCE_RULE).close())


def test_the_command_moves_what_the_configuration_names(tmp_path, target):
    """What it says names rows and the anchor; a store in use is not moved, nor one to where it is."""
    run(filled(tmp_path))
    url = backend.url(tmp_path)
    file = tmp_path / "otpbridge.toml"
    file.write_text("" if url is None else f'[store]\nurl = "{url}"\n')

    def told(where, *options):
        arguments = [*CLI, "store", "migrate", where, "--state-dir", str(tmp_path), "--config", str(file), *options]
        done = subprocess.run(arguments, check=False, capture_output=True, text=True, timeout=60)
        return done.returncode, done.stdout + done.stderr

    aim = target if url is None else "sqlite"
    assert told(url or "sqlite") == (1, "otpbridged: cannot migrate: the store is there already\n")
    lock = StoreLock(tmp_path)
    status, said = told(aim)
    lock.close()
    assert status == 1
    assert "Stop it first" in said
    status, said = told(aim)
    assert status == 0, said
    assert "2 user" in said
    assert "The audit log is whole, up to" in said
    status, said = told(aim)
    assert status == 1
    assert "moved already" in said
