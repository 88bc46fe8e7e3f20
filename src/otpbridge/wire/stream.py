"""The bytes of one connection, over a Unix socket or over TLS, without waiting."""

from __future__ import annotations

import select
import socket
import ssl
from typing import Protocol


class Stream(Protocol):
    """A connected socket that never blocks. What cannot be done now raises BlockingIOError."""

    def fileno(self) -> int:
        """The descriptor, for the event loop to watch."""

    def recv(self, most: int) -> bytes:
        """What has arrived, nothing at the end. Raises OSError."""

    def send(self, data: bytes) -> int:
        """Send some of it; how much was taken. What was not taken must come first next time. Raises OSError."""

    def is_gone(self) -> bool:
        """Whether no reply can arrive at the peer any more."""

    def close(self) -> None:
        """Hang up."""


class UnixStream:
    """A Unix socket."""

    __slots__ = ("_sock", "close", "fileno", "recv", "send")

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self.fileno = sock.fileno
        self.recv = sock.recv
        self.send = sock.send
        self.close = sock.close

    def is_gone(self) -> bool:
        """POLLHUP: both directions are shut."""
        return _polled(self._sock, select.POLLHUP | select.POLLERR)


class TlsStream:
    """TLS over TCP, after its handshake.

    One read gives one record at most (RFC 8446 §5.1: 16 KiB), so what is left over is in the kernel, where the event
    loop sees it, as long as `most` is not less.
    """

    __slots__ = ("_sock", "close", "fileno")

    def __init__(self, sock: ssl.SSLSocket) -> None:
        self._sock = sock
        self.fileno = sock.fileno
        self.close = sock.close

    def recv(self, most: int) -> bytes:
        """See Stream."""
        try:
            return self._sock.recv(most)
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise BlockingIOError from None

    def send(self, data: bytes) -> int:
        """See Stream."""
        try:
            return self._sock.send(data)
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise BlockingIOError from None

    def is_gone(self) -> bool:
        """A TCP peer that has closed cannot be told from one that only writes no more: both are gone."""
        return _polled(self._sock, select.POLLRDHUP | select.POLLHUP | select.POLLERR)


def _polled(sock: socket.socket, events: int) -> bool:
    poll = select.poll()
    poll.register(sock, events & select.POLLRDHUP)
    return any(event & events for _, event in poll.poll(0))
