"""Whose the keys of a PSKC file are: a CSV file with the columns serial and user, else the UserId of the keys."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence

from otpbridge.enroll.lines import check_user
from otpbridge.enroll.pskc import Fault, Opened
from otpbridge.enroll.pskc_key import PskcKey
from otpbridge.errors import EnrolError

_COLUMNS = ("serial", "user")
_TOLD = 20


def read(text: str) -> dict[str, str]:
    """The user of each serial number, of a list with a heading, separated by commas or semicolons.

    Raises EnrolError with the line.
    """
    lines = text.removeprefix("\ufeff").splitlines()
    heading = next((line for line in lines if line.strip()), "")
    rows = csv.reader(lines, delimiter=";" if ";" in heading and "," not in heading else ",", strict=True)
    users: dict[str, str] = {}
    places: list[int] | None = None
    try:
        for cells in rows:
            row = [cell.strip() for cell in cells]
            if not any(row):
                continue
            if places is None:
                places = _places(row)
                continue
            if len(row) <= max(places):
                raise EnrolError("a line has a serial number and a user")
            serial, user = (row[place] for place in places)
            if not serial:
                raise EnrolError("there is no serial number")
            check_user(user)
            if serial in users:
                raise EnrolError(f"serial number {serial} is there twice")
            users[serial] = user
    except (EnrolError, csv.Error) as error:
        reason = f"this is no CSV: {error}" if isinstance(error, csv.Error) else str(error)
        raise EnrolError(f"line {rows.line_num} of the list of users: {reason}") from None
    if not users:
        raise EnrolError(f"the list of users is empty; its first line names the columns: {','.join(_COLUMNS)}")
    return users


def _places(names: Sequence[str]) -> list[int]:
    lower = [name.lower() for name in names]
    if any(lower.count(column) != 1 for column in _COLUMNS):
        raise EnrolError(f"the first line names the columns: {','.join(_COLUMNS)}")
    return [lower.index(column) for column in _COLUMNS]


def assign(
    opened: Opened, users: Mapping[str, str] | None, *, only_listed: bool = False
) -> tuple[list[tuple[PskcKey, str]], list[Fault]]:
    """Give each key to its user: by the list where there is one, else by the file. Returns what is wrong, too.

    With `only_listed`, keys that are not on the list are left out, and what is wrong with them. Raises EnrolError
    where the list names a serial number of which there is no key.
    """
    faults = list(opened.faults)
    if users is not None:
        missing = sorted(set(users) - {key.name for key in opened.keys} - {fault.serial for fault in faults})
        if missing:
            told = ", ".join(missing[:_TOLD]) + (", and more" if len(missing) > _TOLD else "")
            raise EnrolError(f"the list of users has serial numbers that are not in the file: {told}")
        if only_listed:
            faults = [fault for fault in faults if fault.serial in users]
    given: list[tuple[PskcKey, str]] = []
    makers: dict[str, str] = {}
    for key in opened.keys:
        if only_listed and users is not None and key.name not in users:
            continue
        try:
            if users is not None and makers.setdefault(key.name, key.maker) != key.maker:
                raise EnrolError("another maker has a device of this number in the file: import them one by one")
            given.append((key, _user(key, users)))
        except EnrolError as error:
            faults.append(Fault(key.line, key.serial, str(error)))
    return given, sorted(faults, key=lambda fault: fault.line)


def _user(key: PskcKey, users: Mapping[str, str] | None) -> str:
    """Whose a key is. Raises EnrolError where nobody says so."""
    if users is None:
        user = key.user()
        check_user(user)
        return user
    if key.name not in users:
        raise EnrolError(
            "it is not on the list of users; put it there, or take only those that are with --only-listed"
        )
    return users[key.name]
