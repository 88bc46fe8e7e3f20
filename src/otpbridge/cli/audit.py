"""`otpbridge audit`: who did what."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING

import click

from otpbridge.cli import show
from otpbridge.cli.exits import Code
from otpbridge.cli.options import everywhere, example
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


@audit.command(epilog=example("otpbridge audit verify", "otpbridge audit verify --anchor ANCHOR"))
@click.option("--anchor", metavar="ANCHOR", help="From `status` or an earlier check: nothing may be cut since then.")
@everywhere
@click.pass_obj
def verify(session: Session, anchor: str | None) -> Code:
    """Check that no entry was changed.

    With an anchor also that none was cut off since. Exit code 1 if one was.
    """
    with session.admin(_LONG) as daemon:
        reply = daemon.call(messages.AuditVerify(anchor=anchor))
    if session.json:
        session.answer(reply)
    if not reply.intact:
        show.note(f"otpbridge: the audit log is broken: {show.visible(reply.fault or 'no reason was given')}")
        return Code.REFUSED
    if not session.json:
        show.line(f"The audit log is intact: {reply.entries} entries.")
        show.line(f"Keep this anchor elsewhere to see later that nothing was cut off: {reply.anchor}")
    return Code.DONE
