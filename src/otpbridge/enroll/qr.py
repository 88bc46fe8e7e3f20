"""QR codes of otpauth URIs: for a terminal, as PNG and as SVG.

Four light modules surround each code (ISO/IEC 18004 §6.3.8), dark on light whatever the theme.
"""

from __future__ import annotations

import io
import os
import secrets
from pathlib import Path
from typing import TYPE_CHECKING

from otpbridge.errors import EnrolError

if TYPE_CHECKING:
    from collections.abc import Iterator

    import segno

QUIET_ZONE = 4
"""Modules."""
_SCALE = 6
"""Pixels per module of a PNG: about 300 pixels for the usual URI, sharp on screen and on paper."""
_UPPER_HALF, _LOWER_HALF, _FULL = "\u2580", "\u2584", "\u2588"
_DARK, _LIGHT = 16, 231
"""Black and white of the 256-colour cube: themes do not change them, as they do the first sixteen."""


def _make(uri: str) -> segno.QRCode:
    import segno  # noqa: PLC0415 - only those who draw a code pay for the library

    return segno.make_qr(uri, error="l", boost_error=True)


def terminal(uri: str) -> str:
    """Draw a QR code with half blocks: two modules above each other per character, one line end per row.

    Every cell sets both of its colours and the code brings its quiet zone, so it can be scanned on dark and
    light terminals alike. Its width in columns is that of its longest line of half blocks.
    """
    return "".join(_line(upper, lower) for upper, lower in _row_pairs(uri))


def terminal_plain(text: str) -> str:
    """Draw the QR code of a text with block characters alone, for programs that let no colour through.

    Light modules are drawn, dark ones left blank: black on white in a terminal that writes light on dark, and
    inverted, which most readers take too, in one that writes dark on light. Its quiet zone is drawn as well, so
    no line begins or ends with a blank. A line has as many characters as `columns` says, and a line end.
    """
    glyphs = {(True, True): " ", (True, False): _LOWER_HALF, (False, True): _UPPER_HALF, (False, False): _FULL}
    return "".join(
        "".join(glyphs[pair] for pair in zip(upper, lower, strict=True)) + "\n" for upper, lower in _row_pairs(text)
    )


def _row_pairs(text: str) -> Iterator[tuple[list[bool], list[bool]]]:
    """The rows of a code by twos, dark modules true; an odd last one gets a light one below it."""
    rows = [[bool(module) for module in row] for row in _make(text).matrix_iter(border=QUIET_ZONE)]
    if len(rows) % 2:
        rows.append([False] * len(rows[0]))
    return zip(rows[::2], rows[1::2], strict=True)


def _line(upper: list[bool], lower: list[bool]) -> str:
    text, before = "", None
    for pair in zip(upper, lower, strict=True):
        if pair != before:
            above, below = (_DARK if dark else _LIGHT for dark in pair)
            text += f"\x1b[38;5;{above};48;5;{below}m"
            before = pair
        text += _UPPER_HALF
    return f"{text}\x1b[0m\n"


def columns(uri: str) -> int:
    """Width of the drawing of `terminal` in columns."""
    return int(_make(uri).symbol_size(border=QUIET_ZONE)[0])


def png(uri: str) -> bytes:
    """Return a QR code as PNG."""
    return _picture(uri, "png")


def svg(uri: str) -> bytes:
    """Return a QR code as SVG, on a white ground of its own."""
    return _picture(uri, "svg")


def _picture(uri: str, kind: str) -> bytes:
    out = io.BytesIO()
    _make(uri).save(out, kind=kind, border=QUIET_ZONE, scale=_SCALE, dark="#000", light="#fff")
    return out.getvalue()


_FORMATS = {".png": png, ".svg": svg}


def save(uri: str, path: Path) -> None:
    """Write a QR code to `path` (.png or .svg), readable by its owner alone (0600).

    The file appears whole or not at all; one that was there is replaced. Raises EnrolError for another suffix
    and for a folder that cannot be written.
    """
    make = _FORMATS.get(path.suffix.lower())
    if make is None:
        raise EnrolError("a QR picture is a .png or a .svg file")
    beside = path.with_name(f".{path.name}.{secrets.token_hex(6)}")
    try:
        fd = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            with os.fdopen(fd, "wb") as file:
                file.write(make(uri))
            beside.replace(path)
        except BaseException:
            beside.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise EnrolError(f"cannot write {path}: {error.strerror}") from error
