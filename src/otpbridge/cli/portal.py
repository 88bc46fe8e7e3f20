"""`otpbridge portal`: run the reference portal in place of this process."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path

import click

from otpbridge.cli.exits import Code, CommandError
from otpbridge.cli.options import example

_LIBRARIES = ("jinja2", "starlette", "uvicorn")


@click.command(epilog=example("otpbridge portal", "otpbridge portal --config ./portal.toml"))
@click.option(
    "--config",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Its configuration.  [default: /etc/otpbridge/portal.toml]",
)
def portal(config: Path | None) -> None:
    """Run the reference portal: login and enrolment in a browser.

    It calls the daemon like any other backend, as a caller that otpbridge.toml names. SIGTERM ends it.
    """
    missing = [name for name in _LIBRARIES if importlib.util.find_spec(name) is None]
    if missing:
        raise CommandError(
            Code.USAGE, f"the portal needs {', '.join(missing)}: pip install 'otpbridge[portal]'", "NoLibrary"
        )
    chosen = [] if config is None else ["--config", os.fspath(config)]
    sys.stdout.flush()
    # -P: the folder we are called in is not searched for modules.
    os.execv(sys.executable, [sys.executable, "-P", "-m", "otpbridge.portal", *chosen])  # noqa: S606 - no shell
