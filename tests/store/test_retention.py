"""Old entries leave the store for archives: nothing is lost on the way, and nobody can cut more than was cut."""

from __future__ import annotations

import os
from contextlib import aclosing, closing, contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
from sqlalchemy import delete, insert, select, update
from storerig import NOW, checked, only, opened, run, running

from otpbridge.config import Config
from otpbridge.daemon import archiving
from otpbridge.daemon.archiving import DAY, Archivist
from otpbridge.errors import StoreError
from otpbridge.model import AuditEvent, Verdict
from otpbridge.store import retention, tables
from otpbridge.store.archive import Archive, ArchiveError
from otpbridge.store.chain import HEAD, BrokenChainError

OLD, YOUNG = 25, 5
BEFORE = NOW / 1000 - 30 * DAY
audit, meta = tables.audit, tables.meta


@pytest.fixture
def small(monkeypatch):
    """Pages, slices and files of a few rows, and no rest."""
    for name, value in {"_PAGE": 4, "_SLICE": 3, "_MOST_ROWS": 12, "_REST": 0.0}.items():
        monkeypatch.setattr(archiving, name, value)


async def fill(rig):
    """Write old rows and young ones."""
    for number in range(OLD + YOUNG):
        at = NOW - (60 * DAY * 1000 if number < OLD else 0)
        event = AuditEvent("verify", client="acme", user=f"u{number}", verdict=Verdict.SUCCESS)
        await rig.change(lambda transaction, event=event: transaction.audit(event), at)


def archivist(rig, folder):
    """One who works on this store."""
    desk = SimpleNamespace(store=rig.store, config=Config(), clock=lambda: NOW / 1000, change=rig.change)
    return Archivist(desk, folder)


async def cut(rig, folder):
    """Archive and cut off what is old; the files."""
    async with aclosing(
        archivist(rig, folder).cut(BEFORE, lambda name, detail: AuditEvent(name, detail=detail))
    ) as cuts:
        return [each async for each in cuts]


def kept(rig):
    """Numbers of the rows in the store."""
    return rig.read(
        lambda connection: connection.execute(select(audit.c.sequence).order_by(audit.c.sequence)).scalars().all()
    )


def archived(rig, folder):
    """Rows of all archives, once they were followed by the key."""
    rows = []
    for path in sorted((folder / "audit").glob("audit-*.gz")):
        with closing(Archive(path)) as found:
            mark = found.begins
            for row in found:
                mark = rig.store.audit.chain.follow(mark, row.sequence, row.entry, row.mac)
                rows.append((row.sequence, row.entry.decode()))
    return rows


def everything(rig):
    """All rows of the store."""
    return rig.read(
        lambda connection: [
            tuple(row)
            for row in connection.execute(select(audit.c.sequence, audit.c.entry).order_by(audit.c.sequence))
        ]
    )


def test_old_entries_are_in_archives_and_the_log_is_whole_behind_them(tmp_path, small):
    """In files of so many rows; the cut is an entry; an anchor from before still fits, one that was cut is named."""

    async def work():
        async with running(tmp_path) as rig:
            await fill(rig)
            before = everything(rig)
            anchors = [
                f"{n}:{m.hex()}"
                for n, m in rig.read(lambda c: c.execute(select(audit.c.sequence, audit.c.mac)).all())
            ]
            cuts = await cut(rig, tmp_path)
            assert [(each.first, each.last) for each in cuts] == [(1, 12), (13, 24), (25, 25)]
            assert archived(rig, tmp_path) == before[:OLD]
            assert everything(rig)[:YOUNG] == before[OLD:]
            names = [entry for _, entry in everything(rig)[YOUNG:]]
            assert len(names) == len(cuts)
            assert all(
                '"audit log cut"' in entry and each.file.name in entry
                for entry, each in zip(names, cuts, strict=True)
            )
            found = checked(rig.store)
            assert (found.fault, found.begins.sequence, found.entries) == (None, OLD, OLD + YOUNG + len(cuts))
            for anchor in anchors[OLD - 1 :]:
                assert checked(rig.store, anchor).fault is None
            assert "not the one of the anchor" in checked(rig.store, f"{OLD}:{'ab' * 32}").fault
            with pytest.raises(StoreError, match=f"entry {OLD - 1}, which the anchor is of, was archived"):
                checked(rig.store, anchors[OLD - 2])
            assert await cut(rig, tmp_path) == []

    run(work())


@pytest.mark.parametrize(
    ("tamper", "fault"),
    [
        (lambda mac: [delete(audit).where(audit.c.sequence == OLD + 1)], f"entry {OLD + 1} is missing"),
        (lambda mac: [delete(meta).where(meta.c.name == retention.CUT)], "entry 1 is missing"),
        (
            lambda mac: [
                delete(audit).where(audit.c.sequence <= OLD + 2),
                update(meta).where(meta.c.name == retention.CUT).values(number=OLD + 2, value=mac + bytes(32)),
            ],
            "the mark of where the log was cut was changed",
        ),
        (
            lambda mac: [update(meta).where(meta.c.name == retention.CUT).values(number=OLD - 1)],
            "the mark of where the log was cut was changed",
        ),
        (
            lambda mac: [insert(audit).values(sequence=OLD, entry='{"at":1,"event":"x"}', mac=mac)],
            f"entry {OLD} stands where the log was cut",
        ),
    ],
)
def test_who_writes_the_database_cannot_cut_more(tmp_path, tamper, fault):
    """Neither by deleting rows, nor by moving the mark to another row; nor can rows be put back there."""

    async def work():
        async with running(tmp_path) as rig:
            await fill(rig)
            await cut(rig, tmp_path)

    run(work())
    store = opened(tmp_path)
    with store.engine.connect() as connection:
        mac = connection.execute(select(audit.c.mac).where(audit.c.sequence == OLD + 2)).scalar_one()
        for statement in tamper(bytes(mac)):
            connection.execute(statement)
    assert fault in checked(store).fault
    run(store.close())


class CrashError(StoreError):
    """The daemon has ended there."""


@contextmanager
def crash(monkeypatch, place, name, count):
    """End whatever calls a function for the `count`th time, before it has done anything."""
    real, left = getattr(place, name), [count]

    def function(*given, **named):
        left[0] -= 1
        if left[0] == 0:
            raise CrashError
        return real(*given, **named)

    with monkeypatch.context() as patch:
        patch.setattr(place, name, function)
        with pytest.raises(CrashError):
            yield


@only("sqlite")
@pytest.mark.parametrize(
    "where",
    [
        (retention, "page", 2),
        (archiving, "_flush", 1),
        (Path, "replace", 1),
        (archiving, "_flush_folders", 1),
        (retention, "cut", 1),
        (retention, "cut", 3),
        (Path, "replace", 2),
        (retention, "cut", 6),
    ],
)
def test_whatever_interrupts_it_nothing_is_lost(tmp_path, small, monkeypatch, where):
    """Each entry is in the store or in an archive at any time; the next turn ends what was begun."""

    async def work():
        async with running(tmp_path) as rig:
            await fill(rig)
            before = everything(rig)
            with crash(monkeypatch, *where):
                await cut(rig, tmp_path)
            assert checked(rig.store).fault is None
            assert set(before) <= set(archived(rig, tmp_path)) | set(everything(rig))
            await cut(rig, tmp_path)
            assert archived(rig, tmp_path) == before[:OLD]
            assert kept(rig)[0] == OLD + 1
            assert checked(rig.store).fault is None
            assert not list((tmp_path / "audit").glob(".*"))

    run(work())


def test_a_power_cut_takes_no_name_from_an_archive_whose_entries_are_cut_off(tmp_path, small, monkeypatch):
    """The daemon was killed between naming and flushing: the turn that goes on with the archive flushes its name."""
    done = []

    def fsync(handle):
        done.append(os.readlink(f"/proc/self/fd/{handle}"))

    def cutting(*given, **named):
        done.append("cut")
        return real(*given, **named)

    async def work():
        async with running(tmp_path) as rig:
            await fill(rig)
            with crash(monkeypatch, archiving, "_flush_folders", 1):
                await cut(rig, tmp_path)
            monkeypatch.setattr(os, "fsync", fsync)
            monkeypatch.setattr(retention, "cut", cutting)
            await cut(rig, tmp_path)
            assert {str(tmp_path), str(tmp_path / "audit")} <= set(done[: done.index("cut")])

    real = retention.cut
    run(work())


def test_an_archive_that_was_spoilt_is_made_anew(tmp_path, small, monkeypatch):
    """Before its rows are cut off it is read again, from the first to the last."""

    async def work():
        async with running(tmp_path) as rig:
            await fill(rig)
            before = everything(rig)
            with crash(monkeypatch, retention, "cut", 1):
                await cut(rig, tmp_path)
            (spoilt,) = (tmp_path / "audit").glob("audit-*.gz")
            spoilt.write_bytes(spoilt.read_bytes()[:-20])
            await cut(rig, tmp_path)
            assert archived(rig, tmp_path) == before[:OLD]

    run(work())


def test_a_log_that_is_not_whole_is_not_cut(tmp_path, small):
    """What shows that it was changed stays."""

    async def work():
        async with running(tmp_path) as rig:
            await fill(rig)
            with rig.store.engine.connect() as connection:
                connection.execute(update(audit).where(audit.c.sequence == 9).values(entry='{"at":1.0,"event":"x"}'))
            with pytest.raises(BrokenChainError, match="entry 9 was changed"):
                await cut(rig, tmp_path)
            assert kept(rig) == list(range(1, OLD + YOUNG + 1))

    run(work())


def test_an_archive_of_what_came_after_a_backup_cuts_nothing_of_a_restored_log(tmp_path, small, monkeypatch):
    """The same numbers stand for other entries there."""

    async def work():
        async with running(tmp_path) as rig:
            await fill(rig)
            with crash(monkeypatch, retention, "cut", 1):
                await cut(rig, tmp_path)
            with rig.store.engine.connect() as connection:
                mac = connection.execute(select(audit.c.mac).where(audit.c.sequence == 5)).scalar_one()
                connection.execute(delete(audit).where(audit.c.sequence > 5))
                connection.execute(update(meta).where(meta.c.name == HEAD).values(number=5, value=mac))
            for number in range(OLD):
                event = AuditEvent("after the restore", detail={"number": number})
                await rig.change(lambda transaction, event=event: transaction.audit(event), NOW - 60 * DAY * 1000)
            await cut(rig, tmp_path)
            assert checked(rig.store).fault is None
            assert kept(rig)[0] == OLD + 6

    run(work())


@pytest.mark.parametrize("end", [1, 2])
def test_an_archive_that_is_cut_short_is_not_taken_for_whole(tmp_path, end):
    """With the last line gone, or the last entry with it."""

    async def work():
        async with running(tmp_path) as rig:
            await fill(rig)
            async with aclosing(archivist(rig, tmp_path).lines(None)) as lines:
                text = [line async for line in lines]
        path = tmp_path / "whole.jsonl"
        path.write_bytes(b"".join(text))
        with closing(Archive(path)) as whole:
            assert [row.sequence for row in whole] == list(range(1, OLD + YOUNG + 1))
        path.write_bytes(b"".join(text[:-end]))
        with closing(Archive(path)) as short, pytest.raises(ArchiveError, match="cut short"):
            list(short)

    run(work())
