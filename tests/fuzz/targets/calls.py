"""What a peer sends to the daemon: each call is answered by its reply or by an error, or the connection ends.

The server and the connection are the daemon's own, over a real socket; the handlers stand in for the daemon's.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
import socket
import tempfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
from fuzz_promises import PLANTED

from otpbridge.model import Verdict
from otpbridge.wire import messages
from otpbridge.wire.calls import SERVICE, Call, Handler, Limits, VarlinkError
from otpbridge.wire.framing import FRAME_BYTES
from otpbridge.wire.messages import ADMIN, ENROLL, NOTICES, VERIFY, Message, Request
from otpbridge.wire.service import Server, Service

_ERRORS = re.compile(r"org\.(varlink\.service|otpbridge\.\w+)\.\w+")
_PARAMETER = re.compile(r"\w{1,64}")
_LONGEST_NAME = 256
_SECONDS = 10.0


def check(data: bytes) -> None:
    """The first byte says in what pieces the rest is sent. No more is answered than was asked, in whole frames."""
    if not data:
        return
    rig = _rig()
    received = rig.talk(data[1:], 1 + data[0] * 37)
    assert rig.told == [], rig.told
    assert not received or received.endswith(b"\0")
    frames = received.split(b"\0")[:-1]
    asked = data[1:].split(b"\0")[:-1]
    assert len(frames) <= 3 * len(asked)  # `Backup` is answered by three
    for frame in frames:
        _check_reply(json.loads(frame))
    if _in_answers_alone(asked):
        assert PLANTED.encode() not in received
    assert PLANTED not in rig.log.text


def _check_reply(reply: dict[str, Any]) -> None:
    assert set(reply) <= {"parameters", "error", "continues"}
    assert isinstance(reply["parameters"], dict)
    if "error" not in reply:
        return
    assert _ERRORS.fullmatch(reply["error"]) or reply["error"].endswith(".Busy")
    for name, value in reply["parameters"].items():
        assert len(str(value)) <= _LONGEST_NAME
        assert name != "parameter" or _PARAMETER.fullmatch(value)


def _in_answers_alone(frames: list[bytes]) -> bool:
    """Whether the planted secret is in values of parameters only, where people's answers are."""
    keys: list[str] = []

    def kept(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        keys.extend(name for name, _ in pairs)
        return dict(pairs)

    for frame in frames:
        try:
            call = json.loads(frame, object_pairs_hook=kept)
            del call["parameters"]
            if PLANTED in f"{call}{keys}":
                return False
        except (ValueError, RecursionError, KeyError, TypeError):
            return False
    return True


class _Log(logging.Handler):
    """All that was logged, with what comes of its exceptions."""

    def __init__(self) -> None:
        super().__init__()
        self.text = ""

    def emit(self, record: logging.LogRecord) -> None:
        self.text += logging.Formatter().format(record)


class _Rig:
    """A server that one peer at a time talks to, in the loop of this thread."""

    def __init__(self) -> None:
        self.told: list[dict[str, Any]] = []
        self.log = _Log()
        logger = logging.getLogger("otpbridge")
        logger.addHandler(self.log)
        logger.propagate = False
        self._loop = asyncio.new_event_loop()
        self._loop.set_exception_handler(lambda _loop, context: self.told.append(context))
        self._folder = tempfile.TemporaryDirectory(prefix="otpb-")
        self._path = str(Path(self._folder.name) / "socket")
        sock = socket.socket(socket.AF_UNIX)
        sock.bind(self._path)
        self._server = Server(_service(), sock, name="fuzz")
        self._loop.run_until_complete(self._server.start())

    def talk(self, data: bytes, size: int) -> bytes:
        """Send all in pieces of so many bytes, then the end; what came back until the server closed."""
        self.log.text = ""
        return self._loop.run_until_complete(asyncio.wait_for(self._talk(data, size), _SECONDS))

    async def _talk(self, data: bytes, size: int) -> bytes:
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(0.0)
            sock.connect(self._path)
            sending = self._loop.create_task(self._send(sock, data, size))
            received = bytearray()
            while piece := await self._received(sock):
                received += piece
            sending.cancel()
            await asyncio.wait([sending])
        assert not self._server.connections
        return bytes(received)

    async def _send(self, sock: socket.socket, data: bytes, size: int) -> None:
        try:
            for at in range(0, len(data), size):
                await self._loop.sock_sendall(sock, data[at : at + size])
                if at < 16 * size:
                    await asyncio.sleep(0)
            sock.shutdown(socket.SHUT_WR)
        except OSError:
            return  # the server has closed; what it sent is read

    async def _received(self, sock: socket.socket) -> bytes:
        try:
            return await self._loop.sock_recv(sock, FRAME_BYTES)
        except ConnectionResetError:
            return b""


@cache
def _rig() -> _Rig:
    return _Rig()


def _service() -> Service:
    requests = [
        each
        for each in vars(messages).values()
        if isinstance(each, type) and issubclass(each, Request) and each != Request
    ]
    handlers: dict[type[Request[Any]], Handler] = dict.fromkeys(requests, _refused)
    handlers |= {
        messages.Check: _check,
        messages.Account: _account,
        messages.SetPassword: _failing,
        messages.Backup: _backup,
    }
    return Service(
        vendor="otpbridge",
        product="otpbridge",
        version="1",
        url="https://example.org/",
        interfaces=[VERIFY, ENROLL, ADMIN, NOTICES],
        handlers=handlers,
        limits=Limits(),
        streaming=[messages.Backup],
        failure=_failure,
    )


def _same(asked: Request[Any]) -> None:
    """What the daemon is given is whole: it is read as the same again."""
    encoded = msgspec.json.encode(asked)
    assert msgspec.json.encode(msgspec.json.decode(encoded, type=type(asked))) == encoded


def _refused(_call: Call, asked: Request[Any]) -> Message:
    _same(asked)
    raise VarlinkError(f"{SERVICE}.PermissionDenied")


def _account(_call: Call, asked: messages.Account) -> Message:
    _same(asked)
    return messages.AccountReply(verdict=Verdict.AUTH_ERR)


async def _check(_call: Call, asked: messages.Check) -> Message:
    _same(asked)
    await asyncio.sleep(0)
    return messages.CheckReply(verdict=Verdict.AUTH_ERR, notices=())


async def _backup(call: Call, _asked: messages.Backup) -> Message:
    for _ in range(2):
        await call.send(messages.BackupReply(data="x"))
    return messages.BackupReply(data="y")


def _failing(_call: Call, asked: messages.SetPassword) -> Message:
    raise ValueError(asked.password)


def _failure(call: Call, _error: BaseException) -> VarlinkError:
    parameters: Mapping[str, Any] = {"method": call.method}
    return VarlinkError(f"{SERVICE}.MethodNotImplemented", dict(parameters))
