"""Find the code in an answer that holds a password too, for programs with one field."""

from __future__ import annotations

from otpbridge.daemon.attempt import StoreAttempt
from otpbridge.errors import OtpBridgeError
from otpbridge.model import Factor, Kind, Verdict
from otpbridge.verify.combined import Split, splits, whole
from otpbridge.verify.stack import Mode, Stack


async def take_apart(stack: Stack, attempt: StoreAttempt, text: str) -> Split:
    """The split whose code is one of the user's, else what looks most like a code.

    Whatever is found is judged as if it had been typed into two fields.
    """
    if attempt.mode is Mode.WAIVED:
        return whole(text)
    digits = {
        stored.token.parameters.digits
        for stored in attempt.candidate.tokens
        if stored.token.kind in {Kind.TOTP, Kind.HOTP}
    }
    found = splits(text, digits or {6})
    if len(found) > 1 or attempt.may_decline:
        for split in found:
            if await _fits(stack, attempt.trial(split.code)):
                return split
    if not found or attempt.may_decline:
        return whole(text)
    return found[0]


async def _fits(stack: Stack, trial: StoreAttempt) -> bool:
    """Whether one of the verifiers that never ask twice would take a code."""
    for made in stack.made.values():
        if made.direct and made.factor is Factor.SECOND and not made.enrols:
            try:
                if await made.verifier.verify(trial) is Verdict.SUCCESS:
                    return True
            except OtpBridgeError:
                # It will say so again when it is asked in earnest.
                continue
    return False
