"""`otpbridge store`: a store on a database server."""

from __future__ import annotations

from pathlib import Path

import click

from otpbridge.cli.options import config_option, example
from otpbridge.cli.serve import become_daemon


@click.group(epilog=example("otpbridge store upgrade --role otpbridge_owner"))
def store() -> None:
    """Prepare a store on a database server."""


@store.command(epilog=example("otpbridge store upgrade --role otpbridge_owner"))
@click.option(
    "--role", default="", metavar="ROLE", help="The role that owns the tables, where it is not the daemon's."
)
@config_option
def upgrade(role: str, config: Path | None) -> None:
    """Make or upgrade the tables of the PostgreSQL store.

    The daemon does so itself where its role may. Where it may not, stop all daemons, run this as the owner of the
    tables, and start them again. `[store] url` in the configuration says where the store is.
    """
    become_daemon(upgrade=role, config=config)
