"""What the person at the station sees: a picture on a terminal, else one line after the other."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from otpbridge.cli import show
from otpbridge.cli.provision.board import Board, Phase, Seat
from otpbridge.cli.session import Session
from otpbridge.cli.yubikey_reach import TOUCH_SECONDS

if TYPE_CHECKING:
    from rich.console import Console, Group
    from rich.live import Live

    from otpbridge.cli.provision.station import View

_STYLES = {
    Phase.WORKING: ("●", "yellow"),
    Phase.TOUCH: ("◆", "bold black on yellow"),
    Phase.DONE: ("✔", "bold green"),
    Phase.IDLE: ("○", "dim"),
    Phase.REFUSED: ("✖", "red"),
    Phase.FAILED: ("✖", "bold red"),
}
_FRAMES = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
_FRAMES_A_SECOND = 4
_BAR = 40


class Lines:
    """One line after the other, for pipes and logs."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def tell(self, text: str) -> None:
        """Say something that stays."""
        self._session.tell(show.visible(text))

    def draw(self, board: Board) -> None:
        """Nothing: all that matters is told."""


class Picture:
    """A table of the keys that are plugged in, below what was told."""

    def __init__(self, live: Live) -> None:
        self._live = live

    def tell(self, text: str) -> None:
        """Say something that stays."""
        self._live.console.print(show.visible(text), markup=False, highlight=False)

    def draw(self, board: Board) -> None:
        """Show how things stand."""
        self._live.update(render(board), refresh=True)


@contextmanager
def view(session: Session, *, typing: bool) -> Iterator[View]:
    """A picture where there is a terminal and rich is installed, else lines; and where keys type among them."""
    if typing or session.json or not sys.stdout.isatty():
        yield Lines(session)
        return
    try:
        from rich.console import Console  # noqa: PLC0415 - loaded only when something is drawn
    except ImportError:
        yield Lines(session)
        return
    console = Console()
    if console.is_dumb_terminal:
        yield Lines(session)
        return
    with picture(console) as drawn:
        yield drawn


@contextmanager
def picture(console: Console) -> Iterator[Picture]:
    """A picture on this console."""
    from rich.live import Live  # noqa: PLC0415 - loaded only when something is drawn

    with Live(console=console, auto_refresh=False, vertical_overflow="visible") as live:
        yield Picture(live)


def render(board: Board) -> Group:
    """How things stand, for rich."""
    from rich.console import Group  # noqa: PLC0415 - loaded only when something is drawn
    from rich.progress_bar import ProgressBar  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for heading in ("", "KEY", "MODEL", "PERSON", ""):
        table.add_column(heading, no_wrap=heading != "")
    for seat in board.seats:
        mark, style = _STYLES[seat.phase]
        if seat.phase is Phase.WORKING:
            mark = _FRAMES[int(board.now * _FRAMES_A_SECOND) % len(_FRAMES)]
        table.add_row(
            Text(mark, style),
            Text(str(seat.serial or "-"), "bold"),
            Text(show.visible(seat.model)),
            Text(show.visible(seat.person), "bold"),
            Text(show.visible(_words(seat, board.now)), style),
        )
    bar = Table.grid(padding=(0, 2, 0, 0))
    counts = f"{board.done} of {board.total} done, {board.waiting} waiting"
    counts += f", {board.away} left out" if board.away else ""
    done = ProgressBar(max(board.total, 1), board.done, width=_BAR, complete_style="green", finished_style="green")
    bar.add_row(done, Text(counts))
    return Group(Text(), table, Text(), bar, Text(show.visible(board.notice), "bold"))


def _words(seat: Seat, now: float) -> str:
    if seat.phase is not Phase.TOUCH:
        return seat.words
    return f"{seat.words} ({max(0, TOUCH_SECONDS - int(now - seat.since))} s)"
