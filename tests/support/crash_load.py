"""Clients that keep a daemon busy until it dies, and a book of what they were told.

The book is the judge: it is written by the clients alone, and nothing of it comes from the store.
"""

from __future__ import annotations

import itertools
import random
import threading
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from daemon_rig import SECONDS, Codes, Daemon, Key, programmed

from otpbridge.errors import UnavailableError
from otpbridge.model import Kind, Verdict

DIGITS = 8
"""So many that a code hardly ever fits by chance where it was not meant to."""
_NEAR = 60


@dataclass(slots=True)
class Device:
    """A token with a counter, an app's or a YubiKey's, and the next code of it that its owner will try."""

    user: str
    key: Codes
    next: int = 0

    def code(self) -> str:
        return self.key.code(self.next)

    def fits_later(self, counter: int) -> bool:
        """Whether the code of a counter happens to be that of a later one as well."""
        code = self.key.code(counter)
        return any(code == self.key.code(later) for later in range(counter + 1, counter + _NEAR))


@dataclass(slots=True)
class Book:
    """What clients saw in one life of the daemon."""

    accepted: Counter[tuple[str, str]] = field(default_factory=Counter)
    unanswered: Counter[str] = field(default_factory=Counter)
    confirmed: dict[str, Device] = field(default_factory=dict)
    maybe_confirmed: int = 0
    faults: list[BaseException] = field(default_factory=list)
    _answers: int = 0
    _news: threading.Condition = field(default_factory=threading.Condition)

    def answered(self) -> None:
        with self._news:
            self._answers += 1
            self._news.notify_all()

    def wait_for(self, answers: int) -> None:
        """Wait until clients have had so many answers."""
        with self._news:
            assert self._news.wait_for(lambda: self._answers >= answers or self.faults, SECONDS), self._answers
            assert not self.faults, self.faults

    def fail(self, error: BaseException) -> None:
        with self._news:
            self.faults.append(error)
            self._news.notify_all()


class Load:
    """The clients of one life of the daemon. Each ends when the daemon no longer answers it."""

    def __init__(self, daemon: Daemon, book: Book) -> None:
        self._daemon = daemon
        self._book = book
        self._threads: list[threading.Thread] = []

    def verify_counters(self, devices: Sequence[Device]) -> None:
        """Log in with counter tokens, others too, and try each code a second time."""
        self._run(lambda: self._verify_counters(devices))

    def verify_once(self, codes: deque[tuple[str, str]]) -> None:
        """Log in with codes that nobody has used yet, each of them a second time as well."""
        self._run(lambda: self._verify_once(codes))

    def enrol(self, prefix: str) -> None:
        """Enrol and confirm one user after another."""
        self._run(lambda: self._enrol(prefix))

    def join(self) -> None:
        for thread in self._threads:
            thread.join(SECONDS)
            assert not thread.is_alive()
        assert not self._book.faults, self._book.faults

    def _run(self, work: Callable[[], None]) -> None:
        def run() -> None:
            try:
                work()
            except UnavailableError:
                pass
            except BaseException as error:  # noqa: BLE001 - the test is told
                self._book.fail(error)

        self._threads.append(threading.Thread(target=run))
        self._threads[-1].start()

    def _verify_counters(self, devices: Sequence[Device]) -> None:
        with self._daemon.client() as client:
            while True:
                device = random.choice(devices)
                counter = device.next
                self._try_twice(client, device.user, device.key.code(counter), again=not device.fits_later(counter))
                device.next = max(device.next, counter + 1)

    def _verify_once(self, codes: deque[tuple[str, str]]) -> None:
        with self._daemon.client() as client:
            while codes:
                self._try_twice(client, *codes.popleft(), again=True)

    def _try_twice(self, client, user: str, code: str, *, again: bool) -> None:
        for _ in range(1 + again):
            try:
                verdict = client.verify(user, code).verdict
            except UnavailableError:
                self._book.unanswered[user] += 1
                raise
            assert verdict in {Verdict.SUCCESS, Verdict.AUTH_ERR}, verdict
            if verdict is Verdict.SUCCESS:
                self._book.accepted[user, code] += 1
            self._book.answered()

    def _enrol(self, prefix: str) -> None:
        with self._daemon.client() as client:
            for number in itertools.count():
                user = f"{prefix}-{number}"
                started = client.enrol(user, Kind.YUBIOTP if number % 2 else Kind.HOTP, digits=DIGITS)
                key = (
                    programmed(started)
                    if number % 2
                    else Key(Kind.HOTP, DIGITS, seed=bytes.fromhex(started.seed_hex))
                )
                self._book.answered()
                try:
                    assert client.confirm(started.token, key.code(0)).confirmed
                except UnavailableError:
                    self._book.maybe_confirmed += 1
                    raise
                self._book.confirmed[started.token] = Device(user, key, 1)
                self._book.answered()
