"""The list of people as it stands in a CSV file. Nothing here does I/O."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from otpbridge.cli.yubikey_slot import check_codes
from otpbridge.config import CLIENT_NAME
from otpbridge.devices.keys import LONGEST_ID, check_name, key_issuer
from otpbridge.enroll.names import check_safe, check_text
from otpbridge.errors import DeviceError, EnrolError, OtpBridgeError
from otpbridge.model import LOCAL, Algorithm, Kind

if TYPE_CHECKING:
    from otpbridge.wire.messages import TokenFields

COLUMNS = ("user", "client", "label", "issuer", "serial", "kind", "algorithm", "digits")
_LONGEST_USER = 256
"""Bytes."""
_LONGEST_SERIAL = 10
"""Digits."""
_PERIOD = 30
_SLOT_KINDS = (Kind.YUBIOTP, Kind.HOTP)
_ACCOUNT_KINDS = (Kind.TOTP, Kind.HOTP)
_DIGITS = ("6", "7", "8")


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong in a line, and what to do."""

    line: int
    reason: str


class UnsoundError(OtpBridgeError):
    """The list is not sound, so nothing was started."""

    def __init__(self, faults: Sequence[Fault]) -> None:
        self.faults = tuple(faults)
        super().__init__("nothing was started; correct the list and try again")


@dataclass(frozen=True, slots=True)
class Usual:
    """What holds where a line says nothing."""

    kind: Kind
    client: str = LOCAL
    issuer: str | None = None
    algorithm: Algorithm | None = None
    digits: int | None = None
    slot: int | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """A line of the result: a token in force, and the key that holds it. `time` is a Unix time in seconds."""

    serial: int
    user: str
    client: str
    token: str
    time: int


@dataclass(frozen=True, slots=True)
class Person:
    """Who is to get a key. `serial` is that of the very key, None where any will do."""

    line: int
    user: str
    client: str
    kind: Kind
    serial: int | None = None
    label: str | None = None
    issuer: str | None = None
    algorithm: Algorithm | None = None
    digits: int | None = None

    def __str__(self) -> str:
        return self.user if self.client == LOCAL else f"{self.user} of client {self.client}"

    def has(self, row: Row) -> bool:
        """Whether this is their line of the result."""
        return (row.client, row.user) == (self.client, self.user)

    def would_be(self, token: TokenFields) -> bool:
        """Whether a token is what this person is to get."""
        same = (token.client, token.user, token.kind) == (self.client, self.user, self.kind)
        return same and (self.label is None or token.label == self.label)


class _UnfitError(Exception):
    """A cell that cannot be taken, and why."""


def read(text: str, usual: Usual) -> tuple[Person, ...]:
    """The people of a list with a heading, separated by commas or semicolons. Raises UnsoundError."""
    lines = text.removeprefix("\ufeff").splitlines()
    heading = next((line for line in lines if line.strip()), "")
    rows = csv.reader(lines, delimiter=";" if ";" in heading and "," not in heading else ",", strict=True)
    faults: list[Fault] = []
    people: list[Person] = []
    names: list[str] | None = None
    try:
        for cells in rows:
            if not any(cell.strip() for cell in cells):
                continue
            if names is None:
                names = _columns(cells, rows.line_num)
                continue
            try:
                people.append(_person(dict(_named(names, cells)), rows.line_num, usual))
            except _UnfitError as error:
                faults.append(Fault(rows.line_num, str(error)))
    except csv.Error as error:
        raise UnsoundError([*faults, Fault(rows.line_num, f"this is no CSV: {error}")]) from None
    if names is None or not (people or faults):
        raise UnsoundError([Fault(1, f"the list is empty; the first line names the columns: {', '.join(COLUMNS)}")])
    faults += _repeated(people)
    if faults:
        raise UnsoundError(sorted(faults, key=lambda fault: fault.line))
    return tuple(people)


def _columns(cells: Sequence[str], line: int) -> list[str]:
    names = [cell.strip().lower() for cell in cells]
    faults = [
        Fault(line, f"there is no column {name!r}; the first line names the columns: {', '.join(COLUMNS)}")
        for name in names
        if name not in COLUMNS
    ]
    faults += [
        Fault(line, f"the column {name!r} is there twice; remove one") for name in COLUMNS if names.count(name) > 1
    ]
    if "user" not in names:
        faults.append(Fault(line, "there is no column 'user'; the first line names the columns"))
    if faults:
        raise UnsoundError(faults)
    return names


def _named(names: Sequence[str], cells: Sequence[str]) -> zip[tuple[str, str]]:
    if len(cells) != len(names):
        raise _UnfitError(f"{len(cells)} cells, and there are {len(names)} columns; quote what holds a separator")
    return zip(names, cells, strict=True)


def _person(cells: Mapping[str, str], line: int, usual: Usual) -> Person:
    try:
        user = cells["user"]
        if not user or len(user.encode()) > _LONGEST_USER:
            raise _UnfitError("the user has no name" if not user else f"a user has {_LONGEST_USER} bytes at most")
        check_text(user, "user name")
        person = Person(
            line,
            user,
            _client(cells.get("client") or usual.client),
            _kind(cells.get("kind", ""), usual),
            _serial(cells.get("serial", "")),
            cells.get("label") or None,
            cells.get("issuer") or usual.issuer,
            _algorithm(cells.get("algorithm", ""), usual),
            _digits(cells.get("digits", ""), usual),
        )
        _check_account(person, usual)
    except (EnrolError, DeviceError) as error:
        raise _UnfitError(str(error)) from None
    return person


def _client(text: str) -> str:
    if not CLIENT_NAME.fullmatch(text):
        raise _UnfitError(f"{text!r} is no client; they have lower case letters, digits and . _ -, 64 at most")
    return text


def _kind(text: str, usual: Usual) -> Kind:
    fitting = _ACCOUNT_KINDS if usual.slot is None else _SLOT_KINDS
    if not text:
        return usual.kind
    for kind in fitting:
        if text.strip().lower() == kind.value:
            return kind
    where = "an account" if usual.slot is None else "a slot"
    raise _UnfitError(
        f"{text!r} is no kind of token for {where}; there are {' and '.join(kind.value for kind in fitting)}"
    )


def _serial(text: str) -> int | None:
    if not text.strip():
        return None
    digits = text.strip()
    if not (digits.isascii() and digits.isdecimal() and len(digits) <= _LONGEST_SERIAL and int(digits)):
        raise _UnfitError(f"{text!r} is no serial number; it is printed on the key, in digits")
    return int(digits)


def _algorithm(text: str, usual: Usual) -> Algorithm | None:
    if not text:
        return usual.algorithm
    known = [algorithm.value for algorithm in Algorithm]
    if text.strip().upper() not in known:
        raise _UnfitError(f"{text!r} is no hash; there are {', '.join(known)}")
    return Algorithm(text.strip().upper())


def _digits(text: str, usual: Usual) -> int | None:
    if not text:
        return usual.digits
    if text.strip() not in _DIGITS:
        raise _UnfitError(f"a code has 6, 7 or 8 digits, not {text!r}")
    return int(text)


def _check_account(person: Person, usual: Usual) -> None:
    """Raise unless the name can stand on a key; as far as it goes without an issuer, which the daemon chooses."""
    if usual.slot is not None:
        check_codes(person.kind, person.algorithm, person.digits)
    if person.kind is Kind.YUBIOTP:
        if person.label is not None:
            check_text(person.label, "label")
        return
    label = person.label or person.user
    check_safe(label, "account name" if person.label else "user, which is the account name without a label,")
    check_safe(person.issuer or "", "issuer")
    if usual.slot is not None:
        return
    issuer = "" if person.issuer is None else key_issuer(person.issuer)
    check_name(person.kind, issuer, label, _PERIOD)
    if person.issuer is None and len(label.encode()) >= LONGEST_ID:
        raise _UnfitError(f"a key keeps {LONGEST_ID} bytes of issuer and label; choose a shorter label")


def _repeated(people: Sequence[Person]) -> list[Fault]:
    faults = []
    first: dict[object, int] = {}
    for person in people:
        seen = first.setdefault((person.client, person.user), person.line)
        if seen != person.line:
            faults.append(Fault(person.line, f"{person} stands in line {seen} already; remove one of the two"))
        if person.serial is None:
            continue
        seen = first.setdefault(person.serial, person.line)
        if seen != person.line:
            faults.append(Fault(person.line, f"key {person.serial} is that of line {seen} already; a key for each"))
    return faults
