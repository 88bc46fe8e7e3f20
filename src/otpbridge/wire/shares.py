"""How much of the event loop each caller gets: who asks without a pause is made to wait, and nobody else.

A caller may use a burst at once. What it uses is forgotten at the rate of its share; while more than a burst is left,
nothing of it is read or judged.
"""

from __future__ import annotations

_BURST = 0.005
"""Seconds that a caller may use at once."""
_SHORTEST_WAIT = 0.01
"""So that what a caller may do comes in pieces that are worth a turn."""
_LONGEST_WAIT = 1.0
CONNECTION = 0.000_03
"""Seconds that a connection is put down with."""
CALL = 0.000_15
"""Seconds that a call is put down with which is not answered on the spot: what it costs elsewhere."""


class Shares:
    """Counts the time of callers, each of whom may have `share` of it, from above 0 to 1."""

    def __init__(self, share: float) -> None:
        self._share = share
        self._used: dict[int | str, tuple[float, float]] = {}
        """Seconds used, and when that was so."""

    def charge(self, caller: int | str, seconds: float, now: float) -> None:
        """A caller has used so many seconds."""
        self._used[caller] = (self._left(caller, now) + seconds, now)

    def wait(self, caller: int | str, now: float) -> float:
        """How many seconds a caller has to wait for its next turn; 0 where it is now."""
        over = self._left(caller, now) - _BURST
        return min(max(over / self._share, _SHORTEST_WAIT), _LONGEST_WAIT) if over > 0 else 0.0

    def tidy(self, now: float) -> None:
        """Forget callers who have used nothing for a while."""
        self._used = {caller: used for caller, used in self._used.items() if self._left(caller, now) > 0}

    def _left(self, caller: int | str, now: float) -> float:
        used, at = self._used.get(caller, (0.0, now))
        return max(0.0, used - (now - at) * self._share)
