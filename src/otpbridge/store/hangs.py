"""Cut the lines to a server that says nothing any more, so that who waits for it is told, and refuses."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable
from typing import Any

from otpbridge.store.postgres import line_of
from otpbridge.store.vital import VitalThread

_LOOK = 0.5


class Hangs:
    """Watches over connections of psycopg while they are used. Its thread runs from `start` to `close`."""

    def __init__(self) -> None:
        self._over = threading.Event()
        self._waiting: dict[int, tuple[float, socket.socket]] = {}
        self._lock = threading.Lock()
        self._thread = VitalThread(target=self._run, name="store-hangs", daemon=True)

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def close(self) -> None:
        """Stop looking."""
        self._over.set()
        self._thread.join()

    def watch(self, driver: Any, seconds: float) -> Callable[[], None]:
        """Cut a connection in so many seconds, unless what this returns is called before; once is enough."""
        line = line_of(driver)
        number = line.fileno()
        with self._lock:
            self._waiting[number] = (time.monotonic() + seconds, line)
        return lambda: self._forget(number, line)

    def _forget(self, number: int, line: socket.socket) -> None:
        with self._lock:
            found = self._waiting.get(number)
            if found is not None and found[1] is line:
                del self._waiting[number]
                line.close()

    def _run(self) -> None:
        while not self._over.wait(_LOOK):
            now = time.monotonic()
            with self._lock:
                for deadline, line in self._waiting.values():
                    if deadline < now:
                        _cut(line)


def _cut(line: socket.socket) -> None:
    try:
        line.shutdown(socket.SHUT_RDWR)
    except OSError:
        # It had ended already.
        return
