"""The two forms of a key."""

from __future__ import annotations

from otpbridge.enroll.seeds import from_base32, grouped, to_base32, to_hex
from otpbridge.model import Secret

SEED = Secret(b"12345678901234567890")


def test_both_keys_are_the_same_bytes():
    """The TOTP Seed key (hex) and the Google Authenticator key (base32) hold one seed."""
    assert bytes.fromhex(to_hex(SEED)) == from_base32(to_base32(SEED)).reveal() == SEED.reveal()


def test_a_key_is_grouped_for_the_eye():
    """Groups of four make a key typeable; without its spaces it is whole."""
    text = grouped(to_base32(SEED))
    assert text == "GEZD GNBV GY3T QOJQ GEZD GNBV GY3T QOJQ"
    assert text.replace(" ", "") == to_base32(SEED)
    assert grouped("abcdefghi", 4) == "abcd efgh i"


def test_padding_may_be_there():
    """A padded key, as some software writes it, is the same key."""
    assert from_base32("GEZDGNBVGY3TQOJQGE======").reveal() == b"12345678901"
