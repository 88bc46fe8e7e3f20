"""Faults under load, one daemon on its own disk: what was answered stands, and all goes on when the fault is over."""

from __future__ import annotations

import os
import time

import pytest
from daemon_rig import LONG, Daemon, build_preload, plain_environment, private_folder
from faults import strikes
from faults.rig import CONFIG, SEED, campaign, shimmed

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
        with Daemon(folder, config=CONFIG, environment=plain_environment(**extra)) as rig:
            yield rig, control


def test_nothing_that_was_answered_is_undone(daemon):
    """Each fault in turn, in an order of chance, with the same store; then more of them for as long as is wanted."""
    rig, control = daemon
    until = time.monotonic() + SECONDS
    with campaign([rig], [control], SEED) as rounds:
        for strike in rounds.chance.sample(EVERY, len(EVERY)):
            rounds.play(strike)
        while time.monotonic() < until:
            rounds.play(rounds.chance.choice(EVERY))
