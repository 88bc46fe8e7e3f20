"""Times calls of a socket, and says whether two sorts of calls can be told apart by it."""

from __future__ import annotations

import gc
import random
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import msgspec

Parameters = Mapping[str, object]


class Line:
    """A connection to the verify socket that does as little as possible beside sending and receiving."""

    def __init__(self, path: Path) -> None:
        self._sock = socket.socket(socket.AF_UNIX)
        self._sock.settimeout(30)
        self._sock.connect(str(path))

    def __enter__(self) -> Line:
        return self

    def __exit__(self, *_: object) -> None:
        self._sock.close()

    def ask(self, method: str, **parameters: object) -> tuple[bytes, int]:
        """The reply as it came, and how long it took in nanoseconds."""
        call = {"method": f"org.otpbridge.Verify.{method}", "parameters": parameters}
        frame = msgspec.json.encode(call) + b"\0"
        begun = time.perf_counter_ns()
        self._sock.sendall(frame)
        reply = self._sock.recv(65_536)
        taken = time.perf_counter_ns() - begun
        assert reply.endswith(b"\0")
        return reply, taken

    def check(self, about: Parameters, *answers: str) -> list[int]:
        """How long an attempt in one call takes."""
        return [self.ask("Check", **about, responses=answers)[1]]

    def talk(self, about: Parameters, *answers: str) -> list[int]:
        """How long each step of a conversation takes."""
        reply, begun = self.ask("Begin", **about)
        session = msgspec.json.decode(reply[:-1])["parameters"]["session"]
        steps = [self.ask("Continue", session=session, responses=[answer]) for answer in answers]
        return [begun, *(taken for _, taken in steps)]


def times(sorts: Mapping[str, Callable[[], list[int]]], rounds: int) -> list[dict[str, list[int]]]:
    """Do each sort once a round, in an order of chance; for each step of it, the times by sort."""
    names = list(sorts)
    found: dict[str, list[list[int]]] = {name: [] for name in names}
    gc.collect()
    gc.disable()
    try:
        for number in range(-10, rounds):
            random.shuffle(names)
            for name in names:
                taken = sorts[name]()
                if number >= 0:
                    found[name].append(taken)
    finally:
        gc.enable()
    steps = len(found[names[0]][0])
    return [{name: [each[step] for each in taken] for name, taken in found.items()} for step in range(steps)]


def slower(one: Sequence[int], other: Sequence[int]) -> float:
    """The probability that a time of one sort is longer than one of the other: Mann and Whitney's U over n·m.

    0.5 where nobody can tell; 0 or 1 where a single time says it all.
    """
    ranks: dict[int, float] = {}
    both = sorted([*one, *other])
    place = 0
    while place < len(both):
        end = place
        while end < len(both) and both[end] == both[place]:
            end += 1
        ranks[both[place]] = (place + end + 1) / 2
        place = end
    u = sum(ranks[each] for each in one) - len(one) * (len(one) + 1) / 2
    return u / (len(one) * len(other))
