"""Yubico OTP, held to the vectors that Yubico publishes."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import ECB
from hypothesis import given
from hypothesis import strategies as st

from otpbridge.model import Secret
from otpbridge.otp import yubiotp
from otpbridge.otp.yubiotp import Typed, YubiKey, crc, from_modhex, modhex, moving_factor, parse, unpack

COUNTING = "000102030405060708090a0b0c0d0e0f"
# https://developers.yubico.com/OTP/Specifications/Test_vectors.html and test-vectors.txt of yubico-c
VECTORS = [
    (COUNTING, "010203040506", "dvgtiblfkbgturecfllberrvkinnctnn", 1, 1),
    (COUNTING, "010203040506", "rnibcnfhdninbrdebccrndfhjgnhftee", 1, 2),
    (COUNTING, "010203040506", "iikkijbdknrrdhfdrjltvgrbkkjblcbh", 0xFFF, 1),
    ("88" * 16, "88" * 6, "dcihgvrhjeucvrinhdfddbjhfjftjdei", 0x0888, 0x88),
    ("00" * 16, "00" * 6, "kkkncjnvcnenkjvjgncjihljiibgbhbh", 0, 0),
    ("c4422890653076cde73d449b191b416a", "33c69e7f249e", "iucvrkjiegbhidrcicvlgrcgkgurhjnj", 1, 0),
    ("ecde18dbe76fbd0c33330f1c354871db", "8792ebfe26cc", "dteffujehknhfjbrjnlnldnhcujvddbikngjrtgh", 0x13, 0x11),
]
PRESS = "dteffujehknhfjbrjnlnldnhcujvddbikngjrtgh"

ids = st.binary(max_size=16)
keys = st.builds(
    lambda public_id, private_id, key: YubiKey(public_id, Secret(private_id), Secret(key)),
    ids,
    st.binary(min_size=6, max_size=6),
    st.binary(min_size=16, max_size=16),
)


def yubikey(*, public_id="2d344e83", private_id="8792ebfe26cc", key="ecde18dbe76fbd0c33330f1c354871db"):
    return YubiKey(bytes.fromhex(public_id), Secret(bytes.fromhex(private_id)), Secret(bytes.fromhex(key)))


def press(key, usage, session, noise=b"\x30\xc2\x00\xc8\x9f"):
    """What a key types at these counters."""
    plain = key.private_id.reveal() + usage.to_bytes(2, "little") + noise[:3] + bytes([session]) + noise[3:]
    plain += (crc(plain) ^ 0xFFFF).to_bytes(2, "little")
    block = Cipher(AES(key.aes_key.reveal()), ECB()).encryptor().update(plain)
    return modhex(key.public_id + block)


@pytest.mark.parametrize(("key", "private_id", "text", "usage", "session"), VECTORS)
def test_what_yubico_publishes_is_read_as_yubico_reads_it(key, private_id, text, usage, session):
    """Key, private id and counters of every published one-time password are found."""
    typed = parse(text)
    known = yubikey(public_id=typed.public_id.hex(), private_id=private_id, key=key)
    assert moving_factor(known, typed) == usage << 8 | session


def test_the_public_id_comes_before_the_block():
    """What stands before the last 32 letters says which key it is."""
    typed = parse(PRESS)
    assert (typed.public_id.hex(), typed.block.hex()) == ("2d344e83", "69b6481c8baba2b60e8f22179b58cd56")


@pytest.mark.parametrize(
    ("data", "letters"),
    [("2d344e83", "dteffuje"), (b"test".hex(), "ifhgieif"), ("0123456789abcdef", "cbdefghijklnrtuv"), ("", "")],
)
def test_modhex_is_what_yubico_defines(data, letters):
    """The published pairs, both ways."""
    assert modhex(bytes.fromhex(data)) == letters
    assert from_modhex(letters) == bytes.fromhex(data)


@pytest.mark.parametrize("data", [b"\xfe", bytes.fromhex("55aa00ff"), bytes.fromhex("0102030405063075 00093dfa60ea")])
def test_the_checksum_is_what_yubico_publishes(data):
    """The values of yubico-c's self-test."""
    published = {1: 4470, 4: 52149, 14: 35339}
    assert crc(data) == published[len(data)]


@given(keys, st.integers(0, 0x7FFF), st.integers(0, 0xFF), st.binary(min_size=5, max_size=5))
def test_every_press_of_a_key_is_read(key, usage, session, noise):
    """Whatever a key was programmed with: its counters come back, for public ids of 0 to 16 bytes."""
    assert moving_factor(key, parse(press(key, usage, session, noise))) == usage << 8 | session


@given(keys, keys, st.integers(0, 0x7FFF), st.integers(0, 0xFF))
def test_another_key_is_not_taken_for_this_one(key, other, usage, session):
    """A key of which any part differs is refused."""
    if other.pack().reveal() != key.pack().reveal():
        assert moving_factor(other, parse(press(key, usage, session))) is None


@given(st.integers(0, 15), st.integers(1, 255))
def test_no_byte_of_the_block_may_change(place, flip):
    """A block with a byte that was changed on its way is refused."""
    typed = parse(PRESS)
    block = bytearray(typed.block)
    block[place] ^= flip
    assert moving_factor(yubikey(), Typed(typed.public_id, bytes(block))) is None


@pytest.mark.parametrize("change", [{"public_id": "2d344e84"}, {"private_id": "8792ebfe26cd"}, {"public_id": ""}])
def test_each_id_counts(change):
    """Right key and checksum are not enough: public and private id have to be this key's."""
    assert moving_factor(yubikey(), parse(PRESS)) is not None
    assert moving_factor(yubikey(**change), parse(PRESS)) is None


def test_the_checksum_counts():
    """A block that decrypts to the right private id but has a wrong checksum is refused."""
    key = yubikey()
    plain = key.private_id.reveal() + bytes(10)
    block = Cipher(AES(key.aes_key.reveal()), ECB()).encryptor().update(plain)
    assert moving_factor(key, Typed(key.public_id, block)) is None


def test_later_touches_have_greater_factors():
    """Each touch and each plugging in moves the key forward, and the Caps Lock bit of early keys does not count."""
    key = yubikey()
    factors = [moving_factor(key, parse(press(key, *at))) for at in ((1, 0), (1, 1), (1, 255), (2, 0), (0x7FFF, 255))]
    assert factors == sorted(set(factors))
    assert moving_factor(key, parse(press(key, 0x8000 | 5, 3))) == moving_factor(key, parse(press(key, 5, 3)))


def test_caps_lock_and_blanks_do_not_matter():
    """What a key types with Caps Lock on, or what was pasted with blanks around it, is read the same."""
    assert parse(f" {PRESS.upper()} ") == parse(PRESS)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "123456",
        PRESS[1:],
        PRESS[9:],
        PRESS[:-1] + "a",
        PRESS + "\n",
        "c" * 66,
        "c" * 100_000,
        "\u017f" * 44,
        "\u212a" * 44,
    ],
)
def test_anything_else_is_not_read(text):
    """Other letters, an odd number of them, too few or too many: refused."""
    assert parse(text) is None


@given(keys)
def test_what_was_packed_is_unpacked(key):
    """Nothing is lost on the way into the store and out of it."""
    assert moving_factor(unpack(key.pack()), parse(press(key, 7, 7))) == 7 << 8 | 7


@pytest.mark.parametrize("length", [0, 21, 39])
def test_what_cannot_be_a_key_is_refused(length):
    """A packed key that was cut or is too long raises ValueError."""
    with pytest.raises(ValueError, match="bytes"):
        unpack(Secret(bytes(length)))


def test_no_secret_shows():
    """Neither private id nor AES key is in a repr."""
    assert repr(yubikey()) == "YubiKey(public_id=b'-4N\\x83', private_id=Secret(***), aes_key=Secret(***))"


def test_all_is_computed_whichever_part_is_wrong(monkeypatch):
    """A wrong public id, private id or key costs the same work as the right ones."""
    worked = []
    monkeypatch.setattr(yubiotp, "_decrypt", lambda key, block: worked.append("decrypt") or decrypt(key, block))
    monkeypatch.setattr(yubiotp, "crc", lambda data: worked.append("crc") or crc(data))
    monkeypatch.setattr(yubiotp, "compare_digest", lambda one, two: worked.append("compare") or one == two)
    for key in (yubikey(), yubikey(public_id=""), yubikey(private_id="00" * 6), yubikey(key="00" * 16)):
        worked.clear()
        moving_factor(key, parse(PRESS))
        assert worked == ["decrypt", "compare", "compare", "crc"]


decrypt = yubiotp._decrypt
