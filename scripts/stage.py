"""What both demos stand on: a folder of their own, and programs in it that say when they are ready."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

READY_SECONDS = 20.0


class DemoError(Exception):
    """The demo cannot be shown, or a step did not come out as it must."""


@contextlib.contextmanager
def private_folder(name: str, *, keep: bool) -> Iterator[Path]:
    """A folder that only this user can enter, removed in the end unless kept."""
    folder = Path(tempfile.mkdtemp(prefix=f"{name}-"))
    try:
        yield folder
    finally:
        if not keep:
            shutil.rmtree(folder)


def start(command: Sequence[str | Path], log: Path, *, own_session: bool = False) -> subprocess.Popen[bytes]:
    """Start a program that writes into `log`, and wait until it says that it is ready. Raises DemoError.

    With `own_session` Ctrl-C does not reach it: whoever started it stops it.
    """
    with log.open("wb") as out:
        process = subprocess.Popen(
            [os.fspath(word) for word in command],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            start_new_session=own_session,
        )
    deadline = time.monotonic() + READY_SECONDS
    try:
        while "is ready" not in log.read_text():
            if process.poll() is not None or time.monotonic() > deadline:
                raise DemoError(f"{Path(command[0]).name} did not start:\n{log.read_text()}")
            time.sleep(0.02)
    except BaseException:
        process.terminate()
        process.wait(30)
        raise
    return process
