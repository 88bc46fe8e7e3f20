"""Judge time-based one-time passwords (RFC 6238)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from otpbridge.model import Kind, Prompt, Verdict
from otpbridge.otp.drift import learn
from otpbridge.otp.totp import time_step
from otpbridge.otp.window import around, match
from otpbridge.verify.api import Attempt

PROMPT = Prompt("Verification code: ")


@dataclass(frozen=True, slots=True)
class Totp:
    """Accepts the code of a time step at most `reach` away from where the authenticator is expected, and of now.

    `bound` is the largest drift, in time steps, that is learnt from one success to the next.
    """

    name: ClassVar[str] = "totp"
    reach: int
    bound: int

    async def verify(self, attempt: Attempt) -> Verdict:
        """Compare the response with the codes of every TOTP token of the user."""
        code = await attempt.ask(PROMPT)
        for token in attempt.tokens(Kind.TOTP):
            step_now = time_step(attempt.now, token.parameters)
            expected = step_now + token.drift
            steps = around(expected, self.reach)
            if step_now not in steps:
                # A drift learnt from someone who types late must not refuse the code shown right now.
                steps = (*steps, step_now)
            step = match(attempt.seed(token).reveal(), code, token.parameters, steps)
            if step is not None:
                # A resynchronised token may lie beyond the bound; it is followed from there, not pulled back.
                drift = learn(token.drift, step - expected, max(self.bound, abs(token.drift)))
                if await attempt.advance(token, step, drift):
                    return Verdict.SUCCESS
        return Verdict.AUTH_ERR
