"""Find the step that a code belongs to."""

from __future__ import annotations

from collections.abc import Sequence

from otpbridge.model import OtpParameters
from otpbridge.otp.code import parse_code
from otpbridge.otp.hotp import values


def around(centre: int, reach: int) -> tuple[int, ...]:
    """Steps at most `reach` away from `centre`, the nearest first, an earlier one before a later one.

    Negative steps are left out. For TOTP: `centre` is the time step with the learnt drift added.
    """
    steps = [centre]
    for distance in range(1, reach + 1):
        steps += (centre - distance, centre + distance)
    return tuple(step for step in steps if step >= 0)


def ahead(start: int, look_ahead: int) -> range:
    """`start` and the `look_ahead` steps after it, for HOTP (RFC 4226 §7.4, parameter s)."""
    return range(start, start + look_ahead + 1)


def match(seed: bytes, code: str, parameters: OtpParameters, steps: Sequence[int]) -> int | None:
    """Return the step among `steps` whose code was typed, or None.

    Where two steps have the same code the one that comes first in `steps` wins. All steps are computed and
    compared, so the time taken does not tell which matched. Raises ValueError as `values` does.
    """
    typed = parse_code(code, parameters.digits)
    if typed is None:
        return None
    found = None
    for step, value in zip(reversed(steps), values(seed, reversed(steps), parameters), strict=True):
        if value == typed:
            found = step
    return found
