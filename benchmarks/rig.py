"""What every scenario is given, and how long-running programs of a run are started and ended."""

from __future__ import annotations

import contextlib
import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from native import InvalidRunError, Native, Sample
from people import Login
from plan import Plan
from stacks import Services

HERE = Path(__file__).resolve().parent
_TIME_FOR_ROUNDS = 0.75
Say = Callable[[str], None]
Record = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Rig:
    """One run: its folder, its programs, how much is measured, and whom to tell how it goes."""

    folder: Path
    module: Path
    plan: Plan
    say: Say
    native: Native
    services: Services
    secret: bytes = field(repr=False)
    begun: float = field(default_factory=time.monotonic)

    @classmethod
    def make(cls, folder: Path, module: Path, plan: Plan, say: Say) -> Rig:
        """Build what it needs in `folder`."""
        # A copy of the module: a build meanwhile must not change or take away what is measured.
        copied = Path(shutil.copy(module, folder))
        return cls(folder, copied, plan, say, Native(folder), Services(folder / "pam.d"), secrets.token_bytes(32))

    def rounds(self, count: int | None = None) -> Iterator[int]:
        """The numbers of the rounds, each told as it begins; one alone where time has become short."""
        count = self.plan.rounds if count is None else count
        for number in range(1, count + 1):
            if number > 1 and time.monotonic() - self.begun > 60 * self.plan.minutes * _TIME_FOR_ROUNDS:
                self.say("  no further rounds: time has become short")
                return
            self.say(f"  round {number} of {count}")
            yield number

    def login(
        self,
        service: str,
        logins: Sequence[Login],
        processes: int,
        *,
        warmup: int = 0,
        servers: Sequence[int] = (),
        environment: Mapping[str, str] | None = None,
    ) -> Sample:
        """Log in through a service."""
        return self.native.pam(
            self.services.confdir,
            service,
            logins,
            processes=processes,
            warmup=warmup,
            servers=servers,
            environment=environment,
        )

    @contextlib.contextmanager
    def bare_loop(self, size: int) -> Iterator[tuple[Path, int]]:
        """The bare loop with `size` users, made from this run's secret: its socket and its pid."""
        folder = self.folder / "bare"
        folder.mkdir(mode=0o700)
        socket = folder / "socket"
        process = subprocess.Popen(
            [sys.executable, HERE / "bareloop.py", socket, folder / "bare.db", str(size)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            with process.stdin as given:
                given.write(self.secret)
            if process.stdout.readline() != b"ready\n":
                raise InvalidRunError("the bare loop did not start")
            yield socket, process.pid
        finally:
            process.kill()
            process.wait()
            process.stdout.close()
            shutil.rmtree(folder)


def ours(sample: Sample) -> Record:
    """A sample of otpbridge, in which nothing may have been refused."""
    if sample.refused:
        raise InvalidRunError(f"otpbridge refused {sample.refused} right codes; by code: {sample.codes}")
    return sample.record()
