"""People who act for themselves prove first that they hold the token they have."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from otpbridge.cli import ask, show
from otpbridge.cli.conversation import converse, notice_lines
from otpbridge.cli.exits import Code, CommandError, explain, short_name
from otpbridge.errors import RemoteError

if TYPE_CHECKING:
    from otpbridge.client import Client, Verification
    from otpbridge.model import Notice
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
    verification = _verify(daemon, user, client, needed)
    if verification.ignored:
        raise CommandError(
            Code.REFUSED,
            "no code was given or asked for, so nothing was proven and nothing was changed; give a code,"
            " or ask an administrator",
            "ProofRefused",
        )
    if not verification:
        wait = f"; wait {verification.retry_after} s" if verification.retry_after else ""
        raise CommandError(Code.REFUSED, f"that code was refused, nothing was changed{wait}", "ProofRefused")
    return daemon.call(request)


def _verify(daemon: Client, user: str, client: str | None, needed: CommandError) -> Verification:
    """A person is asked what the stack asks; of a script one line is read."""
    if sys.stdin.isatty():
        show.note("First prove that it is you, with the authenticator that you have now.")
        return converse(daemon, user, client, None, _tell)
    try:
        code = ask.code("")
    except CommandError:
        raise needed from None
    return daemon.verify(user, code, client=client)


def _tell(notice: Notice) -> None:
    for text in notice_lines(notice.text):
        show.note(text)
