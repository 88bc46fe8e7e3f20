"""Once, durable, counted: what must always hold of a verification, at the store."""

from __future__ import annotations

import asyncio
import random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from storerig import NOW, RULE, SOURCE_RULE, checked, only, run, running

from otpbridge.model import Backoff, State
from otpbridge.store import tokens
from otpbridge.store.settle import CLOCKS_MS, Settled


@pytest.mark.parametrize("parallel", [2, 8, 64])
def test_a_moving_factor_is_spent_once_however_many_try_at_once(tmp_path, parallel):
    """Of N parallel attempts with the same code exactly one passes."""

    async def work():
        async with running(tmp_path, Backoff(1000, 1000, 300_000, 900_000)) as rig:
            token = await rig.token()
            for step in range(10, 30):
                rulings = await asyncio.gather(*(rig.attempt(spend=(token.seq, step + 1)) for _ in range(parallel)))
                assert [ruling.settled for ruling in rulings].count(Settled.PASSED) == 1
                assert {ruling.settled for ruling in rulings} <= {Settled.PASSED, Settled.SPENT}

    run(work())


def test_an_older_moving_factor_is_spent_too(tmp_path):
    """After step 20 neither 20 nor 19 passes, 21 does."""

    async def work():
        async with running(tmp_path) as rig:
            token = await rig.token()
            assert (await rig.attempt(spend=(token.seq, 21))).settled is Settled.PASSED
            assert (await rig.attempt(spend=(token.seq, 21))).settled is Settled.SPENT
            assert (await rig.attempt(spend=(token.seq, 20))).settled is Settled.SPENT
            assert (await rig.attempt(spend=(token.seq, 22))).settled is Settled.PASSED

    run(work())


@pytest.mark.parametrize("state", [State.PENDING, State.DISABLED, State.REVOKED])
def test_only_an_active_token_is_spent(tmp_path, state):
    """A token that was disabled while its code was on the way is refused."""

    async def work():
        async with running(tmp_path) as rig:
            token = await rig.token(state=state)
            assert (await rig.attempt(spend=(token.seq, 21))).settled is Settled.SPENT

    run(work())


def test_what_passed_is_on_disk_when_it_is_told(tmp_path):
    """Another connection sees the spent step as soon as the ruling is known."""

    async def work():
        async with running(tmp_path) as rig:
            token = await rig.token()
            await rig.attempt(spend=(token.seq, 21))
            with rig.store.engine.connect() as other:
                assert tokens.find(other, "t1").token.moving_factor == 21

    run(work())


def test_the_limit_holds_for_guesses_in_parallel(tmp_path):
    """Limit 3, 16 parallel guesses with one right among them: at most 3 are judged and all 16 are counted."""

    async def work():
        order = random.Random(7)
        for round_ in range(20):
            name = f"user{round_}"
            token = await rig.token(name, f"t{round_}")
            right = order.randrange(16)
            rulings = await asyncio.gather(
                *(rig.attempt(name, spend=(token.seq, 50) if guess == right else None) for guess in range(16))
            )
            judged = [ruling for ruling in rulings if ruling.settled is not Settled.BLOCKED]
            passed = [ruling for ruling in rulings if ruling.settled is Settled.PASSED]
            if passed:
                # A right guess ends the row of misses, so the limit begins anew after it.
                assert right < 3
            else:
                assert len(judged) == 3
                state = rig.misses(name)
                assert state.misses + state.refused == 16

    async def all_rounds():
        nonlocal rig
        async with running(tmp_path) as rig:
            await work()

    rig = None
    run(all_rounds())


def test_the_limit_holds_per_source_over_many_users(tmp_path):
    """Guessing one code at many users from one address is bounded as well."""

    async def work():
        async with running(tmp_path) as rig:
            rulings = await asyncio.gather(
                *(rig.attempt(f"user{number}", source="192.0.2.1") for number in range(16))
            )
            judged = [ruling for ruling in rulings if ruling.settled is Settled.MISSED]
            assert len(judged) == SOURCE_RULE.limit
            assert (await rig.attempt("user1", source="192.0.2.2")).settled is Settled.MISSED

    run(work())


def test_waits_double_and_end(tmp_path):
    """1, 2, 4 … s up to the longest; what is tried while waiting does not lengthen it."""

    async def work():
        async with running(tmp_path) as rig:
            for _ in range(RULE.limit):
                assert (await rig.attempt()).settled is Settled.MISSED
            now, waits = NOW, []
            for _ in range(11):
                ruling = await rig.attempt(now=now)
                assert ruling.settled is Settled.BLOCKED
                assert (await rig.attempt(now=now + ruling.wait - 1)).settled is Settled.BLOCKED
                waits.append(ruling.wait)
                now += ruling.wait
                assert (await rig.attempt(now=now)).settled is Settled.MISSED
            assert waits == [1000, 2000, 4000, 8000, 16_000, 32_000, 64_000, 128_000, 256_000, 300_000, 300_000]

    run(work())


def test_the_miss_that_begins_a_wait_says_so(tmp_path):
    """Of all attempts the miss alone that starts a wait, and each that starts a longer one, tells how long it is."""

    async def work():
        async with running(tmp_path) as rig:
            misses = [await rig.attempt(source="192.0.2.1") for _ in range(RULE.limit)]
            assert [ruling.wait for ruling in misses] == [0] * (RULE.limit - 1) + [1000]
            assert (await rig.attempt("bob", source="192.0.2.1")).wait == 0, "the wait is that of another user"
            ruling = await rig.attempt(now=NOW + 1000)
            assert (ruling.settled, ruling.wait) == (Settled.MISSED, 2000)

    run(work())


def test_a_right_code_ends_the_row(tmp_path):
    """Two misses, a success, and the next two misses cost nothing again."""

    async def work():
        async with running(tmp_path) as rig:
            token = await rig.token()
            for step in (30, 40, 50):
                await rig.attempt()
                await rig.attempt()
                assert (await rig.attempt(spend=(token.seq, step))).settled is Settled.PASSED
            assert rig.misses().misses == 0

    run(work())


def test_a_right_code_is_not_judged_while_waiting(tmp_path):
    """Back-off turns away right codes too, else it would tell them from wrong ones; later they pass."""

    async def work():
        async with running(tmp_path) as rig:
            token = await rig.token()
            for _ in range(RULE.limit):
                await rig.attempt()
            assert (await rig.attempt(spend=(token.seq, 30))).settled is Settled.BLOCKED
            assert rig.find("t1").token.moving_factor == 1
            assert (await rig.attempt(spend=(token.seq, 30), now=NOW + 1000)).settled is Settled.PASSED

    run(work())


def test_a_success_from_a_source_does_not_wipe_what_the_source_missed(tmp_path):
    """Who has one account cannot use it to go on guessing at others."""

    async def work():
        async with running(tmp_path) as rig:
            token = await rig.token("mallory")
            for number in range(SOURCE_RULE.limit - 1):
                await rig.attempt(f"user{number}", source="192.0.2.1")
            assert (await rig.attempt("mallory", spend=(token.seq, 30), source="192.0.2.1")).settled is Settled.PASSED
            assert (await rig.attempt("user8", source="192.0.2.1")).settled is Settled.MISSED
            assert (await rig.attempt("user9", source="192.0.2.1")).settled is Settled.BLOCKED

    run(work())


def test_back_off_survives_a_restart(tmp_path):
    """The daemon cannot be crashed to get more guesses."""

    async def first():
        async with running(tmp_path) as rig:
            for _ in range(RULE.limit):
                await rig.attempt()

    async def second():
        async with running(tmp_path) as rig:
            assert (await rig.attempt()).settled is Settled.BLOCKED

    run(first())
    run(second())


def test_a_clock_that_steps_back_locks_nobody_out(tmp_path):
    """A wait that lies further ahead than any wait can is no wait."""

    async def work():
        async with running(tmp_path) as rig:
            for _ in range(RULE.limit):
                await rig.attempt()
            earlier = NOW - 86_400_000
            assert (await rig.attempt(now=earlier)).settled is Settled.MISSED
            assert (await rig.attempt(now=earlier)).settled is Settled.BLOCKED

    run(work())


@pytest.mark.parametrize("behind", [1, CLOCKS_MS - 1])
def test_an_attempt_that_waited_is_not_older_than_the_misses_before_it(tmp_path, behind):
    """Held up, or timed by a clock that is behind: it neither slips through a wait nor meets one too soon."""
    rule = Backoff(limit=3, first_wait=300_000, longest_wait=300_000, forget=900_000)

    async def work():
        async with running(tmp_path, rule) as rig:
            for _ in range(2):
                assert (await rig.attempt()).settled is Settled.MISSED
            assert (await rig.attempt(now=NOW - behind)).settled is Settled.MISSED
            assert (await rig.attempt(now=NOW - behind)).settled is Settled.BLOCKED

    run(work())


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["miss", "hit"]),
            st.sampled_from([0, 1, 500, 1000, 3000, 60_000, 900_000, 2_000_000, -5_000]),
        ),
        max_size=25,
    ),
    st.integers(1, 5),
)
def test_the_statements_and_the_rule_agree(tmp_path_factory, history, limit):
    """What SQL does to a row of misses is what `model.Backoff` says, at any times in any order."""
    rule = Backoff(limit, 1000, 300_000, 900_000)

    async def work():
        async with running(tmp_path_factory.mktemp("s"), rule) as rig:
            token = await rig.token()
            now, misses, last, not_before, step = NOW, 0, 0, 0, 100
            for what, elapsed in history:
                now += elapsed
                step += 1
                # What seems to be a little older than the last miss is taken to be of the same time.
                at = max(now, last) if last - CLOCKS_MS < now else now
                expected = Settled.BLOCKED if rule.blocked_for(not_before, at) else None
                ruling = await rig.attempt(spend=(token.seq, step) if what == "hit" else None, now=now)
                if expected is Settled.BLOCKED:
                    assert ruling.settled is Settled.BLOCKED
                    assert ruling.wait == not_before - at
                elif what == "hit":
                    assert ruling.settled is Settled.PASSED
                    misses = last = not_before = 0
                else:
                    assert ruling.settled is Settled.MISSED
                    misses = rule.remaining(misses, last, at) + 1
                    last, not_before = at, at + rule.wait(misses)
                state = rig.misses()
                assert (state.misses, state.last, state.not_before) == (misses, last, not_before)

    run(work())


@only("sqlite")
def test_when_the_disk_is_full_nothing_is_told_to_pass(tmp_path):
    """The commit fails: the caller hears of a failure, and nothing of the batch has happened."""

    async def work():
        async with running(tmp_path) as rig:
            token = await rig.token()
            page_count = _limit_pages(rig.store)
            outcomes = []
            for number in range(200):
                outcomes.append((await rig.attempt(f"x{number}" * 50)).settled)
                if outcomes[-1] is Settled.FAILED:
                    break
            assert outcomes[-1] is Settled.FAILED
            assert (await rig.attempt("y" * 5000, spend=(token.seq, 30))).settled is Settled.FAILED
            assert rig.find("t1").token.moving_factor == 1
            _limit_pages(rig.store, page_count + 10_000)
            assert (await rig.attempt(spend=(token.seq, 30))).settled is Settled.PASSED
            assert checked(rig.store).fault is None

    run(work())


def _limit_pages(store, most=None):
    """Let the writer's database grow no further, as on a full disk (SQLITE_FULL)."""
    cursor = store._open.writer._line.connection.connection.dbapi_connection.cursor()
    now = cursor.execute("PRAGMA page_count").fetchone()[0]
    cursor.execute(f"PRAGMA max_page_count = {most or now}")
    return now


@pytest.mark.parametrize("quick", [0.0, 60.0], ids=["thread", "loop"])
def test_it_holds_wherever_the_commit_is_made(tmp_path, quick):
    """On a quick disk the event loop commits, on a slow one the thread: once, counted, durable and chained alike."""

    async def work():
        async with running(tmp_path, quick=quick) as rig:
            token = await rig.token()
            for step in range(10, 210, 2):
                rulings = await asyncio.gather(*(rig.attempt(spend=(token.seq, step)) for _ in range(3)))
                assert [ruling.settled for ruling in rulings].count(Settled.PASSED) == 1
                with rig.store.engine.connect() as other:
                    assert tokens.find(other, "t1").token.moving_factor == step
                assert (await rig.attempt(spend=(token.seq, step + 1), now=NOW + step * 1000)).settled in {
                    Settled.PASSED,
                    Settled.BLOCKED,
                }
                token = rig.find("t1")
            check = checked(rig.store)
            assert (check.entries, check.fault) == (4 * 100, None)

    run(work())


@only("sqlite")
def test_a_disk_that_becomes_slow_sends_the_commits_to_the_thread(tmp_path):
    """The event loop waits for no slow commit a second time."""

    async def work():
        async with running(tmp_path, quick=0.001) as rig:
            token = await rig.token()
            writer = rig.store._open.writer
            writer._pace = 0.005
            ruling = rig.attempt(spend=(token.seq, 20))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            assert not writer._gathered
            assert (await ruling).settled is Settled.PASSED
            writer._pace = 0.0
            ruling = rig.attempt(spend=(token.seq, 30))
            await asyncio.sleep(0)
            assert ruling.done()

    run(work())


@only("sqlite")
def test_another_process_that_holds_the_store_does_not_stop_the_event_loop(tmp_path):
    """An admin's sqlite3 shell in a transaction delays a verdict; everything else goes on."""
    import sqlite3

    async def work():
        async with running(tmp_path, quick=60.0) as rig:
            token = await rig.token()
            other = sqlite3.connect(tmp_path / "otpbridge.db", isolation_level=None)
            other.execute("BEGIN IMMEDIATE")
            ruling = rig.attempt(spend=(token.seq, 20))
            for _ in range(100):
                await asyncio.sleep(0)
            assert not ruling.done()
            other.execute("ROLLBACK")
            other.close()
            assert (await ruling).settled is Settled.PASSED

    run(work())
