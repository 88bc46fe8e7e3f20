"""A new token from start to in force: shown once, confirmed by a code, nothing left on the screen."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from otpbridge.cli import ask, screen, show
from otpbridge.cli.exits import Code, CommandError, short_name
from otpbridge.cli.proof import call_with_proof
from otpbridge.cli.session import Session, called
from otpbridge.cli.token import fault_of, tell_confirmation
from otpbridge.errors import OtpBridgeError, ProtocolError, RemoteError
from otpbridge.wire import messages

if TYPE_CHECKING:
    from otpbridge.client import Client
    from otpbridge.wire.messages import ConfirmReply, Start, StartFido2Reply, StartReply

_TRIES = 5
_FROM_INPUT = "-"
_ROOM = 5
"""Lines for the question and what is said to wrong answers."""


@dataclass(frozen=True, slots=True)
class Showing:
    """What is shown of a new token, and what is asked.

    `values` are its keys for programs, `keys` for people, `also` what else a pipe gets, `advice` what to do with
    them. `draw` gives a picture for so many lines of text below it. `wrong` is what to say to a code that is none.
    """

    values: dict[str, str | None]
    keys: Sequence[str]
    advice: Sequence[str]
    question: str
    also: Sequence[str] = ()
    draw: Callable[[int], str] | None = None
    wrong: str | None = None


def required(text: str | None) -> str:
    """A part of the reply that every token of this kind has. Raises ProtocolError."""
    if text is None:
        raise ProtocolError("otpbridged left a key of the new token out: is it of the same version?")
    return text


def enrol(session: Session, request: Start, showing: Callable[[StartReply], Showing], code: str | None) -> Code:
    """Start, show, confirm. `showing` may write a picture to a file; when it fails nothing is left."""
    daemon, _admin = session.nearest()
    with daemon:
        started = call_with_proof(daemon, request, request.user, request.client)
        try:
            shown = showing(started)
        except BaseException:
            discard(daemon, started)
            raise
        if code is not None:
            return _confirm_at_once(session, daemon, started, shown, code)
        if session.json or not ask.on_terminal():
            return _leave_pending(session, started, shown)
        return _converse(session, daemon, started, shown)


def _document(started: StartReply, shown: Showing, state: str) -> dict[str, object]:
    return {
        "token": started.token,
        "user": started.user,
        "client": started.client,
        "kind": started.kind.value,
        "state": state,
        **shown.values,
        "expires_in": started.expires_in,
    }


def _leave_pending(session: Session, started: StartReply, shown: Showing) -> Code:
    if session.json:
        session.answer(_document(started, shown, started.state.value))
    else:
        for text in (*shown.keys, *shown.also, *shown.advice):
            show.line(text)
    session.tell(
        f"Token {started.token} is pending for {show.duration(started.expires_in)}."
        f" Confirm it with a code: otpbridge token confirm {started.token}"
    )
    return Code.DONE


def _confirm_at_once(session: Session, daemon: Client, started: StartReply, shown: Showing, code: str) -> Code:
    """Confirm with a code that was given. It is read after the keys were told where it comes by standard input."""
    if code == _FROM_INPUT:
        _leave_pending(session, started, shown)
        code = ask.code(f"{shown.question}: ")
    elif not session.json:
        for text in shown.keys:
            show.line(text)
    reply = daemon.call(messages.Confirm(token=started.token, code=code))
    if session.json and not session.answered:
        session.answer(_document(started, shown, reply.state.value))
    tell_confirmation(session, started.token, reply)
    return Code.DONE if reply.confirmed else Code.REFUSED


def _converse(session: Session, daemon: Client, started: StartReply, shown: Showing) -> Code:
    """Show the keys, ask for a code until one is right, and leave no key on the screen."""
    below = len(shown.keys) + 1 + len(shown.advice) + _ROOM
    drawing = "" if shown.draw is None else shown.draw(below)
    try:
        with screen.private(drawing.count("\n") + below):
            click.echo(drawing, nl=False, color=True)
            for text in (*shown.keys, "", *shown.advice):
                show.line(text)
            reply = _ask_until_confirmed(daemon, started, shown)
    except BaseException:
        show.note(f"\n{discard(daemon, started)}")
        raise
    tell_confirmation(session, started.token, reply)
    whose = called(started.user, started.client)
    show.line(f"To let {show.visible(started.user)} in with a code only: otpbridge user require {whose}")
    show.line(f"For the day when it is lost: otpbridge enroll recovery {whose}")
    return Code.DONE


def _ask_until_confirmed(daemon: Client, started: StartReply, shown: Showing) -> ConfirmReply:
    for _ in range(_TRIES):
        code = ""
        while not code.strip():
            code = ask.code(f"{shown.question} (Ctrl-C gives up): ")
        try:
            reply = daemon.call(messages.Confirm(token=started.token, code=code))
        except RemoteError as error:
            if short_name(error) != "Busy":
                raise
            show.line(
                f"Too many wrong codes. Wait {error.parameters.get('retryAfter')} s, then type the newest code."
            )
            continue
        if reply.confirmed:
            return reply
        show.line(shown.wrong if shown.wrong and reply.fault == "wrong_code" else fault_of(reply))
    raise CommandError(Code.REFUSED, f"no right code in {_TRIES} tries", "NotConfirmed")


def discard(daemon: Client, started: StartReply | StartFido2Reply) -> str:
    """Drop the pending token; say what became of it."""
    try:
        daemon.call(messages.Discard(token=started.token))
    except OtpBridgeError:
        return (
            f"Token {started.token} could not be discarded; it was never in force and is gone in"
            f" {show.duration(started.expires_in)}."
        )
    return "The new token was discarded; nothing has changed."
