"""What a daemon answers, as a client takes it: replies, a RemoteError, or a ProtocolError that quotes nothing."""

from __future__ import annotations

from typing import Any

from fuzz_promises import silent

from otpbridge.client.exchange import Exchange
from otpbridge.errors import ProtocolError, RemoteError, UnavailableError
from otpbridge.model import Kind
from otpbridge.wire.framing import FRAME_BYTES, encode_reply
from otpbridge.wire.messages import Begin, Check, ListTokens, NewRecoveryCodes, Request, Start

_REQUESTS: tuple[Request[Any], ...] = (
    Check(user="alice", responses=("123456",)),
    Begin(user="alice"),
    Start(user="alice", kind=Kind.TOTP),
    NewRecoveryCodes(user="alice"),
    ListTokens(),
)


def check(data: bytes) -> None:
    """However it is cut into pieces, the same comes of it, never more than one message waits, and no seed is told."""
    if not data:
        return
    request = _REQUESTS[data[0] % len(_REQUESTS)]
    whole, pieces = _taken(request, data[1:], FRAME_BYTES), _taken(request, data[1:], 1 + data[0] // 16)
    assert whole == pieces


def _taken(request: Request[Any], data: bytes, size: int) -> list[bytes | str]:
    """What comes of an answer that is read in pieces of `size` bytes: the replies as frames, then the error."""
    exchange = Exchange(request, more=True)
    seen: list[bytes | str] = []
    try:
        for at in range(0, len(data), size):
            exchange.feed(data[at : at + size])
            while not exchange.finished and (reply := exchange.take()) is not None:
                assert isinstance(reply, request.REPLY)
                seen.append(encode_reply(reply))
            if exchange.finished:
                return seen
        exchange.feed(b"")
    except RemoteError as error:
        seen.append(error.name)
    except (ProtocolError, UnavailableError) as error:
        silent(error)
        seen.append(str(error))
    return seen
