"""Plays the service manager: hands a daemon its sockets and hears what it tells, as systemd does.

with Manager(folder) as manager:
    manager.start()
    manager.heard("READY=1")
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

SECONDS = 30.0
OTPBRIDGED = Path(sys.executable).parent / "otpbridged"

# Runs as the child: puts the descriptors in place and says whose they are, then becomes the program.
_HAND_OVER = """
import os, sys
given = [os.dup(int(number)) for number in sys.argv[1].split(",")]
high = [os.dup2(number, 100 + place) for place, number in enumerate(given)]
for place, number in enumerate(high):
    os.dup2(number, 3 + place, inheritable=True)
os.closerange(3 + len(high), 200)
os.environ |= {"LISTEN_PID": str(os.getpid()), "WATCHDOG_PID": str(os.getpid())}
os.execv(sys.argv[2], sys.argv[2:])
"""


class Manager:
    """Owns `verify` and `admin` in `folder`/run and the notify socket; starts daemons on them one after another.

    With `relays`, a TCP socket of loopback too, on `port`.
    """

    def __init__(self, folder: Path, *, watchdog: float = 0.0, relays: bool = False) -> None:
        self.folder = folder
        self.run_dir = folder / "run"
        self.config_file = folder / "otpbridge.toml"
        self._watchdog = watchdog
        self._names = ["verify", "admin"]
        self._relays = relays
        self.port = 0
        self._told: list[str] = []
        self._open = contextlib.ExitStack()
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Manager:
        self.run_dir.mkdir(mode=0o755)
        self.config_file.touch()
        self._listening = [self._socket(self.run_dir / name, socket.SOCK_STREAM) for name in self._names]
        if self._relays:
            tcp = self._open.enter_context(socket.create_server(("127.0.0.1", 0)))
            self.port = tcp.getsockname()[1]
            self._listening.append(tcp)
            self._names.append("relays")
        for sock in self._listening:
            sock.listen(16)
        self._notify = self._socket(self.folder / "notify", socket.SOCK_DGRAM)
        self._notify.settimeout(SECONDS)
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        self._open.close()

    def start(self) -> None:
        """Start a daemon without waiting for it."""
        numbers = [sock.fileno() for sock in self._listening]
        environment = {
            "PATH": os.environ.get("PATH", os.defpath),
            "LISTEN_FDS": str(len(numbers)),
            "LISTEN_FDNAMES": ":".join(self._names),
            "NOTIFY_SOCKET": os.fspath(self.folder / "notify"),
        }
        if self._watchdog:
            environment["WATCHDOG_USEC"] = str(int(self._watchdog * 1_000_000))
        # No --run-dir: a daemon that took no notice of its sockets would make others elsewhere.
        command = [OTPBRIDGED, "--state-dir", self.folder / "state", "--run-dir", self.folder / "unused"]
        self._process = subprocess.Popen(
            [sys.executable, "-c", _HAND_OVER, ",".join(map(str, numbers)), *command, "--config", self.config_file],
            pass_fds=numbers,
            env=environment,
            stdin=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def heard(self, state: str) -> dict[str, str]:
        """Wait until the daemon tells this, such as READY=1; what else the same message had."""
        while True:
            message = self._notify.recv(4096).decode()
            self._told.append(message)
            if state in message.split("\n"):
                return dict(line.split("=", 1) for line in message.split("\n"))

    def told(self, state: str) -> bool:
        """Whether the daemon has told this already."""
        return any(state in message.split("\n") for message in self._told)

    def signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def ended(self) -> int:
        """Wait for the daemon's end; its exit status."""
        assert self._process is not None
        return self._process.wait(SECONDS)

    def _socket(self, path: Path, kind: socket.SocketKind) -> socket.socket:
        sock = self._open.enter_context(socket.socket(socket.AF_UNIX, kind | socket.SOCK_CLOEXEC))
        sock.bind(os.fspath(path))
        return sock
