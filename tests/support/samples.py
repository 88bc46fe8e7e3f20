"""Replies as a daemon gives them."""

from __future__ import annotations

from otpbridge.model import Algorithm, Enforcement, Kind, State
from otpbridge.wire.messages import StartReply, TokenFields, UserFields

BASE32 = "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ"
HEX = "3132333435363738393031323334353637383930"
URI = f"otpauth://totp/Example:alice?secret={BASE32}&issuer=Example&algorithm=SHA1&digits=6&period=30"


def user(**changes):
    return UserFields(
        **{
            "name": "alice",
            "client": "local",
            "enforcement": Enforcement.OPTIONAL,
            "locked": False,
            "created_at": 1_700_000_000,
            "active_tokens": 1,
            "misses": 0,
            "refused": 0,
            **changes,
        }
    )


def token(**changes):
    return TokenFields(
        **{
            "id": "t1",
            "user": "alice",
            "client": "local",
            "kind": Kind.TOTP,
            "state": State.ACTIVE,
            "label": "alice",
            "issuer": "Example",
            "algorithm": Algorithm.SHA1,
            "digits": 6,
            "drift": 0,
            "created_at": 1_700_000_000,
            "period": 30,
            **changes,
        }
    )


def started(**changes):
    return StartReply(
        **{
            "token": "t1",
            "user": "alice",
            "client": "local",
            "kind": Kind.TOTP,
            "state": State.PENDING,
            "seed_hex": HEX,
            "seed_base32": BASE32,
            "uri": URI,
            "expires_in": 600,
            **changes,
        }
    )
