"""Servers of our wire for tests: in a thread on either event loop, or in a process of their own."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest

from otpbridge.wire.messages import ADMIN, ENROLL, VERIFY
from otpbridge.wire.service import Handler, Limits, Server, Service
from otpbridge.wire.tls import Tls

LOOPS = ["asyncio", "uvloop"]
SECONDS = 20.0
"""How long a test waits for something that must come."""


def new_loop(kind: str) -> asyncio.AbstractEventLoop:
    """An event loop of this kind; the test is skipped where uvloop is not installed."""
    if kind == "uvloop":
        return pytest.importorskip("uvloop").new_event_loop()
    return asyncio.new_event_loop()


def bound(path: Path) -> socket.socket:
    """A socket that is bound and does not listen yet."""
    sock = socket.socket(socket.AF_UNIX)
    sock.bind(os.fspath(path))
    return sock


class Rig:
    """A server in a thread of its own."""

    def __init__(self, path: Path, loop: asyncio.AbstractEventLoop, server: Server) -> None:
        self.path = path
        self.loop = loop
        self.server = server

    def run(self, coroutine: Any) -> Any:
        """Run a coroutine in the server's loop and wait for its result."""
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(SECONDS)

    def connect(self) -> Wire:
        """A hand-made client."""
        return Wire(self.path)

    def connections(self) -> int:
        """How many connections the server has open."""

        async def count() -> int:
            return self.server.connections

        return self.run(count())


@contextlib.contextmanager
def serving(
    path: Path,
    handlers: Mapping[type, Handler],
    *,
    loop: str = "asyncio",
    limits: Limits | None = None,
    sock: socket.socket | None = None,
    tls: Tls | None = None,
    share: float = 1.0,
    **options: Any,
) -> Iterator[Rig]:
    """A running server with these handlers. At the end it is drained, and nothing may be left."""
    options.setdefault("interfaces", [VERIFY, ENROLL, ADMIN])
    service = Service(
        vendor="otpbridge",
        product="otpbridge",
        version="1",
        url="https://example.org/",
        handlers=handlers,
        limits=limits,
        **options,
    )
    event_loop = new_loop(loop)
    unhandled: list[dict[str, Any]] = []
    event_loop.set_exception_handler(lambda _loop, context: unhandled.append(context))
    thread = threading.Thread(target=event_loop.run_forever)
    thread.start()
    try:
        server = Server(service, sock or bound(path), name="test", tls=tls, share=share)
        rig = Rig(path, event_loop, server)
        rig.run(server.start())
        try:
            yield rig
        finally:
            rig.run(server.drain(0.0))
            assert server.connections == 0
    finally:
        event_loop.call_soon_threadsafe(event_loop.stop)
        thread.join()
        event_loop.close()
        path.unlink(missing_ok=True)
    assert unhandled == [], unhandled


class Wire:
    """A hand-made client: bytes out, frames in. Nothing of it comes from the code under test."""

    def __init__(self, path: Path) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(SECONDS)
        self._buffer = b""
        try:
            self.sock.connect(os.fspath(path))
        except OSError:
            self.sock.close()
            raise

    def __enter__(self) -> Wire:
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def call(self, method: str, parameters: Any = None, **flags: Any) -> None:
        """Send one call."""
        call = {"method": method, **flags}
        if parameters is not None:
            call["parameters"] = parameters
        self.send(msgspec.json.encode(call) + b"\0")

    def reply(self) -> dict[str, Any]:
        """Wait for one reply."""
        while b"\0" not in self._buffer:
            data = self.sock.recv(65_536)
            if not data:
                raise EOFError
            self._buffer += data
        frame, _, self._buffer = self._buffer.partition(b"\0")
        return msgspec.json.decode(frame)

    def ask(self, method: str, parameters: Any = None, **flags: Any) -> dict[str, Any]:
        """Send one call and wait for its reply."""
        self.call(method, parameters, **flags)
        return self.reply()

    def at_end(self) -> bool:
        """Wait for the end of the connection; False if something else comes."""
        try:
            return self.sock.recv(1) == b""
        except ConnectionError:
            return True


class Process:
    """A server in a process of its own, so that its memory, processor time and descriptors can be watched."""

    def __init__(self, path: Path, loop: str, *arguments: str) -> None:
        if loop == "uvloop":
            pytest.importorskip("uvloop")
        self.path = path
        program = Path(__file__).with_name("wire_process.py")
        self._process = subprocess.Popen(
            [sys.executable, "-X", "dev", program, path, loop, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == b"ready\n", self._process.communicate()

    def __enter__(self) -> Process:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> str:
        """End the server; what it wrote to standard error."""
        try:
            _, errors = self._process.communicate(timeout=SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.communicate()
            raise
        assert self._process.returncode == 0, errors.decode()
        return errors.decode()

    def memory(self) -> int:
        """Resident memory in KiB."""
        status = Path(f"/proc/{self._process.pid}/status").read_text()
        return int(status.partition("VmRSS:")[2].split()[0])

    def processor_seconds(self) -> float:
        """Processor time used so far."""
        fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
