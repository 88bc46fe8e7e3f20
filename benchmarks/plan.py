"""How much is measured: a full run, a quick one, and one that only shows that the harness works."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

CONNECTIONS = (1, 4, 8, 16, 64)
PROCESSES = (1, 2, 4, 8)
IN_FLIGHT = 64
"""Processes that log in at once where flushes are slow."""
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
    slow_pam: Mapping[str, int]
    """Logins of a round by 64 processes with slow flushes: that `overlap`, and `one by one`."""
    flat: int
    flat_pam: int
    starts: int
    bare_users: int
    privacyidea: Mapping[int, int]
    """Requests of one round to privacyIDEA, by clients."""
    privacyidea_rounds: int
    postgresql_users: int
    postgresql: int
    """Calls of one round to each daemon."""
    race_codes: int
    """Codes that are each tried by eight at once. privacyIDEA, which takes long, gets a quarter."""
    guess_rounds: int
    kills: int
    cuts: int
    minutes: float
    """What the whole should take at most: after three quarters of it, scenarios have one round each."""
    slow_ms: int = 5

    @property
    def main(self) -> int:
        """Users in the main store."""
        return self.sizes[-1]


FULL = Plan(
    sizes=(10, 1000, 100_000, MILLION),
    rounds=4,
    wire={1: 3000, 4: 6000, 8: 8000, 16: 12_000, 64: 20_000},
    slow={1: 300, 4: 600, 8: 1200, 16: 2400, 64: 8000},
    pam={1: 400, 2: 800, 4: 1600, 8: 2400},
    warmup=20,
    google_users=40_000,
    oath={10: 200, 1000: 200, 100_000: 16},
    slow_pam={"overlap": 6400, "one by one": 960},
    flat=8000,
    flat_pam=300,
    starts=5,
    bare_users=300_000,
    privacyidea={1: 80, 4: 120, 8: 120, 16: 128, 64: 128},
    privacyidea_rounds=3,
    postgresql_users=60_000,
    postgresql=12_000,
    race_codes=200,
    guess_rounds=40,
    kills=10,
    cuts=10,
    minutes=15,
)

QUICK = Plan(
    sizes=(10, 1000, 100_000),
    rounds=3,
    wire={1: 500, 4: 1000, 8: 1000, 16: 2000, 64: 3500},
    slow={1: 100, 4: 200, 8: 400, 16: 800, 64: 3000},
    pam={1: 200, 2: 300, 4: 400, 8: 800},
    warmup=10,
    google_users=20_000,
    oath={10: 80, 1000: 80, 100_000: 6},
    slow_pam={"overlap": 1600, "one by one": 192},
    flat=4000,
    flat_pam=150,
    starts=3,
    bare_users=120_000,
    privacyidea={1: 30, 4: 40, 8: 40, 16: 48, 64: 64},
    privacyidea_rounds=1,
    postgresql_users=20_000,
    postgresql=5000,
    race_codes=40,
    guess_rounds=10,
    kills=2,
    cuts=2,
    minutes=4,
)

SMOKE = Plan(
    sizes=(10, 2000),
    rounds=1,
    wire={1: 5, 4: 8, 8: 16, 16: 20, 64: 64},
    slow={1: 5, 4: 8, 8: 16, 16: 20, 64: 64},
    pam={1: 3, 2: 4, 4: 4, 8: 8},
    warmup=0,
    google_users=400,
    oath={10: 3, 1000: 3},
    slow_pam={"overlap": 64, "one by one": 64},
    flat=64,
    flat_pam=3,
    starts=1,
    bare_users=1000,
    privacyidea={1: 4, 4: 8, 8: 8, 16: 16, 64: 64},
    privacyidea_rounds=1,
    postgresql_users=600,
    postgresql=100,
    race_codes=4,
    guess_rounds=1,
    kills=1,
    cuts=1,
    minutes=60,
    slow_ms=1,
)
