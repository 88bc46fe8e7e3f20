"""What a station writes down: the result, the journal, the passwords. All of it is on disk before it counts.

The journal says what is begun on keys, so that a station that was cut off can find it in force or take it back. It
holds no secret. It lies beside the result, and is gone when nothing is open.
"""

from __future__ import annotations

import contextlib
import csv
import fcntl
import io
import json
import os
import stat
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Self

from otpbridge.cli.exits import Code, CommandError
from otpbridge.cli.provision.people import Row
from otpbridge.model import Secret

_RESULT = ("serial", "user", "client", "token", "time")
_PASSWORDS = ("serial", "password")
_TIME = "%Y-%m-%dT%H:%M:%SZ"


@dataclass(frozen=True, slots=True)
class Begun:
    """Something that may be on a key: an account by its id in hex, or a slot. `password`: it got one for it too."""

    token: str
    user: str
    client: str
    serial: int
    account: str = ""
    slot: int | None = None
    password: bool = False


class _Lines:
    """A file that only grows, line by line. What was cut off while it was written is cut away."""

    def __init__(self, path: Path, mode: int) -> None:
        self.path = path
        try:
            new = not path.exists()
            self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW, mode)
        except OSError as error:
            raise _cannot(path, error) from None
        if new:
            _sync_folder(path)

    def lock(self) -> None:
        """Keep others away until it is closed. Raises CommandError where one is at it."""
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise CommandError(
                Code.REFUSED,
                f"another station is at work on {self.path}; end it first, or name another --result",
                "Busy",
            ) from None

    @property
    def mode(self) -> os.stat_result:
        """Whose it is, and who may read it."""
        return os.fstat(self._fd)

    def read(self) -> tuple[str, bytes]:
        """Its lines that have an end, and what comes after them."""
        with open(self._fd, "rb", closefd=False) as file:
            file.seek(0)
            raw = file.read()
        whole, end, rest = raw.rpartition(b"\n")
        try:
            return (whole + end).decode(), rest
        except UnicodeDecodeError:
            raise CommandError(Code.USAGE, f"{self.path} is not UTF-8 text; name another file", "BadFile") from None

    def cut(self, rest: bytes) -> None:
        """Cut off a last line that was not written to its end."""
        if rest:
            os.ftruncate(self._fd, os.fstat(self._fd).st_size - len(rest))

    def append(self, text: str) -> None:
        """Write a line, and wait until it is on disk. Raises CommandError."""
        rest = memoryview(f"{text}\n".encode())
        try:
            while rest:
                rest = rest[os.write(self._fd, rest) :]
            os.fsync(self._fd)
        except OSError as error:
            raise _cannot(self.path, error) from None

    def close(self) -> None:
        """Let go of it."""
        os.close(self._fd)


class Records:
    """The files of one station, for all of its threads. Used with `with`; raises CommandError."""

    def __init__(self, result: Path, passwords: Path | None) -> None:
        self._lock = threading.Lock()
        self._closed = False
        with contextlib.ExitStack() as opened:
            self._result = _Lines(result, 0o644)
            opened.callback(self._result.close)
            self._result.lock()
            self.rows = [_row(result, number, cells) for number, cells in _table(self._result, _RESULT)]
            self._journal = _Lines(result.with_name(f"{result.name}.journal"), 0o600)
            opened.callback(self._journal.close)
            self._begun = _open_ones(self._journal)
            self._passwords = None if passwords is None else _Lines(passwords, 0o600)
            self._known: dict[int, Secret] = {}
            if self._passwords is not None:
                opened.callback(self._passwords.close)
                _check_private(self._passwords)
                self._known = _known(self._passwords)
            self._opened = opened.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._lock:
            self._closed = True
            if not self._begun:
                # Whoever may come next waits for the lock on the result, and makes a journal of their own.
                self._journal.path.unlink()
            self._opened.close()

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """For one thread at a time, and for none that is left over when the station has ended."""
        with self._lock:
            if self._closed:
                raise CommandError(Code.INTERRUPTED, "the station has ended", "Cancelled")
            yield

    @property
    def begun(self) -> list[Begun]:
        """What is open, oldest first."""
        with self._lock:
            return list(self._begun.values())

    def begin(self, begun: Begun) -> None:
        """From here on it may be on the key."""
        with self._writing():
            self._journal.append(json.dumps({"begun": asdict(begun)}))
            self._begun[begun.token] = begun

    def undone(self, token: str) -> None:
        """Nothing is left of it."""
        with self._writing():
            self._settle(token)

    def done(self, row: Row) -> None:
        """It is in force: the row comes first, so that nothing is forgotten in between."""
        with self._writing():
            if row.token not in {each.token for each in self.rows}:
                when = time.strftime(_TIME, time.gmtime(row.time))
                self._result.append(_line(str(row.serial), row.user, row.client, row.token, when))
                self.rows.append(row)
            self._settle(row.token)

    def _settle(self, token: str) -> None:
        if token in self._begun:
            self._journal.append(json.dumps({"settled": token}))
            del self._begun[token]

    @property
    def gives_passwords(self) -> bool:
        """Whether keys get a password of their own."""
        return self._passwords is not None

    def password(self, serial: int) -> Secret | None:
        """What was chosen for a key; None where nothing was."""
        with self._lock:
            return self._known.get(serial)

    def choose(self, serial: int, password: Secret) -> Secret:
        """Note a password for a key before it gets it; the one that was noted before stays."""
        assert self._passwords is not None
        with self._writing():
            if serial not in self._known:
                self._passwords.append(_line(str(serial), password.reveal().decode()))
                self._known[serial] = password
            return self._known[serial]


def written(result: Path) -> list[Row]:
    """What a result holds, which is neither made nor changed. Raises CommandError."""
    try:
        text = result.read_text("utf-8") if result.exists() else ""
    except (OSError, UnicodeDecodeError) as error:
        raise CommandError(Code.REFUSED, f"cannot read {result}: {error}", "CannotRead") from None
    whole = text[: text.rfind("\n") + 1]
    return [_row(result, number, cells) for number, cells in _cells(result, _RESULT, whole)] if whole else []


def _table(lines: _Lines, heading: tuple[str, ...]) -> list[tuple[int, list[str]]]:
    """The rows of a file with their line numbers; an empty one gets its heading."""
    text, rest = lines.read()
    first = _line(*heading)
    if not text:
        if not first.encode().startswith(rest):
            raise _foreign(lines.path, first)
        lines.cut(rest)
        lines.append(first)
        return []
    found = _cells(lines.path, heading, text)
    lines.cut(rest)
    return found


def _cells(path: Path, heading: tuple[str, ...], text: str) -> list[tuple[int, list[str]]]:
    rows = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        if tuple(next(rows)) != heading:
            raise _foreign(path, _line(*heading))
        return [(rows.line_num, cells) for cells in rows if cells]
    except csv.Error as error:
        raise _spoilt(path, rows.line_num, str(error)) from None


def _row(path: Path, number: int, cells: list[str]) -> Row:
    try:
        serial, user, client, token, when = cells
        at = int(datetime.strptime(f"{when}+0000", f"{_TIME}%z").timestamp())
        return Row(int(serial), user, client, token, at)
    except ValueError as error:
        raise _spoilt(path, number, str(error)) from None


def _known(lines: _Lines) -> dict[int, Secret]:
    known = {}
    for number, cells in _table(lines, _PASSWORDS):
        try:
            serial, password = cells
            known[int(serial)] = Secret(password.encode())
        except ValueError:
            raise _spoilt(lines.path, number, "it is not a serial number and a password") from None
    return known


def _open_ones(lines: _Lines) -> dict[str, Begun]:
    found: dict[str, Begun] = {}
    whole, rest = lines.read()
    for number, text in enumerate(whole.splitlines(), 1):
        try:
            entry = json.loads(text)
            if "begun" in entry:
                begun = Begun(**entry["begun"])
                found[begun.token] = begun
            else:
                found.pop(entry["settled"], None)
        except (ValueError, TypeError, KeyError):
            raise _spoilt(lines.path, number, "it is no entry of a journal") from None
    lines.cut(rest)
    return found


def _check_private(lines: _Lines) -> None:
    """Raise unless nobody else can read it."""
    found = lines.mode
    if found.st_uid != os.geteuid() or stat.S_IMODE(found.st_mode) & 0o077 or not stat.S_ISREG(found.st_mode):
        raise CommandError(
            Code.REFUSED,
            f"{lines.path} is to hold passwords, and others can read it: chmod 600, or name a new file",
            "Refused",
        )


def _line(*cells: str) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="").writerow(cells)
    return text.getvalue()


def _spoilt(path: Path, number: int, why: str) -> CommandError:
    return CommandError(Code.USAGE, f"{path}, line {number}, cannot be read: {why}; correct or remove it", "BadFile")


def _foreign(path: Path, first: str) -> CommandError:
    return CommandError(
        Code.USAGE, f"{path} is not ours: it does not begin with {first}; name another file", "BadFile"
    )


def _cannot(path: Path, error: OSError) -> CommandError:
    return CommandError(Code.REFUSED, f"cannot write {path}: {error.strerror}", "CannotWrite")


def _sync_folder(path: Path) -> None:
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
