"""PAM services in a private folder: ours, and Debian's pam_google_authenticator and pam_oath set up for the same."""

from __future__ import annotations

import base64
import getpass
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from people import Login, People, code_at

GOOGLE = "pam_google_authenticator.so"
OATH = "pam_oath.so"
_OATH_WINDOW = 300
"""More codes than a user sends in a run, as any of them may be refused."""


@dataclass(frozen=True, slots=True)
class Services:
    """A folder of PAM services."""

    confdir: Path

    def add(self, name: str, rule: str) -> str:
        """Make a service with one auth rule; its name."""
        self.confdir.mkdir(mode=0o755, exist_ok=True)
        (self.confdir / "other").write_text("auth required pam_deny.so\naccount required pam_deny.so\n")
        (self.confdir / name).write_text(f"auth {rule}\n")
        return name

    def add_otpbridge(self, name: str, module: Path, socket: Path) -> str:
        """Our module on a daemon's socket."""
        return self.add(name, f"required {module} socket={socket}")


class Google:
    """pam_google_authenticator: a file per user, TOTP, DISALLOW_REUSE, a window of one step each way."""

    def __init__(self, services: Services, folder: Path, size: int, secret: bytes) -> None:
        self.people = People(size, secret)
        folder.mkdir(mode=0o700)
        for index in range(size):
            if not self.people.is_hotp(index):
                _write_private(folder / self.people.name(index), self._file(index))
        self.service = services.add("google", f"required {GOOGLE} secret={folder}/${{USER}} user={getpass.getuser()}")

    def _file(self, index: int) -> str:
        secret = base64.b32encode(self.people.seed(index)).decode()
        return f'{secret}\n" WINDOW_SIZE 3\n" DISALLOW_REUSE\n" TOTP_AUTH\n'


class Oath:
    """pam_oath: one file for all users, HOTP.

    The file is made anew before each run, as refusals would use the window up.
    """

    def __init__(self, services: Services, folder: Path, size: int, secret: bytes) -> None:
        self.size = size
        self._people = People(0, secret)
        folder.mkdir(mode=0o700)
        self._path = folder / "users.oath"
        self._text = "".join(
            f"HOTP {People.name(index)} - {self._people.seed(index).hex()}\n" for index in range(size)
        )
        rule = f"required {OATH} usersfile={self._path} window={_OATH_WINDOW} digits=6"
        self.service = services.add(f"oath{size}", rule)

    def logins(self, count: int, processes: int) -> Sequence[Login]:
        """`count` logins of users all over a new file; login i is of a user whom only process i % `processes` has."""
        self._path.unlink(missing_ok=True)
        _write_private(self._path, self._text)
        rows = self.size // processes
        # A stride that is prime to the number of rows visits all of them before any comes again.
        stride = next(step for step in range(max(1, int(rows * 0.618)), rows + 2) if _prime_to(step, rows))
        counters: Counter[int] = Counter()
        logins = []
        for number in range(count):
            index = (number // processes * stride + rows // 3) % rows * processes + number % processes
            logins.append(Login(People.name(index), code_at(self._people.seed(index), counters[index])))
            counters[index] += 1
        return logins


def missing_modules() -> list[str]:
    """Which of the peers' modules are not installed."""
    places = ("lib/security", "lib64/security", "lib/*/security", "usr/lib/*/security")
    return [
        module
        for module in (GOOGLE, OATH)
        if not any(found for place in places for found in Path("/").glob(f"{place}/{module}"))
    ]


def _prime_to(one: int, other: int) -> bool:
    while other:
        one, other = other, one % other
    return one == 1


def _write_private(path: Path, text: str) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "w") as file:
        file.write(text)
