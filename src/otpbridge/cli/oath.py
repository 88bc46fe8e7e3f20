"""How new totp and hotp tokens are shown: a QR code, and the key below it in both its forms."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from otpbridge.cli import ask, screen, show
from otpbridge.cli.enrolling import Showing, required
from otpbridge.cli.session import Session
from otpbridge.enroll.seeds import grouped
from otpbridge.model import Kind

if TYPE_CHECKING:
    from otpbridge.wire.messages import StartReply

_ADVICE = "Use a separate device, such as a phone, tablet or hardware key: not the one you log in from."


@dataclass(frozen=True, slots=True)
class Picture:
    """Where the QR code goes: `save` before the keys are shown, and on the terminal with them when `drawn`."""

    save: Callable[[str], None]
    drawn: bool


def picture(session: Session, where: str | None) -> Picture:
    """What --qr asks for. Raises a usage error for a place that is none."""
    from otpbridge.enroll import qr  # noqa: PLC0415 - not needed for --help

    drawn = where in {None, "terminal"}
    if where in {None, "none"} or (where == "terminal" and not session.json and ask.on_terminal()):
        return Picture(lambda _uri: None, drawn)
    if where == "terminal":
        return Picture(lambda uri: click.echo(qr.terminal(uri), err=session.json, nl=False, color=True), drawn)
    path = Path(str(where))
    if path.suffix.lower() not in {".png", ".svg"}:
        raise click.UsageError("--qr is terminal, none, or a file that ends in .png or .svg")
    return Picture(lambda uri: qr.save(uri, path), drawn)


def showing(started: StartReply, *, picture: Picture) -> Showing:
    """What is shown of a new token. Saves its picture, which may fail."""
    uri, base32 = required(started.uri), required(started.seed_base32)
    picture.save(uri)
    return Showing(
        values={"secret_hex": started.seed_hex, "secret_base32": base32, "uri": uri},
        keys=_key_lines(uri, base32, started.seed_hex),
        also=[f"URI                        {uri}"],
        advice=[
            _ADVICE,
            "Scan the code or type the first key into the app. Both keys are shown now and never again.",
        ],
        question="Code that it shows now",
        draw=(lambda below: _drawing(uri, below)) if picture.drawn else None,
    )


def _key_lines(uri: str, base32: str, hexadecimal: str) -> list[str]:
    from otpbridge.enroll import otpauth  # noqa: PLC0415 - not needed for --help

    key = otpauth.parse(uri)
    settings = f"{key.parameters.algorithm.value}, {key.parameters.digits} digits"
    settings += f", a new code every {key.parameters.period} s" if key.kind is Kind.TOTP else ", counter-based"
    return [
        f"Account                    {show.visible(f'{key.issuer}: {key.account}' if key.issuer else key.account)}",
        f"Google Authenticator key   {grouped(base32)}",
        f"TOTP Seed key (hex)        {hexadecimal}",
        f"Settings                   {settings}",
    ]


def _drawing(uri: str, below: int) -> str:
    """The QR code for the terminal; a line in its place where it does not fit."""
    from otpbridge.enroll import qr  # noqa: PLC0415 - not needed for --help

    space = screen.size()
    text = qr.terminal(uri)
    if not _writable(text):
        return "This terminal does not take UTF-8, so no QR code is drawn: use --qr FILE.png.\n\n"
    if qr.columns(uri) > space.columns:
        return f"The QR code needs {qr.columns(uri)} columns: widen this window, or use --qr FILE.png.\n\n"
    lines = text.count("\n") + below
    if lines > space.lines:
        text += f"(The QR code and the keys need {lines} lines: make this window taller, or scroll.)\n"
    return text


def _writable(text: str) -> bool:
    try:
        text.encode(sys.stdout.encoding)
    except UnicodeEncodeError:
        return False
    return True
