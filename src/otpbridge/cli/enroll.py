"""`otpbridge enroll`: give a user a new authenticator."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from otpbridge.cli import ask, screen, show
from otpbridge.cli.exits import Code, CommandError, short_name
from otpbridge.cli.options import client_option, everywhere, example
from otpbridge.cli.proof import call_with_proof
from otpbridge.cli.session import Session
from otpbridge.cli.token import fault_of, tell_confirmation
from otpbridge.enroll.seeds import grouped
from otpbridge.errors import OtpBridgeError, ProtocolError, RemoteError
from otpbridge.model import LOCAL, Algorithm, Kind
from otpbridge.wire import messages

if TYPE_CHECKING:
    from otpbridge.client import Client
    from otpbridge.wire.messages import ConfirmReply, StartReply

_TRIES = 5
_FROM_INPUT = "-"
_TEXT_LINES = 12
_ADVICE = "Use a separate device, such as a phone, tablet or hardware key: not the one you log in from."


@click.command(
    epilog=example(
        "otpbridge enroll totp alice",
        "otpbridge enroll totp alice --algorithm SHA256 --qr alice.png",
        "otpbridge --json enroll hotp bob --client acme",
    )
)
@click.argument("kind", type=click.Choice([Kind.TOTP.value, Kind.HOTP.value]), metavar="totp|hotp")
@click.argument("user", metavar="USER")
@client_option
@click.option("--label", metavar="L", help="The account name that the authenticator shows; USER when left out.")
@click.option("--issuer", metavar="I", help="The name above it; the host or the client's when left out.")
@click.option(
    "--algorithm",
    type=click.Choice([algorithm.value for algorithm in Algorithm], case_sensitive=False),
    metavar="SHA1|SHA256|SHA512",
    help="Hash; SHA1 when left out, which every app knows.",
)
@click.option("--digits", type=click.IntRange(6, 8), metavar="N", help="Digits of a code; 6 when left out.")
@click.option(
    "--period", type=click.IntRange(15, 900), metavar="S", help="Seconds that a totp code is shown; 30 when left out."
)
@click.option(
    "--qr",
    metavar="terminal|none|FILE.png|FILE.svg",
    help="Where the QR code goes; to the terminal if there is one. A file gets mode 0600: remove it after use.",
)
@click.option(
    "--code",
    metavar="CODE",
    help="Confirm with this code, not asking; `-` reads it from standard input once the keys are shown.",
)
@everywhere
@click.pass_obj
def enroll(
    session: Session,
    *,
    kind: str,
    user: str,
    client: str | None,
    label: str | None,
    issuer: str | None,
    algorithm: str | None,
    digits: int | None,
    period: int | None,
    qr: str | None,
    code: str | None,
) -> Code:
    """Give USER a new authenticator: show its keys once, ask for a code, put it in force.

    On a terminal the keys are cleared from view afterwards. Without one, or with --json, the token stays pending
    until `otpbridge token confirm`. A token that is in force stays so until the new one is confirmed.
    """
    if kind == Kind.HOTP and period is not None:
        raise click.UsageError("--period means nothing to hotp")
    picture = _picture(session, qr)
    request = messages.Start(
        user=user,
        kind=Kind(kind),
        client=client,
        label=label,
        issuer=issuer,
        algorithm=Algorithm(algorithm.upper()) if algorithm else None,
        digits=digits,
        period=period,
    )
    daemon, _admin = session.nearest()
    with daemon:
        started = call_with_proof(daemon, request, user, client)
        try:
            picture(_uri(started))
        except BaseException:
            _discard(daemon, started)
            raise
        if code is not None:
            return _confirm_at_once(session, daemon, started, code)
        if session.json or not ask.on_terminal():
            return _leave_pending(session, started)
        return _converse(session, daemon, started, drawn=qr in {None, "terminal"})


def _picture(session: Session, where: str | None) -> Callable[[str], None]:
    """What to do with the URI before the keys are shown. Raises a usage error for a place that is none."""
    from otpbridge.enroll import qr  # noqa: PLC0415 - not needed for --help

    if where in {None, "none"} or (where == "terminal" and not session.json and ask.on_terminal()):
        return lambda _uri: None
    if where == "terminal":
        return lambda uri: click.echo(qr.terminal(uri), err=session.json, nl=False, color=True)
    path = Path(str(where))
    if path.suffix.lower() not in {".png", ".svg"}:
        raise click.UsageError("--qr is terminal, none, or a file that ends in .png or .svg")
    return lambda uri: qr.save(uri, path)


def _uri(started: StartReply) -> str:
    """The URI of a new totp or hotp token, which every such token has."""
    if started.uri is None:
        raise ProtocolError("otpbridged gave no URI for the new token: is it of the same version?")
    return started.uri


def _document(started: StartReply, state: str) -> dict[str, object]:
    return {
        "token": started.token,
        "user": started.user,
        "client": started.client,
        "kind": started.kind.value,
        "state": state,
        "secret_hex": started.seed_hex,
        "secret_base32": started.seed_base32,
        "uri": started.uri,
        "expires_in": started.expires_in,
    }


def _key_lines(started: StartReply) -> list[str]:
    from otpbridge.enroll import otpauth  # noqa: PLC0415 - not needed for --help

    key = otpauth.parse(_uri(started))
    settings = f"{key.parameters.algorithm.value}, {key.parameters.digits} digits"
    settings += f", a new code every {key.parameters.period} s" if key.kind is Kind.TOTP else ", counter-based"
    return [
        f"Account                    {show.visible(f'{key.issuer}: {key.account}' if key.issuer else key.account)}",
        f"Google Authenticator key   {grouped(started.seed_base32 or '')}",
        f"TOTP Seed key (hex)        {started.seed_hex}",
        f"Settings                   {settings}",
    ]


def _leave_pending(session: Session, started: StartReply) -> Code:
    if session.json:
        session.answer(_document(started, started.state.value))
    else:
        for text in _key_lines(started):
            show.line(text)
        show.line(f"URI                        {started.uri}")
        show.line(_ADVICE)
    session.tell(
        f"Token {started.token} is pending for {show.duration(started.expires_in)}."
        f" Confirm it with a code: otpbridge token confirm {started.token}"
    )
    return Code.DONE


def _confirm_at_once(session: Session, daemon: Client, started: StartReply, code: str) -> Code:
    """Confirm with a code that was given. It is read after the keys were told where it comes by standard input."""
    if code == _FROM_INPUT:
        _leave_pending(session, started)
        code = ask.code("Code that the authenticator shows now: ")
    elif not session.json:
        for text in _key_lines(started):
            show.line(text)
    reply = daemon.call(messages.Confirm(token=started.token, code=code))
    if session.json and not session.answered:
        session.answer(_document(started, reply.state.value))
    tell_confirmation(session, started.token, reply)
    return Code.DONE if reply.confirmed else Code.REFUSED


def _converse(session: Session, daemon: Client, started: StartReply, *, drawn: bool) -> Code:
    """Show the keys, ask for a code until one is right, and leave no key on the screen."""
    drawing, height = _drawing(_uri(started)) if drawn else ("", 0)
    try:
        with screen.private(height + _TEXT_LINES):
            click.echo(drawing, nl=False, color=True)
            for text in _key_lines(started):
                show.line(text)
            show.line()
            show.line(_ADVICE)
            show.line("Scan the code or type the first key into the app. Both keys are shown now and never again.")
            reply = _ask_until_confirmed(daemon, started)
    except BaseException:
        show.note(f"\n{_discard(daemon, started)}")
        raise
    tell_confirmation(session, started.token, reply)
    name = show.visible(started.user)
    whose = name if started.client == LOCAL else f"{name} --client {show.visible(started.client)}"
    show.line(f"To let {name} in with a code only: otpbridge user require {whose}")
    return Code.DONE


def _drawing(uri: str) -> tuple[str, int]:
    """The QR code for the terminal and its height; a line in its place where it does not fit."""
    from otpbridge.enroll import qr  # noqa: PLC0415 - not needed for --help

    space = screen.size()
    text = qr.terminal(uri)
    height = text.count("\n")
    if not _writable(text):
        return "This terminal does not take UTF-8, so no QR code is drawn: use --qr FILE.png.\n\n", 2
    if qr.columns(uri) > space.columns:
        return f"The QR code needs {qr.columns(uri)} columns: widen this window, or use --qr FILE.png.\n\n", 2
    if height + _TEXT_LINES > space.lines:
        text += f"(The QR code and the keys need {height + _TEXT_LINES} lines: make this window taller, or scroll.)\n"
        height += 1
    return text, height


def _writable(text: str) -> bool:
    try:
        text.encode(sys.stdout.encoding)
    except UnicodeEncodeError:
        return False
    return True


def _ask_until_confirmed(daemon: Client, started: StartReply) -> ConfirmReply:
    for _ in range(_TRIES):
        code = ""
        while not code.strip():
            code = ask.code("Code that it shows now (Ctrl-C gives up): ")
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
        show.line(fault_of(reply))
    raise CommandError(Code.REFUSED, f"no right code in {_TRIES} tries", "NotConfirmed")


def _discard(daemon: Client, started: StartReply) -> str:
    """Drop the pending token; say what became of it."""
    try:
        daemon.call(messages.Discard(token=started.token))
    except OtpBridgeError:
        return (
            f"Token {started.token} could not be discarded; it was never in force and is gone in"
            f" {show.duration(started.expires_in)}."
        )
    return "The new token was discarded; nothing has changed."
