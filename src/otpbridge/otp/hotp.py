"""HOTP, the one-time password of a counter (RFC 4226)."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from hmac import digest

from otpbridge.model import Algorithm, OtpParameters

_HASH = {Algorithm.SHA1: "sha1", Algorithm.SHA256: "sha256", Algorithm.SHA512: "sha512"}
_MODULUS = {6: 10**6, 7: 10**7, 8: 10**8}
_pack = struct.Struct(">Q").pack


def values(seed: bytes, moving_factors: Iterable[int], parameters: OtpParameters) -> list[int]:
    """Compute the code of each moving factor as a number (RFC 4226 §5.3), in the given order.

    Raises ValueError for an empty seed, for other than 6 to 8 digits, and for a moving factor that is
    negative or does not fit 8 bytes.
    """
    if not seed:
        raise ValueError("a seed must not be empty")
    if parameters.digits not in _MODULUS:
        raise ValueError(f"digits must be 6, 7 or 8, not {parameters.digits}")
    modulus = _MODULUS[parameters.digits]
    name = _HASH[parameters.algorithm]
    found = []
    try:
        for moving_factor in moving_factors:
            mac = digest(seed, _pack(moving_factor), name)
            offset = mac[-1] & 15
            found.append((int.from_bytes(mac[offset : offset + 4], "big") & 0x7FFFFFFF) % modulus)
    except struct.error as error:
        raise ValueError("a moving factor must be from 0 to 2**64 - 1") from error
    return found


def hotp(seed: bytes, moving_factor: int, parameters: OtpParameters) -> str:
    """Compute the code of one moving factor (RFC 4226 §5.3): digits with their leading zeros.

    Raises ValueError as `values` does.
    """
    (value,) = values(seed, (moving_factor,), parameters)
    return f"{value:0{parameters.digits}d}"
