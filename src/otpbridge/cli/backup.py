"""`otpbridge backup` and `otpbridge restore`: a copy of the store, and the way back."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click

from otpbridge.cli import show
from otpbridge.cli.exits import Code, CommandError
from otpbridge.cli.options import config_option, everywhere, example, state_dir_option
from otpbridge.cli.saving import save, write
from otpbridge.cli.serve import become_daemon
from otpbridge.cli.session import Session

_SECONDS_PER_PIECE = 600.0


@click.command(
    epilog=example("otpbridge backup /root/otpbridge.backup", "otpbridge backup - | age -r KEY > backup.age")
)
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False, allow_dash=True), metavar="FILE")
@everywhere
@click.pass_obj
def backup(session: Session, file: Path) -> None:
    """Save a consistent copy of the store while the daemon runs. `-` is standard output.

    Seeds stay sealed in it: the master key, which restoring needs, is not in the copy. Keep it elsewhere.
    """
    if str(file) == "-":
        if session.json:
            raise click.UsageError("standard output cannot hold both the backup and JSON")
        for piece in _pieces(session):
            write(piece)
        return
    size = save(file, _pieces(session))
    if session.json:
        session.answer({"file": str(file), "bytes": size})
    else:
        show.line(f"Saved {size} bytes to {file}. The master key is not in it: keep that elsewhere.")


def _pieces(session: Session) -> Iterator[bytes]:
    from otpbridge.wire import messages  # noqa: PLC0415 - restore does without

    empty = True
    with session.admin() as daemon:
        for reply in daemon.stream(messages.Backup(), timeout=_SECONDS_PER_PIECE):
            empty = empty and not reply.data
            yield reply.data.encode()
    if empty:
        raise CommandError(Code.UNAVAILABLE, "the daemon sent an empty backup", "NoAnswer")


@click.command(epilog=example("otpbridge restore /root/otpbridge.backup --state-dir /var/lib/otpbridge"))
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False, exists=True, allow_dash=True), metavar="FILE")
@state_dir_option
@config_option
def restore(file: Path, state_dir: Path | None, config: Path | None) -> None:
    """Make a store from a backup, while the daemon is stopped. `-` is standard input.

    A store that is there is kept beside the new one under another name. The master key must be where the daemon
    looks for it. Codes that may have been spent after the backup are not accepted again.
    """
    become_daemon(restore=file, state_dir=state_dir, config=config)
