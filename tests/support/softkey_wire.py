"""Soft keys in other processes: a key lives in the test, programs see a folder in which each socket is a key.

with Keyring(folder) as ring:
    key = ring.plug(SoftKey())
    ring.environment                 # for programs that are started with softkey_program.py
    ring.unplug(key)
"""

from __future__ import annotations

import json
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Self

from fido2.ctap import STATUS, CtapDevice, CtapError
from fido2.hid import CAPABILITY
from softkey import Keepalive, SoftKey

VARIABLE = "TEST_SOFT_KEYS"
_GONE = "gone"


class Keyring:
    """Keys that are plugged into a machine, which is a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._plugged: dict[int, _Port] = {}
        self._number = 0

    @property
    def environment(self) -> dict[str, str]:
        return {VARIABLE: os.fspath(self.folder)}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for port in list(self._plugged.values()):
            self.unplug(port.key)

    def plug(self, key: SoftKey) -> SoftKey:
        """In, now."""
        key.plug()
        self._number += 1
        path = self.folder / f"{self._number}.{key.name}"
        self._plugged[id(key)] = _Port(key, path)
        return key

    def unplug(self, key: SoftKey) -> None:
        """Out, now."""
        self._plugged.pop(id(key)).close()


class _Port:
    """Where one key is plugged in."""

    def __init__(self, key: SoftKey, path: Path) -> None:
        self.key = key
        self._path = path
        self._connections: list[socket.socket] = []
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(os.fspath(path))
        path.chmod(0o666)
        self._listener.listen()
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def close(self) -> None:
        """Out, whoever is talking to it."""
        self._path.unlink()
        self.key.pull()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._threads[0].join()
        self._listener.close()
        for connection in self._connections:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self._connections.append(connection)
            self._threads.append(threading.Thread(target=_serve, args=(connection, self.key)))
            self._threads[-1].start()


def _serve(connection: socket.socket, key: SoftKey) -> None:
    """One connection, until either side has gone."""
    with connection, suppress(BrokenPipeError, ConnectionResetError):
        _talk(connection, key)


def _talk(connection: socket.socket, key: SoftKey) -> None:
    """A call at a time, and a word that stops it."""
    with connection.makefile("rw", encoding="ascii") as lines:
        sending = threading.Lock()
        calls: list[threading.Thread] = []
        stop = threading.Event()

        def say(**what: object) -> None:
            with sending:
                try:
                    print(json.dumps(what), file=lines, flush=True)
                except OSError:
                    stop.set()

        def call(command: int, data: bytes, stop: threading.Event) -> None:
            try:
                say(answer=key.call(command, data, stop, lambda status: say(keepalive=int(status))).hex())
            except CtapError as error:
                say(error=int(error.code))
            except OSError:
                say(error=_GONE)

        try:
            for line in lines:
                asked = json.loads(line)
                if "stop" in asked:
                    stop.set()
                    continue
                stop = threading.Event()
                data = bytes.fromhex(asked["data"])
                calls.append(threading.Thread(target=call, args=(asked["command"], data, stop)))
                calls[-1].start()
        finally:
            stop.set()
            for thread in calls:
                thread.join()


class RemoteKey(CtapDevice):
    """A connection to a key in another process."""

    def __init__(self, path: Path, stop: threading.Event) -> None:
        self._stop = stop
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.connect(os.fspath(path))
        self._lines = self._socket.makefile("rw", encoding="ascii")

    @property
    def capabilities(self) -> int:
        return CAPABILITY.CBOR

    def call(
        self,
        cmd: int,
        data: bytes = b"",
        event: threading.Event | None = None,
        on_keepalive: Keepalive = None,
    ) -> bytes:
        event = event or self._stop
        over = threading.Event()
        stopping = threading.Thread(target=self._stop_when, args=(event, over), daemon=True)
        self._say(command=cmd, data=data.hex())
        stopping.start()
        try:
            for line in self._lines:
                said = json.loads(line)
                if "keepalive" in said:
                    if on_keepalive is not None:
                        on_keepalive(STATUS(said["keepalive"]))
                elif "answer" in said:
                    return bytes.fromhex(said["answer"])
                elif said["error"] == _GONE:
                    break
                else:
                    raise CtapError(said["error"])
            raise OSError("the key was pulled")
        finally:
            over.set()
            stopping.join()

    def _stop_when(self, event: threading.Event, over: threading.Event) -> None:
        while not over.wait(0.02):
            if event.is_set():
                self._say(stop=True)
                return

    def _say(self, **what: object) -> None:
        print(json.dumps(what), file=self._lines, flush=True)

    def close(self) -> None:
        self._lines.close()
        self._socket.close()

    @classmethod
    def list_devices(cls) -> Iterator[CtapDevice]:
        return iter(())


class RemoteNode:
    """A key that is plugged into a folder."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __str__(self) -> str:
        return self._path.name.partition(".")[2]

    def open(self, stop: threading.Event) -> CtapDevice:
        return RemoteKey(self._path, stop)


def plugged() -> tuple[RemoteNode, ...]:
    """What stands in for devices.fido_find.plugged: the keys in the folder that the environment names."""
    return tuple(RemoteNode(path) for path in sorted(Path(os.environ[VARIABLE]).iterdir()))
