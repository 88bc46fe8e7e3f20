"""The one who writes: commits together what has gathered, and tells nobody before the commit has returned.

A batch is settled or changed in one transaction. A change that does not fit is rolled back alone; when the database
itself fails, the whole batch fails and nothing of it has happened. Where the line to the database was lost, the batch
is tried again if it is certain that nothing of it was committed; else all of it is refused.

Where the disk is quick, the settlements of one turn of the event loop are committed at its end, on the spot: the way
to a thread and back costs more than it saves. Where it is slow they go to a thread, which commits what has gathered
while the last commit was on its way. Changes always go there, as an import may take long.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any, TypeVar

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from otpbridge.errors import OtpBridgeError, StoreError
from otpbridge.model import AuditEvent
from otpbridge.store.auditlog import AuditLog
from otpbridge.store.chain import AuditRow
from otpbridge.store.histogram import SECONDS, Histogram
from otpbridge.store.lines import Line
from otpbridge.store.settle import Ruling, Settled, Settlement, Settler
from otpbridge.store.vital import VitalThread

log = logging.getLogger(__name__)

T = TypeVar("T")

LARGEST_BATCH = 512
QUICK_SECONDS = 0.001
"""Commits that take less on average are waited for on the event loop."""
_WEIGHT = 0.2
"""Of the newest commit in that average."""
_PATIENCE = 10.0
"""Seconds that the thread waits for another process that holds the store (an admin's sqlite3 shell, a copy)."""


@dataclass(slots=True)
class Tally:
    """What the writer has done. `last_commit` is a Unix time, 0 before the first one."""

    commit_seconds: Histogram = field(default_factory=lambda: Histogram(SECONDS))
    batch_size: Histogram = field(default_factory=lambda: Histogram([2**power for power in range(10)]))
    failed_batches: int = 0
    retries: int = 0
    last_commit: float = 0.0


class Transaction:
    """What a change sees: the connection, the time (Unix milliseconds), and a place for its audit events."""

    __slots__ = ("connection", "events", "now")

    def __init__(self, connection: Connection, now: int) -> None:
        self.connection = connection
        self.now = now
        self.events: list[tuple[int, AuditEvent]] = []

    def audit(self, event: AuditEvent) -> None:
        """Note an event; it becomes an audit row in the same transaction."""
        self.events.append((self.now, event))


@dataclass(slots=True)
class _Job:
    work: Settlement[Any] | Callable[[Transaction], Any]
    now: int
    future: asyncio.Future[Any]
    result: Any = None
    error: Exception | None = None


class Writer:
    """Owns the writing line. Use it from the event loop that made it."""

    def __init__(
        self,
        line: Line,
        settler: Settler,
        audit: AuditLog,
        *,
        committed: Callable[[list[AuditRow]], None],
        quick: float = QUICK_SECONDS,
    ) -> None:
        self.tally = Tally()
        self._quick = quick
        self._pace = 0.0
        self._gathered: list[_Job] = []
        self._line = line
        self._settler = settler
        self._audit = audit
        self._committed = committed
        self._loop = asyncio.get_running_loop()
        self._queue: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._thread = VitalThread(target=self._run, name="store-writer", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """How many settlements and changes have not been taken up yet."""
        return len(self._gathered) + self._queue.qsize()

    def settle(self, settlement: Settlement[T]) -> asyncio.Future[T]:
        """Take a judged attempt; what it concludes comes once the ruling is on disk, or the store has failed."""
        future: asyncio.Future[T] = self._loop.create_future()
        if not self._gathered:
            self._loop.call_soon(self._turn)
        self._gathered.append(_Job(settlement, settlement.now, future))
        return future

    def change(self, work: Callable[[Transaction], T], now: int) -> asyncio.Future[T]:
        """Take a change. What it raises of our own errors comes through the future, and nothing has changed."""
        future: asyncio.Future[T] = self._loop.create_future()
        self._queue.put(_Job(work, now, future))
        return future

    async def close(self) -> None:
        """Write what is queued, then stop."""
        if self._gathered:
            self._turn()
        self._queue.put(None)
        await asyncio.to_thread(self._thread.join)
        self._line.close()

    def _turn(self) -> None:
        """Commit what this turn of the loop has gathered, here or in the thread."""
        batch, self._gathered = self._gathered, []
        if self._pace < self._quick and self._queue.empty() and self._line.held.acquire(blocking=False):
            try:
                rows = self._write(batch, patience=0.0)
            finally:
                self._line.held.release()
            if rows is not None:
                self._deliver(batch, rows)
                return
        for job in batch:
            self._queue.put(job)

    def _run(self) -> None:
        while True:
            job = self._queue.get()
            batch: list[_Job] = []
            while job is not None:
                batch.append(job)
                if len(batch) == LARGEST_BATCH:
                    break
                try:
                    job = self._queue.get_nowait()
                except queue.Empty:
                    break
            if batch:
                with self._line.held:
                    rows = self._write(batch, patience=_PATIENCE) or []
                self._loop.call_soon_threadsafe(self._deliver, batch, rows)
            if job is None:
                return

    def _write(self, batch: list[_Job], *, patience: float) -> list[AuditRow] | None:
        """Write a batch; its audit rows. None where somebody else held the store for longer than `patience`."""
        for last in (False, False, True):
            try:
                return self._transact(batch, patience)
            except Exception as error:  # noqa: BLE001 - whatever the database does, every caller gets a refusal
                if not last and self._line.may_try_again(error):
                    self.tally.retries += 1
                    log.warning("store: nothing was committed, trying again: %s", _brief(error))
                    continue
                self.tally.failed_batches += 1
                # Without a traceback: its frames hold parameters.
                log.error(  # noqa: TRY400
                    "store: %d writes failed: %s", len(batch), _brief(error), extra={"event": "store failed"}
                )
                self._fail(batch, StoreError(f"the store could not be written: {_brief(error)}"))
                break
        return []

    def _transact(self, batch: list[_Job], patience: float) -> list[AuditRow] | None:
        rows: list[AuditRow] = []
        cursor = self._line.begin(patience)
        if cursor is None:
            return None
        try:
            for settling, jobs in groupby(batch, lambda job: isinstance(job.work, Settlement)):
                if settling:
                    rows += self._settle(cursor, list(jobs))
                else:
                    for job in jobs:
                        rows += self._change(cursor, job)
            begun = time.monotonic()
            self._line.commit(cursor, rows)
            took = time.monotonic() - begun
            self._pace += (took - self._pace) * _WEIGHT
            tally = self.tally
            tally.commit_seconds.observe(took)
            tally.batch_size.observe(len(batch))
            tally.last_commit = time.time()
        except BaseException:
            self._roll_back(cursor)
            raise
        return rows

    def _fail(self, batch: list[_Job], failure: StoreError) -> None:
        for job in batch:
            if isinstance(job.work, Settlement):
                _, job.result = job.work.conclude(Ruling(Settled.FAILED))
            else:
                job.error = failure

    def _settle(self, cursor: Any, jobs: Sequence[_Job]) -> list[AuditRow]:
        settlements = [job.work for job in jobs if isinstance(job.work, Settlement)]
        rulings = self._settler.settle(cursor, settlements)
        events = []
        for job, settlement, ruling in zip(jobs, settlements, rulings, strict=True):
            event, job.result = settlement.conclude(ruling)
            if event is not None:
                events.append((settlement.now, event))
        return self._audit.append(cursor, events) if events else []

    def _change(self, cursor: Any, job: _Job) -> list[AuditRow]:
        assert not isinstance(job.work, Settlement)
        transaction = Transaction(self._line.connection, job.now)
        job.error = None
        self._line.save(cursor)
        try:
            job.result = job.work(transaction)
            rows = self._audit.append(cursor, transaction.events) if transaction.events else []
        except Exception as error:  # noqa: BLE001 - one change that fails must not take the others with it
            # Where the database has given up the whole transaction this fails too, and so does the batch.
            self._line.undo(cursor, error)
            rows = []
            if isinstance(error, OtpBridgeError):
                job.error = error
            else:
                log.error("store: a change failed and was rolled back: %s", _brief(error))  # noqa: TRY400
                job.error = StoreError(f"the store refused a change: {_brief(error)}")
        self._line.keep(cursor)
        return rows

    def _roll_back(self, cursor: Any) -> None:
        try:
            self._line.roll_back(cursor)
        except Exception as error:  # noqa: BLE001 - the connection is gone; the next batch opens another
            log.warning("store: roll-back failed: %s", _brief(error))

    def _deliver(self, batch: list[_Job], rows: list[AuditRow]) -> None:
        for job in batch:
            if job.future.done():
                continue
            if job.error is not None:
                job.future.set_exception(job.error)
            else:
                job.future.set_result(job.result)
        if rows:
            self._committed(rows)


def _brief(error: BaseException) -> str:
    """An error's own words, without the statement and parameters that SQLAlchemy adds."""
    inner = error.orig if isinstance(error, DBAPIError) and error.orig is not None else error
    return f"{type(inner).__name__}: {inner}".splitlines()[0]
