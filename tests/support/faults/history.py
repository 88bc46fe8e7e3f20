"""Judge what a daemon did from what its clients saw and what its audit log holds. Nothing here is otpbridge's.

Each token is a register that only grows: spending step 7 needs a register below 7 and leaves it at 7. (In a list of
codes each has a register of its own.) A history is good when every answer can be explained by one order of all
attempts that keeps to the order in which they were seen to follow one another (linearizability), and when nothing
else of what was promised was broken:

    findings = check(History(attempts, rows, windows, states))    # [] where all is well

Times are of one monotonic clock, in nanoseconds.
"""

from __future__ import annotations

import bisect
import enum
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

SUCCESS = "success"
REFUSED = "auth_err"
UNAVAILABLE = "unavailable"
"""The daemon said that it could not judge."""
CUT = "cut"
"""The connection ended without an answer, or there was none to be had."""
SILENT = "silent"
"""Nothing came until the client gave up."""
UNKNOWN = frozenset({UNAVAILABLE, CUT, SILENT})
"""After these the code may be spent, or not."""


class Excuse(enum.StrEnum):
    """What a fault explains while it lasts."""

    UNAVAILABLE = UNAVAILABLE
    CUT = CUT
    SILENT = SILENT
    CLOCK = "clock"
    """That a code which is right now was refused."""


class Act(enum.StrEnum):
    """What a client did."""

    VERIFY = "verify"
    CONFIRM = "confirm"
    START = "start"
    """An enrolment: no code is shown."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """One request, as its client saw it."""

    client: str
    act: Act
    token: str
    """Whose code it was. Clients name tokens by their users, who have one each."""
    step: int | None
    """The time step or counter of the code; None where it was no code of the token."""
    invoked: int
    ended: int
    outcome: str
    due: bool = True
    """Whether the code was one that is accepted unless it, or a later one, was spent before."""
    ordered: bool = True
    """Whether a code is spent with a later one; else, as in a list of codes, `step` only tells them apart."""


@dataclass(frozen=True, slots=True)
class Row:
    """A row of the audit log."""

    sequence: int
    event: str
    token: str | None
    """As in Attempt."""
    verdict: str | None


@dataclass(frozen=True, slots=True)
class Window:
    """While a fault lasted, and what it explains."""

    name: str
    begin: int
    end: int
    excuses: frozenset[Excuse]

    def explains(self, attempt: Attempt, excuse: str) -> bool:
        """Whether the attempt met it."""
        return excuse in self.excuses and attempt.invoked <= self.end and self.begin <= attempt.ended


@dataclass(frozen=True, slots=True)
class History:
    """All that is known."""

    attempts: Sequence[Attempt]
    rows: Sequence[Row] = ()
    """Those written since the first attempt, oldest first."""
    windows: Sequence[Window] = ()
    states: Mapping[str, str] = field(default_factory=dict)
    """After all of it: the state of each token that was enrolled."""
    chain: str | None = None
    """What is wrong with the chain of the log, by the word of who can check it."""
    before: int = 0
    """The number of the last row before these."""
    longest: int = 10_000_000_000
    """How long an attempt may take."""


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that must not be."""

    rule: str
    what: str
    attempts: tuple[Attempt, ...] = ()

    def __str__(self) -> str:
        return "\n    ".join([f"{self.rule}: {self.what}", *map(str, self.attempts)])


def check(history: History) -> list[Finding]:
    """All that is wrong with a history."""
    return [finding for rule in _RULES for finding in rule(history)]


def check_codes(history: History) -> list[Finding]:
    """The same, where the log is not at hand."""
    return [finding for rule in (_spent_once, _refused_rightly, _answered) for finding in rule(history)]


# --- codes ---


def _spent_once(history: History) -> Iterator[Finding]:
    """No code was accepted twice, none after a later one, and none that was wrong."""
    for token, attempts in _by_register(history.attempts).items():
        accepted = sorted((each for each in attempts if each.outcome == SUCCESS), key=lambda each: each.invoked)
        for each in accepted:
            if each.step is None:
                yield Finding("wrong code", f"{token} was let in with a code that it does not have", (each,))
        firsts: dict[int, Attempt] = {}
        for each in accepted:
            if each.step in firsts:
                yield Finding("accepted twice", f"step {each.step} of {token}", (firsts[each.step], each))
            elif each.step is not None:
                firsts[each.step] = each
        yield from _not_backwards(token, list(firsts.values()))


def _not_backwards(token: str, accepted: Sequence[Attempt]) -> Iterator[Finding]:
    """Nothing was accepted that began after a later step had been accepted."""
    ended = sorted(accepted, key=lambda each: each.ended)
    highest: Attempt | None = None
    place = 0
    for each in sorted(accepted, key=lambda each: each.invoked):
        while place < len(ended) and ended[place].ended < each.invoked:
            if highest is None or _step(ended[place]) > _step(highest):
                highest = ended[place]
            place += 1
        if highest is not None and _step(highest) > _step(each):
            yield Finding("went backwards", f"{token} took a step after a later one", (highest, each))


def _refused_rightly(history: History) -> Iterator[Finding]:
    """Where a code that was due was refused, it could be spent by then, or a fault explains it."""
    starts = {each.token: each for each in history.attempts if each.act is Act.START}
    for token, attempts in _by_register(history.attempts).items():
        floors = _Floors(attempts)
        for each in attempts:
            if each.outcome != REFUSED or each.step is None or not each.due:
                continue
            # When a token is to be confirmed was settled when it was started.
            since = starts.get(token, each) if each.act is Act.CONFIRM else each
            if floors.may_be_spent(each) or _explained(history, replace(each, invoked=since.invoked), Excuse.CLOCK):
                continue
            yield Finding("refused", f"step {each.step} of {token} was right, and nobody had spent it", (each,))


class _Floors:
    """How high the register of a token can be at most, over time.

    What was accepted takes effect in the order of steps, so at the earliest when all lower ones have begun. What
    has no answer can take effect once it and all that was accepted below it have begun. Taking each at its earliest
    contradicts nothing else, as a later start only makes the register lower.
    """

    def __init__(self, attempts: Iterable[Attempt]) -> None:
        spending = [each for each in attempts if each.step is not None]
        accepted = sorted((each for each in spending if each.outcome == SUCCESS), key=_step)
        steps = [_step(each) for each in accepted]
        begun: list[int] = []
        for each in accepted:
            begun.append(max(each.invoked, begun[-1] if begun else each.invoked))
        earliest: dict[int, int] = dict(zip(steps, begun, strict=True))
        for each in spending:
            if each.outcome not in UNKNOWN or (step := _step(each)) in steps:
                continue
            below = bisect.bisect_right(steps, step)
            at = max(each.invoked, begun[below - 1] if below else each.invoked)
            earliest[step] = min(at, earliest.get(step, at))
        self._steps = sorted(earliest)
        self._at: list[int] = []
        for step in reversed(self._steps):
            self._at.append(min(earliest[step], self._at[-1] if self._at else earliest[step]))
        self._at.reverse()

    def may_be_spent(self, attempt: Attempt) -> bool:
        """Whether this step, or a later one, may have been spent before the attempt ended."""
        place = bisect.bisect_left(self._steps, _step(attempt))
        return place < len(self._steps) and self._at[place] <= attempt.ended


# --- answers ---


def _answered(history: History) -> Iterator[Finding]:
    """Every attempt ended in time, and with an answer unless a fault explains that there was none."""
    for each in history.attempts:
        if each.ended - each.invoked > history.longest:
            yield Finding("overdue", f"after {(each.ended - each.invoked) / 1e9:.1f} s", (each,))
        if each.outcome in UNKNOWN:
            if not _explained(history, each, each.outcome):
                yield Finding("no answer", f"{each.outcome}, and no fault explains it", (each,))
        elif each.outcome not in {SUCCESS, REFUSED}:
            yield Finding("strange answer", each.outcome, (each,))


# --- the log ---


def _logged(history: History) -> Iterator[Finding]:
    """Who was told yes stands in the log, and nobody else unless their answer was lost."""
    for act, event in ((Act.VERIFY, "verify"), (Act.CONFIRM, "token confirmed")):
        told = Counter(each.token for each in history.attempts if each.act is act and each.outcome == SUCCESS)
        open_ = Counter(each.token for each in history.attempts if each.act is act and each.outcome in UNKNOWN)
        logged: Counter[str] = Counter()
        for row in history.rows:
            if row.event == event and row.token is not None and (act is Act.CONFIRM or row.verdict == SUCCESS):
                logged[row.token] += 1
        for token, times in (told - logged).items():
            yield Finding("not logged", f"{times} of the successes of {token} ({act}) are not in the log")
        for token, times in (logged - told - open_).items():
            yield Finding("logged too often", f"{times} successes of {token} ({act}) that no client can have had")


def _whole(history: History) -> Iterator[Finding]:
    """The chain of the log is whole, and no row is missing from it."""
    if history.chain is not None:
        yield Finding("chain", history.chain)
    for number, row in enumerate(history.rows, history.before + 1):
        if row.sequence != number:
            yield Finding("chain", f"row {number} is not where it belongs: {row}")
            return


# --- enrolments ---


def _confirmed(history: History) -> Iterator[Finding]:
    """A token is active exactly if the log says that it was confirmed; a confirmation that was told stands."""
    logged = {row.token for row in history.rows if row.event == "token confirmed"}
    told = {each.token: each for each in history.attempts if each.act is Act.CONFIRM and each.outcome == SUCCESS}
    for token, attempt in told.items():
        if history.states.get(token) != "active":
            yield Finding("token lost", f"{token} is {history.states.get(token, 'gone')}", (attempt,))
    for token, state in history.states.items():
        if (state == "active") != (token in logged):
            said = "was" if token in logged else "was not"
            yield Finding("half confirmed", f"{token} is {state}, and by the log it {said} confirmed")


_RULES = (_spent_once, _refused_rightly, _answered, _logged, _whole, _confirmed)


def _by_register(attempts: Iterable[Attempt]) -> Mapping[str, list[Attempt]]:
    found: dict[str, list[Attempt]] = defaultdict(list)
    for each in attempts:
        if each.act is Act.START:
            continue
        found[each.token if each.ordered else f"{each.token}, code {each.step},"].append(each)
    return found


def _explained(history: History, attempt: Attempt, excuse: str) -> bool:
    return any(window.explains(attempt, excuse) for window in history.windows)


def _step(attempt: Attempt) -> int:
    assert attempt.step is not None
    return attempt.step
