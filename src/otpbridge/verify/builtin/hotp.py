"""Judge counter-based one-time passwords (RFC 4226)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from otpbridge.model import Kind, Prompt, Verdict
from otpbridge.otp.window import ahead, match
from otpbridge.verify.api import Attempt

PROMPT = Prompt("Verification code: ")


@dataclass(frozen=True, slots=True)
class Hotp:
    """Accepts the code of the next counter or of one of the `look_ahead` after it (RFC 4226 §7.4)."""

    name: ClassVar[str] = "hotp"
    look_ahead: int

    async def verify(self, attempt: Attempt) -> Verdict:
        """Compare the response with the codes of every HOTP token of the user."""
        code = await attempt.ask(PROMPT)
        for token in attempt.tokens(Kind.HOTP):
            steps = ahead(token.moving_factor, self.look_ahead)
            counter = match(attempt.seed(token).reveal(), code, token.parameters, steps)
            if counter is not None and await attempt.advance(token, counter, token.drift):
                return Verdict.SUCCESS
        return Verdict.AUTH_ERR
