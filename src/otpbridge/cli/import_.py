"""`otpbridge import`: take over tokens from a file."""

from __future__ import annotations

from collections.abc import Iterator
from typing import IO, TYPE_CHECKING

import click
import msgspec

from otpbridge.cli import show
from otpbridge.cli.exits import Code
from otpbridge.cli.options import client_option, everywhere, example
from otpbridge.cli.session import Session
from otpbridge.wire import messages

if TYPE_CHECKING:
    from otpbridge.client import Client

_FRAME = 60_000
"""Bytes of lines in one call; a frame holds 64 KiB with all that goes around them."""
_LINE = 16_384
"""Bytes of the longest line that is sent, as JSON; no token is as long."""
_EMPTY = 3
"""Bytes of an empty line as JSON, with its comma."""
_TOLD = 50
"""Errors that are told one by one."""
_LONG = 3600.0


@click.command(name="import", epilog=example("otpbridge import tokens.tsv", "otpbridge import - < tokens.tsv"))
@click.argument("file", type=click.File("rb"), metavar="FILE")
@client_option
@click.option("--pending", is_flag=True, help="Each token must be confirmed by a code before it is in force.")
@everywhere
@click.pass_obj
def import_(session: Session, file: IO[bytes], client: str | None, *, pending: bool) -> Code:
    """Take over tokens, all of FILE or none. `-` is standard input.

    A line per token: the user, a tab, and the otpauth URI, or an export of Google Authenticator (otpauth-migration)
    with one account; for a Yubico OTP the user, a tab, and public ID in modhex, private ID in hex, AES key in hex,
    with commas between them. Empty lines and lines that start with # are passed over.
    """
    with session.admin(_LONG) as daemon:
        imported, errors = _send(daemon, file, client, pending=pending)
    if session.json:
        told = [{"line": line, "reason": reason} for line, reason in sorted(errors.items())]
        session.answer({"imported": imported, "errors": told})
    for line, reason in sorted(errors.items())[:_TOLD]:
        show.note(f"line {line}: {show.visible(reason)}")
    if len(errors) > _TOLD:
        show.note(f"and more: these are the first {_TOLD}")
    if errors:
        show.note("otpbridge: nothing was imported; correct these lines and try again")
        return Code.REFUSED
    session.tell(f"{imported} {'token was' if imported == 1 else 'tokens were'} imported.")
    return Code.DONE


def _send(daemon: Client, file: IO[bytes], client: str | None, *, pending: bool) -> tuple[int, dict[int, str]]:
    """Send the file in frames on one connection; return how many were stored, and the errors by line."""
    errors: dict[int, str] = {}
    imported = 0
    for first, lines, last in _frames(file, errors):
        # A line that was not sent must not be forgotten: then the daemon is never told that this was all.
        request = messages.Import(
            lines=tuple(lines), first_line=first, last=last and not errors, client=client, pending=pending or None
        )
        reply = daemon.call(request)
        imported = reply.imported
        errors.update((error.line, error.reason) for error in reply.errors)
    return (0 if errors else imported), errors


def _frames(file: IO[bytes], errors: dict[int, str]) -> Iterator[tuple[int, list[str], bool]]:
    """Cut the file into runs of lines: the number of the first, the lines, and whether these are the last.

    A line that cannot be sent is put into `errors` and an empty one in its place, so that the numbers stay right.
    """
    first, lines, size = 1, list[str](), 0
    for number, raw in enumerate(file, 1):
        text, cost = _text(raw.rstrip(b"\r\n"), number, errors)
        if lines and size + cost > _FRAME:
            yield first, lines, False
            first, lines, size = number, [], 0
        lines.append(text)
        size += cost
    yield first, lines, True


def _text(raw: bytes, number: int, errors: dict[int, str]) -> tuple[str, int]:
    """The text of a line and its size in a frame, in bytes."""
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError:
        errors[number] = "the line is not UTF-8 text"
        return "", _EMPTY
    cost = len(msgspec.json.encode(text)) + 1
    if cost > _LINE:
        errors[number] = "the line is too long to be a token"
        return "", _EMPTY
    return text, cost
