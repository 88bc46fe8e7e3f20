"""The list of people that `otpbridge provision` takes: people, or the lines that are wrong."""

from __future__ import annotations

import csv
import io

from fuzz_promises import text_of

from otpbridge.cli.provision.people import COLUMNS, Person, UnsoundError, Usual, read
from otpbridge.model import Kind

_USUAL = Usual(Kind.TOTP)
_IN_A_SLOT = Usual(Kind.YUBIOTP, slot=2)


def check(data: bytes) -> None:
    """Nobody is there twice, and the same list as another program would write it has the same people."""
    text = text_of(data)
    for usual in (_USUAL, _IN_A_SLOT):
        try:
            people = read(text, usual)
        except UnsoundError as error:
            _check_faults(error)
            continue
        assert len({(person.client, person.user) for person in people}) == len(people) > 0
        assert [_plain(person) for person in read(_written(people), usual)] == [_plain(person) for person in people]


def _check_faults(error: UnsoundError) -> None:
    assert error.faults
    assert all(fault.line >= 1 and fault.reason for fault in error.faults)


def _written(people: tuple[Person, ...]) -> str:
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(COLUMNS)
    for person in people:
        writer.writerow(_plain(person))
    return out.getvalue()


def _plain(person: Person) -> tuple[object, ...]:
    return tuple(getattr(person, column) for column in COLUMNS)
