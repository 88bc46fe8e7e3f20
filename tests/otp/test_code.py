"""What people type is read, and all else is refused the same way."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otpbridge.otp.code import LONGEST, parse_code

TYPED = {
    "123456": "as shown",
    "123 456": "grouped with a space",
    "123-456": "grouped with a dash",
    "12 34 56": "grouped by two",
    " 123456 ": "with spaces around",
    "1 2 3 4 5 6": "digit by digit",
    "123 - 456": "with a dash between spaces",
}

REFUSED = {
    "empty": "",
    "spaces": "      ",
    "dashes": "------",
    "five digits": "12345",
    "seven digits": "1234567",
    "eight digits": "12345678",
    "letter": "12345a",
    "full-width": "\uff11\uff12\uff13\uff14\uff15\uff16",
    "one full-width": "12345\uff16",
    "arabic-indic": "\u0661\u0662\u0663\u0664\u0665\u0666",
    "superscript": "12345\u00b2",
    "line end": "123456\n",
    "tab": "123\t456",
    "no-break space": "123\u00a0456",
    "underscore": "123_456",
    "dot": "123.456",
    "plus": "+123456",
    "minus": "-123456",
    "trailing dash": "123456-",
    "hexadecimal": "0x1234",
    "exponent": "1e5000",
    "NUL": "123456\0",
    "unpaired surrogate": "12345\ud800",
    "64 KiB of digits": "1" * 65536,
    "64 KiB of spaces": " " * 65536,
    "code behind spaces": " " * LONGEST + "123456",
}


@pytest.mark.parametrize("text", TYPED, ids=TYPED.values())
def test_a_code_is_read_however_it_is_grouped(text):
    """A right code is taken with the spaces and dashes that authenticators show."""
    assert parse_code(text, 6) == 123456


@pytest.mark.parametrize("text", REFUSED.values(), ids=REFUSED)
def test_odd_input_is_refused_the_same_way(text):
    """Whatever else is typed is no code; nothing raises."""
    assert parse_code(text, 6) is None


def test_seven_digits_are_a_code_where_seven_are_wanted():
    """The number of digits is the token's, not the typist's."""
    assert parse_code("1234567", 7) == 1234567
    assert parse_code("1234567", 8) is None


def test_leading_zeros_count_as_digits():
    """A code of zeros is a number of the right length."""
    assert parse_code("000007", 6) == 7
    assert parse_code("7", 6) is None


def test_input_of_the_greatest_length_is_still_read():
    """Up to 64 characters are looked at."""
    assert parse_code("123456".rjust(LONGEST), 6) == 123456
    assert parse_code("123456".rjust(LONGEST + 1), 6) is None


@given(st.text(max_size=100), st.integers(6, 8))
def test_only_digits_spaces_and_dashes_are_ever_read(text, digits):
    """Any text gives a number or nothing, and a number only from its own ASCII digits."""
    value = parse_code(text, digits)
    if value is not None:
        assert set(text) <= set("0123456789 -")
        assert f"{value:0{digits}d}" == "".join(filter(str.isdigit, text))
