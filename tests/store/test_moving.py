"""A store that goes to another database: all of it, once, and not in two places, wherever that is interrupted."""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import signal
import subprocess
import traceback
from pathlib import Path

import pytest
from daemon_rig import CLI
from pgcluster import cluster
from sqlalchemy import Engine, delete, event, insert, select, text, update
from sqlalchemy.exc import DBAPIError
from storerig import NOW, RULE, SOURCE_RULE, backend, checked, only, opened, place, run, running
from terminal import Terminal

from otpbridge.errors import StoreError
from otpbridge.model import AuditEvent, Kind, Secret
from otpbridge.store import copying, rekey, retention, schema, tables, users
from otpbridge.store.chain import HEAD, Mark
from otpbridge.store.engine import StoreLock, open_engine
from otpbridge.store.moving import move
from otpbridge.store.settle import Settled
from otpbridge.vault.keys import Keyring, MasterKey
from otpbridge.vault.seal import Vault

TABLES = (tables.user, tables.token, tables.throttle, tables.seen)
DOCS = (Path(__file__).parents[2] / "docs" / "postgresql.md").read_text()
OPEN, CLOSED, HALF = HEAD, "audit head, moved", "audit head, arriving"
audit, meta = tables.audit, tables.meta


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


def moved(folder, url, told=lambda *_: None):
    """Move it."""
    with both(folder, url) as (source, target):
        vault = Vault(place(folder).load(), os.urandom)
        return move(source, target, vault, NOW // 1000, random=os.urandom, told=told)


def killed(folder, url, commit):
    """Move it in a process that is killed before its commit of that number. False where it was done before that."""
    child = os.fork()
    if not child:
        try:
            numbers = itertools.count(1)

            def strike(_connection, _cursor, statement, *_):
                if statement == "COMMIT" and next(numbers) == commit:
                    os.kill(os.getpid(), signal.SIGKILL)

            event.listen(Engine, "before_cursor_execute", strike)
            moved(folder, url)
            os._exit(0)
        except BaseException:  # noqa: BLE001 - it must not become a second run of the tests
            traceback.print_exc()
            os._exit(1)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status in {0, -signal.SIGKILL}
    return status != 0


def heads(folder, url):
    """What the rows are called that are the heads of the logs of both, or stand in their place."""
    names = select(meta.c.name).where(meta.c.name.in_((OPEN, CLOSED, HALF)))
    with both(folder, url) as (source, target):
        return tuple(each.execute(names).scalar_one_or_none() for each in (source, target))


def tokens_of(folder, url):
    """How many tokens have come to the target."""
    with both(folder, url) as (_, target):
        return copying.count(target, tables.token)


def content(connection):
    """All that is moved: the log, and the rest but for its head."""
    log = list(map(tuple, connection.execute(select(audit).order_by(audit.c.sequence))))
    rest = [sorted(map(tuple, connection.execute(select(table)))) for table in (*TABLES, tables.relay)]
    small = sorted(map(tuple, connection.execute(select(meta).where(meta.c.name.not_in((OPEN, CLOSED, HALF))))))
    return log, [*rest, small]


def same(folder, url):
    """Assert that all of the old store is in the new one, with the entry that says so, and that only that is open."""
    assert heads(folder, url) == (CLOSED, OPEN)
    with both(folder, url) as (source, target):
        (old, rest), (new, there) = content(source), content(target)
        assert new[:-1] == old
        assert '"store moved"' in new[-1][3]
        assert there == rest
        head = target.execute(select(meta.c.number, meta.c.value).where(meta.c.name == HEAD)).one()
        assert tuple(head) == (new[-1][0], new[-1][4])


def emptied(url):
    """Empty the target."""
    if url.startswith("sqlite"):
        for suffix in ("", "-wal", "-shm"):
            Path(url.removeprefix("sqlite:///") + suffix).unlink(missing_ok=True)
        return
    name = url.partition("?")[0].rpartition("/")[2]
    cluster().give_back(name)
    assert cluster().create() == name


def open_again(folder, url):
    """Open the old store again, as the documentation says."""
    (statement,) = re.findall(r"^    UPDATE meta SET [^;]*;", DOCS, re.MULTILINE)
    with both(folder, url) as (source, _):
        source.execute(text(statement))


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


async def little(folder):
    """Put a little of all into a store."""
    async with running(folder) as rig:
        for number in range(5):
            await rig.token(f"u{number}", f"t{number}")
        await rig.attempt("u1", spend=(rig.find("t1").seq, 21), source="192.0.2.1", service="sshd")
        for number in range(8):
            await rig.attempt(f"u{number}", source="192.0.2.2")


@pytest.fixture
def small(monkeypatch):
    """Slices of few rows."""
    monkeypatch.setattr(copying, "SLICE", 2)


def test_whoever_is_killed_runs_it_again(tmp_path, target, small):
    """Before and behind each commit of a move: never are both open, and the second run brings all of it there."""
    run(little(tmp_path))
    met = set()
    for commit in itertools.count(1):
        was_killed = killed(tmp_path, target, commit)
        met.add(heads(tmp_path, target))
        moved(tmp_path, target)
        same(tmp_path, target)
        if not was_killed:
            break
        emptied(target)
        open_again(tmp_path, target)
    assert commit > 12
    assert met == {(OPEN, None), (OPEN, HALF), (CLOSED, HALF), (CLOSED, OPEN)}
    use(target)
    store = opened(tmp_path)
    assert checked(store).fault is None
    run(store.close())


def test_each_run_goes_on_where_the_last_one_was(tmp_path, target, small):
    """However often it is killed: what was copied is not copied again, so that it comes to an end."""
    run(little(tmp_path))
    moved_before = heads(tmp_path, target)
    for runs in itertools.count():
        if moved_before == (CLOSED, HALF):
            break
        # The first commit is that of the mark, the second one that of a slice, or that which closes the old store.
        assert killed(tmp_path, target, 3)
        moved_before = heads(tmp_path, target)
        assert runs < 20
    assert runs > 8
    moved(tmp_path, target)
    same(tmp_path, target)


def test_a_half_moved_store_is_opened_by_nobody(tmp_path, target, small):
    """A daemon says what to do, and makes no key for it. Neither is it moved on, nor another store moved into it."""
    run(little(tmp_path))
    assert killed(tmp_path, target, 4)
    assert heads(tmp_path, target) == (OPEN, HALF)
    other_store = tmp_path / "other"
    other_store.mkdir(mode=0o700)
    old = backend.url(tmp_path)
    backend.url = lambda _folder: target
    with pytest.raises(StoreError, match=r"only a part of this store.*Run the same `otpbridge store migrate` again"):
        opened(other_store)
    assert not place(other_store).exists()
    with pytest.raises(StoreError, match="only a part of this store"):
        moved(tmp_path, old or f"sqlite:///{tmp_path / 'otpbridge.db'}")
    backend.url = backend.beside
    run(opened(other_store).close())
    with pytest.raises(StoreError, match="a part of another store is in the target"):
        moved(other_store, target)
    backend.url = lambda _folder: old
    run(opened(tmp_path).close())
    moved(tmp_path, target)
    same(tmp_path, target)


def test_what_was_done_in_between_is_there(tmp_path, target, small):
    """Users, tokens, codes that were spent, back-off, entries, a key that was replaced: whatever had been copied."""

    async def used():
        async with running(tmp_path) as rig:
            assert (await rig.attempt("u1", spend=(rig.find("t1").seq, 30), source="192.0.2.9")).settled is (
                Settled.PASSED
            )
            await rig.attempt("u2")
            await rig.change(lambda t: users.remove(t, "local", "u0"))
            await rig.change(lambda t: users.remove(t, "local", "u4"))
            await rig.token("u4", "t4")
            await rig.token("u9", "t0", label="of another")
            vault = rig.store.vault
            vault.keyring = Keyring(MasterKey.of(Secret(os.urandom(32))), (vault.keyring.primary,))
            await rig.change(lambda t: rekey.reseal_root(t, vault))
            await rig.change(lambda t: rekey.reseal(t, vault))
            place(tmp_path).save(Keyring(vault.keyring.primary))

    run(little(tmp_path))
    while tokens_of(tmp_path, target) != 5:
        assert killed(tmp_path, target, 3)
    assert heads(tmp_path, target) == (OPEN, HALF)
    run(used())
    moved(tmp_path, target)
    same(tmp_path, target)
    use(target)

    async def after():
        async with running(tmp_path) as rig:
            token = rig.find("t1")
            assert (await rig.attempt("u1", spend=(token.seq, 30))).settled is Settled.SPENT
            assert rig.store.seed(token).reveal()
            assert checked(rig.store).fault is None

    run(after())


async def cut(folder, to):
    """Cut the log of a store up to an entry."""
    async with running(folder) as rig:
        chain = rig.store.audit.chain
        mac = rig.read(lambda c: c.execute(select(audit.c.mac).where(audit.c.sequence == to)).scalar_one())

        def work(transaction):
            start = retention.begins(transaction.connection, chain)
            retention.cut(transaction.connection, chain, start, Mark(to, mac))

        await rig.change(work)


def test_a_log_that_was_cut_is_moved(tmp_path, target, small):
    """Before the move, or while it was interrupted: behind what was copied already, or up to where that ends."""
    run(little(tmp_path))
    run(cut(tmp_path, 2))
    for up_to in (None, 3, 5, 8):
        if up_to is not None:
            assert killed(tmp_path, target, 3 + target.startswith("sqlite"))
            run(cut(tmp_path, up_to))
        done = moved(tmp_path, target)
        same(tmp_path, target)
        assert done.rows["audit"] == 9 - (up_to or 2)
        emptied(target)
        open_again(tmp_path, target)
    moved(tmp_path, target)
    use(target)
    store = opened(tmp_path)
    assert checked(store).fault is None
    run(store.close())


def test_a_log_that_was_put_back_is_not_moved_on(tmp_path, target, small):
    """What was copied already is not in it: it says so, and leaves both as they are."""
    run(little(tmp_path))
    before = run(mark(tmp_path))
    run(noted(tmp_path))
    assert killed(tmp_path, target, 8)
    with both(tmp_path, target) as (source, _):
        source.execute(delete(audit).where(audit.c.sequence > before.sequence))
        source.execute(update(meta).where(meta.c.name == HEAD).values(number=before.sequence, value=before.mac))
    run(noted(tmp_path))
    with pytest.raises(StoreError, match="it was put back since"):
        moved(tmp_path, target)
    assert heads(tmp_path, target) == (OPEN, HALF)


async def mark(folder):
    """Where the log of a store ends."""
    async with running(folder) as rig:
        head = select(meta.c.number, meta.c.value).where(meta.c.name == HEAD)
        return Mark(*rig.read(lambda c: c.execute(head).one()))


async def noted(folder):
    """Add to the log of a store."""
    async with running(folder) as rig:
        await rig.change(lambda t: t.audit(AuditEvent("noted", user=os.urandom(4).hex())))


def test_a_store_goes_to_one_place_alone(tmp_path, target, small):
    """Once it was moved, a move to another place that was begun before does not go on: two would be open."""
    run(little(tmp_path))
    assert killed(tmp_path, target, 5)
    elsewhere = f"sqlite:///{tmp_path / 'elsewhere.db'}"
    moved(tmp_path, elsewhere)
    with pytest.raises(StoreError, match="moved to another database already"):
        moved(tmp_path, target)
    assert heads(tmp_path, target) == (CLOSED, HALF)
    emptied(target)
    with pytest.raises(StoreError, match="moved to another database already"):
        moved(tmp_path, target)
    assert heads(tmp_path, target) == (CLOSED, None)
    assert moved(tmp_path, elsewhere).rows == {}
    same(tmp_path, elsewhere)


def test_a_store_that_is_closed_stays_so_until_its_target_is_opened(tmp_path, target, small):
    """Another store may be moved nowhere but into an empty database."""
    run(little(tmp_path))
    done = moved(tmp_path, target)
    assert done.rows["audit"] == 9
    assert moved(tmp_path, target).anchor == done.anchor
    other_store = tmp_path / "other"
    other_store.mkdir(mode=0o700)
    backend.url = backend.beside
    run(opened(other_store).close())
    with pytest.raises(StoreError, match="there is a store in the target already"):
        moved(other_store, target)


def test_a_line_that_is_lost_costs_what_was_not_committed(tmp_path, target, small):
    """The server ends the connections amid a move: it fails, and the next run goes on."""
    run(little(tmp_path))
    url = backend.url(tmp_path) or target
    name = url.partition("?")[0].rpartition("/")[2]

    def told(_what, done, _total):
        if done >= 6:
            cluster().cut(name)

    with pytest.raises(DBAPIError):
        moved(tmp_path, target, told)
    assert heads(tmp_path, target) == (OPEN, HALF)
    moved(tmp_path, target)
    same(tmp_path, target)


@only("sqlite")
def test_the_role_of_a_daemon_may_do_it(tmp_path, small):
    """With the rights of the documentation: but for a log that was cut meanwhile, where it may not delete so much."""
    run(little(tmp_path))
    cluster().sql("CREATE ROLE mover LOGIN")
    name = cluster().create()
    url = cluster().url(name, "mover")
    grants = re.findall(r"^GRANT \w+[^;]* ON (?!DATABASE)[^;]*;", DOCS, re.MULTILINE)
    limited = re.findall(r"^(?:ALTER TABLE|CREATE POLICY)[^;]*;", DOCS, re.MULTILINE)
    assert (len(grants), len(limited)) == (7, 4)
    *needed, may_delete = grants

    def allow(statements):
        for statement in statements:
            cluster().sql(statement.replace("TO otpbridge", "TO mover"), name)

    try:
        allow(needed)
        assert killed(tmp_path, url, 9)

        async def used():
            async with running(tmp_path) as rig:
                await rig.attempt("u1", spend=(rig.find("t1").seq, 30))
                await rig.change(lambda t: users.lock(t, "local", "u1", locked=True))

        run(used())
        assert killed(tmp_path, url, 9)
        run(cut(tmp_path, 3))
        for statements in ((), (*limited, may_delete)):
            allow(statements)
            with pytest.raises(StoreError, match="may not delete the entries that had been copied"):
                moved(tmp_path, url)
        cluster().sql("CREATE POLICY new ON audit FOR DELETE TO mover USING (true)", name)
        moved(tmp_path, url)
        same(tmp_path, url)
    finally:
        cluster().remove(name)
        cluster().sql("DROP ROLE mover")


def test_a_store_whose_log_was_changed_is_not_moved(tmp_path, target):
    """It stays where it is, and opens; nobody is in the target."""
    run(filled(tmp_path))
    with both(tmp_path, target) as (source, _):
        source.execute(update(audit).where(audit.c.sequence == 5).values(entry="{}"))
    with pytest.raises(StoreError, match="entry 5 was changed"):
        moved(tmp_path, target)
    assert heads(tmp_path, target) == (OPEN, HALF)
    with both(tmp_path, target) as (_, fresh):
        assert fresh.execute(select(tables.user)).first() is None
    run(opened(tmp_path, SOURCE_RULE).close())


def test_a_copy_that_was_changed_is_not_opened(tmp_path, target, small):
    """What somebody has done to the log that was copied, meanwhile, is found before the old store is closed."""
    run(little(tmp_path))
    assert killed(tmp_path, target, 6)
    with both(tmp_path, target) as (_, fresh):
        fresh.execute(update(audit).where(audit.c.sequence == 1).values(name="somebody"))
    with pytest.raises(StoreError, match="of the copy is not whole: entry 1"):
        moved(tmp_path, target)
    row = {"key": "user/x/y", "misses": 9, "refused": 0, "last": NOW, "since": NOW, "not_before": NOW}
    with both(tmp_path, target) as (_, fresh):
        fresh.execute(insert(tables.throttle).values(row))
    with pytest.raises(StoreError, match=r"(\d+) rows of throttle became \d+"):
        moved(tmp_path, target)
    assert heads(tmp_path, target) == (OPEN, HALF)


def test_a_target_with_anything_in_it_is_refused(tmp_path, target):
    """It is left as it is, though it has no head of a log."""
    run(little(tmp_path))
    with both(tmp_path, target) as (_, fresh):
        fresh.execute(insert(tables.user).values(id=7, client="local", name="mine", created_at=1))
    with pytest.raises(StoreError, match="there is a store in the target already"):
        moved(tmp_path, target)
    assert heads(tmp_path, target) == (OPEN, None)
    with both(tmp_path, target) as (_, fresh):
        assert copying.count(fresh, tables.user) == 1


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
    with Terminal("store", "migrate", aim, "--state-dir", tmp_path, "--config", file) as terminal:
        assert terminal.finish() == 0, terminal.text
    said = terminal.text
    assert re.search(r"\r(\d+) of \1 rows copied \(100 %\)\r?\n", said), said
    assert re.search(r"\r605 of 605 audit entries checked \(100 %\)\r?\n", said), said
    assert "2 user" in said
    assert "The audit log is whole, up to" in said
    status, said = told(aim)
    assert status == 0
    assert "already, all of it" in said
