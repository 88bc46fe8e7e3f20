"""What a code shows that is to prove a new token."""

from __future__ import annotations

from otpbridge.config import Window
from otpbridge.model import Kind, Secret, Token
from otpbridge.otp import yubiotp
from otpbridge.otp.drift import learn
from otpbridge.otp.totp import time_step
from otpbridge.otp.window import ahead, around, match


def shown_factor(window: Window, token: Token, seed: Secret, code: str, now: float) -> tuple[int, int] | None:
    """The moving factor that a code shows, and the drift to begin with; None for a code that is not the token's.

    `now` in Unix seconds.
    """
    if token.kind is Kind.YUBIOTP:
        typed = yubiotp.parse(code)
        factor = None if typed is None else yubiotp.moving_factor(yubiotp.unpack(seed), typed)
        return None if factor is None else (factor, 0)
    if token.kind is Kind.HOTP:
        steps = ahead(token.moving_factor, window.hotp)
        counter = match(seed.reveal(), code, token.parameters, steps)
        return None if counter is None else (counter, 0)
    expected = time_step(now, token.parameters)
    step = match(seed.reveal(), code, token.parameters, around(expected, window.totp))
    return None if step is None else (step, learn(0, step - expected, window.drift))
