"""The numbers that tell faults_shim.c what to do, in a file that it and we have mapped."""

from __future__ import annotations

import mmap
import struct
from pathlib import Path

_NAMES = ("room", "flushes", "writes", "delay_us", "clock_s", "refused")
_HEALTHY = {"room": -1, "flushes": -1, "writes": -1, "delay_us": 0, "clock_s": 0}
_NUMBER = struct.Struct("q")


class Control:
    """A disk and a clock, as one daemon sees them.

    `room`: bytes that fit on the disk; `flushes`: those that still succeed; `writes`: those that are still done
    before one is torn and the daemon dies in the middle of it; below zero, all. `delay_us`: what a flush takes
    longer. `clock_s`: seconds that the clock is ahead. `refused`: how many writes and flushes have failed.
    """

    room: int
    flushes: int
    writes: int
    delay_us: int
    clock_s: int
    refused: int

    def __init__(self, path: Path) -> None:
        path.write_bytes(bytes(_NUMBER.size * len(_NAMES)))
        with path.open("r+b") as file:
            object.__setattr__(self, "_map", mmap.mmap(file.fileno(), 0))
        self.heal()

    def heal(self) -> None:
        """All works again, and the time is right."""
        for name, value in _HEALTHY.items():
            setattr(self, name, value)

    def __getattr__(self, name: str) -> int:
        return _NUMBER.unpack_from(self._map, _NUMBER.size * _NAMES.index(name))[0]

    def __setattr__(self, name: str, value: int) -> None:
        _NUMBER.pack_into(self._map, _NUMBER.size * _NAMES.index(name), value)
