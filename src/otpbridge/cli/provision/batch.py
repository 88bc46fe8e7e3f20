"""Who gets which key, who is done, who cannot be. Nothing here does I/O, and one thread alone has it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from otpbridge.cli.provision.people import Person, Row
from otpbridge.model import State

if TYPE_CHECKING:
    from otpbridge.wire.messages import TokenFields


@dataclass(frozen=True, slots=True)
class Turned:
    """Why a key gets nobody. `idle`: it would get somebody, were somebody to wait again."""

    words: str
    idle: bool = False


class Batch:
    """People in the order of their list. A person waits, is at a key, is done, or is turned away with words.

    `taken` says what is in force on which key by what the daemon knows: such a key is no new one.
    """

    def __init__(
        self, people: Iterable[Person], rows: Iterable[Row], away: Mapping[Person, str], taken: Mapping[int, str]
    ) -> None:
        self._people = tuple(people)
        self._owners: dict[int, str] = {}
        self._taken = dict(taken)
        self._at: set[Person] = set()
        self.done: set[Person] = set()
        self.away = dict(away)
        for row in rows:
            self.finish(row)

    @property
    def total(self) -> int:
        """How many there are."""
        return len(self._people)

    @property
    def waiting(self) -> list[Person]:
        """Who has no key yet, and can have one."""
        not_waiting = self.done | self._at | self.away.keys()
        return [person for person in self._people if person not in not_waiting]

    @property
    def over(self) -> bool:
        """Whether nobody waits or is at a key."""
        return not self._at and not self.waiting

    def take(self, serial: int) -> Person | Turned:
        """Who gets the key with this serial number: whose it is by the list, else the first who takes any."""
        if serial in self._owners:
            return Turned(f"it is {self._owners[serial]}'s already; pull it out")
        waiting = self.waiting
        meant = next((person for person in self._people if person.serial == serial), None)
        if meant is not None and meant not in waiting:
            return Turned(f"it is for {meant} by the list, who gets none: {self.away.get(meant, 'has one')}")
        if meant is None and serial in self._taken:
            return Turned(f"it is no new key: {self._taken[serial]}")
        person = meant or next((each for each in waiting if each.serial is None), None)
        if person is None:
            why = "all who wait have a key of their own in the list" if waiting else "nobody waits for a key"
            return Turned(why, idle=True)
        self._at.add(person)
        return person

    def back(self, person: Person) -> None:
        """It failed for reasons of the key: the person waits again."""
        self._at.discard(person)

    def turn_away(self, person: Person, words: str) -> None:
        """It failed for reasons of the person."""
        self._at.discard(person)
        self.away[person] = words

    def finish(self, row: Row) -> None:
        """Somebody has a key."""
        self._owners[row.serial] = row.user
        for person in self._people:
            if person.has(row):
                self._at.discard(person)
                self.done.add(person)
                self.away.pop(person, None)


def standing(
    people: Iterable[Person], rows: Iterable[Row], tokens: Iterable[TokenFields]
) -> tuple[dict[Person, str], dict[int, str], list[str]]:
    """What the daemon's tokens mean for a batch: who has a key already, which keys are taken, which rows are void."""
    in_force = [token for token in tokens if token.state in {State.ACTIVE, State.DISABLED}]
    written = list(rows)
    ours = {row.token for row in written}
    away = {}
    for person in people:
        for token in in_force:
            if token.id not in ours and token.serials and person.would_be(token):
                away[person] = (
                    f"key {' and '.join(token.serials)} is theirs already (token {token.id}); for another one, first:"
                    f" otpbridge token remove {token.id}"
                )
    taken = {
        int(serial): f"token {token.id} of {token.user} is on it; first: otpbridge token remove {token.id}"
        for token in in_force
        for serial in token.serials or ()
        if serial.isdecimal()
    }
    void = [
        f"{row.user} has key {row.serial} by the result, but token {row.token} is not in force any more; to enrol"
        " again, remove that line"
        for row in written
        if row.token not in {token.id for token in in_force}
    ]
    return away, taken, void
