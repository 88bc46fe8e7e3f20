"""A security key that is plugged in here becomes a user's authenticator: PIN, touch, proof."""

from __future__ import annotations

import math
import sys
from contextlib import ExitStack
from typing import TYPE_CHECKING

from otpbridge.cli import ask, show
from otpbridge.cli.countdown import countdown
from otpbridge.cli.enrolling import discard
from otpbridge.cli.exits import Code, CommandError
from otpbridge.cli.proof import call_with_proof
from otpbridge.cli.session import Session, called
from otpbridge.errors import NoDeviceError, UnavailableError
from otpbridge.model import Secret, State
from otpbridge.wire import messages

if TYPE_CHECKING:
    from otpbridge.client import Client
    from otpbridge.devices.fido import PinWanted
    from otpbridge.wire.messages import FinishFido2Reply, StartFido2, StartFido2Reply

_SECONDS = 30
"""How long is waited for a touch: most keys wait no longer."""


def enrol(session: Session, request: StartFido2) -> None:
    """Register a key that is plugged in. Whatever fails leaves nothing behind, in the store or on the key."""
    from otpbridge.devices import fido_find  # noqa: PLC0415 - not needed for --help

    if not fido_find.plugged():
        raise NoDeviceError(
            "no security key is plugged in. Plug one in; to register one in a browser, use the portal (docs/fido2.md)"
        )
    daemon, _admin = session.nearest()
    with daemon:
        started = call_with_proof(daemon, request, request.user, request.client)
        try:
            credential = _register(started)
        except BaseException:
            show.note(discard(daemon, started))
            raise
        _tell(session, started, _finish(daemon, started, credential))


def _register(started: StartFido2Reply) -> str:
    """What the key answers. Raises DeviceError."""
    from otpbridge.devices.fido import Ceremony  # noqa: PLC0415 - not needed for --help

    with _AtTerminal() as person:
        return Ceremony(person, _SECONDS).register(started.options, started.origin)


def _finish(daemon: Client, started: StartFido2Reply, credential: str) -> FinishFido2Reply:
    try:
        reply = daemon.call(messages.FinishFido2(token=started.token, credential=credential))
    except UnavailableError as error:
        raise CommandError(
            Code.UNAVAILABLE,
            f"the daemon went away while it judged the key's answer ({error}), so nobody knows whether token"
            f" {started.token} is in force. When it is back: otpbridge token list"
            f" {called(started.user, started.client)}",
            "Undecided",
        ) from None
    if not reply.confirmed:
        raise CommandError(Code.REFUSED, reply.hint or "the key was not registered", "NotConfirmed")
    return reply


def _tell(session: Session, started: StartFido2Reply, reply: FinishFido2Reply) -> None:
    if session.json:
        session.answer(
            {
                "token": started.token,
                "user": started.user,
                "client": started.client,
                "kind": "fido2",
                "state": State.ACTIVE.value,
                "label": started.label,
                "replaced": list(reply.replaced),
            }
        )
    session.tell(f"Token {show.visible(started.token)} is active: {show.visible(started.label)}.")
    for old in reply.replaced:
        session.tell(f"It replaces token {show.visible(old)}, which is revoked.")
    if session.json:
        return
    whose = called(started.user, started.client)
    show.line(f"To let {show.visible(started.user)} in with a second factor only: otpbridge user require {whose}")
    show.line(f"For the day when it is lost: otpbridge enroll recovery {whose}")


class _AtTerminal:
    """The person at this terminal (devices.fido.Person). Counting down ends with the block."""

    def __init__(self) -> None:
        self._counting = ExitStack()

    def __enter__(self) -> _AtTerminal:
        return self

    def __exit__(self, *_: object) -> None:
        self._counting.close()

    def touch(self, key: str, seconds: float) -> None:
        """See devices.fido.Person."""
        self._counting.close()
        text = f"Touch {show.visible(key)} now" if key else "Touch the key that is to be registered"
        self._counting.enter_context(countdown(text, math.ceil(seconds)))

    def pin(self, wanted: PinWanted) -> Secret | None:
        """See devices.fido.Person. Without a terminal there is one PIN, on standard input."""
        self._counting.close()
        name = show.visible(wanted.key)
        if wanted.wrong:
            show.note(f"That was not it. {_tries(wanted.tries_left)}")
            if not sys.stdin.isatty():
                return None
        return Secret(ask.hidden(f"PIN of {name}: ").encode())


def _tries(left: int) -> str:
    return f"{left} tries are left." if left > 1 else "One try is left; after it the key must be reset."
