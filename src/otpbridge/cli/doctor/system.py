"""What the machine is to the daemon: its clock, service manager, and what confines programs."""

from __future__ import annotations

import ctypes
import importlib.util
import os
import re
import socket
from pathlib import Path

from otpbridge.cli.doctor.findings import Finding, Places, fail, left_out, ok, printed, warn
from otpbridge.cli.doctor.logins import module_path
from otpbridge.config import SYSTEM_RUN

_UNSYNCHRONISED = 0x40
_SECONDS = 2.0
_LOGINS = re.compile(r"(?:^|/)(sshd|sudo|su|login)\b")


class _Timex(ctypes.Structure):
    """The beginning of struct timex, adjtimex(2); the kernel writes no more than the reserve holds."""

    _fields_ = (
        ("modes", ctypes.c_uint),
        ("offset", ctypes.c_long),
        ("freq", ctypes.c_long),
        ("maxerror", ctypes.c_long),
        ("esterror", ctypes.c_long),
        ("status", ctypes.c_int),
        ("reserve", ctypes.c_char * 256),
    )


def clock(_places: Places) -> list[Finding]:
    """Whether something keeps the clock right: codes are good for half a minute."""
    time = _Timex(modes=0)  # modes 0 only reads, and needs no right
    if ctypes.CDLL(None, use_errno=True).adjtimex(ctypes.byref(time)) < 0:
        return [left_out(f"the kernel does not say: {os.strerror(ctypes.get_errno())}")]
    if time.status & _UNSYNCHRONISED:
        mend = "timedatectl set-ntp true, or where that fails: apt install chrony"
        return [warn("nothing keeps the clock right; half a minute off, codes fail", mend)]
    return [ok(f"kept right, to {time.maxerror / 1_000_000:.2f} s")]


def units(places: Places) -> list[Finding]:
    """The units of the system's daemon."""
    if not places.systemd.is_dir():
        return [left_out("systemd does not run here")]
    if places.run_dir != SYSTEM_RUN:
        return [left_out(f"the daemon of {places.run_dir} is not the system's")]
    said = printed("systemctl", "show", "--property=Id,LoadState,ActiveState,UnitFileState", *_UNITS)
    if said.complaint:
        return [left_out(said.complaint)]
    return [found for block in said.text.strip().split("\n\n") for found in judge_unit(block)]


_UNITS = ("otpbridged.socket", "otpbridged-admin.socket", "otpbridged.service")


def judge_unit(block: str) -> list[Finding]:
    """What `systemctl show` prints of one unit."""
    said = dict(line.partition("=")[::2] for line in block.splitlines())
    name, active = said.get("Id", ""), said.get("ActiveState", "")
    if said.get("LoadState") != "loaded":
        install = f"install -m 0644 systemd/{name} /etc/systemd/system/ && systemctl daemon-reload"
        return [fail(f"{name} is not installed", install)]
    if active == "failed":
        return [fail(f"{name} has failed", f"journalctl -u {name} -n 20; systemctl reset-failed {name}")]
    if not name.endswith(".socket"):
        return [ok(f"{name} is {active}")]
    if active != "active":
        return [fail(f"{name} is {active}", f"systemctl enable --now {name}")]
    if said.get("UnitFileState") == "disabled":
        return [warn(f"{name} will not be there after a restart of the machine", f"systemctl enable {name}")]
    return [ok(f"{name} is active")]


def selinux(places: Places) -> list[Finding]:
    """Labels by which SELinux keeps logins from the module or the socket."""
    try:
        enforcing = places.selinux.read_text().strip() == "1"
    except FileNotFoundError:
        return [left_out("SELinux is not here")]
    if not enforcing:
        return [left_out("SELinux does not enforce")]
    wanted = {module_path(places): "lib_t", places.run_dir: "var_run_t"}
    found = [
        warn(f"{path} is labelled {label}, not {kind}", f"restorecon -Rv {path}; ausearch -m avc -ts recent")
        for path, kind in wanted.items()
        if path is not None and (label := _label(path)) != kind
    ]
    return found or [ok("enforcing; the labels are those of the policy")]


def _label(path: Path) -> str:
    """The type of a file's label, `none` without one."""
    try:
        text = os.getxattr(path, "security.selinux").decode(errors="replace")
    except OSError:
        return "none"
    return ([*text.strip("\0").split(":"), "none", "none", "none"])[2]


def apparmor(places: Places) -> list[Finding]:
    """Profiles that confine programs which ask for a code."""
    try:
        text = places.apparmor.read_text()
    except FileNotFoundError:
        return [left_out("AppArmor is not here")]
    except PermissionError:
        return [left_out("only root may read the profiles of AppArmor")]
    confined = [
        line.rpartition(" (")[0] for line in text.splitlines() if line.endswith("(enforce)") and _LOGINS.search(line)
    ]
    return [
        warn(
            f"the profile {name} confines a program that asks for a code",
            f"in its file in /etc/apparmor.d/local: {places.run_dir}/{{verify,admin}} rw,  "
            "then: systemctl reload apparmor",
        )
        for name in confined
    ] or [ok("no profile confines sshd, sudo, su or login")]


def readers(places: Places) -> list[Finding]:
    """The service through which YubiKeys are reached, where the extra for it is installed."""
    if importlib.util.find_spec("ykman") is None:
        return [left_out("the extra `hardware` is not installed, so no YubiKeys are written here")]
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(_SECONDS)
        try:
            probe.connect(os.fspath(places.pcscd))
        except OSError as error:
            mend = "apt install pcscd; systemctl enable --now pcscd.socket"
            return [warn(f"YubiKeys cannot be reached: {places.pcscd}: {error.strerror or error}", mend)]
    return [ok(f"{places.pcscd} answers")]
