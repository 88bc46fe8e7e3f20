"""Show keys on a terminal so that none is left on it afterwards."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

_ENTER = "\x1b[?1049h\x1b[H\x1b[2J"
_LEAVE = "\x1b[H\x1b[2J\x1b[?1049l"
_WIPE = "\x1b[H\x1b[2J\x1b[3J"
_NO_ALTERNATE = ("linux", "dumb", "")


def size() -> os.terminal_size:
    """Columns and lines of the terminal at standard output; 80 by 24 when it does not say."""
    try:
        found = os.get_terminal_size(sys.stdout.fileno())
    except OSError:
        return os.terminal_size((80, 24))
    return found if found.columns and found.lines else os.terminal_size((80, 24))


@contextmanager
def private(lines: int) -> Iterator[None]:
    """Show what is written inside, about `lines` lines, and take it away again, however the block is left.

    Where it fits and the terminal can, on the alternate screen, which has no history. Else on the usual one, which is
    cleared with its history, as keys may have scrolled into it. A SIGTERM or SIGHUP ends the block as Ctrl-C does.
    """
    alternate = os.environ.get("TERM", "") not in _NO_ALTERNATE and lines <= size().lines
    before = {number: signal.signal(number, _interrupt) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        if alternate:
            _send(_ENTER)
        yield
    finally:
        try:
            _send(_LEAVE if alternate else _WIPE)
        except OSError:
            pass  # the terminal is gone, and what it showed with it
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def _interrupt(_number: int, _frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


def _send(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()
