"""What was copied last: a picture, or text. Asked of the programs that desktops have for it."""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
from collections.abc import Sequence
from dataclasses import dataclass

from otpbridge.enroll.picture import LONGEST
from otpbridge.errors import EnrolError

_SECONDS = 10.0
_PICTURES = ("image/png", "image/jpeg", "image/webp", "image/bmp", "image/gif", "image/tiff")
_TEXTS = ("text/plain;charset=utf-8", "UTF8_STRING", "text/plain", "STRING")


@dataclass(frozen=True, slots=True)
class _Tool:
    program: str
    package: str
    kinds: tuple[str, ...]
    """Arguments that list what the clipboard can be had as."""
    paste: tuple[str, ...]
    """Arguments before the one of those that is wanted."""


_WAYLAND = _Tool("wl-paste", "wl-clipboard", ("--list-types",), ("--no-newline", "--type"))
_X11 = _Tool(
    "xclip",
    "xclip",
    ("-selection", "clipboard", "-out", "-target", "TARGETS"),
    ("-selection", "clipboard", "-out", "-target"),
)


def paste() -> bytes:
    """What is in the clipboard, a picture if it can be had as one. Raises EnrolError."""
    tool = _tool()
    if shutil.which(tool.program) is None:
        raise EnrolError(f"to read the clipboard this needs {tool.program}: install {tool.package}")
    offered = set(_run(tool, tool.kinds).decode(errors="replace").splitlines())
    for kind in (*_PICTURES, *_TEXTS):
        if kind in offered:
            return _run(tool, (*tool.paste, kind))
    raise EnrolError("the clipboard holds neither a picture nor text")


def _tool() -> _Tool:
    if os.environ.get("WAYLAND_DISPLAY"):
        return _WAYLAND
    if os.environ.get("DISPLAY"):
        return _X11
    raise EnrolError("there is no clipboard here: neither DISPLAY nor WAYLAND_DISPLAY is set")


def _run(tool: _Tool, arguments: Sequence[str]) -> bytes:
    """What the program writes, up to one byte more than a picture may have. Raises EnrolError."""
    with subprocess.Popen(  # noqa: S603 - one of the two above
        [tool.program, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as process:
        assert process.stdout is not None
        limit = threading.Timer(_SECONDS, process.kill)
        limit.start()
        try:
            data = process.stdout.read(LONGEST + 1)
        finally:
            limit.cancel()
            # Only one that did not close its output still runs, and there is nothing more to be had from it.
            process.kill()
    if not data:
        raise EnrolError(f"the clipboard is empty, or {tool.program} cannot read it")
    return data
