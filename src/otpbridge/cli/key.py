"""`otpbridge key`: the master key."""

from __future__ import annotations

import sys

import click

from otpbridge.cli import show
from otpbridge.cli.exits import Code, CommandError
from otpbridge.cli.options import everywhere, example
from otpbridge.cli.session import Session
from otpbridge.wire import messages

_SECONDS_PER_BATCH = 600.0


@click.group(epilog=example("otpbridge key rotate"))
def key() -> None:
    """Replace the master key."""


@key.command(epilog=example("otpbridge key rotate"))
@everywhere
@click.pass_obj
def rotate(session: Session) -> None:
    """Seal all seeds under a new master key, while logins go on.

    Interrupted or after a crash, run it again: it goes on where it was. Once done, the old key opens nothing.
    """
    last: messages.RotateKeyReply | None = None
    live = sys.stderr.isatty()
    with session.admin() as daemon:
        for last in daemon.stream(messages.RotateKey(), timeout=_SECONDS_PER_BATCH):
            if live:
                click.echo(f"\r{last.resealed} of {last.total} sealed", err=True, nl=False)
    if live:
        show.note("")
    if last is None:
        raise CommandError(Code.UNAVAILABLE, "the daemon did not say whether the key was replaced", "NoAnswer")
    if session.json:
        session.answer(last)
    else:
        seeds = "1 seed is" if last.resealed == 1 else f"{last.resealed} seeds are"
        show.line(f"{seeds} sealed under the new master key {show.visible(last.key_id)}.")
