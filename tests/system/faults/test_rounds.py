"""Faults under load, one daemon on its own disk: what was answered stands, and all goes on when the fault is over."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from daemon_rig import Daemon, build_preload, plain_environment, private_folder, provision
from faults import rig, strikes
from faults.rig import CONFIG, campaign, shimmed

from otpbridge.errors import UnavailableError

pytestmark = [pytest.mark.system, pytest.mark.campaign, pytest.mark.timeout(100_000)]

EVERY = [
    strikes.killed,
    strikes.killed_amid_a_slow_commit,
    strikes.torn,
    strikes.stopped,
    strikes.full,
    strikes.full_then_killed,
    strikes.unflushed,
    strikes.unflushed_then_killed,
    strikes.clock_ahead,
    strikes.clock_back,
    strikes.no_descriptors,
    strikes.no_memory,
]


@pytest.fixture
def daemon():
    with private_folder() as folder:
        control, extra = shimmed(folder, build_preload("faults_shim", folder))
        with Daemon(folder, config=CONFIG, environment=plain_environment(**extra)) as served:
            yield served, control


def test_nothing_that_was_answered_is_undone(daemon):
    """Faults of the process, its disk, its clock and what it may have, each in turn, with the same store."""
    served, control = daemon
    with campaign([served], [control]) as rounds:
        rounds.play_each(EVERY, short=len(EVERY))


def flawed(folder, flaw):
    """A daemon with a flaw, that is not started, and its disk and clock."""
    control, extra = shimmed(folder, build_preload("faults_shim", folder))
    prefix = [sys.executable, os.fspath(Path(rig.__file__).with_name("unsafe_daemon.py")), flaw]
    return Daemon(folder, config=CONFIG, environment=plain_environment(**extra), prefix=prefix), control


@pytest.mark.parametrize(
    ("flaw", "strike", "found"),
    [
        ("twice", strikes.stopped, "accepted twice"),
        ("forgets", strikes.unflushed, "not logged"),
        ("silent", strikes.full, "no answer"),
    ],
)
def test_a_daemon_with_a_flaw_is_found_out(monkeypatch, flaw, strike, found):
    """Codes that are not spent, a yes whatever became of the commit, no answer after a failed write: all found."""
    monkeypatch.setattr(rig, "TIMEOUT", 1.0)
    with private_folder() as folder:
        daemon, control = flawed(folder, flaw)
        daemon.start()
        try:
            with campaign([daemon], [control], kept=folder) as rounds, pytest.raises(AssertionError, match=found):
                rounds.play(strike)
        finally:
            # It need not know how to end in order.
            daemon.kill()


def test_a_daemon_that_cannot_write_any_more_ends():
    """Where the thread that writes has failed, nobody would be answered: the service manager is to start it anew."""
    with private_folder() as folder:
        daemon, control = flawed(folder, "breaks")
        control.delay_us = 5000
        daemon.start()
        keys = provision(daemon, [f"user{number}" for number in range(20)])
        with daemon.client() as client, pytest.raises(UnavailableError):
            [client.verify(user, key.code()) for user, key in keys.items()]
        assert daemon.wait() == 70
        assert "store-writer has failed: SystemExit" in daemon.log
