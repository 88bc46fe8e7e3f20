"""The list of whom entries of the audit log are about: complete or not, it gives the same answers."""

from __future__ import annotations

import asyncio

from sqlalchemy import delete, select
from storerig import checked, run, running

from otpbridge.model import AuditEvent
from otpbridge.store import about, retention, tables
from otpbridge.store.chain import BEGINNING

CLIENTS = ("acme", "globex", None)


async def fill(rig, count):
    """Entries about alice of acme, alice of globex and nobody, in turn, in one transaction."""

    def write(transaction):
        for number in range(count):
            transaction.audit(AuditEvent("verify", client=CLIENTS[number % 3], user="alice"))

    await rig.change(write)


def of_alice(rig, before=None, most=1000):
    """The sequences of the entries about alice of acme."""
    found = rig.read(lambda connection: about.of_user(connection, "acme", "alice", before, most))
    return [row.sequence for row in found]


def left(rig):
    """How many entries are not listed yet."""
    return rig.read(about.unlisted)


async def is_listed(rig):
    """Wait until the store itself has listed what is worth a slice."""
    async with asyncio.timeout(60):
        while left(rig) >= about.ENOUGH:  # noqa: ASYNC110 - it is another statement's effect that is waited for
            await asyncio.sleep(0)


def test_the_entries_of_one_user_are_found_listed_or_not(tmp_path):
    """Newest first, from before an entry, of that client alone, wherever the list ends."""

    async def work():
        async with running(tmp_path) as rig:
            await fill(rig, 9)
            for _ in range(2):
                assert of_alice(rig) == [7, 4, 1]
                assert of_alice(rig, most=2) == [7, 4]
                assert of_alice(rig, before=4, most=2) == [1]
                assert of_alice(rig, before=5, most=1) == [4]
                assert of_alice(rig, before=1) == []
                await rig.store.list_slice()
                assert left(rig) == 0
            await fill(rig, 4)
            assert of_alice(rig) == [13, 10, 7, 4, 1]
            assert of_alice(rig, most=4) == [13, 10, 7, 4]
            assert of_alice(rig, before=8) == [7, 4, 1]

    run(work())


def test_a_long_log_is_listed_while_nobody_waits(tmp_path):
    """By itself, whole, and again by the next start where that was lost."""

    async def work(count):
        async with running(tmp_path) as rig:
            if count:
                await fill(rig, count)
            await is_listed(rig)
            expected = list(range(3 * about.ENOUGH - 2, 0, -3))
            assert of_alice(rig, most=2 * len(expected)) == expected
            listed = rig.read(lambda connection: connection.execute(select(tables.about.c.sequence)).scalars().all())
            assert len(listed) > 4 * about.ENOUGH // 3
            await rig.change(lambda transaction: transaction.connection.execute(delete(tables.about)))
            assert of_alice(rig, most=2 * len(expected)) == expected

    run(work(3 * about.ENOUGH))
    run(work(0))


def test_however_long_the_log_is_only_entries_of_the_user_are_read(tmp_path):
    """What is listed is found by its key."""

    async def work():
        async with running(tmp_path) as rig:
            query = about.listed("acme", "alice", 4, 2)
            if rig.store.engine.dialect.name != "sqlite":
                # PostgreSQL reads a table as small as this one whole.
                return
            text_of = str(query.compile(rig.store.engine, compile_kwargs={"literal_binds": True}))
            plan = rig.read(lambda connection: connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {text_of}").all())
            assert [row[-1] for row in plan] == [
                "SEARCH about USING PRIMARY KEY (client=? AND name=? AND sequence<?)",
                "SEARCH audit USING INTEGER PRIMARY KEY (rowid=?)",
            ]

    run(work())


def test_what_is_cut_off_the_log_is_listed_no_more(tmp_path):
    """And the list goes on behind the cut, wherever it ended."""

    async def work():
        async with running(tmp_path) as rig:
            chain = rig.store.audit.chain
            await fill(rig, 9)
            await rig.store.list_slice()
            rows = rig.read(
                lambda connection: retention.page(connection, chain, BEGINNING, before=None, end=5, most=5)
            )
            await rig.change(lambda transaction: retention.cut(transaction.connection, chain, BEGINNING, rows.ends))
            assert of_alice(rig) == [7]
            listed = rig.read(
                lambda connection: (
                    connection.execute(select(tables.about.c.sequence).where(tables.about.c.client == "acme"))
                    .scalars()
                    .all()
                )
            )
            assert listed == [7]
            await rig.change(lambda transaction: transaction.connection.execute(delete(tables.about)))
            assert left(rig) == 4
            await rig.store.list_slice()
            assert left(rig) == 0
            assert of_alice(rig) == [7]
            assert checked(rig.store).fault is None

    run(work())
