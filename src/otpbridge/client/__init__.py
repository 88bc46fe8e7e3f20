"""Talk to otpbridged from Python: what a portal imports.

    from otpbridge.client import Client

    with Client() as otp:
        if otp.verify("alice", code, client="acme"):
            ...

`AsyncClient` is the same for asyncio, and is loaded only when asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from otpbridge.client.results import OnNotice, Verification
from otpbridge.client.sync import Client, Conversation
from otpbridge.errors import ProtocolError, RemoteError, UnavailableError
from otpbridge.model import (
    Algorithm,
    Context,
    Deed,
    Enforcement,
    Happening,
    Kind,
    Notice,
    NoticeStyle,
    Prompt,
    PromptStyle,
    State,
    Verdict,
)
from otpbridge.wire.messages import (
    AccountEvent,
    ConfirmReply,
    Event,
    FinishFido2Reply,
    ManagedUser,
    RecoveryCodesReply,
    RegistrationCodeReply,
    StartFido2Reply,
    StartReply,
    TokenFields,
    TokensReply,
    Watch,
    WatchReply,
)

if TYPE_CHECKING:
    from otpbridge.client.aio import AsyncClient, AsyncConversation

__all__ = [
    "AccountEvent",
    "Algorithm",
    "AsyncClient",
    "AsyncConversation",
    "Client",
    "ConfirmReply",
    "Context",
    "Conversation",
    "Deed",
    "Enforcement",
    "Event",
    "FinishFido2Reply",
    "Happening",
    "Kind",
    "ManagedUser",
    "Notice",
    "NoticeStyle",
    "OnNotice",
    "Prompt",
    "PromptStyle",
    "ProtocolError",
    "RecoveryCodesReply",
    "RegistrationCodeReply",
    "RemoteError",
    "StartFido2Reply",
    "StartReply",
    "State",
    "TokenFields",
    "TokensReply",
    "UnavailableError",
    "Verdict",
    "Verification",
    "Watch",
    "WatchReply",
]


def __getattr__(name: str) -> Any:
    """Load asyncio only for those who use it."""
    if name in {"AsyncClient", "AsyncConversation"}:
        from otpbridge.client import aio  # noqa: PLC0415 — lazy on purpose

        return getattr(aio, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
