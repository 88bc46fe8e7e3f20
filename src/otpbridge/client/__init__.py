"""Talk to otpbridged from Python: what a portal imports.

    from otpbridge.client import Client

    with Client() as otp:
        if otp.verify("alice", code, client="acme"):
            ...

`AsyncClient` is the same for asyncio, and is loaded only when asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from otpbridge.client.results import Verification
from otpbridge.client.sync import Client, Conversation
from otpbridge.errors import ProtocolError, RemoteError, UnavailableError
from otpbridge.model import Context, Enforcement, Kind, PromptStyle, State, Verdict

if TYPE_CHECKING:
    from otpbridge.client.aio import AsyncClient, AsyncConversation

__all__ = [
    "AsyncClient",
    "AsyncConversation",
    "Client",
    "Context",
    "Conversation",
    "Enforcement",
    "Kind",
    "PromptStyle",
    "ProtocolError",
    "RemoteError",
    "State",
    "UnavailableError",
    "Verdict",
    "Verification",
]


def __getattr__(name: str) -> Any:
    """Load asyncio only for those who use it."""
    if name in {"AsyncClient", "AsyncConversation"}:
        from otpbridge.client import aio  # noqa: PLC0415 — lazy on purpose

        return getattr(aio, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
