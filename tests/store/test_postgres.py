"""What a server on the other side of a line can do to a store: go away, hang, be another one, be shared."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import threading
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from pgcluster import OWNER, cluster
from pgproxy import Break, proxied
from sqlalchemy import text
from storerig import NOW, RULE, backend, checked, opened, run, running

from otpbridge.errors import StoreError
from otpbridge.model import AuditEvent, Backoff
from otpbridge.store import backup, users
from otpbridge.store.settle import Settled

BACKENDS = ("postgresql",)
PATIENT = Backoff(1000, 1000, 300_000, 900_000)


def database(folder):
    """The name of the database that a folder's store is in."""
    return backend.url(folder).partition("?")[0].rpartition("/")[2]


@contextlib.contextmanager
def breaking(folder):
    """A line that can be broken between the store of a folder and the server."""
    with TemporaryDirectory(prefix="otpb-px-") as place, proxied(cluster().folder, Path(place)) as proxy:
        direct = backend.url
        url = cluster().url(database(folder)).replace(str(cluster().folder).replace("/", "%2F"), place)
        backend.url = lambda _folder: url
        try:
            yield proxy
        finally:
            backend.url = direct


def spends(rig):
    """How often a success was settled, by the audit log."""
    check = checked(rig.store)
    assert check.fault is None
    return check.entries


@pytest.mark.parametrize("where", list(Break))
def test_a_line_that_breaks_at_the_commit_costs_nothing(tmp_path, where):
    """The store is asked what became of it: a code passes, once, whether or not the commit had arrived."""

    async def work():
        with breaking(tmp_path) as proxy:
            async with running(tmp_path, PATIENT) as rig:
                token = await rig.token()
                proxy.breaks = where
                assert (await rig.attempt(spend=(token.seq, 21))).settled is Settled.PASSED
                assert proxy.breaks is None, "it broke"
                assert (await rig.attempt(spend=(token.seq, 21))).settled is Settled.SPENT
                assert rig.find("t1").token.moving_factor == 21
                assert spends(rig) == 2

    run(work())


@pytest.mark.parametrize("where", list(Break))
def test_a_line_that_breaks_at_the_commit_of_a_change_has_it_made_once(tmp_path, where):
    """A change that stands in the log is found there, and is not made once more."""

    async def work():
        with breaking(tmp_path) as proxy:
            async with running(tmp_path) as rig:
                await rig.token()
                made = []

                def change(transaction):
                    made.append(users.lock(transaction, "local", "alice", locked=True))
                    transaction.audit(AuditEvent("user locked", user="alice"))

                proxy.breaks = where
                await rig.change(change)
                assert proxy.breaks is None, "it broke"
                assert len(made) == (1 if where is Break.AFTER else 2)
                assert spends(rig) == 1

    run(work())


@pytest.mark.parametrize("where", list(Break))
def test_a_commit_of_which_nothing_is_known_is_no_success(tmp_path, where):
    """The line breaks and the server stays away: refused. Later the code is good only if it was not spent."""

    async def work():
        with breaking(tmp_path) as proxy:
            async with running(tmp_path, PATIENT) as rig:
                token = await rig.token()
                proxy.breaks, proxy.then_closed = where, True
                assert (await rig.attempt(spend=(token.seq, 21))).settled is Settled.FAILED
                proxy.open()
                later = (await rig.attempt(spend=(token.seq, 21))).settled
                assert later is (Settled.SPENT if where is Break.AFTER else Settled.PASSED)
                assert spends(rig) == (2 if where is Break.AFTER else 1)

    run(work())


def test_a_change_that_leaves_no_trace_is_not_said_to_be_made(tmp_path):
    """Without an entry in the log nothing tells whether it was committed: so it is said, and it is not repeated."""

    async def work():
        with breaking(tmp_path) as proxy:
            async with running(tmp_path) as rig:
                await rig.token()
                before = proxy.commits
                proxy.breaks = Break.AFTER
                with pytest.raises(StoreError, match="look whether it was made"):
                    await rig.change(lambda transaction: users.lock(transaction, "local", "alice", locked=True))
                assert proxy.broken.wait(30)
                assert proxy.commits == before + 1
                assert rig.read(lambda c: users.find(c, "local", "alice")).locked_at is not None

    run(work())


def test_a_change_that_meets_the_end_of_its_connection_is_made_on_another(tmp_path):
    """Nothing of it was committed, so it is made again, once, and all that follows goes through."""

    async def work():
        async with running(tmp_path) as rig:
            await rig.token()
            met = []

            def lock(transaction):
                pid = transaction.connection.execute(text("SELECT pg_backend_pid()")).scalar_one()
                if not met:
                    met.append(pid)
                    cluster().sql(f"SELECT pg_terminate_backend({pid}, 30000)", database(tmp_path))
                users.lock(transaction, "local", "alice", locked=True)

            await rig.change(lock)
            assert rig.read(lambda c: users.find(c, "local", "alice")).locked_at is not None
            await rig.change(lambda transaction: users.lock(transaction, "local", "alice", locked=False))
            assert rig.read(lambda c: users.find(c, "local", "alice")).locked_at is None

    run(work())


def test_connections_that_were_ended_are_opened_again(tmp_path):
    """pg_terminate_backend on all of them: the next attempt, change and read go through."""

    async def work():
        async with running(tmp_path) as rig:
            token = await rig.token()
            for step in (10, 20):
                await asyncio.gather(*(rig.store.candidate("local", "alice") for _ in range(8)))
                assert cluster().cut(database(tmp_path))
                assert (await rig.store.candidate("local", "alice")).user is not None
                assert (await rig.attempt(spend=(token.seq, step))).settled is Settled.PASSED
                assert cluster().cut(database(tmp_path))
                await rig.change(lambda t: t.audit(AuditEvent("noted")))
                assert await rig.store.read(lambda c: users.find(c, "local", "alice")) is not None
                assert await rig.store.read_long(rig.store.counts)
            assert spends(rig) == 4

    run(work())


def test_idle_connections_that_were_ended_are_not_tried_one_after_the_other(tmp_path):
    """All of a pool are dead: an attempt does not fail for it."""
    together = threading.Barrier(4)

    def meet(_connection):
        together.wait(30)

    async def work():
        async with running(tmp_path) as rig:
            token = await rig.token()
            await asyncio.gather(*(rig.store.read(meet) for _ in range(4)))
            assert cluster().cut(database(tmp_path)) >= 5
            assert (await rig.attempt(spend=(token.seq, 21))).settled is Settled.PASSED

    run(work())


def test_a_server_that_may_not_write_is_no_server(tmp_path):
    """A standby, or a server that was made read-only: refused, until one that can write is there again."""
    name = database(tmp_path)

    async def work():
        async with running(tmp_path) as rig:
            token = await rig.token()
            cluster().sql(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
            try:
                cluster().cut(name)
                assert (await rig.attempt(spend=(token.seq, 21))).settled is Settled.FAILED
                with pytest.raises(StoreError, match="cannot be read"):
                    await rig.store.candidate("local", "alice")
            finally:
                cluster().sql(f"ALTER DATABASE {name} RESET default_transaction_read_only")
            assert (await rig.attempt(spend=(token.seq, 21))).settled is Settled.PASSED

    run(work())


def test_a_line_that_hangs_is_given_up(tmp_path):
    """It says nothing any more, without being closed: it is cut before PAM loses patience, and another one taken."""

    async def work():
        async with running(tmp_path) as rig:
            token = await rig.token()
            mine = rig.store._open.writer._line.connection.connection.dbapi_connection.info.backend_pid
            os.kill(mine, signal.SIGSTOP)
            try:
                waiting = rig.attempt(spend=(token.seq, 21))
                assert (await rig.store.candidate("local", "alice")).user is not None
                assert not waiting.done()
                assert (await waiting).settled is Settled.PASSED
            finally:
                os.kill(mine, signal.SIGCONT)
            assert (await rig.attempt(spend=(token.seq, 21))).settled is Settled.SPENT
            assert spends(rig) == 2

    run(work())


def test_who_holds_the_log_too_long_does_not_stop_logins_for_good(tmp_path):
    """An administrator's open transaction: attempts are refused after a while, and go on once it has ended."""

    async def work():
        async with running(tmp_path) as rig:
            token = await rig.token()
            with cluster().connect(database(tmp_path)) as other:
                other.execute("BEGIN; SELECT * FROM meta FOR UPDATE")
                assert (await rig.attempt(spend=(token.seq, 21))).settled is Settled.FAILED
                other.execute("ROLLBACK")
            assert (await rig.attempt(spend=(token.seq, 21))).settled is Settled.PASSED

    run(work())


def test_a_backup_may_be_taken_slowly(tmp_path):
    """Whoever writes it to a slow place does not hold anything up, and is not cut off."""

    async def work():
        async with running(tmp_path) as rig:
            await rig.token()
            with rig.store.engine.connect() as connection:
                pieces = backup.dump(connection, rig.store.backup_key, NOW // 1000)
                first = next(pieces)
                for name in ("statement_timeout", "idle_in_transaction_session_timeout"):
                    assert connection.exec_driver_sql(f"SHOW {name}").scalar_one() == "5min"
                assert (first + "".join(pieces)).endswith("}\n")

    run(work())


@pytest.mark.parametrize(
    ("setting", "said"),
    [("synchronous_commit = off", "synchronous_commit is off"), ("synchronous_commit = local", "is local")],
)
def test_a_server_that_may_forget_is_refused(tmp_path, setting, said):
    """Where a commit is told before it is durable, a spent code could be good again: the store does not open."""
    name = database(tmp_path)
    cluster().sql(f"ALTER ROLE {OWNER} IN DATABASE {name} SET {setting}")
    try:
        with pytest.raises(StoreError, match=said):
            opened(tmp_path)
    finally:
        cluster().sql(f"ALTER ROLE {OWNER} IN DATABASE {name} RESET ALL")


def test_two_daemons_accept_a_code_once(tmp_path):
    """Whichever daemon is asked, and when: one success for each code, and one log without a gap."""

    async def work():
        async with running(tmp_path, PATIENT) as one, running(tmp_path, PATIENT) as other:
            token = await one.token()
            for step in range(10, 30):
                both = [rig.attempt(spend=(token.seq, step)) for rig in (one, other) for _ in range(8)]
                settled = [ruling.settled for ruling in await asyncio.gather(*both)]
                assert settled.count(Settled.PASSED) == 1
                assert set(settled) == {Settled.PASSED, Settled.SPENT}
            assert spends(other) == 20 * 16

    run(work())


def test_misses_count_over_two_daemons(tmp_path):
    """A limit is one limit, however many daemons there are to guess at."""

    async def work():
        async with running(tmp_path) as one, running(tmp_path) as other:
            for number in range(10):
                name = f"user{number}"
                guesses = [rig.attempt(name) for rig in (one, other) for _ in range(8)]
                settled = [ruling.settled for ruling in await asyncio.gather(*guesses)]
                assert settled.count(Settled.MISSED) == RULE.limit
                assert settled.count(Settled.BLOCKED) == 16 - RULE.limit
                known = one.misses(name)
                assert (known.misses, known.refused) == (RULE.limit, 16 - RULE.limit)
            assert spends(one) == 160

    run(work())


def test_an_import_of_another_daemon_is_left_alone(tmp_path):
    """A daemon that starts does not drop what others are being sent; what was given up goes after a day."""
    from sqlalchemy import func, insert, select

    from otpbridge.store import tables

    staged = tables.staged
    row = dict.fromkeys((column.name for column in staged.c), 0)
    text = dict.fromkeys(("import_id", "client", "name", "id", "kind", "state", "algorithm", "label", "issuer"), "x")
    row |= text | {"sealed": b"", "fingerprint": b"", "created_at": NOW // 1000}

    async def work():
        async with running(tmp_path) as one:
            await one.change(lambda t: t.connection.execute(insert(staged).values(**row)))

            def left():
                return one.read(lambda c: c.execute(select(func.count()).select_from(staged)).scalar_one())

            async with running(tmp_path) as other:
                assert left() == 1
                await other.change(other.store.tidy, NOW + 86_400_000)
                assert left() == 1
                await other.change(other.store.tidy, NOW + 86_401_000)
                assert left() == 0

    run(work())
