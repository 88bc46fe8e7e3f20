"""A small machine of its own for real logins: sshd on loopback, su and sudo, with accounts that exist only there.

    with Machine(folder, {"sshd": "auth required …"}, {"alice": "password"}, sshd="UsePAM yes") as machine:
        login = machine.ssh("alice", ["password", "123456"])
        login.ok, login.prompts, machine.log

It is a mount namespace in which /etc/pam.d, /etc/passwd, /etc/shadow, /etc/group, /etc/sudoers, /dev and all places
that logins write to are private; with `run_dir`, that folder is its /run/otpbridge. Nothing outside of it changes. It
needs root and the right to mount.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

SECONDS = 30.0
FIRST_UID = 61_234
_ATTEMPTS = 5
"""The port is free when it is chosen; somebody else may be quicker to take it."""
_INSIDE = Path(__file__).with_name("sshdstack_inside.py")

SSHD = """
ListenAddress 127.0.0.1
HostKey {folder}/host_key
PidFile none
UsePAM yes
StrictModes yes
AuthorizedKeysFile .ssh/authorized_keys
LogLevel VERBOSE
LoginGraceTime 30
KbdInteractiveAuthentication yes
PasswordAuthentication no
"""

COMMON = {
    "common-auth": """
auth [success=1 default=ignore] pam_unix.so nullok nodelay
auth requisite pam_deny.so
auth required pam_permit.so
""",
    "common-account": """
account [success=1 new_authtok_reqd=done default=ignore] pam_unix.so
account requisite pam_deny.so
account required pam_permit.so
""",
    "common-session": "session required pam_permit.so\n",
    "other": "auth required pam_deny.so\naccount required pam_deny.so\n",
}
"""What Debian's pam-auth-update writes; with `nodelay`, so that each refusal does not take seconds."""


@dataclass(frozen=True, slots=True)
class Login:
    """How a login went: exit status of the program, what it printed, what was asked."""

    status: int
    output: str
    errors: str
    prompts: Sequence[str]
    seconds: float

    @property
    def ok(self) -> bool:
        return self.status == 0


class Machine:
    """The namespace and its sshd, for as long as the block lasts."""

    def __init__(
        self,
        folder: Path,
        services: Mapping[str, str],
        accounts: Mapping[str, str],
        *,
        sshd: str = "",
        sudoers: str = "",
        run_dir: Path | None = None,
    ) -> None:
        self._folder = folder
        self._run_dir = run_dir
        self._accounts = dict(accounts)
        self._said: list[str] = []
        self._news = threading.Condition()
        self._process: subprocess.Popen[str] | None = None
        self._port = 0
        self._write(services, sshd, sudoers)

    def __enter__(self) -> Machine:
        for _ in range(_ATTEMPTS):
            self._start()
            with self._news:
                self._news.wait_for(
                    lambda: self._any("Server listening on", "Address already in use", "cannot"), SECONDS
                )
            if "Server listening on" in self.log:
                return self
            said = self.log
            self._stop()
            if "cannot mount" in said or "unshare:" in said:
                pytest.skip(f"no private mounts here: {said}")
        raise AssertionError(self.log)

    def __exit__(self, *_: object) -> None:
        self._stop()

    @property
    def log(self) -> str:
        """What sshd and all that writes to syslog have said."""
        with self._news:
            return "".join(self._said)

    def wait_for(self, text: str) -> None:
        """Wait until the log has this."""
        with self._news:
            assert self._news.wait_for(lambda: self._any(text), SECONDS), "".join(self._said)

    def home(self, user: str) -> Path:
        return self._folder / "home" / user

    def make_key(self, user: str) -> Path:
        """A key pair with which this user may log in; the private half."""
        path = self._folder / f"{user}.key"
        _key_pair(path)
        place = self.home(user) / ".ssh"
        place.mkdir(mode=0o700)
        (place / "authorized_keys").write_text(path.with_suffix(".key.pub").read_text())
        for each in (place, place / "authorized_keys"):
            os.chown(each, *self._ids(user))
        return path

    def ssh(
        self,
        user: str,
        answers: Sequence[str] = (),
        *,
        key: Path | None = None,
        **options: str,
    ) -> Login:
        """Log in with the ssh client; `answers` are typed at its prompts, one after the other."""
        with self._keyboard(answers) as (environment, prompts):
            begun = time.monotonic()
            done = subprocess.run(
                [*self.ssh_command(user, key=key, **options), "id -un"],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                check=False,
                timeout=SECONDS,
                env=environment,
            )
            seconds = time.monotonic() - begun
            asked = [text.rpartition(") ")[2] for text in prompts()]
        return Login(done.returncode, done.stdout, done.stderr, asked, seconds)

    def ssh_command(self, user: str, *, key: Path | None = None, **options: str) -> list[str]:
        """The words of a command that logs in as this user, for an interactive shell."""
        settings = {
            "StrictHostKeyChecking": "no",
            "UserKnownHostsFile": "/dev/null",
            "GlobalKnownHostsFile": "/dev/null",
            "NumberOfPasswordPrompts": "1",
            "IdentitiesOnly": "yes",
            "IdentityFile": os.fspath(key) if key else "none",
            "IdentityAgent": "none",
            "BatchMode": "no",
            "LogLevel": "ERROR",
            **options,
        }
        words = [word for name, value in settings.items() for word in ("-o", f"{name}={value}")]
        return ["ssh", "-F", "none", "-p", str(self._port), *words, f"{user}@127.0.0.1"]

    def inside(self, command: Sequence[str], user: str | None = None) -> list[str]:
        """The words that run a program inside, as this user or as root."""
        drop: list[str] = []
        if user is not None:
            uid, gid = self._ids(user)
            drop = ["setpriv", f"--reuid={uid}", f"--regid={gid}", "--clear-groups"]
        return ["nsenter", f"--mount=/proc/{self._holder}/ns/mnt", "--", *drop, *command]

    def run_as(self, user: str, command: Sequence[str], answers: Sequence[str] = ()) -> Login:
        """Run a program inside, as this user, with `answers` on its standard input."""
        begun = time.monotonic()
        done = subprocess.run(
            self.inside(command, user),
            input="".join(f"{answer}\n" for answer in answers),
            capture_output=True,
            text=True,
            check=False,
            timeout=SECONDS,
            env={"PATH": "/usr/bin:/bin:/usr/sbin:/sbin", "HOME": os.fspath(self.home(user)), "LC_ALL": "C"},
            cwd="/",
        )
        return Login(done.returncode, done.stdout, done.stderr, [], time.monotonic() - begun)

    # --- parts ---

    def _ids(self, user: str) -> tuple[int, int]:
        uid = FIRST_UID + list(self._accounts).index(user)
        return uid, uid

    def _any(self, *texts: str) -> bool:
        said = "".join(self._said)
        return any(text in said for text in texts)

    def _write(self, services: Mapping[str, str], sshd: str, sudoers: str) -> None:
        etc = self._folder / "etc"
        pam = etc / "pam.d"
        pam.mkdir(parents=True)
        for name, text in (COMMON | dict(services)).items():
            (pam / name).write_text(text)
        passwd = ["root:x:0:0:root:/root:/bin/sh", "sshd:x:102:65534::/run/sshd:/usr/sbin/nologin"]
        shadow, group = (
            ["root:*:19000:0:99999:7:::", "sshd:!:19000::::::"],
            ["root:x:0:", "nogroup:x:65534:", "tty:x:5:"],
        )
        for user, password in self._accounts.items():
            uid, gid = self._ids(user)
            home = self.home(user)
            home.mkdir(parents=True)
            os.chown(home, uid, gid)
            passwd.append(f"{user}:x:{uid}:{gid}::{home}:/bin/sh")
            shadow.append(f"{user}:{_hashed(password)}:19000:0:99999:7:::")
            group.append(f"{user}:x:{gid}:")
        for name, lines, mode in (("passwd", passwd, 0o644), ("shadow", shadow, 0o640), ("group", group, 0o644)):
            (etc / name).write_text("\n".join(lines) + "\n")
            (etc / name).chmod(mode)
        (etc / "sudoers").write_text(sudoers)
        (etc / "sudoers").chmod(0o440)
        _key_pair(self._folder / "host_key")
        (self._folder / "sshd_config").write_text(SSHD.format(folder=self._folder) + sshd)

    def _start(self) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self._port = probe.getsockname()[1]
        self._said = []
        self._process = subprocess.Popen(
            ["unshare", "--mount", "--propagation", "private", sys.executable, "-I", "-S", _INSIDE],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
        self._holder = self._process.pid
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # then it has said why it ended
            about = {"folder": self._folder, "port": self._port, "run_dir": self._run_dir}
            self._process.stdin.write(json.dumps(about, default=os.fspath) + "\n")
            self._process.stdin.flush()
        self._listener = threading.Thread(target=self._listen, args=(self._process,))
        self._listener.start()

    def _stop(self) -> None:
        if self._process is None:
            return
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()  # which tells it to end
        self._process.wait(SECONDS)
        self._listener.join(SECONDS)
        self._process = None

    def _listen(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            with self._news:
                self._said.append(line)
                self._news.notify_all()
        process.stdout.close()
        with self._news:
            self._said.append("cannot go on\n")
            self._news.notify_all()

    @contextlib.contextmanager
    def _keyboard(self, answers: Sequence[str]) -> Any:
        """What the ssh client asks instead of a terminal, and the prompts it was asked."""
        place = self._folder / f"keyboard-{secrets.token_hex(4)}"
        place.mkdir()
        (place / "answers").write_text("".join(f"{answer}\n" for answer in answers))
        (place / "count").touch()
        script = place / "ask"
        script.write_text(
            f'#!/bin/sh\ncd {place}\necho >>count\nn=$(wc -l <count)\nprintf %s "$1" >"prompt-$n"\n'
            'sed -n "${n}p" answers\n'
        )
        script.chmod(0o755)
        environment = {
            "PATH": os.environ.get("PATH", os.defpath),
            "HOME": os.fspath(place),
            "SSH_ASKPASS": os.fspath(script),
            "SSH_ASKPASS_REQUIRE": "force",
            "DISPLAY": "none",
            "LC_ALL": "C",
        }

        def prompts() -> list[str]:
            files = sorted(place.glob("prompt-*"), key=lambda path: int(path.name.partition("-")[2]))
            return [path.read_text() for path in files]

        yield environment, prompts
        shutil.rmtree(place)


def need_machine() -> None:
    """Skip where such a machine cannot be made."""
    if os.geteuid() != 0:
        pytest.skip("needs root: mounts a private /etc")
    for program in ("sshd", "ssh", "ssh-keygen", "unshare", "nsenter", "setpriv"):
        if shutil.which(program, path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin") is None:
            pytest.skip(f"{program} is not installed")


def _key_pair(path: Path) -> None:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", path], check=True, stdin=subprocess.DEVNULL)


def _hashed(password: str) -> str:
    crypt = ctypes.CDLL("libcrypt.so.1").crypt
    crypt.restype = ctypes.c_char_p
    crypt.argtypes = (ctypes.c_char_p, ctypes.c_char_p)
    return crypt(password.encode(), b"$5$rounds=1000$otpbridgetests$").decode()
