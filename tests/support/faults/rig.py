"""Rounds of faults: clients log in, something breaks, and when it is whole again everything is accounted for.

    with campaign([daemon], [control], seed) as rounds:
        rounds.play(killed)

A strike is a function that is given the rounds, breaks something, and mends it. It says by `window` what the clients
may see of it meanwhile. After each round clients' logs and the audit log go to history.check.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import mkdtemp

from daemon_rig import LONG, SECONDS, Daemon, plain_environment, provision

from faults import clients
from faults.clients import DIGITS, PERIOD, WINDOW, Token
from faults.control import Control
from faults.history import REFUSED, SUCCESS, Act, Attempt, Excuse, Finding, History, Row, Window, check, check_codes
from otpbridge.model import Kind
from otpbridge.wire import messages

CONFIG = f"""
[throttle]
limit = 1000
source_limit = 100000
[stacks.default]
rules = ["sufficient totp window={WINDOW} drift=0", "sufficient hotp", "sufficient yubiotp", "required recovery"]
"""
FAULT_SECONDS = float(os.environ.get("OTPBRIDGE_FAULT_SECONDS") or (300 if LONG else 0))
"""For how long a test goes on once each fault had its turn."""
TIMEOUT = 8.0
"""Seconds that clients wait for an answer."""
SLACK = 4.0
"""Seconds that a client, on a busy machine, may take longer to notice that its time is up."""
ANSWERS = 250 if LONG else 150
"""How many there are before a fault, and after it."""
_PROCESSES = 2
_THREADS = 5
_PROBED = 24
_VETERANS = 30
_EACH = {Kind.TOTP: 16, Kind.HOTP: 8, Kind.YUBIOTP: 4, Kind.RECOVERY: 2, Kind.REGISTRATION: 4}
"""Tokens of a round."""


class Crowd:
    """Processes full of clients, and what they have seen."""

    def __init__(self, size: int = _PROCESSES) -> None:
        self.attempts: list[Attempt] = []
        self.enrolled: list[Token] = []
        self._news = threading.Condition()
        self._answers = self._stopped = 0
        self._faults: list[str] = []
        self._processes = [
            subprocess.Popen(
                [sys.executable, clients.__file__],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                env=plain_environment(),
            )
            for _ in range(size)
        ]
        self._listeners = [threading.Thread(target=self._listen, args=(each,)) for each in self._processes]
        for listener in self._listeners:
            listener.start()

    def begin(
        self, doors: Sequence[Daemon], daemons: Sequence[Daemon], tokens: Sequence[Token], enrol: str, seed: int
    ) -> None:
        """Set all to work: they log in at `doors`, and enrol at `daemons`."""
        self.attempts, self.enrolled, self._answers, self._stopped = [], [], 0, 0
        for number in range(len(self._processes)):
            self._tell(
                number,
                {
                    "do": "load",
                    "run_dirs": [os.fspath(each.run_dir) for each in doors],
                    "enrol_dir": os.fspath(daemons[number % len(daemons)].run_dir),
                    "tokens": [asdict(each) for each in tokens],
                    "enrol": f"{enrol}-{number}",
                    "threads": _THREADS,
                    "seed": seed * 10 + number,
                    "timeout": TIMEOUT,
                },
            )

    def wait_for(self, more: int) -> None:
        """Wait until there were so many more answers."""
        with self._news:
            wanted = self._answers + more
            there = self._news.wait_for(lambda: self._answers >= wanted or self._faults, SECONDS)
            assert not self._faults, self._faults
            assert there, f"{wanted - self._answers} of {more} answers have not come"

    def end(self) -> None:
        """Wait until each has had its last answer, and has told us."""
        for number in range(len(self._processes)):
            self._tell(number, {"do": "stop"})
        with self._news:
            every = self._news.wait_for(lambda: self._stopped == len(self._processes) or self._faults, SECONDS)
            assert not self._faults, self._faults
            assert every, "clients do not come to an end"

    def close(self) -> None:
        for process in self._processes:
            process.kill()
            process.wait(SECONDS)
        for process, listener in zip(self._processes, self._listeners, strict=True):
            listener.join(SECONDS)
            process.stdin.close()
            process.stdout.close()

    def _tell(self, number: int, job: object) -> None:
        stdin = self._processes[number].stdin
        stdin.write(json.dumps(job) + "\n")
        stdin.flush()

    def _listen(self, process: subprocess.Popen[str]) -> None:
        for line in process.stdout:
            said = json.loads(line)
            with self._news:
                if isinstance(said, list):
                    self.attempts.append(Attempt(said[0], Act(said[1]), *said[2:]))
                    self._answers += said[6] in {SUCCESS, REFUSED}
                elif "token" in said:
                    self.enrolled.append(Token(**said["token"]))
                elif "fault" in said:
                    self._faults.append(said["fault"])
                else:
                    self._stopped += 1
                self._news.notify_all()


@dataclass(slots=True)
class Veteran:
    """A token of an earlier round, with all that was ever done with it."""

    token: Token
    attempts: list[Attempt]


class Rounds:
    """One store with its daemons, and one fault after another. `controls` are of the daemons' disks and clocks."""

    def __init__(
        self,
        daemons: Sequence[Daemon],
        controls: Sequence[Control],
        doors: Sequence[Daemon],
        *,
        seed: int,
        kept: Path | None,
    ) -> None:
        self.daemons = daemons
        self.doors = doors
        """Where clients log in."""
        self.controls = controls
        self.seed = seed
        self.chance = random.Random(seed)
        self.crowd = Crowd()
        self.number = 0
        self._kept = kept
        self._windows: list[Window] = []
        self._veterans: list[Veteran] = []

    @property
    def daemon(self) -> Daemon:
        return self.daemons[0]

    @property
    def control(self) -> Control:
        return self.controls[0]

    @contextmanager
    def window(self, name: str, *excuses: Excuse) -> Iterator[None]:
        """While a fault lasts, which explains this."""
        begin = time.monotonic_ns()
        yield
        self._windows.append(Window(name, begin, time.monotonic_ns(), frozenset(excuses)))

    def play(self, strike: Callable[[Rounds], None]) -> None:
        """One round. Fails where anything is found, and says where all that was seen is kept."""
        begun = time.monotonic()
        self.number += 1
        self._windows = []
        tokens = self._tokens()
        with self.daemon.admin() as admin:
            before = admin.call(messages.AuditVerify())
        self.crowd.begin(self.doors, self.daemons, tokens, f"new{self.number}", self.number)
        self.crowd.wait_for(ANSWERS)
        strike(self)
        self.crowd.wait_for(ANSWERS)
        self.crowd.end()
        history = self._account(tokens, before)
        findings = check(history)
        self._report(strike.__name__, history, findings, time.monotonic() - begun)
        assert findings == [], self._say(history, findings)
        self._remember(tokens, history)

    def play_each(self, every: Sequence[Callable[[Rounds], None]], *, short: int) -> None:
        """Each fault in turn, in an order of chance; then more of them for as long as is wanted.

        In the short form so many of them, others each time.
        """
        until = time.monotonic() + FAULT_SECONDS
        for strike in self.chance.sample(every, len(every) if LONG else min(short, len(every))):
            self.play(strike)
        while time.monotonic() < until:
            self.play(self.chance.choice(every))

    def close(self) -> None:
        self.crowd.close()

    # --- before ---

    def _tokens(self) -> list[Token]:
        """New ones, of which no code was used."""
        step = int(time.time()) // PERIOD
        tokens = []
        for kind, count in _EACH.items():
            form = {"digits": DIGITS} if kind in {Kind.TOTP, Kind.HOTP} else {}
            users = [f"{kind}{self.number}-{place}" for place in range(count)]
            for user, key in provision(self.daemon, users, kind=kind, **form).items():
                if kind is Kind.TOTP:
                    about = {"seed": key.seed.hex()}
                    tokens.append(Token(user, kind, about, step - WINDOW, step - WINDOW, step + 2 * WINDOW))
                elif kind is Kind.HOTP:
                    tokens.append(Token(user, kind, {"seed": key.seed.hex()}))
                elif kind is Kind.YUBIOTP:
                    about = {
                        "public_id": key.public_id,
                        "private_id": key.private_id.hex(),
                        "seed": key.aes_key.hex(),
                    }
                    tokens.append(Token(user, kind, about, key.touched, key.touched))
                else:
                    tokens.append(Token(user, kind, {"codes": key.codes}, 0, 0, len(key.codes) - 1))
        self.chance.shuffle(tokens)
        return tokens

    # --- after ---

    def _account(self, tokens: Sequence[Token], before: messages.AuditVerifyReply) -> History:
        """What is known once all is whole again."""
        states = self._states()
        active = [token for token in self.crowd.enrolled if states.get(token.user) == "active"]
        attempts = self.crowd.attempts
        for token in [*tokens, *active]:
            attempts += self._probe(token, [each for each in attempts if each.token == token.user])
        for veteran in self.chance.sample(self._veterans, min(_PROBED, len(self._veterans))):
            probes = self._probe(veteran.token, veteran.attempts)
            veteran.attempts += probes
            # What was done with it before is not in this history.
            attempts += [replace(each, due=False) for each in probes]
        with self.daemon.admin() as admin:
            after = admin.call(messages.AuditVerify(anchor=before.anchor))
            replies = admin.stream(messages.AuditTail(count=100 + after.entries - before.entries))
            rows = [row for reply in replies for row in reply.entries]
        return History(
            attempts=attempts,
            rows=[
                Row(row.sequence, row.event, row.user, row.verdict)
                for row in rows
                if before.entries < row.sequence <= after.entries
            ],
            windows=self._windows,
            states=states,
            chain=after.fault,
            before=before.entries,
            longest=int((TIMEOUT + SLACK) * 1e9),
        )

    def _states(self) -> dict[str, str]:
        """The state of each token that was enrolled in this round."""
        ours = f"new{self.number}-"
        with self.daemon.admin() as admin:
            replies = admin.stream(messages.ListTokens(all=True))
            found = [token for reply in replies for token in reply.tokens]
        return {token.user: token.state.value for token in found if token.user.startswith(ours)}

    def _probe(self, token: Token, attempts: Sequence[Attempt]) -> list[Attempt]:
        """What was accepted is refused, what may have been passes once at most, and the next code opens, once."""
        used = {each.step for each in attempts if each.step is not None and each.outcome != REFUSED}
        tried = used | {each.step for each in attempts if each.step is not None}
        again = self.chance.sample(sorted(used), min(2, len(used)))
        following = max(used if token.ordered else tried, default=token.first - 1) + 1
        steps = again + ([following] * 2 if following <= token.last else [])
        with self.chance.choice(self.doors).client(TIMEOUT) as client:
            return [
                clients.verify(client, token, step, token.code(step), name="probe", timeout=TIMEOUT) for step in steps
            ]

    def _remember(self, tokens: Sequence[Token], history: History) -> None:
        """Some tokens are tried again in later rounds; what was seen of them so far is judged already."""
        past = Window("judged", 0, time.monotonic_ns(), frozenset(Excuse))
        for veteran in self._veterans:
            findings = check_codes(History(veteran.attempts, windows=[*self._windows, past]))
            assert findings == [], self._say(history, findings)
        for token in self.chance.sample(list(tokens), 4):
            mine = [each for each in history.attempts if each.token == token.user]
            self._veterans.append(Veteran(token, mine))
        del self._veterans[:-_VETERANS]

    def _report(self, name: str, history: History, findings: Sequence[Finding], seconds: float) -> None:
        outcomes = Counter(each.outcome for each in history.attempts)
        confirmed = sum(each.act is Act.CONFIRM and each.outcome == SUCCESS for each in history.attempts)
        lasted = sum(window.end - window.begin for window in history.windows) / 1e9
        seen = ", ".join(f"{count} {outcome}" for outcome, count in outcomes.most_common())
        what = f"fault for {lasted:.1f} s; {seen}; {confirmed} confirmed; {len(history.rows)} rows"
        verdict = f"{len(findings)} FINDINGS" if findings else "nothing found"
        print(f"round {self.number} ({seconds:.1f} s): {name}: {what}: {verdict}", flush=True)

    def _say(self, history: History, findings: Sequence[Finding]) -> str:
        """All that was found; what was seen is kept for whoever looks into it."""
        folder = Path(mkdtemp(prefix="otpb-faults-", dir=self._kept))
        for name, found in (
            ("attempts", sorted(history.attempts, key=lambda each: each.invoked)),
            ("rows", history.rows),
            ("windows", history.windows),
        ):
            (folder / name).write_text("".join(f"{each}\n" for each in found))
        for number, daemon in enumerate(self.daemons):
            (folder / f"daemon{number}.log").write_text(daemon.log)
        rules = ", ".join(f"{count} {rule}" for rule, count in Counter(each.rule for each in findings).most_common())
        shown = "\n".join(map(str, findings[:10]))
        return f"seed {self.seed}, round {self.number}: {rules}; kept in {folder}\n{shown}"


SEED = int(os.environ.get("OTPBRIDGE_FAULT_SEED") or time.time())
"""What is left to chance follows from it, as far as the system allows."""


def shimmed(folder: Path, library: Path) -> tuple[Control, Mapping[str, str]]:
    """A disk and a clock that can be told to misbehave, and the environment of a daemon that has them."""
    path = folder / "control"
    return Control(path), {"LD_PRELOAD": os.fspath(library), "FAULTS_CONTROL": os.fspath(path)}


@contextmanager
def campaign(
    daemons: Sequence[Daemon],
    controls: Sequence[Control] = (),
    *,
    doors: Sequence[Daemon] = (),
    seed: int = SEED,
    kept: Path | None = None,
) -> Iterator[Rounds]:
    """Rounds with daemons that run already; clients log in at `doors`, or else at them.

    What was seen, where anything was found, is kept in this folder, or in a new one of /tmp.
    """
    rounds = Rounds(daemons, controls, doors or daemons, seed=seed, kept=kept)
    print(f"seed {seed}", flush=True)
    try:
        yield rounds
    finally:
        for control in controls:
            control.heal()
        rounds.close()
