"""Programs that are known to keep keys to themselves, and how they are asked to let go."""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

_KNOWN = {
    "scdaemon": "GnuPG's smart card daemon; it starts again by itself when gpg next needs a card",
    "yubikey-agent": "the SSH agent for keys; it gives the key back and goes on",
}
_SIGNALS = {"scdaemon": signal.SIGTERM, "yubikey-agent": signal.SIGHUP}
_SECONDS = 3


@dataclass(frozen=True, slots=True)
class Holder:
    """A program that may hold a key."""

    pid: int
    name: str

    def __str__(self) -> str:
        return f"{self.name} (pid {self.pid})"


def running() -> list[Holder]:
    """The programs now running that are known to hold keys."""
    found = []
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        try:
            name = (folder / "comm").read_text(errors="replace").strip()
        except OSError:  # it ended meanwhile
            continue
        if name in _KNOWN:
            found.append(Holder(int(folder.name), name))
    return found


def advice() -> str:
    """What to do about a key in use, as the end of a sentence."""
    holders = running()
    if not holders:
        return "; close it (a browser, an authenticator app, another otpbridge or ykman), and try again"
    named = ", ".join(map(str, holders))
    return (
        f", probably {named}: {_KNOWN[holders[0].name]}. Let go of the key (gpgconf --kill scdaemon),"
        " or have it done with --take-over"
    )


def ask_to_let_go(holders: Sequence[Holder]) -> list[Holder]:
    """Signal them politely, and wait a little for those that end. Returns those that could be told."""
    told: list[Holder] = []
    for holder in holders:
        try:
            fd = os.pidfd_open(holder.pid)
        except ProcessLookupError:
            continue
        try:
            signal.pidfd_send_signal(fd, _SIGNALS[holder.name])
        except (PermissionError, ProcessLookupError):
            os.close(fd)
            continue
        told.append(holder)
        if _SIGNALS[holder.name] is signal.SIGTERM:
            select.select([fd], [], [], _SECONDS)
        os.close(fd)
    return told
