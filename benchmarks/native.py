"""The C programs of this folder: build them, run them, read what they measured."""

from __future__ import annotations

import resource
import statistics
import subprocess
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import machine
from people import Login

HERE = Path(__file__).resolve().parent
NO_LOG = 3


class InvalidRunError(Exception):
    """A run whose figures mean nothing, and why."""


class NoSyslogError(InvalidRunError):
    """Nobody listens on /dev/log and we may not: modules that log would be measured on the console."""


@dataclass(frozen=True, slots=True)
class Sample:
    """What one run gave. Milliseconds, seconds; `cpu_us` is the load generator's own per call, in microseconds."""

    calls: int
    refused: int
    codes: dict[int, int]
    """How often each code came back: PAM's, or 1 for a verdict that was not success."""
    seconds: float
    median: float
    p95: float
    p99: float
    cpu_us: float
    foreign: float
    """Cores that neither the load generator nor the daemon used, but others (and the kernel's own threads) did."""

    @property
    def rate(self) -> float:
        """Calls that were accepted, per second."""
        return (self.calls - self.refused) / self.seconds


class Native:
    """The built programs."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.slow_flush = folder / "slowflush.so"
        _compile(folder / "pambench", HERE / "pambench.c", "-lpam", "-pthread")
        _compile(folder / "wireload", HERE / "wireload.c")
        _compile(self.slow_flush, HERE / "slowflush.c", "-shared", "-fPIC", "-ldl")

    def pam(
        self,
        confdir: Path,
        service: str,
        logins: Sequence[Login],
        *,
        processes: int,
        warmup: int,
        daemon: int | None = None,
    ) -> Sample:
        """Log in through a PAM stack; `warmup` logins of each process are not timed. `daemon` is a pid."""
        lines = "".join(f"{login.user} {login.code}\n" for login in logins)
        command = [self._folder / "pambench", confdir, service, str(processes), str(warmup)]
        return _measure(command, lines.encode(), daemon)

    def wire(self, socket: Path, connections: int, mode: str, logins: Sequence[Login], daemon: int) -> Sample:
        """Call Check for each login over `connections`, which are `kept` or made for `each` call."""
        command = [self._folder / "wireload", socket, str(connections), mode]
        return _measure(command, b"".join(_frame(login, place) for place, login in enumerate(logins)), daemon)


def _frame(login: Login, place: int) -> bytes:
    # As a portal calls: with the address of the person, which back-off counts too.
    return (
        f'{{"method":"org.otpbridge.Verify.Check","parameters":{{"user":"{login.user}","responses":["{login.code}"],'
        f'"context":{{"service":"portal","rhost":"192.0.2.{place % 250}"}}}}}}\0'
    ).encode()


def _compile(target: Path, source: Path, *options: str) -> None:
    subprocess.run(["gcc", "-O2", "-Wall", "-o", target, source, *options], check=True)


def _measure(command: Sequence[object], given: bytes, daemon: int | None) -> Sample:
    begun = time.monotonic()
    busy = machine.busy_seconds()
    own = _own_cpu(daemon)
    done = subprocess.run([str(word) for word in command], input=given, capture_output=True, check=False)
    foreign = (machine.busy_seconds() - busy - (_own_cpu(daemon) - own)) / (time.monotonic() - begun)
    if done.returncode != 0:
        kind = NoSyslogError if done.returncode == NO_LOG else InvalidRunError
        raise kind(done.stderr.decode(errors="replace").strip())
    wall = cpu = 0
    codes, spent = [], []
    for line in done.stdout.splitlines():
        name, *values = line.split()
        if name == b"call":
            codes.append(int(values[0]))
            spent.append(int(values[1]) / 1e6)
        elif name == b"wall":
            wall = int(values[0])
        else:
            cpu = int(values[0])
    if not codes or not wall:
        raise InvalidRunError(f"{Path(str(command[0])).name} timed nothing")
    ranks = statistics.quantiles(spent, n=100, method="inclusive") if len(spent) > 1 else spent * 99
    return Sample(
        calls=len(codes),
        refused=sum(code != 0 for code in codes),
        codes=dict(Counter(codes)),
        seconds=wall / 1e9,
        median=statistics.median(spent),
        p95=ranks[94],
        p99=ranks[98],
        cpu_us=cpu / 1000 / len(codes),
        foreign=max(0.0, foreign),
    )


def _own_cpu(daemon: int | None) -> float:
    total = 0.0 if daemon is None else machine.cpu_seconds(daemon)
    for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN):
        usage = resource.getrusage(who)
        total += usage.ru_utime + usage.ru_stime
    return total
