"""`otpbridge import` of a PSKC file: what is asked for, what is sent, and what is told of keys that are not taken."""

from __future__ import annotations

import re

import pskc_files as files
import pytest
from pskc_files import PASSPHRASE, PRESHARED, TOTP, clock, file, package

from otpbridge.enroll.lines import parse_line
from otpbridge.wire.messages import Import, ImportReply, LineError

BASE32 = "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ"
SECRETS = re.compile(f"{BASE32}|MTIzNDU2|{PRESHARED.hex()}|{PASSPHRASE}|12345678901234567890")
TWO = file(
    package("1001", "a", after="<UserId>alice</UserId>"),
    package("1002", "b", algorithm=TOTP, seed=b"b" * 20, counter=None, more=clock(interval=60, drift=-3)),
)


@pytest.fixture
def there(tmp_path):
    """Write a file; return its path."""

    def write(name, content):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


@pytest.fixture
def taking(daemon):
    """A daemon that takes all."""
    daemon.answers[Import] = lambda request: ImportReply(imported=len(request.lines), errors=())
    return daemon


def sent(daemon):
    """What the daemon was told, as it reads it."""
    return [parse_line(line) for request in daemon.requests() for line in request.lines]


def test_each_token_goes_to_its_user(taking, otpbridge, there):
    """By the list of serial numbers; label, hash, digits, time step and drift are those of the file."""
    users = there("users.csv", "serial,user\n1001,carol\n1002,dave\n")
    said = otpbridge("import", there("keys.xml", TWO), "--users", users, "--client", "acme", "--pending")
    assert (said.code, said.err) == (0, "")
    assert said.out == "2 tokens were imported.\n"
    carol, dave = sent(taking)
    assert [(line.user, line.key.account, line.drift) for line in (carol, dave)] == [
        ("carol", "1001", 0),
        ("dave", "1002", -3),
    ]
    assert (dave.key.parameters.period, dave.key.parameters.digits) == (60, 8)
    (request,) = taking.requests()
    assert (request.client, request.pending, request.last) == ("acme", True, True)


def test_a_token_without_a_user_stops_the_import(taking, otpbridge, there):
    """The file names a user for one of two: the other is told by line and serial number, and nothing is sent."""
    path = there("keys.xml", TWO)
    said = otpbridge("import", path)
    assert (said.code, said.out) == (1, "")
    assert said.err.startswith(
        "line 9, serial number 1002: the file names no user for it; say whose it is with --users\n"
    )
    assert "nothing was imported" in said.err
    assert taking.calls == []
    (error,) = otpbridge("--json", "import", path).json["errors"]
    assert (error["line"], error["serial"]) == (9, "1002")
    users = there("users.csv", "serial,user\n1001,carol\n")
    assert otpbridge("import", path, "--users", users).code == 1
    assert taking.calls == []
    assert otpbridge("--json", "import", path, "--users", users, "--only-listed").json == {
        "imported": 1,
        "errors": [],
    }


@pytest.mark.parametrize(
    ("data", "option", "content"),
    [
        (files.FIGURE_6, "--key-file", PRESHARED.hex()),
        (files.FIGURE_6, "--key-file", "1234 5678 9012 3456\n7890 1234 5678 9012\n"),
        (files.FIGURE_7, "--passphrase-file", f"{PASSPHRASE}\r\nnot this\n"),
    ],
)
def test_a_file_is_opened_by_its_key_or_passphrase(  # noqa: PLR0917 - fixtures and a case
    taking, otpbridge, there, data, option, content
):
    """From a file, from standard input by `-`, or asked for; none of it shows."""
    users, path = there("users.csv", "serial,user\n987654321,alice\n"), there("keys.xml", data)
    secret = there("secret", content)
    runs = [
        otpbridge("import", path, "--users", users, option, secret),
        otpbridge("import", path, "--users", users, option, "-", stdin=content),
        otpbridge(
            "import", path, "--users", users, stdin=content.replace("\n", "", 1) if "3456" in content else content
        ),
    ]
    assert [(said.code, said.err) for said in runs] == [(0, "")] * 3
    assert len(sent(taking)) == 3
    assert not SECRETS.search("".join(said.out + said.err for said in runs))


@pytest.mark.parametrize(
    ("data", "options", "code", "words"),
    [
        (files.FIGURE_6, {"--key-file": "00" * 16}, 1, "does not open"),
        (files.FIGURE_6, {"--key-file": "00" * 32}, 1, "32 bytes, and the file is encrypted with one of 16"),
        (files.FIGURE_6, {"--key-file": "x" * 32}, 2, "hex digits"),
        (files.FIGURE_6, {"--key-file": ""}, 2, "hex digits"),
        (
            files.FIGURE_6,
            {"--passphrase-file": "x"},
            2,
            "by a key, not by a passphrase; leave out --passphrase-file",
        ),
        (files.FIGURE_6, {}, 2, "standard input is at its end"),
        (files.FIGURE_7, {"--passphrase-file": "wrong"}, 1, "does not open"),
        (files.FIGURE_7, {"--passphrase-file": "\n"}, 2, "no passphrase"),
        (files.FIGURE_7, {"--key-file": "00" * 16}, 2, "by a passphrase, not by a key; leave out --key-file"),
        (files.FIGURE_3, {"--key-file": "00" * 16}, 2, "not encrypted; leave out --key-file"),
        (files.FIGURE_3, {"--users": "serial,user\n1,alice\n"}, 1, "not in the file: 1"),
        (files.FIGURE_3, {"--users": b"\xff"}, 1, "not UTF-8"),
        (files.FIGURE_3[:-40], {}, 1, "no sound XML"),
        (b"alice\totpauth://totp/a\n", {"--users": "serial,user\n1,alice\n"}, 2, "no PSKC file"),
    ],
)
def test_what_does_not_fit_sends_nothing(  # noqa: PLR0917 - fixtures and a case
    taking, otpbridge, there, data, options, code, words
):
    """A wrong key, an option for another kind of file, a file cut off: told, with no secret in it."""
    given = [
        part for number, (name, content) in enumerate(options.items()) for part in (name, there(str(number), content))
    ]
    said = otpbridge("import", there("keys.xml", data), *given)
    assert (said.code, said.out) == (code, "")
    assert words in said.err
    assert not SECRETS.search(said.err)
    assert taking.calls == []


def test_only_listed_needs_a_list(taking, otpbridge, there):
    """Without one it would take nothing."""
    assert otpbridge("import", there("keys.xml", TWO), "--only-listed").code == 2
    assert taking.calls == []


def test_digits_are_for_keys_that_say_none(taking, otpbridge, there):
    """They do not overrule the file."""
    after = "<UserId>alice</UserId>"
    data = file(package("1", parameters=None, after=after), package("2", seed=b"b" * 20, after=after))
    path = there("keys.xml", data)
    assert "--digits" in otpbridge("import", path).err
    assert otpbridge("import", path, "--digits", 6).code == 0
    assert [line.key.parameters.digits for line in sent(taking)] == [6, 8]


def test_what_the_daemon_refuses_is_told_by_serial_number(daemon, otpbridge, there):
    """A seed that is a token already: the line and number are those of the PSKC file, not of what was sent."""
    daemon.answers[Import] = ImportReply(
        imported=0, errors=(LineError(line=2, reason="a token already"), LineError(line=0, reason="rotated"))
    )
    users = there("users.csv", "serial,user\n1001,carol\n1002,dave\n")
    said = otpbridge("import", there("keys.xml", TWO), "--users", users)
    assert said.code == 1
    assert said.err.startswith("line 0: rotated\nline 9, serial number 1002: a token already\n")


def test_what_nobody_sees_to_is_said(taking, otpbridge, there):
    """A date after which a token may not be used, and a signature that nobody has checked."""
    policy = "<Policy><ExpiryDate>2987-12-31T00:00:00Z</ExpiryDate></Policy>"
    data = file(
        package(after="<UserId>alice</UserId>" + policy),
        '<x:Signature xmlns:x="http://www.w3.org/2000/09/xmldsig#"/>',
    )
    said = otpbridge("--json", "import", there("keys.xml", data))
    assert (said.code, said.json["imported"]) == (0, 1)
    assert "signed" in said.err
    assert "2987-12-31" in said.err
    nobody = otpbridge("import", there("keys.xml", data.replace(b"<UserId>alice</UserId>", b"")))
    assert (nobody.code, "signed" in nobody.err) == (1, False)


def test_a_serial_number_cannot_steer_the_terminal(taking, otpbridge, there):
    """Nor can anything else that a file says."""
    said = otpbridge("import", there("keys.xml", file(package("&#x9b;31m"), package("&#x202e;", "2"))))
    assert said.code == 1
    assert said.err.isascii()


def test_standard_input_may_be_the_file(taking, otpbridge):
    """With a byte order mark, too."""
    assert otpbridge("import", "-", stdin="\ufeff" + files.FIGURE_3.decode()).code == 0
    assert [line.user for line in sent(taking)] == ["jsmith"]
