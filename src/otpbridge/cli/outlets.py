"""Where `otpbridge notify` hands events on to, a file or a program, and how it remembers how far it has come."""

from __future__ import annotations

import errno
import os
import signal
import stat
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from otpbridge.cli import show
from otpbridge.cli.exits import Code, CommandError
from otpbridge.cli.saving import save

if TYPE_CHECKING:
    from collections.abc import Iterator

_ENVIRONMENT = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8"}
"""All that a hook gets of an environment: nothing of ours says anything to it."""


class Outlet(Protocol):
    """Takes events, one after the other."""

    def take(self, line: str, what: str) -> None:
        """Hand on one event as JSON text on one line; `what` names it in the log.

        Raises CommandError where it could not be handed on and has to be tried again.
        """
        ...


class StandardOutput:
    """Lines of standard output."""

    def take(self, line: str, what: str) -> None:
        """See Outlet."""
        show.line(line)


class LogFile:
    """Lines at the end of a file, each on disk before the next. It is opened for each, so it may be moved away."""

    def __init__(self, path: Path) -> None:
        """Make the file if it is not there. Raises CommandError where it cannot be written."""
        self._path = path
        self._append(b"")

    def take(self, line: str, what: str) -> None:
        """See Outlet."""
        self._append(line.encode() + b"\n")

    def _append(self, data: bytes) -> None:
        try:
            file = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                about = os.fstat(file)
                written = os.write(file, data) if data else 0
                if stat.S_ISREG(about.st_mode):
                    if written != len(data):
                        # Half a line would spoil the next one.
                        os.ftruncate(file, about.st_size)
                        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                    os.fsync(file)
            finally:
                os.close(file)
        except OSError as error:
            raise CommandError(Code.REFUSED, f"{self._path}: cannot write: {error.strerror}", "CannotWrite") from None


class Hook:
    """A program that is run for each event, with the event on its standard input.

    No shell, no arguments, an environment of its own. Whatever it does, the next event is handed on: it is ended
    after `seconds`, and what goes wrong is said on standard error, where its own output goes too.
    """

    def __init__(self, program: Path, seconds: float) -> None:
        self._program = program.absolute()
        self._seconds = seconds
        if not os.access(self._program, os.X_OK):
            show.note(f"otpbridge: {self._program} cannot be run now: is it there, and executable?")

    def take(self, line: str, what: str) -> None:
        """See Outlet. What a hook fails at is not tried again."""
        try:
            with self._running() as process:
                process.communicate(line.encode() + b"\n", self._seconds)
        except OSError as error:
            self._failed(what, f"cannot be run: {error.strerror}")
        except subprocess.TimeoutExpired:
            self._failed(what, f"was ended after {self._seconds:g} s")
        else:
            if process.returncode < 0:
                self._failed(what, f"died of signal {-process.returncode}")
            elif process.returncode:
                self._failed(what, f"exit status {process.returncode}")

    @contextmanager
    def _running(self) -> Iterator[subprocess.Popen[bytes]]:
        """The program at work. If it has not ended by itself, it is ended with all that it has started."""
        process = subprocess.Popen(  # noqa: S603 - the admin's own program, without arguments
            [self._program],
            stdin=subprocess.PIPE,
            stdout=sys.stderr,
            cwd="/",
            env=_ENVIRONMENT,
            start_new_session=True,
        )
        try:
            yield process
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
            if process.stdin is not None:
                process.stdin.close()

    def _failed(self, what: str, how: str) -> None:
        show.note(f"otpbridge: {self._program}, {what}: {how}")


class Place:
    """How far the log has been handed on: in a file that is whole at any time, or in memory alone."""

    def __init__(self, path: Path | None) -> None:
        """Read the file; without one, nothing was handed on yet. Raises CommandError."""
        self._path = path
        self.sequence = None if path is None else _read(path)

    def keep(self, sequence: int) -> None:
        """All up to here was handed on. Raises CommandError."""
        if sequence == self.sequence:
            return
        if self._path is not None:
            save(self._path, [f"{sequence}\n".encode()])
        self.sequence = sequence


def _read(path: Path) -> int | None:
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise CommandError(Code.USAGE, f"{path}: cannot be read: {error.strerror}", "BadParameters") from None
    if not text.strip().isdigit():
        raise CommandError(
            Code.USAGE, f"{path} does not hold the number of an event; is it the right file?", "BadParameters"
        )
    return int(text)
