"""Draw docs/pictures/station.png: the screen of `otpbridge yubikey provision`, at work with virtual keys.

    .venv/bin/python scripts/station-picture.py

A real station with a real daemon in a private folder; its screen is rich's, made a picture by Debian's chromium.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(HERE / "tests" / "support"))

from real_daemon import real_daemon  # noqa: E402
from rich.console import Console  # noqa: E402
from virtualkey.rig import Key, Rig, shared_rig  # noqa: E402

from otpbridge.cli.provision import people, screen  # noqa: E402
from otpbridge.cli.provision.batch import Batch  # noqa: E402
from otpbridge.cli.provision.bench import Order  # noqa: E402
from otpbridge.cli.provision.board import Board, Phase  # noqa: E402
from otpbridge.cli.provision.records import Records  # noqa: E402
from otpbridge.cli.provision.station import Station, Tools  # noqa: E402
from otpbridge.client import Client  # noqa: E402
from otpbridge.model import Kind  # noqa: E402

PICTURE = HERE / "docs" / "pictures" / "station.png"
PEOPLE = ("alice", "bob", "carol", "dave", "erin", "frank", "grace", "heidi")
UNTOUCHED = ("carol", "erin")
FIRST_SERIAL = 20260100
KEYS = 6
LOCKED = 5
# The picture is the same everywhere: fonts of this machine, none from the network.
SVG = (
    '<svg class="rich-terminal" viewBox="0 0 {width} {height}" xmlns="http://www.w3.org/2000/svg"><style>'
    ".{unique_id}-matrix {{ font-family: 'DejaVu Sans Mono', monospace; font-size: {char_height}px;"
    " line-height: {line_height}px; font-variant-east-asian: full-width; }} {styles}</style><defs>{lines}</defs>"
    '<rect width="100%" height="100%" fill="#1b1d23"/><g transform="translate({terminal_x}, {terminal_y})">'
    '{backgrounds}<g class="{unique_id}-matrix">{matrix}</g></g></svg>'
)


def main() -> None:
    """Run the station until there is something to see, and draw that."""
    rig = shared_rig()
    rig.reset()
    os.environ.update(rig.settings)
    folder = Path(tempfile.mkdtemp(prefix="otpb-"))
    try:
        with real_daemon(folder):
            svg = screen_of(rig, folder)
        (folder / "station.svg").write_text(svg)
        photograph(folder / "station.svg")
    finally:
        shutil.rmtree(folder)


class Visitor:
    """Who sits at the station: plugs in the next key when there is nothing else to do, and touches some of them."""

    def __init__(self, rig: Rig, console: Console) -> None:
        self._rig = rig
        self._console = console
        self.keys: dict[int, Key] = {}
        self.board: Board | None = None

    def tell(self, text: str) -> None:
        """What the station says."""
        self._console.print(text, markup=False, highlight=False)

    def draw(self, board: Board) -> None:
        """What the station shows. Raises EnoughError when it is as in the picture."""
        waiting = [seat for seat in board.seats if seat.phase is Phase.TOUCH and seat.person not in UNTOUCHED]
        for seat in waiting:
            self.keys[int(seat.serial or 0)].touch("given")
        if waiting or any(seat.phase is Phase.WORKING for seat in board.seats):
            return
        if len(self.keys) == KEYS:
            self.board = board
            raise EnoughError
        serial = FIRST_SERIAL + len(self.keys)
        self.keys[serial] = self._rig.plug(serial=serial, password="of before" if len(self.keys) == LOCKED else None)
        self.keys[serial].touch("late")


class EnoughError(Exception):
    """There is enough to see."""


def screen_of(rig: Rig, folder: Path) -> str:
    """What the station shows while two keys wait for a touch, three are done, and one is not to be opened."""
    console = Console(file=io.StringIO(), record=True, width=100, force_terminal=True, color_system="truecolor")
    visitor = Visitor(rig, console)
    persons = people.read("\n".join(["user", *PEOPLE]), people.Usual(Kind.TOTP))
    with Records(folder / "result.csv", None) as records:
        tools = Tools(records, lambda: Client(run_dir=folder / "run", admin=True), Order(touch=True), None)
        with contextlib.suppress(EnoughError):
            Station(Batch(persons, (), {}, {}), tools, visitor).run()
        assert visitor.board is not None
        console.print(screen.render(visitor.board))
        # Threads that still wait come to an end.
        for key in visitor.keys.values():
            key.touch("never")
    return console.export_svg(code_format=SVG)


def photograph(svg: Path) -> None:
    """Have chromium draw it."""
    PICTURE.parent.mkdir(exist_ok=True)
    found = re.search(r'viewBox="0 0 ([0-9]+)[0-9.]* ([0-9]+)', svg.read_text())
    assert found
    width, height = found.groups()
    subprocess.run(
        [
            "/usr/bin/chromium",
            "--headless",
            "--no-sandbox",
            f"--user-data-dir={svg.parent / 'chromium'}",
            f"--window-size={width},{height}",
            f"--screenshot={PICTURE}",
            svg.as_uri(),
        ],
        check=True,
        capture_output=True,
    )


if __name__ == "__main__":
    main()
