"""Daemons that are there at once, and die by kill -9 at a step of what they do to the audit log.

Each is forked from a process that has loaded all of otpbridge already; there is one at a time.

    with Nursery() as nursery, nursery.daemon(folder, dies=3) as admin:
        admin.call(messages.AuditPrune(before=…))
    nursery.said
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import alembic.command  # noqa: F401 - daemons load it as they start, and each would again
from daemon_rig import SECONDS, plain_environment

from otpbridge.client import Client
from otpbridge.daemon import archiving
from otpbridge.daemon.__main__ import run
from otpbridge.store import archive, lines, retention

_SEAMS = [
    (archiving, "prepare_folder"),
    (archive, "tail"),
    (os, "fsync"),
    (Path, "replace"),
    (Path, "unlink"),
    (retention, "cut"),
    (lines.SqliteLine, "commit"),
]
"""Where something that lasts is about to happen."""


class Nursery:
    """The process that daemons are forked from."""

    def __init__(self) -> None:
        self.said = ""
        """What the daemon of now, or the one before, has said."""

    def __enter__(self) -> Nursery:
        self._process = subprocess.Popen(
            [sys.executable, "-P", __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            bufsize=1,
            env=plain_environment(PYTHONPATH=os.fspath(Path(__file__).parent)),
        )
        return self

    def __exit__(self, *_: object) -> None:
        self._process.stdin.close()
        status = self._process.wait(SECONDS)
        self._process.stdout.close()
        assert status == 0

    @contextlib.contextmanager
    def daemon(self, folder: Path, *, dies: int = 0) -> Iterator[Client]:
        """A daemon on `folder`, for an admin. It dies before that step of it, or in order when the block ends."""
        print(json.dumps([os.fspath(folder), dies]), file=self._process.stdin)
        self.said = ""
        pid = int(self._until("pid ").rpartition(" ")[2])
        try:
            self._until("is ready")
            with Client(run_dir=folder / "run", admin=True, timeout=SECONDS) as admin:
                yield admin
        finally:
            # It is not waited for before we say so: a number that was given away cannot be killed.
            os.kill(pid, signal.SIGTERM)
            print(file=self._process.stdin)
            self._until("ended ")

    @property
    def status(self) -> int:
        """How the last one ended: its exit status, or the signal below zero."""
        return int(self.said.rstrip().rpartition("ended ")[2])

    def _until(self, words: str) -> str:
        for line in self._process.stdout:
            self.said += line
            if words in line:
                return line.rstrip()
        raise AssertionError(f"{words!r} was not said: {self.said}")


def _fork(folder: str, dies: int) -> int:
    pid = os.fork()
    if pid:
        return pid
    print(f"pid {os.getpid()}", flush=True)
    archiving._SLICE = 150
    steps, cutting = -1, False

    def counted(name: str, real: Callable[..., Any], *, first: bool) -> Callable[..., Any]:
        def step(*given: Any, **named: Any) -> Any:
            nonlocal steps, cutting
            # The daemon commits other things too, sooner or later.
            if first or (steps >= 0 and (name != "commit" or cutting)):
                steps += 1
            cutting = name == "cut" and not first
            if dies and steps == dies:
                print(f"dies before {name}", flush=True)
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*given, **named)

        return step

    for place, name in _SEAMS:
        setattr(place, name, counted(name, getattr(place, name), first=False))
    for name in ("cut", "lines"):
        setattr(archiving.Archivist, name, counted(name, getattr(archiving.Archivist, name), first=True))
    state = ["--state-dir", f"{folder}/state", "--run-dir", f"{folder}/run", "--config", f"{folder}/otpbridge.toml"]
    os._exit(run(state))


def _main() -> None:
    for line in iter(sys.stdin.readline, ""):
        pid = _fork(*json.loads(line))
        sys.stdin.readline()
        print(f"ended {os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])}", flush=True)


if __name__ == "__main__":
    _main()
