"""Ask the person, or read the same from standard input."""

from __future__ import annotations

import sys

import click

from otpbridge.cli.exits import Code, CommandError

_LONGEST = 4096


def on_terminal() -> bool:
    """Whether a person sits at both ends."""
    return sys.stdin.isatty() and sys.stdout.isatty()


def code(prompt: str) -> str:
    """Ask for a code; without a terminal, read one line from standard input. Raises CommandError at its end.

    The prompt goes to standard error and only to a person, so that standard output holds the result alone.
    """
    if sys.stdin.isatty():
        click.echo(prompt, err=True, nl=False)
        sys.stderr.flush()
    try:
        text = sys.stdin.readline(_LONGEST)
    except UnicodeDecodeError:
        raise CommandError(Code.USAGE, "standard input is not text", "BadParameters") from None
    if not text:
        raise CommandError(Code.USAGE, "no code was given: standard input is at its end", "NoInput")
    return text.rstrip("\r\n")


def sure(question: str, *, yes: bool) -> None:
    """Ask before something is destroyed; scripts, which have no terminal, mean what they say.

    Raises CommandError where the person is not sure.
    """
    if yes or not on_terminal():
        return
    if not click.confirm(question, err=True):
        raise CommandError(Code.REFUSED, "nothing was changed", "Cancelled")
