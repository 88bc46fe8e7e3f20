"""The least that a durable verification can cost in Python: what otpbridge is measured against.

    bareloop.py SOCKET DATABASE SIZE < secret

One process: uvloop, a frame per call by msgspec, the HMACs of a window of three steps, and one conditional UPDATE in
SQLite (WAL, synchronous=FULL) by a thread that commits together what has gathered. Seeds are in memory as they are.
No stack, back-off, audit log, policy, peer check, sealed seed or user outside of memory: all that is otpbridge's own.
"""

from __future__ import annotations

import asyncio
import queue
import sqlite3
import sys
import threading
import time

import msgspec
import uvloop
from people import PERIOD, People, code_at

_YES, _NO = (b'{"parameters":{"verdict":"%s"}}\0' % verdict for verdict in (b"success", b"auth_err"))


class Parameters(msgspec.Struct):
    """Of a Check, what is looked at."""

    user: str
    responses: list[str]


class Call(msgspec.Struct):
    """One call."""

    parameters: Parameters


class Writer:
    """Spends steps: all that have gathered in one transaction."""

    def __init__(self, path: str, size: int, loop: asyncio.AbstractEventLoop) -> None:
        self.queue: queue.SimpleQueue[tuple[int, int, Connection]] = queue.SimpleQueue()
        self._loop = loop
        self._database = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self._database.execute("PRAGMA journal_mode=WAL")
        self._database.execute("PRAGMA synchronous=FULL")
        self._database.execute("CREATE TABLE token (id INTEGER PRIMARY KEY, step INTEGER NOT NULL)")
        self._database.execute("BEGIN")
        self._database.executemany("INSERT INTO token VALUES (?, 0)", ((number,) for number in range(size)))
        self._database.execute("COMMIT")
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        cursor = self._database.cursor()
        while True:
            batch = [self.queue.get()]
            while not self.queue.empty():
                batch.append(self.queue.get())
            cursor.execute("BEGIN IMMEDIATE")
            won = [
                cursor.execute("UPDATE token SET step = ? WHERE id = ? AND step < ?", (step, number, step)).rowcount
                for number, step, _ in batch
            ]
            cursor.execute("COMMIT")
            self._loop.call_soon_threadsafe(self._answer, batch, won)

    @staticmethod
    def _answer(batch: list[tuple[int, int, Connection]], won: list[int]) -> None:
        for (_, _, connection), count in zip(batch, won, strict=True):
            connection.answer(_YES if count else _NO)


class Connection(asyncio.Protocol):
    """One connection, one call at a time."""

    decoder = msgspec.json.Decoder(Call)

    def __init__(self, seeds: dict[str, tuple[int, bytes]], writer: Writer) -> None:
        self._seeds = seeds
        self._writer = writer
        self._given = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Remember whom to answer."""
        self._transport: asyncio.Transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        """Judge a call once it is there."""
        self._given += data
        if not self._given.endswith(b"\0"):
            return
        asked = self.decoder.decode(self._given[:-1]).parameters
        self._given = b""
        number, seed = self._seeds[asked.user]
        now = int(time.time()) // PERIOD
        for step in (now, now - 1, now + 1):
            if code_at(seed, step) == asked.responses[0]:
                self._writer.queue.put((number, step, self))
                return
        self.answer(_NO)

    def answer(self, reply: bytes) -> None:
        """Send it, unless the caller is gone."""
        if not self._transport.is_closing():
            self._transport.write(reply)


async def serve(socket: str, database: str, size: int, secret: bytes) -> None:
    """Serve until killed."""
    people = People(size, secret)
    seeds = {people.name(number): (number, people.seed(number)) for number in range(size)}
    loop = asyncio.get_running_loop()
    writer = Writer(database, size, loop)
    server = await loop.create_unix_server(lambda: Connection(seeds, writer), socket, backlog=1024)
    print("ready", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    sys.setswitchinterval(0.001)
    uvloop.run(serve(sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.stdin.buffer.read()))
