"""Whether a login happens at this machine: only then may it ask for a security key on this machine's USB port.

What the caller says of itself is not enough: sudo in a remote shell knows of no remote host. So the caller's process
is looked at: the session it is in as systemd-logind keeps it, and its ancestors. What cannot be read is remote.

Not to be told: a local session that somebody shows to others, or has a part of on another machine (screen sharing).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from otpbridge.model import Caller, Context

PROC = Path("/proc")
SESSIONS = Path("/run/systemd/sessions")

_MOST_ANCESTORS = 64
_LONGEST_FILE = 65_536

_REMOTE = (
    "sshd",
    "dropbear",
    "mosh-server",
    "etserver",
    "etterminal",
    "telnetd",
    "in.telnetd",
    "in.rlogind",
    "in.rshd",
    "rlogind",
    "rshd",
    "xrdp",
    "vnc",
    "Xvnc",
    "x0vnc",
    "Xtigervnc",
    "Xtightvnc",
    "gnome-remote-de",
    "krdpserver",
    "cockpit",
    "ttyd",
    "gotty",
    "wetty",
    "shellinabox",
    "tailscaled",
    "teleport",
)
"""How the names of programs begin that bring in people from elsewhere; the kernel keeps 15 characters of a name."""

_AT_THE_SCREEN = re.compile(
    r"(getty|autovt)@tty[0-9]+\.service|(gdm3?|sddm|lightdm|lxdm|xdm|wdm|slim|ly|greetd|kdm)\.service"
)
"""What greets people at the machine's own screens, before there is a session."""

_USER_SLICE = re.compile(r"user-([0-9]+)\.slice")
_SCOPE = re.compile(r"session-([A-Za-z0-9]+)\.scope")


@dataclass(frozen=True, slots=True)
class Session:
    """A session as logind keeps it. Without a seat nobody sits before it."""

    uid: int
    remote: bool
    seat: str


def why_remote(
    caller: Caller,
    context: Context,
    services: Iterable[str],
    *,
    proc: Path = PROC,
    sessions: Path = SESSIONS,
) -> str | None:
    """Why a login may not ask for a key on this machine; None where it may."""
    said = _said(caller, context, services)
    if said is not None:
        return said
    try:
        return _looked_up(caller.pid, proc, sessions)
    except (OSError, ValueError, LookupError) as error:
        return f"cannot be told ({type(error).__name__})"


def _said(caller: Caller, context: Context, services: Iterable[str]) -> str | None:
    """What rules a login out by what it says of itself."""
    if caller.uid != 0:
        return "not asked for by root"
    if context.rhost:
        return "from another host"
    return None if context.service in services else "not a service that may"


def _looked_up(pid: int, proc: Path, sessions: Path) -> str | None:
    """The same by what the system knows. Raises OSError, ValueError, LookupError."""
    if pid <= 0:
        raise ValueError("the caller is in another namespace")
    for name in ancestors(pid, proc):
        if name.startswith(_REMOTE):
            return f"below {name}"
    return placed(cgroup(pid, proc), read_sessions(sessions))


def placed(path: Sequence[str], sessions: Mapping[str, Session]) -> str | None:
    """Why a process in this control group is not at the machine; None where it is.

    Users can make groups below their own manager's, nowhere else: what stands before that is systemd's word.
    """
    match path:
        case ["user.slice", slice_, unit, *_] if (of := _USER_SLICE.fullmatch(slice_)) is not None:
            return _in_session(int(of[1]), unit, sessions)
        case ["system.slice", *units] if units and any(_AT_THE_SCREEN.fullmatch(unit) for unit in units[:2]):
            return None
        case _:
            return "neither in a session nor at a screen of this machine"


def _in_session(uid: int, unit: str, sessions: Mapping[str, Session]) -> str | None:
    own = {key: session for key, session in sessions.items() if session.uid == uid}
    if any(session.remote for session in own.values()):
        # Whoever is logged in from elsewhere as well may be at either end of a terminal (tmux).
        return "the user is logged in from elsewhere"
    scope = _SCOPE.fullmatch(unit)
    if scope is not None:
        session = own.get(scope[1])
        return None if session is not None and session.seat else "in a session without a seat"
    if unit == f"user@{uid}.service":
        return None if any(session.seat for session in own.values()) else "the user has no session with a seat"
    return "in no session"


def cgroup(pid: int, proc: Path) -> list[str]:
    """The control group of a process: its parts from the root on. Raises OSError, ValueError, LookupError."""
    for line in _text(proc / str(pid) / "cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        parts = [part for part in path.split("/") if part]
        if controllers in {"", "name=systemd"} and parts:
            return parts
    raise ValueError("systemd keeps no control group of it")


def ancestors(pid: int, proc: Path) -> list[str]:
    """The names of a process and of those above it. Raises OSError, ValueError, LookupError."""
    names = []
    for _ in range(_MOST_ANCESTORS):
        # The name stands in parentheses, and may have some itself (proc_pid_stat(5)).
        before, _, after = _text(proc / str(pid) / "stat").rpartition(")")
        names.append(before.partition("(")[2])
        pid = int(after.split()[1])
        if pid == 0:
            return names
    raise ValueError("it has too many ancestors")


def read_sessions(folder: Path) -> dict[str, Session]:
    """All sessions of logind by their id. Raises OSError, ValueError, LookupError."""
    found = {}
    for path in folder.iterdir():
        if path.suffix == ".ref":
            continue
        lines = (line.partition("=") for line in _text(path).splitlines() if not line.startswith("#"))
        known = {key: value for key, _, value in lines}
        remote = known.get("REMOTE", "1") != "0"
        found[path.name] = Session(int(known["UID"]), remote, known.get("SEAT", ""))
    return found


def _text(path: Path) -> str:
    with path.open(encoding="utf-8", errors="replace") as file:
        return file.read(_LONGEST_FILE)
