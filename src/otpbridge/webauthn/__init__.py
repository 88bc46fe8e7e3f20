"""The relying party's half of WebAuthn: what a key is asked, and whether its answer holds (w3.org/TR/webauthn-3).

The library fido2 takes messages apart and checks signatures. What it leaves to its user is done here or above:
each challenge is used once, the user handle is compared (§7.2 step 6), and the signature counter is handed on to be
spent (§7.2 step 22). No clock, no I/O; challenges come in.
"""

from __future__ import annotations

import asyncio
import threading

CHALLENGE_BYTES = 32
HANDLE_BYTES = 32
LONGEST_ANSWER = 16 * 1024
"""Characters of an answer. Real ones have one or two thousand; with a chain of certificates some more."""

_loaded = threading.Event()


def load() -> None:
    """Load `ceremony` and `credential`. The library behind them takes longer than all else here."""
    import otpbridge.webauthn.ceremony  # noqa: F401, PLC0415

    _loaded.set()


async def ready() -> None:
    """Have them loaded, and let others go on meanwhile, where they were not needed before."""
    if not _loaded.is_set():
        await asyncio.to_thread(load)
