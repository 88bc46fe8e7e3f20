"""The systemd journal, in its own protocol (systemd.io/JOURNAL_NATIVE_PROTOCOL): a datagram of fields for each entry.

Nothing waits for it. What it does not take at once is dropped and counted: a journal that is full or stopped holds up
no login. And nothing in a value can make a field or an entry of its own.
"""

from __future__ import annotations

import logging
import os
import socket
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from otpbridge.model import Verdict
from otpbridge.store.chain import AuditRow

SOCKET = Path("/run/systemd/journal/socket")
_LONGEST = 8192
"""Characters of a message; of what people and callers say much less gets here."""
_MOST_WAITING = 4096
_PER_TURN = 64
_TURN_SECONDS = 0.02
_IDENTIFIER = "otpbridged"
_NOTICE, _INFO = 5, 6

IDS = {
    "started": "bf83f6b083544f06a66f9940cd3cfc18",
    "stopped": "432e651942a84061bba2a3aa3b58ec18",
    "refused to start": "1de7d0f033dd40059445de68fbaae37e",
    "key missing": "74c590443cf8458e9cc044fd424fcef7",
    "store failed": "11a72e6f38b545e0b970a72078b06e95",
    "reload refused": "430d43e13a2348b1967b3d9d1297fa84",
    "backoff began": "3f271aca7fec4cb9aa4c270c5c4207bf",
    "key rotated": "ee8fce325f8141da88d7cb4b4327ef76",
}
"""MESSAGE_ID of what an administrator may want to be woken for."""

_sent = {"sent": 0, "dropped": 0}


def counts() -> Mapping[str, int]:
    """How many entries the journal took since the start, and how many it did not."""
    return _sent


class Journal:
    """The journal's socket."""

    def __init__(self, path: Path = SOCKET) -> None:
        self._path = os.fspath(path)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.settimeout(0.0)

    def close(self) -> None:
        """Let go of it."""
        self._socket.close()

    def send(self, message: str, priority: int, **fields: object) -> None:
        """Send an entry, or drop it. Fields without a value are left out."""
        every = {"MESSAGE": message[:_LONGEST], "PRIORITY": priority, "SYSLOG_IDENTIFIER": _IDENTIFIER, **fields}
        try:
            self._socket.sendto(_entry(every), self._path)
        except OSError:
            _sent["dropped"] += 1
        else:
            _sent["sent"] += 1


def _entry(fields: Mapping[str, object]) -> bytes:
    parts = []
    for name, value in fields.items():
        if value is None:
            continue
        text = str(value).encode(errors="backslashreplace")
        if b"\n" in text:
            parts += [name.encode(), b"\n", len(text).to_bytes(8, "little"), text, b"\n"]
        else:
            parts += [name.encode(), b"=", text, b"\n"]
    return b"".join(parts)


def visible(text: str, keep: str = "") -> str:
    """Text without anything that a terminal or a reader of lines obeys."""
    if text.isprintable():
        return text
    return "".join(
        letter
        if letter.isprintable() or letter in keep
        else letter.encode("unicode_escape", "surrogatepass").decode()
        for letter in text
    )


def listens() -> bool:
    """Whether standard error is the journal's (systemd.exec(5), JOURNAL_STREAM), and its socket can be reached."""
    device, _, inode = os.environ.get("JOURNAL_STREAM", "").partition(":")
    try:
        about = os.fstat(2)
    except OSError:
        return False
    return (device, inode) == (str(about.st_dev), str(about.st_ino)) and SOCKET.is_socket()


class JournalHandler(logging.Handler):
    """What the daemon logs, as entries of the journal. `extra={"event": …}` names what has happened."""

    _LEVELS = ((logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, _INFO))

    def __init__(self, journal: Journal) -> None:
        super().__init__()
        self.journal = journal

    def close(self) -> None:
        """Let go of the journal."""
        self.journal.close()
        super().close()

    def emit(self, record: logging.LogRecord) -> None:
        """Send a record. A traceback is of one entry with its message."""
        level = next((number for bound, number in self._LEVELS if record.levelno >= bound), 7)
        event = getattr(record, "event", None)
        text = visible(self.format(record), keep="\n")
        self.journal.send(text, level, OTPBRIDGE_EVENT=event, MESSAGE_ID=_id(event))


class _Entry(msgspec.Struct):
    """An entry of the audit log, as far as it is told here."""

    event: str
    client: str | None = None
    user: str | None = None
    token: str | None = None
    verdict: str | None = None
    reason: str | None = None
    stack: str | None = None
    uid: int | None = None
    service: str | None = None
    rhost: str | None = None
    host: str | None = None
    detail: dict[str, Any] = {}


_decode = msgspec.json.Decoder(_Entry).decode


class AuditJournal:
    """Each row of the audit log, once it is on disk, as an entry of the journal.

    Rows are taken up in turns of their own, after the callers have been answered. With too many waiting, those that
    have waited longest are dropped: the audit log has them.
    """

    def __init__(self, journal: Journal, later: Callable[[float, Callable[[], None]], object]) -> None:
        self._journal = journal
        self._later = later
        self._waiting: deque[AuditRow] = deque()
        self._called = False

    def take(self, rows: Sequence[AuditRow]) -> None:
        """Take rows that are on disk."""
        waiting = self._waiting
        waiting.extend(rows)
        while len(waiting) > _MOST_WAITING:
            waiting.popleft()
            _sent["dropped"] += 1
        if not self._called:
            self._called = True
            self._later(_TURN_SECONDS, self._turn)

    def flush(self) -> None:
        """Send all that waits."""
        while self._waiting:
            self._send(self._waiting.popleft())

    def _turn(self) -> None:
        for _ in range(min(_PER_TURN, len(self._waiting))):
            self._send(self._waiting.popleft())
        self._called = bool(self._waiting)
        if self._called:
            self._later(0.0, self._turn)

    def _send(self, row: AuditRow) -> None:
        entry = _decode(row.entry)
        waits = "wait" in entry.detail
        refused = entry.verdict not in {None, Verdict.SUCCESS, Verdict.IGNORE}
        self._journal.send(
            told(entry),
            _NOTICE if refused else _INFO,
            MESSAGE_ID=_id("backoff began" if waits else entry.event),
            OTPBRIDGE_EVENT=entry.event,
            OTPBRIDGE_VERDICT=entry.verdict,
            OTPBRIDGE_CLIENT=entry.client,
            OTPBRIDGE_USER=_shown(entry.user),
            OTPBRIDGE_SERVICE=_shown(entry.service),
            OTPBRIDGE_RHOST=_shown(entry.rhost),
            OTPBRIDGE_TOKEN=entry.token,
            OTPBRIDGE_HOST=entry.host,
            OTPBRIDGE_REASON=_shown(entry.reason),
            OTPBRIDGE_STACK=entry.stack,
            OTPBRIDGE_CALLER=entry.uid,
            OTPBRIDGE_WAIT=entry.detail.get("wait"),
            OTPBRIDGE_AUDIT=row.sequence,
        )


def told(entry: _Entry) -> str:
    """An entry in one line."""
    words = [entry.event if entry.verdict is None else f"{entry.event}: {entry.verdict}"]
    if entry.user is not None:
        words.append(f"for {visible(entry.user)}")
    if entry.client not in {None, "local"}:
        words.append(f"of client {entry.client}")
    if entry.rhost:
        words.append(f"from {visible(entry.rhost)}")
    if entry.service:
        words.append(f"at {visible(entry.service)}")
    if entry.host:
        words.append(f"through {entry.host}")
    line = " ".join(words)
    return line if entry.reason is None else f"{line}: {visible(entry.reason)}"


def _shown(text: str | None) -> str | None:
    return None if text is None else visible(text)


def _id(event: object) -> str | None:
    return IDS.get(event) if isinstance(event, str) else None
