"""`otpbridge serve` and `otpbridged`: run the daemon in place of this process."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

_OPTIONS = frozenset({"--state-dir", "--run-dir", "--config", "--relay"})


def become_daemon(**options: str | Path | None) -> NoReturn:
    """Replace this process by the daemon, with the options that are not None."""
    arguments = [
        word
        for name, value in options.items()
        if value is not None
        for word in (f"--{name.replace('_', '-')}", os.fspath(value))
    ]
    sys.stdout.flush()
    _replace(arguments)


def otpbridged() -> None:
    """Run the daemon and never return."""
    arguments = sys.argv[1:]
    if _is_plain(arguments):
        _replace(arguments)
    # Whoever asks for help, or makes a mistake, can wait for it to be loaded; a service manager need not.
    from otpbridge.cli.serving import otpbridged as command  # noqa: PLC0415

    command(prog_name="otpbridged")


def _is_plain(arguments: Sequence[str]) -> bool:
    """Whether these are options with their values and nothing else, so that the daemon can be left to judge them."""
    names, values = arguments[::2], arguments[1::2]
    fit = len(names) == len(values) > 0 and _OPTIONS.issuperset(names)
    return fit and not any(value.startswith("-") for value in values)


def _replace(arguments: Sequence[str]) -> NoReturn:
    # -P: the folder we are called in is not searched for modules.
    os.execv(sys.executable, [sys.executable, "-P", "-m", "otpbridge.daemon", *arguments])  # noqa: S606 - no shell
