"""The journal: fields that nobody can forge, and nobody who waits for it."""

from __future__ import annotations

import json
import logging
import os
import socket
from pathlib import Path

import msgspec
import pytest

from otpbridge.daemon import journal
from otpbridge.daemon.journal import IDS, AuditJournal, Journal, JournalHandler
from otpbridge.store.chain import AuditRow


class FakeJournal:
    """What journald sees, as its own reader takes it apart."""

    def __init__(self, path):
        self.path = path
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(os.fspath(path))
        self.socket.settimeout(5)

    def entry(self):
        """The fields of the next entry, in order."""
        data = self.socket.recv(1 << 16)
        fields = []
        while data:
            line, _, data = data.partition(b"\n")
            name, found, value = line.partition(b"=")
            if not found:
                size = int.from_bytes(data[:8], "little")
                value, data = data[8 : 8 + size], data[8 + size + 1 :]
            fields.append((name.decode(), value.decode()))
        return fields


@pytest.fixture
def fake(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = FakeJournal("journal")
    yield found
    found.socket.close()


def row(sequence=7, **fields):
    """A row of the audit log."""
    entry = {"at": 1.5, "event": "verify", "client": "local", "user": "alice", "verdict": "auth_err", **fields}
    return AuditRow(sequence, msgspec.json.encode(entry).decode())


@pytest.fixture
def to_journal(fake):
    made = Journal(fake.path)
    yield made
    made.close()


class Later:
    """Calls that are to be made later, made when the test says so."""

    def __init__(self):
        self.calls = []

    def __call__(self, _seconds, call):
        self.calls.append(call)

    def run(self):
        """Make them, and those that they ask for."""
        while self.calls:
            self.calls.pop(0)()


def test_a_verdict_is_one_entry_with_a_field_for_everything(fake, to_journal):
    """`journalctl OTPBRIDGE_USER=alice` finds a login, and the number leads to its row in the audit log."""
    later = Later()
    told = AuditJournal(to_journal, later)
    told.take(
        [row(token="t1", service="sshd", rhost="192.0.2.7", host="web1", reason="wrong code", stack="portal", uid=0)]
    )
    later.run()
    fields = dict(fake.entry())
    assert fields["MESSAGE"] == "verify: auth_err for alice from 192.0.2.7 at sshd through web1: wrong code"
    assert fields["PRIORITY"] == "5"
    assert fields["SYSLOG_IDENTIFIER"] == "otpbridged"
    ours = {name.removeprefix("OTPBRIDGE_"): value for name, value in fields.items() if name.startswith("OTPBRIDGE_")}
    assert ours == {
        "EVENT": "verify",
        "VERDICT": "auth_err",
        "CLIENT": "local",
        "USER": "alice",
        "SERVICE": "sshd",
        "RHOST": "192.0.2.7",
        "TOKEN": "t1",
        "HOST": "web1",
        "REASON": "wrong code",
        "STACK": "portal",
        "CALLER": "0",
        "AUDIT": "7",
    }


HOSTILE = [
    "x\nOTPBRIDGE_VERDICT=success",
    "x\nMESSAGE=verify: success for root\nPRIORITY=0",
    "\x1b[2J\x1b]0;owned\x07",
    "a\0b\r\n",
    "\u202eevil",
    "n" * 10_000,
]


@pytest.mark.parametrize("name", HOSTILE, ids=range(len(HOSTILE)))
def test_no_name_makes_a_field_or_a_line_of_its_own(fake, to_journal, name):
    """Whatever somebody logs in as, the entry has the fields of one refusal, and each is of one plain line."""
    later = Later()
    told = AuditJournal(to_journal, later)
    entry = msgspec.json.decode(row().entry) | {"user": name, "service": name, "rhost": name}
    told.take([AuditRow(7, json.dumps(entry))])
    later.run()
    fields = fake.entry()
    names = [found for found, _ in fields]
    assert len(names) == len(set(names))
    assert dict(fields)["OTPBRIDGE_VERDICT"] == "auth_err"
    assert dict(fields)["PRIORITY"] == "5"
    assert all(value.isprintable() for _, value in fields)


def test_the_text_of_a_log_line_cannot_become_an_entry(fake, to_journal):
    """A traceback keeps its lines within its entry; whatever else would steer a terminal is escaped."""
    log = logging.getLogger("test of the journal")
    log.propagate = False
    log.handlers.clear()
    handler = JournalHandler(to_journal)
    log.addHandler(handler)
    try:
        log.error("%s", "first\nPRIORITY=0\n\x1b[31m", extra={"event": "store failed"})
    finally:
        log.removeHandler(handler)
    assert fake.entry() == [
        ("MESSAGE", "first\nPRIORITY=0\n\\x1b[31m"),
        ("PRIORITY", "3"),
        ("SYSLOG_IDENTIFIER", "otpbridged"),
        ("OTPBRIDGE_EVENT", "store failed"),
        ("MESSAGE_ID", IDS["store failed"]),
    ]


def test_the_miss_that_begins_a_wait_can_be_woken_for(fake, to_journal):
    """Its MESSAGE_ID is that of back-off."""
    later = Later()
    told = AuditJournal(to_journal, later)
    told.take([row(detail={"wait": 4})])
    later.run()
    fields = dict(fake.entry())
    assert (fields["MESSAGE_ID"], fields["OTPBRIDGE_WAIT"]) == (IDS["backoff began"], "4")


def test_a_journal_that_reads_nothing_holds_nobody_up(fake, to_journal):
    """Entries that it does not take are dropped at once and counted; those before it was full arrive."""
    before = dict(journal.counts())
    later = Later()
    told = AuditJournal(to_journal, later)
    for number in range(3000):
        told.take([row(number)])
    later.run()
    sent, dropped = (journal.counts()[name] - before[name] for name in ("sent", "dropped"))
    assert sent + dropped == 3000
    assert dropped > 0
    assert dict(fake.entry())["OTPBRIDGE_AUDIT"] == "0"


def test_what_waits_is_bounded(fake, to_journal):
    """Where rows come faster than turns, the oldest are dropped and counted."""
    before = journal.counts()["dropped"]
    told = AuditJournal(to_journal, Later())
    told.take([row(number) for number in range(5000)])
    assert journal.counts()["dropped"] - before == 5000 - 4096
    told.flush()
    assert dict(fake.entry())["OTPBRIDGE_AUDIT"] == str(5000 - 4096)


def test_without_a_journal_the_entries_are_dropped(fake, to_journal):
    """One that has gone raises nothing."""
    before = journal.counts()["dropped"]
    fake.socket.close()
    to_journal.send("x", 6)
    assert journal.counts()["dropped"] == before + 1


@pytest.mark.parametrize("stream", ["", "1:2", "nonsense"])
def test_standard_error_of_anything_else_is_no_journal(monkeypatch, stream):
    """$JOURNAL_STREAM counts only where standard error is that very file: a daemon started from a unit's shell."""
    monkeypatch.setenv("JOURNAL_STREAM", stream)
    assert not journal.listens()


def test_standard_error_of_the_journal_is_known(monkeypatch, fake):
    """Device and inode are those that systemd has said."""
    about = os.fstat(2)
    monkeypatch.setenv("JOURNAL_STREAM", f"{about.st_dev}:{about.st_ino}")
    monkeypatch.setattr(journal, "SOCKET", Path(fake.path))
    assert journal.listens()
    monkeypatch.setattr(journal, "SOCKET", Path("none"))
    assert not journal.listens()
