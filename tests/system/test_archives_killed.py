"""kill -9 while old entries of the audit log are archived, cut off or exported: nothing of the log is lost."""

from __future__ import annotations

import shutil
import time
from contextlib import closing

import pytest
from daemon_rig import command, private_folder
from nursery import Nursery
from storerig import run, running

from otpbridge.cli.archives import Checker
from otpbridge.cli.exits import Code
from otpbridge.errors import ProtocolError
from otpbridge.model import AuditEvent
from otpbridge.store.archive import Archive
from otpbridge.wire import messages

pytestmark = pytest.mark.system

OLD, YOUNG = 260, 40
DAY = 86_400
STEPS = ["prepare_folder", "tail", "fsync", "replace", "unlink", "fsync", "fsync", *2 * ["cut", "commit"], "tail"]
"""Before what it is killed: an archive is written, named, and cut off in two slices. The last is before the reply."""


@pytest.fixture(scope="module")
def nursery():
    with Nursery() as nursery:
        yield nursery


@pytest.fixture(scope="module")
def filled():
    """A folder with a store whose log has old entries and young ones."""
    with private_folder() as folder:

        async def fill():
            async with running(folder / "state") as rig:
                now = int(time.time())
                for numbers, days in ((range(OLD), 100), (range(OLD, OLD + YOUNG), 0)):

                    def work(transaction, numbers=numbers):
                        for number in numbers:
                            transaction.audit(AuditEvent("verify", user="alice", detail={"number": number}))

                    await rig.change(work, (now - days * DAY) * 1000)

        (folder / "state").mkdir(mode=0o700)
        (folder / "otpbridge.toml").touch()
        run(fill())
        yield folder


@pytest.fixture
def fresh(filled):
    """Makes a copy of it, until the test ends."""
    with private_folder() as folder:
        made = []

        def make():
            made.append(folder / str(len(made)))
            shutil.copytree(filled, made[-1])
            return made[-1]

        yield make


def prune(admin):
    """What `otpbridge audit prune --before 50d` does; the spans that were cut off."""
    replies = admin.stream(messages.AuditPrune(before=int(time.time()) - 50 * DAY))
    return [(reply.first, reply.last) for reply in replies if reply.file is not None]


def rows(files):
    """Number and text of the entries in files."""
    found = {}
    for file in files:
        with closing(Archive(file)) as archive:
            found.update((row.sequence, row.entry) for row in archive)
    return found


def whole(admin, folder):
    """All entries, and those in the store, once `audit verify` has found no fault in these and in the archives."""
    assert admin.call(messages.AuditVerify()).intact
    rest = folder / "rest.jsonl"
    rest.write_text("".join(reply.data for reply in admin.stream(messages.AuditExport())))
    archives = sorted((folder / "state" / "audit").glob("audit-*.gz"))
    span = Checker(admin, None).check([*archives, rest])
    kept = rows([rest])
    every = rows(archives) | kept
    assert (span.first, span.joins, sorted(every)) == (1, True, list(range(1, span.last + 1)))
    return every, kept


def test_a_daemon_that_is_killed_at_any_step_of_a_prune_loses_nothing(nursery, fresh):
    """Each entry is in the log or in an archive, both are whole, and the same prune ends what was begun."""
    folder = fresh()
    with nursery.daemon(folder) as admin:
        before, _ = whole(admin, folder)
    before = {sequence: before[sequence] for sequence in range(1, OLD + YOUNG + 1)}
    for step, place in enumerate(STEPS, 1):
        folder = fresh()
        with nursery.daemon(folder, dies=step) as admin, pytest.raises(ProtocolError):
            prune(admin)
        assert (nursery.status, f"dies before {place}\n" in nursery.said) == (-9, True), nursery.said
        with nursery.daemon(folder) as admin:
            every, _ = whole(admin, folder)
            assert before.items() <= every.items(), place
            prune(admin)
            every, kept = whole(admin, folder)
            assert before.items() <= every.items(), place
            assert min(kept) == OLD + 1, place
        assert nursery.status == 0
        assert not list((folder / "state" / "audit").glob(".*")), place


def test_a_daemon_that_is_killed_while_it_exports_leaves_no_half_of_a_file(nursery, fresh):
    """What was there before stays, and the command says that it failed."""
    folder = fresh()
    saved = folder / "saved.jsonl"
    saved.write_text("of yesterday")
    with nursery.daemon(folder, dies=1):
        done = command("audit", "export", saved, run_dir=folder / "run")
    assert nursery.status == -9
    assert "dies before tail" in nursery.said
    assert done.returncode == Code.UNAVAILABLE, done.stderr
    assert [path.name for path in folder.iterdir() if "saved" in path.name] == ["saved.jsonl"]
    assert saved.read_text() == "of yesterday"
    with nursery.daemon(folder) as admin:
        assert command("audit", "export", saved, run_dir=folder / "run").returncode == 0
        assert Checker(admin, None).check([saved]).joins
        assert len(rows([saved])) >= OLD + YOUNG
