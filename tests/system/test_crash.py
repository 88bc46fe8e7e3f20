"""The daemon dies at any moment, as often as you like: what was answered stands."""

from __future__ import annotations

import random
import time
from collections import Counter, deque

import pytest
from crash_load import DIGITS, Book, Device, Load
from daemon_rig import LONG, Daemon, build_preload, plain_environment, private_folder, provision

from otpbridge.model import Kind
from otpbridge.wire import messages

pytestmark = [pytest.mark.system, pytest.mark.campaign, pytest.mark.timeout(3600)]

ROUNDS = 200 if LONG else 8
LIVES_CUT_SHORT = 4
"""In one round of so many, the daemon is killed once more while it starts."""
SLOW_LIVES = 2
"""In one round of so many, commits take longer, so that the end comes in the middle of one nearly always."""
SLOW_WRITE_US = 400
MOST_ANSWERS = 400
REPLAYS = 200 if LONG else 60
CONFIG = """
[throttle]
limit = 1000
source_limit = 100000
"""


@pytest.fixture
def daemon():
    with private_folder() as folder:
        preload = {"LD_PRELOAD": str(build_preload("slow_write", folder))}
        rig = Daemon(folder, config=CONFIG, environment=plain_environment(**preload))
        yield rig
        rig.kill()


def codes_to_use_up(daemon, number):
    """Codes that have not been used: of time-based tokens, of lists of recovery codes, of registrations."""
    keys = provision(daemon, [f"time{number}-{place}" for place in range(100)], digits=DIGITS)
    codes = [(user, key.code()) for user, key in keys.items()]
    for user, paper in provision(daemon, [f"list{number}-{place}" for place in range(4)], kind=Kind.RECOVERY).items():
        codes += [(user, code) for code in paper.codes]
    keys = provision(daemon, [f"desk{number}-{place}" for place in range(20)], kind=Kind.REGISTRATION)
    codes += [(user, key.code()) for user, key in keys.items()]
    random.shuffle(codes)
    return deque(codes)


def live_and_die(daemon, devices, number):
    """One life under load, ended by kill -9 after some answers; what clients saw of it."""
    book = Book()
    load = Load(daemon, book)
    for _ in range(2):
        load.verify_counters(devices)
    load.verify_once(codes_to_use_up(daemon, number))
    load.enrol(f"new{number}")
    book.wait_for(random.randint(20, MOST_ANSWERS))
    # Not only just after an answer: anywhere within a commit.
    until = time.monotonic() + random.uniform(0, 0.003)
    while time.monotonic() < until:
        pass
    daemon.kill()
    load.join()
    return book


def rise(daemon, number):
    """Start again; now and then the daemon dies once more while it starts, or writes slowly from now on."""
    daemon.environment["SLOW_WRITE_US"] = "0" if number % SLOW_LIVES else str(SLOW_WRITE_US)
    if number % LIVES_CUT_SHORT == 0:
        daemon.launch()
        until = time.monotonic() + random.uniform(0, 0.4)
        while time.monotonic() < until and daemon.running:
            pass
        daemon.kill()
    daemon.start()


def replays_refused(daemon, book):
    """None of the codes that were accepted is accepted again."""
    tried = random.sample(sorted(book.accepted), min(REPLAYS, len(book.accepted)))
    with daemon.client() as client:
        assert [pair for pair in tried if client.verify(*pair).ok] == []


def works(client, device):
    """The next code opens, once."""
    code = device.code()
    device.next += 1
    return client.verify(device.user, code).ok and not client.verify(device.user, code).ok


def next_codes_open(daemon, devices, book):
    """Every token works: with its next code, or the one after it if that one was on its way when all ended."""
    with daemon.client() as client:
        for device in devices:
            if not works(client, device):
                assert book.unanswered[device.user], device.user
                assert works(client, device), device.user


def log_agrees(daemon, book, before):
    """Every success that a client was told of is in the audit log, and no more than could be."""
    with daemon.admin() as admin:
        found = admin.call(messages.AuditVerify(anchor=before.anchor if before else None))
        assert found.intact, found.fault
        new = found.entries - (before.entries if before else 0)
        rows = [row for reply in admin.stream(messages.AuditTail(count=new)) for row in reply.entries]
    told = Counter()
    for (user, _), times in book.accepted.items():
        told[user] += times
    logged = Counter(row.user for row in rows if row.event == "verify" and row.verdict == "success")
    assert told - logged == Counter()
    assert logged - told <= book.unanswered
    confirmed = {row.token for row in rows if row.event == "token confirmed" and row.user.startswith("new")}
    assert set(book.confirmed) <= confirmed
    assert len(confirmed) <= len(book.confirmed) + book.maybe_confirmed
    return found


def test_nothing_that_was_answered_is_undone_by_a_crash(daemon):
    """kill -9 under load, again and again: no code opens twice, no token is lost, the log is whole."""
    daemon.start()
    keys = provision(daemon, [f"counter{place}" for place in range(6)], kind=Kind.HOTP, digits=DIGITS)
    keys |= provision(daemon, [f"yubikey{place}" for place in range(6)], kind=Kind.YUBIOTP)
    devices = [Device(user, key) for user, key in keys.items()]
    enrolled = {}
    accepted = Counter()
    anchor = None
    for number in range(ROUNDS):
        book = live_and_die(daemon, devices, number)
        accepted += book.accepted
        assert set(accepted.values()) == {1}
        rise(daemon, number)
        anchor = log_agrees(daemon, book, anchor)
        replays_refused(daemon, book)
        next_codes_open(daemon, devices, book)
        enrolled |= book.confirmed
        next_codes_open(daemon, book.confirmed.values(), book)
        next_codes_open(daemon, random.sample(list(enrolled.values()), min(10, len(enrolled))), Book())
        with daemon.admin() as admin:
            anchor = admin.call(messages.AuditVerify(anchor=anchor.anchor))
    assert len(enrolled) > ROUNDS // 2
    kinds = {user.rstrip("-0123456789") for user, _ in accepted}
    assert kinds == {"counter", "yubikey", "time", "list", "desk"}, "each kind was used"
    next_codes_open(daemon, enrolled.values(), Book())
    replays_refused(daemon, Book(accepted=accepted))
    daemon.check_audit()
    assert daemon.stop() == 0
