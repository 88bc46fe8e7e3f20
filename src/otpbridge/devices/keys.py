"""Keys and the accounts on them in our own terms, and what they can hold. Nothing here does I/O."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from otpbridge.errors import CannotError, DeviceError, ManyDevicesError, NoDeviceError
from otpbridge.model import Algorithm, Kind, OtpParameters, Secret

LONGEST_ID = 64
"""Bytes of UTF-8 that a key keeps for `["period/"]["issuer:"]name`."""
USUAL_PERIOD = 30
"""Seconds; the period that is not written before the name."""
_SHA512_SINCE = (4, 3, 1)
_TOUCH_SINCE = (4, 2, 6)
_RENAME_SINCE = (5, 3, 1)
_ROOM = 32
_MORE_ROOM = 64
_MORE_ROOM_SINCE = (5, 7, 0)
_FIRST_WITH_FIXED_ROOM = (4, 0, 0)
_COUNTERS = range(2**32)
"""Moving factors that an account can be put on a key with."""
_STEAM = "Steam"
_TOTP_ID = re.compile(r"((\d+)/)?(([^:]+):)?(.+)", re.DOTALL)

Firmware = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Key:
    """A key that is plugged in. Old ones, and those told so, do not say their serial number."""

    serial: int | None
    model: str
    firmware: Firmware
    form_factor: str
    oath: bool
    """Whether its OATH application is switched on."""
    reader: str
    """What pcscd calls it."""

    def __str__(self) -> str:
        return f"{self.model} without a serial number" if self.serial is None else f"{self.model} {self.serial}"

    @property
    def version(self) -> str:
        """Its firmware as it is written."""
        return ".".join(map(str, self.firmware))

    @property
    def capacity(self) -> int | None:
        """How many OATH accounts it holds; None where that depends on their size."""
        if self.firmware < _FIRST_WITH_FIXED_ROOM:
            return None
        return _MORE_ROOM if self.firmware >= _MORE_ROOM_SINCE else _ROOM


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A key that is plugged in and could not be read."""

    reader: str
    error: DeviceError


@dataclass(frozen=True, slots=True)
class Found:
    """What is plugged in."""

    keys: tuple[Key, ...]
    unreadable: tuple[Unreadable, ...] = ()


@dataclass(frozen=True, slots=True)
class Account:
    """An account in the OATH application of a key. `touch` is None where the key does not tell."""

    id: bytes
    kind: Kind
    name: str
    issuer: str = ""
    period: int = USUAL_PERIOD
    touch: bool | None = None

    def __str__(self) -> str:
        return f"{self.issuer}:{self.name}" if self.issuer else self.name


@dataclass(frozen=True, slots=True)
class NewAccount:
    """An account to be put on a key."""

    kind: Kind
    name: str
    issuer: str
    parameters: OtpParameters
    secret: Secret = field(repr=False)
    counter: int = 0
    touch: bool = False

    @property
    def id(self) -> bytes:
        """What the key keeps it under."""
        return account_id(self.kind, self.issuer, self.name, self.parameters.period)

    def __str__(self) -> str:
        return f"{self.issuer}:{self.name}" if self.issuer else self.name


@dataclass(frozen=True, slots=True)
class Code:
    """A code of an account, and the Unix times (seconds) from and to which it counts; None with a counter."""

    text: str = field(repr=False)
    valid_from: int | None = None
    valid_to: int | None = None


def account_id(kind: Kind, issuer: str, name: str, period: int) -> bytes:
    """What a key keeps an account under."""
    before = f"{period}/" if kind is Kind.TOTP and period != USUAL_PERIOD else ""
    return (before + (f"{issuer}:" if issuer else "") + name).encode()


def read_id(kind: Kind, identifier: bytes) -> tuple[str, str, int]:
    """Issuer, name and period (seconds) as Yubico's software reads them from an id. Raises UnicodeDecodeError."""
    text = identifier.decode()
    if kind is Kind.HOTP:
        issuer, colon, name = text.partition(":")
        return (issuer, name, USUAL_PERIOD) if colon and issuer else ("", text, USUAL_PERIOD)
    found = _TOTP_ID.fullmatch(text)
    if found is None:
        return "", text, USUAL_PERIOD
    return found[4] or "", found[5], int(found[2]) if found[2] else USUAL_PERIOD


def key_issuer(issuer: str) -> str:
    """An issuer as it can stand on a key: the first colon would end it."""
    return issuer.replace(":", "")


def check_name(kind: Kind, issuer: str, name: str, period: int) -> None:
    """Raise CannotError unless a key can hold this name, and reads it back as it is."""
    identifier = account_id(kind, issuer, name, period)
    if not name:
        raise CannotError("the account has no name; choose one")
    if len(identifier) > LONGEST_ID:
        raise CannotError(
            f"the key keeps {LONGEST_ID} bytes of a name, and {identifier.decode()!r} has {len(identifier)};"
            " choose a shorter one"
        )
    if read_id(kind, identifier) != (issuer, name, period if kind is Kind.TOTP else USUAL_PERIOD):
        raise CannotError(
            f"the key would read {identifier.decode()!r} back differently; choose a name that does not begin with"
            " a number and a slash, and has no colon"
        )


def check_new(key: Key, new: NewAccount) -> None:
    """Raise CannotError unless this key can hold this account."""
    check_name(new.kind, new.issuer, new.name, new.parameters.period)
    check_firmware(key, new.parameters.algorithm, touch=new.touch)
    if new.counter not in _COUNTERS:
        raise CannotError(f"a key counts from {_COUNTERS.stop - 1} at most, and this account is beyond that")
    if new.kind is Kind.TOTP and new.issuer == _STEAM:
        raise CannotError(
            "Yubico's software shows accounts of the issuer Steam in letters of Steam's own; name another --issuer"
        )


def check_firmware(key: Key, algorithm: Algorithm | None, *, touch: bool) -> None:
    """Raise CannotError unless this key knows this hash, and how to ask for a touch where that is wanted."""
    if algorithm is Algorithm.SHA512 and key.firmware < _SHA512_SINCE:
        raise CannotError(f"{key} has firmware {key.version}; SHA512 needs 4.3.1: use SHA256 or SHA1")
    if touch and key.firmware < _TOUCH_SINCE:
        raise CannotError(f"{key} has firmware {key.version}; to ask for a touch it needs 4.2.6")


def check_rename(key: Key) -> None:
    """Raise CannotError unless this key can rename accounts."""
    if key.firmware < _RENAME_SINCE:
        raise CannotError(
            f"{key} has firmware {key.version}; renaming needs 5.3.1. Remove the account and enrol again"
        )


def choose(found: Found, serial: int | None) -> Key:
    """The key with this serial number, or the only one.

    Raises NoDeviceError, ManyDevicesError, or what is in the way of the only key there is.
    """
    if serial is not None:
        for key in found.keys:
            if key.serial == serial:
                return key
        _raise_first(found.unreadable)
        raise NoDeviceError(f"there is no key with serial {serial} plugged in{_listed(found.keys)}")
    if len(found.keys) == 1 and not found.unreadable:
        return found.keys[0]
    if found.keys:
        raise ManyDevicesError(f"several keys are plugged in: say which with --serial{_listed(found.keys)}")
    _raise_first(found.unreadable)
    raise NoDeviceError(
        "no YubiKey is plugged in. Plug one in; if there is one, pull it out and plug it in again, and see that its"
        " CCID interface is on (ykman info)"
    )


def _raise_first(unreadable: Sequence[Unreadable]) -> None:
    if unreadable:
        raise unreadable[0].error


def _listed(keys: Sequence[Key]) -> str:
    return f" (there are: {', '.join(map(str, keys))})" if keys else ""
