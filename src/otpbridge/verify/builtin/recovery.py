"""Judge the codes for those who have no authenticator at hand: from paper, or from the helpdesk."""

from __future__ import annotations

from otpbridge.model import LOCAL, Kind, Notice, Prompt, Verdict
from otpbridge.otp.recovery import codes_left, find, unpack
from otpbridge.verify.api import Attempt

PROMPT = Prompt("Verification code: ")
FEW = 3
"""With so many codes left, or fewer, people are warned."""


class Recovery:
    """Accepts recovery codes and registration codes, each of them once."""

    async def verify(self, attempt: Attempt) -> Verdict:
        """Compare the response with the codes of every list of the user, then with every registration code."""
        code = await attempt.ask(PROMPT)
        if await _spend_recovery(attempt, code) or await _spend_registration(attempt, code):
            return Verdict.SUCCESS
        return Verdict.AUTH_ERR


async def _spend_recovery(attempt: Attempt, code: str) -> bool:
    for token in attempt.tokens(Kind.RECOVERY):
        record = unpack(attempt.secret(token))
        place = find(record, code)
        if place is not None and await attempt.strike(token, place):
            left = codes_left(token.moving_factor | 1 << place, len(record.digests))
            name = "recovery_code_used" if left > FEW else "recovery_codes_few"
            attempt.tell_on_success(Notice(_left(attempt, left), name=name, count=left))
            return True
    return False


async def _spend_registration(attempt: Attempt, code: str) -> bool:
    for token in attempt.tokens(Kind.REGISTRATION):
        if find(unpack(attempt.secret(token)), code) is not None and await attempt.advance(token, 0):
            how = _how(attempt, "otpbridge enroll totp")
            text = f"The registration code is used up. Set up an authenticator now{how}"
            attempt.tell_on_success(Notice(text, name="registration_code_used"))
            return True
    return False


def _left(attempt: Attempt, left: int) -> str:
    if left > FEW:
        return f"This recovery code is used up. {left} recovery codes are left."
    amount = {0: "No recovery code is", 1: "Only one recovery code is"}.get(left, f"Only {left} recovery codes are")
    how = _how(attempt, "otpbridge enroll recovery")
    return f"Warning: this recovery code is used up. {amount} left. Make new ones now{how}"


def _how(attempt: Attempt, command: str) -> str:
    """The end of a sentence: how to do it. Only who has a Linux account here has the command."""
    return f": {command}" if attempt.client == LOCAL else "."
