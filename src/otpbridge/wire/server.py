"""Accepts connections on one Unix socket, within limits, and closes those that overstay."""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
import struct
import time
from typing import TYPE_CHECKING, Any

from otpbridge.wire.calls import Peer
from otpbridge.wire.connection import Connection

if TYPE_CHECKING:
    from otpbridge.wire.service import Service

log = logging.getLogger(__name__)

_UCRED = struct.Struct("iII")
_ACCEPTS_PER_TURN = 32
_SWEEP_SECONDS = 1.0
_RETRY_SECONDS = 0.25
_LOG_SECONDS = 60.0
_NO_RESOURCES = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


class Server:
    """Serves `service` on a bound AF_UNIX socket, which it owns from then on. `name` is for the log.

    A socket that listens already (from systemd) keeps its backlog. Reads and writes its sockets itself, through the
    loop's add_reader: asyncio's own server spins and floods the log when descriptors run out, and its transports do
    not tell a peer that is gone from one that has only finished writing.
    """

    def __init__(self, service: Service, sock: socket.socket, *, name: str) -> None:
        self.service = service
        self.now = 0.0
        """Monotonic seconds, renewed at each sweep: exact enough for deadlines, and free."""
        self._sock = sock
        self._name = name
        self._loop: asyncio.AbstractEventLoop | None = None
        self._all: set[Connection] = set()
        self._by_uid: dict[int, int] = {}
        self._in_flight: dict[int, int] = {}
        self._running: set[asyncio.Future[Any]] = set()
        self._accepting = False
        self._stopped = False
        self._next_log = 0.0
        self._sweeper: asyncio.TimerHandle | None = None
        self._retry: asyncio.TimerHandle | None = None
        self._empty: asyncio.Event = asyncio.Event()

    @property
    def connections(self) -> int:
        """How many connections are open now."""
        return len(self._all)

    async def start(self) -> None:
        """Begin to accept."""
        self._loop = asyncio.get_running_loop()
        self._sock.settimeout(0.0)
        if not self._sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            self._sock.listen(self.service.limits.backlog)
        self._resume()

    async def drain(self, seconds: float) -> None:
        """Stop accepting, let calls in flight finish for at most `seconds`, then close what is left."""
        self._stopped = True
        self._pause()
        if self._retry is not None:
            self._retry.cancel()
        self._sock.close()
        for connection in list(self._all):
            connection.wind_down()
        self._empty.clear()
        if self._all:
            try:
                async with asyncio.timeout(seconds):
                    await self._empty.wait()
            except TimeoutError:
                log.warning("%s: %d connections cut off", self._name, len(self._all))
        for connection in list(self._all):
            connection.close()
        if self._sweeper is not None:
            self._sweeper.cancel()
        if self._running:
            await asyncio.wait(list(self._running), timeout=max(seconds, 1.0))

    # --- for connections ---

    def may_call(self, peer: Peer) -> bool:
        """Whether the caller may have one more call in flight."""
        return self._in_flight.get(peer.uid, 0) < self.service.limits.calls_for(peer.uid)

    def call_waits(self, peer: Peer, future: asyncio.Future[Any]) -> None:
        """A call is in flight until `future` is done."""
        self._running.add(future)
        self._in_flight[peer.uid] = self._in_flight.get(peer.uid, 0) + 1

    def call_done(self, peer: Peer, future: asyncio.Future[Any]) -> None:
        """That call is done, or was cancelled."""
        self._running.discard(future)
        _decrease(self._in_flight, peer.uid)

    def gone(self, connection: Connection) -> None:
        """A connection was closed."""
        self._all.discard(connection)
        _decrease(self._by_uid, connection.peer.uid)
        if not self._all:
            self._empty.set()
            if self._sweeper is not None:
                self._sweeper.cancel()
                self._sweeper = None
        if self._retry is not None and not self._stopped:
            self._retry.cancel()
            self._resume()

    # --- accepting ---

    def _resume(self) -> None:
        self._retry = None
        if not self._accepting:
            assert self._loop is not None
            self._loop.add_reader(self._sock.fileno(), self._accept)
            self._accepting = True

    def _pause(self) -> None:
        if self._accepting:
            assert self._loop is not None
            self._loop.remove_reader(self._sock.fileno())
            self._accepting = False

    def _accept(self) -> None:
        for _ in range(_ACCEPTS_PER_TURN):
            try:
                sock, _address = self._sock.accept()
            except (BlockingIOError, InterruptedError):
                return
            except ConnectionAbortedError:
                continue
            except OSError as error:
                self._accept_later(error)
                return
            self._admit(sock)

    def _accept_later(self, error: OSError) -> None:
        """The listening socket stays readable: without a pause this would spin."""
        assert self._loop is not None
        self._pause()
        self._retry = self._loop.call_later(_RETRY_SECONDS, self._resume)
        if (now := time.monotonic()) >= self._next_log:
            self._next_log = now + _LOG_SECONDS
            hint = "; raise LimitNOFILE=" if error.errno in _NO_RESOURCES else ""
            log.error(
                "%s: cannot accept connections: %s, %d are open%s", self._name, error.strerror, len(self._all), hint
            )

    def _admit(self, sock: socket.socket) -> None:
        assert self._loop is not None
        pid, uid, gid = _UCRED.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
        limits = self.service.limits
        count = self._by_uid.get(uid, 0)
        admitted = count < limits.connections_for(uid) and (len(self._all) < limits.connections or limits.trusts(uid))
        if not admitted:
            sock.close()
            if (now := time.monotonic()) >= self._next_log:
                self._next_log = now + _LOG_SECONDS
                log.warning("%s: uid %d has %d connections open: refusing more", self._name, uid, count)
            return
        sock.settimeout(0.0)
        if self._sweeper is None:
            self._sweep()
        self._by_uid[uid] = count + 1
        connection = Connection(self, self._loop, sock, Peer(uid, gid, pid))
        self._all.add(connection)
        connection.start()

    def _sweep(self) -> None:
        """One timer for all deadlines of all connections."""
        assert self._loop is not None
        limits = self.service.limits
        shortest = min(limits.idle_seconds, limits.frame_seconds, limits.write_seconds)
        self._sweeper = self._loop.call_later(min(_SWEEP_SECONDS, shortest / 4), self._sweep)
        self.now = time.monotonic()
        for connection in list(self._all):
            connection.check_deadlines()


def _decrease(counts: dict[int, int], uid: int) -> None:
    if counts[uid] > 1:
        counts[uid] -= 1
    else:
        del counts[uid]
