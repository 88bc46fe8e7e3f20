"""Options that more than one command has."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import click

from otpbridge.cli.session import Session

F = TypeVar("F", bound=Callable[..., Any])


def _set_json(context: click.Context, _parameter: click.Parameter, value: bool) -> None:
    if value:
        context.ensure_object(Session).json = True


def _set_run_dir(context: click.Context, _parameter: click.Parameter, value: Path | None) -> None:
    if value is not None:
        context.ensure_object(Session).run_dir = value


json_option = click.option(
    "--json",
    is_flag=True,
    expose_value=False,
    is_eager=True,
    callback=_set_json,
    help="One JSON value on standard output, messages on standard error.",
)
run_dir_option = click.option(
    "--run-dir",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    expose_value=False,
    callback=_set_run_dir,
    help="Folder of the daemon's sockets; also $OTPBRIDGE_RUN_DIR.",
)
client_option = click.option(
    "--client", metavar="C", help="The client (tenant) of the user; `local`, the Linux accounts, when left out."
)
reason_option = click.option("--reason", metavar="TEXT", help="Why, for the audit log.")
yes_option = click.option("--yes", is_flag=True, help="Do not ask whether you are sure.")
state_dir_option = click.option(
    "--state-dir",
    type=click.Path(path_type=Path, file_okay=False, readable=False),
    metavar="DIR",
    help="Folder of the store.  [default: /var/lib/otpbridge as root, else the XDG state folder]",
)
config_option = click.option(
    "--config",
    type=click.Path(path_type=Path, dir_okay=False, readable=False),
    metavar="FILE",
    help="Configuration.  [default: /etc/otpbridge/otpbridge.toml if there is one]",
)
relay_option = click.option(
    "--relay",
    metavar="CENTRES",
    help="Have no store here; ask these central daemons, as HOST:PORT with commas between them.",
)


class Duration(click.ParamType[int]):
    """A time as people write it, in seconds."""

    name = "duration"
    _SIZES: ClassVar = {"s": 1, "m": 60, "h": 3600, "d": 86_400}

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Read `90s`, `30m`, `2h` or `1d`."""
        if isinstance(value, int):
            return value
        found = re.fullmatch(r"([1-9][0-9]{0,8})([smhd])", value.strip(), re.ASCII)
        if found is None:
            self.fail(f"{value!r} is no time; write 90s, 30m, 2h or 1d", param, ctx)
        return int(found[1]) * self._SIZES[found[2]]


class Moment(click.ParamType[int]):
    """A moment as people write it: so long ago, or a date (UTC). In Unix seconds."""

    name = "moment"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Read `90d`, `2h`, `2026-01-31` or `2026-01-31T12:00`."""
        if isinstance(value, int):
            return value
        text = value.strip()
        if re.fullmatch(r"[1-9][0-9]{0,8}[smhd]", text, re.ASCII):
            return int(time.time()) - Duration().convert(text, param, ctx)
        try:
            return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp())
        except (ValueError, OverflowError):
            self.fail(f"{value!r} is no moment; write 90d for 90 days ago, or a date as 2026-01-31", param, ctx)


def everywhere(function: F) -> F:
    """Take --run-dir and --json after the command too."""
    return run_dir_option(json_option(function))


def example(*lines: str) -> str:
    """The end of a help text: what to type."""
    return "\n".join(["\b", "Example:" if len(lines) == 1 else "Examples:", *(f"  {text}" for text in lines)])
