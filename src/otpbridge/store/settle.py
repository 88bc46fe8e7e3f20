"""Settle verifications: back-off, spending and audit of a whole batch in one transaction.

Attempts arrive already judged (the verifiers have compared codes), but nobody is told before the rules here have
passed on them, in this order and atomically: is anything judged for this user and source now; does the spent moving
factor still stand; then the miss is counted or the row of misses ends. So of N parallel guesses exactly as many
count as judged as the limit allows, whatever they were.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, TypeVar

from sqlalchemy import Dialect

from otpbridge.model import AuditEvent, Backoff
from otpbridge.store import statements
from otpbridge.store.statements import Prepared, json_rows

T = TypeVar("T")

CLOCKS_MS = 10_000
"""By how much an attempt may seem to be older than the last miss: it waited, or another daemon's clock is ahead."""


@dataclass(frozen=True, slots=True)
class Spend:
    """Move a token past the moving factor that was shown: `next` is the lowest that may be spent from now on."""

    seq: int
    next: int
    drift: int


@dataclass(frozen=True, slots=True)
class Strike:
    """Strike a code out of a list: `bit` is the one that stands for it in the token's moving factor."""

    seq: int
    bit: int


@dataclass(frozen=True, slots=True)
class Sighting:
    """Whose success, where and from where, is to be remembered."""

    client: str
    name: str
    service: str
    source: str


class Settled(enum.Enum):
    """What became of an attempt."""

    PASSED = "passed"
    MISSED = "missed"
    SPENT = "spent"
    BLOCKED = "blocked"
    FAILED = "failed"
    """The store could not be written: nothing has happened."""


class Ruling(NamedTuple):
    """The outcome of a settlement.

    `wait` (milliseconds) is how long nothing is judged: when blocked, from now; when missed, because of this miss.
    `at` (Unix milliseconds) is when a miss was counted.
    """

    settled: Settled
    wait: int = 0
    at: int = 0


class Settlement(NamedTuple, Generic[T]):
    """One judged attempt.

    `subject` and `source` are what back-off counts, the subject by `rule`; `passed` is what the verifiers found.
    With `reserving` a miss is counted before it is known to be one. `reserved` are the times (Unix milliseconds) at
    which that was done for this attempt: with any, nothing is in the way any more, and only a success changes what
    was counted. `conclude` gives, for a ruling, the audit row (if it is worth one) and what the waiting caller gets.
    """

    subject: str
    source: str | None
    passed: bool
    spends: tuple[Spend | Strike, ...]
    now: int
    rule: Backoff
    conclude: Callable[[Ruling], tuple[AuditEvent | None, T]]
    reserving: bool = False
    reserved: tuple[int, ...] = ()
    sighting: Sighting | None = None


class Settler:
    """The prepared statements of one store."""

    def __init__(self, dialect: Dialect, per_source: Backoff) -> None:
        self._dialect = dialect
        self._source = per_source
        self._throttled = Prepared(statements.throttled(dialect), dialect)
        self._spend = Prepared(statements.spend(dialect), dialect)
        self._strike = Prepared(statements.strike(dialect), dialect)
        self._remember = Prepared(statements.remember(dialect), dialect)
        self._misses: dict[tuple[Backoff, bool], Prepared] = {}
        self._hit = Prepared(statements.hit(dialect), dialect)
        self._forgive = Prepared(statements.forgive(dialect), dialect)
        self._refuse = Prepared(statements.refuse(dialect), dialect)

    def settle(self, cursor: Any, batch: Sequence[Settlement[Any]]) -> list[Ruling]:
        """Pass on a batch, in order, inside the caller's transaction."""
        rulings: list[Ruling] = []
        for part in _rounds(batch):
            rulings += self._round(cursor, part)
        return rulings

    def _round(self, cursor: Any, part: Sequence[Settlement[Any]]) -> list[Ruling]:
        found = self._throttled_by(cursor, part)
        known = {key: not_before for key, (not_before, _) in found.items()}
        if known:
            part = [_not_before_last(attempt, found) for attempt in part]
        rulings = self._blocked(cursor, part, known)
        won = self._spent(cursor, [attempt for attempt, ruling in zip(part, rulings, strict=True) if ruling is None])
        passed: list[Settlement[Any]] = []
        missed: list[Settlement[Any]] = []
        for place, attempt in enumerate(part):
            if rulings[place] is None and attempt.passed and all(spend.seq in won for spend in attempt.spends):
                rulings[place] = Ruling(Settled.PASSED)
                passed.append(attempt)
            elif rulings[place] is None and not attempt.reserved:
                missed.append(attempt)
        self._passed(cursor, passed, known)
        judged = self._count(cursor, missed) if missed else {}
        for place, attempt in enumerate(part):
            if rulings[place] is not None:
                continue
            if attempt.reserved or attempt.subject in judged:
                settled = Settled.SPENT if attempt.passed else Settled.MISSED
                wait = 0 if attempt.reserved else judged[attempt.subject]
                rulings[place] = Ruling(settled, wait, attempt.now)
            else:
                rulings[place] = Ruling(Settled.BLOCKED, attempt.rule.first_wait)
        return [ruling for ruling in rulings if ruling is not None]

    def _spent(self, cursor: Any, attempts: Sequence[Settlement[Any]]) -> set[int]:
        """Spend what attempts spend; returns the tokens of which it could be spent."""
        spends, strikes = [], []
        for attempt in attempts:
            for spend in attempt.spends:
                if isinstance(spend, Spend):
                    spends.append((spend.seq, spend.next, spend.drift, attempt.now // 1000))
                else:
                    strikes.append((spend.seq, spend.bit, attempt.now // 1000))
        won: set[int] = set()
        if spends:
            won |= {seq for (seq,) in self._spend.run(cursor, rows=json_rows(spends)).fetchall()}
        if strikes:
            won |= {seq for (seq,) in self._strike.run(cursor, rows=json_rows(strikes)).fetchall()}
        return won

    def _passed(self, cursor: Any, attempts: Sequence[Settlement[Any]], known: dict[str, int]) -> None:
        """End the row of misses of who passed, and remember those that are to be remembered."""
        ended = [(attempt.subject,) for attempt in attempts if attempt.subject in known]
        if ended:
            self._hit.run(cursor, rows=json_rows(ended))
        forgiven = [(attempt.source, at) for attempt in attempts if attempt.source for at in attempt.reserved]
        for chunk in _distinct(forgiven):
            self._forgive.run(cursor, rows=json_rows(chunk))
        seen = [
            (sight.client, sight.name, sight.service, sight.source, attempt.now)
            for attempt in attempts
            if (sight := attempt.sighting) is not None
        ]
        if seen:
            self._remember.run(cursor, rows=json_rows(seen))

    def _throttled_by(self, cursor: Any, part: Sequence[Settlement[Any]]) -> dict[str, tuple[int, int]]:
        """Until when nothing is judged, and the last miss, for those subjects and sources that back-off knows."""
        keys = {attempt.subject for attempt in part} | {attempt.source for attempt in part if attempt.source}
        rows = self._throttled.run(cursor, rows=json_rows([(key,) for key in keys])).fetchall()
        return {key: (not_before, last) for key, not_before, last in rows}

    def _blocked(self, cursor: Any, part: Sequence[Settlement[Any]], known: dict[str, int]) -> list[Ruling | None]:
        """A ruling for each attempt that is not judged now, which is counted as refused; None for the others."""
        rulings: list[Ruling | None] = []
        if not known:
            return [None for _ in part]
        refused = []
        for attempt in part:
            if attempt.reserved:
                rulings.append(None)
                continue
            waits = {attempt.subject: attempt.rule.blocked_for(known.get(attempt.subject, 0), attempt.now)}
            if attempt.source:
                waits[attempt.source] = self._source.blocked_for(known.get(attempt.source, 0), attempt.now)
            refused += [(key,) for key, wait in waits.items() if wait]
            longest = max(waits.values())
            rulings.append(Ruling(Settled.BLOCKED, longest) if longest else None)
        for chunk in _distinct(refused):
            self._refuse.run(cursor, rows=json_rows(chunk))
        return rulings

    def _count(self, cursor: Any, misses: Sequence[Settlement[Any]]) -> dict[str, int]:
        """Count misses, per source and per subject. Returns the wait of each subject whose attempt was judged."""
        judged = [attempt for attempt in misses if not attempt.source]
        for chunk in _distinct([(attempt.source, attempt) for attempt in misses if attempt.source]):
            for reserving in (False, True):
                rows = [(source, attempt.now) for source, attempt in chunk if attempt.reserving is reserving]
                counted = self._miss(cursor, self._source, rows, reserving=reserving) if rows else {}
                judged += [attempt for source, attempt in chunk if source in counted]
        by_rule: dict[Backoff, list[tuple[str, int]]] = {}
        for attempt in judged:
            by_rule.setdefault(attempt.rule, []).append((attempt.subject, attempt.now))
        return {key: wait for rule, rows in by_rule.items() for key, wait in self._miss(cursor, rule, rows).items()}

    def _miss(
        self, cursor: Any, rule: Backoff, rows: Sequence[tuple[str, int]], *, reserving: bool = False
    ) -> dict[str, int]:
        """Count misses by one rule, of which there are few: a statement each.

        Returns the keys that were counted, with the wait (milliseconds) that this miss began for each.
        """
        statement = self._misses.get((rule, reserving))
        if statement is None:
            made = statements.miss(self._dialect, rule, reserving=reserving)
            statement = self._misses[rule, reserving] = Prepared(made, self._dialect)
        counted = statement.run(cursor, rows=json_rows(rows)).fetchall()
        return {key: not_before - last for key, not_before, last in counted}


def _not_before_last(attempt: Settlement[Any], found: dict[str, tuple[int, int]]) -> Settlement[Any]:
    """An attempt as of the last miss, where it seems to be a little older: else its wait would look too long."""
    lasts = [found[key][1] for key in (attempt.subject, attempt.source) if key in found]
    now = max([last for last in lasts if last - CLOCKS_MS < attempt.now], default=0)
    return attempt._replace(now=now) if now > attempt.now else attempt


def _rounds(batch: Sequence[Settlement[Any]]) -> Iterator[list[Settlement[Any]]]:
    """Cut a batch so that within each part no attempt can change what another one meets.

    Two attempts of one subject never share a part. Nor do two of one source, once one of them is a miss.
    """
    missing = {attempt.source for attempt in batch if attempt.source and not attempt.passed}
    part: list[Settlement[Any]] = []
    taken: set[str] = set()
    for attempt in batch:
        keys = [attempt.subject]
        if attempt.source in missing and attempt.source:
            keys.append(attempt.source)
        if any(key in taken for key in keys):
            yield part
            part, taken = [], set()
        part.append(attempt)
        taken.update(keys)
    if part:
        yield part


def _distinct(rows: Sequence[tuple[Any, ...]]) -> Iterator[list[tuple[Any, ...]]]:
    """Cut rows so that a key stands at most once in each part."""
    part: dict[Any, tuple[Any, ...]] = {}
    for row in rows:
        if row[0] in part:
            yield list(part.values())
            part = {}
        part[row[0]] = row
    if part:
        yield list(part.values())
