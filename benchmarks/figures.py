"""Medians over rounds, and ratios of what was measured in turn."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Sequence
from typing import Any

Record = dict[str, Any]

DISTURBED = 0.25
"""Cores that others may use during a round that counts."""
ENOUGH = 3
"""Undisturbed rounds, without which all rounds count."""


def _quiet(*sides: Sequence[Record]) -> list[tuple[Record, ...]]:
    """The rounds in which others left the machine alone, or all of them where too few are left.

    It is decided by what others used of the machine, never by what the round gave.
    """
    rounds = list(zip(*sides, strict=True))
    quiet = [samples for samples in rounds if all(sample["foreign"] <= DISTURBED for sample in samples)]
    return quiet if len(quiet) >= ENOUGH else rounds


def middle(samples: Sequence[Record], field: str) -> float:
    """The median of a field over rounds."""
    return statistics.median(sample[field] for (sample,) in _quiet(samples))


def ratio(ours: Sequence[Record], theirs: Sequence[Record], field: str) -> float:
    """The median of the ratios round by round: what slowed both down is not in it."""
    return statistics.median(a[field] / b[field] for a, b in _quiet(ours, theirs))


def per_core(samples: Sequence[Record]) -> float:
    """Calls that a second of the servers' processor time is enough for; infinite below what its clock tells."""
    spent = middle(samples, "server_us")
    return 1e6 / spent if spent else math.inf


def samples_in(found: Any) -> Iterator[Record]:
    """All single runs below a part of the results."""
    if isinstance(found, dict):
        if "foreign" in found:
            yield found
        else:
            for value in found.values():
                yield from samples_in(value)
    elif isinstance(found, list):
        for value in found:
            yield from samples_in(value)
