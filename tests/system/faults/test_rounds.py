"""Faults under load, one daemon on its own disk: what was answered stands, and all goes on when the fault is over."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import pytest
from daemon_rig import LONG, Daemon, build_preload, plain_environment, private_folder
from faults import rig, strikes
from faults.rig import CONFIG, campaign, shimmed

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
SECONDS = float(os.environ.get("OTPBRIDGE_FAULT_SECONDS") or (600 if LONG else 0))
"""For how long rounds go on once each fault had its turn."""


@pytest.fixture
def daemon():
    with private_folder() as folder:
        control, extra = shimmed(folder, build_preload("faults_shim", folder))
        with Daemon(folder, config=CONFIG, environment=plain_environment(**extra)) as served:
            yield served, control


def test_nothing_that_was_answered_is_undone(daemon):
    """Each fault in turn, in an order of chance, with the same store; then more of them for as long as is wanted."""
    served, control = daemon
    until = time.monotonic() + SECONDS
    with campaign([served], [control]) as rounds:
        for strike in rounds.chance.sample(EVERY, len(EVERY)):
            rounds.play(strike)
        while time.monotonic() < until:
            rounds.play(rounds.chance.choice(EVERY))


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
        control, extra = shimmed(folder, build_preload("faults_shim", folder))
        prefix = [sys.executable, os.fspath(Path(rig.__file__).with_name("unsafe_daemon.py")), flaw]
        flawed = Daemon(folder, config=CONFIG, environment=plain_environment(**extra), prefix=prefix)
        with (
            flawed,
            campaign([flawed], [control], kept=folder) as rounds,
            pytest.raises(AssertionError, match=found),
        ):
            rounds.play(strike)
