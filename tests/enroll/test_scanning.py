"""QR codes are found in pictures of screens: of segno's making, put on pages as they are seen."""

from __future__ import annotations

import functools
import io
import random

import pytest
import segno
from PIL import Image, ImageDraw

from otpbridge.enroll import picture, scanning
from otpbridge.errors import EnrolError

URI = (
    "otpauth://totp/Example:alice?secret=GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ"
    "&issuer=Example&algorithm=SHA1&digits=6&period=30"
)
OTHER = URI.replace("alice", "bob")
LINK = "https://apps.apple.com/app/an-authenticator/id388497605"
LONG = "otpauth-migration://offline?data=" + "Cj0KFDEyMzQ1Njc4OTAxMjM0NTY3ODkw" * 30


def code(text=URI, *, scale=4, border=4, dark="#000", light="#fff", error="l"):
    """A QR code as segno draws it."""
    out = io.BytesIO()
    segno.make_qr(text, error=error).save(out, kind="png", scale=scale, border=border, dark=dark, light=light)
    return Image.open(out).convert("RGB")


@functools.cache
def page(width, height, ground="#fff", ink="#222", *, words=True):
    """A page full of text, which takes long to draw: the same one each time, to be copied before it is drawn on."""
    drawn = Image.new("RGB", (width, height), ground)
    pen, chosen = ImageDraw.Draw(drawn), random.Random(7)
    letters = "abcdefghij klmnop qrst uvwxyz 0123456789 #[]|_"
    if words:
        for down in range(8, height - 12, 17):
            pen.text((12, down), "".join(chosen.choice(letters) for _ in range(width // 7)), fill=ink)
    return drawn


def put(ground, drawn, left, top, *, free=12):
    """A page with a picture on it, and `free` pixels of the page's colour around that."""
    colour = ground.getpixel((0, 0))
    ground = ground.copy()
    pen = ImageDraw.Draw(ground)
    pen.rectangle((left - free, top - free, left + drawn.width + free, top + drawn.height + free), fill=colour)
    ground.paste(drawn, (left, top))
    return ground


def texts(drawn):
    """What is read."""
    return [found.text for found in scanning.read(drawn.convert("L"))]


@pytest.mark.parametrize("border", [0, 1, 2, 4])
@pytest.mark.parametrize("scale", [1, 2, 3, 5, 7])
@pytest.mark.parametrize("text", [URI, LONG], ids=["usual", "export"])
def test_codes_of_all_sizes_are_read(text, scale, border):
    """From a pixel per module to the height of a screen, with and without a quiet zone."""
    assert texts(put(page(1100, 900), code(text, scale=scale, border=border), 61, 15)) == [text]


@pytest.mark.parametrize(
    ("dark", "light"),
    [
        ("#000", "#fff"),
        ("#fff", "#000"),
        ("#1a237e", "#e8eaf6"),
        ("#b00020", "#fff"),
        ("#eee", "#333"),
        ("#0d47a1", "#bbb"),
        ("#666", "#fff"),
    ],
)
@pytest.mark.parametrize("ground", ["#fff", "#f5f5f5", "#121212", "#000", "#2b2b40"])
def test_codes_of_all_colours_are_read(dark, light, ground):
    """Inverted, in the colours of a brand, on light and on dark pages."""
    shown = page(1000, 700, ground, "#999")
    assert texts(put(shown, code(dark=dark, light=light, border=2), 333, 222)) == [URI]


@pytest.mark.parametrize("scale", [1, 2, 4, 9])
@pytest.mark.parametrize("ground", ["#121212", "#000", "#444", "#24243e"])
def test_a_code_without_a_quiet_zone_is_read_on_a_dark_page(ground, scale):
    """Where the code runs into the page, as other readers do not take it."""
    shown = page(1200, 800, ground, "#ccc")
    assert texts(put(shown, code(scale=scale, border=0), 401, 203)) == [URI]


@pytest.mark.parametrize("scale", [2, 4])
def test_an_inverted_code_without_a_quiet_zone_is_read_on_a_light_page(scale):
    """The same the other way round."""
    assert texts(put(page(1200, 800), code(scale=scale, border=0, dark="#fff", light="#000"), 500, 300)) == [URI]


def test_a_frame_around_a_code_is_no_hindrance():
    """A card with a line around it, on a black page, without a quiet zone."""
    shown = page(1200, 800, "#000", "#ccc", words=False).copy()
    ImageDraw.Draw(shown).rectangle((480, 280, 720, 520), outline="#fff")
    assert texts(put(shown, code(border=0), 510, 310)) == [URI]


@pytest.mark.parametrize("scale", [1, 2, 6])
def test_a_small_code_is_found_on_a_large_screen(scale):
    """3840 by 2160 pixels of text, and where it is."""
    drawn = code(scale=scale)
    (found,) = scanning.read(put(page(3840, 2160), drawn, 2711, 1317).convert("L"))
    assert found.text == URI
    assert 2711 <= found.box.left < found.box.right <= 2711 + drawn.width
    assert 1317 <= found.box.top < found.box.bottom <= 1317 + drawn.height


@pytest.mark.parametrize("left", [*range(760, 1240, 48)])
def test_no_seam_of_tiles_hides_a_code(left):
    """A small scaled code, which is read enlarged alone, wherever it is across the cuts."""
    small = code(scale=2)
    small = small.resize((small.width * 3 // 5, small.height * 3 // 5), Image.Resampling.BICUBIC)
    assert texts(put(page(2500, 300, words=False), small, left, 31)) == [URI]


@pytest.mark.parametrize("factor", [0.6, 0.67, 0.75, 0.8, 0.9, 1.1, 1.25, 1.5, 1.75, 2.4])
def test_scaled_pages_are_read(factor):
    """A browser's zoom leaves modules of other than whole pixels."""
    drawn = code(scale=2)
    size = (round(drawn.width * factor), round(drawn.height * factor))
    assert texts(put(page(1200, 800), drawn.resize(size, Image.Resampling.BICUBIC), 401, 203)) == [URI]


@pytest.mark.parametrize("quality", [80, 40, 15, 5])
@pytest.mark.parametrize(("scale", "ground"), [(2, "#fff"), (3, "#121212"), (6, "#fff")])
def test_jpeg_is_read(quality, scale, ground):
    """Screenshots that a chat has squeezed."""
    out = io.BytesIO()
    put(page(1200, 800, ground, "#888"), code(scale=scale), 402, 203).save(out, "JPEG", quality=quality)
    (shown,) = picture.grey(out.getvalue(), "it")
    assert texts(shown) == [URI]


@pytest.mark.parametrize("angle", [90, 180, 270, 7])
def test_turned_codes_are_read(angle):
    """A photo, or a screen that stands on its side."""
    assert texts(put(page(1200, 800), code(scale=6), 402, 203).rotate(angle, fillcolor="#fff")) == [URI]


def test_a_code_that_is_harder_to_read_is_not_missed_beside_an_easy_one():
    """Else the easy one would be taken for the only one."""
    hard = code(OTHER, scale=2)
    hard = hard.resize((hard.width * 3 // 5, hard.height * 3 // 5), Image.Resampling.BICUBIC)
    shown = put(put(page(1920, 1080, "#111", "#888"), code(scale=6), 80, 60), hard, 1500, 800)
    assert texts(shown) == [URI, OTHER]
    bare = put(put(page(1920, 1080, "#111", "#888"), code(scale=6), 80, 60), code(OTHER, border=0), 1500, 800)
    assert texts(bare) == [URI, OTHER]


def test_the_same_code_twice_is_seen_twice():
    """In two places, from top to bottom."""
    found = scanning.read(put(put(page(1200, 800), code(), 801, 501), code(), 101, 101).convert("L"))
    assert [one.text for one in found] == [URI, URI]
    assert found[0].box.top < found[1].box.top


def test_other_codes_are_read_as_well():
    """It is for others to say what counts."""
    assert set(texts(put(put(page(1200, 800), code(LINK), 801, 101), code(), 101, 501))) == {LINK, URI}


@pytest.mark.parametrize("shown", [page(1, 1), page(3, 2000), page(1920, 1080), Image.effect_noise((1500, 900), 200)])
def test_nothing_is_found_where_nothing_is(shown):
    """Text, noise, a pixel: no code, and no error."""
    assert texts(shown) == []


def test_no_text_shows():
    """What is in a code may be a seed."""
    (found,) = scanning.read(code().convert("L"))
    assert "GEZD" not in repr(found)


# --- pictures as files ---


def saved(drawn, kind, **form):
    """A picture as a file."""
    out = io.BytesIO()
    drawn.save(out, kind, **form)
    return out.getvalue()


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM"])
@pytest.mark.parametrize("mode", ["RGB", "L", "P", "1"])
def test_pictures_of_usual_formats_are_read(kind, mode):
    """In colour, grey, by palette, black and white."""
    drawn = code(scale=6).convert(mode)
    try:
        data = saved(drawn, kind)
    except (OSError, KeyError):
        data = saved(drawn.convert("RGB"), kind)
    assert [found for image in picture.grey(data, "it") for found in texts(image)] == [URI]


@pytest.mark.parametrize(("dark", "light"), [("#000", None), ("#fff", None), (None, "#fff"), (None, "#000")])
def test_transparent_pictures_are_read(dark, light):
    """Whatever colour a page was to lend them."""
    out = io.BytesIO()
    segno.make_qr(URI).save(out, kind="png", scale=5, dark=dark, light=light)
    assert {found for image in picture.grey(out.getvalue(), "it") for found in texts(image)} == {URI}


def test_other_formats_are_refused():
    """Among them those that run other programs to be read, and what is no picture at all."""
    postscript = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 100 100\n%%EndComments\nshowpage\n"
    for data in (postscript, b"", b"hello", b"<svg xmlns='http://www.w3.org/2000/svg'/>", saved(code(), "PDF")):
        with pytest.raises(EnrolError, match="it is no picture in a format"):
            picture.grey(data, "it")


@pytest.mark.parametrize("size", [(9000, 9000), (14_000, 13_000), (100_000, 100_000)])
def test_pictures_that_unpack_to_too_much_are_refused(size):
    """By what their header says, before they are unpacked."""
    header = saved(Image.new("1", (8, 8)), "PNG")
    data = bytearray(header)
    data[16:24] = size[0].to_bytes(4, "big") + size[1].to_bytes(4, "big")
    crc = __import__("zlib").crc32(data[12:29])
    data[29:33] = crc.to_bytes(4, "big")
    with pytest.raises(EnrolError, match="million pixels"):
        picture.grey(bytes(data), "it")


def test_files_that_are_too_large_are_refused():
    """Whatever is in them."""
    with pytest.raises(EnrolError, match="larger than"):
        picture.grey(bytes(picture.LONGEST + 1), "it")


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM"])
def test_damaged_pictures_are_read_or_refused(kind):
    """Cut off, or with bytes changed: a clear error at the most."""
    whole = saved(code().resize((60, 60)), kind)
    chosen = random.Random(kind)
    for _ in range(300):
        data = bytearray(whole[: chosen.randrange(4, len(whole)) if chosen.random() < 0.4 else len(whole)])
        for _ in range(chosen.randrange(6)):
            data[chosen.randrange(len(data))] = chosen.randrange(256)
        try:
            images = picture.grey(bytes(data), "it")
        except EnrolError:
            continue
        assert all(image.mode == "L" for image in images)
