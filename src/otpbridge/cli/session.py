"""What all commands of one run share: where the daemon is, and how to answer."""

from __future__ import annotations

import os
import pwd
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from otpbridge.cli import show
from otpbridge.cli.exits import Code, CommandError

if TYPE_CHECKING:
    from otpbridge.client import Client

_SECONDS = 15.0


@dataclass(slots=True)
class Session:
    """`run_dir` is None where the daemon is to be found by itself. `json`: one JSON value on standard output."""

    run_dir: Path | None = None
    json: bool = False
    answered: bool = False

    def answer(self, value: Any) -> None:
        """Give the JSON value of this command."""
        self.answered = True
        show.document(show.plain(value))

    def tell(self, text: str) -> None:
        """Say what was done: on standard output, or beside it when that holds JSON."""
        if self.json:
            show.note(text)
        else:
            show.line(text)

    def admin(self, seconds: float = _SECONDS) -> Client:
        """Connect to the admin socket. Raises CommandError where this user may not open it."""
        folder = self.folder()
        if _closed_to_us(folder / "admin"):
            raise CommandError(
                Code.NOT_PERMITTED,
                f"you may not open {folder / 'admin'}; it is for root and the group otpbridge-admin"
                " (a new member of the group has to log in again)",
                "PermissionDenied",
            )
        return self._connect(folder, admin=True, seconds=seconds)

    def nearest(self) -> tuple[Client, bool]:
        """Connect to the admin socket, or where this user may not, to the verify socket.

        Also says whether it is the admin socket.
        """
        folder = self.folder()
        admin = os.access(folder, os.X_OK) and (folder / "admin").exists() and not _closed_to_us(folder / "admin")
        return self._connect(folder, admin=admin, seconds=_SECONDS), admin

    def folder(self) -> Path:
        """Where the sockets are looked for."""
        from otpbridge.config import find_run_dir  # noqa: PLC0415 - not needed for --help

        return self.run_dir if self.run_dir is not None else find_run_dir()

    @staticmethod
    def _connect(folder: Path, *, admin: bool, seconds: float) -> Client:
        from otpbridge.client import Client  # noqa: PLC0415 - not needed for --help

        return Client(run_dir=folder, admin=admin, timeout=seconds)


def _closed_to_us(path: Path) -> bool:
    """Whether the socket is there and not for us; one that is not there is another error, told when it is opened."""
    try:
        path.stat()
    except PermissionError:
        return True
    except OSError:
        return False
    return not os.access(path, os.R_OK | os.W_OK, effective_ids=os.access in os.supports_effective_ids)


def own_name() -> str:
    """The login name of whoever runs this."""
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())


def called(user: str, client: str | None) -> str:
    """A user as they are named to another command."""
    from otpbridge.model import LOCAL  # noqa: PLC0415 - not needed for --help

    name = show.visible(user)
    return name if client in {None, LOCAL} else f"{name} --client {show.visible(str(client))}"
