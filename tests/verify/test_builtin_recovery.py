"""The verifier of recovery and registration codes."""

from __future__ import annotations

import os

import pytest
from fake_attempt import FakeAttempt, judge, token

from otpbridge.model import Kind, Verdict
from otpbridge.otp.recovery import recovery_codes, registration_code
from otpbridge.verify.builtin.recovery import Recovery

SECRETS, RECORD = recovery_codes(os.urandom)
CODES = [secret.reveal().decode() for secret in SECRETS]
REGISTRATION, REGISTERED = registration_code(os.urandom)
WARNING = "Warning: this recovery code is used up. {} left. Make new ones now: otpbridge enroll recovery"


def attempt(typed, spent=0, **changes):
    return FakeAttempt([(token(Kind.RECOVERY, moving_factor=spent), RECORD.pack())], [typed], **changes)


def registering(typed, spent=0, **changes):
    return FakeAttempt([(token(Kind.REGISTRATION, moving_factor=spent), REGISTERED.pack())], [typed], **changes)


@pytest.mark.parametrize("place", range(10))
def test_each_recovery_code_lets_in_and_its_own_place_is_struck(place):
    """Every code of the list passes, in any order; only its own place is spent."""
    trying = attempt(CODES[place].lower())
    assert judge(Recovery(), trying) is Verdict.SUCCESS
    assert trying.spends == {"t1": place}
    assert trying.asked == ["Verification code: "]


def test_a_spent_code_is_refused_and_the_others_are_not():
    """A code that was used does not pass again."""
    assert judge(Recovery(), attempt(CODES[4], spent=1 << 4)) is Verdict.AUTH_ERR
    assert judge(Recovery(), attempt(CODES[5], spent=1 << 4)) is Verdict.SUCCESS


@pytest.mark.parametrize("typed", ["", "123456", "0000-0000-0000-0000", "x" * 65536])
def test_another_code_is_refused(typed):
    """What is not on the list is refused; nothing is spent, nothing is told."""
    trying = attempt(typed)
    assert judge(Recovery(), trying) is Verdict.AUTH_ERR
    assert (trying.spends, trying.notices) == ({}, [])


@pytest.mark.parametrize(
    ("spent", "notice"),
    [
        (0, "This recovery code is used up. 9 recovery codes are left."),
        (0b11_1110_0000, "This recovery code is used up. 4 recovery codes are left."),
        (
            0b11_1111_0000,
            WARNING.format("Only 3 recovery codes are"),
        ),
        (
            0b11_1111_1100,
            WARNING.format("Only one recovery code is"),
        ),
        (
            0b11_1111_1110,
            WARNING.format("No recovery code is"),
        ),
    ],
)
def test_people_hear_how_many_are_left_once_they_are_in(spent, notice):
    """The number that is left is told after success alone; from three on it is a warning that says what to do."""
    trying = attempt(CODES[0], spent)
    assert judge(Recovery(), trying) is Verdict.SUCCESS
    assert trying.told == []
    assert [told.text for told in trying.told_on_success] == [notice]


def test_users_of_a_portal_are_not_sent_to_a_command_line():
    """Who has no Linux account here hears what to do, without the command."""
    for trying in (attempt(CODES[0], 0b11_1111_1110, client="shop"), registering(text(), client="shop")):
        judge(Recovery(), trying)
        assert "otpbridge" not in trying.notices[0]
        assert trying.notices[0].endswith("now.")


def text():
    return REGISTRATION.reveal().decode()


def test_a_registration_code_lets_in_once_and_says_what_to_do_next():
    """It is used up by its first use, and the person is told to set up an authenticator."""
    trying = registering(text())
    assert judge(Recovery(), trying) is Verdict.SUCCESS
    assert trying.spends == {"t1": 0}
    assert trying.notices == [
        "The registration code is used up. Set up an authenticator now: otpbridge enroll totp",
    ]
    again = registering(text(), spent=1)
    assert judge(Recovery(), again) is Verdict.AUTH_ERR
    assert again.notices == []


def test_both_kinds_are_tried_with_one_answer():
    """Whoever has a list and a registration code uses either at the same prompt."""
    held = [
        (token(Kind.RECOVERY, id="list"), RECORD.pack()),
        (token(Kind.REGISTRATION, id="one"), REGISTERED.pack()),
    ]
    for typed, spent in ((text(), {"one": 0}), (CODES[9], {"list": 9})):
        trying = FakeAttempt(held, [typed])
        assert judge(Recovery(), trying) is Verdict.SUCCESS
        assert trying.spends == spent


def test_who_has_no_codes_is_refused_after_the_same_question_and_work():
    """Without any the decoys are judged."""
    trying = FakeAttempt(answers=[CODES[0]])
    assert judge(Recovery(), trying) is Verdict.AUTH_ERR
    assert [held.kind for held in trying.revealed] == [Kind.RECOVERY, Kind.REGISTRATION]
    assert trying.asked == ["Verification code: "]
