"""`otpbridge store`: a store on a database server."""

from __future__ import annotations

from pathlib import Path

import click

from otpbridge.cli.options import config_option, example, state_dir_option
from otpbridge.cli.serve import become_daemon


@click.group(epilog=example("otpbridge store upgrade --role otpbridge_owner"))
def store() -> None:
    """Prepare a store on a database server, or move one."""


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


@store.command(epilog=example("otpbridge store migrate postgresql:///otpbridge", "otpbridge store migrate sqlite"))
@click.argument("target", metavar="URL")
@state_dir_option
@config_option
def migrate(target: str, state_dir: Path | None, config: Path | None) -> None:
    """Move the store to another database, while all daemons are stopped.

    URL is where it goes, `sqlite` the file in the state folder. Interrupted or after a crash, run it again: it goes
    on where it was. Rows are counted and the audit log is checked, then the old store opens no more: a code that is
    spent in one of two copies would be good in the other. Leave a password out of URL; ~/.pgpass holds it.
    """
    become_daemon(migrate=target, state_dir=state_dir, config=config)
