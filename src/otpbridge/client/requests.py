"""Calls built from plain arguments, the same for both clients."""

from __future__ import annotations

from collections.abc import Sequence

from otpbridge.model import Context
from otpbridge.wire.messages import Begin, Check, ContextFields


def context_fields(context: Context | None) -> ContextFields | None:
    """What the caller knows of the attempt, empty texts left out."""
    if context is None:
        return None
    return ContextFields(
        service=context.service or None,
        rhost=context.rhost or None,
        tty=context.tty or None,
        ruser=context.ruser or None,
        language=context.language or None,
    )


def check(
    user: str,
    responses: Sequence[str],
    client: str | None,
    stack: str | None,
    context: Context | None,
    *,
    nullok: bool = False,
) -> Check:
    """One call that judges the responses, or says what policy says of a user who gives none."""
    return Check(
        user=user,
        responses=tuple(responses),
        client=client,
        stack=stack,
        context=context_fields(context),
        nullok=nullok or None,
    )


def begin(
    user: str, client: str | None, stack: str | None, context: Context | None, *, nullok: bool, webauthn: bool
) -> Begin:
    """The start of a conversation."""
    return Begin(
        user=user,
        client=client,
        stack=stack,
        context=context_fields(context),
        nullok=nullok or None,
        webauthn=webauthn or None,
    )
