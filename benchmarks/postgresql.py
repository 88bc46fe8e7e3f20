"""The store on PostgreSQL: a private cluster that flushes as any does, one daemon on it, then two."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import mkdtemp
from urllib.parse import quote

import machine
from native import InvalidRunError, MissingError, Sample
from otpbridged import Daemon
from people import People
from rig import Record, Rig, ours

_CLIENTS = 64
_ROLE = "bench"
_SETTINGS = "listen_addresses = ''\nshared_buffers = 128MB\nlog_min_messages = fatal\n"


class Cluster:
    """One server in a folder of its own, reached over its Unix socket. Root runs it as `postgres`, as it must."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._data = folder / "data"
        self._account = pwd.getpwnam("postgres") if os.geteuid() == 0 else pwd.getpwuid(os.geteuid())
        os.chown(folder, self._account.pw_uid, self._account.pw_gid)
        self._run("initdb", "-A", "trust", "-U", _ROLE, "-E", "UTF8", "--locale=C", "-D", self._data)
        with (self._data / "postgresql.conf").open("a") as file:
            file.write(f"{_SETTINGS}unix_socket_directories = '{folder}'\n")
        self._run("pg_ctl", "start", "-w", "-s", "-D", self._data, "-l", folder / "log")

    @property
    def config(self) -> str:
        """What a daemon's configuration says to use it."""
        return f'[store]\nurl = "postgresql://{_ROLE}@/postgres?host={quote(str(self._folder), safe="")}"\n'

    @property
    def pid(self) -> int:
        """The server's first process."""
        return int((self._data / "postmaster.pid").read_text().splitlines()[0])

    def version(self) -> str:
        """As the server names itself."""
        return self._run("postgres", "--version").split()[2]

    def stop(self) -> None:
        """Stop it for good."""
        self._run("pg_ctl", "stop", "-w", "-s", "-m", "immediate", "-D", self._data)

    def _run(self, program: str, *arguments: object) -> str:
        # To a file: a server that it starts would keep a pipe open.
        with (self._folder / "said").open("w+") as said:
            done = subprocess.run(
                [str(_programs() / program), *map(str, arguments)],
                stdout=said,
                stderr=said,
                check=False,
                cwd=self._folder,
                user=self._account.pw_uid,
                group=self._account.pw_gid,
                extra_groups=[] if os.geteuid() == 0 else None,
            )
            said.seek(0)
            text = said.read()
        if done.returncode != 0:
            raise InvalidRunError(f"{program}: {text}")
        return text


def _programs() -> Path:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[4]))
    if not found:
        raise MissingError("the PostgreSQL server is not installed")
    return found[-1].parent


@contextlib.contextmanager
def _cluster(rig: Rig) -> Iterator[Cluster]:
    _programs()
    # Not in the folder of the run, which its account may not enter.
    folder = Path(mkdtemp(prefix="otpb-pg-", dir=rig.folder.parent))
    try:
        cluster = Cluster(folder)
        try:
            yield cluster
        finally:
            cluster.stop()
    finally:
        shutil.rmtree(folder)


def measure(rig: Rig) -> Record:
    """Verifications per second by one daemon, and by two on the same database, which are asked at the same time."""
    rig.say("PostgreSQL")
    people = People(rig.plan.postgresql_users, rig.secret)
    with _cluster(rig) as cluster, contextlib.ExitStack() as stack:
        one, two = (Daemon(rig.folder / f"pg{number}", cluster.config) for number in (1, 2))
        for daemon in (one, two):
            stack.callback(daemon.kill)
        one.start()
        imported = one.import_people(people)
        two.state.mkdir(mode=0o700)
        # As on two hosts: one master key.
        shutil.copy2(one.state / "master.key", two.state)
        two.start()
        found: Record = {
            "version": cluster.version(),
            "import_per_second": people.size / imported,
            "one": {"each": [], "kept": []},
            "two": {"each": [], "kept": []},
        }
        _asked(rig, [one, two], "kept", people, cluster.pid)  # warm
        for _ in rig.rounds():
            for mode in ("each", "kept"):
                for name, daemons in (("one", [one]), ("two", [one, two])):
                    found[name][mode].append(_asked(rig, daemons, mode, people, cluster.pid))
        one.check_audit()
        one.stop()
        two.stop()
    return found


def _asked(rig: Rig, daemons: list[Daemon], mode: str, people: People, server: int) -> Record:
    """Ask each daemon as much at the same time; calls and seconds are those of all."""
    # HOTP: of that these users have codes enough at any time.
    work = [(daemon, people.hotp(rig.plan.postgresql, _CLIENTS)) for daemon in daemons]
    pids = [*(daemon.pid for daemon in daemons), server]

    def ask(daemon: Daemon, logins: list) -> Sample:
        return rig.native.wire(daemon.socket, _CLIENTS, mode, logins, pids)

    busy, used = machine.busy_seconds(), sum(map(machine.cpu_seconds, pids))
    with ThreadPoolExecutor(len(work)) as pool:
        samples = list(pool.map(lambda job: ask(*job), work))
    records = [ours(sample) for sample in samples]
    if len(records) == 1:
        return records[0]
    seconds = max(sample.seconds for sample in samples)
    calls = sum(sample.calls for sample in samples)
    used = sum(map(machine.cpu_seconds, pids)) - used
    loading = sum(sample.cpu_us * sample.calls / 1e6 for sample in samples)
    return records[0] | {
        "calls": calls,
        "seconds": seconds,
        "rate": calls / seconds,
        "median": max(sample.median for sample in samples),
        "p95": max(sample.p95 for sample in samples),
        "p99": max(sample.p99 for sample in samples),
        "server_us": used * 1e6 / calls,
        "foreign": max(0.0, (machine.busy_seconds() - busy - used - loading) / seconds),
    }
