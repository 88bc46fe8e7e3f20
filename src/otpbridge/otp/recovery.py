"""Codes that are spent once each: recovery codes on paper, registration codes over the phone.

They are written in Crockford's base32 (https://www.crockford.com/base32.html), which leaves out I, L, O and U: no
two of its characters look alike or are taken for each other. What is kept of a code is an HMAC under a random key.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from hmac import compare_digest, digest

from otpbridge.model import Secret

RECOVERY_CODES = 10
RECOVERY_BITS = 80
REGISTRATION_BITS = 60

LONGEST = 64
"""Characters after which input is refused unread."""
MOST_CODES = 63
"""As many as there are places that can be struck (verify.api)."""

_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_BITS = 5
_GROUP = 4
_READ = str.maketrans("OIL", "011", " -")
_KEY = 32
_DIGEST = 16


@dataclass(frozen=True, slots=True)
class Record:
    """What is kept of a list of codes: enough to know one of them again, not to write it down."""

    key: Secret
    digests: tuple[bytes, ...]

    def pack(self) -> Secret:
        """All of it as bytes, to be sealed."""
        return Secret(self.key.reveal() + b"".join(self.digests))


def unpack(packed: Secret) -> Record:
    """What `Record.pack` made. Raises ValueError for anything that it cannot have made."""
    raw = packed.reveal()
    digests = tuple(raw[start : start + _DIGEST] for start in range(_KEY, len(raw), _DIGEST))
    if not 1 <= len(digests) <= MOST_CODES or len(digests[-1]) != _DIGEST:
        raise ValueError(f"a list of codes cannot have {len(raw)} bytes")
    return Record(Secret(raw[:_KEY]), digests)


def recovery_codes(random: Callable[[int], bytes]) -> tuple[tuple[Secret, ...], Record]:
    """New recovery codes, each as text that is shown once, and what is kept of them.

    `random` gives as many random bytes as it is asked for.
    """
    return _make(RECOVERY_CODES, RECOVERY_BITS, random)


def registration_code(random: Callable[[int], bytes]) -> tuple[Secret, Record]:
    """A new registration code, as text that is shown once, and what is kept of it: a list of one."""
    (code,), record = _make(1, REGISTRATION_BITS, random)
    return code, record


def codes_left(struck: int, codes: int = RECOVERY_CODES) -> int:
    """How many of a list of codes can still be spent; bit n of `struck` says that the code at place n was."""
    return codes - struck.bit_count()


def find(record: Record, typed: str) -> int | None:
    """The place of the code that was typed, from 0; None when it is none of the list.

    Case, blanks and dashes do not matter; O is read as 0, I and L as 1. Every code of the list is compared, so the
    time taken does not tell which one it is.
    """
    code = _normalised(typed)
    if code is None:
        return None
    mac = _mac(record.key, code)
    found = None
    for place, known in enumerate(record.digests):
        if compare_digest(mac, known):
            found = place
    return found


def _make(count: int, bits: int, random: Callable[[int], bytes]) -> tuple[tuple[Secret, ...], Record]:
    key = Secret(random(_KEY))
    codes = [_write(random(-(-bits // 8)), bits) for _ in range(count)]
    return (
        tuple(Secret(_grouped(code).encode()) for code in codes),
        Record(key, tuple(_mac(key, code) for code in codes)),
    )


def _write(raw: bytes, bits: int) -> str:
    """The first `bits` of the bytes in base32."""
    number = int.from_bytes(raw, "big") >> len(raw) * 8 - bits
    return "".join(_ALPHABET[number >> shift & 31] for shift in range(bits - _BITS, -1, -_BITS))


def _grouped(code: str) -> str:
    return "-".join(code[start : start + _GROUP] for start in range(0, len(code), _GROUP))


def _normalised(typed: str) -> str | None:
    if len(typed) > LONGEST or not typed.isascii():
        return None
    return typed.upper().translate(_READ)


def _mac(key: Secret, code: str) -> bytes:
    return digest(key.reveal(), code.encode(), "sha256")[:_DIGEST]
