"""The search for the step of a code."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otpbridge.model import OtpParameters
from otpbridge.otp import window
from otpbridge.otp.drift import learn, resynchronise
from otpbridge.otp.hotp import hotp
from otpbridge.otp.window import ahead, around, match

SEED = b"12345678901234567890"
SIX = OtpParameters()


def test_around_names_the_nearest_step_first():
    """The step of the moment comes first, then its neighbours outwards."""
    assert around(100, 2) == (100, 99, 101, 98, 102)


def test_around_leaves_out_steps_before_the_first():
    """There is no step before T0."""
    assert around(0, 2) == (0, 1, 2)
    assert around(-2, 1) == ()


def test_ahead_has_the_next_counter_and_the_look_ahead():
    """A counter token may be pressed `look_ahead` times in vain."""
    assert list(ahead(5, 3)) == [5, 6, 7, 8]


@pytest.mark.parametrize("offset", [-1, 0, 1])
def test_a_code_of_a_neighbour_step_is_found(offset):
    """A code one step early or late is accepted, and its own step is returned."""
    assert match(SEED, hotp(SEED, 1000 + offset, SIX), SIX, around(1000, 1)) == 1000 + offset


@pytest.mark.parametrize("offset", [-2, 2])
def test_a_code_outside_of_the_window_is_not_found(offset):
    """A code two steps away is not accepted where one is tolerated."""
    assert match(SEED, hotp(SEED, 1000 + offset, SIX), SIX, around(1000, 1)) is None


def test_a_wrong_code_is_not_found():
    """A code that no step of the window has matches none."""
    code = hotp(SEED, 1000, SIX)
    wrong = f"{(int(code) + 1) % 10**6:06d}"
    assert wrong not in {hotp(SEED, step, SIX) for step in (999, 1001)}
    assert match(SEED, wrong, SIX, around(1000, 1)) is None


def test_odd_input_costs_no_computation(monkeypatch):
    """What cannot be a code is refused before anything is computed."""

    def never(*_):
        raise AssertionError("computed")

    monkeypatch.setattr(window, "values", never)
    assert match(SEED, "1" * 65536, SIX, around(1000, 1)) is None


def test_all_steps_are_computed_whichever_matches(monkeypatch):
    """The work does not tell which step a code belongs to."""
    asked = []

    def counting(seed, steps, parameters):
        steps = list(steps)
        asked.append(sorted(steps))
        return [int(hotp(seed, step, parameters)) for step in steps]

    monkeypatch.setattr(window, "values", counting)
    for step in (999, 1000, 1001, 5):
        match(SEED, hotp(SEED, step, SIX), SIX, around(1000, 1))
    assert asked == [[999, 1000, 1001]] * 4


def test_of_two_steps_with_one_code_the_nearest_wins(monkeypatch):
    """When two steps share a code, the one nearer to the moment is taken."""
    monkeypatch.setattr(window, "values", lambda _seed, steps, _parameters: [7 for _ in steps])
    assert match(SEED, "000007", SIX, around(1000, 2)) == 1000
    assert match(SEED, "000007", SIX, ahead(1000, 9)) == 1000


@given(st.integers(0, 2**40), st.integers(0, 5), st.integers(-8, 8), st.integers(6, 8))
def test_the_window_finds_exactly_the_steps_in_it(centre, reach, offset, digits):
    """Whatever the moment and the tolerance: the code found is that of the step returned."""
    parameters = OtpParameters(digits=digits)
    step = max(0, centre + offset)
    code = hotp(SEED, step, parameters)
    found = match(SEED, code, parameters, around(centre, reach))
    if abs(step - centre) <= reach:
        assert found is not None
        assert hotp(SEED, found, parameters) == code
    elif found is not None:
        assert hotp(SEED, found, parameters) == code
        assert abs(found - centre) <= reach


@pytest.mark.parametrize(
    ("drift", "offset", "bound", "learnt"),
    [
        (0, 0, 10, 0),
        (0, 1, 10, 1),
        (0, -1, 10, -1),
        (3, 0, 10, 3),
        (3, -1, 10, 2),
        (0, 5, 10, 1),
        (0, -5, 10, -1),
        (10, 1, 10, 10),
        (-10, -1, 10, -10),
        (12, 0, 10, 10),
        (0, 1, 0, 0),
    ],
)
def test_drift_follows_by_one_step_within_its_bound(drift, offset, bound, learnt):
    """A slow clock is followed one step a success, and never further than allowed."""
    assert learn(drift, offset, bound) == learnt


def test_an_authenticator_that_loses_a_step_a_day_is_followed():
    """A clock that runs away slowly is accepted every day until the bound, and then no more."""
    drift, days = 0, 0
    for lag in range(1, 30):
        centre = 1000 * lag + drift
        found = match(SEED, hotp(SEED, 1000 * lag - lag, SIX), SIX, around(centre, 1))
        if found is None:
            break
        days = lag
        drift = learn(drift, found - centre, 10)
    assert days == 11
    assert drift == -10


def consecutive(step, parameters=SIX):
    return hotp(SEED, step, parameters), hotp(SEED, step + 1, parameters)


@pytest.mark.parametrize("offset", [0, 1, 500, 1000])
def test_two_consecutive_codes_find_the_counter(offset):
    """A token pressed hundreds of times in vain is back in step with two codes; the second one's step is told."""
    first, second = consecutive(40 + offset)
    assert resynchronise(SEED, first, second, SIX, start=40, look_ahead=1000) == 40 + offset + 1


@pytest.mark.parametrize("step", [39, 1041])
def test_codes_outside_of_the_look_ahead_do_not_resynchronise(step):
    """Codes already spent, or too far ahead, are refused."""
    first, second = consecutive(step)
    assert resynchronise(SEED, first, second, SIX, start=40, look_ahead=1000) is None


def test_one_code_is_not_enough_to_resynchronise():
    """The same code twice, codes with a gap and codes in the wrong order are refused."""
    first, second = consecutive(50)
    third = hotp(SEED, 52, SIX)
    for pair in ((first, first), (first, third), (second, first), ("", second), (first, "")):
        assert resynchronise(SEED, *pair, SIX, start=40, look_ahead=100) is None


def test_a_time_token_resynchronises_near_t0():
    """Steps before T0 are left out and no error."""
    first, second = consecutive(0)
    assert resynchronise(SEED, first, second, SIX, start=-20, look_ahead=40) == 1
