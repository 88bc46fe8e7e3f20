"""QR codes that cameras and screen readers find."""

from __future__ import annotations

import os
import re
import stat

import pytest
from pictures import enlarged, framed, plain_pixels, png_pixels, qr_texts, svg_pixels, terminal_pixels

from otpbridge.enroll import qr
from otpbridge.errors import EnrolError

URI = (
    "otpauth://totp/Example:alice?secret=GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ"
    "&issuer=Example&algorithm=SHA1&digits=6&period=30"
)
LONG = (
    "otpauth://totp/Caf%C3%A9%20Nord%20International:"
    "someone.with.a.long.name@host?secret=" + "GEZDGNBVGY3TQOJQ" * 6 + "GEZDGNA"
    "&issuer=Caf%C3%A9%20Nord%20International&algorithm=SHA512&digits=8&period=900"
)


@pytest.mark.parametrize("uri", [URI, LONG], ids=["usual", "long"])
@pytest.mark.parametrize(("ink", "paper"), [(255, 0), (0, 255), (170, 40)], ids=["dark", "light", "grey"])
def test_the_terminal_code_scans_on_every_theme(uri, ink, paper):
    """A code drawn in a dark, light or grey terminal is read by a camera, with that theme around it."""
    pixels = terminal_pixels(qr.terminal(uri), foreground=ink, background=paper)
    assert qr_texts(framed(enlarged(pixels, 3), paper, 30)) == [uri]


def test_the_terminal_code_has_straight_edges_and_its_quiet_zone():
    """Every line is as wide as said, four light modules surround the code, and the colours end with each line."""
    text = qr.terminal(URI)
    pixels = terminal_pixels(text, foreground=0, background=0)
    width = qr.columns(URI)
    assert {len(row) for row in pixels} == {width}
    dark_rows = [number for number, row in enumerate(pixels) if 0 in row]
    dark_columns = [number for number in range(width) if any(row[number] == 0 for row in pixels)]
    assert dark_rows[0] == dark_columns[0] == 4
    assert dark_columns[-1] == width - 5
    assert len(pixels) - 1 - dark_rows[-1] >= 4
    assert all(line.endswith("\x1b[0m") for line in text.splitlines())


@pytest.mark.parametrize("uri", [URI, LONG], ids=["usual", "long"])
@pytest.mark.parametrize(("ink", "paper"), [(255, 0), (0, 255), (200, 40)], ids=["dark", "light", "grey"])
def test_the_plain_code_scans_on_every_theme(uri, ink, paper):
    """A code of block characters alone is read too, even inverted, whatever stands around it."""
    pixels = plain_pixels(qr.terminal_plain(uri), foreground=ink, background=paper)
    assert qr_texts(framed(enlarged(pixels, 3), paper, 30)) == [uri]


def test_the_plain_code_has_straight_edges_and_its_quiet_zone():
    """It is nothing but blocks and blanks; four light modules, which are drawn, surround the code on every side."""
    text = qr.terminal_plain(URI)
    assert set(text) == set("\u2580\u2584\u2588 \n")
    assert text.endswith("\n")
    pixels = plain_pixels(text, foreground=1, background=0)
    width = qr.columns(URI)
    assert {len(row) for row in pixels} == {width}
    dark_rows = [number for number, row in enumerate(pixels) if 0 in row]
    dark_columns = [number for number in range(width) if any(row[number] == 0 for row in pixels)]
    assert dark_rows[0] == dark_columns[0] == 4
    assert dark_columns[-1] == width - 5
    assert len(pixels) - 1 - dark_rows[-1] == 5


@pytest.mark.parametrize("uri", [URI, LONG], ids=["usual", "long"])
def test_the_plain_code_fits_a_login(uri):
    """As a notice at login it passes the PAM module whole, with room for the key: 511 bytes a line, 16 KiB in all."""
    text = qr.terminal_plain(uri)
    assert max(len(line.encode()) for line in text.splitlines()) <= 511
    assert len(text.encode()) <= 15_000


def test_the_png_scans_on_a_dark_page():
    """The PNG brings its own light edge: it is found on a black page, as one code."""
    pixels = png_pixels(qr.png(URI))
    assert qr_texts(framed(pixels, 0, 40)) == [URI]
    assert all(set(row) == {255} for row in pixels[: 4 * 6])
    assert all(row[: 4 * 6] == [255] * 24 for row in pixels)


def test_the_svg_scans_on_a_dark_page():
    """The SVG brings its own light ground."""
    assert qr_texts(framed(enlarged(svg_pixels(qr.svg(URI)), 4), 0, 40)) == [URI]


def test_a_wrong_pixel_reader_would_be_noticed():
    """A picture without a code gives no text."""
    assert qr_texts([[255] * 200 for _ in range(200)]) == []


@pytest.mark.parametrize("name", ["code.png", "code.svg", "CODE.PNG"])
def test_a_saved_picture_is_for_its_owner_alone(tmp_path, name):
    """Whatever the umask, a saved code has mode 0600 and nothing else is left in the folder."""
    path = tmp_path / name
    before = os.umask(0)
    try:
        qr.save(URI, path)
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [path]
    read = svg_pixels if name.endswith("svg") else png_pixels
    assert qr_texts(framed(enlarged(read(path.read_bytes()), 2), 255, 10)) == [URI]


def test_an_older_picture_is_replaced_with_the_right_mode(tmp_path):
    """A world-readable file of that name does not make the new code readable; a link is replaced, not followed."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_text("kept")
    path = tmp_path / "code.png"
    path.symlink_to(elsewhere)
    qr.save(URI, path)
    assert elsewhere.read_text() == "kept"
    assert not path.is_symlink()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_other_pictures_are_refused(tmp_path):
    """Only PNG and SVG are drawn."""
    with pytest.raises(EnrolError, match="png"):
        qr.save(URI, tmp_path / "code.jpg")


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    """The message says which file could not be written and why, and holds no seed."""
    with pytest.raises(EnrolError, match=re.escape(str(tmp_path / "none" / "code.png"))) as raised:
        qr.save(URI, tmp_path / "none" / "code.png")
    assert "GEZDGNBV" not in str(raised.value)
