"""Lines of `otpbridge import`."""

from __future__ import annotations

import pytest

from otpbridge.enroll.lines import parse_line
from otpbridge.errors import EnrolError
from otpbridge.model import Kind

URI = "otpauth://totp/Example:alice?secret=GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ"


@pytest.mark.parametrize("end", ["", "\n", "\r\n"])
def test_a_line_is_a_user_and_a_uri(end):
    """A line gives its user and the token of its URI, whatever its line end."""
    line = parse_line(f"alice\t{URI}{end}")
    assert line is not None
    assert (line.user, line.key.kind, line.key.account) == ("alice", Kind.TOTP, "alice")


@pytest.mark.parametrize("line", ["", "\n", "   \r\n", "# a comment\n"])
def test_empty_lines_and_comments_mean_nothing(line):
    """A file may have empty lines and comments."""
    assert parse_line(line) is None


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (f"alice {URI}", "no tab"),
        (f"\t{URI}", "no user"),
        (f"al\x07ice\t{URI}", "user name"),
        (f"{'a' * 257}\t{URI}", "longer than 256 bytes"),
        ("alice\t", "not an otpauth URI"),
        (f"alice\tExample\t{URI}", "not an otpauth URI"),
    ],
)
def test_a_wrong_line_is_refused_without_its_seed(line, words):
    """The message says what is wrong; the seed is not in it."""
    with pytest.raises(EnrolError, match=words) as raised:
        parse_line(line)
    assert "GEZDGNBV" not in str(raised.value)


def test_a_key_does_not_show_its_seed():
    """The repr of a line read has no seed in it."""
    shown = repr(parse_line(f"alice\t{URI}"))
    assert "Secret(***)" in shown
    assert "GEZDGNBV" not in shown
    assert "12345678901234567890" not in shown
