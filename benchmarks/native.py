"""The C programs of this folder: build them, run them, read what they measured."""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import machine
from people import Login

HERE = Path(__file__).resolve().parent
NO_LOG = 3
RUN_SECONDS = 300
"""Longer takes no run: what it asks does not answer."""


class InvalidRunError(Exception):
    """A run whose figures mean nothing, and why."""


AT_SYSTEM_PLACE = (
    *("unshare", "--mount", "--propagation", "private", "sh", "-ec"),
    'mount -t tmpfs tmpfs /run; mkdir -m 0755 /run/otpbridge; mount --bind "$0" /run/otpbridge; exec "$@"',
)
"""Before a folder and a command: run it, as root, where that folder is /run/otpbridge."""


class MissingError(Exception):
    """What this machine lacks for a scenario."""


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
    server_us: float
    """Processor time of the servers per call, in microseconds; 0 where the load generator is all there is."""
    foreign: float
    """Cores that neither the load generator nor the servers used, but others (and the kernel's own threads) did."""

    @property
    def rate(self) -> float:
        """Calls that were accepted, per second."""
        return (self.calls - self.refused) / self.seconds

    def record(self) -> dict[str, Any]:
        """As it stands in the results."""
        return asdict(self) | {"rate": self.rate}


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
        servers: Sequence[int] = (),
        environment: Mapping[str, str] | None = None,
    ) -> Sample:
        """Log in through a PAM stack; `warmup` logins of each process are not timed. `servers` are pids."""
        command = self._pambench(confdir, service, processes, warmup)
        return _sample(_run(command, _lines(logins), servers, environment))

    def together(self, confdir: Path, service: str, logins: Sequence[Login], processes: int) -> list[int]:
        """Log in by so many processes, each login at the same moment in all; PAM's code of each login."""
        return _run([*self._pambench(confdir, service, processes, 0), "together"], _lines(logins)).codes

    def killed(
        self, confdir: Path, service: str, logins: Sequence[Login], processes: int, microseconds: int
    ) -> list[int]:
        """Log in until all processes are killed; PAM's code of each login, -1 where it did not come."""
        command = [*self._pambench(confdir, service, processes, 0), "killed", str(microseconds)]
        return _run(command, _lines(logins)).codes

    def paused(
        self, confdir: Path, service: str, logins: Sequence[Login], seconds: float, run_dir: Path
    ) -> list[float]:
        """Log in with a pause after each login, where /run/otpbridge is `run_dir`; the milliseconds of each.

        Raises InvalidRunError where one was refused.
        """
        command = [*AT_SYSTEM_PLACE, run_dir, *self._pambench(confdir, service, 1, 0)]
        run = _run([*command, "paused", round(seconds * 1e6)], _lines(logins))
        if any(run.codes):
            raise InvalidRunError(f"logins were refused: {Counter(run.codes)}")
        return run.spent

    def codes(self, confdir: Path, service: str, logins: Sequence[Login], processes: int = 1) -> list[int]:
        """Log in; PAM's code of each login."""
        return _run(self._pambench(confdir, service, processes, 0), _lines(logins)).codes

    def _pambench(self, confdir: Path, service: str, processes: int, warmup: int) -> list[object]:
        return [self._folder / "pambench", confdir, service, str(processes), str(warmup)]

    def wire(
        self, socket: Path, connections: int, mode: str, logins: Sequence[Login], servers: Sequence[int]
    ) -> Sample:
        """Call Check for each login over `connections`, which are `kept` or made for `each` call."""
        command = [self._folder / "wireload", socket, str(connections), mode]
        return _sample(_run(command, b"".join(_frame(login, place) for place, login in enumerate(logins)), servers))

    def http(self, port: int, connections: int, requests: Sequence[bytes], server: int) -> Sample:
        """Send each request over a connection of its own to a port of this machine."""
        command = [self._folder / "wireload", str(port), str(connections), "http"]
        return _sample(_run(command, b"".join(request + b"\0" for request in requests), [server]))


def _lines(logins: Sequence[Login]) -> bytes:
    return "".join(f"{login.user} {login.code}\n" for login in logins).encode()


def _frame(login: Login, place: int) -> bytes:
    # As a portal calls: with the address of the person, which back-off counts too.
    return (
        f'{{"method":"org.otpbridge.Verify.Check","parameters":{{"user":"{login.user}","responses":["{login.code}"],'
        f'"context":{{"service":"portal","rhost":"192.0.2.{place % 250}"}}}}}}\0'
    ).encode()


def _compile(target: Path, source: Path, *options: str) -> None:
    subprocess.run(["gcc", "-O2", "-Wall", "-o", target, source, *options], check=True)


@dataclass(frozen=True, slots=True)
class Run:
    """What a program of ours said: codes and milliseconds of each call, in their order; the rest in seconds."""

    codes: list[int]
    spent: list[float]
    wall: float
    cpu: float
    server_cpu: float
    foreign: float


def _run(
    command: Sequence[object],
    given: bytes,
    servers: Sequence[int] = (),
    environment: Mapping[str, str] | None = None,
) -> Run:
    begun = time.monotonic()
    busy = machine.busy_seconds()
    own, served = _own_cpu(), sum(map(machine.cpu_seconds, servers))
    done = subprocess.run(
        [str(word) for word in command],
        input=given,
        capture_output=True,
        check=False,
        env=None if environment is None else os.environ | environment,
        timeout=RUN_SECONDS,
    )
    served = sum(map(machine.cpu_seconds, servers)) - served
    foreign = (machine.busy_seconds() - busy - (_own_cpu() - own) - served) / (time.monotonic() - begun)
    if done.returncode != 0:
        kind = NoSyslogError if done.returncode == NO_LOG else InvalidRunError
        raise kind(done.stderr.decode(errors="replace").strip())
    totals = {b"wall": 0, b"cpu": 0}
    codes, spent = [], []
    for line in done.stdout.splitlines():
        name, *values = line.split()
        if name == b"call":
            codes.append(int(values[0]))
            spent.append(int(values[1]) / 1e6)
        else:
            totals[name] = int(values[0])
    return Run(codes, spent, totals[b"wall"] / 1e9, totals[b"cpu"] / 1e9, served, max(0.0, foreign))


def _sample(run: Run) -> Sample:
    calls = len(run.codes)
    if not calls or not run.wall:
        raise InvalidRunError("nothing was timed")
    ranks = statistics.quantiles(run.spent, n=100, method="inclusive") if calls > 1 else run.spent * 99
    return Sample(
        calls=calls,
        refused=sum(code != 0 for code in run.codes),
        codes=dict(Counter(run.codes)),
        seconds=run.wall,
        median=statistics.median(run.spent),
        p95=ranks[94],
        p99=ranks[98],
        cpu_us=run.cpu * 1e6 / calls,
        server_us=run.server_cpu * 1e6 / calls,
        foreign=run.foreign,
    )


def _own_cpu() -> float:
    total = 0.0
    for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN):
        usage = resource.getrusage(who)
        total += usage.ru_utime + usage.ru_stime
    return total
