"""Enrolment at login."""

from __future__ import annotations

import pytest
from fake_attempt import FakeAttempt, FakeEnrolment, judge

from otpbridge.model import Notice, NoticeStyle, Verdict
from otpbridge.verify.builtin.enrol import Enrol, EnrolOptions, FirstFactor

PROMPT = "Code that your authenticator shows: "
ENROL = Enrol(Enrol.Options())
MISMATCH = Notice("That code does not match.", NoticeStyle.ERROR)


def attempt(*answers, **changes):
    return FakeAttempt(answers=answers, enrolment=FakeEnrolment(["123456"]), **changes)


def test_the_person_sees_the_key_types_its_code_and_is_in():
    """Key first, then the question; the right code lets in and says that the authenticator is set up."""
    trying = attempt("123456")
    assert judge(ENROL, trying) is Verdict.SUCCESS
    assert trying.told == [Notice(trying.enrolment.instructions)]
    assert trying.asked == [PROMPT]
    assert "set up" in trying.told_on_success[0].text
    assert trying.enrolment.confirmed


def test_a_code_given_before_the_key_was_shown_is_not_taken():
    """What was typed at an earlier prompt cannot be the new authenticator's code: it is asked for again."""
    trying = attempt("123456", given={"code": "999999"})
    assert judge(ENROL, trying) is Verdict.SUCCESS
    assert trying.asked == [PROMPT]


def test_a_wrong_code_may_be_corrected():
    """Twice wrong, then right: in, and told each time that it did not match."""
    trying = attempt("000000", "", "123456")
    assert judge(ENROL, trying) is Verdict.SUCCESS
    assert trying.told[1:] == [MISMATCH, MISMATCH]


def test_after_three_wrong_codes_it_is_over():
    """A fourth code is not asked for."""
    trying = attempt("1", "2", "3", "123456")
    assert judge(ENROL, trying) is Verdict.AUTH_ERR
    assert len(trying.asked) == 3
    assert trying.told_on_success == []
    assert not trying.enrolment.confirmed


def test_who_need_not_enrol_is_passed_on():
    """Who has an authenticator, need not have one, or has shown no first factor: nothing is asked or told."""
    trying = FakeAttempt()
    assert judge(ENROL, trying) is Verdict.IGNORE
    assert (trying.asked, trying.notices) == ([], [])


@pytest.mark.parametrize(
    ("options", "trusted"), [(EnrolOptions(), False), (EnrolOptions(first_factor=FirstFactor.CALLER), True)]
)
def test_the_caller_is_trusted_only_where_the_stack_says_so(options, trusted):
    """By default a verifier of the stack has to have passed."""
    trying = attempt("123456")
    judge(Enrol(options), trying)
    assert trying.trusted_caller is trusted
