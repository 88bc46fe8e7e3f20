"""Judge Yubico OTPs offline, with the AES key that is sealed in the store."""

from __future__ import annotations

from otpbridge.model import Kind, Prompt, Verdict
from otpbridge.otp.yubiotp import moving_factor, parse, unpack
from otpbridge.verify.api import Attempt

PROMPT = Prompt("Verification code: ")


class YubiOtp:
    """Accepts what one of the user's YubiKeys types when it is touched, each touch once and none before the last."""

    async def verify(self, attempt: Attempt) -> Verdict:
        """Compare the response with every YubiKey of the user."""
        typed = parse(await attempt.ask(PROMPT))
        if typed is None:
            return Verdict.AUTH_ERR
        for token in attempt.tokens(Kind.YUBIOTP):
            factor = moving_factor(unpack(attempt.secret(token)), typed)
            if factor is not None and await attempt.advance(token, factor):
                return Verdict.SUCCESS
        return Verdict.AUTH_ERR
