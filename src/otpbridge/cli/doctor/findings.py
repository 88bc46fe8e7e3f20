"""What a check says, and where checks look."""

from __future__ import annotations

import os
import pwd
import stat
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

SERVICE_USER = "otpbridge"
_SECONDS = 5.0
_ENVIRONMENT = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"}


class Level(StrEnum):
    """How much a finding matters. `fail`: logins fail, or let in who should not."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"
    LEFT_OUT = "left out"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was seen. `mend` is what to type or to write, where something is to be mended."""

    level: Level
    said: str
    mend: str = ""


@dataclass(frozen=True, slots=True)
class Places:
    """Where an installation is. Defaults are the system's own places."""

    run_dir: Path
    state_dir: Path
    config: Path | None = None
    anchor: str | None = None
    pam_dir: Path = Path("/etc/pam.d")
    module_dirs: tuple[Path, ...] = (
        *(Path("/usr") / name / "security" for name in ("lib", "lib64")),
        *sorted(Path("/usr/lib").glob("*-linux-gnu*/security")),
        *(Path("/") / name / "security" for name in ("lib", "lib64")),
    )
    sshd: tuple[str, ...] = ("sshd", "-T")
    credentials: Path = Path("/etc/credstore.encrypted")
    systemd: Path = Path("/run/systemd/system")
    selinux: Path = Path("/sys/fs/selinux/enforce")
    apparmor: Path = Path("/sys/kernel/security/apparmor/profiles")
    pcscd: Path = Path("/run/pcscd/pcscd.comm")


@dataclass(frozen=True, slots=True)
class Check:
    """A row of the table: what is looked at, and by which function."""

    name: str
    look: Callable[[Places], Sequence[Finding]]


def ok(said: str) -> Finding:
    """All is well."""
    return Finding(Level.OK, said)


def warn(said: str, mend: str) -> Finding:
    """It works, and is hardly meant so."""
    return Finding(Level.WARN, said, mend)


def fail(said: str, mend: str) -> Finding:
    """It does not work, or lets in who should not."""
    return Finding(Level.FAIL, said, mend)


def left_out(why: str) -> Finding:
    """This could not be looked at."""
    return Finding(Level.LEFT_OUT, why)


@dataclass(frozen=True, slots=True)
class Printed:
    """What a program of the system printed; `complaint` says why there is nothing to go by."""

    text: str = ""
    complaint: str = ""


def printed(*words: str) -> Printed:
    """Run a program of the system, for at most 5 s."""
    try:
        done = subprocess.run(  # noqa: S603 - words of ours, no shell
            words,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            env=_ENVIRONMENT,
            check=False,
            timeout=_SECONDS,
        )
    except OSError as error:
        return Printed(complaint=f"{words[0]}: {error.strerror}")
    except subprocess.TimeoutExpired:
        return Printed(complaint=f"{words[0]} did not end in {_SECONDS:g} s")
    said = done.stderr.strip().splitlines()
    if done.returncode != 0:
        return Printed(complaint=f"{words[0]}: {said[0] if said else done.returncode}")
    return Printed(done.stdout)


def trusted(uid: int) -> bool:
    """Whether a file of this uid is as good as ours: root's, the daemon's, or that of whoever asks."""
    if uid in {0, os.geteuid()}:
        return True
    try:
        return uid == pwd.getpwnam(SERVICE_USER).pw_uid
    except KeyError:
        return False


def mode(about: os.stat_result) -> str:
    """The permissions of a file, as chmod takes them."""
    return f"{stat.S_IMODE(about.st_mode):04o}"


def owner(about: os.stat_result) -> str:
    """Whose a file is."""
    try:
        return pwd.getpwuid(about.st_uid).pw_name
    except KeyError:
        return f"uid {about.st_uid}"
