"""Those who read: SQLite answers on the spot, PostgreSQL in threads, so that nothing waits on the event loop."""

from __future__ import annotations

import asyncio
import logging
import queue
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError

from otpbridge.errors import StoreError
from otpbridge.store import postgres, statements
from otpbridge.store.engine import driver_of, snapshot
from otpbridge.store.hangs import Hangs
from otpbridge.store.lines import SqliteLine
from otpbridge.store.statements import Prepared, json_rows
from otpbridge.store.vital import VitalThread

log = logging.getLogger(__name__)

T = TypeVar("T")
Rows = Sequence[Sequence[Any]]

_THREADS = 4
_LARGEST_BATCH = 512


class Reader(Protocol):
    """Reads for the event loop that started it. Everything raises StoreError where the store cannot be read."""

    async def candidate(self, client: str, name: str) -> Rows:
        """The rows of `statements.candidate` for one user."""

    async def read(self, work: Callable[[Connection], T]) -> T:
        """Run a short read."""

    async def read_long(self, work: Callable[[Connection], T]) -> T:
        """Run a long read, which sees the store as it is at one moment."""

    async def close(self) -> None:
        """Let go."""


class SqliteReader:
    """Reads from a file: what is short is quicker done than handed to a thread.

    Users are looked up on the writer's connection while nothing is written: a connection forgets what it has read of
    the file whenever another one has written, and what is looked up now is what will be changed next.
    """

    def __init__(self, engine: Engine, line: SqliteLine) -> None:
        self._engine = engine
        self._line = line
        self._error: type[Exception] = engine.dialect.dbapi.Error  # type: ignore[union-attr]  # it is loaded
        self._connection = engine.connect()
        self._driver = driver_of(self._connection)
        self._candidate = Prepared(statements.candidate(), engine.dialect)

    async def candidate(self, client: str, name: str) -> Rows:
        """See Reader."""
        line = self._line
        if not line.held.acquire(blocking=False):
            return self._look_up(self._driver, client, name)
        try:
            # A transaction that could be neither committed nor rolled back shows what may never come to be.
            return self._look_up(self._driver if line.driver.in_transaction else line.driver, client, name)
        finally:
            line.held.release()

    def _look_up(self, driver: Any, client: str, name: str) -> Rows:
        try:
            rows: Rows = self._candidate.run(driver.cursor(), client=client, name=name).fetchall()
        except self._error as error:
            raise _unreadable(error) from None
        return rows

    async def read(self, work: Callable[[Connection], T]) -> T:
        """See Reader."""
        try:
            return work(self._connection)
        except DBAPIError as error:
            raise _unreadable(error.orig) from None

    async def read_long(self, work: Callable[[Connection], T]) -> T:
        """See Reader."""
        try:
            return await asyncio.to_thread(_at_one_moment, self._engine, work)
        except DBAPIError as error:
            raise _unreadable(error.orig) from None

    async def close(self) -> None:
        """See Reader."""
        self._connection.close()


@dataclass(slots=True)
class _Wanted:
    client: str
    name: str
    future: asyncio.Future[Rows]


class PostgresReader:
    """Reads from a server. Users who are verified at the same time are looked up by one statement."""

    def __init__(self, engine: Engine, hangs: Hangs) -> None:
        self._engine = engine
        self._hangs = hangs
        self._loop = asyncio.get_running_loop()
        self._candidates = Prepared(statements.candidates(engine.dialect), engine.dialect)
        self._queue: queue.SimpleQueue[_Wanted | None] = queue.SimpleQueue()
        self._connection: Connection | None = None
        self._threads = ThreadPoolExecutor(_THREADS, "store-reader")
        self._thread = VitalThread(target=self._run, name="store-candidates", daemon=True)
        self._thread.start()

    async def candidate(self, client: str, name: str) -> Rows:
        """See Reader."""
        future: asyncio.Future[Rows] = self._loop.create_future()
        self._queue.put(_Wanted(client, name, future))
        return await future

    async def read(self, work: Callable[[Connection], T]) -> T:
        """See Reader."""
        return await self._in_thread(lambda: self._on_any(work, postgres.HANG_SECONDS))

    async def read_long(self, work: Callable[[Connection], T]) -> T:
        """See Reader."""

        def whole(connection: Connection) -> T:
            return _whole(connection, work, snapshot(self._engine), postgres.PATIENT)

        return await self._in_thread(lambda: self._on_any(whole, postgres.LONG_SECONDS))

    async def close(self) -> None:
        """See Reader."""
        self._queue.put(None)
        await asyncio.to_thread(self._thread.join)
        await asyncio.to_thread(self._threads.shutdown)
        self._drop()

    async def _in_thread(self, call: Callable[[], T]) -> T:
        try:
            return await self._loop.run_in_executor(self._threads, call)
        except DBAPIError as error:
            raise _unreadable(error.orig) from None

    def _on_any(self, work: Callable[[Connection], T], seconds: float) -> T:
        """Run a read on a connection of the pool; once more where that one had been lost, as all others then."""
        try:
            return self._on_one(work, seconds)
        except DBAPIError as error:
            if not error.connection_invalidated:
                raise
        return self._on_one(work, seconds)

    def _on_one(self, work: Callable[[Connection], T], seconds: float) -> T:
        with self._engine.connect() as connection:
            leave = self._hangs.watch(connection.connection.dbapi_connection, seconds)
            try:
                return work(connection)
            finally:
                leave()

    def _run(self) -> None:
        while True:
            batch: list[_Wanted] = []
            wanted = self._queue.get()
            while wanted is not None:
                batch.append(wanted)
                if len(batch) == _LARGEST_BATCH or self._queue.empty():
                    break
                wanted = self._queue.get()
            if batch:
                found = self._look_up(batch)
                self._loop.call_soon_threadsafe(_deliver, batch, found)
            if wanted is None:
                return

    def _look_up(self, batch: Sequence[_Wanted]) -> list[Rows] | StoreError:
        rows = json_rows([(place, each.client, each.name) for place, each in enumerate(batch)])
        try:
            for last in (False, True):
                driver = self._driver()
                leave = self._hangs.watch(driver, postgres.HANG_SECONDS)
                try:
                    with driver.cursor() as cursor:
                        answer = self._candidates.run(cursor, rows=rows).fetchall()
                    break
                except driver.Error:  # psycopg's, as DB-API has it
                    if last or not postgres.is_lost(driver):
                        raise
                finally:
                    leave()
        except StoreError as error:
            return error
        except Exception as error:  # noqa: BLE001 - whatever the database does, every caller gets a refusal
            return _unreadable(error.orig if isinstance(error, DBAPIError) else error)
        found: list[list[Sequence[Any]]] = [[] for _ in batch]
        for place, *row in answer:
            found[place].append(row)
        return list(found)

    def _driver(self) -> Any:
        """The connection on which users are looked up, opened again where it was lost."""
        if self._connection is not None and postgres.is_lost(self._connection.connection.dbapi_connection):
            self._drop()
        if self._connection is None:
            self._connection = self._engine.connect()
        return self._connection.connection.dbapi_connection

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.invalidate()
            connection.close()
            # Those that lie idle were lost with it, as a rule.
            self._engine.dispose()


def _deliver(batch: Sequence[_Wanted], found: list[Rows] | StoreError) -> None:
    for place, wanted in enumerate(batch):
        if wanted.future.done():
            continue
        if isinstance(found, StoreError):
            wanted.future.set_exception(found)
        else:
            wanted.future.set_result(found[place])


def _at_one_moment(engine: Engine, work: Callable[[Connection], T]) -> T:
    with engine.connect() as connection:
        return _whole(connection, work, snapshot(engine))


def _whole(connection: Connection, work: Callable[[Connection], T], *opening: str) -> T:
    """Run a read in one transaction."""
    for statement in opening:
        connection.exec_driver_sql(statement)
    try:
        return work(connection)
    finally:
        if not connection.invalidated:
            connection.exec_driver_sql("ROLLBACK")


def _unreadable(error: BaseException | None) -> StoreError:
    return StoreError(f"the store cannot be read: {str(error).partition(chr(10))[0]}")
