"""The audit log: cutting or editing it is detected."""

from __future__ import annotations

import json

import pytest
from sqlalchemy import delete, insert, select, text, update
from storerig import checked, opened, run, running

from otpbridge.model import AuditEvent, Verdict
from otpbridge.store import auditlog, tables
from otpbridge.store.chain import HEAD

ENTRIES = 12


@pytest.fixture
def log(tmp_path):
    """A store with some entries, closed; gives a way to tamper and one to check."""

    async def fill():
        async with running(tmp_path) as rig:
            for number in range(ENTRIES):
                event = AuditEvent("verify", client="acme", user=f"u{number}", verdict=Verdict.SUCCESS)
                await rig.change(lambda transaction, event=event: transaction.audit(event))

    run(fill())
    return Log(tmp_path)


class Log:
    """The log of a closed store."""

    def __init__(self, folder):
        self.folder = folder

    def tamper(self, *statements):
        """Do to the database what its administrator could do."""
        store = opened(self.folder)
        with store.engine.connect() as connection:
            for statement in statements:
                connection.execute(statement)
        run(store.close())

    def check(self, anchor=None):
        """Check the chain."""
        store = opened(self.folder)
        try:
            return checked(store, anchor)
        finally:
            run(store.close())


def test_an_untouched_log_is_intact(log):
    """No fault, and an anchor that a later check takes."""
    found = log.check()
    assert found.fault is None
    assert found.entries == ENTRIES
    assert log.check(found.anchor).fault is None


audit, meta = tables.audit, tables.meta


@pytest.mark.parametrize(
    ("statements", "fault"),
    [
        ([update(audit).where(audit.c.sequence == 5).values(entry='{"at":1,"event":"x"}')], "entry 5 was changed"),
        ([update(audit).where(audit.c.sequence == 5).values(mac=b"0" * 32)], "entry 5 was changed"),
        ([delete(audit).where(audit.c.sequence == 5)], "entry 5 is missing"),
        ([delete(audit).where(audit.c.sequence == 1)], "entry 1 is missing"),
        ([delete(audit).where(audit.c.sequence > 9)], "ends at entry 9, but its head says 12"),
        ([delete(audit)], "ends at entry 0"),
        (
            [
                text("UPDATE audit SET sequence = 100 WHERE sequence = 5"),
                text("UPDATE audit SET sequence = 5 WHERE sequence = 6"),
                text("UPDATE audit SET sequence = 6 WHERE sequence = 100"),
            ],
            "entry 5 was changed",
        ),
        ([insert(audit).values(sequence=13, entry='{"at":1,"event":"x"}', mac=b"0" * 32)], "entry 13 was changed"),
        ([update(audit).where(audit.c.sequence == 5).values(name="u1")], "entry 5 is put down to somebody"),
        ([update(audit).where(audit.c.sequence == 5).values(client="globex")], "entry 5 is put down to somebody"),
        (
            [update(audit).where(audit.c.sequence == 5).values(client=None, name=None)],
            "entry 5 is put down to somebody",
        ),
        ([delete(meta).where(meta.c.name == HEAD)], "head of the log is missing"),
        ([update(meta).where(meta.c.name == HEAD).values(number=11)], "ends at entry 12"),
    ],
)
def test_what_was_done_to_the_log_is_found(log, statements, fault):
    """Edited, removed, swapped, added, cut: each is found, with the entry."""
    log.tamper(*statements)
    found = log.check()
    assert found.fault is not None
    assert fault in found.fault


def test_a_log_put_back_to_an_older_state_is_found_by_its_anchor(log):
    """Rows and head cut together are consistent; only an anchor noted elsewhere tells."""
    anchor = log.check().anchor
    store = opened(log.folder)
    with store.engine.connect() as connection:
        mac = connection.execute(select(audit.c.mac).where(audit.c.sequence == 8)).scalar_one()
    run(store.close())
    log.tamper(
        delete(audit).where(audit.c.sequence > 8),
        update(meta).where(meta.c.name == HEAD).values(number=8, value=mac),
    )
    assert log.check().fault is None
    assert "before the anchor's entry 12" in log.check(anchor).fault


def test_a_replaced_log_is_found_by_its_anchor(log, tmp_path_factory):
    """Another store's log does not pass for this one's."""
    number = log.check().anchor.partition(":")[0]
    assert "not the one of the anchor" in log.check(f"{number}:{'ab' * 32}").fault


@pytest.mark.parametrize("anchor", ["", "x", "5", "5:abcd", ":" + "ab" * 32, "5:" + "zz" * 32])
def test_a_mistyped_anchor_is_an_error(log, anchor):
    """It is not taken for a fault of the log."""
    if not anchor:
        assert log.check(anchor).fault is None
        return
    with pytest.raises(ValueError, match="an anchor looks like"):
        log.check(anchor)


def test_entries_say_who_what_and_when(tmp_path):
    """Newest entries come oldest first, as JSON."""

    async def work():
        async with running(tmp_path) as rig:
            for number in range(5):
                event = AuditEvent("verify", user=f"u{number}", uid=7, service="sshd", detail={"n": number})
                await rig.change(lambda transaction, event=event: transaction.audit(event))
            rows = rig.read(lambda connection: auditlog.newest(connection, 2))
            assert [row.sequence for row in rows] == [4, 5]
            entry = json.loads(rows[1].entry)
            assert entry == {
                "at": 1_800_000_000.0,
                "event": "verify",
                "user": "u4",
                "uid": 7,
                "service": "sshd",
                "detail": {"n": 4},
            }

    run(work())


def test_watchers_hear_of_rows_once_they_are_on_disk(tmp_path):
    """`audit tail -f` sees what another connection can already read."""

    async def work():
        async with running(tmp_path) as rig:
            seen = []
            unwatch = rig.store.watch(seen.extend)
            await rig.change(lambda transaction: transaction.audit(AuditEvent("one")))
            unwatch()
            await rig.change(lambda transaction: transaction.audit(AuditEvent("two")))
            assert [json.loads(row.entry)["event"] for row in seen] == ["one"]

    run(work())


def test_the_log_is_read_on_from_a_place_in_pages(tmp_path):
    """A reader who knows how far it has come gets what follows, no row twice and none left out."""

    async def work():
        async with running(tmp_path) as rig:
            for number in range(5):
                await rig.change(lambda transaction, number=number: transaction.audit(AuditEvent(f"e{number}")))
            pages, place = [], 1
            while page := rig.read(lambda connection, place=place: auditlog.after(connection, place, 3)):
                pages.append([row.sequence for row in page])
                place = page[-1].sequence
            assert pages == [[2, 3, 4], [5]]

    run(work())
