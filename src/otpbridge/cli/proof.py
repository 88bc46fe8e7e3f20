"""People who act for themselves prove first that they hold the token they have."""

from __future__ import annotations

from typing import TYPE_CHECKING

from otpbridge.cli import ask
from otpbridge.cli.exits import Code, CommandError, explain, short_name
from otpbridge.errors import RemoteError

if TYPE_CHECKING:
    from otpbridge.client import Client
    from otpbridge.wire.messages import R, Request


def call_with_proof(daemon: Client, request: Request[R], user: str, client: str | None) -> R:
    """Call; where the daemon wants a proof, ask for a code, have it checked on this connection, and call again.

    Raises CommandError when the code is refused, and whatever the call raises.
    """
    try:
        return daemon.call(request)
    except RemoteError as error:
        if short_name(error) != "ProofNeeded":
            raise
        needed = explain(error)
    try:
        code = ask.code("First a code of the token that you have now: ")
    except CommandError:
        raise needed from None
    verification = daemon.verify(user, code, client=client)
    if not verification:
        wait = f"; wait {verification.retry_after} s" if verification.retry_after else ""
        raise CommandError(Code.REFUSED, f"that code was refused, nothing was changed{wait}", "ProofRefused")
    return daemon.call(request)
