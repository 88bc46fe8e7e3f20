"""`otpbridge import`: take over tokens from a file."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import IO, TYPE_CHECKING

import click
import msgspec

from otpbridge.cli import import_pskc, show
from otpbridge.cli.exits import Code, CommandError
from otpbridge.cli.options import client_option, everywhere, example
from otpbridge.cli.session import Session
from otpbridge.enroll.pskc import Fault
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


@click.command(
    name="import",
    epilog=example(
        "otpbridge import tokens.tsv",
        "otpbridge import - < tokens.tsv",
        "otpbridge import delivery.pskcxml --users users.csv --key-file transport.hex",
    ),
)
@click.argument("file", type=click.File("rb"), metavar="FILE")
@client_option
@click.option("--pending", is_flag=True, help="Each token must be confirmed by a code before it is in force.")
@click.option("--users", type=click.File("rb"), metavar="FILE", help="PSKC: whose they are, CSV with serial,user.")
@click.option("--only-listed", is_flag=True, help="PSKC: leave out what --users does not list.")
@click.option("--key-file", type=click.File("rb"), metavar="FILE", help="PSKC: the pre-shared key, in hex.")
@click.option("--passphrase-file", type=click.File("rb"), metavar="FILE", help="PSKC: the passphrase, on one line.")
@click.option("--digits", type=click.IntRange(6, 8), help="PSKC: length of codes where the file does not say it.")
@everywhere
@click.pass_obj
def import_(
    session: Session,
    file: IO[bytes],
    client: str | None,
    *,
    pending: bool,
    users: IO[bytes] | None,
    only_listed: bool,
    key_file: IO[bytes] | None,
    passphrase_file: IO[bytes] | None,
    digits: int | None,
) -> Code:
    """Take over tokens, all of FILE or none. `-` is standard input.

    A line per token: the user, a tab, and the otpauth URI, or an export of Google Authenticator (otpauth-migration)
    with one account; for a Yubico OTP the user, a tab, and public ID in modhex, private ID in hex, AES key in hex,
    with commas between them. Empty lines and lines that start with # are passed over.

    Or a PSKC file (RFC 6030), as makers of hardware tokens send them. Its key or passphrase is asked for, or comes
    from a file. Whose a token is says --users, else the UserId in the file.
    """
    first = file.readline(_LINE)
    options = import_pskc.Options(users, key_file, passphrase_file, digits, only_listed=only_listed)
    if import_pskc.is_pskc(first):
        return _import_pskc(session, first, file, options, client, pending=pending)
    if options.given():
        raise CommandError(Code.USAGE, "this is no PSKC file, for which these options are", "BadParameters")
    errors: dict[int, str] = {}
    with session.admin(_LONG) as daemon:
        # The rest of a first line that is longer than any comes with it.
        lines = chain([first if first.endswith(b"\n") else first + file.readline()], file)
        imported = _send(daemon, lines, errors, client, pending=pending)
    faults = [Fault(line, "", reason) for line, reason in sorted(errors.items())]
    return _tell(session, imported, faults)


def _import_pskc(
    session: Session,
    first: bytes,
    rest: IO[bytes],
    options: import_pskc.Options,
    client: str | None,
    *,
    pending: bool,
) -> Code:
    """Send the keys of a PSKC file, if all of them can be taken."""
    batch, faults = import_pskc.load(first, rest, options)
    imported = 0
    if not faults:
        errors: dict[int, str] = {}
        with session.admin(_LONG) as daemon:
            imported = _send(daemon, (line.encode() for line in batch.lines), errors, client, pending=pending)
        faults = [batch.fault(line, reason) for line, reason in sorted(errors.items())]
    return _tell(session, imported, faults)


def _tell(session: Session, imported: int, faults: Sequence[Fault]) -> Code:
    if session.json:
        session.answer({"imported": imported, "errors": [_as_json(fault) for fault in faults]})
    for fault in faults[:_TOLD]:
        serial = f", serial number {fault.serial}" if fault.serial else ""
        show.note(f"line {fault.line}{serial}: {show.visible(fault.reason)}")
    if len(faults) > _TOLD:
        show.note(f"and more: these are the first {_TOLD}")
    if faults:
        show.note("otpbridge: nothing was imported; correct these lines and try again")
        return Code.REFUSED
    session.tell(f"{imported} {'token was' if imported == 1 else 'tokens were'} imported.")
    return Code.DONE


def _as_json(fault: Fault) -> dict[str, int | str]:
    serial = {"serial": fault.serial} if fault.serial else {}
    return {"line": fault.line, **serial, "reason": fault.reason}


def _send(daemon: Client, file: Iterable[bytes], errors: dict[int, str], client: str | None, *, pending: bool) -> int:
    """Send the lines in frames on one connection; return how many were stored. `errors` takes the errors by line."""
    imported = 0
    for first, lines, last in _frames(file, errors):
        # A line that was not sent must not be forgotten: then the daemon is never told that this was all.
        request = messages.Import(
            lines=tuple(lines), first_line=first, last=last and not errors, client=client, pending=pending or None
        )
        reply = daemon.call(request)
        imported = reply.imported
        errors.update((error.line, error.reason) for error in reply.errors)
    return 0 if errors else imported


def _frames(file: Iterable[bytes], errors: dict[int, str]) -> Iterator[tuple[int, list[str], bool]]:
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
