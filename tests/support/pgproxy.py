"""A line to a PostgreSQL server that breaks at the moment that a test says: just before or just after a COMMIT."""

from __future__ import annotations

import enum
import os
import re
import select
import socket
import threading
from contextlib import contextmanager, suppress

_COMMIT = b"COMMIT\0"
_PREPARE = re.compile(rb"P....([^\0]+)\0COMMIT\0", re.DOTALL)
"""Parse, of the extended protocol: from then on the statement goes by this name."""
_NAME = ".s.PGSQL.5432"


class Break(enum.Enum):
    """Where the line breaks, once."""

    BEFORE = "the server does not hear of the commit"
    AFTER = "the server commits, and its answer is lost"


class Proxy:
    """Stands between a store and the server whose socket is in `server`. `folder` is what a store is told as host."""

    def __init__(self, server, folder):
        self.folder = folder
        self.breaks: Break | None = None
        self.then_closed = False
        """Whether nobody is let through any more once the line has broken."""
        self.broken = threading.Event()
        """Set once the line has broken, and the server has done what it was asked."""
        self.commits = 0
        self._server = os.fspath(server / _NAME)
        self._closed = False
        self._lines: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(os.fspath(folder / _NAME))
        self._listener.listen()
        self._start(self._accept)

    def open(self):
        """Let all through again."""
        self._closed = False

    def close(self):
        """End it."""
        self._listener.shutdown(socket.SHUT_RDWR)
        for line in tuple(self._lines):
            _end(line)
        for thread in self._threads:
            thread.join(30)
        self._listener.close()

    def _start(self, work, *arguments):
        thread = threading.Thread(target=work, args=arguments)
        self._threads.append(thread)
        thread.start()

    def _accept(self):
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            if self._closed:
                client.close()
                continue
            server = socket.socket(socket.AF_UNIX)
            try:
                server.connect(self._server)
            except OSError:
                # There is no server now, so there is none behind this line either.
                server.close()
                client.close()
                continue
            self._lines |= {client, server}
            self._start(self._carry, client, server)

    def _carry(self, client, server):
        """Both ways in one thread: nobody else reads the answer of a server whose line is being broken."""
        said = [_COMMIT]
        try:
            while True:
                ready, _, _ = select.select((client, server), (), ())
                for source in ready:
                    data = source.recv(65536)
                    if not data:
                        return
                    commits = source is client and any(words in data for words in said)
                    if commits and (prepared := _PREPARE.search(data)) is not None:
                        said.append(b"\0%b\0" % prepared[1])
                    self.commits += commits
                    if commits and self.breaks is not None:
                        self._break(client, server, data)
                        return
                    (server if source is client else client).sendall(data)
        except (OSError, ValueError):
            # Either side has gone, or all lines were ended.
            return
        finally:
            _end(client)
            _end(server)

    def _break(self, client, server, data):
        where, self.breaks = self.breaks, None
        self._closed = self.then_closed
        _end(client)
        if where is Break.AFTER:
            server.sendall(data)
            _drain(server)
        if self._closed:
            for line in tuple(self._lines):
                _end(line)
        self.broken.set()


def _drain(server):
    """Wait until the server has done what it was asked."""
    server.settimeout(30)
    while chunk := server.recv(65536):
        if chunk.endswith(b"I"):
            return


def _end(line):
    with suppress(OSError):
        line.shutdown(socket.SHUT_RDWR)
    line.close()


@contextmanager
def proxied(server, folder):
    """A proxy while the block lasts."""
    proxy = Proxy(server, folder)
    try:
        yield proxy
    finally:
        proxy.close()
