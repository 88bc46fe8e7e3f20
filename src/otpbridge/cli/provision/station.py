"""The station: keys come and go, each is worked on by a thread, and one thread decides who gets which."""

from __future__ import annotations

import os
import queue
import secrets
import select
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from types import FrameType
from typing import TYPE_CHECKING, Protocol

from otpbridge.cli.provision.batch import Batch, Turned
from otpbridge.cli.provision.bench import (
    Bench,
    BenchReach,
    Cleared,
    Done,
    KeyFailed,
    Order,
    Outcome,
    PersonFailed,
    StoppedError,
)
from otpbridge.cli.provision.board import Board, Phase, Seat
from otpbridge.cli.provision.people import Person, Row
from otpbridge.cli.provision.records import Records
from otpbridge.cli.yubikey_reach import GONE
from otpbridge.devices.keys import Key
from otpbridge.errors import DeviceError, DeviceGoneError, GivenUpError, NotAllowedError, ReaderServiceError

if TYPE_CHECKING:
    from otpbridge.client import Client

_LOOK_SECONDS = 1.0
"""How long a change that was missed goes unseen."""
_DRAW_SECONDS = 0.25
_LONGEST = 4096
"""Bytes of a line that is typed."""
_AWAY_SECONDS = 2.0
"""Until a pcscd that is away is asked again."""
_ENDERS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
INSERT = "Plug in the next key."
ENDING = (
    "Ending: what is being written is finished; keys that wait are to be touched, or give up in 15 s. Ctrl-C again"
    " leaves at once, and the next run clears up."
)
_UNDONE = " Nothing is left of it. To try again, put it in again."
_LEFT = " What may be left on it is of no use to anyone: put it in again, and it is taken off."


class View(Protocol):
    """What the person at the station sees."""

    def tell(self, text: str) -> None:
        """Say something that stays."""

    def draw(self, board: Board) -> None:
        """Show how things stand."""


@dataclass(frozen=True, slots=True)
class Tools:
    """What a station works with. `daemon` connects; a thread for each key calls it."""

    records: Records
    daemon: Callable[[], Client]
    order: Order
    given: str | None = field(repr=False)


@dataclass(slots=True, eq=False)
class _Place:
    """A key that is plugged in, or that was and is still at work."""

    reader: str
    key: Key | None = None
    person: Person | None = None
    owner: str = ""
    """Who has it, when it is done."""
    at_work: bool = True
    gone: bool = False
    phase: Phase = Phase.WORKING
    words: str = "which key is it?"
    since: float = field(default_factory=time.monotonic)

    def __str__(self) -> str:
        """A key as people tell it from the others."""
        name = self.reader if self.key is None else str(self.key)
        return name if self.person is None else f"{name} ({self.person})"

    def set(self, phase: Phase, words: str) -> None:
        """It is as far as that now."""
        self.phase, self.words, self.since = phase, words, time.monotonic()


@dataclass(frozen=True, slots=True)
class _Plugged:
    readers: frozenset[str]


@dataclass(frozen=True, slots=True)
class _NoReaders:
    words: str


@dataclass(frozen=True, slots=True)
class _Read:
    place: _Place
    found: Key | DeviceError


@dataclass(frozen=True, slots=True)
class _Said:
    place: _Place
    phase: Phase
    words: str


@dataclass(frozen=True, slots=True)
class _Asked:
    """A key is to be touched so that it types; what it typed, or why not, goes into `answer`."""

    place: _Place
    how: str
    answer: queue.SimpleQueue[str | DeviceError]


@dataclass(frozen=True, slots=True)
class _Typed:
    """A line of standard input; None at its end."""

    text: str | None = field(repr=False)


@dataclass(frozen=True, slots=True)
class _Ended:
    place: _Place
    outcome: Outcome | StoppedError


@dataclass(frozen=True, slots=True)
class _Broken:
    error: BaseException


@dataclass(frozen=True, slots=True)
class _Interrupted:
    pass


_Event = _Plugged | _NoReaders | _Read | _Said | _Asked | _Typed | _Ended | _Broken | _Interrupted


class Station:
    """One run. All is decided in the thread that runs it; what others find out comes as events."""

    def __init__(self, batch: Batch, tools: Tools, view: View) -> None:
        self._batch = batch
        self._tools = tools
        self._view = view
        self._events: queue.SimpleQueue[_Event] = queue.SimpleQueue()
        self._stopping = threading.Event()
        self._interrupts = 0
        self._places: list[_Place] = []
        self._asked: list[_Asked] = []
        self._called: _Place | None = None
        self._looked = False
        self._notice = INSERT

    @property
    def interrupted(self) -> bool:
        """Whether it was ended from outside."""
        return self._interrupts > 0

    def run(self) -> None:
        """Work until everybody has a key or cannot have one, or until Ctrl-C."""
        with self._signals():
            self._start(self._watch)
            if self._tools.order.slot is not None:
                self._start(self._listen)
            self._draw()
            while not self._over and self._interrupts <= 1:
                try:
                    event = self._events.get(timeout=_DRAW_SECONDS)
                except queue.Empty:
                    pass
                else:
                    self._take(event)
                self._draw()
            self._stopping.set()

    @property
    def _over(self) -> bool:
        if any(place.at_work for place in self._places):
            return False
        return self._stopping.is_set() or (self._looked and self._batch.over)

    def _draw(self) -> None:
        self._view.draw(
            Board(
                tuple(_seat(place) for place in self._places),
                len(self._batch.done),
                self._batch.total,
                len(self._batch.waiting),
                len(self._batch.away),
                self._notice,
                time.monotonic(),
            )
        )

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """Ctrl-C and its like come as events, so that nothing is cut in two."""

        def interrupt(_number: int, _frame: FrameType | None) -> None:
            self._events.put(_Interrupted())

        before = {number: signal.signal(number, interrupt) for number in _ENDERS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _start(self, work: Callable[[], None]) -> None:
        def run() -> None:
            try:
                work()
            except BaseException as error:  # noqa: BLE001 - raised in the thread that decides
                self._events.put(_Broken(error))

        threading.Thread(target=run, name="otpbridge-station", daemon=True).start()

    # --- other threads: what they do comes back as events ---

    def _watch(self) -> None:
        from otpbridge.devices.watch import Watch  # noqa: PLC0415 - the libraries may be missing

        while not self._stopping.is_set():
            try:
                with Watch() as watch:
                    while not self._stopping.is_set():
                        readers = watch.readers()
                        self._events.put(_Plugged(readers))
                        watch.wait(_LOOK_SECONDS, readers)
            except (ReaderServiceError, NotAllowedError) as error:
                self._events.put(_NoReaders(str(error)))
                self._stopping.wait(_AWAY_SECONDS)

    def _listen(self) -> None:
        """Lines of standard input. Not by Python's own buffer: a thread in it cannot be left at the end."""
        rest = b""
        while not self._stopping.is_set():
            if not select.select([0], [], [], _DRAW_SECONDS)[0]:
                continue
            data = os.read(0, _LONGEST)
            if not data:
                self._events.put(_Typed(None))
                return
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                self._events.put(_Typed(line[:_LONGEST].decode(errors="replace")))
            rest = rest[:_LONGEST]

    def _read(self, place: _Place) -> None:
        from otpbridge.devices import find  # noqa: PLC0415 - the libraries may be missing

        try:
            self._events.put(_Read(place, find.at(place.reader)))
        except DeviceError as error:
            self._events.put(_Read(place, error))

    def _work(self, place: _Place, key: Key, person: Person | None) -> None:
        def report(phase: Phase, words: str) -> None:
            self._events.put(_Said(place, phase, words))

        def typed(how: str) -> str:
            answer: queue.SimpleQueue[str | DeviceError] = queue.SimpleQueue()
            self._events.put(_Asked(place, how, answer))
            text = answer.get()
            if isinstance(text, DeviceError):
                raise text
            return text

        tools = self._tools
        reach = BenchReach(records=tools.records, report=report, given=tools.given, typed=typed)
        with tools.daemon() as daemon:
            bench = Bench(reach, daemon, tools.order, self._stopping, secrets.token_bytes)
            try:
                self._events.put(_Ended(place, bench.serve(key, person)))
            except StoppedError as error:
                self._events.put(_Ended(place, error))

    # --- the thread that decides ---

    def _take(self, event: _Event) -> None:
        match event:
            case _Plugged(readers):
                self._looked = True
                if not self._stopping.is_set():
                    self._note(INSERT)
                self._see(readers)
            case _NoReaders(words):
                self._note(words)
                self._see(frozenset())
            case _Read(place, found):
                self._know(place, found)
            case _Said(place, phase, words):
                place.set(phase, words)
                if phase is Phase.TOUCH:
                    self._view.tell(f"Touch {place} now.")
            case _Asked():
                self._asked.append(event)
                self._ask_on()
            case _Typed(text):
                self._hear(text)
            case _Ended(place, outcome):
                self._end(place, outcome)
            case _Interrupted():
                self._interrupts += 1
                self._stopping.set()
                self._note(ENDING)
                self._ask_on()
            case _Broken(error):
                raise error

    def _ask_on(self) -> None:
        """Call for the touch that is due; give up those that cannot come any more."""
        for asked in list(self._asked):
            if asked.place.gone:
                self._answer(asked, DeviceGoneError(f"{asked.place} was pulled out"))
            elif self._stopping.is_set():
                self._answer(asked, GivenUpError("it was not touched before the end"))
        if self._called is None and self._asked:
            self._called = self._asked[0].place
        due = self._due
        if due is not None and due.place.phase is not Phase.TOUCH:
            due.place.set(Phase.TOUCH, f"touch it now ({due.how})")
            self._view.tell(f"Touch {due.place} now, with the cursor here ({due.how}).")

    @property
    def _due(self) -> _Asked | None:
        """What was asked for the key that is called for."""
        return next((asked for asked in self._asked if asked.place is self._called), None)

    def _answer(self, asked: _Asked, answer: str | DeviceError) -> None:
        self._asked.remove(asked)
        asked.place.set(Phase.WORKING, "the daemon judges its code")
        asked.answer.put(answer)

    def _hear(self, text: str | None) -> None:
        """What was typed is for the key that was called for."""
        if text is None:
            self._stopping.set()
            self._note("Standard input is at its end, so no key can type any more.")
        elif text.strip() and self._due is not None:
            self._answer(self._due, text)
        self._ask_on()

    def _note(self, notice: str) -> None:
        if notice != self._notice:
            self._notice = notice
            self._view.tell(notice)

    def _see(self, readers: frozenset[str]) -> None:
        """Which readers there are now."""
        for place in list(self._places):
            if place.reader not in readers:
                place.gone = True
                self._drop_if_gone(place)
        self._ask_on()
        known = {place.reader for place in self._places if not place.gone}
        for reader in sorted(readers - known):
            place = _Place(reader)
            self._places.append(place)
            self._start(partial(self._read, place))

    def _drop_if_gone(self, place: _Place) -> None:
        if place.gone and not place.at_work and place in self._places:
            self._places.remove(place)

    def _know(self, place: _Place, found: Key | DeviceError) -> None:
        """Which key it is."""
        place.at_work = False
        place.gone = place.gone or isinstance(found, GONE)
        self._drop_if_gone(place)
        if place.gone:
            return
        if isinstance(found, DeviceError):
            self._turn(place, Phase.FAILED, str(found))
            return
        place.key = found
        self._offer(place, found)

    def _offer(self, place: _Place, key: Key) -> None:
        """Give a key to whom it is due."""
        if self._stopping.is_set():
            return
        if key.serial is None:
            self._turn(
                place, Phase.REFUSED, "it cannot be told from others; enrol it by itself: otpbridge yubikey enroll"
            )
            return
        if any(other.at_work and other.key is not None and other.key.serial == key.serial for other in self._places):
            place.set(Phase.IDLE, "it is still being finished")
            return
        found = self._batch.take(key.serial)
        if isinstance(found, Turned) and not any(begun.serial == key.serial for begun in self._tools.records.begun):
            self._turn(place, Phase.IDLE if found.idle else Phase.REFUSED, found.words)
            return
        place.person = None if isinstance(found, Turned) else found
        place.at_work = True
        place.set(Phase.WORKING, "it was begun")
        self._view.tell(f"{place}: leave it in.")
        self._start(partial(self._work, place, key, place.person))

    def _hint(self, place: _Place) -> str:
        """What came of an attempt that failed."""
        left = any(place.key is not None and begun.serial == place.key.serial for begun in self._tools.records.begun)
        return _LEFT if left else _UNDONE

    def _turn(self, place: _Place, phase: Phase, words: str) -> None:
        """It gets nobody, for now or at all."""
        if words != place.words:
            self._view.tell(f"{place}: {words}.")
        place.set(phase, words)

    def _end(self, place: _Place, outcome: Outcome | StoppedError) -> None:
        """A thread is through with a key."""
        person, place.person, place.at_work = place.person, None, False
        match outcome:
            case Done(row, replaced):
                if person is not None and not person.has(row):
                    self._batch.back(person)
                self._batch.finish(row)
                place.owner = row.user
                place.set(Phase.DONE, "done: pull it out")
                self._view.tell(_done(place, row, replaced, self._batch))
            case KeyFailed(words, gone):
                name = str(place) if person is None else f"{place} ({person})"
                if person is not None:
                    self._batch.back(person)
                place.set(Phase.FAILED, words)
                place.gone = place.gone or gone
                self._view.tell(f"{name}: {words}.{self._hint(place)}")
            case PersonFailed(words):
                assert person is not None
                self._batch.turn_away(person, words)
                self._view.tell(f"{person} gets none: {words}.")
                place.set(Phase.IDLE, "")
            case Cleared():
                self._view.tell(f"{place}: what was left on it is gone.")
                place.set(Phase.IDLE, "")
            case StoppedError():
                if person is not None:
                    self._batch.back(person)
                place.set(Phase.FAILED, str(outcome))
        if self._called is place:
            self._called = None
            self._ask_on()
        self._drop_if_gone(place)
        for other in list(self._places):
            if other.phase is Phase.IDLE and not other.at_work and not other.gone and other.key is not None:
                self._offer(other, other.key)


def _seat(place: _Place) -> Seat:
    serial = None if place.key is None else place.key.serial
    return Seat(
        place.reader,
        place.phase,
        place.words,
        place.since,
        serial,
        "" if place.key is None else place.key.model,
        place.owner if place.person is None else str(place.person),
    )


def _done(place: _Place, row: Row, replaced: tuple[str, ...], batch: Batch) -> str:
    old = f" It replaces {', '.join(replaced)}." if replaced else ""
    return f"{place} is {row.user}'s: token {row.token}.{old} Pull it out. {len(batch.done)} of {batch.total} done."
