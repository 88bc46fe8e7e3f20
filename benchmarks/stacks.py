"""PAM services in a private folder: ours, and Debian's pam_google_authenticator and pam_oath set up for the same."""

from __future__ import annotations

import base64
import getpass
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from native import InvalidRunError
from people import Login, People, code_at

GOOGLE = "pam_google_authenticator.so"
OATH = "pam_oath.so"
_OATH_FILE = "users.oath"
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

    def add_otpbridge(self, name: str, module: Path, socket: Path | None = None) -> str:
        """Our module on a daemon's socket, or on the one that it chooses itself."""
        return self.add(name, f"required {module}" if socket is None else f"required {module} socket={socket}")


class Google:
    """pam_google_authenticator: a file per user, a window of one step each way, DISALLOW_REUSE.

    `hotp` makes it count instead. `options` are further lines of each file.
    """

    def __init__(
        self,
        services: Services,
        folder: Path,
        size: int,
        secret: bytes,
        *,
        hotp: bool = False,
        options: Sequence[str] = (),
    ) -> None:
        # This module takes 0 for no counter.
        self.people = People(size, secret, first=1 if hotp else 0)
        self.folder = folder
        self._hotp = hotp
        self._options = options
        folder.mkdir(mode=0o700)
        for index in range(size):
            if self.people.is_hotp(index) == hotp:
                _write_private(self.path(self.people.name(index)), self._file(index))
        self.service = self.at(services, folder, folder.name)

    @staticmethod
    def at(services: Services, folder: Path, name: str) -> str:
        """A service on the files of a folder; its name."""
        return services.add(name, f"required {GOOGLE} secret={folder}/${{USER}} user={getpass.getuser()}")

    def path(self, user: str) -> Path:
        """The file of a user."""
        return self.folder / user

    def logins(self, count: int, processes: int) -> Sequence[Login]:
        """`count` logins; with HOTP, login i is of a user whom only process i % `processes` has."""
        return self.people.hotp(count, processes) if self._hotp else self.people.totp(count)

    def fresh(self, count: int) -> Sequence[Login]:
        """`count` logins of users who have not logged in (HOTP), or not in this time step."""
        return self.people.untouched(count) if self._hotp else self.people.totp(count)

    def _file(self, index: int) -> str:
        secret = base64.b32encode(self.people.seed(index)).decode()
        kind = ("HOTP_COUNTER 1",) if self._hotp else ("DISALLOW_REUSE", "TOTP_AUTH")
        lines = "".join(f'" {line}\n' for line in ("WINDOW_SIZE 3", *kind, *self._options))
        return f"{secret}\n{lines}"


class Oath:
    """pam_oath: one file for all users, HOTP.

    The file is made anew before each run, as refusals would use the window up.
    """

    def __init__(self, services: Services, folder: Path, size: int, secret: bytes) -> None:
        self.size = size
        self._people = People(0, secret)
        self.folder = folder
        folder.mkdir(mode=0o700)
        self._path = folder / _OATH_FILE
        self._text = "".join(
            f"HOTP {People.name(index)} - {self._people.seed(index).hex()}\n" for index in range(size)
        )
        self.service = self.at(services, folder, folder.name)

    @staticmethod
    def at(services: Services, folder: Path, name: str) -> str:
        """A service on the file of a folder; its name."""
        return services.add(name, f"required {OATH} usersfile={folder / _OATH_FILE} window={_OATH_WINDOW} digits=6")

    def first_codes(self) -> list[Login]:
        """The first code of each user."""
        return [Login(People.name(index), code_at(self._people.seed(index), 0)) for index in range(self.size)]

    def renew(self) -> None:
        """The file as at the start, and nothing beside it that a login left."""
        for path in self.folder.iterdir():
            path.unlink()
        _write_private(self._path, self._text)

    def logins(self, count: int, processes: int) -> Sequence[Login]:
        """`count` logins of users all over a new file; login i is of a user whom only process i % `processes` has."""
        self.renew()
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


def need_modules() -> None:
    """Raise InvalidRunError if a peer's module is not installed."""
    places = ("lib/security", "lib64/security", "lib/*/security", "usr/lib/*/security")
    missing = [
        module
        for module in (GOOGLE, OATH)
        if not any(found for place in places for found in Path("/").glob(f"{place}/{module}"))
    ]
    if missing:
        raise InvalidRunError(f"not installed: {', '.join(missing)}")


def _prime_to(one: int, other: int) -> bool:
    while other:
        one, other = other, one % other
    return one == 1


def _write_private(path: Path, text: str) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "w") as file:
        file.write(text)
