"""What keys can hold, which of them is meant, and what key and store say of each other."""

from __future__ import annotations

import pytest
from yubikit.oath import HASH_ALGORITHM, OATH_TYPE, CredentialData, _parse_cred_id

from otpbridge.cli.yubikey_match import Finding, compare
from otpbridge.devices.keys import (
    Account,
    Found,
    Key,
    NewAccount,
    Unreadable,
    account_id,
    check_name,
    check_new,
    choose,
    key_issuer,
    read_id,
)
from otpbridge.errors import CannotError, DeviceBusyError, ManyDevicesError, NoDeviceError
from otpbridge.model import Algorithm, Kind, OtpParameters, Secret, State
from otpbridge.wire.messages import TokenFields

READER = "Yubico YubiKey OTP+FIDO+CCID 00 00"
NAMES = [
    (Kind.TOTP, "Example", "alice", 30),
    (Kind.TOTP, "", "alice", 60),
    (Kind.TOTP, "Example", "alice", 15),
    (Kind.HOTP, "Example", "alice", 30),
    (Kind.HOTP, "", "15/alice", 30),
    (Kind.TOTP, "Beispiel", "jürgen", 30),
]


def key(serial=12345678, firmware=(5, 7, 1)):
    """A key."""
    return Key(serial, "YubiKey 5 NFC", firmware, "Keychain (USB-A)", oath=True, reader=READER)


def new(**changes):
    """An account."""
    values = {"algorithm": Algorithm.SHA1, "touch": False, **changes}
    parameters = OtpParameters(algorithm=values.pop("algorithm"))
    return NewAccount(Kind.TOTP, "alice", "Example", parameters, Secret(bytes(20)), **values)


@pytest.mark.parametrize(("kind", "issuer", "name", "period"), NAMES)
def test_names_are_written_and_read_as_yubicos_software_does(kind, issuer, name, period):
    """What we keep an account under is what ykman would, and we read it as ykman reads it."""
    types = {Kind.TOTP: OATH_TYPE.TOTP, Kind.HOTP: OATH_TYPE.HOTP}
    data = CredentialData(name, types[kind], HASH_ALGORITHM.SHA1, b"", period=period, issuer=issuer or None)
    assert account_id(kind, issuer, name, period) == data.get_id()
    theirs = _parse_cred_id(data.get_id(), types[kind])
    assert read_id(kind, data.get_id())[:2] == (theirs[0] or "", theirs[1])
    check_name(kind, issuer, name, period)


@pytest.mark.parametrize(
    ("issuer", "name"),
    [("", "15/foo"), ("15/Example", "foo"), ("", "a:b"), ("A:B", "c"), ("", ""), ("Example", "")],
)
def test_a_name_that_would_be_read_back_differently_is_refused(issuer, name):
    """A key that would show codes of another period, or another name, is never written."""
    with pytest.raises(CannotError):
        check_name(Kind.TOTP, issuer, name, 30)


def test_the_bytes_of_a_whole_name_count():
    """64 bytes fit, 65 do not, whatever the number of letters; the period counts where it is written."""
    check_name(Kind.TOTP, "x" * 31, "ü" * 16, 30)
    for issuer, name, period in [("x" * 32, "ü" * 16, 30), ("x" * 31, "ü" * 16, 60)]:
        with pytest.raises(CannotError, match="64 bytes"):
            check_name(Kind.TOTP, issuer, name, period)
    assert key_issuer("A: B:C") == "A BC"


@pytest.mark.parametrize(
    ("firmware", "changes", "fits"),
    [
        ((4, 3, 0), {"algorithm": Algorithm.SHA512}, False),
        ((4, 3, 1), {"algorithm": Algorithm.SHA512}, True),
        ((4, 2, 5), {"touch": True}, False),
        ((4, 2, 6), {"touch": True}, True),
        ((4, 2, 5), {}, True),
    ],
)
def test_what_an_old_key_cannot_do_is_told(firmware, changes, fits):
    """SHA512 and touch are refused by firmware, with the version that would do."""
    if fits:
        check_new(key(firmware=firmware), new(**changes))
        return
    with pytest.raises(CannotError, match=r"firmware 4\.\d\.\d"):
        check_new(key(firmware=firmware), new(**changes))


@pytest.mark.parametrize(("firmware", "room"), [((3, 4, 0), None), ((5, 6, 3), 32), ((5, 7, 0), 64)])
def test_room_goes_by_firmware(firmware, room):
    """32 accounts, 64 from 5.7.0 on; older than 4 it depends on their size."""
    assert key(firmware=firmware).capacity == room


def test_a_key_is_chosen_only_where_there_is_no_doubt():
    """One key is taken; of several one has to be named; a key that cannot be read is not passed over."""
    first, second = key(), key(22222222)
    busy = Unreadable(READER, DeviceBusyError("in use"))
    assert choose(Found((first,)), None) == first
    assert choose(Found((first, second)), 22222222) == second
    for found, serial, error in [
        (Found((first, second)), None, ManyDevicesError),
        (Found((first,), (busy,)), None, ManyDevicesError),
        (Found((), (busy,)), None, DeviceBusyError),
        (Found((first,), (busy,)), 1, DeviceBusyError),
        (Found((first,)), 1, NoDeviceError),
        (Found(()), None, NoDeviceError),
    ]:
        with pytest.raises(error):
            choose(found, serial)


def token(**changes):
    """A token as the daemon tells of it."""
    values = {"id": "t1", "kind": Kind.TOTP, "state": State.ACTIVE, "label": "alice", "serials": ("12345678",)}
    return TokenFields(user="alice", client="local", issuer="Example", drift=0, created_at=0, **values | changes)


ACCOUNT = Account(b"Example:alice", Kind.TOTP, "alice", "Example")


@pytest.mark.parametrize(
    ("accounts", "tokens", "findings"),
    [
        ([ACCOUNT], [token()], [Finding.MATCHES]),
        ([ACCOUNT], [token(serials=None)], [Finding.NOT_RECORDED]),
        ([ACCOUNT], [token(serials=("1",)), token(id="t2")], [Finding.MATCHES]),
        ([ACCOUNT], [token(state=State.PENDING, serials=None)], [Finding.PENDING]),
        ([ACCOUNT], [token(state=State.DISABLED)], [Finding.DISABLED]),
        ([ACCOUNT], [token(state=State.REVOKED), token(id="t2", serials=None)], [Finding.REVOKED]),
        ([ACCOUNT], [token(kind=Kind.HOTP, serials=None)], [Finding.UNKNOWN]),
        ([ACCOUNT], [], [Finding.UNKNOWN]),
        ([], [token()], [Finding.MISSING]),
        ([], [token(kind=Kind.YUBIOTP)], [Finding.SLOT]),
        ([], [token(state=State.REVOKED), token(serials=("1",))], []),
    ],
)
def test_key_and_store_are_held_against_each_other(accounts, tokens, findings):
    """What is on a key and what the store believes, with every way that they differ."""
    assert [row.finding for row in compare(key(), accounts, tokens)] == findings
