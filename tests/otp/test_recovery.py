"""Recovery and registration codes."""

from __future__ import annotations

import os
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otpbridge.model import Secret
from otpbridge.otp import recovery
from otpbridge.otp.recovery import find, recovery_codes, registration_code, unpack


def shown(codes):
    return [code.reveal().decode() for code in codes]


def test_ten_codes_of_eighty_bits_are_made():
    """Ten different codes of 16 characters in groups of four, none of which is taken for another."""
    codes = shown(recovery_codes(os.urandom)[0])
    assert len(set(codes)) == 10
    assert all(re.fullmatch(r"([0-9A-HJKMNP-TV-Z]{4}-){3}[0-9A-HJKMNP-TV-Z]{4}", code) for code in codes)


def test_a_registration_code_is_short_enough_for_the_phone():
    """Twelve characters, 60 bits."""
    code, record = registration_code(os.urandom)
    assert re.fullmatch(r"([0-9A-HJKMNP-TV-Z]{4}-){2}[0-9A-HJKMNP-TV-Z]{4}", *shown([code]))
    assert len(record.digests) == 1


def test_a_code_holds_all_the_randomness_that_it_was_given():
    """80 bits go into 16 characters as they are, and of 64 bits the first 60 into 12: nothing is lost or repeated."""
    raw = iter([bytes(32), bytes.fromhex("0044 3214 c742 54b6 35cf"), *[bytes(10)] * 9])
    assert shown(recovery_codes(lambda _: next(raw))[0])[0] == "0123-4567-89AB-CDEF"
    raw = iter([bytes(32), bytes.fromhex("8465 3a56 d7c6 75bf")])
    assert shown([registration_code(lambda _: next(raw))[0]]) == ["GHJK-MNPQ-RSTV"]


def test_every_code_is_found_at_its_place():
    """Each code of a list is known again, each at a place of its own."""
    codes, record = recovery_codes(os.urandom)
    assert [find(record, code) for code in shown(codes)] == list(range(10))


@pytest.mark.parametrize(
    "spelling",
    [
        lambda code: code.lower(),
        lambda code: code.replace("-", ""),
        lambda code: f"  {code.replace('-', ' ')} ",
        lambda code: code.replace("0", "O").replace("1", "l"),
        lambda code: code.replace("0", "o").replace("1", "I"),
    ],
)
def test_codes_are_read_as_people_type_them(spelling):
    """Lower case, no dashes, blanks, a letter O for a zero, an I or L for a one."""
    raw = iter([bytes(32), bytes.fromhex("0044 3214 c742 54b6 35cf"), *[os.urandom(10) for _ in range(9)]])
    codes, record = recovery_codes(lambda _: next(raw))
    assert find(record, spelling(shown(codes)[0])) == 0


@given(st.text(max_size=80))
def test_nothing_else_is_found(text):
    """No other text is taken for a code."""
    assert find(recovery_codes(os.urandom)[1], text) is None


@pytest.mark.parametrize("change", [lambda code: code[:-1], lambda code: code + "0", lambda code: "-" * 65 + code])
def test_a_part_of_a_code_is_not_a_code(change):
    """A character too few, one too many, or too much text: refused."""
    code, record = registration_code(os.urandom)
    assert find(record, change(*shown([code]))) is None


def test_a_code_of_another_list_is_not_found():
    """Codes belong to their list."""
    (code, *_), _ = recovery_codes(os.urandom)
    _, other = recovery_codes(os.urandom)
    assert find(other, *shown([code])) is None


def test_all_codes_are_compared_whichever_it_is(monkeypatch):
    """The first, the last and a wrong code cost the same work."""
    codes, record = recovery_codes(os.urandom)
    compared = []
    monkeypatch.setattr(recovery, "compare_digest", lambda one, two: compared.append(two) or one == two)
    for text in (*shown(codes), "0000-0000-0000-0000"):
        compared.clear()
        find(record, text)
        assert tuple(compared) == record.digests


def test_what_was_packed_is_unpacked():
    """The codes are found after their list has been in the store."""
    codes, record = recovery_codes(os.urandom)
    assert [find(unpack(record.pack()), code) for code in shown(codes)] == list(range(10))


@pytest.mark.parametrize("length", [0, 32, 47, 49, 32 + 64 * 16])
def test_what_cannot_be_a_list_is_refused(length):
    """A packed list that is empty, cut or too long raises ValueError."""
    with pytest.raises(ValueError, match=f"{length} bytes"):
        unpack(Secret(bytes(length)))


def test_what_is_kept_does_not_tell_the_codes():
    """Neither the bytes that are sealed nor a repr hold a code or its bits."""
    raw = [os.urandom(32), *[os.urandom(10) for _ in range(10)]]
    feed = iter(raw)
    codes, record = recovery_codes(lambda _: next(feed))
    packed = record.pack().reveal()
    assert not any(bits in packed for bits in raw[1:])
    assert not any(code.encode() in packed for code in shown(codes))
    assert "key=Secret(***)" in repr(record)
    assert repr(codes) == repr((Secret(b""),) * 10)
