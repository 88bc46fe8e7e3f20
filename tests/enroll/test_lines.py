"""Lines of `otpbridge import`."""

from __future__ import annotations

import re

import pytest
from migration_export import SEED, entry, payload, uri

from otpbridge.enroll.lines import parse_line
from otpbridge.errors import EnrolError
from otpbridge.model import Kind
from otpbridge.otp.yubiotp import YubiKey, modhex

URI = "otpauth://totp/Example:alice?secret=GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ"
PUBLIC, PRIVATE, KEY = "vvcbdefghijk", "0a1b2c3d4e5f", "00112233445566778899aabbccddeeff"
YUBIKEY = f"{PUBLIC},{PRIVATE},{KEY}"


@pytest.mark.parametrize("end", ["", "\n", "\r\n"])
def test_a_line_is_a_user_and_a_uri(end):
    """A line gives its user and the token of its URI, whatever its line end."""
    line = parse_line(f"alice\t{URI}{end}")
    assert line is not None
    assert (line.user, line.key.kind, line.key.account) == ("alice", Kind.TOTP, "alice")


def test_an_export_of_one_account_is_a_token():
    """Of Google Authenticator, with the counter it is at."""
    line = parse_line(f"alice\t{uri(payload(entry(kind=1, counter=42)))}\n")
    assert line is not None
    assert (line.user, line.key.kind, line.key.counter) == ("alice", Kind.HOTP, 42)
    assert line.key.secret.reveal() == SEED


@pytest.mark.parametrize("drift", [0, 7, -1000])
def test_a_clock_that_is_wrong_may_be_told(drift):
    """In time steps, after the URI; so a token that another server knows goes on at the time that it has."""
    line = parse_line(f"alice\t{URI}\tdrift={drift}\n")
    assert line is not None
    assert (line.user, line.key.account, line.drift) == ("alice", "alice", drift)


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
        (f"alice\t{uri(payload(entry(), entry(name='bob')))}", "2 accounts, and a line is one token"),
        (f"alice\t{uri(payload(entry(algorithm=4)))}", "MD5"),
        ("alice\totpauth-migration://offline?data=AA!A", "base64"),
        (f"1234567,{YUBIKEY},000000000000,2026-01-01T00:00:00,", "names no users"),
        (f"alice\t1234567,{YUBIKEY}", "three fields, not 4"),
        (f"alice\t{YUBIKEY}\t", "nothing may follow"),
        (f"alice\t{URI}\t", "drift=STEPS"),
        (f"alice\t{URI}\t3", "drift=STEPS"),
        (f"alice\t{URI}\tdrift=+3", "drift=STEPS"),
        (f"alice\t{URI}\tdrift=1001", "1000 steps at most"),
        (f"alice\t{URI}\tdrift=-1001", "1000 steps at most"),
        (f"alice\t{URI}\tdrift=1\tdrift=1", "drift=STEPS"),
        (f"alice\t{URI.replace('totp', 'hotp')}&counter=1\tdrift=1", "only the clock of a totp token"),
        (f"alice\t{PUBLIC},{KEY}", "three fields, not 2"),
        (f"alice\t,{PRIVATE},{KEY}", "public id must be modhex"),
        (f"alice\tff0102030405,{PRIVATE},{KEY}", "public id must be modhex"),
        (f"alice\t{'vv' * 17},{PRIVATE},{KEY}", "1 to 16 bytes"),
        (f"alice\t{PUBLIC},{PRIVATE}00,{KEY}", "private id must be 12 hex digits"),
        (f"alice\t{PUBLIC},{PRIVATE},{KEY[:-1]}", "AES key must be 32 hex digits"),
        (f"alice\t{PUBLIC},{PRIVATE},{KEY[:-1]}g", "AES key must be 32 hex digits"),
    ],
)
def test_a_wrong_line_is_refused_without_its_seed(line, words):
    """The message says what is wrong; neither the seed nor an AES key nor a private id is in it."""
    with pytest.raises(EnrolError, match=words) as raised:
        parse_line(line)
    assert not re.search(f"GEZDGNBV|{KEY[:16]}|{PRIVATE[:6]}", str(raised.value))


@pytest.mark.parametrize("line", [YUBIKEY, YUBIKEY.upper(), f" {PUBLIC} , {PRIVATE} , {KEY} "])
def test_a_line_may_be_a_yubico_otp(line):
    """Public id in modhex, private id and AES key in hex, in either case: the key as it was programmed."""
    read = parse_line(f"bob\t{line}\n")
    assert read is not None
    assert isinstance(read.key, YubiKey)
    assert (read.user, modhex(read.key.public_id)) == ("bob", PUBLIC)
    assert (read.key.private_id.reveal().hex(), read.key.aes_key.reveal().hex()) == (PRIVATE, KEY)
    assert not re.search(f"{KEY[:16]}|{PRIVATE[:6]}", repr(read))


def test_a_key_does_not_show_its_seed():
    """The repr of a line read has no seed in it."""
    shown = repr(parse_line(f"alice\t{URI}"))
    assert "Secret(***)" in shown
    assert "GEZDGNBV" not in shown
    assert "12345678901234567890" not in shown
