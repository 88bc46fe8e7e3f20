"""Exports of Google Authenticator, as an encoder writes them that follows the public description alone."""

from __future__ import annotations

import base64
from contextlib import suppress

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from migration_export import SEED, entry, field, number, payload, uri

from otpbridge.enroll import migration
from otpbridge.enroll.migration import parse
from otpbridge.errors import EnrolError
from otpbridge.model import Algorithm, Kind, OtpParameters


def only(**options):
    """The only account of an export with one."""
    (account,) = parse(uri(payload(entry(**options)))).accounts
    return account


def test_an_account_is_read():
    """With all that its codes depend on."""
    account = only()
    key = account.key
    assert (account.account, account.issuer) == ("alice", "Example")
    assert (key.kind, key.secret.reveal(), key.account, key.issuer) == (Kind.TOTP, SEED, "alice", "Example")
    assert key.parameters == OtpParameters(Algorithm.SHA1, 6, 30)


@pytest.mark.parametrize(
    ("options", "parameters"),
    [
        ({"algorithm": 2}, OtpParameters(Algorithm.SHA256)),
        ({"algorithm": 3, "digits": 2}, OtpParameters(Algorithm.SHA512, 8)),
        ({"algorithm": None, "digits": None}, OtpParameters()),
        ({"algorithm": 0, "digits": 0}, OtpParameters()),
    ],
)
def test_settings_are_read(options, parameters):
    """What is left out or unspecified is SHA1 with 6 digits, as the app takes it."""
    assert only(**options).key.parameters == parameters


def test_a_counter_is_read():
    """The next moving factor of an HOTP account; without one it is 0."""
    assert (only(kind=1, counter=300).key.kind, only(kind=1, counter=300).key.counter) == (Kind.HOTP, 300)
    assert only(kind=1).key.counter == 0


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"algorithm": 4}, "MD5"),
        ({"algorithm": 5}, "hash that is not known"),
        ({"digits": 3}, "digits"),
        ({"digits": 7}, "digits"),
        ({"kind": 0}, "totp or hotp"),
        ({"kind": None}, "totp or hotp"),
        ({"kind": 3}, "totp or hotp"),
        ({"secret": b"short"}, "bytes long"),
        ({"secret": None}, "bytes long"),
        ({"secret": bytes(129)}, "bytes long"),
        ({"name": ""}, "account name"),
        ({"name": "a\nb"}, "account name"),
        ({"name": "a" * 257}, "longer"),
        ({"issuer": "\x1b[2J"}, "issuer"),
        ({"kind": 1, "counter": 2**63}, "negative"),
        ({"secret": None, "more": field(1, 5)}, "wrong type"),
        ({"more": field(1, b"another seed")}, "twice"),
        ({"name": b"\xff\xfe"}, "UTF-8"),
    ],
)
def test_what_cannot_be_taken_is_told_per_account(options, words):
    """And the others of the export can be."""
    export = parse(uri(payload(entry(name="bob"), entry(**options))))
    good, bad = export.accounts
    assert good.key.secret.reveal() == SEED
    assert isinstance(bad.key, EnrolError)
    assert words in str(bad.key)


@pytest.mark.parametrize(
    ("name", "issuer", "expected"),
    [
        ("alice", "Example", ("alice", "Example")),
        ("Example:alice", "Example", ("alice", "Example")),
        ("Example: alice", None, ("alice", "Example")),
        ("alice", None, ("alice", "")),
        ("work:alice", "Example", ("work:alice", "Example")),
        ("Example:", "", ("Example:", "")),
        ("Zoë", "Ünïcode", ("Zoë", "Ünïcode")),
    ],
)
def test_names_are_read(name, issuer, expected):
    """An issuer that stands in the name too is not doubled; one that stands there alone is found."""
    account = only(name=name, issuer=issuer)
    assert (account.account, account.issuer) == expected


def test_a_batch_says_which_it_is():
    """Of several QR codes, this one's number and how many there are."""
    export = parse(uri(payload(entry(), size=3, index=2, batch=987654321)))
    assert (export.batch, export.index, export.size) == (987654321, 2, 3)


def test_other_fields_are_passed_over():
    """Of any wire type, as a later version of the app may write them."""
    more = field(8, "unique") + field(9, 5) + number(10 << 3 | 1) + bytes(8) + number(11 << 3 | 5) + bytes(4)
    assert only(more=more).key.secret.reveal() == SEED


@pytest.mark.parametrize("turn", [str, lambda text: text.replace("%2B", "+").replace("%2F", "/").replace("%3D", "=")])
def test_base64_is_read_as_it_is_written(turn):
    """Escaped or not; of either alphabet, with and without padding."""
    data = payload(entry(secret=b"\xfb\xef\xff" * 7))
    told = turn(uri(data))
    assert parse(told).accounts[0].key.secret.reveal() == b"\xfb\xef\xff" * 7
    other = base64.urlsafe_b64encode(data).decode().rstrip("=")
    assert parse(f"OTPAUTH-migration://Offline?DATA={other}").accounts[0].account == "alice"


GOOD = payload(entry())


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("otpauth://totp/alice?secret=GEZDGNBVGY3TQOJQ", "no export"),
        ("otpauth-migration://online?data=AAAA", "no export"),
        ("otpauth-migration://offline?data=", "0 accounts"),
        ("otpauth-migration://offline?data=A", "base64"),
        ("otpauth-migration://offline?data=AA!A", "base64"),
        ("otpauth-migration://offline?data=%ff%fe", "base64"),
        ("otpauth-migration://offline?data=" + "A" * 4096, "longer"),
        (uri(GOOD[:-1]), "cut off"),
        (uri(GOOD[:30]), "cut off"),
        (uri(GOOD + b"\x07"), "damaged"),
        (uri(GOOD + b"\x0b"), "damaged"),
        (uri(GOOD + b"\x00\x00"), "damaged"),
        (uri(GOOD + b"\xff" * 11), "damaged"),
        (uri(GOOD + number(9 << 3) + b"\xff" * 9 + b"\x7f"), "too large"),
        (uri(GOOD + field(2, 1)), "twice"),
        (uri(field(1, 5)), "wrong type"),
        (uri(field(1, entry()) + field(2, b"x")), "wrong type"),
        (uri(payload(entry(), version=3)), "version"),
        (uri(payload(entry(), size=2, index=2)), "which of its QR codes"),
        (uri(payload(entry(), size=2**31)), "which of its QR codes"),
        (uri(payload(*[entry(secret=b"0123456789", name="a", issuer="") for _ in range(101)])), "101 accounts"),
    ],
)
def test_what_is_wrong_is_told(text, words):
    """In one line, and without anything of the export."""
    with pytest.raises(EnrolError, match=words) as raised:
        parse(text)
    assert "GEZD" not in str(raised.value)
    assert "AAA" not in str(raised.value)


def read_or_refused(text):
    """Parse; nothing but a clear error may come of what is wrong. Whatever is read is whole."""
    accounts = []
    with suppress(EnrolError):
        accounts = parse(text).accounts
    for account in accounts:
        if isinstance(account.key, EnrolError):
            continue
        assert 10 <= len(account.key.secret.reveal()) <= 128
        assert account.key.account
        assert account.key.parameters.digits in {6, 8}
        assert 0 <= account.key.counter < 2**63


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=300))
@example(b"")
def test_any_bytes_are_read_or_refused(data):
    """No message, however broken, is more than a clear error."""
    read_or_refused(uri(data))


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 40), st.integers(0, 255)), min_size=1, max_size=4),
    st.integers(0, len(GOOD)),
)
def test_damaged_exports_are_read_or_refused(changes, end):
    """A good one with some bytes changed, and cut off somewhere."""
    data = bytearray(GOOD)
    for at, value in changes:
        data[at] = value
    read_or_refused(uri(bytes(data[:end])))


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=200))
def test_any_text_is_read_or_refused(text):
    """After the scheme as well as alone."""
    read_or_refused(text)
    read_or_refused(f"otpauth-migration://offline?data={text}")


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.fixed_dictionaries(
            {
                "secret": st.binary(min_size=10, max_size=64),
                "name": st.text("abc déf@.", min_size=1, max_size=20).filter(str.strip),
                "issuer": st.text("ABC", max_size=10),
                "algorithm": st.integers(1, 3),
                "digits": st.integers(1, 2),
                "kind": st.integers(1, 2),
                "counter": st.integers(0, 2**63 - 1),
            }
        ),
        min_size=1,
        max_size=10,
    )
)
def test_what_is_exported_is_what_is_read(accounts):
    """Every account, in its order."""
    read = parse(uri(payload(*[entry(**each) for each in accounts]))).accounts
    assert len(read) == len(accounts)
    for told, meant in zip(read, accounts, strict=True):
        assert told.key.secret.reveal() == meant["secret"]
        assert (told.account, told.issuer) == (meant["name"].strip(" "), meant["issuer"])
        assert told.key.kind is (Kind.HOTP if meant["kind"] == 1 else Kind.TOTP)
        assert told.key.counter == (meant["counter"] if meant["kind"] == 1 else 0)
        assert told.key.parameters.digits == (6 if meant["digits"] == 1 else 8)


def test_no_seed_is_shown():
    """Not by what is read, nor by the messages it was read from."""
    export = parse(uri(payload(entry())))
    shown = repr(export) + repr(migration._Message.read(payload(entry()), "it"))
    assert "1234567890" not in shown
