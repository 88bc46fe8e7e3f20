"""Codes of a list: each is struck out once, beside all others, whoever tries and whatever dies meanwhile."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from storerig import NOW, RULE, SOURCE_RULE, backend, only, run, running

from otpbridge.model import Backoff, Kind, State
from otpbridge.store import tokens
from otpbridge.store.engine import begin
from otpbridge.store.settle import Settled, Settler

PATIENT = Backoff(10_000, 1000, 300_000, 900_000)


def test_each_code_is_struck_out_once_and_the_others_stay(tmp_path):
    """A code passes the first time and never again; no other code is touched by it, the last one (bit 62) neither."""

    async def work():
        async with running(tmp_path, PATIENT) as rig:
            listed = await rig.put()
            order = list(range(63))
            random.Random(3).shuffle(order)
            for place in order:
                assert (await rig.attempt(strike=(listed.seq, 1 << place))).settled is Settled.PASSED
                assert (await rig.attempt(strike=(listed.seq, 1 << place))).settled is Settled.SPENT
            assert rig.find("r1").token.moving_factor == (1 << 63) - 1
            assert rig.find("r1").token.last_used_at == NOW // 1000

    run(work())


@pytest.mark.parametrize("quick", [0.0, 60.0], ids=["thread", "loop"])
def test_of_64_at_once_each_code_passes_once(tmp_path, quick):
    """Sixteen codes, tried four times each in one turn, from one list."""

    async def work():
        async with running(tmp_path, PATIENT, quick=quick) as rig:
            listed = await rig.put()
            places = [place for place in range(16) for _ in range(4)]
            random.Random(5).shuffle(places)
            rulings = await asyncio.gather(*(rig.attempt(strike=(listed.seq, 1 << place)) for place in places))
            passed = [
                place for place, ruling in zip(places, rulings, strict=True) if ruling.settled is Settled.PASSED
            ]
            assert sorted(passed) == list(range(16))
            assert {ruling.settled for ruling in rulings} == {Settled.PASSED, Settled.SPENT}

    run(work())


def test_users_of_one_batch_strike_each_their_own(tmp_path):
    """Codes, counters and guesses of many users in one batch: each gets what is theirs."""

    async def work():
        async with running(tmp_path, quick=60.0) as rig:
            lists = [await rig.put(f"u{number}", f"r{number}") for number in range(4)]
            clock = await rig.token("clock", "t1")
            rulings = await asyncio.gather(
                *(rig.attempt(f"u{number}", strike=(each.seq, 1 << number)) for number, each in enumerate(lists)),
                rig.attempt("clock", spend=(clock.seq, 50)),
                rig.attempt("guesser"),
                rig.attempt("u0", strike=(lists[0].seq, 1)),
            )
            assert [ruling.settled for ruling in rulings] == [*[Settled.PASSED] * 5, Settled.MISSED, Settled.SPENT]
            assert [rig.find(f"r{number}").token.moving_factor for number in range(4)] == [1, 2, 4, 8]
            assert rig.find("t1").token.moving_factor == 50

    run(work())


@pytest.mark.parametrize("state", [State.DISABLED, State.REVOKED])
def test_a_list_that_is_not_active_strikes_nothing(tmp_path, state):
    """Codes on their way when the list is disabled or replaced are refused."""

    async def work():
        async with running(tmp_path) as rig:
            listed = await rig.put()
            await rig.change(lambda t: tokens.change_state(t, "r1", {State.ACTIVE}, state))
            assert (await rig.attempt(strike=(listed.seq, 1))).settled is Settled.SPENT
            assert rig.find("r1").token.moving_factor == 0

    run(work())


@only("sqlite")
def test_many_daemons_on_one_store_strike_a_code_once(tmp_path):
    """Eight connections, as of eight daemons on one database, with 64 attempts at each code: one passes."""

    async def work():
        async with running(tmp_path) as rig:
            listed = await rig.put()
            together = threading.Barrier(8)

            def one_daemon(number):
                won = []
                settler = Settler(rig.store.engine.dialect, SOURCE_RULE)
                with rig.store.engine.connect() as connection:
                    cursor = connection.connection.dbapi_connection.cursor()
                    cursor.execute("PRAGMA busy_timeout = 20000")
                    for place in range(5):
                        together.wait(30)
                        for try_ in range(8):
                            attempt = rig.settlement(f"try {try_} of {number}", strike=(listed.seq, 1 << place))
                            cursor.execute(begin(rig.store.engine))
                            (ruling,) = settler.settle(cursor, [attempt])
                            cursor.execute("COMMIT")
                            if ruling.settled is Settled.PASSED:
                                won.append(place)
                return won

            with ThreadPoolExecutor(8) as pool:
                loop = asyncio.get_running_loop()
                wins = await asyncio.gather(*(loop.run_in_executor(pool, one_daemon, number) for number in range(8)))
            assert sorted(place for won in wins for place in won) == list(range(5))

    run(work())


STRIKER = """
import asyncio, sys
from pathlib import Path
from storerig import RULE, backend, running

async def main():
    backend.url = lambda folder: sys.argv[2] or None
    async with running(Path(sys.argv[1]), RULE) as rig:
        listed = rig.find("r1")
        for place in range(63):
            ruling = await rig.attempt(strike=(listed.seq, 1 << place))
            print(place, ruling.settled.value, flush=True)

asyncio.run(main())
"""


@pytest.mark.parametrize("answers", [1, 7, 20])
def test_what_was_told_stays_struck_out_when_the_daemon_is_killed(tmp_path, answers):
    """Killed between a code and the next: whoever was told yes was told for good, and nothing else is lost."""

    async def prepare():
        async with running(tmp_path) as rig:
            await rig.put()

    run(prepare())
    command = [sys.executable, "-c", STRIKER, str(tmp_path), backend.url(tmp_path) or ""]
    support = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1] / "support")}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=support) as child:
        told = [child.stdout.readline().split() for _ in range(answers)]
        child.send_signal(signal.SIGKILL)
        told += [line.split() for line in child.stdout.read().splitlines()]
    assert [word for _, word in told] == ["passed"] * len(told)

    async def after():
        async with running(tmp_path, PATIENT) as rig:
            listed = rig.find("r1")
            struck = listed.token.moving_factor
            # At most one more was struck out than was told of.
            assert struck in {(1 << len(told)) - 1, (1 << len(told) + 1) - 1}
            for place in range(63):
                expected = Settled.SPENT if struck >> place & 1 else Settled.PASSED
                assert (await rig.attempt(strike=(listed.seq, 1 << place))).settled is expected

    run(after())


def test_a_registration_code_passes_once(tmp_path):
    """It has a counter, not a list: the second time it is spent."""

    async def work():
        async with running(tmp_path, RULE) as rig:
            code = await rig.put(kind=Kind.REGISTRATION, expires_at=NOW // 1000 + 60)
            rulings = await asyncio.gather(*(rig.attempt(spend=(code.seq, 1)) for _ in range(3)))
            assert [ruling.settled for ruling in rulings] == [Settled.PASSED, Settled.SPENT, Settled.SPENT]

    run(work())
