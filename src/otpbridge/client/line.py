"""One blocking connection to the daemon."""

from __future__ import annotations

import os
import select
import socket
import time
from collections.abc import Iterator
from pathlib import Path

from otpbridge.client.exchange import (
    CONNECT_RETRY_SECONDS,
    READ_BYTES,
    Exchange,
    NothingSentError,
    cannot_connect,
    still_open,
)
from otpbridge.wire.messages import R

_LONGEST_POLL = 2**31 - 1
"""Milliseconds, poll(2): an int. Whoever waits longer waits for ever."""


class Line:
    """A connected socket. Every wait has an absolute deadline on the monotonic clock."""

    def __init__(self, path: Path, deadline: float) -> None:
        """Connect. Raises UnavailableError."""
        self._owner = os.getpid()
        self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            while True:
                try:
                    self._sock.connect(os.fspath(path))
                except BlockingIOError:
                    if time.monotonic() >= deadline:
                        raise
                    time.sleep(CONNECT_RETRY_SECONDS)
                else:
                    break
        except OSError as error:
            self._sock.close()
            raise cannot_connect(path, error) from None
        except BaseException:
            self._sock.close()
            raise

    @property
    def usable(self) -> bool:
        """Whether it can take a call. After a fork the connection stays with the parent."""
        return self._owner == os.getpid() and still_open(self._sock)

    def close(self) -> None:
        """Hang up. The daemon gives up what it still does for this connection."""
        self._sock.close()

    def send(self, exchange: Exchange[R], seconds: float) -> None:
        """Send the call. Raises NothingSentError if none of it left, UnavailableError if some did."""
        deadline = time.monotonic() + seconds
        rest = memoryview(exchange.frame)
        while rest:
            try:
                rest = rest[self._sock.send(rest) :]
            except BlockingIOError:
                if not self._wait(select.POLLOUT, deadline):
                    raise exchange.timed_out(seconds) from None
            except OSError:
                if len(rest) == len(exchange.frame):
                    raise NothingSentError from None
                raise exchange.cut_off() from None

    def replies(self, exchange: Exchange[R], seconds: float) -> Iterator[R]:
        """Each reply as it comes, waiting at most `seconds` for it (math.inf: for ever)."""
        while not exchange.finished:
            deadline = time.monotonic() + seconds
            while (reply := exchange.take()) is None:
                if not self._wait(select.POLLIN, deadline):
                    raise exchange.timed_out(seconds)
                exchange.feed(self._read())
            yield reply

    def _read(self) -> bytes:
        try:
            return self._sock.recv(READ_BYTES)
        except ConnectionError:
            return b""

    def _wait(self, event: int, deadline: float) -> bool:
        """Whether the socket is ready before the deadline."""
        poll = select.poll()
        poll.register(self._sock, event)
        milliseconds = max(0.0, deadline - time.monotonic()) * 1000
        return bool(poll.poll(None if milliseconds > _LONGEST_POLL else milliseconds))
