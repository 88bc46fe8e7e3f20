"""TOTP, the one-time password of a time step (RFC 6238)."""

from __future__ import annotations

import math

from otpbridge.model import OtpParameters
from otpbridge.otp.hotp import hotp


def time_step(at: float, parameters: OtpParameters) -> int:
    """Number of whole periods from T0 to the Unix time `at` in seconds (RFC 6238 §4.2).

    Raises ValueError for a time before T0, for one that is not a finite number, and for a period below 1 s.
    """
    if parameters.period < 1:
        raise ValueError(f"a period must be at least 1 s, not {parameters.period}")
    if not math.isfinite(at):
        raise ValueError(f"a time must be a finite number, not {at}")
    step = (math.floor(at) - parameters.t0) // parameters.period
    if step < 0:
        raise ValueError(f"the time {at} is before T0 = {parameters.t0}")
    return step


def totp(seed: bytes, at: float, parameters: OtpParameters) -> str:
    """Compute the code at the Unix time `at` in seconds (RFC 6238 §4). Raises ValueError as its parts do."""
    return hotp(seed, time_step(at, parameters), parameters)
