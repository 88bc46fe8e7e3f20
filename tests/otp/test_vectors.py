"""The values that RFC 4226 and RFC 6238 print."""

from __future__ import annotations

import pytest

from otpbridge.model import Algorithm, OtpParameters
from otpbridge.otp.hotp import hotp
from otpbridge.otp.totp import time_step, totp

SEEDS = {
    Algorithm.SHA1: b"1234567890" * 2,
    Algorithm.SHA256: (b"1234567890" * 4)[:32],
    Algorithm.SHA512: (b"1234567890" * 7)[:64],
}

HOTP_SIX_DIGITS = (
    "755224", "287082", "359152", "969429", "338314", "254676", "287922", "162583", "399871", "520489",
)  # fmt: skip

TOTP_EIGHT_DIGITS = [
    (59, 0x1, "94287082", "46119246", "90693936"),
    (1111111109, 0x23523EC, "07081804", "68084774", "25091201"),
    (1111111111, 0x23523ED, "14050471", "67062674", "99943326"),
    (1234567890, 0x273EF07, "89005924", "91819424", "93441116"),
    (2000000000, 0x3F940AA, "69279037", "90698825", "38618901"),
    (20000000000, 0x27BC86AA, "65353130", "77737706", "47863826"),
]


def test_the_seeds_of_the_appendix_have_the_length_of_a_new_seed():
    """The RFC's seeds are as long as those that we make: the output of the hash."""
    assert all(len(seed) == algorithm.seed_bytes for algorithm, seed in SEEDS.items())


@pytest.mark.parametrize(("counter", "code"), list(enumerate(HOTP_SIX_DIGITS)))
def test_hotp_gives_the_values_of_rfc_4226_appendix_d(counter, code):
    """A counter token shows the code that RFC 4226 Appendix D prints for its counter."""
    assert hotp(SEEDS[Algorithm.SHA1], counter, OtpParameters()) == code


@pytest.mark.parametrize("column", range(3), ids=[algorithm.value for algorithm in Algorithm])
@pytest.mark.parametrize("row", TOTP_EIGHT_DIGITS, ids=lambda row: str(row[0]))
def test_totp_gives_the_values_of_rfc_6238_appendix_b(row, column):
    """A time token shows the code that RFC 6238 Appendix B prints for its hash and time."""
    at, step, *codes = row
    algorithm = list(Algorithm)[column]
    parameters = OtpParameters(algorithm=algorithm, digits=8)
    assert time_step(at, parameters) == step
    assert totp(SEEDS[algorithm], at, parameters) == codes[column]


@pytest.mark.parametrize(
    ("at", "t0", "period", "step"),
    [
        (0, 0, 30, 0),
        (29.999, 0, 30, 0),
        (30, 0, 30, 1),
        (1_000_000_000, 1_000_000_000, 30, 0),
        (1_000_000_899, 1_000_000_000, 900, 0),
        (1_000_000_900.5, 1_000_000_000, 900, 1),
        (0, -60, 15, 4),
        (59, 0, 60, 0),
    ],
)
def test_a_time_step_counts_whole_periods_from_t0(at, t0, period, step):
    """A step starts at T0 and lasts one period, whatever both are (RFC 6238 §4.2)."""
    assert time_step(at, OtpParameters(period=period, t0=t0)) == step


@pytest.mark.parametrize("at", [99, -1, float("nan"), float("inf"), float("-inf")])
def test_a_time_before_t0_or_no_time_at_all_is_refused(at):
    """A clock before T0, or one that is broken, gives an error and no code."""
    with pytest.raises(ValueError, match="time"):
        totp(SEEDS[Algorithm.SHA1], at, OtpParameters(t0=100))


@pytest.mark.parametrize(
    ("seed", "moving_factor", "parameters"),
    [
        (b"", 0, OtpParameters()),
        (b"x" * 20, -1, OtpParameters()),
        (b"x" * 20, 2**64, OtpParameters()),
        (b"x" * 20, 0, OtpParameters(digits=5)),
        (b"x" * 20, 0, OtpParameters(digits=9)),
    ],
)
def test_a_code_is_never_made_from_nonsense(seed, moving_factor, parameters):
    """An empty seed, an impossible counter and odd numbers of digits are errors."""
    with pytest.raises(ValueError, match="must"):
        hotp(seed, moving_factor, parameters)


def test_a_period_of_zero_is_refused():
    """A period of no length is an error, not a division by zero."""
    with pytest.raises(ValueError, match="period"):
        time_step(0, OtpParameters(period=0))


def test_the_last_counter_still_has_a_code():
    """The counter may use all of its 8 bytes (RFC 4226 §5.1)."""
    assert len(hotp(b"x" * 20, 2**64 - 1, OtpParameters(digits=8))) == 8
