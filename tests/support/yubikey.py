"""A YubiKey that types one-time passwords, from its programming alone: nothing here comes from otpbridge.

https://developers.yubico.com/OTP/OTPs_Explained.html
"""

from __future__ import annotations

import secrets
import struct
from dataclasses import dataclass, field

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from otpbridge.model import Kind

_MODHEX = "cbdefghijklnrtuv"
_TOUCHES = 256
"""Touches that are counted from one plugging in to the next."""


@dataclass(slots=True)
class YubiKey:
    """A key and how often it was touched before."""

    public_id: str
    """In modhex."""
    private_id: bytes
    aes_key: bytes = field(repr=False)
    touched: int = 0
    kind: Kind = Kind.YUBIOTP

    def code(self, ahead: int = 0) -> str:
        """What the next touch types, or one `ahead` of it."""
        plugged, touch = divmod(self.touched + ahead, _TOUCHES)
        timer = (self.touched + ahead) * 40 & 0xFFFFFF
        block = self.private_id + struct.pack("<H", plugged + 1) + struct.pack("<I", timer)[:3]
        block += bytes([touch]) + b"\x5a\xa5"
        block += struct.pack("<H", ~_crc(block) & 0xFFFF)
        return self.public_id + _modhex(_encrypt(self.aes_key, block))

    def wrong(self, count: int = 1) -> list[str]:
        """What other keys would type that say they are this one."""
        return [self.public_id + _modhex(secrets.token_bytes(16)) for _ in range(count)]


def _encrypt(key: bytes, block: bytes) -> bytes:
    return Cipher(algorithms.AES(key), modes.ECB()).encryptor().update(block)


def _modhex(data: bytes) -> str:
    return "".join(_MODHEX[byte >> 4] + _MODHEX[byte & 15] for byte in data)


def _crc(data: bytes) -> int:
    """CRC-16 as in ISO 13239, before it is complemented; over a block with its checksum it is 0xF0B8."""
    value = 0xFFFF
    for bit in (byte >> place & 1 for byte in data for place in range(8)):
        value = value >> 1 ^ (0x8408 if (value ^ bit) & 1 else 0)
    return value
