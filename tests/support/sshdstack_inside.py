"""The part of sshdstack that runs inside the mount namespace: private mounts, a syslog, sshd.

Ends when its standard input does. All that is logged goes to standard output.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from pathlib import Path

DEVICES = ("null", "zero", "full", "random", "urandom", "tty")
# Logins write to these.
EMPTY = ("/run", "/var/log", "/var/lib/sudo", "/var/mail")
FILES = ("passwd", "shadow", "group", "sudoers")


def mount(*words: object) -> None:
    done = subprocess.run(["mount", *map(str, words)], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"cannot mount {words}: {done.stderr}")


def private_devices(place: Path) -> None:
    """A /dev with what programs need and a `log` of its own."""
    place.mkdir()
    mount("-t", "tmpfs", "-o", "mode=0755", "tmpfs", place)
    for name in DEVICES:
        if Path("/dev", name).exists():
            (place / name).touch()
            mount("--bind", f"/dev/{name}", place / name)
    (place / "pts").mkdir()
    mount("--rbind", "/dev/pts", place / "pts")
    (place / "shm").mkdir(mode=0o1777)
    for name, target in (("fd", ""), ("stdin", "/0"), ("stdout", "/1"), ("stderr", "/2")):
        (place / name).symlink_to(f"/proc/self/fd{target}")
    (place / "ptmx").symlink_to("pts/ptmx")  # bound here, the node would look for its pts beside its own place
    mount("--move", place, "/dev")


def keep_log(log: socket.socket) -> None:
    while True:
        print(log.recv(65_536).decode(errors="replace").rstrip("\n\0"), flush=True)


def main() -> None:
    request = json.loads(sys.stdin.readline())
    folder = Path(request["folder"])
    private_devices(folder / f"dev-{os.getpid()}")
    for name in EMPTY:
        if Path(name).is_dir():
            mount("-t", "tmpfs", "-o", "mode=0755", "tmpfs", Path(name).resolve())
    mount("--bind", folder / "etc" / "pam.d", "/etc/pam.d")
    for name in FILES:
        if Path("/etc", name).exists():
            mount("--bind", folder / "etc" / name, f"/etc/{name}")
    Path("/run/sshd").mkdir(mode=0o755)
    if request["run_dir"] is not None:
        place = Path("/run/otpbridge")
        place.mkdir(mode=0o755)
        mount("--bind", request["run_dir"], place)
    log = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    log.bind("/dev/log")
    Path("/dev/log").chmod(0o666)
    threading.Thread(target=keep_log, args=(log,), daemon=True).start()
    sshd = subprocess.Popen(
        ["/usr/sbin/sshd", "-D", "-e", "-f", folder / "sshd_config", "-p", str(request["port"])],
        stdin=subprocess.DEVNULL,
        stdout=sys.stdout,
        stderr=sys.stdout,
    )
    threading.Thread(target=lambda: print(f"sshd cannot go on: {sshd.wait()}", flush=True), daemon=True).start()
    sys.stdin.read()
    sshd.terminate()
    sshd.wait()


if __name__ == "__main__":
    main()
