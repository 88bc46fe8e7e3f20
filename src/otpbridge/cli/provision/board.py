"""What a station shows: which key is whose, and how far it is. Nothing here does I/O."""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Phase(enum.Enum):
    """How far a key is."""

    WORKING = "working"
    """It must stay in."""
    TOUCH = "touch"
    """It waits for a finger."""
    DONE = "done"
    """It can go."""
    IDLE = "idle"
    """Nobody waits for it."""
    REFUSED = "refused"
    """It gets nobody."""
    FAILED = "failed"
    """It can go, and come back."""

    @property
    def busy(self) -> bool:
        """Whether something is being done with it."""
        return self in {Phase.WORKING, Phase.TOUCH}


@dataclass(frozen=True, slots=True)
class Seat:
    """A key that is plugged in, or was and is still worked on. `since` is on the monotonic clock, in seconds."""

    reader: str
    phase: Phase
    words: str
    since: float
    serial: int | None
    model: str
    person: str


@dataclass(frozen=True, slots=True)
class Board:
    """All there is to see at one moment."""

    seats: tuple[Seat, ...]
    done: int
    total: int
    waiting: int
    away: int
    notice: str
    now: float
