"""A line that says what to do, and how many seconds are left for it."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import click

from otpbridge.cli import show


@contextmanager
def countdown(text: str, seconds: int) -> Iterator[None]:
    """Say what to do, and how many seconds are left for it, until the block ends."""
    if not sys.stderr.isatty():
        show.note(f"{text}.")
        yield
        return
    over = threading.Event()
    counter = threading.Thread(target=_count, args=(text, seconds, over), daemon=True)
    counter.start()
    try:
        yield
    finally:
        over.set()
        counter.join()


def _count(text: str, seconds: int, over: threading.Event) -> None:
    for left in range(seconds, 0, -1):
        click.echo(f"\r{text} ({left} s) ", err=True, nl=False)
        if over.wait(1):
            break
    click.echo("", err=True)
