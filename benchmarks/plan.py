"""How much is measured: a full run, a quick one, and one that only shows that the harness works."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

CONNECTIONS = (1, 16, 64)
PROCESSES = (1, 2, 4, 8)
MILLION = 1_000_000


@dataclass(frozen=True, slots=True)
class Plan:
    """Counts of one run. Where a mapping goes by connections or processes it gives the calls of one round."""

    sizes: tuple[int, ...]
    """Users in the stores, ascending. All but the cost by size is measured on the last, the main one."""
    rounds: int
    wire: Mapping[int, int]
    slow: Mapping[int, int]
    pam: Mapping[int, int]
    warmup: int
    """Logins of each process or connection before those that are timed."""
    google_users: int
    oath: Mapping[int, int]
    """Logins of a process and round, by users in the file."""
    flat: int
    flat_pam: int
    starts: int
    slow_ms: int = 5

    @property
    def main(self) -> int:
        """Users in the main store."""
        return self.sizes[-1]


FULL = Plan(
    sizes=(10, 1000, 100_000, MILLION),
    rounds=5,
    wire={1: 4000, 16: 12_000, 64: 20_000},
    slow={1: 300, 16: 3000, 64: 8000},
    pam={1: 400, 2: 800, 4: 1600, 8: 2400},
    warmup=20,
    google_users=40_000,
    oath={10: 200, 1000: 200, 100_000: 16},
    flat=8000,
    flat_pam=300,
    starts=5,
)

QUICK = Plan(
    sizes=(10, 1000, 100_000),
    rounds=3,
    wire={1: 1000, 16: 3000, 64: 6000},
    slow={1: 150, 16: 1000, 64: 3000},
    pam={1: 200, 2: 300, 4: 400, 8: 800},
    warmup=10,
    google_users=20_000,
    oath={10: 80, 1000: 80, 100_000: 6},
    flat=4000,
    flat_pam=150,
    starts=3,
)

SMOKE = Plan(
    sizes=(10, 1000),
    rounds=1,
    wire={1: 5, 16: 20, 64: 64},
    slow={1: 5, 16: 20, 64: 64},
    pam={1: 3, 2: 4, 4: 4, 8: 8},
    warmup=0,
    google_users=60,
    oath={10: 3, 1000: 3},
    flat=64,
    flat_pam=3,
    starts=1,
    slow_ms=1,
)
