"""What many, long or hostile things cost others: `make bench-limits`, or `limits.py --full` for all of it.

A login is measured idle and under each attack in turn, in one run, with a connection for each, as root makes it: by
PAM, whose module goes by the admins' socket, and by a call on the socket that all may open, as a portal's. So is a
call while the audit log is exported and cut, and while a backup is made. `--full` has a million users with ten tokens
each and a year of 100,000 audit entries a day, which needs 40 GB and hours. Needs root, to call as other users.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import functools
import json
import os
import secrets
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import machine
from native import InvalidRunError, Native
from otpbridged import BIN, Daemon
from people import People
from stacks import Services

from otpbridge.config import Key
from otpbridge.model import AuditEvent, Backoff, Verdict
from otpbridge.store.engine import begin
from otpbridge.store.store import open_store
from otpbridge.vault.keys import KeyPlace

HERE = Path(__file__).resolve().parent
CHECKOUT = HERE.parent
CALLER = HERE / "limits_caller.py"
OTHER = 61_001
"""A uid that nobody has, and those after it."""
PAUSE = 0.002
"""Seconds between logins: what is measured is how long one takes, not how many fit."""
DAY = 86_400
TARGET = 2.0

ATTACKS = (
    ("idle", 500, 20, "10,000 connections that say nothing, of 20 users"),
    ("half", 60, 1, "60 calls of which the end never comes"),
    ("endless", 60, 1, "60 messages without an end"),
    ("deaf", 60, 1, "60 connections that call without a pause and read no reply"),
    ("greedy", 60, 1, "60 connections that call without a pause"),
    ("guess", 60, 1, "60 connections that guess without a pause"),
    ("begin", 60, 1, "60 connections that begin conversations and leave them"),
    ("flood", 1, 1, "connections as fast as they come, closed at once"),
    ("silent_flood", 60, 1, "the same, the newest 60 stay open"),
)
"""Name, number, users, words."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Counts of one run."""

    rounds: int
    logins: int
    stores: tuple[tuple[int, int], ...]
    """Users and tokens of each."""
    entries: int


DEFAULT = Plan(rounds=3, logins=100, stores=((1_000_000, 1), (100_000, 10)), entries=1_000_000)
FULL = Plan(rounds=3, logins=200, stores=((1_000_000, 1), (1_000_000, 10)), entries=36_500_000)
SMOKE = Plan(rounds=1, logins=5, stores=((100, 1), (20, 10)), entries=2000)


class Logins:
    """Logins of users who have an HOTP token, on one daemon."""

    def __init__(self, daemon: Daemon, people: People) -> None:
        self._daemon = daemon
        self._people = people

    def by_pam(self, native: Native, services: Services, service: str, count: int) -> list[float]:
        """The milliseconds of so many by PAM, as sshd has it. Raises InvalidRunError where one was refused."""
        run_dir = self._daemon.socket.parent
        return native.paused(services.confdir, service, self._people.hotp(count, 1), PAUSE, run_dir)

    def run(self, count: int) -> list[float]:
        """The same by calls on the socket that all may open."""
        lines = "".join(f"{login.user} {login.code}\n" for login in self._people.hotp(count, 1))
        done = subprocess.run(
            _caller(0, self._daemon.socket, "login", PAUSE), input=lines, capture_output=True, text=True, check=False
        )
        found = [line.split() for line in done.stdout.splitlines()]
        if done.returncode or any(verdict != "success" for _, verdict in found):
            raise InvalidRunError(f"logins: {done.stderr[-300:]} {[verdict for _, verdict in found][-3:]}")
        return [float(spent) for spent, _ in found]


def _caller(uid: int, path: Path, what: str, number: float) -> list[str]:
    return [sys.executable, "-I", "-S", str(CALLER), str(uid), str(path), what, str(number)]


class Bench:
    """One run; what was measured is in `results`."""

    def __init__(self, folder: Path, plan: Plan, module: Path, attacks: Collection[str]) -> None:
        self._folder = folder
        self._plan = plan
        self._module = module
        self._chosen = attacks
        self._secret = secrets.token_bytes(32)
        self.results: dict[str, Any] = {"machine": machine.describe(folder), "attacks": {}, "stores": {}, "audit": {}}

    def run(self) -> None:
        """Measure everything, or the attacks that were chosen."""
        self._attacks()
        if self._chosen:
            return
        for users, tokens in self._plan.stores:
            self._store(users, tokens)
        self._audit()

    @contextlib.contextmanager
    def _daemon(self, name: str) -> Iterator[Daemon]:
        folder = self._folder / name
        daemon = Daemon(folder)
        folder.chmod(0o755)
        try:
            daemon.start()
            yield daemon
            daemon.stop()
        finally:
            daemon.kill()
            shutil.rmtree(folder)

    def _people(self, daemon: Daemon, size: int) -> Logins:
        people = People(size, self._secret)
        daemon.import_people(people)
        logins = Logins(daemon, people)
        logins.run(min(50, self._plan.logins))
        return logins

    # --- attacks ---

    def _attacks(self) -> None:
        native = Native(self._folder)
        services = Services(self._folder / "pam.d")
        # A copy of the module: a build meanwhile must not change or take away what is measured.
        service = services.add_otpbridge("limits", Path(shutil.copy(self._module, self._folder)))
        with self._daemon("attacks") as daemon:
            logins = self._people(daemon, 1000)
            ways: dict[str, Callable[[int], list[float]]] = {
                "PAM as root": functools.partial(logins.by_pam, native, services, service),
                "the verify socket": logins.run,
            }
            for name, number, users, words in ATTACKS:
                if self._chosen and name not in self._chosen:
                    continue
                for way, log_in in ways.items():
                    found = [self._attacked(daemon, log_in, (name, number, users)) for _ in range(self._plan.rounds)]
                    ratio = statistics.median(each["ratio"] for each in found)
                    self.results["attacks"][f"{name}, {way}"] = found
                    last = found[-1]
                    self._say(
                        f"{words}; logins by {way}: {last['idle']:.2f} -> {last['attacked']:.2f} ms",
                        f"{ratio:.2f} x (p99 {last['p99']:.1f} ms), daemon {last['mib']:.0f} MiB{_mark(ratio)}",
                    )

    @staticmethod
    def _say(*parts: str) -> None:
        print(*parts, sep=", ", flush=True)

    def _attacked(
        self, daemon: Daemon, log_in: Callable[[int], list[float]], attack: tuple[str, int, int]
    ) -> dict[str, float]:
        name, number, users = attack
        idle = statistics.median(log_in(self._plan.logins))
        with contextlib.ExitStack() as stack:
            for place in range(users):
                process = stack.enter_context(
                    subprocess.Popen(
                        _caller(OTHER + place, daemon.socket, name, number),
                        stdout=subprocess.PIPE,
                        text=True,
                        env={**os.environ, "USER": "mallory"},
                    )
                )
                stack.callback(process.kill)
                assert process.stdout is not None
                process.stdout.readline()
            spent = log_in(self._plan.logins)
            mib = daemon.resident_mib()
            if process.poll() is not None:
                raise InvalidRunError(f"the attack {name} ended")
        attacked = statistics.median(spent)
        return {"idle": idle, "attacked": attacked, "p99": _p99(spent), "ratio": attacked / idle, "mib": mib}

    # --- large stores ---

    def _store(self, users: int, tokens: int) -> None:
        with self._daemon(f"users{users}x{tokens}") as daemon:
            people = People(users, self._secret)
            others = (People(users, self._secret[:-1] + bytes([place])) for place in range(1, tokens))
            seconds = sum(daemon.import_people(other) for other in others)
            seconds += daemon.import_people(people)
            daemon.stop()
            ready = daemon.start()
            logins = Logins(daemon, people)
            logins.run(min(50, self._plan.logins))
            spent = logins.run(self._plan.logins)
            begun = time.monotonic()
            lines = _listed(daemon)
            listing = time.monotonic() - begun
            backup = daemon.folder / "copy"
            with _working(daemon, "backup", backup) as job:
                during = logins.run(self._plan.logins)
            found = {
                "import_seconds": seconds,
                "ready_seconds": ready,
                "login_ms": statistics.median(spent),
                "login_p99_ms": _p99(spent),
                "mib": daemon.resident_mib(),
                "disk_bytes": _disk(daemon.folder / "state"),
                "list_seconds": listing,
                "list_bytes": lines,
                "backup_seconds": job.seconds,
                "backup_bytes": backup.stat().st_size,
                "login_during_backup_ms": statistics.median(during),
            }
        self.results["stores"][f"{users} x {tokens}"] = found
        ratio = found["login_during_backup_ms"] / found["login_ms"]
        self._say(
            f"{users:,} users with {tokens} tokens: imported in {seconds:.0f} s",
            f"{found['disk_bytes'] / 1e6:,.0f} MB",
            f"ready in {ready:.2f} s with {found['mib']:.0f} MiB",
            f"login {found['login_ms']:.2f} ms (p99 {found['login_p99_ms']:.1f})",
            f"user list {listing:.1f} s and {lines / 1e6:.0f} MB",
            f"backup {job.seconds:.1f} s, logins meanwhile {ratio:.2f} x{_mark(ratio)}",
        )

    # --- the audit log ---

    def _audit(self) -> None:
        state = self._folder / "audit" / "state"
        state.mkdir(mode=0o700, parents=True)
        filled = asyncio.run(_fill(state, self._plan.entries))
        size = _disk(state) / self._plan.entries
        with self._daemon("audit") as daemon:
            logins = self._people(daemon, 1000)
            found = self.results["audit"] = {"entries": self._plan.entries, "filled_seconds": filled, "bytes": size}
            idle = statistics.median(logins.run(self._plan.logins))
            jobs = (
                ("verify", ["audit", "verify"]),
                ("export", ["audit", "export", daemon.folder / "all.jsonl.gz"]),
                ("prune", ["audit", "prune", "--before", "2d"]),
                ("verify archives", ["audit", "verify", daemon.folder / "all.jsonl.gz"]),
            )
            print(f"{self._plan.entries:,} audit entries: {size:.0f} bytes each", flush=True)
            for name, words in jobs:
                with _working(daemon, *words) as job:
                    spent = [*logins.run(self._plan.logins)]
                    while job.running:
                        spent += logins.run(self._plan.logins)
                rate = self._plan.entries / job.seconds
                ratio = statistics.median(spent) / idle
                found[name] = {"rate": rate, "idle": idle, "login_ms": statistics.median(spent), "p99": _p99(spent)}
                print(
                    f"  {name}: {rate:,.0f} entries/s; logins meanwhile {ratio:.2f} x (p99 {_p99(spent):.1f} ms), "
                    f"daemon {daemon.resident_mib():.0f} MiB{_mark(ratio)}",
                    flush=True,
                )
            archives = sum(path.stat().st_size for path in (daemon.folder / "state" / "audit").glob("*"))
            found["archive_bytes"] = archives / self._plan.entries
            print(f"  archives: {found['archive_bytes']:.0f} bytes an entry", flush=True)
            daemon.check_audit()


class _Job:
    """A command that runs while logins are measured."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self._begun = time.monotonic()
        self.seconds = 0.0

    @property
    def running(self) -> bool:
        """Whether it is not done yet."""
        return self._process.poll() is None

    def finish(self) -> None:
        """Wait for it. Raises InvalidRunError where it failed."""
        _, said = self._process.communicate()
        self.seconds = time.monotonic() - self._begun
        if self._process.returncode:
            raise InvalidRunError(said)


@contextlib.contextmanager
def _working(daemon: Daemon, *words: object) -> Iterator[_Job]:
    command = [BIN / "otpbridge", "--run-dir", daemon.folder / "run", *words]
    process = subprocess.Popen(
        [str(word) for word in command], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    job = _Job(process)
    try:
        yield job
        job.finish()
    finally:
        process.kill()
        process.wait()


def _listed(daemon: Daemon) -> int:
    """Bytes of what `otpbridge user list` says."""
    command = [BIN / "otpbridge", "--run-dir", daemon.folder / "run", "--json", "user", "list"]
    done = subprocess.run([str(word) for word in command], capture_output=True, check=True)
    return len(done.stdout)


async def _fill(state: Path, entries: int) -> float:
    """Write old entries, as logins leave them, into the log of a store that no daemon uses; the seconds it took."""
    rule = Backoff(limit=50, first_wait=1000, longest_wait=300_000, forget=900_000)
    store = open_store(None, state, KeyPlace(Key(), state, None), os.urandom, rule)
    begun = time.monotonic()
    now = int((time.time() - 365 * DAY) * 1000)
    with store.engine.connect() as connection:
        driver = connection.connection.dbapi_connection
        assert driver is not None
        cursor = driver.cursor()
        for start in range(0, entries, 50_000):
            cursor.execute(begin(store.engine))
            events = (
                AuditEvent(
                    "verify",
                    client="local",
                    user=People.name(number % 1000),
                    token=f"{number % 1000:016x}",
                    verdict=Verdict.SUCCESS,
                    reason="code accepted",
                    uid=0,
                    pid=number % 32_768,
                    service="sshd",
                    rhost=f"192.0.2.{number % 250}",
                )
                for number in range(start, min(start + 50_000, entries))
            )
            store.audit.append(cursor, [(now, event) for event in events])
            cursor.execute("COMMIT")
    await store.close()
    return time.monotonic() - begun


def _disk(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.glob("otpbridge.db*"))


def _p99(spent: list[float]) -> float:
    return statistics.quantiles(spent, n=100, method="inclusive")[98]


def _mark(ratio: float) -> str:
    return "" if ratio < TARGET else f"   <-- not below {TARGET:.0f} x"


def main() -> int:
    """Run it; 0 unless something could not be measured, be the figures good or bad."""
    parser = argparse.ArgumentParser(description=__doc__)
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--full", action="store_true", help="a million users with ten tokens, a year of audit entries")
    parser.add_argument(
        "--only", nargs="+", default=(), choices=[name for name, *_ in ATTACKS], help="measure these attacks alone"
    )
    parser.add_argument("--module", type=Path, default=CHECKOUT / "pam" / "build" / "pam_otpbridge.so")
    how.add_argument("--smoke", action="store_true", help="a few of each: shows that the harness works, not more")
    parser.add_argument(
        "--folder",
        type=Path,
        default=os.environ.get("OTPBRIDGE_BENCH_DIR", CHECKOUT.parent),
        help="where the stores are made, on the disk to measure (default: beside the checkout)",
    )
    parser.add_argument("--results", type=Path, default=HERE / "results" / "limits.json")
    options = parser.parse_args()
    if os.geteuid() != 0:
        parser.error("needs root, to call as other users")
    if not options.module.exists():
        parser.error(f"{options.module} does not exist: run `make pam` first")
    folder = Path(tempfile.mkdtemp(prefix="otpb-limits-", dir=options.folder))
    folder.chmod(0o755)
    plan = FULL if options.full else SMOKE if options.smoke else DEFAULT
    bench = Bench(folder, plan, options.module, options.only)
    print(f"load average before: {bench.results['machine']['load_before']:.2f}", flush=True)
    try:
        bench.run()
    except InvalidRunError as error:
        print(f"INVALID: {error}", file=sys.stderr)
        return 1
    finally:
        shutil.rmtree(folder)
    options.results.write_text(json.dumps(bench.results, indent=1) + "\n")
    print(f"written: {os.path.relpath(options.results)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
