"""What goes to standard output and standard error."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterable, Sequence
from typing import Any

import click

from otpbridge.cli.exits import Code, CommandError, PipeClosedError
from otpbridge.errors import OtpBridgeError

_GAP = "  "


def visible(text: str) -> str:
    """Text that came from elsewhere, made harmless for a terminal: control characters and the like are escaped."""
    if text.isprintable():
        return text
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape", "surrogatepass").decode()
        for letter in text
    )


def line(text: str = "") -> None:
    """Write one line to standard output, at once.

    Raises PipeClosedError when nobody reads it, CommandError when it cannot be written.
    """
    try:
        click.echo(text)
        sys.stdout.flush()
    except OSError as error:
        raise cannot_write(error) from None


def cannot_write(error: OSError) -> OtpBridgeError:
    """What to raise when standard output takes nothing more. What is left in its buffer goes nowhere, in silence."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    if isinstance(error, BrokenPipeError):
        return PipeClosedError()
    return CommandError(Code.REFUSED, f"cannot write to standard output: {error.strerror}", "CannotWrite")


def note(text: str) -> None:
    """Write a message for people to standard error."""
    click.echo(text, err=True)


def document(value: Any) -> None:
    """Write one JSON value on one line, in ASCII, so that no text in it can steer a terminal."""
    line(json.dumps(value))


def plain(message: Any) -> Any:
    """Turn a reply, or whatever is in one, into what JSON knows, with the Python names (snake_case)."""
    import msgspec  # noqa: PLC0415 - those who show no JSON do without

    if isinstance(message, msgspec.Struct):
        return {name: plain(value) for name, value in msgspec.structs.asdict(message).items()}
    if isinstance(message, dict):
        return {name: plain(value) for name, value in message.items()}
    if isinstance(message, tuple | list):
        return [plain(part) for part in message]
    return message


def moment(at: float | None) -> str:
    """A Unix time in seconds as local time, `-` for none."""
    return "-" if at is None else time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at))


def minute(at: float) -> str:
    """A Unix time in seconds as local time, to the minute."""
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(at))


def duration(seconds: int) -> str:
    """Seconds as people say them."""
    for size, name in ((86_400, "days"), (3600, "hours"), (60, "minutes")):
        if seconds >= 2 * size:
            return f"{seconds // size} {name}"
    return f"{seconds} seconds"


def paragraph(text: str, *, indent: int = 0, hang: int = 0) -> None:
    """Write a text as lines of at most 80 columns, those after the first `hang` columns further in."""
    import textwrap  # noqa: PLC0415 - not needed for --help

    before, below = " " * indent, " " * (indent + hang)
    wrapper = textwrap.TextWrapper(
        80, initial_indent=before, subsequent_indent=below, break_long_words=False, break_on_hyphens=False
    )
    for each in wrapper.wrap(visible(text)):
        line(each)


def fields(pairs: Iterable[tuple[str, object]]) -> None:
    """Write names and values below each other."""
    pairs = list(pairs)
    width = max(len(name) for name, _value in pairs)
    for name, value in pairs:
        line(f"{name.ljust(width)}{_GAP}{visible(str(value))}")


class Table:
    """Rows under a heading, written page by page; the first page sets the widths."""

    def __init__(self, *heading: str) -> None:
        self._heading: Sequence[str] = heading
        self._widths: list[int] = []

    def page(self, rows: Iterable[Sequence[object]]) -> None:
        """Write some more rows."""
        cells = [[visible(str(cell)) for cell in row] for row in rows]
        if not cells:
            return
        if not self._widths:
            every = [self._heading, *cells]
            self._widths = [max(len(row[column]) for row in every) for column in range(len(self._heading))]
            cells.insert(0, list(self._heading))
        for row in cells:
            padded = (cell.ljust(width) for cell, width in zip(row, self._widths, strict=True))
            line(_GAP.join(padded).rstrip())
