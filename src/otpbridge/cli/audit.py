"""`otpbridge audit`: who did what."""

from __future__ import annotations

import gzip
import io
import json
import math
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

import click

from otpbridge.cli import show
from otpbridge.cli.exits import Code, CommandError
from otpbridge.cli.options import Moment, everywhere, example
from otpbridge.cli.saving import save, write
from otpbridge.cli.session import Session
from otpbridge.model import LOCAL
from otpbridge.wire import messages

if TYPE_CHECKING:
    from otpbridge.wire.messages import Entry

_LONG = 3600.0


@click.group(epilog=example("otpbridge audit tail -f", "otpbridge audit verify"))
def audit() -> None:
    """Read and check the audit log."""


def entry_line(entry: Entry) -> str:
    """One entry on one line."""
    whose = entry.user or ""
    if entry.client not in {None, LOCAL}:
        whose = f"{entry.client}/{whose}"
    words = [f"#{entry.sequence}", show.moment(entry.at), entry.event]
    words += [word for word in (entry.verdict, whose) if word]
    named = [
        ("token", entry.token),
        ("reason", entry.reason),
        ("stack", entry.stack),
        ("service", entry.service),
        ("rhost", entry.rhost),
        ("host", entry.host),
        ("uid", entry.uid),
        ("pid", entry.pid),
    ]
    words += [f"{name}={_quoted(value)}" for name, value in named if value is not None]
    words += [f"{name}={_quoted(value)}" for name, value in (entry.detail or {}).items()]
    return show.visible(" ".join(words))


def _quoted(value: object) -> str:
    """A value that cannot be taken for more than one."""
    text = value if isinstance(value, str) else json.dumps(value)
    plain = text and not set(text) & set(" =\"'\\")
    return text if plain else json.dumps(text, ensure_ascii=False)


@audit.command(epilog=example("otpbridge audit tail", "otpbridge audit tail -f -n 0"))
@click.option(
    "-n",
    "--lines",
    "count",
    type=click.IntRange(0),
    default=20,
    metavar="N",
    show_default=True,
    help="How many entries.",
)
@click.option("-f", "--follow", is_flag=True, help="Go on with each new entry, until interrupted.")
@everywhere
@click.pass_obj
def tail(session: Session, count: int, *, follow: bool) -> None:
    """Show the newest entries, the oldest of them first.

    With --json an array; with --json and -f an object on each line.
    """
    every: list[Entry] = []
    with session.admin() as daemon:
        request = messages.AuditTail(count=count, follow=follow or None)
        for reply in daemon.stream(request, timeout=math.inf if follow else None):
            if not session.json:
                for entry in reply.entries:
                    show.line(entry_line(entry))
            elif follow:
                for entry in reply.entries:
                    session.answer(entry)
            else:
                every += reply.entries
    if session.json and not follow:
        session.answer(every)


@audit.command(
    epilog=example(
        "otpbridge audit verify",
        "otpbridge audit verify --anchor ANCHOR",
        "otpbridge audit verify /var/lib/otpbridge/audit/*.gz",
    )
)
@click.argument("files", nargs=-1, type=click.Path(path_type=Path, dir_okay=False, exists=True), metavar="[FILE]...")
@click.option("--anchor", metavar="ANCHOR", help="From `status` or an earlier check: nothing may be cut since then.")
@click.option("--offline", is_flag=True, help="Check files without a daemon: that none has a gap, not what they say.")
@everywhere
@click.pass_obj
def verify(session: Session, files: tuple[Path, ...], anchor: str | None, *, offline: bool) -> Code:
    """Check that no entry was changed.

    With an anchor also that none was cut off since. Exit code 1 if one was. With files, from `export` or the daemon's
    archive, the entries in these are checked, by the key that the daemon has.
    """
    if files:
        return _verify_files(session, files, anchor, offline=offline)
    if offline:
        raise click.UsageError("--offline is for files")
    with session.admin(_LONG) as daemon:
        reply = daemon.call(messages.AuditVerify(anchor=anchor))
    if session.json:
        session.answer(reply)
    if not reply.intact:
        show.note(f"otpbridge: the audit log is broken: {show.visible(reply.fault or 'no reason was given')}")
        return Code.REFUSED
    if not session.json:
        begins = int(reply.begins.partition(":")[0])
        where = f", of which the first {begins} are in archives alone" if begins else ""
        show.line(f"The audit log is intact: {reply.entries} entries{where}.")
        show.line(f"Keep this anchor elsewhere to see later that nothing was cut off: {reply.anchor}")
    return Code.DONE


def _verify_files(session: Session, files: tuple[Path, ...], anchor: str | None, *, offline: bool) -> Code:
    from otpbridge.cli.archives import Checker  # noqa: PLC0415 - only here
    from otpbridge.errors import StoreError  # noqa: PLC0415

    with nullcontext() if offline else session.admin() as daemon:
        try:
            span = Checker(daemon, anchor).check(files)
        except ValueError as error:
            raise click.BadParameter(str(error), param_hint="--anchor") from None
        except StoreError as error:
            if session.json:
                session.answer({"intact": False, "fault": str(error)})
            show.note(f"otpbridge: the archives are broken: {show.visible(str(error))}")
            return Code.REFUSED
    if session.json:
        session.answer(
            {"intact": True, "first": span.first, "last": span.last, "joins": span.joins, "by_key": not offline}
        )
        return Code.DONE
    entries = f"Entries {span.first} to {span.last}"
    if offline:
        show.line(f"{entries} are there without a gap. Whether somebody changed what they say was not checked.")
        return Code.DONE
    show.line(f"{entries} are intact.")
    if not span.joins:
        show.line("The log in the store does not begin where they end: there are entries that no file here holds.")
    return Code.DONE


@audit.command(
    epilog=example("otpbridge audit export audit.jsonl.gz", "otpbridge audit export --before 2026-01-01 - | less")
)
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False, allow_dash=True), metavar="FILE")
@click.option("--before", type=Moment(), metavar="WHEN", help="Those before a date (2026-01-31), or older than 90d.")
@everywhere
@click.pass_obj
def export(session: Session, file: Path, before: int | None) -> None:
    """Save entries as lines of JSON, compressed where FILE ends in `.gz`. `-` is standard output.

    `otpbridge audit verify FILE` checks them. Nothing is taken out of the log.
    """
    if str(file) == "-":
        if session.json:
            raise click.UsageError("standard output cannot hold both the entries and JSON")
        for piece in _pieces(session, before):
            write(piece)
        return
    pieces = _pieces(session, before)
    size = save(file, _compressed(pieces) if file.name.endswith(".gz") else pieces)
    if session.json:
        session.answer({"file": str(file), "bytes": size})
    else:
        show.line(f"Saved {size} bytes to {file}.")


def _pieces(session: Session, before: int | None) -> Iterator[bytes]:
    ended = False
    with session.admin() as daemon:
        for reply in daemon.stream(messages.AuditExport(before=before), timeout=_LONG):
            ended = not reply.data
            yield reply.data.encode()
    if not ended:
        raise CommandError(Code.UNAVAILABLE, "the daemon has not sent all entries", "NoAnswer")


def _compressed(pieces: Iterator[bytes]) -> Iterator[bytes]:
    buffer = io.BytesIO()
    with gzip.GzipFile(filename="", mode="wb", fileobj=buffer) as out:
        for piece in pieces:
            out.write(piece)
            yield buffer.getvalue()
            buffer.seek(0)
            buffer.truncate()
    yield buffer.getvalue()


@audit.command(epilog=example("otpbridge audit prune --before 400d"))
@click.option(
    "--before",
    type=Moment(),
    required=True,
    metavar="WHEN",
    help="Those before a date (2026-01-31), or older than 400d; a day at least.",
)
@everywhere
@click.pass_obj
def prune(session: Session, before: int) -> None:
    """Have the daemon archive old entries, and cut them off the log.

    They go to files in /var/lib/otpbridge/audit, or where `[audit] archive` says. `otpbridge audit verify` still
    shows that nothing else was cut. `[audit] keep_days` in otpbridge.toml has the daemon do so by itself.
    """
    cuts = []
    with session.admin() as daemon:
        for reply in daemon.stream(messages.AuditPrune(before=before), timeout=math.inf):
            if reply.file is None:
                continue
            cuts.append(reply)
            if not session.json:
                show.line(f"Entries {reply.first} to {reply.last} are in {show.visible(reply.file)} now.")
    if session.json:
        session.answer(cuts)
    elif not cuts:
        show.line("There are none.")
