"""TLS for a server: handshakes with hosts that show a certificate, each bounded in time, all in number."""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass

from otpbridge.errors import OtpBridgeError
from otpbridge.wire.calls import Host
from otpbridge.wire.stream import TlsStream

log = logging.getLogger(__name__)

HANDSHAKE_SECONDS = 5.0
HANDSHAKES = 512
HANDSHAKES_PER_ADDRESS = 64
_LOG_SECONDS = 10.0
_LOG_TEXTS = 32
"""What is logged in so many seconds, and that each text of it once."""


@dataclass(slots=True)
class Tls:
    """How hosts are let in. `context` may be replaced while the server runs.

    `identify` tells the host from its certificate (DER), which was checked against the authority, and raises
    OtpBridgeError where that host is not let in.
    """

    context: ssl.SSLContext
    identify: Callable[[bytes], Host]
    seconds: float = HANDSHAKE_SECONDS
    most: int = HANDSHAKES
    most_per_address: int = HANDSHAKES_PER_ADDRESS


class Handshakes:
    """The handshakes under way. Once all places are taken, the oldest handshake has to go: it had its time."""

    def __init__(self, tls: Tls, welcome: Callable[[TlsStream, Host], None], *, name: str) -> None:
        self._tls = tls
        self._welcome = welcome
        self.failed = 0
        """How many connections were not let in since the start."""
        self._name = name
        self._loop = asyncio.get_running_loop()
        self._all: dict[_Handshake, None] = {}
        self._by_address: dict[str, int] = {}
        self._said: dict[str, float] = {}

    def begin(self, sock: socket.socket) -> None:
        """Take a new connection."""
        try:
            address = str(sock.getpeername()[0])
        except OSError:
            sock.close()
            return
        if self._by_address.get(address, 0) >= self._tls.most_per_address:
            sock.close()
            self._say(f"{address} has {self._tls.most_per_address} handshakes open: refusing more")
            return
        if len(self._all) >= self._tls.most:
            self._fail(next(iter(self._all)), "others came, and it took long")
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            wrapped = self._tls.context.wrap_socket(sock, server_side=True, do_handshake_on_connect=False)
        except OSError:
            sock.close()
            return
        handshake = _Handshake(wrapped, address)
        self._all[handshake] = None
        self._by_address[address] = self._by_address.get(address, 0) + 1
        handshake.overdue = self._loop.call_later(self._tls.seconds, self._fail, handshake, "it took too long")
        self._go_on(handshake)

    def close(self) -> None:
        """Hang up on all of them."""
        for handshake in list(self._all):
            self._end(handshake)
            handshake.sock.close()

    def _go_on(self, handshake: _Handshake) -> None:
        self._unwatch(handshake)
        try:
            handshake.sock.do_handshake()
        except ssl.SSLWantReadError:
            self._loop.add_reader(handshake.fd, self._go_on, handshake)
            handshake.watched = self._loop.remove_reader
            return
        except ssl.SSLWantWriteError:
            self._loop.add_writer(handshake.fd, self._go_on, handshake)
            handshake.watched = self._loop.remove_writer
            return
        except OSError as error:
            # The words of OpenSSL name what was wrong with the certificate; a connection that ends has none.
            self._fail(handshake, getattr(error, "verify_message", "") or getattr(error, "reason", "") or "it ended")
            return
        self._finish(handshake)

    def _finish(self, handshake: _Handshake) -> None:
        certificate = handshake.sock.getpeercert(binary_form=True)
        try:
            if certificate is None:
                self._fail(handshake, "it shows no certificate")
                return
            host = self._tls.identify(certificate)
        except OtpBridgeError as error:
            self._fail(handshake, str(error))
            return
        self._end(handshake)
        self._welcome(TlsStream(handshake.sock), host)

    def _fail(self, handshake: _Handshake, why: str) -> None:
        self._end(handshake)
        handshake.sock.close()
        self._say(f"{handshake.address} was not let in: {why}")

    def _end(self, handshake: _Handshake) -> None:
        self._unwatch(handshake)
        if handshake.overdue is not None:
            handshake.overdue.cancel()
        del self._all[handshake]
        left = self._by_address[handshake.address] - 1
        if left:
            self._by_address[handshake.address] = left
        else:
            del self._by_address[handshake.address]

    @staticmethod
    def _unwatch(handshake: _Handshake) -> None:
        if handshake.watched is not None:
            handshake.watched(handshake.fd)
            handshake.watched = None

    def _say(self, text: str) -> None:
        """Count and log, but neither the same again and again, nor all that anyone on the network comes up with."""
        self.failed += 1
        now = time.monotonic()
        self._said = {told: at for told, at in self._said.items() if now - at < _LOG_SECONDS}
        if text not in self._said and len(self._said) < _LOG_TEXTS:
            self._said[text] = now
            log.warning("%s: %s", self._name, text)


class _Handshake:
    """One of them."""

    __slots__ = ("address", "fd", "overdue", "sock", "watched")

    def __init__(self, sock: ssl.SSLSocket, address: str) -> None:
        self.sock = sock
        self.fd = sock.fileno()
        self.address = address
        self.overdue: asyncio.TimerHandle | None = None
        self.watched: Callable[[int], bool] | None = None
