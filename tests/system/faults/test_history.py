"""The judge of the fault rounds: each kind of wrong is found in a history made by hand, and nothing in a good one."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
from faults.history import (
    CUT,
    REFUSED,
    SILENT,
    SUCCESS,
    UNAVAILABLE,
    UNKNOWN,
    Act,
    Attempt,
    Excuse,
    History,
    Row,
    Window,
    check,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st


def tried(step, outcome, invoked, ended, **more):
    """One login of alice."""
    return Attempt("c", Act.VERIFY, "alice", step, invoked, ended, outcome, **more)


def enrolled(outcome, invoked=0, ended=1):
    return Attempt("c", Act.CONFIRM, "bob", 0, invoked, ended, outcome)


def rows(*tokens, event="verify", verdict="success"):
    return [Row(number, event, token, verdict) for number, token in enumerate(tokens, 1)]


def rules(history):
    """Which rules a history breaks."""
    return [finding.rule for finding in check(history)]


CONFIRMED = rows("bob", event="token confirmed", verdict=None)
GOOD = History(
    [
        tried(None, REFUSED, 0, 1),
        tried(7, SUCCESS, 2, 5),
        tried(7, REFUSED, 3, 4),
        tried(6, REFUSED, 6, 7),
        tried(9, CUT, 8, 9),
        tried(8, REFUSED, 10, 11),
        tried(10, SUCCESS, 12, 13),
    ],
    rows("alice", "alice", "alice"),
    [Window("kill", 7, 9, frozenset({Excuse.CUT}))],
)


def test_a_good_history_is_good():
    """Refused while another was being accepted, refused after an answer that was lost, logged all the same."""
    assert check(GOOD) == []
    assert check(History([enrolled(SUCCESS)], CONFIRMED, states={"bob": "active"})) == []


BAD = {
    "accepted twice": History([tried(7, SUCCESS, 0, 1), tried(7, SUCCESS, 0, 1)], rows("alice", "alice")),
    "went backwards": History([tried(7, SUCCESS, 0, 1), tried(6, SUCCESS, 2, 3)], rows("alice", "alice")),
    "wrong code": History([tried(None, SUCCESS, 0, 1)], rows("alice")),
    "refused": History([tried(6, SUCCESS, 0, 1), tried(7, REFUSED, 2, 3)], rows("alice")),
    "overdue": replace(GOOD, longest=2),
    "no answer": replace(GOOD, windows=[Window("kill", 10, 13, frozenset({Excuse.CUT}))]),
    "strange answer": History([tried(7, "maxtries", 0, 1)]),
    "not logged": replace(GOOD, rows=rows("alice")),
    "logged too often": replace(GOOD, rows=rows("alice", "alice", "alice", "alice")),
    "chain": replace(GOOD, chain="entry 2 was changed"),
    "token lost": History([enrolled(SUCCESS)], CONFIRMED, states={}),
    "half confirmed": History([], states={"bob": "active"}),
}


@pytest.mark.parametrize("rule", BAD)
def test_each_wrong_is_found(rule):
    """And it is the only one that is found."""
    assert rules(BAD[rule]) == [rule]


@pytest.mark.parametrize(
    ("rule", "history"),
    [
        ("no answer", replace(GOOD, windows=[Window("clock", 7, 9, frozenset({Excuse.CLOCK}))])),
        ("no answer", History([tried(7, SILENT, 0, 1)])),
        ("no answer", History([tried(7, UNAVAILABLE, 0, 1)])),
        ("not logged", History([enrolled(SUCCESS)], states={"bob": "active"})),
        ("logged too often", History([], rows("alice"))),
        ("half confirmed", History([enrolled(REFUSED)], CONFIRMED, states={"bob": "pending"})),
        ("chain", History([], rows("alice", verdict="auth_err"), before=1)),
        ("refused", History([tried(7, REFUSED, 0, 1), tried(7, SUCCESS, 2, 3)], rows("alice"))),
        # Step 8 was spent, but not before step 7 was, and that was begun only later.
        ("refused", History([tried(8, SUCCESS, 0, 9), tried(8, REFUSED, 0, 3), tried(7, SUCCESS, 5, 6)])),
        ("refused", History([tried(8, CUT, 0, 9), tried(8, REFUSED, 0, 3), tried(8, SUCCESS, 5, 6)])),
        ("refused", History([tried(8, SILENT, 4, 9), tried(8, REFUSED, 0, 3)])),
    ],
)
def test_what_looks_nearly_right_is_found(rule, history):
    """An excuse for something else, a row that nobody asked for, a refusal that comes too early."""
    assert rule in rules(history)


def test_an_excuse_counts_while_the_fault_lasts():
    """A code refused as the clock is stepped needs no other reason; nor does one that is not due."""
    early = tried(7, REFUSED, 0, 5)
    assert rules(History([early])) == ["refused"]
    assert rules(History([early], windows=[Window("clock", 5, 9, frozenset({Excuse.CLOCK}))])) == []
    assert rules(History([early], windows=[Window("clock", 6, 9, frozenset({Excuse.CLOCK}))])) == ["refused"]
    assert rules(History([replace(early, due=False)])) == []


def test_when_a_token_is_to_be_confirmed_is_settled_when_it_is_started():
    """So a clock that was off then explains that it was too late."""
    started = replace(enrolled(SUCCESS), act=Act.START, step=None)
    clock = [Window("clock", 0, 1, frozenset({Excuse.CLOCK}))]
    assert rules(History([started, enrolled(REFUSED, 2, 3)], windows=clock)) == []
    assert rules(History([enrolled(REFUSED, 2, 3)], windows=clock)) == ["refused"]


def test_codes_of_a_list_are_good_in_any_order():
    """The third after the fourth, but neither of them twice."""
    fourth, third = (tried(step, SUCCESS, at, at + 1, ordered=False) for step, at in ((4, 0), (3, 2)))
    assert rules(History([fourth, third], rows("alice", "alice"))) == []
    assert rules(History([fourth, third, third], rows("alice", "alice", "alice"))) == ["accepted twice"]


# --- beside a judge that tries all orders ---


def explainable(attempts):
    """Whether some order of the attempts, as they were seen to follow one another, explains every answer."""
    certain = [each for each in attempts if each.outcome not in UNKNOWN]
    unknown = [each for each in attempts if each.outcome in UNKNOWN]
    return any(
        _explains(order)
        for count in range(len(unknown) + 1)
        for effective in itertools.combinations(unknown, count)
        for order in itertools.permutations(certain + list(effective))
    )


def _explains(order):
    for place, one in enumerate(order):
        if any(later.outcome not in UNKNOWN and later.ended < one.invoked for later in order[place + 1 :]):
            return False
    floor = -1
    for each in order:
        opens = each.step > floor
        if opens is not (each.outcome != REFUSED):
            return False
        floor = max(floor, each.step)
    return True


@st.composite
def attempts(draw):
    found = []
    for _ in range(draw(st.integers(1, 5))):
        invoked, length = draw(st.integers(0, 12)), draw(st.integers(1, 6))
        outcome = draw(st.sampled_from([SUCCESS, SUCCESS, REFUSED, REFUSED, CUT]))
        # No two moments are the same, as on a clock that counts nanoseconds.
        number = len(found)
        ended = (invoked + length) * 100 + 50 + number
        found.append(tried(draw(st.integers(0, 4)), outcome, invoked * 100 + number, ended))
    return found


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(attempts())
def test_the_judge_agrees_with_one_that_tries_all_orders(history):
    """Quick as it is, it finds what trying every order finds, and nothing else."""
    always = [Window("any", 0, 10_000, frozenset({Excuse.CUT}))]
    found = {finding.rule for finding in check(History(history, windows=always))}
    assert explainable(history) is not bool(found & {"accepted twice", "went backwards", "refused"})
