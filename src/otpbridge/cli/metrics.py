"""`otpbridge metrics`: the daemon's numbers, once."""

from __future__ import annotations

from pathlib import Path

import click

from otpbridge.cli import exposition, show
from otpbridge.cli.options import everywhere, example
from otpbridge.cli.saving import save
from otpbridge.cli.session import Session
from otpbridge.errors import UnavailableError
from otpbridge.wire import messages

_MODE = 0o644


@click.command(
    epilog=example("otpbridge metrics", "otpbridge metrics --output /var/lib/prometheus/node-exporter/otpbridge.prom")
)
@click.option(
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Put them into this file, all at once, for node_exporter's textfile collector.",
)
@everywhere
@click.pass_obj
def metrics(session: Session, output: Path | None) -> None:
    """Print the daemon's numbers for Prometheus.

    For admins and for callers with the right `metrics`. They name no user, token or address. With --output and a
    daemon that is away, the file says so (otpbridge_up 0), and the exit code is 3.
    """
    daemon, _admin = session.nearest()
    try:
        with daemon:
            found = exposition.whole(daemon.stream(messages.Read()))
    except UnavailableError:
        if output is not None:
            _put(output, exposition.text([exposition.up(reached=False)]))
        raise
    if session.json:
        session.answer(found)
    page = exposition.text([exposition.up(reached=True), *found])
    if output is not None:
        _put(output, page)
    elif not session.json:
        show.line(page.rstrip("\n"))


def _put(path: Path, page: str) -> None:
    """Put a page in place of a file; who reads it meanwhile has the old one. Raises CommandError."""
    # The collector reads what ends in .prom, and no draft does.
    save(path, [page.encode()], mode=_MODE)
