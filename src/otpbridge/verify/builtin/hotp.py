"""Judge counter-based one-time passwords (RFC 4226)."""

from __future__ import annotations

from dataclasses import dataclass

from otpbridge.model import Kind, Prompt, Verdict
from otpbridge.otp.window import ahead, match
from otpbridge.verify.api import Attempt

PROMPT = Prompt("Verification code: ")


@dataclass(frozen=True, kw_only=True)
class HotpOptions:
    """How far ahead a counter may be."""

    look_ahead: int = 10
    """Counters after the next one that are accepted too (RFC 4226 §7.4), 0 to 100."""

    def __post_init__(self) -> None:
        if not 0 <= self.look_ahead <= 100:
            raise ValueError("look_ahead must be 0 to 100")


class Hotp:
    """Accepts the code of the next counter or of one of the `look_ahead` after it (RFC 4226 §7.4)."""

    Options = HotpOptions

    def __init__(self, options: HotpOptions) -> None:
        self._options = options

    async def verify(self, attempt: Attempt) -> Verdict:
        """Compare the response with the codes of every HOTP token of the user."""
        code = await attempt.ask(PROMPT)
        for token in attempt.tokens(Kind.HOTP):
            steps = ahead(token.moving_factor, self._options.look_ahead)
            counter = match(attempt.secret(token).reveal(), code, token.parameters, steps)
            if counter is not None and await attempt.advance(token, counter, token.drift):
                return Verdict.SUCCESS
        return Verdict.AUTH_ERR
