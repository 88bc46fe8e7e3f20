"""otpauth URIs: built so that every authenticator reads them alike, and read strictly."""

from __future__ import annotations

import contextlib
import hashlib
import string
from urllib.parse import unquote

import pyotp
import pytest
from hypothesis import given
from hypothesis import strategies as st

from otpbridge.enroll.otpauth import OtpauthKey, build, parse
from otpbridge.enroll.seeds import from_base32, to_base32
from otpbridge.errors import EnrolError
from otpbridge.model import Algorithm, Kind, OtpParameters, Secret

SEED = b"12345678901234567890"
MISREAD = "&?+%=#:"
BASE32 = "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ"


def a_key(**changes):
    values = {
        "kind": Kind.TOTP,
        "secret": Secret(SEED),
        "parameters": OtpParameters(),
        "account": "alice",
        "issuer": "Example",
    }
    return OtpauthKey(**{**values, **changes})


def same(one, other):
    """Compare two keys, seeds included (a Secret compares by identity)."""
    fields = ("kind", "parameters", "account", "issuer", "counter")
    return one.secret.reveal() == other.secret.reveal() and all(
        getattr(one, name) == getattr(other, name) for name in fields
    )


def test_a_uri_names_issuer_account_and_all_parameters():
    """The label is `Issuer:account`, the issuer stands beside it, and no parameter is left to guess."""
    assert build(a_key()) == (
        f"otpauth://totp/Example:alice?secret={BASE32}&issuer=Example&algorithm=SHA1&digits=6&period=30"
    )


def test_a_counter_token_has_its_counter_and_no_period():
    """An HOTP URI says where its counter starts."""
    uri = build(a_key(kind=Kind.HOTP, counter=7))
    assert uri.startswith("otpauth://hotp/Example:alice?")
    assert uri.endswith("&counter=7")
    assert "period" not in uri


def test_spaces_and_other_letters_are_escaped():
    """A space is %20 and never +, other letters are UTF-8."""
    uri = build(a_key(issuer="Caf\u00e9 Nord", account="zo\u00eb@example.org"))
    assert "Caf%C3%A9%20Nord:zo%C3%AB@example.org" in uri
    assert "+" not in uri


letters = st.text(
    st.characters(codec="utf-8", categories=("L", "N", "P", "S", "Zs"), exclude_characters=MISREAD),
    max_size=20,
).map(str.strip)
keys = st.builds(
    OtpauthKey,
    kind=st.sampled_from([Kind.TOTP, Kind.HOTP]),
    secret=st.binary(min_size=14, max_size=128).map(Secret),
    parameters=st.builds(
        OtpParameters,
        algorithm=st.sampled_from(Algorithm),
        digits=st.integers(6, 8),
        period=st.integers(15, 120),
    ),
    account=letters.filter(bool),
    issuer=letters,
)


def fits(key):
    return len(f"999/{key.issuer}:{key.account}".encode()) <= 64 and all(
        text.isprintable() for text in (key.issuer, key.account)
    )


@given(keys.filter(fits))
def test_pyotp_reads_what_we_build(key):
    """Whatever the names, seed and parameters: pyotp finds the same in the URI."""
    peer = pyotp.parse_uri(build(key))
    assert type(peer) is {Kind.TOTP: pyotp.TOTP, Kind.HOTP: pyotp.HOTP}[key.kind]
    assert peer.byte_secret() == key.secret.reveal()
    assert (peer.name, peer.issuer or "") == (key.account, key.issuer)
    assert (peer.digits, peer.digest) == (
        key.parameters.digits,
        getattr(hashlib, key.parameters.algorithm.lower()),
    )
    if key.kind is Kind.TOTP:
        assert peer.interval == key.parameters.period
    else:
        assert peer.initial_count == key.counter


@given(keys.filter(fits))
def test_we_read_what_we_build(key):
    """A URI that was built is read back without a change."""
    read = parse(build(key))
    period = key.parameters.period if key.kind is Kind.TOTP else 30
    parameters = OtpParameters(key.parameters.algorithm, key.parameters.digits, period)
    assert same(read, OtpauthKey(key.kind, key.secret, parameters, key.account, key.issuer, key.counter))


@given(keys.filter(fits))
def test_a_uri_decoded_before_it_is_parsed_means_the_same(key):
    """WinAuth decodes the URI first and parses then: nothing may change by that, nor look like a web address."""
    uri = unquote(build(key))
    label, query = uri.removeprefix(f"otpauth://{key.kind}/").split("?")
    assert label == (f"{key.issuer}:{key.account}" if key.issuer else key.account)
    fields = dict(part.split("=") for part in query.split("&"))
    assert fields["secret"] == to_base32(key.secret)
    assert fields.get("issuer", "") == key.issuer
    assert "image" not in fields
    assert "#" not in uri


@given(keys.filter(fits).filter(lambda key: key.kind is Kind.TOTP))
def test_we_read_what_pyotp_builds(key):
    """A URI from pyotp is read with the same meaning."""
    peer = pyotp.TOTP(
        to_base32(key.secret),
        digits=key.parameters.digits,
        digest=getattr(hashlib, key.parameters.algorithm.lower()),
        interval=key.parameters.period,
        name=key.account,
        issuer=key.issuer or None,
    )
    assert same(parse(peer.provisioning_uri()), key)


@pytest.mark.parametrize("character", MISREAD)
@pytest.mark.parametrize("field", ["account", "issuer"])
def test_characters_that_authenticators_misread_are_refused(field, character):
    """A name that WinAuth or Yubico Authenticator would break is refused, and the message says which character."""
    with pytest.raises(EnrolError, match=f"holds \\{character},"):
        build(a_key(**{field: f"a{character}b"}))


@pytest.mark.parametrize("name", ["a\nb", "a\0b", "a\u202eb", "a\tb", " a", "a "])
def test_names_that_cannot_be_shown_are_refused(name):
    """Control characters, text direction marks and spaces around are refused."""
    with pytest.raises(EnrolError, match="account name"):
        build(a_key(account=name))


def test_a_token_without_a_name_is_refused():
    """An authenticator needs something to show."""
    with pytest.raises(EnrolError, match="empty"):
        build(a_key(account=""))


@pytest.mark.parametrize(
    ("kind", "period", "issuer", "room"),
    [
        (Kind.TOTP, 30, "Example", 64 - len("Example:")),
        (Kind.TOTP, 60, "Example", 64 - len("60/Example:")),
        (Kind.TOTP, 900, "", 64 - len("900/")),
        (Kind.TOTP, 30, "", 64),
        (Kind.HOTP, 60, "Example", 64 - len("Example:")),
    ],
)
def test_issuer_and_account_fit_on_a_yubikey(kind, period, issuer, room):
    """Period, issuer and account may take 64 bytes of UTF-8 together, and not one more."""
    parameters = OtpParameters(period=period)
    build(a_key(kind=kind, parameters=parameters, issuer=issuer, account="a" * room))
    build(a_key(kind=kind, parameters=parameters, issuer=issuer, account="\u00e4" * (room // 2)))
    with pytest.raises(EnrolError, match=r"take 65 bytes.*shorter"):
        build(a_key(kind=kind, parameters=parameters, issuer=issuer, account="a" * (room + 1)))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"parameters": OtpParameters(digits=5)}, "digits must be 6, 7 or 8"),
        ({"parameters": OtpParameters(period=14)}, "period must be 15 to 900"),
        ({"parameters": OtpParameters(period=901)}, "period must be 15 to 900"),
        ({"parameters": OtpParameters(t0=5)}, "T0"),
        ({"secret": Secret(b"short")}, "5 bytes long"),
    ],
)
def test_parameters_out_of_range_are_refused(change, words):
    """What authenticators cannot compute is not put in a QR code."""
    with pytest.raises(EnrolError, match=words):
        build(a_key(**change))


READ = {
    "plain": ("otpauth://totp/alice?secret=" + BASE32, {"issuer": ""}),
    "issuer in the label": (f"otpauth://totp/Example:alice?secret={BASE32}", {}),
    "space after the colon": (f"otpauth://totp/Example:%20alice?secret={BASE32}", {}),
    "escaped colon": (f"otpauth://totp/Example%3Aalice?secret={BASE32}", {}),
    "issuer beside it": (f"otpauth://totp/alice?secret={BASE32}&issuer=Example", {}),
    "the parameter wins": (f"otpauth://totp/Other:alice?secret={BASE32}&issuer=Example", {}),
    "lower case": (f"OTPAUTH://TOTP/Example:alice?secret={BASE32.lower()}&algorithm=sha1", {}),
    "with a picture": (f"otpauth://totp/Example:alice?secret={BASE32}&image=https%3A%2F%2Fx.test%2Fa.png", {}),
    "SHA256": (
        f"otpauth://totp/Example:alice?secret={BASE32}&algorithm=SHA256&digits=8&period=60",
        {"parameters": OtpParameters(Algorithm.SHA256, 8, 60)},
    ),
    "hotp": (
        f"otpauth://hotp/Example:alice?secret={BASE32}&counter=42",
        {"kind": Kind.HOTP, "counter": 42},
    ),
    "what authenticators misread": (
        f"otpauth://totp/Example:alice%2Btest%26co?secret={BASE32}",
        {"account": "alice+test&co"},
    ),
}


@pytest.mark.parametrize(("uri", "changes"), READ.values(), ids=READ)
def test_uris_from_elsewhere_are_read(uri, changes):
    """The ways in which other software writes URIs are understood."""
    assert same(parse(uri), a_key(**changes))


PARTS = f"otpauth://totp/Example:alice?secret={BASE32}"
REFUSED = {
    "empty": ("", "not an otpauth URI"),
    "web address": (f"https://x.test/?secret={BASE32}", "not an otpauth URI"),
    "no kind": (f"otpauth:///alice?secret={BASE32}", "start with otpauth://totp/"),
    "other kind": (f"otpauth://steam/alice?secret={BASE32}", "start with otpauth://totp/"),
    "kind without codes": (f"otpauth://password/alice?secret={BASE32}", "start with otpauth://totp/"),
    "no label": (f"otpauth://totp?secret={BASE32}", "start with otpauth://totp/"),
    "empty label": (f"otpauth://totp/?secret={BASE32}", "no account name"),
    "issuer alone": (f"otpauth://totp/Example:?secret={BASE32}", "no account name"),
    "no secret": ("otpauth://totp/alice?digits=6", "no secret"),
    "empty secret": ("otpauth://totp/alice?secret=", "not base32"),
    "hex secret": ("otpauth://totp/alice?secret=3132333435363738393031323334353637383930", "not base32"),
    "padding inside": ("otpauth://totp/alice?secret=GEZDGNBV====GY3TQOJQ", "not base32"),
    "impossible length": (f"otpauth://totp/alice?secret={BASE32[:-5]}", "not base32"),
    "short secret": ("otpauth://totp/alice?secret=GEZDGNBVGY3TQ", "8 bytes long"),
    "long secret": (f"otpauth://totp/alice?secret={BASE32 * 7}", "140 bytes long"),
    "unknown hash": (f"{PARTS}&algorithm=MD5", "algorithm must be"),
    "dashed hash": (f"{PARTS}&algorithm=SHA-256", "algorithm must be"),
    "five digits": (f"{PARTS}&digits=5", "digits must be"),
    "digits in words": (f"{PARTS}&digits=six", "digits must be"),
    "full-width digits": (f"{PARTS}&digits=%EF%BC%96", "digits must be"),
    "negative period": (f"{PARTS}&period=-30", "period must be"),
    "zero period": (f"{PARTS}&period=0", "period must be"),
    "long period": (f"{PARTS}&period=3600", "period must be"),
    "huge period": (f"{PARTS}&period={'9' * 4000}", "longer than|period must be"),
    "hotp without counter": (f"otpauth://hotp/alice?secret={BASE32}", "no counter"),
    "negative counter": (f"otpauth://hotp/alice?secret={BASE32}&counter=-1", "counter must be"),
    "huge counter": (f"otpauth://hotp/alice?secret={BASE32}&counter=9223372036854775808", "counter must be"),
    "two secrets": (f"{PARTS}&secret={BASE32}", "secret twice"),
    "unknown parameter": (f"{PARTS}&encoder=steam", "not known"),
    "secret in place of a name": (f"otpauth://totp/alice?{BASE32}", "not known"),
    "control character": (f"otpauth://totp/ali%07ce?secret={BASE32}", "cannot be shown"),
    "not UTF-8": (f"otpauth://totp/ali%FFce?secret={BASE32}", "not UTF-8"),
    "64 KiB": (f"{PARTS}&image={'x' * 65536}", "longer than"),
    "long name": (f"otpauth://totp/{'a' * 300}?secret={BASE32}", "longer than 256"),
}


@pytest.mark.parametrize(("uri", "words"), REFUSED.values(), ids=REFUSED)
def test_a_wrong_uri_is_refused_and_its_seed_not_repeated(uri, words):
    """The message says what is wrong and holds nothing of the URI, nor does the traceback's cause."""
    with pytest.raises(EnrolError, match=words) as raised:
        parse(uri)
    error = raised.value
    told = f"{error!r} {error.__cause__!r} {error.__context__ if not error.__suppress_context__ else ''}"
    assert BASE32 not in told.upper()
    assert "3132333435" not in told


@given(st.text(max_size=200) | st.text(string.printable, max_size=60).map("otpauth://totp/a?secret=".__add__))
def test_any_text_is_read_or_refused(text):
    """Whatever is given: a key or an EnrolError, nothing else."""
    with contextlib.suppress(EnrolError):
        parse(text)


@given(st.binary(min_size=10, max_size=128))
def test_base32_goes_both_ways(seed):
    """A seed written as base32 is unpadded upper case and read back as it was."""
    text = to_base32(Secret(seed))
    assert text == text.upper().rstrip("=")
    assert from_base32(text).reveal() == from_base32(text.lower()).reveal() == seed
