"""The two forms of a seed that people see: hex (TOTP Seed key) and base32 (Google Authenticator key)."""

from __future__ import annotations

import base64
import binascii
import re

from otpbridge.errors import EnrolError
from otpbridge.model import Secret

SHORTEST = 10
"""Bytes. RFC 4226 §4 R6 asks for 16; authenticators enrolled by old software still hold 10."""
LONGEST = 128
"""Bytes: the block of SHA-512, beyond which HMAC hashes the key first (RFC 2104 §2)."""

_BASE32 = re.compile(r"[A-Za-z2-7]+(={0,6})")
_WHOLE = frozenset({0, 2, 4, 5, 7})


def to_hex(secret: Secret) -> str:
    """Write a seed as the "TOTP Seed key": lower-case hex."""
    return secret.reveal().hex()


def to_base32(secret: Secret) -> str:
    """Write a seed as the "Google Authenticator key": upper-case base32 without padding (RFC 4648 §6)."""
    return base64.b32encode(secret.reveal()).decode().rstrip("=")


def grouped(text: str, size: int = 4) -> str:
    """Split a key into groups for the eye; authenticators drop the spaces again."""
    return " ".join(text[start : start + size] for start in range(0, len(text), size))


def from_base32(text: str) -> Secret:
    """Read a base32 seed, either case, with or without padding.

    Raises EnrolError when the text is not base32 or the seed is not 10 to 128 bytes; the message holds
    nothing of the text.
    """
    read = _BASE32.fullmatch(text)
    digits = text.rstrip("=")
    if read is None or len(digits) % 8 not in _WHOLE:
        raise EnrolError("the secret is not base32: letters A to Z and digits 2 to 7, whole groups")
    try:
        seed = base64.b32decode(digits.upper() + "=" * (-len(digits) % 8))
    except binascii.Error:
        raise EnrolError("the secret is not base32") from None
    check_length(seed)
    return Secret(seed)


def check_length(seed: bytes) -> None:
    """Raise EnrolError unless the seed is 10 to 128 bytes long."""
    if not SHORTEST <= len(seed) <= LONGEST:
        raise EnrolError(f"the secret is {len(seed)} bytes long; it must be {SHORTEST} to {LONGEST} bytes")
