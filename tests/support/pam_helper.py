"""The PAM helper as it runs on a system: root, started anew by a service manager for each connection."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

from pam_accounts import System

SECONDS = 30.0


class Helper:
    """`python -m otpbridge.helper` behind `path`, for as long as the block lasts."""

    def __init__(self, system: System, path: Path, *options: str) -> None:
        self.path = path
        self._said: list[str] = []
        self._news = threading.Condition()
        self._command = system.inside(
            *("systemd-socket-activate", "--listen", path, "--accept", "--inetd", "--seqpacket"),
            *(sys.executable, "-I", "-m", "otpbridge.helper", *options),
        )

    def __enter__(self) -> Helper:
        self._process = subprocess.Popen(
            self._command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
        self._listener = threading.Thread(target=self._listen)
        self._listener.start()
        self.wait_for("Listening on")
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait(SECONDS)
        self._listener.join(SECONDS)

    @property
    def log(self) -> str:
        with self._news:
            return "".join(self._said)

    def wait_for(self, text: str) -> None:
        """Wait until it has said this."""
        with self._news:
            assert self._news.wait_for(lambda: text in "".join(self._said) or self._said[-1:] == [""], SECONDS)
            assert text in "".join(self._said), "".join(self._said)

    def _listen(self) -> None:
        assert self._process.stderr is not None
        for line in self._process.stderr:
            self._hear(line)
        self._process.stderr.close()
        self._hear("")

    def _hear(self, line: str) -> None:
        with self._news:
            self._said.append(line)
            self._news.notify_all()


def spoken(path: Path, request: bytes, uid: int = 0) -> bytes | str:
    """What the helper answers to a packet from this user; the name of the error if there is no answer."""
    script = (
        "import os, socket, sys\n"
        "os.setresuid(*[int(sys.argv[2])] * 3)\n"
        "sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)\n"
        "sock.settimeout(float(sys.argv[3]))\n"
        "try:\n"
        "    sock.connect(sys.argv[1])\n"
        "    request = sys.stdin.buffer.read()\n"
        "    if request: sock.send(request)\n"
        "    sys.stdout.buffer.write(sock.recv(1000))\n"
        "except OSError as error:\n"
        "    sys.exit(type(error).__name__)\n"
    )
    words: Sequence[str] = (sys.executable, "-I", "-S", "-c", script, str(path), str(uid), str(SECONDS))
    done = subprocess.run(words, input=request, capture_output=True, check=False, timeout=2 * SECONDS)
    return done.stdout if done.returncode == 0 else done.stderr.decode().strip()
