"""The chain of the audit log: how each row stands on the one before it, and where the log begins.

`mac(n) = HMAC-SHA256(key, mac(n-1) | n as 8 bytes | entry(n))`; before the first row stand 32 zero bytes. Where old
rows were cut off, the log begins at a mark: number and mac of the last of them, sealed under a key that is made from
that of the chain. So who can write the database can neither forge a row nor cut more than was cut.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass

from otpbridge.errors import StoreError
from otpbridge.model import Secret

GENESIS = bytes(32)
HEAD = "audit head"
"""The row of `meta` that says where the log ends."""
_MAC = 32
_MOST = 2**63


class BrokenChainError(StoreError):
    """A row is missing, was changed, or stands where another one stood."""


@dataclass(frozen=True, slots=True)
class AuditRow:
    """A row as it stands in the log; `entry` is JSON text."""

    sequence: int
    entry: str


@dataclass(frozen=True, slots=True)
class Mark:
    """A place in the log, behind the row of this number: what the next row stands on."""

    sequence: int
    mac: bytes

    @property
    def anchor(self) -> str:
        """As an anchor is written."""
        return f"{self.sequence}:{self.mac.hex()}"


BEGINNING = Mark(0, GENESIS)
"""Before the first row of all."""


class Chain:
    """Checks rows under one key, and seals marks."""

    def __init__(self, key: Secret) -> None:
        self._key = key

    def follow(self, mark: Mark, sequence: int, entry: bytes, mac: bytes) -> Mark:
        """The mark behind a row that stands on `mark`. Raises BrokenChainError where it does not."""
        if sequence > mark.sequence + 1:
            raise BrokenChainError(f"entry {mark.sequence + 1} is missing")
        if sequence <= mark.sequence:
            raise BrokenChainError(f"entry {sequence} stands where the log was cut")
        right = hmac.digest(self._key.reveal(), mark.mac + sequence.to_bytes(8, "big") + entry, hashlib.sha256)
        if not hmac.compare_digest(right, mac):
            raise BrokenChainError(f"entry {sequence} was changed, or stands where another one stood")
        return Mark(sequence, right)

    def sealed(self, mark: Mark) -> bytes:
        """A mark's mac with its seal."""
        key = hmac.digest(self._key.reveal(), b"cut", hashlib.sha256)
        return mark.mac + hmac.digest(key, mark.sequence.to_bytes(8, "big") + mark.mac, hashlib.sha256)

    def opened(self, sequence: int, sealed: bytes) -> Mark:
        """The mark that was sealed. Raises BrokenChainError where it was changed."""
        mark = Mark(sequence, sealed[:_MAC])
        if sequence < 1 or not hmac.compare_digest(self.sealed(mark), sealed):
            raise BrokenChainError("the mark of where the log was cut was changed")
        return mark


def parse_anchor(text: str) -> Mark:
    """The place in the log that an anchor is of. Raises ValueError."""
    number, _, mac = text.partition(":")
    try:
        parsed = Mark(int(number), bytes.fromhex(mac))
    except ValueError:
        parsed = Mark(0, b"")
    if len(parsed.mac) != len(GENESIS) or not 0 <= parsed.sequence < _MOST:
        raise ValueError("an anchor looks like 1234:64 hex digits, as `otpbridge audit verify` prints it")
    return parsed
