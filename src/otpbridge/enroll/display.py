"""A picture of all that the screen shows: from an X server directly, in Wayland through the desktop portal."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from otpbridge.enroll import desktop
from otpbridge.enroll.picture import grey, libraries
from otpbridge.errors import EnrolError

if TYPE_CHECKING:
    from pathlib import Path

    from PIL import Image

    from otpbridge.enroll.scanning import Box

_OTHERWISE = "or save a picture of the screen and name that file"


@dataclass(frozen=True, slots=True)
class Monitor:
    """Where a monitor is on the screen, in pixels."""

    left: int
    top: int
    width: int
    height: int


@dataclass(frozen=True, slots=True)
class Shot:
    """What a picture or the screen shows.

    `left_behind` is a file with the same, which the desktop wrote and which could not be deleted.
    """

    images: tuple[Image.Image, ...]
    name: str = "screen"
    monitors: tuple[Monitor, ...] = ()
    left_behind: Path | None = None

    def place(self, box: Box) -> str:
        """Where something is, in words."""
        across, down = (box.left + box.right) // 2, (box.top + box.bottom) // 2
        if len(self.monitors) > 1:
            for number, monitor in enumerate(self.monitors, 1):
                left, top = across - monitor.left, down - monitor.top
                if 0 <= left < monitor.width and 0 <= top < monitor.height:
                    return f"monitor {number}, {_part(left, top, monitor.width, monitor.height)}"
        return f"{self.name}, {_part(across, down, self.images[0].width, self.images[0].height)}"


def _part(across: int, down: int, width: int, height: int) -> str:
    """A point of an area in words, and in pixels from its left and its top."""
    row = ("top", "middle", "bottom")[min(2, 3 * down // height)]
    column = ("left", "centre", "right")[min(2, 3 * across // width)]
    return f"{row} {column} ({across}, {down})"


def shoot() -> Shot:
    """What the screen shows now, all monitors. Raises EnrolError, NoLibraryError."""
    if os.environ.get("WAYLAND_DISPLAY"):
        # What an X server shows within Wayland is not the screen, but black.
        return _of_wayland()
    if os.environ.get("DISPLAY"):
        return _of_x11()
    raise EnrolError(
        "there is no screen here (neither DISPLAY nor WAYLAND_DISPLAY is set): run this in a terminal of the desktop,"
        f" as the user who sees the code, {_OTHERWISE}"
    )


def _of_wayland() -> Shot:
    data, path = desktop.screenshot()
    images = grey(data, f"the desktop's screenshot {path}")
    try:
        path.unlink()
    except OSError:
        return Shot(images, left_behind=path)
    return Shot(images)


def _of_x11() -> Shot:
    with libraries():
        import mss  # noqa: PLC0415 - it may be missing
        from PIL import Image  # noqa: PLC0415

    try:
        with mss.MSS() as server:
            everything, *monitors = server.monitors
            shot = server.grab(everything)
    except (mss.ScreenShotError, OSError) as error:
        raise EnrolError(
            f"the X server {os.environ['DISPLAY']} does not show its screen ({error}); run this as the user who is"
            f" logged in there, {_OTHERWISE}"
        ) from error
    image = Image.frombuffer("RGB", shot.size, shot.raw, "raw", "BGRX", 0, 1)
    return Shot(
        (image.convert("L"),),
        monitors=tuple(Monitor(each["left"], each["top"], each["width"], each["height"]) for each in monitors),
    )
