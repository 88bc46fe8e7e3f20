"""What is measured.

All of it on real stores on disk, with codes that are used once. A right code that was refused, by us ever or by a
peer where nothing explains it, makes a scenario invalid.
"""

from __future__ import annotations

import contextlib
import dataclasses
import secrets
import shutil
import statistics
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import machine
from native import InvalidRunError, Native, Sample
from otpbridged import Daemon, help_cpu_ms
from people import Login, People
from plan import CONNECTIONS, PROCESSES, Plan
from stacks import Google, Oath, Services, missing_modules

FLAT_LANES = 10
Say = Callable[[str], None]
Record = dict[str, Any]


class Bench:
    """One run: the stores, their daemons, and what was measured so far in `results`."""

    def __init__(self, folder: Path, module: Path, plan: Plan, say: Say) -> None:
        self._folder = folder
        # A copy: a build meanwhile must not change or take away what is measured.
        self._module = Path(shutil.copy(module, folder))
        self._plan = plan
        self._say = say
        self._secret = secrets.token_bytes(32)
        self._native = Native(folder)
        self._services = Services(folder / "pam.d")
        self._daemons: dict[int, Daemon] = {}
        self._people: dict[int, People] = {}
        self.results: Record = {
            "machine": machine.describe(folder),
            "plan": dataclasses.asdict(plan),
            "invalid": {},
        }

    @property
    def _main(self) -> Daemon:
        return self._daemons[self._plan.main]

    @property
    def _crowd(self) -> People:
        return self._people[self._plan.main]

    def run(self) -> None:
        """Measure everything. What could not be measured is told and stands under `invalid`."""
        try:
            with self._scenario("help"):
                self.results["help_cpu_ms"] = help_cpu_ms(self._plan.rounds * 2 + 1)
            self._fill()
            for name, measure in (
                ("start", self._start),
                ("flat", self._flat),
                ("socket", self._socket),
                ("pam", self._pam),
                ("memory", self._memory),
                ("slow", self._slow),
                ("audit", self._audit),
            ):
                with self._scenario(name):
                    measure()
            for daemon in self._daemons.values():
                daemon.stop()
        finally:
            for daemon in self._daemons.values():
                daemon.kill()

    @contextlib.contextmanager
    def _scenario(self, name: str) -> Iterator[None]:
        try:
            yield
        except InvalidRunError as error:
            self.results["invalid"][name] = str(error)
            self._say(f"INVALID, {name}: {error}")

    def _rounds(self) -> Iterator[int]:
        for number in range(1, self._plan.rounds + 1):
            self._say(f"  round {number} of {self._plan.rounds}")
            yield number

    # --- stores ---

    def _fill(self) -> None:
        """Make the stores, each filled by `otpbridge import`."""
        imported = self.results["import"] = {}
        for size in self._plan.sizes:
            people = self._people[size] = People(size, self._secret)
            daemon = self._daemons[size] = Daemon(self._folder / f"users{size}")
            daemon.start()
            seconds = daemon.import_people(people)
            imported[str(size)] = {"seconds": seconds, "tokens_per_second": size / seconds}
            self._say(f"store of {size:,} users: imported in {seconds:.2f} s, {size / seconds:,.0f} tokens/s")
            # The figures are those of a daemon that has not just imported.
            daemon.stop()
            daemon.start()

    def _start(self) -> None:
        """Start with all those users: the time until it is ready, and the memory it then takes."""
        ready, resident = [], []
        for _ in range(self._plan.starts):
            self._main.stop()
            ready.append(self._main.start())
            resident.append(self._main.resident_mib())
        self.results["ready_seconds"] = ready
        self.results["rss_start_mib"] = resident
        self._say(f"ready in {statistics.median(ready):.3f} s with {statistics.median(resident):.1f} MiB")

    def _memory(self) -> None:
        """Memory after all the load so far."""
        self.results["rss_load_mib"] = self._main.resident_mib()
        self._say(f"after load: {self.results['rss_load_mib']:.1f} MiB")

    def _audit(self) -> None:
        """The chain of all that was done."""
        self.results["audit"] = self._main.check_audit()

    # --- the socket ---

    def _socket(self) -> None:
        """Verifications over kept connections, and with a connection for each call."""
        self._say("socket")
        into = self.results["socket"] = {mode: {str(n): [] for n in CONNECTIONS} for mode in ("kept", "each")}
        self._warm_up()
        for _ in self._rounds():
            for connections in CONNECTIONS:
                for mode, found in into.items():
                    found[str(connections)].append(self._wire(connections, mode, self._plan.wire[connections]))

    def _slow(self) -> None:
        """The same on a disk whose flushes are slow. One connection is one commit each."""
        self._say(f"socket, each flush {self._plan.slow_ms} ms longer")
        into = self.results["slow"] = {mode: {str(n): [] for n in CONNECTIONS} for mode in ("kept", "each")}
        self._main.stop()
        preload = {"LD_PRELOAD": str(self._native.slow_flush), "SLOWFLUSH_MS": str(self._plan.slow_ms)}
        self._main.start(preload)
        try:
            for _ in self._rounds():
                for connections in CONNECTIONS:
                    for mode, found in into.items():
                        sample = self._wire(connections, mode, self._plan.slow[connections])
                        if sample["median"] < self._plan.slow_ms:
                            raise InvalidRunError("the flushes were not slowed: is the daemon's libc preloaded?")
                        found[str(connections)].append(sample)
        finally:
            self._main.stop()
            self._main.start()

    def _warm_up(self) -> None:
        self._wire(CONNECTIONS[0], "kept", self._plan.warmup + 1)

    def _wire(self, connections: int, mode: str, count: int) -> Record:
        logins = self._crowd.totp(count)
        return _ours(self._native.wire(self._main.socket, connections, mode, logins, self._main.pid))

    # --- cost by number of users ---

    def _flat(self) -> None:
        """The same load on stores of different sizes, in turn: what a verification costs in each."""
        self._say("cost by number of users")
        into = self.results["flat"] = {str(size): {"few": [], "many": [], "pam": []} for size in self._plan.sizes}
        services = {
            size: self._services.add_otpbridge(f"otpbridge{size}", self._module, daemon.socket)
            for size, daemon in self._daemons.items()
        }
        for _ in self._rounds():
            for size, daemon in self._daemons.items():
                people, found = self._people[size], into[str(size)]
                for name, wanted in (("few", FLAT_LANES), ("many", CONNECTIONS[-1])):
                    lanes = people.lanes(wanted)
                    if lanes == wanted:
                        logins = people.hotp(self._plan.flat, lanes)
                        found[name].append(_ours(self._native.wire(daemon.socket, lanes, "kept", logins, daemon.pid)))
                logins = people.hotp(self._plan.warmup + self._plan.flat_pam, 1)
                found["pam"].append(_ours(self._login(services[size], logins, 1, self._plan.warmup, daemon.pid)))

    # --- PAM ---

    def _pam(self) -> None:
        """Logins through PAM, ours and the peers' in turn."""
        missing = missing_modules()
        if missing:
            raise InvalidRunError(f"not installed: {', '.join(missing)}")
        self._say("PAM")
        into = self.results["pam"] = {
            name: {str(n): [] for n in PROCESSES}
            for name in ("permit", "otpbridge", "google", *(f"oath{size}" for size in self._plan.oath))
        }
        ours = self._services.add_otpbridge("otpbridge", self._module, self._main.socket)
        google = Google(self._services, self._folder / "google", self._plan.google_users, self._secret)
        oaths = [Oath(self._services, self._folder / f"oath{size}", size, self._secret) for size in self._plan.oath]
        permit = self._services.add("permit", "required pam_permit.so")
        warmup = self._plan.warmup
        for _ in self._rounds():
            for processes in PROCESSES:
                count = processes * warmup + self._plan.pam[processes]
                sample = self._login(permit, [Login("anyone", "0")] * count, processes, warmup)
                into["permit"][str(processes)].append(_record(sample))
                sample = self._login(ours, self._crowd.totp(count), processes, warmup, self._main.pid)
                into["otpbridge"][str(processes)].append(_ours(sample))
                sample = self._login(google.service, google.people.totp(count), processes, warmup)
                if sample.refused:
                    raise InvalidRunError(
                        f"pam_google_authenticator refused {sample.refused} right codes: {sample.codes}"
                    )
                into["google"][str(processes)].append(_record(sample))
                for oath in oaths:
                    logins = oath.logins((1 + self._plan.oath[oath.size]) * processes, processes)
                    sample = self._login(oath.service, logins, processes, 1)
                    if sample.refused and processes == 1:
                        raise InvalidRunError(f"pam_oath refused {sample.refused} right codes: {sample.codes}")
                    into[oath.service][str(processes)].append(_record(sample))

    def _login(
        self, service: str, logins: Sequence[Login], processes: int, warmup: int, daemon: int | None = None
    ) -> Sample:
        return self._native.pam(
            self._services.confdir, service, logins, processes=processes, warmup=warmup, daemon=daemon
        )


def _record(sample: Sample) -> Record:
    return dataclasses.asdict(sample) | {"rate": sample.rate}


def _ours(sample: Sample) -> Record:
    if sample.refused:
        raise InvalidRunError(f"otpbridge refused {sample.refused} right codes; by code: {sample.codes}")
    return _record(sample)
