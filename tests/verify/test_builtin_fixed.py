"""`permit` and `deny`."""

from __future__ import annotations

import pytest
from fake_attempt import FakeAttempt, judge

from otpbridge.model import Factor, Verdict
from otpbridge.verify.builtin.fixed import Deny, Permit


@pytest.mark.parametrize(("verifier", "verdict"), [(Permit, Verdict.SUCCESS), (Deny, Verdict.AUTH_ERR)])
def test_they_say_one_thing_and_ask_nothing(verifier, verdict):
    """Whoever it is: the same verdict, no question, and it counts as no factor."""
    trying = FakeAttempt()
    assert judge(verifier(), trying) is verdict
    assert (trying.asked, trying.notices, trying.revealed) == ([], [], [])
    assert verifier.factor is Factor.NEITHER
