"""What holds when many try at once, when a process dies, and when the power goes: ours and the PAM modules, in turn.

Nothing here is timed. Each scenario returns, by system, how often something happened in how many trials.
"""

from __future__ import annotations

import contextlib
import random
import shutil
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

from otpbridged import Daemon
from people import Login, People, code_at
from rig import Record, Rig
from stacks import Google, Oath, need_modules

AT_ONCE = 8
GUESSES = 16
LIMIT = 4
"""Wrong guesses after which a system is told to judge no more."""
PATIENT = "[throttle]\nlimit = 1000\nsource_limit = 100000\n"
_STRICT = f"[throttle]\nlimit = {LIMIT}\nfirst_wait = 300\n"
_NEVER_A_STEP = 1 << 40
_USERS = 1000
_FEW = 200
_OATH_USERS = 1000
_KILL_LOGINS = 600
FRESH = 4
"""Others who log in after something has happened."""


class Ours:
    """otpbridge: a daemon with a store of its own, TOTP."""

    def __init__(self, rig: Rig, folder: Path, config: str = PATIENT, size: int = _USERS) -> None:
        self.people = People(size, rig.secret)
        self._config = config
        self.daemon = Daemon(folder, config)
        self.service = rig.services.add_otpbridge(folder.name, rig.module, self.daemon.socket)

    def begin(self) -> None:
        """Start it and put its users in."""
        self.daemon.start()
        self.daemon.import_people(self.people)

    def on_copy(self, folder: Path) -> Daemon:
        """A daemon, not started, on a copy of the folder of this one."""
        return Daemon(folder, self._config)

    def logins(self, count: int, lanes: int) -> Sequence[Login]:
        """Right codes of different users."""
        return self.people.totp(count)


System = Ours | Google | Oath


@contextlib.contextmanager
def systems_in(rig: Rig, folder: Path, size: int = _USERS) -> Iterator[list[System]]:
    """All of them in a folder, ours started."""
    need_modules()
    folder.mkdir(mode=0o700)
    mine = Ours(rig, folder / "otpbridge", size=size)
    try:
        mine.begin()
        yield [
            mine,
            Google(rig.services, folder / "google", size, rig.secret),
            Google(rig.services, folder / "googlehotp", size, rig.secret, hotp=True),
            Oath(rig.services, folder / "oath", _OATH_USERS, rig.secret),
        ]
    finally:
        mine.daemon.kill()
        shutil.rmtree(folder)


# --- the same code at once -----------------------------------------------------------------------------------------


def replay(rig: Rig) -> Record:
    """Each code tried by eight processes at the same moment. Right is: accepted once."""
    rig.say(f"the same code from {AT_ONCE} processes at once")
    found = {}
    with systems_in(rig, rig.folder / "replay") as systems:
        for system in systems:
            once = system.logins(rig.plan.race_codes, 1)
            many = [login for login in once for _ in range(AT_ONCE)]
            codes = rig.native.together(rig.services.confdir, system.service, many, AT_ONCE)
            found[system.service] = counted(codes)
    return found


def counted(codes: Sequence[int]) -> Record:
    """Of codes tried by AT_ONCE at once each: how many passed, and how many codes more than once or never."""
    passed = [codes[place : place + AT_ONCE].count(0) for place in range(0, len(codes), AT_ONCE)]
    return {
        "codes": len(passed),
        "accepted": sum(passed),
        "more_than_once": sum(count > 1 for count in passed),
        "never": passed.count(0),
    }


# --- guesses at once -----------------------------------------------------------------------------------------------


def guesses(rig: Rig) -> Record:
    """Sixteen guesses at once. How many were counted, with a limit that is far off; and with a limit of four, in how
    many rounds the one right code among them was let in (by a limit that holds: in a quarter at most).
    """
    rig.say(f"{GUESSES} guesses at once")
    need_modules()
    folder = rig.folder / "guesses"
    folder.mkdir(mode=0o700)
    try:
        return {
            "otpbridge": _guesses_at_ours(rig, folder),
            "google": _guesses_at_google(rig, folder),
            "oath": _guesses_at_oath(rig, folder),
        }
    finally:
        shutil.rmtree(folder)


def _guess(rig: Rig, service: str, logins: Sequence[Login], right: int | None) -> bool:
    """Guess at each login's user, at all of GUESSES at once; `right` is the place of the guess that is none."""
    tries = [
        login if place == right else Login(login.user, f"{(int(login.code) + 1 + place) % 1_000_000:06d}")
        for login in logins
        for place in range(GUESSES)
    ]
    return 0 in rig.native.together(rig.services.confdir, service, tries, GUESSES)


def _tell(counts: list[int], let_in: int) -> Record:
    return {"of": GUESSES, "counted": counts, "limit": LIMIT, "let_in": let_in, "rounds": len(counts)}


def _places(rounds: int) -> list[int]:
    chance = random.Random(rounds)
    return [chance.randrange(GUESSES) for _ in range(rounds)]


def _guesses_at_ours(rig: Rig, folder: Path) -> Record:
    rounds = rig.plan.guess_rounds
    counts = []
    patient = Ours(rig, folder / "patient", size=_FEW)
    try:
        patient.begin()
        for login in patient.logins(rounds, 1):
            _guess(rig, patient.service, [_wrong(patient.people, login)], None)
            counts.append(_misses(patient.daemon, login.user))
    finally:
        patient.daemon.kill()
    strict = Ours(rig, folder / "strict", _STRICT, size=_FEW)
    try:
        strict.begin()
        let_in = sum(_guess(rig, strict.service, strict.logins(1, 1), place) for place in _places(rounds))
    finally:
        strict.daemon.kill()
    return _tell(counts, let_in)


def _wrong(people: People, login: Login) -> Login:
    """The same user with a code from which GUESSES different ones, none of them right, are made."""
    return Login(login.user, code_at(people.seed(int(login.user.removeprefix("user"))), _NEVER_A_STEP))


def _misses(daemon: Daemon, user: str) -> int:
    with contextlib.closing(sqlite3.connect(f"file:{daemon.state / 'otpbridge.db'}?mode=ro", uri=True)) as store:
        rows = store.execute("SELECT key, misses FROM throttle").fetchall()
    return sum(misses for key, misses in rows if key.endswith(user))


def _guesses_at_google(rig: Rig, folder: Path) -> Record:
    rounds = rig.plan.guess_rounds
    patient = Google(rig.services, folder / "google100", _FEW, rig.secret, options=["RATE_LIMIT 100 30"])
    counts = []
    for login in patient.logins(rounds, 1):
        _guess(rig, patient.service, [_wrong(patient.people, login)], None)
        counts.append(_in_rate_limit(patient.path(login.user).read_text()))
    strict = Google(rig.services, folder / "google4", _FEW, rig.secret, options=[f"RATE_LIMIT {LIMIT} 30"])
    return _tell(counts, sum(_guess(rig, strict.service, strict.logins(1, 1), place) for place in _places(rounds)))


def _in_rate_limit(text: str) -> int:
    """The attempts that a file of pam_google_authenticator has noted."""
    line = next(line for line in text.splitlines() if line.startswith('" RATE_LIMIT'))
    return len(line.split()) - 4


def _guesses_at_oath(rig: Rig, folder: Path) -> Record:
    rounds = rig.plan.guess_rounds
    oath = Oath(rig.services, folder / "oath", _FEW, rig.secret)
    let_in = sum(
        _guess(rig, oath.service, [login], place)
        for login, place in zip(oath.logins(rounds, 1), _places(rounds), strict=True)
    )
    # It has nothing that counts.
    return _tell([0] * rounds, let_in)


# --- kill -9 -------------------------------------------------------------------------------------------------------


def killed(rig: Rig) -> Record:
    """SIGKILL amid logins of eight processes: ours at the daemon, the modules at whoever logs in.

    Then every code that was accepted is tried again, and others log in with fresh ones.
    """
    rig.say("kill -9")
    found: Record = {}
    # Enough for nobody to log in twice.
    size = 2 * (rig.plan.kills + 1) * (_KILL_LOGINS + FRESH)
    with systems_in(rig, rig.folder / "killed", size) as systems:
        for number in range(rig.plan.kills):
            wait = random.Random(number).uniform(0.02, 0.1)
            for system in systems:
                if isinstance(system, Oath):
                    system.renew()
                logins = system.logins(_KILL_LOGINS, AT_ONCE)
                codes = _kill_amid(rig, system, logins, wait)
                told = [login for login, code in zip(logins, codes, strict=True) if code == 0]
                others = fresh(system, logins)
                again = rig.native.codes(rig.services.confdir, system.service, told).count(0) if told else 0
                add(
                    found.setdefault(system.service, {}),
                    told=len(told),
                    again=again,
                    fresh=len(others),
                    let_in=rig.native.codes(rig.services.confdir, system.service, others).count(0),
                )
    return found


def add(into: Record, **counts: int) -> None:
    """Add to sums; `trials` counts the calls."""
    for name, count in {"trials": 1, **counts}.items():
        into[name] = into.get(name, 0) + count


def fresh(system: System, used: Sequence[Login]) -> Sequence[Login]:
    """Right codes of users who were not among those that logged in."""
    if isinstance(system, Oath):
        busy = {login.user for login in used}
        return [login for login in system.first_codes() if login.user not in busy][:FRESH]
    return system.fresh(FRESH) if isinstance(system, Google) else system.logins(FRESH, 1)


def _kill_amid(rig: Rig, system: System, logins: Sequence[Login], wait: float) -> list[int]:
    if not isinstance(system, Ours):
        return rig.native.killed(rig.services.confdir, system.service, logins, AT_ONCE, int(wait * 1e6))
    timer = threading.Timer(wait, system.daemon.kill)
    timer.start()
    codes = rig.native.codes(rig.services.confdir, system.service, logins, AT_ONCE)
    timer.join()
    system.daemon.start()
    return codes
