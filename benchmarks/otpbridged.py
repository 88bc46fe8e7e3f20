"""An otpbridged on a folder of its own."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import IO

import machine
from native import InvalidRunError
from people import People

BIN = Path(sys.executable).parent
STOP_SECONDS = 60
_COVERAGE = "COVERAGE_PROCESS_START"


class Daemon:
    """Started by the command that an admin uses, with no configuration unless one is given."""

    def __init__(self, folder: Path, config: str = "") -> None:
        self.folder = folder
        folder.mkdir(mode=0o700, exist_ok=True)
        self.state = folder / "state"
        self.socket = folder / "run" / "verify"
        self._options: list[object] = []
        if config:
            path = folder / "otpbridge.toml"
            path.write_text(config)
            self._options = ["--config", path]
        self._process: subprocess.Popen[str] | None = None
        self._said: list[str] = []

    @property
    def pid(self) -> int:
        """Its process; the command replaces itself by the daemon."""
        if self._process is None or self._process.poll() is not None:
            raise InvalidRunError(f"otpbridged is not running: {''.join(self._said[-5:])}")
        return self._process.pid

    def start(self, environment: Mapping[str, str] | None = None) -> float:
        """Start it; the seconds from exec to the moment it says that it is ready."""
        self._said = []
        begun = time.monotonic()
        self._process = subprocess.Popen(
            [
                BIN / "otpbridged",
                "--state-dir",
                self.state,
                "--run-dir",
                self.folder / "run",
                *map(str, self._options),
            ],
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            env=_environment() | dict(environment or {}),
        )
        assert self._process.stderr is not None
        for line in self._process.stderr:
            self._said.append(line)
            if "is ready" in line:
                ready = time.monotonic() - begun
                threading.Thread(target=self._listen, args=(self._process.stderr,), daemon=True).start()
                return ready
        raise InvalidRunError(f"otpbridged did not start: {''.join(self._said)}")

    def stop(self) -> None:
        """End it in order."""
        if self._process is not None:
            self._process.terminate()
            status = self._process.wait(STOP_SECONDS)
            self._process = None
            if status != 0:
                raise InvalidRunError(f"otpbridged ended with status {status}: {''.join(self._said[-5:])}")

    def kill(self) -> None:
        """End it at once, whatever it is doing."""
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        self._process = None

    def import_people(self, people: People) -> float:
        """Take over all users with `otpbridge import`; the seconds it took."""
        path = self.folder / "people.tsv"
        with path.open("w") as file:
            file.writelines(people.lines())
        begun = time.monotonic()
        done = self._command("import", path)
        seconds = time.monotonic() - begun
        path.unlink()
        if done.returncode != 0 or f"{people.size} tokens were imported" not in done.stdout + done.stderr:
            raise InvalidRunError(f"otpbridge import: {done.stdout}{done.stderr}")
        return seconds

    def check_audit(self) -> str:
        """What `otpbridge audit verify` says after all that load. Raises InvalidRunError if the log is not whole."""
        done = self._command("audit", "verify")
        if done.returncode != 0:
            raise InvalidRunError(f"otpbridge audit verify: {done.stdout}{done.stderr}")
        return done.stdout.strip()

    def _command(self, *words: object) -> subprocess.CompletedProcess[str]:
        command = [BIN / "otpbridge", "--run-dir", self.folder / "run", *words]
        return subprocess.run(
            [str(word) for word in command], capture_output=True, text=True, check=False, env=_environment()
        )

    def resident_mib(self) -> float:
        """Its resident memory."""
        return machine.resident_mib(self.pid)

    def _listen(self, stream: IO[str]) -> None:
        for line in stream:
            self._said.append(line)


def help_cpu_ms(runs: int) -> float:
    """Median processor time (user and system) of `otpbridge --help`, in milliseconds."""
    spent = []
    for _ in range(runs + 1):
        process = subprocess.Popen(
            [BIN / "otpbridge", "--help"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=_environment()
        )
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode != 0:
            raise InvalidRunError(f"otpbridge --help ended with status {process.returncode}")
        spent.append((usage.ru_utime + usage.ru_stime) * 1000)
    return statistics.median(spent[1:])


def _environment() -> dict[str, str]:
    """Ours, without what would measure coverage or lead commands to another daemon."""
    return {name: value for name, value in os.environ.items() if name not in {_COVERAGE, "OTPBRIDGE_RUN_DIR"}}
