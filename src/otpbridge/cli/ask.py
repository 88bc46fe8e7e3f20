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
    return _asked(prompt, "no code was given: standard input is at its end")


def line(prompt: str) -> str:
    """Ask for anything else in the same way."""
    return _asked(prompt, "no answer was given: standard input is at its end")


def hidden(prompt: str) -> str:
    """Ask for a secret, which is not shown while it is typed; without a terminal, as `code` does."""
    if not sys.stdin.isatty():
        return line(prompt)
    from getpass import getpass  # noqa: PLC0415 - not needed for --help

    try:
        return getpass(prompt, sys.stderr)
    except EOFError:
        raise CommandError(Code.USAGE, "no answer was given", "NoInput") from None


def answers(most: int) -> list[str]:
    """The lines of standard input, up to its end or `most` of them. Raises CommandError where there is none."""
    found = [code("")]
    while len(found) < most and (text := _read()):
        found.append(text.rstrip("\r\n"))
    return found


def _asked(prompt: str, otherwise: str) -> str:
    if sys.stdin.isatty():
        click.echo(prompt, err=True, nl=False)
        sys.stderr.flush()
    text = _read()
    if not text:
        raise CommandError(Code.USAGE, otherwise, "NoInput")
    return text.rstrip("\r\n")


def _read() -> str:
    try:
        return sys.stdin.readline(_LONGEST)
    except UnicodeDecodeError:
        raise CommandError(Code.USAGE, "standard input is not text", "BadParameters") from None


def sure(question: str, *, yes: bool) -> None:
    """Ask before something is destroyed; scripts, which have no terminal, mean what they say.

    Raises CommandError where the person is not sure.
    """
    if yes or not on_terminal():
        return
    if not click.confirm(question, err=True):
        raise CommandError(Code.REFUSED, "nothing was changed", "Cancelled")
