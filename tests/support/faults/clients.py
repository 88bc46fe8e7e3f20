"""Clients that log in and enrol, each in a thread, and say what they saw. Run as a program, it is told on stdin:

    {"do": "load", "run_dirs": […], "tokens": […], "threads": 6, "seed": 1, "timeout": 5.0, …}
    {"do": "stop"}

It answers with a line of JSON for each attempt (the fields of Attempt), for each token that was enrolled, whether or
not it was confirmed ({"token": …}), and, when it has stopped, with {"stopped": true}.
"""

from __future__ import annotations

import hashlib
import hmac
import itertools
import json
import random
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import asdict, astuple, dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from yubikey import YubiKey

from faults.history import CUT, REFUSED, SILENT, SUCCESS, UNAVAILABLE, UNKNOWN, Act, Attempt
from otpbridge.client import Client
from otpbridge.errors import RemoteError, UnavailableError
from otpbridge.model import Kind

LISTS = (Kind.RECOVERY, Kind.REGISTRATION)
"""Kinds whose codes were written down, and are good in any order."""
DIGITS = 8
"""So many that a code hardly ever fits by chance where it was not meant to."""
PERIOD = 900
WINDOW = 3
_NEAR = range(-2, 12)
_PAUSE = 0.02
_ERRORS = {"Unavailable": UNAVAILABLE, "Failed": UNAVAILABLE, "BadParameters": REFUSED, "NoSuchToken": REFUSED}
"""The last two: by the daemon's clock, the time in which a token could be confirmed is over."""
_AT_A_TIME = 8
"""Attempts of one process with a token, before all of it go on to the next."""


@dataclass(slots=True)
class Token:
    """One token, and the next step that its owner will try. `about` is what makes its codes."""

    user: str
    kind: str
    about: Mapping[str, Any]
    first: int = 0
    next: int = 0
    last: int = 2**40

    @property
    def ordered(self) -> bool:
        return self.kind not in LISTS

    def code(self, step: int) -> str:
        if self.kind in LISTS:
            return self.about["codes"][step]
        if self.kind == Kind.YUBIOTP:
            about = self.about
            return YubiKey(about["public_id"], bytes.fromhex(about["private_id"]), self._seed).code(step)
        mac = hmac.digest(self._seed, step.to_bytes(8, "big"), hashlib.sha1)
        place = mac[-1] & 15
        number = int.from_bytes(mac[place : place + 4], "big") & 0x7FFFFFFF
        return f"{number % 10**DIGITS:0{DIGITS}d}"

    def wrong(self, chance: random.Random) -> str:
        """A code of the right form, of no step that could be tried."""
        if self.kind == Kind.YUBIOTP:
            return self.about["public_id"] + "".join(chance.choices("cbdefghijklnrtuv", k=32))
        if self.kind in LISTS:
            return "".join(c if c == "-" else chance.choice("0123456789ABCDEFGHJKMNPQRSTVWXYZ") for c in self.code(0))
        near = {self.code(step) for step in (self.next + far for far in _NEAR) if step >= 0}
        return next(
            code for code in iter(lambda: f"{chance.randrange(10**DIGITS):0{DIGITS}d}", "") if code not in near
        )

    def is_due(self, step: int) -> bool:
        """Whether the code is accepted now, as far as it is not spent."""
        return self.kind != Kind.TOTP or abs(step - int(time.time()) // PERIOD) <= WINDOW

    def choose(self, chance: random.Random) -> int:
        """The step to try: the next one, or any once that one has no code yet."""
        if self.next <= self.last and self.is_due(self.next):
            return self.next
        return chance.randint(self.first, min(self.last, self.next))

    @property
    def _seed(self) -> bytes:
        return bytes.fromhex(self.about["seed"])


def attempt(
    token: Token, step: int | None, act: Act, call: Callable[[], str], *, client: str, timeout: float
) -> Attempt:
    """Make one request, and say what became of it."""
    due = step is not None and token.is_due(step)
    invoked = time.monotonic_ns()
    try:
        outcome = call()
    except UnavailableError:
        outcome = SILENT if time.monotonic_ns() - invoked >= timeout * 1e9 else CUT
    except RemoteError as error:
        outcome = _ERRORS.get(error.name.rpartition(".")[2], error.name)
    ended = time.monotonic_ns()
    due = due and step is not None and token.is_due(step)
    return Attempt(client, act, token.user, step, invoked, ended, outcome, due, token.ordered)


def verify(client: Client, token: Token, step: int | None, code: str, *, name: str, timeout: float) -> Attempt:
    """Log in."""

    def call() -> str:
        verdict = client.verify(token.user, code).verdict
        return UNAVAILABLE if verdict == "authinfo_unavail" else verdict.value

    return attempt(token, step, Act.VERIFY, call, client=name, timeout=timeout)


class Load:
    """The clients of one process, at work from `begin` to `end`."""

    def __init__(self, job: Mapping[str, Any], tell: Callable[[object], None]) -> None:
        self._job = job
        self._tell = tell
        self._timeout: float = job["timeout"]
        self._tokens = [Token(**each) for each in job["tokens"]]
        self._turn = itertools.count()
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(n, self._log_in)) for n in range(job["threads"])]
        self._threads.append(threading.Thread(target=self._run, args=(job["threads"], self._enrol)))

    def begin(self) -> None:
        for thread in self._threads:
            thread.start()

    def end(self) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def _run(self, number: int, work: Callable[[Client, str, random.Random], None]) -> None:
        dirs = self._job["run_dirs"] if number < self._job["threads"] else [self._job["enrol_dir"]]
        name = f"{self._job['seed']}-{number}"
        try:
            with Client(run_dir=dirs[number % len(dirs)], timeout=self._timeout) as client:
                work(client, name, random.Random(name))
        except BaseException:  # noqa: BLE001 - whoever reads this fails
            self._tell({"fault": traceback.format_exc()})

    def _saw(self, seen: Attempt) -> str:
        self._tell(astuple(seen))
        if seen.outcome in UNKNOWN:
            # Something is broken: not at once again.
            self._over.wait(_PAUSE)
        return seen.outcome

    def _verify(self, client: Client, name: str, token: Token, step: int | None, code: str) -> str:
        return self._saw(verify(client, token, step, code, name=name, timeout=self._timeout))

    def _log_in(self, client: Client, name: str, chance: random.Random) -> None:
        """Log in with what all others of this process log in with, by wrong codes too, and by some once more."""
        while not self._over.is_set():
            token = self._tokens[next(self._turn) // _AT_A_TIME % len(self._tokens)]
            if chance.random() < 0.15:
                self._verify(client, name, token, None, token.wrong(chance))
                continue
            step = token.choose(chance)
            if self._verify(client, name, token, step, token.code(step)) not in UNKNOWN and step == token.next:
                token.next = step + 1
            if chance.random() < 0.3:
                earlier = chance.randint(max(token.first, step - 3), step)
                self._verify(client, name, token, earlier, token.code(earlier))

    def _enrol(self, client: Client, name: str, chance: random.Random) -> None:
        """Enrol one user after another; not all to the end, and not all with the right code at first."""
        for number in itertools.count():
            if self._over.is_set():
                return
            token = self._start(client, name, f"{self._job['enrol']}-{number}", chance)
            if token is None or chance.random() < 0.1:
                continue
            if chance.random() < 0.2:
                self._confirm(client, name, token, None, token.wrong(chance))
            if self._confirm(client, name, token, token.next, token.code(token.next)) == SUCCESS:
                self._verify(client, name, token, token.next, token.code(token.next))
                self._verify(client, name, token, token.next + 1, token.code(token.next + 1))

    def _start(self, client: Client, name: str, user: str, chance: random.Random) -> Token | None:
        kind = chance.choice((Kind.TOTP, Kind.HOTP, Kind.YUBIOTP))
        first = int(time.time()) // PERIOD if kind is Kind.TOTP else 0
        token = Token(user, kind, {}, first, first, first + WINDOW if kind is Kind.TOTP else 2**40)
        replies = []

        def call() -> str:
            form = {} if kind is Kind.YUBIOTP else {"digits": DIGITS}
            form |= {"period": PERIOD} if kind is Kind.TOTP else {}
            replies.append(client.enrol(user, kind, **form))
            return SUCCESS

        seen = self._saw(attempt(token, None, Act.START, call, client=name, timeout=self._timeout))
        if seen != SUCCESS:
            return None
        reply = replies[0]
        token.about = {
            "id": reply.token,
            "seed": reply.seed_hex,
            "public_id": reply.public_id,
            "private_id": reply.private_id,
        }
        self._tell({"token": asdict(token)})
        return token

    def _confirm(self, client: Client, name: str, token: Token, step: int | None, code: str) -> str:
        def call() -> str:
            return SUCCESS if client.confirm(token.about["id"], code).confirmed else REFUSED

        return self._saw(attempt(token, step, Act.CONFIRM, call, client=name, timeout=self._timeout))


def _main() -> None:
    lock = threading.Lock()

    def tell(what: object) -> None:
        line = json.dumps(what, separators=(",", ":")) + "\n"
        with lock:
            sys.stdout.write(line)
            sys.stdout.flush()

    load: Load | None = None
    for line in sys.stdin:
        job = json.loads(line)
        if job["do"] == "load":
            load = Load(job, tell)
            load.begin()
        elif load is not None:
            load.end()
            tell({"stopped": True})


if __name__ == "__main__":
    _main()
