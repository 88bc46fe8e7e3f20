"""Say why the code of a new token does not match: an app that ignores a setting, or a clock that is off.

Only for tokens that are not yet in force: for a pending token a hint helps its owner, for an active one it
would help whoever guesses.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from otpbridge.model import Algorithm, OtpParameters
from otpbridge.otp.totp import time_step
from otpbridge.otp.window import ahead, around, match

_DIGITS = (6, 7, 8)
_PERIODS = (30, 60, 15, 120)
_REACH = 1
_CLOCK_STEPS = 20
_CLOCK_HOURS = 14
_HOUR = 3600


class FaultKind(enum.StrEnum):
    """What the authenticator has different from the token."""

    ALGORITHM = "algorithm"
    DIGITS = "digits"
    PERIOD = "period"
    CLOCK = "clock"


@dataclass(frozen=True, slots=True)
class Fault:
    """Under which settings the code does match.

    `seen` are the authenticator's parameters. `seconds` is how far its clock is from true time, negative when
    it is behind; 0 unless `what` is CLOCK. `hint` says what is wrong and what to do, in a sentence or two.
    """

    what: FaultKind
    seen: OtpParameters
    seconds: int
    hint: str


def fault(seed: bytes, code: str, parameters: OtpParameters, at: float) -> Fault | None:
    """Explain a TOTP code that did not match at the Unix time `at` in seconds; None if nothing explains it.

    Tried are the other algorithms, 6 to 8 digits and usual periods near `at`, then the right settings up to
    20 steps away and near each whole hour up to 14 hours away (a clock set to the wrong time zone).
    Raises ValueError as `time_step` and `values` do.
    """
    for seen in _others(parameters, _periods(parameters)):
        if match(seed, code, seen, around(time_step(at, seen), _REACH)) is not None:
            return _ignored(parameters, seen)
    now = time_step(at, parameters)
    step = match(seed, code, parameters, _clock_steps(now, parameters.period))
    if step is None:
        return None
    seconds = (step - now) * parameters.period
    return Fault(FaultKind.CLOCK, parameters, seconds, _clock_hint(seconds))


def counter_fault(
    seed: bytes, code: str, parameters: OtpParameters, moving_factor: int, look_ahead: int
) -> Fault | None:
    """Explain an HOTP code that did not match from `moving_factor` on; None if nothing explains it.

    Tried are the other algorithms and 6 to 8 digits. Raises ValueError as `values` does.
    """
    for seen in _others(parameters, (parameters.period,)):
        if match(seed, code, seen, ahead(moving_factor, look_ahead)) is not None:
            return _ignored(parameters, seen)
    return None


def _periods(parameters: OtpParameters) -> tuple[int, ...]:
    return (parameters.period, *(period for period in _PERIODS if period != parameters.period))


def _others(parameters: OtpParameters, periods: Sequence[int]) -> Iterator[OtpParameters]:
    """Yield all other parameters, those with the fewest differences first."""
    every = (
        replace(parameters, algorithm=algorithm, digits=digits, period=period)
        for algorithm in Algorithm
        for digits in _DIGITS
        for period in periods
    )
    differing = ((len(_differences(parameters, seen)), seen) for seen in every)
    yield from (seen for count, seen in sorted(differing, key=lambda pair: pair[0]) if count)


def _differences(wanted: OtpParameters, seen: OtpParameters) -> list[FaultKind]:
    pairs: Iterable[tuple[FaultKind, object, object]] = (
        (FaultKind.ALGORITHM, wanted.algorithm, seen.algorithm),
        (FaultKind.DIGITS, wanted.digits, seen.digits),
        (FaultKind.PERIOD, wanted.period, seen.period),
    )
    return [kind for kind, ours, theirs in pairs if ours != theirs]


_SPELLING: dict[FaultKind, Callable[[OtpParameters], str]] = {
    FaultKind.ALGORITHM: lambda parameters: parameters.algorithm.value,
    FaultKind.DIGITS: lambda parameters: f"{parameters.digits} digits",
    FaultKind.PERIOD: lambda parameters: f"a period of {parameters.period} s",
}


def _ignored(wanted: OtpParameters, seen: OtpParameters) -> Fault:
    kinds = _differences(wanted, seen)
    ours = " and ".join(_SPELLING[kind](wanted) for kind in kinds)
    theirs = " and ".join(_SPELLING[kind](seen) for kind in kinds)
    hint = f"Your app ignores {ours} and uses {theirs}. Start again with {theirs}, or use another app."
    return Fault(kinds[0], seen, 0, hint)


def _clock_steps(now: int, period: int) -> tuple[int, ...]:
    near = around(now, _CLOCK_STEPS)
    hours = (hour for hour in range(-_CLOCK_HOURS, _CLOCK_HOURS + 1) if hour)
    far = (step for hour in hours for step in around(now + hour * _HOUR // period, _REACH))
    return (*near, *far)


def _clock_hint(seconds: int) -> str:
    side = "ahead" if seconds > 0 else "behind"
    distance = abs(seconds)
    size = _duration(distance)
    return (
        f"The clock of your device is about {size} {side}. Let it set its date, time and time zone by itself,"
        " then type a new code."
    )


def _duration(seconds: int) -> str:
    if seconds < 120:
        return f"{seconds} seconds"
    if seconds < 2 * _HOUR:
        return f"{round(seconds / 60)} minutes"
    return f"{round(seconds / _HOUR)} hours"
