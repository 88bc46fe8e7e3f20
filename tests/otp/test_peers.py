"""The same codes as pyotp and Debian's oathtool give."""

from __future__ import annotations

import base64
import hashlib
import shutil
import subprocess

import pyotp
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from otpbridge.model import Algorithm, OtpParameters
from otpbridge.otp.hotp import hotp
from otpbridge.otp.totp import totp

HASHES = {
    Algorithm.SHA1: hashlib.sha1,
    Algorithm.SHA256: hashlib.sha256,
    Algorithm.SHA512: hashlib.sha512,
}
BATCH = 50

seeds = st.binary(min_size=14, max_size=200)
parameters = st.builds(
    OtpParameters,
    algorithm=st.sampled_from(Algorithm),
    digits=st.integers(6, 8),
    period=st.integers(15, 120) | st.integers(15, 900),
)


@given(seeds, st.integers(0, 2**63), parameters)
def test_hotp_equals_pyotp(seed, counter, parameters):
    """Whatever the seed, counter, hash and digits: our HOTP is pyotp's."""
    peer = pyotp.HOTP(base64.b32encode(seed).decode(), digits=parameters.digits, digest=HASHES[parameters.algorithm])
    assert hotp(seed, counter, parameters) == peer.at(counter)


@given(seeds, st.integers(0, 2**37), parameters.filter(lambda given: given.period <= 120))
def test_totp_equals_pyotp(seed, at, parameters):
    """Whatever the seed, time, hash, digits and period (pyotp's go up to 120 s): our TOTP is pyotp's."""
    peer = pyotp.TOTP(
        base64.b32encode(seed).decode(),
        digits=parameters.digits,
        digest=HASHES[parameters.algorithm],
        interval=parameters.period,
    )
    assert totp(seed, at, parameters) == peer.at(at)


def oathtool(*arguments):
    """Run oathtool and return its codes."""
    program = shutil.which("oathtool")
    assert program, "oathtool is missing: apt-get install oathtool"
    run = subprocess.run([program, *arguments], check=True, capture_output=True, text=True)
    return run.stdout.split()


@settings(max_examples=25, deadline=None)
@given(st.binary(min_size=16, max_size=64), st.integers(0, 2**40), parameters, st.integers(0, 10**9))
def test_totp_equals_oathtool(seed, since, parameters, t0):
    """Fifty codes in a row of any time token are those of oathtool, with any T0."""
    wanted = OtpParameters(parameters.algorithm, parameters.digits, parameters.period, t0)
    at = t0 + since
    codes = oathtool(
        f"--totp={parameters.algorithm.value.lower()}",
        f"--digits={parameters.digits}",
        f"--time-step-size={parameters.period}s",
        f"--start-time=@{t0}",
        f"--now=@{at}",
        f"--window={BATCH - 1}",
        seed.hex(),
    )
    assert codes == [totp(seed, at + n * wanted.period, wanted) for n in range(BATCH)]


@settings(max_examples=25, deadline=None)
@given(st.binary(min_size=16, max_size=64), st.integers(0, 2**62), st.integers(6, 8))
def test_hotp_equals_oathtool(seed, counter, digits):
    """Fifty codes in a row of any counter token are those of oathtool."""
    codes = oathtool(f"--digits={digits}", f"--counter={counter}", f"--window={BATCH - 1}", seed.hex())
    assert codes == [hotp(seed, counter + n, OtpParameters(digits=digits)) for n in range(BATCH)]


@pytest.mark.parametrize("digits", [6, 7, 8])
def test_leading_zeros_are_kept(digits):
    """A code that starts with zeros has all of its digits."""
    codes = [hotp(b"12345678901234567890", n, OtpParameters(digits=digits)) for n in range(200)]
    assert any(code.startswith("0") for code in codes)
    assert {len(code) for code in codes} == {digits}
