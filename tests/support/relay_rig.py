"""Central daemons and relays over loopback TLS, each a real otpbridged.

with private_folder() as folder, Fleet(folder) as fleet:
    keys = provision(fleet.centre, ["alice"])
    with fleet.relay("web1") as relay:
        relay.client().verify("alice", keys["alice"].code())

`fleet.relay(...)` is a daemon_rig.Daemon, so `relay.run_dir / "verify"` is what a PAM module is given as socket=.
"""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Sequence
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
