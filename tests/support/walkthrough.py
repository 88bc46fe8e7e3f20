"""Do what a page says, from its first block to its last, on a machine of its own, and compare what it shows.

The pages mark their blocks by what stands behind the fence:

    ```sh                                     the admin's commands
    ```console                                the admin's terminal: `$ command`, and what comes
    ```console alice                          the same, of alice on her own machine: ssh, sudo, su and otpbridge
    ```toml /etc/otpbridge/otpbridge.toml     a whole file
    ```text /etc/pam.d/sshd                   its lines for auth and account
    ```text /etc/ssh/sshd_config.d/x.conf     a file for sshd
    ```py check.py                            a program

In a terminal `<a wrong code>` is what is typed and `…` is anything. `alice@server:~$` is a shell that was reached.
"""

from __future__ import annotations

import base64
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import pammodule
from daemon_rig import CLI, SECONDS, Daemon, Key
from sshdstack import Machine
from terminal import Program
from yubikey import YubiKey

from otpbridge.otp.hotp import hotp

ROOT = Path(__file__).resolve().parents[2]
BLOCK = re.compile(r"^```(\w+)(?: (\S+))?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SETTINGS = "/etc/otpbridge/otpbridge.toml"
_TYPED = re.compile(r"^(.*?)<([^<>]+)>$")
_SHELL = re.compile(r"^\w+@server:~\$(?: (.*))?$")
_ELSEWHERE = {"sudo -i"}
"""Commands on the pages that have no meaning on this machine, where the admin is root already."""
_FAR_AHEAD = "\n[window]\ntotp = 10\n"
"""More logins than one each half minute: codes of the next minutes count too."""
_SSHD = """
account required pam_nologin.so
@include common-account
"""
_REST = "@include common-session\n"


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block: what it is, for whom or for which file, and its text."""

    kind: str
    about: str
    text: str


def blocks(page: Path) -> list[Block]:
    """The blocks of a page, in order."""
    return [Block(kind, about, text) for kind, about, text in BLOCK.findall(page.read_text())]


@dataclass(slots=True)
class Person:
    """What somebody has in hand: an app, a list on paper, what the helpdesk said, a YubiKey, a password."""

    name: str
    password: str
    seed: bytes = b""
    spent: int = 0
    paper: list[str] = field(default_factory=list)
    told: str = ""
    yubikey: YubiKey | None = None

    def look(self, screen: str) -> None:
        """Take from a screen what is of use later."""
        screen = re.sub(r"\x1b\[[?\d;]*[A-Za-z]", "", screen).replace("\r", "")
        for key in re.findall(r"^(?:Google Authenticator key {3}| {4})((?:[A-Z2-7]{4} ?)+)$", screen, re.MULTILINE):
            packed = key.replace(" ", "")
            self.seed = base64.b32decode(packed + "=" * (-len(packed) % 8))
        if listed := re.findall(r"^ +\d+ {2}([0-9A-Z]{4}(?:-[0-9A-Z]{4})+)$", screen, re.MULTILINE):
            self.paper = listed
        for code in re.findall(r"^ {4}([0-9A-Z]{4}(?:-[0-9A-Z]{4})+)$", screen, re.MULTILINE):
            self.told = code
        values = re.findall(
            r"^(?:Public ID \(modhex\)|Private ID \(hex\)|Secret key \(hex\)) +(\w+)$", screen, re.MULTILINE
        )
        if len(values) == 3 and (self.yubikey is None or self.yubikey.public_id != values[0]):
            self.yubikey = YubiKey(values[0], bytes.fromhex(values[1]), bytes.fromhex(values[2]))

    def typed(self, what: str) -> str:
        """What is typed where the page has <what>."""
        ways: dict[str, Callable[[], str]] = {
            "code from the app": self._code,
            "a wrong code": lambda: Key(seed=self.seed or bytes(20), period=30).wrong()[0],
            "a recovery code": lambda: self.paper.pop(0),
            "the registration code": self.told.lower,
            "touch of the YubiKey": self._touch,
            "password": lambda: self.password,
            "a wrong password": lambda: f"not {self.password}",
            "password and code": lambda: self.password + self._code(),
            "Enter": lambda: "",
            "y": lambda: "y",
        }
        assert what in ways, f"nobody knows what to type for <{what}>"
        return ways[what]()

    def _code(self) -> str:
        self.spent = max(int(time.time()) // 30, self.spent + 1)
        return hotp(self.seed, self.spent, Key(period=30).parameters)

    def _touch(self) -> str:
        assert self.yubikey is not None
        self.yubikey.touched += 1
        return self.yubikey.code(-1)


class Walk:
    """A machine with sshd and the daemon in it, for one page."""

    def __init__(
        self, page: Path, folder: Path, passwords: Mapping[str, str], sudoers: str, groups: str = ""
    ) -> None:
        self._blocks = blocks(page)
        self._folder = folder
        self._people = {name: Person(name, password) for name, password in passwords.items()}
        self._looking = next(iter(passwords))
        self._passwords = passwords
        self._sudoers = sudoers
        self._groups = groups
        self._module = pammodule.build()
        self.terminals = 0
        """How many have been gone through."""

    def go(self) -> None:
        """Do all that the page says."""
        with ExitStack() as stack:
            self._open(stack)
            for block in self._blocks:
                self._do(block)

    # --- the machine ---

    def _open(self, stack: ExitStack) -> None:
        place = self._folder / "machine"
        place.mkdir()
        bins = {who: self._programs(who) for who in ("admin", "people")}
        self._path = {who: f"{path}:/usr/bin:/bin:/usr/sbin:/sbin" for who, path in bins.items()}
        methods = "".join(block.text for block in self._blocks if block.about.startswith("/etc/ssh/"))
        extra = "SetEnv LC_ALL=C.UTF-8\n"
        services = {"sshd": f"@include common-auth\n{_SSHD}{_REST}"}
        for name in ("sudo", "su"):
            services[name] = f"@include common-auth\n@include common-account\n{_REST}"
        sudoers = self._sudoers + "".join(
            block.text for block in self._blocks if block.about.startswith("/etc/sudoers")
        )
        machine = Machine(place, services, self._passwords, sshd=extra + methods, sudoers=sudoers)
        with (place / "etc" / "group").open("a") as file:
            file.write(self._groups)
        self._machine = stack.enter_context(machine)
        self._keys = {name: machine.make_key(name) for name in self._passwords}
        for name in self._passwords:
            (machine.home(name) / ".profile").write_text(f"PATH={self._path['people']}\n")
        self._let_people_reach(Path(sys.base_prefix).resolve(), Path(sys.prefix), ROOT)
        self._etc = place / "etc"
        options = ["--state-dir", self._folder / "state", "--run-dir", "/run/otpbridge"]
        config = self._folder / "otpbridge.toml"
        config.write_text(_FAR_AHEAD)
        words = [os.fspath(word) for word in (*options, "--config", config)]
        self._daemon = stack.enter_context(Daemon(self._folder, prefix=machine.inside([]), options=words))

    def _let_people_reach(self, *places: Path) -> None:
        """Where the interpreter or the checkout lie in a closed folder (root's home), open it inside the machine."""
        closed = {place: found for place in places if (found := _closed(place)) is not None}
        script = ["set -e"]
        for number, place in enumerate(closed):
            keep = self._folder / f"keep-{number}"
            keep.mkdir()
            script.append(f"mount --bind {place} {keep}")
        script += [f"mount -t tmpfs -o mode=0755 tmpfs {parent}" for parent in set(closed.values())]
        for number, place in enumerate(closed):
            script.append(f"mkdir -p {place}; mount --bind {self._folder}/keep-{number} {place}")
        subprocess.run(self._machine.inside(["sh", "-c", "\n".join(script)]), check=True, timeout=SECONDS)

    def _programs(self, who: str) -> Path:
        place = self._folder / f"{who}-bin"
        place.mkdir()
        scripts = {
            "otpbridge": f'case "$1 $2" in "stack check") set -- "$@" --config {self._folder}/otpbridge.toml;; esac\n'
            f'exec {CLI[0]} "$@"',
            "python3": f'exec {sys.executable} "$@"',
        }
        if who == "admin":
            scripts["sudo"] = 'exec "$@"'  # the admin is root already
        for name, text in scripts.items():
            (place / name).write_text(f"#!/bin/sh\n{text}\n")
            (place / name).chmod(0o755)
        return place

    # --- blocks ---

    def _do(self, block: Block) -> None:
        if block.kind == "sh":
            for line in block.text.replace("\\\n", " ").splitlines():
                self._command(line.strip())
        elif block.kind == "console":
            self._terminal(block)
        elif block.about:
            self._write(block)

    def _write(self, block: Block) -> None:
        path = Path(block.about)
        if block.about == SETTINGS:
            self._daemon.configure(block.text + _FAR_AHEAD)
        elif path.parent == Path("/etc/pam.d"):
            assert (self._etc / "pam.d" / path.name).exists(), f"the machine has no service {path.name}"
            text = block.text.replace("pam_otpbridge.so", os.fspath(self._module))
            (self._etc / "pam.d" / path.name).write_text(text + _REST)
        elif path.suffix == ".py":
            (self._folder / path.name).write_text(block.text)
        elif path.parent not in {Path("/etc/ssh/sshd_config.d"), Path("/etc/sudoers.d")}:  # there from the start
            raise AssertionError(f"no such file on this machine: {path}")

    def _command(self, line: str) -> None:
        """Run one line of the admin's; it must succeed."""
        if not line or line.startswith("#") or line in _ELSEWHERE:
            return
        if line == "sudo systemctl reload otpbridged":
            self._daemon.reload()
        elif line == "sudo sshd -t && sudo systemctl reload ssh":
            return  # sshd has the page's file since it was started
        else:
            with self._admin(line) as terminal:
                status = terminal.finish()
            assert status == 0, f"{line}: {terminal.text}"
            self._seen(line, terminal)

    def _admin(self, line: str) -> Program:
        words = self._machine.inside(["sh", "-c", line])
        return Program(*words, environment=self._environment("admin", "/root"))

    def _environment(self, who: str, home: object) -> dict[str, str]:
        return {"PATH": self._path[who], "HOME": str(home), "LC_ALL": "C.UTF-8"}

    def _seen(self, line: str, terminal: Program) -> None:
        """Whoever a command is about keeps what it has shown."""
        named = [word for word in shlex.split(line, comments=True) if word in self._people]
        self._looking = named[0] if named else self._looking
        self._people[self._looking].look(terminal.text)

    # --- terminals ---

    def _terminal(self, block: Block) -> None:
        self.terminals += 1
        for command, lines in _commands(block.text):
            named = [word for word in shlex.split(command) if word in self._people]
            self._looking = named[0] if named else block.about or self._looking
            program = self._started(block.about, command) if block.about else self._admin(command)
            with program as terminal:
                self._follow(command, lines, terminal)

    def _started(self, who: str, command: str) -> Program:
        first, *rest = shlex.split(command)
        environment = self._environment("people", self._machine.home(who))
        if first == "ssh":
            assert rest == ["server"]
            return Program(*self._machine.ssh_command(who, key=self._keys[who]), environment=environment)
        words = self._machine.inside(["sh", "-c", f"cd {self._folder} && {command}"], who)
        return Program(*words, environment=environment)

    def _follow(self, command: str, lines: list[str], terminal: Program) -> None:
        """Type and read what stands on the page below a command, to the end of the command."""
        person = self._people[self._looking]
        inside = False
        for line in lines:
            text = line.replace("@server", "@127.0.0.1")
            if shell := _SHELL.fullmatch(line):
                terminal.wait_for("$ ")
                inside = True
                if shell[1]:
                    terminal.type(shell[1])
            elif typed := _TYPED.fullmatch(text):
                self._read(typed[1], terminal)
                person.look(terminal.text)
                terminal.type(person.typed(typed[2]))
            else:
                self._read(text, terminal)
        if inside:
            terminal.type("exit 0")  # whatever the last command said
        status = terminal.finish()
        person.look(terminal.text)
        if shlex.split(command)[0] == "ssh":
            assert (status == 0) is inside, f"{command}: {terminal.text}"

    @staticmethod
    def _read(line: str, terminal: Program) -> None:
        for piece in filter(None, (piece.rstrip() if piece is not line else piece for piece in line.split("…"))):
            terminal.wait_for(piece)


def _closed(place: Path) -> Path | None:
    """The first folder on the way to a place that not everybody may enter."""
    return next((each for each in reversed(place.parents) if not each.stat().st_mode & 0o001), None)


def _commands(text: str) -> Iterator[tuple[str, list[str]]]:
    """Each command of a terminal with the lines below it."""
    command, lines = "", []
    for line in text.splitlines():
        if line.startswith("$ "):
            if command:
                yield command, lines
            command, lines = line.removeprefix("$ "), []
        elif line.strip():
            lines.append(line)
    yield command, lines


def need_programs() -> bool:
    """Whether all that the pages use is installed."""
    return all(shutil.which(name) for name in ("ssh", "sudo", "su"))
