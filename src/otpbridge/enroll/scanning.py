"""Find the QR codes in a picture: small ones, on dark pages, without a quiet zone, scaled, after JPEG.

All ways to look are tried each time, not only until one finds something: a second code that is harder to read must
not be missed, or the wrong account would be taken for the only one. A screen of 4K takes a second or so.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from otpbridge.enroll.picture import libraries

if TYPE_CHECKING:
    from PIL import Image

_TILE = 1200
_OVERLAP = 400
"""Pixels that neighbouring tiles share: a code no larger than this is whole in one of them."""
_ENLARGED = 4
"""A page that is shown at 125 % or 80 % leaves modules of other than whole pixels; this many times larger, the small
ones are read."""
_LIGHT = 128
"""Grey from which a pixel counts as light when islands are cut out."""
_SMALLEST = 21
"""Pixels: the modules of the smallest QR code (ISO/IEC 18004 §6.1)."""
_SQUARE = 1.15
"""How much longer than wide a code may seem."""
_DEEPEST = 12
_MOST_ISLANDS = 400
_MARGIN = 24
"""Pixels of quiet zone put around what has none."""
_FRAME = 4
"""Pixels of a line around a code that are taken off to see what is within."""


@dataclass(frozen=True, slots=True)
class Box:
    """Where something is in a picture, in pixels."""

    left: int
    top: int
    right: int
    bottom: int

    def overlaps(self, other: Box) -> bool:
        """Whether they share a pixel."""
        return (
            self.left < other.right
            and other.left < self.right
            and self.top < other.bottom
            and other.top < self.bottom
        )


@dataclass(frozen=True, slots=True)
class Code:
    """A QR code that was read. The text may hold a seed."""

    text: str = field(repr=False)
    box: Box


def read(image: Image.Image) -> list[Code]:
    """All QR codes of a grey picture, from top to bottom. Raises NoLibraryError."""
    found: list[Code] = []
    for code in _all_ways(image):
        if not any(code.text == other.text and code.box.overlaps(other.box) for other in found):
            found.append(code)
    return sorted(found, key=lambda code: (code.box.top, code.box.left))


def _all_ways(image: Image.Image) -> Iterator[Code]:
    from PIL import Image as pil  # noqa: N813, PLC0415 - it may be missing

    yield from _read(image)
    for tile in _tiles(image):
        part = image.crop((tile.left, tile.top, tile.right, tile.bottom))
        large = part.resize((part.width * _ENLARGED, part.height * _ENLARGED), pil.Resampling.LANCZOS)
        yield from _read(large, tile.left, tile.top, _ENLARGED)
    for dark_page in (True, False):
        for island in _islands(image, light=dark_page):
            yield from _read_padded(image, island, 255 if dark_page else 0)


def _read(image: Image.Image, left: int = 0, top: int = 0, factor: int = 1) -> Iterator[Code]:
    """What zxing finds in a part of the picture that was cut out at `left`, `top` and enlarged."""
    with libraries():
        import zxingcpp  # noqa: PLC0415 - it may be missing

    formats = zxingcpp.BarcodeFormats(zxingcpp.BarcodeFormat.QRCode)
    for code in zxingcpp.read_barcodes(image, formats=formats, text_mode=zxingcpp.TextMode.Plain):
        corners = [
            code.position.top_left,
            code.position.top_right,
            code.position.bottom_left,
            code.position.bottom_right,
        ]
        across, down = [corner.x // factor for corner in corners], [corner.y // factor for corner in corners]
        yield Code(code.text, Box(left + min(across), top + min(down), left + max(across) + 1, top + max(down) + 1))


def _tiles(image: Image.Image) -> Iterator[Box]:
    for top in _starts(image.height):
        for left in _starts(image.width):
            yield Box(left, top, min(left + _TILE, image.width), min(top + _TILE, image.height))


def _starts(length: int) -> Iterator[int]:
    yield 0
    start = 0
    while start + _TILE < length:
        start += _TILE - _OVERLAP
        yield start


def _islands(image: Image.Image, *, light: bool) -> Iterator[Box]:
    """What stands by itself on a dark page (`light`), or on a light one: square parts with nothing around them.

    On a dark page, a code without a quiet zone ends where its light modules end: there is one at each of its edges.
    """
    mask = image.point([255 * ((value >= _LIGHT) == light) for value in range(256)])
    left = _MOST_ISLANDS
    for box in _parts(mask, Box(0, 0, image.width, image.height), _DEEPEST):
        width, height = box.right - box.left, box.bottom - box.top
        if max(width, height) <= _SQUARE * min(width, height):
            yield box
            left -= 1
            if not left:
                return


def _parts(mask: Image.Image, box: Box, depth: int) -> Iterator[Box]:
    """Cut at empty lines and columns, again and again; a part that cannot be cut may be framed, and is peeled."""
    part = mask.crop((box.left, box.top, box.right, box.bottom))
    columns, rows = part.getprojection()
    pieces = [
        Box(box.left + left, box.top + top, box.left + right, box.top + bottom)
        for top, bottom in _runs(rows)
        for left, right in _runs(columns)
    ]
    if pieces == [box]:
        yield box
        pieces = [Box(box.left + _FRAME, box.top + _FRAME, box.right - _FRAME, box.bottom - _FRAME)]
    if depth:
        for piece in pieces:
            if min(piece.right - piece.left, piece.bottom - piece.top) >= _SMALLEST:
                yield from _parts(mask, piece, depth - 1)


def _runs(filled: list[int]) -> list[tuple[int, int]]:
    """The parts of a line that are filled and long enough for a code."""
    runs, at, row = [], 0, bytes(map(bool, filled))
    while (start := row.find(1, at)) >= 0:
        end = row.find(0, start)
        at = len(row) if end < 0 else end
        if at - start >= _SMALLEST:
            runs.append((start, at))
    return runs


def _read_padded(image: Image.Image, island: Box, ground: int) -> Iterator[Code]:
    from PIL import ImageOps  # noqa: PLC0415 - it may be missing

    part = image.crop((island.left, island.top, island.right, island.bottom))
    for code in _read(ImageOps.expand(part, _MARGIN, ground)):
        yield Code(code.text, island)
