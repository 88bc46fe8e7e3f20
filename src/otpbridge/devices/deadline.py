"""Waiting for a library that may never return."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from typing import TypeVar

from otpbridge.errors import ReaderServiceError

T = TypeVar("T")

_SLICE = 0.25
"""Seconds of a wait at a time: a signal that comes just before one is seen after it only."""


def within(seconds: float, work: Callable[[], T]) -> T:
    """Do `work` in a thread, and wait for it so many seconds. Raises what it raises, and ReaderServiceError.

    Ctrl-C ends the wait at once, not the work.
    """
    done: queue.SimpleQueue[tuple[T | None, BaseException | None]] = queue.SimpleQueue()

    def run() -> None:
        try:
            done.put((work(), None))
        except BaseException as error:  # noqa: BLE001 - raised below, in the thread that waits
            done.put((None, error))

    threading.Thread(target=run, name="otpbridge-pcsc", daemon=True).start()
    deadline = time.monotonic() + seconds
    while True:
        try:
            result, error = done.get(timeout=_SLICE)
            break
        except queue.Empty:
            if time.monotonic() < deadline:
                continue
        raise ReaderServiceError(
            f"the smart card service pcscd did not answer within {seconds:g} s. Restart it:"
            " systemctl restart pcscd; if that does not help, pull the key out and plug it in again"
        )
    if error is not None:
        raise error
    return result  # type: ignore[return-value]  # where there is no error there is a result
