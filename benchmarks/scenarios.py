"""What is measured of speed and size, on one machine without privacyIDEA and PostgreSQL.

All of it on real stores on disk, with codes that are used once. A right code that was refused, by us ever or by a
peer where nothing explains it, makes a scenario invalid.
"""

from __future__ import annotations

import contextlib
import dataclasses
import statistics
import traceback
from collections.abc import Callable, Iterator, Mapping

import machine
from native import InvalidRunError, MissingError, Sample
from otpbridged import Daemon, help_cpu_ms
from people import Login, People
from plan import CONNECTIONS, IN_FLIGHT, PROCESSES
from rig import Record, Rig, ours
from stacks import Google, Oath, need_modules

FLAT_LANES = 10


class Bench:
    """One run: the stores, their daemons, and what was measured so far in `results`."""

    def __init__(self, rig: Rig, further: Mapping[str, Callable[[Rig], Record]]) -> None:
        self._rig = rig
        self._plan = rig.plan
        self._say = rig.say
        self._further = further
        self._daemons: dict[int, Daemon] = {}
        self._people: dict[int, People] = {}
        self.results: Record = {
            "machine": machine.describe(rig.folder),
            "versions": machine.versions(),
            "plan": dataclasses.asdict(rig.plan),
            "invalid": {},
            "skipped": {},
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
                self.results["help"] = {"cpu_ms": help_cpu_ms(self._plan.rounds * 2 + 1)}
            self._fill()
            for name, measure in (
                ("start", self._start),
                ("flat", self._flat),
                ("socket", self._socket),
                ("pam", self._pam),
                ("memory", self._memory),
                ("slow", self._slow),
                ("slow_pam", self._slow_pam),
                ("audit", self._audit),
            ):
                with self._scenario(name):
                    measure()
            for daemon in self._daemons.values():
                daemon.stop()
        finally:
            for daemon in self._daemons.values():
                daemon.kill()
        for name, scenario in self._further.items():
            with self._scenario(name):
                self.results[name] = scenario(self._rig)

    @contextlib.contextmanager
    def _scenario(self, name: str) -> Iterator[None]:
        try:
            yield
        except MissingError as error:
            self.results["skipped"][name] = str(error)
            self._say(f"skipped, {name}: {error}")
        except InvalidRunError as error:
            self._invalid(name, str(error))
        except Exception as error:  # noqa: BLE001 - told, and the run ends badly; the rest is measured
            traceback.print_exc()
            self._invalid(name, f"{type(error).__name__}: {error}")

    def _invalid(self, name: str, reason: str) -> None:
        self.results["invalid"][name] = reason
        self._say(f"INVALID, {name}: {reason}")

    # --- stores ---

    def _fill(self) -> None:
        """Make the stores, each filled by `otpbridge import`."""
        imported = self.results["import"] = {}
        for size in self._plan.sizes:
            people = self._people[size] = People(size, self._rig.secret)
            daemon = self._daemons[size] = Daemon(self._rig.folder / f"users{size}")
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
        self.results["start"] = {"ready_seconds": ready, "rss_mib": resident}
        self._say(f"ready in {statistics.median(ready):.3f} s with {statistics.median(resident):.1f} MiB")

    def _memory(self) -> None:
        """Memory after all the load so far."""
        resident = self._main.resident_mib()
        self.results["memory"] = {"rss_mib": resident}
        self._say(f"after load: {resident:.1f} MiB")

    def _audit(self) -> None:
        """The chain of all that was done."""
        self.results["audit"] = self._main.check_audit()

    # --- the socket ---

    def _socket(self) -> None:
        """Verifications over kept connections, and with a connection for each call; a bare loop in turn with us."""
        self._say("socket")
        into = self.results["socket"] = {mode: {str(n): [] for n in CONNECTIONS} for mode in ("kept", "each")}
        bare: Record = {mode: {str(n): [] for n in CONNECTIONS} for mode in ("kept", "each")}
        self.results["bare"] = bare
        crowd = People(self._plan.bare_users, self._rig.secret)
        self._warm_up()
        with self._rig.bare_loop(self._plan.bare_users) as (socket, pid):
            for _ in self._rig.rounds():
                for connections in CONNECTIONS:
                    count = self._plan.wire[connections]
                    for mode, found in into.items():
                        found[str(connections)].append(self._wire(connections, mode, count))
                        sample = self._rig.native.wire(socket, connections, mode, crowd.totp(count), [pid])
                        if sample.refused:
                            raise InvalidRunError(f"the bare loop refused {sample.refused} right codes")
                        bare[mode][str(connections)].append(sample.record())

    def _slow(self) -> None:
        """The same on a disk whose flushes are slow. One connection is one commit each."""
        self._say(f"socket, each flush {self._plan.slow_ms} ms longer")
        into = self.results["slow"] = {mode: {str(n): [] for n in CONNECTIONS} for mode in ("kept", "each")}
        with self._slowed():
            for _ in self._rig.rounds():
                for connections in CONNECTIONS:
                    for mode, found in into.items():
                        sample = self._wire(connections, mode, self._plan.slow[connections])
                        if sample["median"] < self._plan.slow_ms:
                            raise InvalidRunError("the flushes were not slowed: is the daemon's libc preloaded?")
                        found[str(connections)].append(sample)

    def _slow_pam(self) -> None:
        """Many logins at once through PAM on such a disk: ours beside pam_google_authenticator."""
        self._say(f"PAM, {IN_FLIGHT} processes, each flush {self._plan.slow_ms} ms longer")
        need_modules()
        into = self.results["slow_pam"] = {manner: {"otpbridge": [], "google": []} for manner in self._plan.slow_pam}
        google = Google(
            self._rig.services, self._rig.folder / "slow_google", self._plan.google_users, self._rig.secret
        )
        service = self._rig.services.add_otpbridge("slow_otpbridge", self._rig.module, self._main.socket)
        turns = {"SLOWFLUSH_LOCK": str(self._rig.folder / "slowflush.lock")}
        with self._slowed():
            for _ in self._rig.rounds():
                for manner, count in self._plan.slow_pam.items():
                    # Our daemon is the only one that flushes, so that its turns are its own.
                    sample = self._rig.login(service, self._crowd.totp(count), IN_FLIGHT, servers=[self._main.pid])
                    into[manner]["otpbridge"].append(ours(sample))
                    slow = self._preload() | (turns if manner == "one by one" else {})
                    sample = self._rig.login(google.service, google.people.totp(count), IN_FLIGHT, environment=slow)
                    into[manner]["google"].append(_all_right("pam_google_authenticator", sample))

    def _preload(self) -> dict[str, str]:
        return {"LD_PRELOAD": str(self._rig.native.slow_flush), "SLOWFLUSH_MS": str(self._plan.slow_ms)}

    @contextlib.contextmanager
    def _slowed(self) -> Iterator[None]:
        self._main.stop()
        self._main.start(self._preload())
        try:
            yield
        finally:
            self._main.stop()
            self._main.start()

    def _warm_up(self) -> None:
        self._wire(CONNECTIONS[0], "kept", self._plan.warmup + 1)

    def _wire(self, connections: int, mode: str, count: int) -> Record:
        logins = self._crowd.totp(count)
        return ours(self._rig.native.wire(self._main.socket, connections, mode, logins, [self._main.pid]))

    # --- cost by number of users ---

    def _flat(self) -> None:
        """The same load on stores of different sizes, in turn: what a verification costs in each."""
        self._say("cost by number of users")
        into = self.results["flat"] = {str(size): {"few": [], "many": [], "pam": []} for size in self._plan.sizes}
        services = {
            size: self._rig.services.add_otpbridge(f"otpbridge{size}", self._rig.module, daemon.socket)
            for size, daemon in self._daemons.items()
        }
        for _ in self._rig.rounds():
            for size, daemon in self._daemons.items():
                people, found = self._people[size], into[str(size)]
                for name, wanted in (("few", FLAT_LANES), ("many", CONNECTIONS[-1])):
                    lanes = people.lanes(wanted)
                    if lanes == wanted:
                        logins = people.hotp(self._plan.flat, lanes)
                        found[name].append(
                            ours(self._rig.native.wire(daemon.socket, lanes, "kept", logins, [daemon.pid]))
                        )
                logins = people.hotp(self._plan.warmup + self._plan.flat_pam, 1)
                found["pam"].append(
                    ours(self._rig.login(services[size], logins, 1, warmup=self._plan.warmup, servers=[daemon.pid]))
                )

    # --- PAM ---

    def _pam(self) -> None:
        """Logins through PAM, ours and the peers' in turn."""
        need_modules()
        self._say("PAM")
        into = self.results["pam"] = {
            name: {str(n): [] for n in PROCESSES}
            for name in ("permit", "otpbridge", "google", "googlehotp", *(f"oath{size}" for size in self._plan.oath))
        }
        services, folder, secret = self._rig.services, self._rig.folder, self._rig.secret
        service = services.add_otpbridge("otpbridge", self._rig.module, self._main.socket)
        googles = [
            Google(services, folder / "google", self._plan.google_users, secret),
            Google(services, folder / "googlehotp", max(100, self._plan.google_users // 10), secret, hotp=True),
        ]
        oaths = [Oath(services, folder / f"oath{size}", size, secret) for size in self._plan.oath]
        permit = services.add("permit", "required pam_permit.so")
        warmup = self._plan.warmup
        for _ in self._rig.rounds():
            for processes in PROCESSES:
                at = str(processes)
                count = processes * warmup + self._plan.pam[processes]
                sample = self._rig.login(permit, [Login("anyone", "0")] * count, processes, warmup=warmup)
                into["permit"][at].append(sample.record())
                sample = self._rig.login(
                    service, self._crowd.totp(count), processes, warmup=warmup, servers=[self._main.pid]
                )
                into["otpbridge"][at].append(ours(sample))
                for google in googles:
                    sample = self._rig.login(
                        google.service, google.logins(count, processes), processes, warmup=warmup
                    )
                    into[google.service][at].append(_all_right("pam_google_authenticator", sample))
                for oath in oaths:
                    logins = oath.logins((1 + self._plan.oath[oath.size]) * processes, processes)
                    sample = self._rig.login(oath.service, logins, processes, warmup=1)
                    if processes == 1:
                        _all_right("pam_oath", sample)
                    into[oath.service][at].append(sample.record())


def _all_right(module: str, sample: Sample) -> Record:
    if sample.refused:
        raise InvalidRunError(f"{module} refused {sample.refused} right codes: {sample.codes}")
    return sample.record()
