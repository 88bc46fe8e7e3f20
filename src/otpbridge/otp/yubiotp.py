"""Yubico OTP: what a YubiKey types when it is touched (https://developers.yubico.com/OTP/OTPs_Explained.html).

It types a public id and 16 bytes, encrypted with AES-128 under the key's own secret: the private id, how often the
key was plugged in, how often it was touched since then, a timer, noise and a checksum. Everything is written in
modhex, sixteen letters that are the same on most keyboards.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from hmac import compare_digest

from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import ECB

from otpbridge.model import Secret

PUBLIC_ID_LONGEST = 16
"""Bytes. Keys leave the factory with 6."""
KEY_SIZE = 16
PRIVATE_ID_SIZE = 6
LONGEST = 80
"""Characters after which input is refused unread."""

_BLOCK = 16
_LETTERS = "cbdefghijklnrtuv"
_TO_HEX = str.maketrans(_LETTERS, "0123456789abcdef")
_TO_MODHEX = str.maketrans("0123456789abcdef", _LETTERS)
_RESIDUE = 0xF0B8
_USAGE = 0x7FFF
"""The 16th bit of the usage counter was set by early keys while Caps Lock was on."""
_FIELDS = struct.Struct("<6sH3xB4x")


@dataclass(frozen=True, slots=True)
class YubiKey:
    """What a key was programmed with. Raises ValueError where a part has another size than it must have."""

    public_id: bytes
    private_id: Secret
    aes_key: Secret

    def __post_init__(self) -> None:
        if len(self.public_id) > PUBLIC_ID_LONGEST:
            raise ValueError(f"a public id has at most {PUBLIC_ID_LONGEST} bytes, not {len(self.public_id)}")
        if len(self.private_id) != PRIVATE_ID_SIZE:
            raise ValueError(f"a private id has {PRIVATE_ID_SIZE} bytes, not {len(self.private_id)}")
        if len(self.aes_key) != KEY_SIZE:
            raise ValueError(f"an AES key has {KEY_SIZE} bytes, not {len(self.aes_key)}")

    def pack(self) -> Secret:
        """All of it as bytes, to be sealed: AES key, private id, public id."""
        return Secret(self.aes_key.reveal() + self.private_id.reveal() + self.public_id)


def unpack(packed: Secret) -> YubiKey:
    """What `pack` made. Raises ValueError for anything that it cannot have made."""
    raw = packed.reveal()
    private_id = raw[KEY_SIZE : KEY_SIZE + PRIVATE_ID_SIZE]
    return YubiKey(raw[KEY_SIZE + PRIVATE_ID_SIZE :], Secret(private_id), Secret(raw[:KEY_SIZE]))


@dataclass(frozen=True, slots=True)
class Typed:
    """What a key has typed, in its two parts."""

    public_id: bytes
    block: bytes


def modhex(data: bytes) -> str:
    """Write bytes as modhex."""
    return data.hex().translate(_TO_MODHEX)


def from_modhex(text: str) -> bytes | None:
    """Read modhex in either case; None when `text` is anything else."""
    letters = text.lower()
    if not text.isascii() or len(letters) % 2 or not set(letters) <= set(_LETTERS):
        return None
    return bytes.fromhex(letters.translate(_TO_HEX))


def parse(text: str) -> Typed | None:
    """Read what a key typed: up to 32 letters of public id, then 32 letters of block. None for anything else.

    Blanks around it do not matter, and neither does Caps Lock.
    """
    if len(text) > LONGEST:
        return None
    data = from_modhex(text.strip(" "))
    if data is None or not _BLOCK <= len(data) <= _BLOCK + PUBLIC_ID_LONGEST:
        return None
    return Typed(data[:-_BLOCK], data[-_BLOCK:])


def moving_factor(key: YubiKey, typed: Typed) -> int | None:
    """How far the counters of `key` were when it typed this; None when it was not this key that did.

    The factor is the usage counter (15 bits) followed by the session counter (8 bits): it grows with every touch.
    Decryption and all three comparisons are always made, so the time taken does not tell which one failed.
    """
    plain = _decrypt(key.aes_key, typed.block)
    private_id, usage, session = _FIELDS.unpack(plain)
    right = compare_digest(key.public_id, typed.public_id)
    right &= compare_digest(key.private_id.reveal(), private_id)
    right &= crc(plain) == _RESIDUE
    return (usage & _USAGE) << 8 | session if right else None


def crc(data: bytes) -> int:
    """The checksum of ISO 13239 over `data`; 0xF0B8 for a block that ends in its own complemented checksum."""
    value = 0xFFFF
    for byte in data:
        value ^= byte
        for _ in range(8):
            value = value >> 1 ^ (0x8408 if value & 1 else 0)
    return value


def _decrypt(key: Secret, block: bytes) -> bytes:
    # The format is one block with a counter in it: there is no second block that ECB could give away.
    return Cipher(AES(key.reveal()), ECB()).decryptor().update(block)  # noqa: S305
