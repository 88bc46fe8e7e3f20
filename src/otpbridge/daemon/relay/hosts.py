"""What a host may ask about, as its entry in `[relays.hosts]` says, and for how long."""

from __future__ import annotations

import asyncio

from otpbridge.config import RelayHost
from otpbridge.daemon import accounts
from otpbridge.model import LOCAL

WARN_SECONDS = 30 * 86_400
"""A certificate that ends sooner is worth a warning; a centre's own is made anew."""


async def refusal(entry: RelayHost, client: str, user: str, stack: str) -> str | None:
    """Why a host may not ask about a user at a stack; None where it may. Raises LookupFailedError."""
    if client not in entry.clients:
        return "the host may not ask about this client"
    if entry.stacks is not None and stack not in entry.stacks:
        return "the host may not use this stack"
    return None if await _is_one_of_its_users(entry, client, user) else "the host may not ask about this user"


async def _is_one_of_its_users(entry: RelayHost, client: str, user: str) -> bool:
    if entry.users is None and entry.groups is None:
        return True
    if user in (entry.users or ()):
        return True
    if not entry.groups or client != LOCAL:
        return False
    # In a thread: where accounts come from a directory, asking for one may take long.
    found: str | None = await asyncio.to_thread(accounts.member_of, user, entry.groups)
    return found is not None
