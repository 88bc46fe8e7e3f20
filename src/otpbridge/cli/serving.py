"""The options of `otpbridge serve` and `otpbridged`, and their help."""

from __future__ import annotations

from pathlib import Path

import click

from otpbridge import __version__
from otpbridge.cli.options import config_option, example, relay_option, run_dir_option, state_dir_option
from otpbridge.cli.serve import become_daemon
from otpbridge.cli.session import Session


@click.command(epilog=example("otpbridge serve", "otpbridge serve --state-dir ./state --run-dir ./run"))
@state_dir_option
@run_dir_option
@config_option
@relay_option
@click.pass_obj
def serve(session: Session, state_dir: Path | None, config: Path | None, relay: str | None) -> None:
    """Run the daemon; the same as otpbridged.

    Nothing needs to be configured. Store, master key and sockets are made at the first start. SIGTERM ends it once
    the calls in flight are answered, SIGHUP reads the configuration again. With --relay there is no store here:
    logins are judged by daemons on other machines.
    """
    become_daemon(state_dir=state_dir, run_dir=session.run_dir, config=config, relay=relay)


@click.command(name="otpbridged", epilog=example("otpbridged", "otpbridged --config ./otpbridge.toml"))
@state_dir_option
@run_dir_option
@config_option
@relay_option
@click.version_option(__version__, prog_name="otpbridged")
@click.pass_context
def otpbridged(context: click.Context, state_dir: Path | None, config: Path | None, relay: str | None) -> None:
    """Run the daemon of otpbridge.

    Nothing needs to be configured. Store, master key and sockets are made at the first start. SIGTERM ends it once
    the calls in flight are answered, SIGHUP reads the configuration again. With --relay there is no store here:
    logins are judged by daemons on other machines.
    """
    run_dir = context.ensure_object(Session).run_dir
    become_daemon(state_dir=state_dir, run_dir=run_dir, config=config, relay=relay)
