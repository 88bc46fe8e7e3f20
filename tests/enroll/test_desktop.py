"""Screenshots through the desktop portal, on a private D-Bus session."""

from __future__ import annotations

import io
import os
from pathlib import Path
from shutil import rmtree
from tempfile import mkdtemp

import pytest
from desktop_portal import portal, session_bus
from PIL import Image

from otpbridge.enroll import desktop, display
from otpbridge.errors import EnrolError


@pytest.fixture(scope="module")
def bus():
    """The environment of a D-Bus session."""
    folder = mkdtemp(prefix="otpb-")
    try:
        with session_bus(folder) as environment:
            yield environment
    finally:
        rmtree(folder)


@pytest.fixture
def here(bus, monkeypatch):
    """The same, as the environment of this process."""
    for name, value in bus.items():
        monkeypatch.setenv(name, value)
    return bus


@pytest.fixture
def picture(tmp_path):
    """What the desktop writes."""
    path = tmp_path / "Screenshot from today, 100%.png"
    out = io.BytesIO()
    Image.new("RGB", (30, 20), "white").save(out, "PNG")
    path.write_bytes(out.getvalue())
    return path


@pytest.mark.parametrize("manner", [{}, {"early": True}, {"old": True}], ids=["new", "early", "old"])
def test_the_picture_is_read_and_deleted(here, picture, manner):
    """Whatever the portal's age and haste; an X server that is there too would show black, and is not asked."""
    with portal(here, picture.as_uri(), **manner) as asked:
        shot = display.shoot()
    (image,) = shot.images
    assert (image.size, image.getextrema(), shot.left_behind) == ((30, 20), (255, 255), None)
    assert not picture.exists()
    (options,) = asked
    assert options["interactive"] is False


def test_results_of_others_do_not_count(here, picture, tmp_path):
    """Any program of the session can send some: the file that they name is neither read nor deleted."""
    theirs = tmp_path / "theirs.png"
    theirs.write_bytes(picture.read_bytes())
    with portal(here, picture.as_uri(), noise=theirs.as_uri()):
        display.shoot()
    assert theirs.exists()
    assert not picture.exists()


def test_what_is_no_picture_is_not_deleted(here, tmp_path):
    """A desktop that names some other file does no harm to it; the message says which it was."""
    other = tmp_path / "thesis.txt"
    other.write_text("hello")
    with portal(here, other.as_uri()), pytest.raises(EnrolError, match=r"thesis\.txt is no picture"):
        display.shoot()
    assert other.read_text() == "hello"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can have files of others")
def test_what_belongs_to_others_is_not_touched(here, picture):
    """Neither read nor deleted, as where root is led to a user's desktop."""
    os.chown(picture, 65534, 65534)
    with portal(here, picture.as_uri()), pytest.raises(EnrolError, match="belongs to somebody else"):
        display.shoot()
    assert picture.exists()


@pytest.mark.parametrize(
    ("uri", "manner", "words"),
    [
        ("file:///none", {"status": 1}, "not allowed"),
        ("file:///none", {"status": 2}, "took no screenshot"),
        (None, {}, "does not say where"),
        ("https://example.org/picture.png", {}, "does not say where"),
        ("file://elsewhere/picture.png", {}, "does not say where"),
        ("file:///none/picture.png", {}, "No such file"),
        ("file:///proc", {}, "is no file"),
        ("file:///%00", {}, "does not say where"),
        ("file:///none", {"error": "org.freedesktop.DBus.Error.UnknownInterface"}, "UnknownInterface"),
    ],
)
def test_what_goes_wrong_on_the_desktop_is_told(here, uri, manner, words):
    """In one line, with what to do."""
    with portal(here, uri, **manner), pytest.raises(EnrolError, match=words):
        desktop.screenshot()


def test_a_desktop_without_a_portal_is_told(here):
    """With what to install, and another way."""
    with pytest.raises(EnrolError, match="xdg-desktop-portal"):
        desktop.screenshot()


@pytest.mark.parametrize("address", [None, "unix:path=/none/bus", "tcp:host=localhost,port=1", "nonsense"])
def test_a_session_that_is_not_there_is_told(monkeypatch, address):
    """It is not another program's traceback."""
    monkeypatch.setenv("DBUS_SESSION_BUS_ADDRESS", "")
    if address is None:
        monkeypatch.delenv("DBUS_SESSION_BUS_ADDRESS")
    else:
        monkeypatch.setenv("DBUS_SESSION_BUS_ADDRESS", address)
    with pytest.raises(EnrolError, match="D-Bus session"):
        desktop.screenshot()


def test_a_link_is_not_followed(here, picture):
    """A file that is a link is neither read nor deleted."""
    link = picture.with_name("link.png")
    link.symlink_to(picture)
    with portal(here, link.as_uri()), pytest.raises(EnrolError, match="cannot be read"):
        desktop.screenshot()
    assert picture.exists()


def test_a_picture_that_stays_is_named(here, picture, monkeypatch):
    """Where the file cannot be deleted, the person is told where it is."""
    monkeypatch.setattr(Path, "unlink", lambda _path: os.unlink("/none"))
    with portal(here, picture.as_uri()):
        assert display.shoot().left_behind == picture


def test_nothing_is_waited_for_without_end(here, monkeypatch):
    """A portal whose user never answers is given up."""
    monkeypatch.setattr(desktop, "_USER_SECONDS", 0.0)
    with portal(here, "file:///none", mute=True), pytest.raises(EnrolError, match="did not answer in time"):
        desktop.screenshot()
