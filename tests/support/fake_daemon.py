"""A daemon that answers as a test tells it to, over the real Varlink server and real sockets."""

from __future__ import annotations

import asyncio
import socket
import threading
from contextlib import contextmanager

from otpbridge.wire.messages import (
    ADMIN,
    ENROLL,
    NOTICES,
    VERIFY,
    AuditTail,
    Backup,
    ListTokens,
    ListUsers,
    RotateKey,
    Watch,
)
from otpbridge.wire.service import Server, Service, VarlinkError

STREAMING = (ListUsers, ListTokens, AuditTail, RotateKey, Backup, Watch)
NAME = {"admin": (VERIFY, ENROLL, NOTICES, ADMIN), "verify": (VERIFY, ENROLL, NOTICES)}


class FakeDaemon:
    """`answers` maps a request type to a reply, a list of replies (streamed), an error, or a function of the request.

    `calls` holds (socket, connection number, request) in the order they came.
    """

    def __init__(self, run_dir):
        self.run_dir = run_dir
        self.answers = {}
        self.calls = []
        self._connections = []

    def requests(self):
        """The requests alone."""
        return [request for _socket, _connection, request in self.calls]

    async def _answer(self, name, call, request):
        if call.connection not in self._connections:
            self._connections.append(call.connection)
        self.calls.append((name, self._connections.index(call.connection), request))
        answer = self.answers.get(type(request))
        if callable(answer) and not isinstance(answer, type):
            answer = answer(request)
        if isinstance(answer, Exception):
            raise answer
        if isinstance(answer, list):
            for reply in answer[:-1]:
                await call.send(reply)
            answer = answer[-1]
        if isinstance(answer, Exception):
            raise answer
        if answer is None:
            raise VarlinkError("org.varlink.service.PermissionDenied")
        return answer

    def _service(self, name):
        from otpbridge.wire import messages

        types = [
            kind
            for kind in vars(messages).values()
            if isinstance(kind, type) and issubclass(kind, messages.Request) and hasattr(kind, "METHOD")
        ]

        def handler_of(_kind):
            async def handle(call, request):
                return await self._answer(name, call, request)

            return handle

        return Service(
            vendor="test",
            product="fake",
            version="0",
            url="",
            interfaces=NAME[name],
            handlers={kind: handler_of(kind) for kind in types},
            streaming=STREAMING,
        )

    async def _serve(self, ready, names):
        servers = []
        for name in names:
            sock = socket.socket(socket.AF_UNIX)
            sock.bind(str(self.run_dir / name))
            server = Server(self._service(name), sock, name=name)
            await server.start()
            servers.append(server)
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        ready.set()
        await self._stop.wait()
        for server in servers:
            await server.drain(0.1)


@contextmanager
def fake_daemon(run_dir, sockets=("admin", "verify")):
    """Serve in a thread until the block ends."""
    daemon = FakeDaemon(run_dir)
    ready = threading.Event()
    thread = threading.Thread(target=asyncio.run, args=(daemon._serve(ready, sockets),))
    thread.start()
    assert ready.wait(10)
    try:
        yield daemon
    finally:
        daemon._loop.call_soon_threadsafe(daemon._stop.set)
        thread.join()


def error(name, **parameters):
    """A Varlink error, its interface left out."""
    return VarlinkError(f"org.otpbridge.Admin.{name}", parameters)
