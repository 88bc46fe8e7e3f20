"""How a new Yubico OTP token is shown: what a slot is programmed with, and how, with no secret on a command line."""

from __future__ import annotations

from typing import TYPE_CHECKING

from otpbridge.cli.enrolling import Showing, required

if TYPE_CHECKING:
    from otpbridge.wire.messages import StartReply

_SLOT = 2
"""The slot of the long touch. The short one holds what the key left the factory with."""

_WRONG = (
    "That was not typed by a slot that holds these values. Was it programmed, and is it the slot that you touched?"
    f" (Slot {_SLOT}: hold for 3 seconds.)"
)


def showing(started: StartReply) -> Showing:
    """What is shown of a new token.

    ykman asks for what it is not given by option, and shows what is typed. The public ID is no secret: it stands in
    front of every OTP.
    """
    public_id, private_id = required(started.public_id), required(started.private_id)
    return Showing(
        values={"public_id": public_id, "private_id": private_id, "secret_hex": started.seed_hex},
        keys=[
            f"Public ID (modhex)   {public_id}",
            f"Private ID (hex)     {private_id}",
            f"Secret key (hex)     {started.seed_hex}",
        ],
        advice=[
            "Program a slot of the YubiKey with these; they are never shown again.",
            "In another window, which you close afterwards, type",
            f"    ykman otp yubiotp {_SLOT} --public-id {public_id}",
            "and answer what it asks:",
            "    Enter private ID        the private ID above",
            "    Enter secret key        the secret key above",
            f"    Program ... slot {_SLOT}?     y",
            "So no secret stands on a command line, where other users could see it.",
            f"Slot {_SLOT} is a touch of 3 seconds. Slot 1, a short touch, is what Yubico programmed",
            "in the factory; overwritten it does not come back.",
        ],
        question="Touch your key, with the cursor here",
        wrong=_WRONG,
    )
