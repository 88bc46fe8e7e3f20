"""Follow an authenticator whose clock or counter runs away (RFC 6238 §6, RFC 4226 §7.4)."""

from __future__ import annotations

from otpbridge.model import OtpParameters
from otpbridge.otp.code import parse_code
from otpbridge.otp.hotp import values


def learn(drift: int, offset: int, bound: int) -> int:
    """Return the drift to keep after a success, in time steps.

    `drift` is the present one, `offset` the matched step minus the step that was expected (with `drift` in it).
    One success moves the drift by one step at most, towards where the code was found, and never beyond
    `bound` steps from true time: neither a late typist nor a single odd code carries the window away.
    """
    move = (offset > 0) - (offset < 0)
    return max(-bound, min(bound, drift + move))


def resynchronise(
    seed: bytes, first: str, second: str, parameters: OtpParameters, *, start: int, look_ahead: int
) -> int | None:
    """Search for two consecutive codes (RFC 4226 §7.4); return the step of `second`, or None.

    The step of `first` is sought from `start` to `start + look_ahead`, both included; negative steps are left
    out. The steps are counters for HOTP and time steps for TOTP. Raises ValueError as `values` does.
    """
    one = parse_code(first, parameters.digits)
    two = parse_code(second, parameters.digits)
    if one is None or two is None:
        return None
    lowest = max(start, 0)
    codes = values(seed, range(lowest, start + look_ahead + 2), parameters)
    found = None
    for index in range(len(codes) - 1):
        if codes[index] == one and codes[index + 1] == two and found is None:
            found = lowest + index + 1
    return found
