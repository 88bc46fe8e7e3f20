"""The command `otpbridge`: finds the subcommand, loads it alone, and turns what goes wrong into an exit code."""

from __future__ import annotations

import importlib
import io
import os
import sys
from pathlib import Path
from typing import Any, NamedTuple

import click

from otpbridge import __version__
from otpbridge.cli import show
from otpbridge.cli.exits import Code, CommandError, PipeClosedError, explain
from otpbridge.cli.options import example, json_option, run_dir_option
from otpbridge.cli.session import Session
from otpbridge.errors import OtpBridgeError


class _Entry(NamedTuple):
    module: str
    summary: str


COMMANDS = {
    "enroll": _Entry("enroll", "Give a user a new authenticator."),
    "verify": _Entry("verify", "Check a code."),
    "user": _Entry("user", "Manage users: what is required of them, who is locked, who lost a phone."),
    "token": _Entry("token", "List, confirm, disable and remove tokens."),
    "yubikey": _Entry("yubikeys", "Put tokens on YubiKeys, and see what is on them."),
    "stack": _Entry("stack", "Check stacks, and explain what they do to a user."),
    "import": _Entry("import_", "Take over tokens from a file."),
    "status": _Entry("status", "Show how the daemon is."),
    "doctor": _Entry("doctor", "Check the installation, and say how to mend what is wrong."),
    "metrics": _Entry("metrics", "Print the daemon's numbers for Prometheus."),
    "exporter": _Entry("exporter", "Serve the daemon's numbers to Prometheus."),
    "audit": _Entry("audit", "Read and check the audit log."),
    "notify": _Entry("notify", "Hand on what happens to users and tokens."),
    "key": _Entry("key", "Replace the master key."),
    "relay": _Entry("relay", "Let hosts ask this daemon over the network."),
    "backup": _Entry("backup", "Save a copy of the store."),
    "restore": _Entry("backup", "Make a store from a backup."),
    "store": _Entry("store", "Prepare a store on a database server, or move one."),
    "serve": _Entry("serving", "Run the daemon."),
    "portal": _Entry("portal", "Run the reference portal: login and enrolment in a browser."),
    "completion": _Entry("completion", "Print the completion script of a shell."),
}
"""Subcommands with the module that holds each; the summaries are here so that --help loads none of them."""


class Commands(click.Group):
    """A group whose commands are loaded when they are run."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Name the commands, in the order of a first use."""
        return [*COMMANDS]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Load a command."""
        entry = COMMANDS.get(cmd_name)
        if entry is None:
            return None
        module = importlib.import_module(f"otpbridge.cli.{entry.module}")
        command = getattr(module, "import_" if cmd_name == "import" else cmd_name)
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands without loading them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, entry.summary) for name, entry in COMMANDS.items()])


@click.command(
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog=example("otpbridge enroll totp alice", "otpbridge verify alice", "otpbridge user require alice"),
)
@run_dir_option
@json_option
@click.version_option(__version__, prog_name="otpbridge")
@click.pass_context
def cli(context: click.Context) -> None:
    """A second factor for Linux logins and web portals.

    Exit codes: 0 done or success, 1 refused, 2 usage, 3 daemon unreachable or failing, 4 not permitted.
    """
    context.ensure_object(Session)


def main() -> None:
    """Run the command line and exit."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Run one command line; return its exit code. Nothing that can be expected becomes a traceback."""
    _open_what_is_closed()
    session = Session()
    try:
        return _invoke(arguments, session)
    except KeyboardInterrupt:
        return Code.INTERRUPTED
    except PipeClosedError:
        return Code.PIPE_CLOSED


def _open_what_is_closed() -> None:
    """Have all three standard streams, so that no socket becomes one of them, and let them write any name."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open(mode, encoding="utf-8"))  # noqa: SIM115 - until we exit
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _invoke(arguments: list[str], session: Session) -> int:
    try:
        result: Any = cli.main(arguments, prog_name="otpbridge", standalone_mode=False, obj=session)
    except click.Abort:
        return Code.INTERRUPTED
    except click.ClickException as error:
        error.show()
        _answer_error(session, "Usage", error.format_message())
        return error.exit_code
    except PipeClosedError:
        raise
    except UnicodeEncodeError:
        return _refused(session, CommandError(Code.USAGE, "an argument is not UTF-8 text", "BadParameters"))
    except OtpBridgeError as error:
        return _refused(session, explain(error))
    return result if isinstance(result, int) else Code.DONE


def _refused(session: Session, error: CommandError) -> Code:
    show.note(f"otpbridge: {show.visible(str(error))}")
    _answer_error(session, error.name, str(error))
    return error.code


def _answer_error(session: Session, name: str, message: str) -> None:
    """Keep the promise of one JSON value when the command failed before it gave one."""
    if session.json and not session.answered:
        session.answer({"error": name, "message": message})
