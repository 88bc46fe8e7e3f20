"""Judge time-based one-time passwords (RFC 6238)."""

from __future__ import annotations

from dataclasses import dataclass

from otpbridge.model import Kind, Prompt, Verdict
from otpbridge.otp.drift import learn
from otpbridge.otp.totp import time_step
from otpbridge.otp.window import around, match
from otpbridge.verify.api import Attempt

PROMPT = Prompt("Verification code: ")


@dataclass(frozen=True, kw_only=True)
class TotpOptions:
    """How far a code may be from where it is expected."""

    window: int = 1
    """Time steps tolerated before and after the expected one (RFC 6238 §5.2), 0 to 10."""
    drift: int = 10
    """The largest clock difference of an authenticator that is learnt, in time steps, 0 to 100."""

    def __post_init__(self) -> None:
        if not 0 <= self.window <= 10:
            raise ValueError("window must be 0 to 10")
        if not 0 <= self.drift <= 100:
            raise ValueError("drift must be 0 to 100")


class Totp:
    """Accepts the code of a time step at most `window` away from where the authenticator is expected, and of now."""

    Options = TotpOptions

    def __init__(self, options: TotpOptions) -> None:
        self._options = options

    async def verify(self, attempt: Attempt) -> Verdict:
        """Compare the response with the codes of every TOTP token of the user."""
        code = await attempt.ask(PROMPT)
        for token in attempt.tokens(Kind.TOTP):
            step_now = time_step(attempt.now, token.parameters)
            expected = step_now + token.drift
            steps = around(expected, self._options.window)
            if step_now not in steps:
                # A drift learnt from someone who types late must not refuse the code shown right now.
                steps = (*steps, step_now)
            step = match(attempt.secret(token).reveal(), code, token.parameters, steps)
            if step is not None:
                # A resynchronised token may lie beyond the bound; it is followed from there, not pulled back.
                drift = learn(token.drift, step - expected, max(self._options.drift, abs(token.drift)))
                if await attempt.advance(token, step, drift):
                    return Verdict.SUCCESS
        return Verdict.AUTH_ERR
