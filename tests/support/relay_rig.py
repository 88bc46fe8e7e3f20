"""Central daemons and relays over loopback TLS, each a real otpbridged.

with private_folder() as folder, Fleet(folder) as fleet:
    keys = provision(fleet.centre, ["alice"])
    with fleet.relay("web1") as relay:
        relay.client().verify("alice", keys["alice"].code())

`fleet.relay(...)` is a daemon_rig.Daemon, so `relay.run_dir / "verify"` is what a PAM module is given as socket=.
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from daemon_rig import CLI, SECONDS, Daemon, plain_environment

HOSTS = ("web1", "web2")
"""Hosts that a fleet's centre lets in, unless it is told otherwise: about every user of `local`, at every stack."""


def free_port() -> int:
    """A TCP port of 127.0.0.1 that was free just now, below those that the kernel gives to clients."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def centre_config(port: int, hosts: str | None = None, extra: str = "") -> str:
    """What makes a daemon a centre: `hosts` are its [relays.hosts.…] sections."""
    if hosts is None:
        hosts = "".join(f"[relays.hosts.{name}]\n" for name in HOSTS)
    return f'{extra}\n[relays]\nlisten = "127.0.0.1:{port}"\nnames = ["localhost", "127.0.0.1"]\n{hosts}'


def issue(centre: Daemon, host: str, path: Path, *options: str) -> Path:
    """A certificate with key and authority in one file, as an admin has it made at the centre."""
    if not path.exists():
        command = [*CLI, "relay", "issue", host, "--out", os.fspath(path), "--run-dir", os.fspath(centre.run_dir)]
        command += options
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=SECONDS, env=plain_environment(), check=False
        )
        assert done.returncode == 0, done.stderr
    return path


class Fleet:
    """A centre with an SQLite store in `folder`/centre, and relays beside it. `with` starts and ends the centre."""

    def __init__(self, folder: Path, *, hosts: str | None = None, config: str = "") -> None:
        self.folder = folder
        self.port = free_port()
        home = folder / "centre"
        home.mkdir()
        self.centre = Daemon(home, config=centre_config(self.port, hosts, config))

    def __enter__(self) -> Fleet:
        self.centre.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        self.centre.__exit__(kind, *rest)

    @property
    def address(self) -> str:
        """Where relays reach the centre."""
        return f"127.0.0.1:{self.port}"

    def relay(
        self,
        host: str = "web1",
        *,
        centres: Sequence[str] | None = None,
        certificate: Path | None = None,
        settings: str = "",
        config: str = "",
        folder: Path | None = None,
    ) -> Daemon:
        """A relay that is not started yet. `settings` go into its [relay], `config` stands before that."""
        home = folder or self.folder / host
        home.mkdir(exist_ok=True)
        certificate = certificate or issue(self.centre, host, home / "relay.pem")
        where = ", ".join(f'"{each}"' for each in centres or (self.address,))
        text = f'{config}\n[relay]\ncentres = [{where}]\ncertificate = "{certificate}"\n{settings}\n'
        return Daemon(home, config=text)


class Wire:
    """A TCP line to a centre that a test can hold up or cut. Relays connect to `address`."""

    def __init__(self, port: int) -> None:
        self.asked = threading.Event()
        """Set once something was said to the centre while its answers are held back."""
        self._port = port
        self._holds = False
        self._lines: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._start(self._accept)

    def __enter__(self) -> Wire:
        return self

    def __exit__(self, *_: object) -> None:
        # shutdown(2) wakes who waits in accept(2), close(2) does not.
        self._listener.shutdown(socket.SHUT_RDWR)
        self.cut()
        for thread in self._threads:
            thread.join(SECONDS)
        for line in (self._listener, *self._lines):
            line.close()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self._listener.getsockname()[1]}"

    def hold(self) -> None:
        """From now on, what the centre says is lost; what is said to it arrives."""
        self._holds = True

    def release(self) -> None:
        """What the centre says arrives again."""
        self._holds = False

    def cut(self) -> None:
        """End all connections, and go on taking new ones."""
        for line in tuple(self._lines):
            with contextlib.suppress(OSError):
                line.shutdown(socket.SHUT_RDWR)

    def _start(self, work: Callable[..., None], *arguments: socket.socket) -> None:
        thread = threading.Thread(target=work, args=arguments)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            try:
                server = socket.create_connection(("127.0.0.1", self._port))
            except OSError:
                # There is no centre now, so there is none behind this line either.
                client.close()
                continue
            self._lines |= {client, server}
            self._start(self._carry, client, server)
            self._start(self._carry, server, client)

    def _carry(self, source: socket.socket, target: socket.socket) -> None:
        to_centre = target.getpeername()[1] == self._port
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                if self._holds and not to_centre:
                    continue
                target.sendall(data)
                if self._holds:
                    self.asked.set()
        for line in (source, target):
            with contextlib.suppress(OSError):
                line.shutdown(socket.SHUT_RDWR)
