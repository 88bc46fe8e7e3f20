"""Pictures that come from elsewhere, as grey pixels: bounded, and in formats that need no other program."""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from otpbridge.errors import EnrolError, NoLibraryError

if TYPE_CHECKING:
    from PIL import Image

LONGEST = 64 * 1024 * 1024
"""Bytes of a picture as a file."""
_PIXELS = 80_000_000
"""Two screens of 8K beside each other have 66 million."""
_FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM")
"""Pillow reads more; for EPS it runs Ghostscript, and nobody saves a screen as any of the others."""
_WORDS = "PNG, JPEG, WebP, GIF, BMP, TIFF or PPM"


@contextmanager
def libraries() -> Iterator[None]:
    """Say how to install what reads pictures and screens, where it is missing. Raises NoLibraryError."""
    try:
        yield
    except ImportError as error:
        raise NoLibraryError(
            f"this needs the libraries for pictures and screens: pip install 'otpbridge[hardware]' ({error})"
        ) from None


def grey(data: bytes, what: str) -> tuple[Image.Image, ...]:
    """Read a picture; where it is transparent, as it is on white and as it is on black.

    `what` names it in messages. Raises EnrolError where it is none, damaged, or too large.
    """
    with libraries():
        from PIL import Image, UnidentifiedImageError  # noqa: PLC0415 - it may be missing

    if len(data) > LONGEST:
        raise EnrolError(f"{what} is larger than {LONGEST >> 20} MiB")
    try:
        with warnings.catch_warnings():
            # What is odd about a picture is of no interest where it can be read.
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            opened = Image.open(io.BytesIO(data), formats=_FORMATS)
            if opened.width * opened.height > _PIXELS:
                raise EnrolError(_too_large(what))
            return tuple(_grounds(opened))
    except UnidentifiedImageError:
        raise EnrolError(f"{what} is no picture in a format that is read here: {_WORDS}") from None
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        raise EnrolError(_too_large(what)) from None
    except _DAMAGED as error:
        raise EnrolError(f"{what} is a damaged picture ({type(error).__name__})") from error


_DAMAGED = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    LookupError,
    ArithmeticError,
    EOFError,
    RuntimeError,
    struct.error,
    zlib.error,
)
"""What Pillow's decoders raise on bytes that do not fit."""


def _too_large(what: str) -> str:
    return f"{what} has more than {_PIXELS // 1_000_000} million pixels; cut the part with the code out of it"


def _grounds(opened: Image.Image) -> Iterator[Image.Image]:
    from PIL import Image  # noqa: PLC0415 - it may be missing

    if not opened.has_transparency_data:
        yield opened.convert("L")
        return
    drawn = opened.convert("RGBA")
    for ground in ("white", "black"):
        flat = Image.new("RGBA", drawn.size, ground)
        flat.alpha_composite(drawn)
        yield flat.convert("L")
