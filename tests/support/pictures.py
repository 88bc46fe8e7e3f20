"""Look at pictures the way a camera does: PNG, SVG and terminal text as grey pixels, and the QR codes in them."""

from __future__ import annotations

import re
import struct
import zlib
from xml.etree import ElementTree

import zxingcpp

Pixels = list[list[int]]
"""Rows of grey values, 0 black to 255 white."""


def qr_texts(pixels: Pixels) -> list[str]:
    """Return the text of every QR code in a picture."""
    height, width = len(pixels), len(pixels[0])
    flat = bytes(value for row in pixels for value in row)
    view = memoryview(flat).cast("B", (height, width))
    return [code.text for code in zxingcpp.read_barcodes(view)]


def framed(pixels: Pixels, grey: int, margin: int) -> Pixels:
    """Put a picture on a ground of one grey."""
    width = len(pixels[0]) + 2 * margin
    side = [grey] * margin
    return [
        *([grey] * width for _ in range(margin)),
        *(side + row + side for row in pixels),
        *([grey] * width for _ in range(margin)),
    ]


def enlarged(pixels: Pixels, factor: int) -> Pixels:
    """Make each pixel a square of `factor` pixels."""
    return [[value for value in row for _ in range(factor)] for row in pixels for _ in range(factor)]


def png_pixels(data: bytes) -> Pixels:
    """Read a PNG of one bit per pixel, grey, with the filters "none" and "up"."""
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    position, packed, header = 8, b"", ()
    while position < len(data):
        size, kind = struct.unpack_from(">I4s", data, position)
        body = data[position + 8 : position + 8 + size]
        if kind == b"IHDR":
            header = struct.unpack(">IIBBBBB", body)
        elif kind == b"IDAT":
            packed += body
        position += size + 12
    width, height, depth, colour, *_ = header
    assert (depth, colour) == (1, 0), header
    rows = zlib.decompress(packed)
    stride = (width + 7) // 8 + 1
    pixels = []
    bits = bytes(stride - 1)
    for start in range(0, stride * height, stride):
        line = rows[start + 1 : start + stride]
        assert rows[start] in {0, 2}, "a filter this reader does not know"
        if rows[start] == 2:
            line = bytes((value + above) & 255 for value, above in zip(line, bits, strict=True))
        bits = line
        pixels.append([255 * (bits[x // 8] >> (7 - x % 8) & 1) for x in range(width)])
    return pixels


def svg_pixels(data: bytes) -> Pixels:
    """Draw the SVG of a QR code: a ground, and one path of horizontal strokes a module high."""
    root = ElementTree.fromstring(data)
    ground, strokes = root.iter("{http://www.w3.org/2000/svg}path")
    assert ground.get("fill") == "#fff"
    side = int(re.fullmatch(r"M0 0h(\d+)v\1h-\1z", ground.get("d")).group(1))
    pixels = [[255] * side for _ in range(side)]
    x = y = 0.0
    for command, first, second in re.findall(r"([Mmh])(-?[\d.]+)(?: (-?[\d.]+))?", strokes.get("d")):
        if command == "h":
            for column in range(int(x), int(x) + int(first)):
                pixels[int(y)][column] = 0
            x += int(first)
        elif command == "M":
            x, y = float(first), float(second)
        else:
            x, y = x + float(first), y + float(second)
    return pixels


def plain_pixels(text: str, foreground: int, background: int) -> Pixels:
    """Draw text of block characters and blanks on a terminal with colours of these greys."""
    inked = {" ": (False, False), "\u2580": (True, False), "\u2584": (False, True), "\u2588": (True, True)}
    halves = [[inked[glyph] for glyph in line] for line in text.splitlines()]
    return [[foreground if pair[half] else background for pair in line] for line in halves for half in (0, 1)]


def terminal_pixels(text: str, foreground: int, background: int) -> Pixels:
    """Draw half-block text on a terminal whose own colours have the given greys; a cell is two pixels high."""
    palette = {16: 0, 231: 255}
    pixels: Pixels = []
    for line in text.splitlines():
        ink, paper = foreground, background
        upper: list[int] = []
        lower: list[int] = []
        for sequence, glyph in re.findall(r"\x1b\[([\d;]*)m|(.)", line):
            if glyph:
                assert glyph in "\u2580 ", glyph
                upper.append(ink if glyph == "\u2580" else paper)
                lower.append(paper)
            elif sequence == "0":
                ink, paper = foreground, background
            else:
                fore, above, back, below = re.fullmatch(r"(38;5;)(\d+);(48;5;)(\d+)", sequence).groups()
                assert (fore, back) == ("38;5;", "48;5;")
                ink, paper = palette[int(above)], palette[int(below)]
        pixels += [upper, lower]
    return pixels
