"""Accepts connections on one socket, within limits, and closes those that overstay."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import socket
import struct
import time
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from otpbridge.wire.calls import Host, Peer
from otpbridge.wire.connection import Connection
from otpbridge.wire.shares import CONNECTION, Shares
from otpbridge.wire.stream import Stream, UnixStream
from otpbridge.wire.tls import Handshakes, Tls

if TYPE_CHECKING:
    from otpbridge.wire.service import Service

log = logging.getLogger(__name__)

_UCRED = struct.Struct("iII")
_ACCEPTS_PER_TURN = 16
"""What comes together is judged and committed together."""
_STRANGERS_PER_TURN = 4
"""Few: a user who floods this socket makes those on others wait for no more than these."""
_SWEEP_SECONDS = 1.0
_RETRY_SECONDS = 0.25
_LOG_SECONDS = 60.0
_NO_RESOURCES = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


class Server:
    """Serves `service` on a bound socket, which it owns from then on. `name` is for the log.

    A caller is a process on an AF_UNIX socket, known by SO_PEERCRED; with `tls`, a host on a TCP socket, known by its
    certificate.

    A socket that listens already (from systemd) keeps its backlog. Reads and writes its sockets itself, through the
    loop's add_reader: asyncio's own server spins and floods the log when descriptors run out, and its transports do
    not tell a peer that is gone from one that has only finished writing.

    `share` is how much of the loop's time each uid may have that is not trusted, 1 for all of it.
    """

    def __init__(
        self, service: Service, sock: socket.socket, *, name: str, tls: Tls | None = None, share: float = 1.0
    ) -> None:
        self.service = service
        self.now = 0.0
        """Monotonic seconds, renewed at each sweep: exact enough for deadlines, and free."""
        self.name = name
        self.opened = 0
        """How many connections were let in since the start."""
        self._shares = Shares(share) if share < 1 else None
        self._refused = {"caller": 0, "all": 0, "system": 0}
        self._sock = sock
        self._name = name
        self._tls = tls
        self._handshakes: Handshakes | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._all: set[Connection] = set()
        self._by_key: dict[int | str, int] = {}
        self._in_flight: dict[int | str, int] = {}
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

    @property
    def refused(self) -> Mapping[str, int]:
        """How many were not: at the limit of their caller or of all, without descriptors, by the TLS handshake."""
        return {**self._refused, "handshake": 0 if self._handshakes is None else self._handshakes.failed}

    @property
    def calls(self) -> int:
        """How many calls are being answered now."""
        return len(self._running)

    def states(self) -> Iterator[Mapping[str, Any]]:
        """What handlers keep of each connection that is open now."""
        return (connection.state for connection in self._all)

    def connections_of(self, key: int | str) -> int:
        """How many connections a uid or host has open now."""
        return self._by_key.get(key, 0)

    def hang_up(self, doomed: Callable[[Peer | Host], bool]) -> int:
        """End the connections of some callers now, whatever they do; how many there were."""
        found = [connection for connection in self._all if doomed(connection.peer)]
        for connection in found:
            connection.close()
        return len(found)

    async def start(self) -> None:
        """Begin to accept."""
        self._loop = asyncio.get_running_loop()
        self._sock.settimeout(0.0)
        if not self._sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            self._sock.listen(self.service.limits.backlog)
        if self._tls is not None:
            self._handshakes = Handshakes(self._tls, self._welcome, name=self._name)
        self._resume()

    async def drain(self, seconds: float) -> None:
        """Stop accepting, let calls in flight finish for at most `seconds`, then close what is left."""
        self._stopped = True
        self._pause()
        if self._retry is not None:
            self._retry.cancel()
        self._sock.close()
        if self._handshakes is not None:
            self._handshakes.close()
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

    def shares_of(self, peer: Peer | Host) -> Shares | None:
        """Where the time of a caller is counted, if it is."""
        return None if isinstance(peer, Host) or self.service.limits.trusts(peer.key) else self._shares

    def may_call(self, peer: Peer | Host) -> bool:
        """Whether the caller may have one more call in flight."""
        return self._in_flight.get(peer.key, 0) < self.service.limits.calls_for(peer.key)

    def call_waits(self, peer: Peer | Host, future: asyncio.Future[Any]) -> None:
        """A call is in flight until `future` is done."""
        self._running.add(future)
        self._in_flight[peer.key] = self._in_flight.get(peer.key, 0) + 1

    def call_done(self, peer: Peer | Host, future: asyncio.Future[Any]) -> None:
        """That call is done, or was cancelled."""
        self._running.discard(future)
        _decrease(self._in_flight, peer.key)

    def gone(self, connection: Connection) -> None:
        """A connection was closed."""
        self._all.discard(connection)
        _decrease(self._by_key, connection.peer.key)
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
        try:
            self._accept_some()
        except MemoryError:
            self._accept_later(OSError(errno.ENOMEM, os.strerror(errno.ENOMEM)))

    def _accept_some(self) -> None:
        strangers = 0
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
            strangers += not self._admit(sock)
            if strangers == _STRANGERS_PER_TURN:
                return

    def _accept_later(self, error: OSError) -> None:
        """The listening socket stays readable: without a pause this would spin."""
        assert self._loop is not None
        self._refused["system"] += 1
        self._pause()
        self._retry = self._loop.call_later(_RETRY_SECONDS, self._resume)
        if (now := time.monotonic()) >= self._next_log:
            self._next_log = now + _LOG_SECONDS
            hint = "; raise LimitNOFILE=" if error.errno in _NO_RESOURCES else ""
            log.error(
                "%s: cannot accept connections: %s, %d are open%s", self._name, error.strerror, len(self._all), hint
            )

    def _admit(self, sock: socket.socket) -> bool:
        """Take a connection; whether it is of somebody who acts for many, or of a host, and not of any user."""
        if self._handshakes is not None:
            sock.settimeout(0.0)
            self._handshakes.begin(sock)
            return True
        pid, uid, gid = _UCRED.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
        sock.settimeout(0.0)
        trusted = self.service.limits.trusts(uid)
        if not trusted and _has_ended(sock):
            # Most of a flood: others wait behind these, so they are to cost little.
            sock.close()
            self.opened += 1
            if self._shares is not None:
                self._shares.charge(uid, CONNECTION, time.monotonic())
        else:
            self._welcome(UnixStream(sock), Peer(uid, gid, pid))
        return trusted

    def _welcome(self, stream: Stream, peer: Peer | Host) -> None:
        """Serve a caller whom we know now, unless it has too many connections."""
        assert self._loop is not None
        limits = self.service.limits
        key = peer.key
        count = self._by_key.get(key, 0)
        within = count < limits.connections_for(key)
        if not within or not (len(self._all) < limits.connections or limits.trusts(key)):
            self._refused["all" if within else "caller"] += 1
            stream.close()
            if (now := time.monotonic()) >= self._next_log:
                self._next_log = now + _LOG_SECONDS
                who = f"uid {key}" if isinstance(peer, Peer) else f"host {key}"
                log.warning("%s: %s has %d connections open: refusing more", self._name, who, count)
            return
        if self._sweeper is None:
            self._sweep()
        self.opened += 1
        self._by_key[key] = count + 1
        connection = Connection(self, self._loop, stream, peer)
        self._all.add(connection)
        if (shares := self.shares_of(peer)) is not None:
            shares.charge(key, CONNECTION, time.monotonic())
        connection.start()

    def _sweep(self) -> None:
        """One timer for all deadlines of all connections."""
        assert self._loop is not None
        limits = self.service.limits
        shortest = min(limits.idle_seconds, limits.frame_seconds, limits.write_seconds)
        self._sweeper = self._loop.call_later(min(_SWEEP_SECONDS, shortest / 4), self._sweep)
        self.now = time.monotonic()
        if self._shares is not None:
            self._shares.tidy(self.now)
        for connection in list(self._all):
            connection.check_deadlines()


def _has_ended(sock: socket.socket) -> bool:
    """Whether the peer says no more, and has said nothing."""
    try:
        return not sock.recv(1, socket.MSG_PEEK)
    except BlockingIOError:
        return False
    except OSError:
        return True


def _decrease(counts: dict[int | str, int], key: int | str) -> None:
    if counts[key] > 1:
        counts[key] -= 1
    else:
        del counts[key]
