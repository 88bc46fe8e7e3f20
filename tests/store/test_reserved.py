"""Misses counted in advance: whoever leaves half-way has guessed, whoever passes has not."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from storerig import NOW, RULE, SOURCE_RULE, Rig, opened, run, running

from otpbridge.model import Backoff
from otpbridge.store.settle import Settled

HERE = "192.0.2.1"


def reserve(rig, name="alice", **how):
    """Count a miss in advance, as a conversation does that goes on with another question."""
    return rig.attempt(name, reserving=True, **how)


def test_a_conversation_that_is_left_has_cost_its_guess(tmp_path):
    """With nothing after it, a reservation is a miss like any other: the limit holds for what was never ended."""

    async def work():
        async with running(tmp_path) as rig:
            for _ in range(RULE.limit):
                assert (await reserve(rig)).settled is Settled.MISSED
            assert (await reserve(rig)).settled is Settled.BLOCKED
            assert (rig.misses().misses, rig.misses().refused) == (RULE.limit, 1)

    run(work())


@pytest.mark.parametrize("quick", [0.0, 60.0], ids=["thread", "loop"])
def test_of_many_reservations_at_once_as_many_go_on_as_the_limit_allows(tmp_path, quick):
    """Limit 3 and 16 conversations in one turn: 3 may go on, for one user and, with another limit, for one source."""

    async def work():
        async with running(tmp_path, quick=quick) as rig:
            rulings = await asyncio.gather(*(reserve(rig) for _ in range(16)))
            assert [ruling.settled for ruling in rulings].count(Settled.MISSED) == RULE.limit
            rulings = await asyncio.gather(*(reserve(rig, f"u{number}", source=HERE) for number in range(16)))
            assert [ruling.settled for ruling in rulings].count(Settled.MISSED) == SOURCE_RULE.limit
            assert (rig.source_misses(HERE).misses, rig.source_misses(HERE).refused) == (SOURCE_RULE.limit, 11)

    run(work())


def test_what_was_reserved_is_counted_once(tmp_path):
    """Whatever a conversation ends in but success, it is one miss, and is told so even while others wait."""

    async def work():
        async with running(tmp_path) as rig:
            token = await rig.token()
            await reserve(rig, source=HERE)
            assert (await rig.attempt(reserved=[NOW], source=HERE)).settled is Settled.MISSED
            assert rig.misses().misses == rig.source_misses(HERE).misses == 1
            await rig.attempt(spend=(token.seq, 9))
            await reserve(rig, source=HERE)
            assert (await rig.attempt(spend=(token.seq, 9), reserved=[NOW], source=HERE)).settled is Settled.SPENT
            assert (rig.misses().misses, rig.source_misses(HERE).misses) == (1, 2)

    run(work())


def test_a_success_takes_back_all_that_it_reserved_and_no_more(tmp_path):
    """The user's row ends; the source keeps what others missed, and the wait that this login began is over."""

    async def work():
        async with running(tmp_path) as rig:
            token = await rig.token()
            for number in range(SOURCE_RULE.limit - 2):
                await rig.attempt(f"other {number}", source=HERE)
            at = [NOW + 10, NOW + 20]
            for now in at:
                assert (await reserve(rig, now=now, source=HERE)).settled is Settled.MISSED
            assert (await rig.attempt("other", now=NOW + 30, source=HERE)).settled is Settled.BLOCKED
            last = await rig.attempt(spend=(token.seq, 9), reserved=at, now=NOW + 40, source=HERE)
            assert last.settled is Settled.PASSED
            assert rig.misses().misses == 0
            assert (rig.source_misses(HERE).misses, rig.source_misses(HERE).not_before) == (SOURCE_RULE.limit - 2, 0)
            assert (await rig.attempt("other", now=NOW + 50, source=HERE)).settled is Settled.MISSED

    run(work())


def test_a_success_does_not_end_the_wait_that_another_began(tmp_path):
    """A guesser's wait lasts, though somebody with an account logs in from the same address meanwhile."""

    async def work():
        async with running(tmp_path) as rig:
            token = await rig.token()
            await reserve(rig, now=NOW, source=HERE)
            for number in range(SOURCE_RULE.limit - 1):
                await rig.attempt(f"other {number}", now=NOW + 1 + number, source=HERE)
            waits = rig.source_misses(HERE).not_before
            assert waits > NOW + 1000
            passed = await rig.attempt(spend=(token.seq, 9), reserved=[NOW], now=NOW + 10, source=HERE)
            assert passed.settled is Settled.PASSED
            assert rig.source_misses(HERE).misses == SOURCE_RULE.limit - 1
            assert rig.source_misses(HERE).not_before == waits
            assert (await rig.attempt("other", now=NOW + 20, source=HERE)).settled is Settled.BLOCKED

    run(work())


def test_successes_of_one_batch_take_back_each_their_own(tmp_path):
    """Three logins from one office end in the same turn: their reservations go, the miss of a fourth stays."""

    async def work():
        async with running(tmp_path) as rig:
            people = [await rig.token(f"u{number}", f"t{number}", label=str(number)) for number in range(3)]
            for number in range(3):
                await reserve(rig, f"u{number}", now=NOW + number, source=HERE)
            await rig.attempt("fourth", now=NOW + 3, source=HERE)
            rulings = await asyncio.gather(
                *(
                    rig.attempt(f"u{number}", spend=(token.seq, 9), reserved=[NOW + number], now=NOW + 9, source=HERE)
                    for number, token in enumerate(people)
                )
            )
            assert {ruling.settled for ruling in rulings} == {Settled.PASSED}
            assert rig.source_misses(HERE).misses == 1

    run(work())


def test_misses_are_forgotten_behind_a_source_where_people_log_in_all_day(tmp_path):
    """Logins that reserve and pass do not keep the misses of an office alive: these go as fast as without them."""

    async def work():
        async with running(tmp_path) as rig:
            token = await rig.token()
            for number in range(SOURCE_RULE.limit - 1):
                await rig.attempt(f"other {number}", source=HERE)
            now, step = NOW, 10
            while now < NOW + SOURCE_RULE.limit * SOURCE_RULE.forget:
                now, step = now + SOURCE_RULE.forget // 4, step + 1
                assert (await reserve(rig, now=now, source=HERE)).settled is Settled.MISSED
                passed = await rig.attempt(spend=(token.seq, step), reserved=[now], now=now + 5, source=HERE)
                assert passed.settled is Settled.PASSED
            for number in range(SOURCE_RULE.limit):
                assert (await rig.attempt(f"late {number}", now=now + 9, source=HERE)).settled is Settled.MISSED

    run(work())


def test_rules_of_several_policies_hold_side_by_side_in_one_batch(tmp_path):
    """Users of a strict and of a mild client in one turn: each meets the limit and the wait of their own."""

    async def work():
        rules = {"strict": Backoff(1, 60_000, 60_000, 900_000), "mild": Backoff(5, 2000, 300_000, 900_000)}
        async with running(tmp_path, quick=60.0) as rig:
            names = [name for _ in range(8) for name in rules]
            rulings = await asyncio.gather(*(rig.attempt(name, rule=rules[name]) for name in names))
            for name, rule in rules.items():
                said = [ruling for which, ruling in zip(names, rulings, strict=True) if which == name]
                assert [ruling.settled for ruling in said].count(Settled.MISSED) == rule.limit
                assert {ruling.wait for ruling in said if ruling.settled is Settled.BLOCKED} == {rule.first_wait}
                assert rig.misses(name).not_before == NOW + rule.first_wait
                assert (await rig.attempt(name, rule=rule, now=NOW + rule.first_wait - 1)).settled is Settled.BLOCKED
                assert (await rig.attempt(name, rule=rule, now=NOW + rule.first_wait)).settled is Settled.MISSED

    run(work())


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["miss", "reserve", "pass", "pass reserved", "strike"]),
            st.integers(0, 2),
            st.integers(0, 3),
            st.sampled_from([0, 1, 700, 5000, 400_000, 1_000_000]),
        ),
        max_size=30,
    )
)
def test_settlements_of_all_kinds_do_what_a_simple_model_says(tmp_path_factory, history):
    """Any row of misses, reservations, codes and strikes by three users from two places, against a few lines."""
    run(_compare(tmp_path_factory.mktemp("model"), history))


class Model:
    """What back-off and spending come to, said as simply as can be."""

    def __init__(self):
        self.rows = {}
        self.spent = {}
        self.struck = set()

    def blocked(self, keys, now):
        """Whether nothing is judged for one of these (key, rule)."""
        waits = [rule.blocked_for(self.rows.get(key, (0, 0, 0, 0))[3], now) for key, rule in keys]
        return any(waits)

    def miss(self, key, rule, now, *, reserving=False):
        """Count a miss: misses, when the newest was, from when on they are forgotten, until when to wait."""
        misses, _, since, _ = self.rows.get(key, (0, 0, now, 0))
        left = rule.remaining(misses, since, now)
        wait = now + rule.wait(left + 1)
        self.rows[key] = (misses + 1, now, since, wait) if reserving and left else (left + 1, now, now, wait)

    def passed(self, subject, source, reserved):
        """A success: the user's row ends, the source gets back what was reserved."""
        self.rows.pop(subject, None)
        for at in reserved if source in self.rows else ():
            misses, last, since, until = self.rows[source]
            self.rows[source] = (max(0, misses - 1), last, since, 0 if last == at else until)


async def _compare(folder, history):
    store = opened(folder)
    store.start()
    rig, model = Rig(store), Model()
    people = {}
    for number in range(3):
        token = await rig.token(f"u{number}", f"t{number}", label="a")
        listed = await rig.put(f"u{number}", f"r{number}")
        people[f"u{number}"] = (token, listed)
    now, reserved = NOW, {}
    for what, person, value, elapsed in history:
        now += elapsed
        name, source = f"u{person}", f"place {person % 2}"
        (token, listed), how = people[name], {"source": source, "now": now}
        keys = [(name, RULE), (source, SOURCE_RULE)]
        held = reserved.pop(name, []) if what == "pass reserved" else []
        stopped = not held and model.blocked(keys, now)
        if what == "reserve":
            settled = (await rig.attempt(name, reserving=True, **how)).settled
        elif what == "strike":
            settled = (await rig.attempt(name, strike=(listed.seq, 1 << value), **how)).settled
        else:
            spend = None if what == "miss" else (token.seq, 10 + value)
            settled = (await rig.attempt(name, spend=spend, reserved=held, **how)).settled
        if stopped:
            assert settled is Settled.BLOCKED
            continue
        right = (what == "strike" and (name, value) not in model.struck) or (
            what.startswith("pass") and model.spent.get(name, 0) < 10 + value
        )
        if right:
            assert settled is Settled.PASSED
            model.struck |= {(name, value)} if what == "strike" else set()
            model.spent |= {} if what == "strike" else {name: 10 + value}
            model.passed(name, source, held)
        else:
            assert settled is (Settled.MISSED if what in {"miss", "reserve"} else Settled.SPENT)
            if not held:
                model.miss(name, RULE, now)
                model.miss(source, SOURCE_RULE, now, reserving=what == "reserve")
            if what == "reserve":
                reserved.setdefault(name, []).append(now)
        for key, state in ((name, rig.misses(name)), (source, rig.source_misses(source))):
            misses, last, _, until = model.rows.get(key, (0, 0, 0, 0))
            assert (state.misses, state.last, state.not_before) == (misses, last, until), key
    await store.close()
