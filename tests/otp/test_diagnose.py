"""The reason why a new token's code does not match."""

from __future__ import annotations

import base64
from dataclasses import replace

import pytest

from otpbridge.model import Algorithm, OtpParameters
from otpbridge.otp.diagnose import FaultKind, counter_fault, fault
from otpbridge.otp.hotp import hotp
from otpbridge.otp.totp import totp

SEED = (b"1234567890" * 7)[:64]
AT = 1_700_000_000


@pytest.mark.parametrize(
    ("wanted", "seen", "what", "words"),
    [
        ({"algorithm": Algorithm.SHA256}, {}, FaultKind.ALGORITHM, ["ignores SHA256", "uses SHA1"]),
        ({"algorithm": Algorithm.SHA512}, {}, FaultKind.ALGORITHM, ["ignores SHA512", "uses SHA1"]),
        ({"digits": 8}, {}, FaultKind.DIGITS, ["ignores 8 digits", "uses 6 digits"]),
        ({}, {"digits": 8}, FaultKind.DIGITS, ["uses 8 digits"]),
        ({"period": 60}, {}, FaultKind.PERIOD, ["ignores a period of 60 s", "period of 30 s"]),
        (
            {"algorithm": Algorithm.SHA256, "digits": 8, "period": 60},
            {},
            FaultKind.ALGORITHM,
            ["SHA256 and 8 digits and a period of 60 s", "SHA1 and 6 digits and a period of 30 s"],
        ),
    ],
)
def test_a_setting_that_the_app_ignores_is_named(wanted, seen, what, words):
    """A code that matches under other settings tells which setting the app ignored, and what to do."""
    theirs = OtpParameters(**seen)
    found = fault(SEED, totp(SEED, AT, theirs), OtpParameters(**wanted), AT)
    assert found is not None
    assert (found.what, found.seen, found.seconds) == (what, theirs, 0)
    assert all(word in found.hint for word in words)


@pytest.mark.parametrize(
    ("seconds", "size"),
    [
        (-600, "10 minutes behind"),
        (600, "10 minutes ahead"),
        (-60, "60 seconds behind"),
        (3600, "60 minutes ahead"),
        (-2 * 3600 - 30, "2 hours behind"),
        (13 * 3600, "13 hours ahead"),
    ],
)
def test_a_clock_that_is_off_is_named_with_its_distance(seconds, size):
    """A code of another time tells how far the device's clock is off."""
    found = fault(SEED, totp(SEED, AT + seconds, OtpParameters()), OtpParameters(), AT)
    assert found is not None
    assert (found.what, found.seconds) == (FaultKind.CLOCK, seconds)
    assert size in found.hint


@pytest.mark.parametrize("seconds", [-630, 630, 15 * 3600])
def test_a_code_further_away_is_merely_wrong(seconds):
    """The search is bounded, so that chance alone does not explain a wrong code."""
    assert fault(SEED, totp(SEED, AT + seconds, OtpParameters()), OtpParameters(), AT) is None


@pytest.mark.parametrize("code", ["", "12345", "123456789", "abcdef", "1" * 65536])
def test_what_is_no_code_has_no_explanation(code):
    """Odd input is merely wrong."""
    assert fault(SEED, code, OtpParameters(), AT) is None
    assert counter_fault(SEED, code, OtpParameters(), 0, 10) is None


def test_a_counter_token_names_the_ignored_setting():
    """A counter token whose app ignores hash or digits is told so, as far as the look-ahead goes."""
    wanted = OtpParameters(algorithm=Algorithm.SHA256, digits=8)
    code = hotp(SEED, 7, replace(wanted, algorithm=Algorithm.SHA1))
    found = counter_fault(SEED, code, wanted, 0, 10)
    assert found is not None
    assert (found.what, found.seen.algorithm, found.seen.digits) == (FaultKind.ALGORITHM, Algorithm.SHA1, 8)
    assert "ignores SHA256" in found.hint
    assert counter_fault(SEED, code, wanted, 8, 10) is None


def test_no_seed_shows_in_a_fault():
    """Neither the hint nor the repr holds the seed or the code."""
    code = totp(SEED, AT, OtpParameters())
    shown = repr(fault(SEED, code, OtpParameters(digits=8), AT))
    assert code not in shown
    assert base64.b32encode(SEED).decode() not in shown
    assert repr(SEED)[2:-1] not in shown
