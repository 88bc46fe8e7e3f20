"""privacyIDEA beside us: gunicorn with sync workers on loopback, SQLite, tokens asked for by serial, no PIN.

It lives in an environment of its own, which `make bench-peers` makes from privacyidea.lock.
"""

from __future__ import annotations

import contextlib
import http.client
import random
import secrets
import shutil
import socket
import sqlite3
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import machine
from native import InvalidRunError, MissingError, Sample
from people import Login, People
from powercut import Disk
from rig import HERE, Record, Rig
from safety import AT_ONCE, FRESH, GUESSES, LIMIT, add, counted

ENVIRONMENT = HERE / ".privacyidea"
_USERS = 600
_WORKERS = 4
"""For what is tried at once. Speed is measured with one, on one core."""
_SLOW_TRIALS = 3
"""At most so many restarts of it: each takes seconds."""
_READY_SECONDS = 60
_CONFIG = """
import os
_folder = os.path.dirname(os.path.abspath(__file__))
SQLALCHEMY_DATABASE_URI = f"sqlite:///{{_folder}}/store.sqlite"
SECRET_KEY = "{key}"
PI_PEPPER = "{pepper}"
PI_ENCFILE = f"{{_folder}}/enckey"
PI_AUDIT_KEY_PRIVATE = f"{{_folder}}/private.pem"
PI_AUDIT_KEY_PUBLIC = f"{{_folder}}/public.pem"
PI_LOGFILE = f"{{_folder}}/log"
PI_LOGLEVEL = 30
"""
_APPLICATION = """
from privacyidea.app import create_app
application = create_app(config_name="production", config_file="{config}", silent=True)
"""


def version() -> str:
    """What is installed."""
    code = "from importlib.metadata import version as v; print(f\"{v('privacyidea')}, gunicorn {v('gunicorn')}\")"
    return _run(ENVIRONMENT / "bin" / "python", "-c", code).strip()


class PrivacyIdea:
    """One server on a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        self.port = 0

    def set_up(self, people: People) -> None:
        """Keys, tables and a token for each HOTP user."""
        if not (ENVIRONMENT / "bin" / "gunicorn").exists():
            raise MissingError("privacyIDEA is not installed: run `make bench-peers`")
        self._folder.mkdir(mode=0o700)
        self._config.write_text(_CONFIG.format(key=secrets.token_hex(24), pepper=secrets.token_hex(24)))
        for what in ("create_enckey", "create_audit_keys", "create_tables"):
            _run(ENVIRONMENT / "bin" / "pi-manage", "setup", what, config=self._config)
        tokens = "".join(f"{people.name(index)} {people.seed(index).hex()}\n" for index in people.hotp_users())
        script = HERE / "privacyidea_tokens.py"
        # -P: this folder has a module of the same name as its package.
        _run(ENVIRONMENT / "bin" / "python", "-P", script, self._config, config=self._config, given=tokens)

    @property
    def _config(self) -> Path:
        return self._folder / "pi.cfg"

    @property
    def pid(self) -> int:
        """gunicorn's first process; its workers are children."""
        if self._process is None or self._process.poll() is not None:
            raise InvalidRunError(f"gunicorn is not running: {(self._folder / 'gunicorn.log').read_text()[-400:]}")
        return self._process.pid

    def start(self, workers: int = 1) -> float:
        """Start it; the seconds until it has given its first answer."""
        (self._folder / "bench_wsgi.py").write_text(_APPLICATION.format(config=self._config))
        self.port = _free_port()
        begun = time.monotonic()
        with (self._folder / "gunicorn.log").open("w") as log:
            self._process = subprocess.Popen(
                [
                    *(
                        ENVIRONMENT / "bin" / "gunicorn",
                        "--workers",
                        str(workers),
                        "--bind",
                        f"127.0.0.1:{self.port}",
                    ),
                    *("--log-level", "warning", "--timeout", "120", "bench_wsgi:application"),
                ],
                cwd=self._folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        while time.monotonic() - begun < _READY_SECONDS:
            with contextlib.suppress(OSError, http.client.HTTPException):
                self.check(Login("nobody", "000000"))
                return time.monotonic() - begun
            time.sleep(0.02)
            self.pid  # noqa: B018 - says why, if it has ended
        raise InvalidRunError("privacyIDEA did not answer")

    def kill(self) -> None:
        """SIGKILL for all its processes."""
        if self._process is None:
            return
        workers = machine.children(self._process.pid) if self._process.poll() is None else []
        self._process.kill()
        self._process.wait()
        for pid in workers:
            machine.kill_and_wait(pid)
        self._process = None

    def check(self, login: Login) -> bool:
        """Whether a code is accepted."""
        line = http.client.HTTPConnection("127.0.0.1", self.port, timeout=_READY_SECONDS)
        try:
            line.request("POST", "/validate/check", _form(login), {"Content-Type": _FORM})
            return b'"value": true' in line.getresponse().read()
        finally:
            line.close()

    def resident_mib(self) -> float:
        """Memory of all its processes."""
        return sum(map(machine.resident_mib, [self.pid, *machine.children(self.pid)]))

    def at_once(self, rig: Rig, logins: Sequence[Login], clients: int) -> Sample:
        """Check all, so many at a time."""
        return rig.native.http(self.port, clients, [_request(login) for login in logins], self.pid)

    def set_limit(self, limit: int) -> None:
        """How many wrong codes of a token are counted until none is looked at."""
        with self._store() as store:
            store.execute("UPDATE token SET maxfail = ?", (limit,))

    def misses(self, serial: str) -> int:
        """How many wrong codes are counted for a token."""
        with self._store() as store:
            ((count,),) = store.execute("SELECT failcount FROM token WHERE serial = ?", (serial,)).fetchall()
        return int(count)

    @contextlib.contextmanager
    def _store(self) -> Iterator[sqlite3.Connection]:
        with contextlib.closing(sqlite3.connect(self._folder / "store.sqlite", timeout=30)) as store, store:
            yield store


_FORM = "application/x-www-form-urlencoded"


def _form(login: Login) -> str:
    return f"serial={login.user}&pass={login.code}"


def _request(login: Login) -> bytes:
    form = _form(login)
    return (
        f"POST /validate/check HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: {_FORM}\r\n"
        f"Content-Length: {len(form)}\r\nConnection: close\r\n\r\n{form}"
    ).encode()


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def _run(*command: object, config: Path | None = None, given: str = "") -> str:
    environment = {"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8"}
    if config is not None:
        environment["PRIVACYIDEA_CONFIGFILE"] = str(config)
    done = subprocess.run(
        [str(word) for word in command], input=given, capture_output=True, text=True, check=False, env=environment
    )
    if done.returncode != 0:
        raise InvalidRunError(f"{Path(str(command[0])).name}: {done.stderr[-400:]}")
    return done.stdout


@contextlib.contextmanager
def _server(rig: Rig, folder: Path) -> Iterator[tuple[PrivacyIdea, People]]:
    people = People(_USERS, rig.secret)
    server = PrivacyIdea(folder)
    try:
        server.set_up(people)
        yield server, people
    finally:
        server.kill()
        shutil.rmtree(folder, ignore_errors=True)


def speed(rig: Rig) -> Record:
    """Verifications per second by clients and what each costs its processes; its memory, and the time to start."""
    rig.say("privacyIDEA")
    with _server(rig, rig.folder / "privacyidea") as (server, people):
        found: Record = {"version": version(), "ready_seconds": server.start()}
        found["clients"] = {str(clients): [] for clients in rig.plan.privacyidea}
        for _ in rig.rounds(rig.plan.privacyidea_rounds):
            for clients, count in rig.plan.privacyidea.items():
                sample = server.at_once(rig, people.hotp(count, clients), clients)
                if sample.refused:
                    raise InvalidRunError(f"privacyIDEA refused {sample.refused} right codes")
                found["clients"][str(clients)].append(sample.record())
        found["rss_mib"] = server.resident_mib()
    return found


def safety(rig: Rig) -> Record:
    """The same code at once, guesses at once, and kill -9: as for the PAM modules, with four workers."""
    rig.say(f"privacyIDEA with {_WORKERS} workers: the same code at once, guesses at once, kill -9")
    with _server(rig, rig.folder / "privacyidea4") as (server, people):
        server.start(_WORKERS)
        return {
            "replay": _replay(rig, server, people),
            "guesses": _guesses(rig, server, people),
            "killed": _killed(rig, server, people),
        }


def _replay(rig: Rig, server: PrivacyIdea, people: People) -> Record:
    verdicts: list[int] = []
    for login in people.hotp(max(1, rig.plan.race_codes // 4), 1):
        sample = server.at_once(rig, [login] * AT_ONCE, AT_ONCE)
        passed = sample.codes.get(0, 0)
        verdicts += [0] * passed + [1] * (AT_ONCE - passed)
    return counted(verdicts)


def _guesses(rig: Rig, server: PrivacyIdea, people: People) -> Record:
    rounds = max(1, rig.plan.guess_rounds // 4)
    chance = random.Random(rounds)
    server.set_limit(100)
    counts = []
    for login in people.untouched(rounds):
        server.at_once(rig, _wrong(login), GUESSES)
        counts.append(server.misses(login.user))
    server.set_limit(LIMIT)
    let_in = 0
    for login in people.untouched(rounds):
        guesses = _wrong(login)
        guesses[chance.randrange(GUESSES)] = login
        let_in += 0 in server.at_once(rig, guesses, GUESSES).codes
    return {"of": GUESSES, "counted": counts, "limit": LIMIT, "let_in": let_in, "rounds": rounds}


def _wrong(login: Login) -> list[Login]:
    # So far from the right one that none of the next codes is likely among them.
    return [Login(login.user, f"{(int(login.code) + 1000 + place) % 1_000_000:06d}") for place in range(GUESSES)]


def _killed(rig: Rig, server: PrivacyIdea, people: People) -> Record:
    found: Record = {}
    server.set_limit(10)
    for number in range(min(_SLOW_TRIALS, rig.plan.kills)):
        told: list[Login] = []
        lanes = [people.untouched(10) for _ in range(_WORKERS)]
        timer = threading.Timer(random.Random(number).uniform(0.15, 0.4), server.kill)
        with ThreadPoolExecutor(_WORKERS) as pool:
            timer.start()
            for told_here in pool.map(lambda lane: _until_it_dies(server, lane), lanes):
                told += told_here
        timer.join()
        server.start(_WORKERS)
        others = people.untouched(FRESH)
        again = sum(map(server.check, told))
        add(found, told=len(told), again=again, fresh=len(others), let_in=sum(map(server.check, others)))
    return found


def _until_it_dies(server: PrivacyIdea, lane: Sequence[Login]) -> list[Login]:
    told = []
    with contextlib.suppress(OSError, http.client.HTTPException):
        for login in lane:
            if server.check(login):
                told.append(login)
    return told


def cut(rig: Rig) -> Record:
    """A power cut, as for the PAM modules."""
    rig.say("privacyIDEA, power cut")
    people = People(_USERS, rig.secret)
    found: Record = {}
    disk = Disk(rig.folder / "pi-cut")
    with disk.mounted() as place:
        server = PrivacyIdea(place / "s")
        try:
            server.set_up(people)
            server.start()
            trials = min(_SLOW_TRIALS, rig.plan.cuts)
            for number in range(trials + 1):
                control = number == trials
                (login,) = people.untouched(1)
                disk.settle()
                if not server.check(login):
                    raise InvalidRunError("privacyIDEA refused a right code before the cut")
                if control:
                    disk.settle()
                with disk.cut() as copy:
                    add(
                        found.setdefault("control" if control else "cut", {}),
                        **_after(PrivacyIdea(copy / "s"), login, people),
                    )
        finally:
            server.kill()
    return found


def _after(survivor: PrivacyIdea, spent: Login, people: People) -> dict[str, int]:
    try:
        survivor.start()
        others = people.untouched(FRESH)
        return {
            "again": int(survivor.check(spent)),
            "fresh": FRESH,
            "let_in": sum(map(survivor.check, others)),
        }
    finally:
        survivor.kill()
