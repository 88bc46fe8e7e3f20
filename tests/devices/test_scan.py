"""`otpbridge yubikey scan`: what a portal shows goes onto a key, by the real command on a real screen."""

from __future__ import annotations

import base64
import io
import json
import os
import shutil
import subprocess
import time
from contextlib import contextmanager
from pathlib import Path
from tempfile import mkdtemp

import pytest
import segno
from desktop_portal import portal, session_bus
from migration_export import SEED, entry, payload, uri
from real_daemon import MAIN
from terminal import Terminal
from xscreen import page, xserver

from otpbridge.cli import yubikey_scan, yubikey_take
from otpbridge.cli.yubikey_reach import Reach
from otpbridge.devices.keys import NewAccount
from otpbridge.enroll import display
from otpbridge.enroll.display import Monitor, Shot
from otpbridge.enroll.scanning import Box
from otpbridge.errors import DeviceError
from otpbridge.model import Kind, OtpParameters, Secret

BASE32 = base64.b32encode(SEED).decode()
ALICE = f"otpauth://totp/Example:alice?secret={BASE32}&issuer=Example&algorithm=SHA1&digits=6&period=30"
BOB = f"otpauth://totp/Example:bob?secret={base64.b32encode(bytes(20)).decode()}&issuer=Example"
LINK = "https://apps.apple.com/app/an-authenticator/id388497605"


@pytest.fixture(scope="session")
def screen():
    """The environment of an X server with one screen."""
    with xserver() as environment:
        yield environment


def picture(text, **form):
    """A QR code as PNG."""
    out = io.BytesIO()
    segno.make_qr(text, error="l").save(out, kind="png", **{"scale": 4, **form})
    return out.getvalue()


def image(text, **form):
    """The same as an element of a page."""
    return f'<img src="data:image/png;base64,{base64.b64encode(picture(text, **form)).decode()}">'


@pytest.fixture
def run(tmp_path):
    """Run the command; what it says on both streams. There is no daemon anywhere."""

    def run(*arguments, code=0, data=b"", environment=None):
        done = subprocess.run(
            [*MAIN, "--run-dir", str(tmp_path), *map(str, arguments)],
            capture_output=True,
            check=False,
            timeout=120,
            input=data,
            env={**bare(), **(environment or {})},
        )
        done.stdout, done.stderr = done.stdout.decode(), done.stderr.decode()
        assert done.returncode == code, (done.stdout, done.stderr)
        assert "Traceback" not in done.stderr
        for form in (SEED.decode(), BASE32, SEED.hex()):
            assert form not in done.stdout + done.stderr
        return done

    return run


def bare():
    """The environment without any screen."""
    return {name: value for name, value in os.environ.items() if name not in {"DISPLAY", "WAYLAND_DISPLAY"}}


def oathtool(at, secret=BASE32, *options):
    """The code of a time as oathtool computes it."""
    return subprocess.run(
        ["oathtool", "-b", "--totp", *options, "-N", f"@{int(at)}", "-"],
        input=secret,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()


def test_a_code_on_the_screen_goes_onto_the_key(rig, screen, run):
    """The page of a portal in a browser: the key gets its account, and shows the code that oathtool computes."""
    key = rig.plug(serial=12345678)
    before = time.time()
    with page(screen, f"<h1>Security token</h1>{image(ALICE)}"):
        done = run("--json", "yubikey", "scan", "--screen", environment=screen)
    (told,) = json.loads(done.stdout)
    assert told["code"] in {oathtool(before), oathtool(time.time())}
    assert (told["serial"], told["account"]) == (12345678, "Example:alice")
    (credential,) = key.credentials
    assert (credential.id, credential.secret, credential.digits) == (b"Example:alice", SEED, 6)


def test_a_person_sees_what_is_put_where_and_is_asked(rig, tmp_path):
    """Issuer, account, settings and code before; a no changes nothing; a yes, and the key shows its code."""
    key = rig.plug(serial=12345678)
    file = tmp_path / "code.png"
    file.write_bytes(picture(ALICE))
    for answer, code in (("n", 1), ("y", 0)):
        with Terminal("--run-dir", tmp_path, "yubikey", "scan", file) as terminal:
            terminal.wait_for("Put it on YubiKey 5 NFC 12345678?")
            assert "Example" in terminal.text
            assert "alice" in terminal.text
            assert "totp, SHA1, 6 digits, a new code every 30 s" in terminal.text
            assert key.credentials == []
            terminal.type(answer)
            assert terminal.finish() == code
        assert BASE32 not in terminal.text
    assert "Example:alice shows" in terminal.text
    assert [credential.secret for credential in key.credentials] == [SEED]


def ids(key):
    """What a key holds."""
    return [credential.id.decode() for credential in key.credentials]


# --- screens ---


@pytest.mark.parametrize(
    "shown",
    [
        ("background:#121212;color:#eee", {"border": 0, "scale": 5}, 1.0),
        ("background:#000;color:#eee", {"border": 0, "scale": 4}, 1.25),
        ("background:#0d1117;color:#eee", {"dark": "#c9d1d9", "light": "#0d1117", "border": 1, "scale": 4}, 0.8),
        ("background:#fff", {"border": 1, "scale": 1}, 1.5),
    ],
    ids=["dark", "black-125", "inverted-80", "small-150"],
)
def test_pages_of_all_kinds_are_read_off_the_screen(rig, screen, run, shown):
    """Dark, without a quiet zone, inverted, small, and in a browser that is zoomed."""
    html, form, zoom = shown
    key = rig.plug()
    lorem = "<p>Scan this with your authenticator, then type the code that it shows.</p>" * 4
    body = f'<div style="{html};min-height:100vh;padding:2em">{lorem}{image(ALICE, **form)}{lorem}</div>'
    with page(screen, body, zoom=zoom):
        run("yubikey", "scan", environment=screen)
    assert ids(key) == ["Example:alice"]


def test_a_small_code_on_a_large_screen_is_read(rig, run):
    """3840 by 2160 pixels, two pixels a module, among a lot of text."""
    key = rig.plug()
    words = "<p>The quick brown fox jumps over the lazy dog, 1234567890 times a day.</p>" * 200
    body = f'<div style="columns:6">{words}{image(ALICE, scale=2)}{words}</div>'
    with xserver(3840, 2160) as large, page(large, body):
        run("yubikey", "scan", environment=large)
    assert ids(key) == ["Example:alice"]


def test_two_codes_on_the_screen_are_not_guessed_between(rig, screen, run):
    """They are listed, with their places and without their seeds; --pick and --account say which."""
    key = rig.plug()
    far = image(BOB).replace("<img", "<img style='position:fixed;right:60px;bottom:60px'")
    with page(screen, image(ALICE) + far):
        done = run("yubikey", "scan", code=2, environment=screen)
        first, second, last = done.stderr.splitlines()
        assert "1  Example:alice  (screen, top left" in first
        assert "2  Example:bob  (screen, bottom right" in second
        assert "--pick" in last
        assert ids(key) == []
        assert "1 to 2" in run("yubikey", "scan", "--pick", 3, code=2, environment=screen).stderr
        run("yubikey", "scan", "--pick", 2, environment=screen)
        assert ids(key) == ["Example:bob"]
        run("yubikey", "scan", "--account", "alice", environment=screen)
    assert sorted(ids(key)) == ["Example:alice", "Example:bob"]


def test_the_same_code_twice_beside_others_is_one(rig, screen, run):
    """As on two monitors with the same on them; links to shops of apps are passed over."""
    key = rig.plug()
    with page(screen, "&emsp;".join([image(ALICE), image(LINK), image(ALICE)])):
        done = run("yubikey", "scan", environment=screen)
    assert done.stdout.splitlines()[0].count("screen, ") == 2
    assert ids(key) == ["Example:alice"]


def test_a_screen_without_a_code_is_told(rig, screen, run):
    """Whether there is none at all, or none that counts."""
    rig.plug()
    with page(screen, "<h1>Welcome</h1>"):
        assert "no QR code on the screen" in run("yubikey", "scan", code=1, environment=screen).stderr
    with page(screen, image(LINK)):
        done = run("--json", "yubikey", "scan", code=1, environment=screen)
    assert json.loads(done.stdout)["error"] == "NoCode"
    assert "nothing but 1 of another kind" in done.stderr


def test_no_screen_is_told(rig, run):
    """Over ssh, or of somebody else: what to do."""
    rig.plug()
    assert "as the user who sees the code" in run("yubikey", "scan", code=2).stderr
    done = run("yubikey", "scan", code=2, environment={"DISPLAY": ":65000"})
    assert "X server :65000 does not show its screen" in done.stderr


def test_places_are_named_by_monitor():
    """Where there are several; what is on none of them is on the screen."""
    picture = Shot((), "screen", (Monitor(0, 0, 1920, 1080), Monitor(1920, 0, 3840, 2160)))
    assert picture.place(Box(100, 100, 200, 200)) == "monitor 1, top left (150, 150)"
    assert picture.place(Box(5600, 2000, 5700, 2100)) == "monitor 2, bottom right (3730, 2050)"
    assert picture.place(Box(3800, 1000, 3900, 1100)) == "monitor 2, middle centre (1930, 1050)"


@pytest.fixture
def wayland():
    """The environment of a Wayland desktop, of which D-Bus is all there is."""
    folder = mkdtemp(prefix="otpb-")
    try:
        with session_bus(folder) as environment:
            yield environment
    finally:
        shutil.rmtree(folder)


def test_the_desktop_of_wayland_is_asked(rig, wayland, tmp_path, run):
    """The account is put on the key, and the desktop's file with the code is gone."""
    key = rig.plug()
    file = tmp_path / "Screenshot.png"
    file.write_bytes(picture(ALICE))
    with portal(wayland, file.as_uri()):
        run("yubikey", "scan", environment=wayland)
    assert ids(key) == ["Example:alice"]
    assert not file.exists()
    with portal(wayland, file.as_uri(), status=1):
        assert "was not allowed" in run("yubikey", "scan", code=2, environment=wayland).stderr


def test_a_picture_that_the_desktop_left_is_named(monkeypatch, capsys):
    """It shows the code to whoever finds it."""
    left = Shot((), left_behind=Path("/home/alice/Pictures/Screenshot.png"))
    monkeypatch.setattr(display, "shoot", lambda: left)
    assert list(yubikey_scan._on_screen()) == []
    assert "in /home/alice/Pictures/Screenshot.png: delete it" in capsys.readouterr().err


# --- pictures, text, the clipboard ---


@pytest.mark.parametrize("data", [picture(ALICE), f"\n{ALICE}\n".encode()], ids=["picture", "text"])
def test_standard_input_is_read(rig, run, data):
    """A picture of another program, or a URI."""
    key = rig.plug()
    run("yubikey", "scan", "-", data=data)
    assert ids(key) == ["Example:alice"]


def test_several_pictures_are_one_export(rig, tmp_path, run):
    """An export in two QR codes: of one alone it is said that the other is missing; of both, nothing is."""
    key = rig.plug()
    files = []
    for index, name in enumerate(["alice", "bob"]):
        files.append(tmp_path / f"{name}.png")
        part = uri(payload(entry(name=name, secret=SEED[index:]), size=2, index=index, batch=5))
        files[-1].write_bytes(picture(part))
    assert "1 more QR code" in run("yubikey", "scan", files[0]).stderr
    done = run("yubikey", "scan", *files, "--account", "bob")
    assert "more QR code" not in done.stderr
    assert ids(key) == ["Example:alice", "Example:bob"]


def test_accounts_of_an_export_are_chosen(rig, run):
    """None unasked; several at once; what no key computes has its reason."""
    key = rig.plug()
    export = uri(
        payload(
            entry(name="alice"),
            entry(name="bob", secret=bytes(range(20)), digits=2, algorithm=2),
            entry(name="carol", algorithm=4),
            entry(name="dave", secret=b"d" * 20, kind=1, counter=7),
        )
    )
    data = picture(export)
    done = run("yubikey", "scan", "-", data=data, code=2)
    assert "4  Example:dave" in done.stderr
    assert "3  Example:carol  (picture, " in done.stderr
    assert "MD5" in done.stderr
    assert ids(key) == []
    assert "MD5" in run("yubikey", "scan", "-", "--account", "carol", data=data, code=1).stderr
    chosen = ["--account", "Example:bob", "--account", "dave"]
    told = json.loads(run("--json", "yubikey", "scan", "-", *chosen, data=data).stdout)
    assert ids(key) == ["Example:bob", "Example:dave"]
    bob, dave = key.credentials
    assert (bob.secret, bob.digits, bob.algorithm) == (bytes(range(20)), 8, "sha256")
    assert (told[0]["account"], told[0]["digits"], told[1]["kind"]) == ("Example:bob", 8, "hotp")
    assert (dave.kind, dave.counter) == ("hotp", 8)
    spent = subprocess.run(
        ["oathtool", "--hotp", "-c", "7", "-"], input=dave.secret.hex(), capture_output=True, text=True, check=True
    )
    assert told[1]["code"] == spent.stdout.strip()


def test_an_account_that_is_named_twice_is_one(rig, run):
    """By its number and by its name."""
    key = rig.plug()
    text = uri(payload(entry(name="alice"), entry(name="bob")))
    with_uri(run, text, "--pick", 1, "--account", "alice", "--account", "Example:alice")
    assert ids(key) == ["Example:alice"]


def test_a_person_chooses_from_the_list(rig, tmp_path):
    """By its numbers; what is none of them changes nothing."""
    key = rig.plug()
    file = tmp_path / "code.png"
    file.write_bytes(picture(uri(payload(entry(name="alice"), entry(name="bob"), entry(name="carol")))))
    for typed, code in (("4", 2), ("x", 2), ("", 1), ("1 3", 0)):
        with Terminal("--run-dir", tmp_path, "yubikey", "scan", file, "--yes") as terminal:
            terminal.wait_for("Which?")
            terminal.type(typed)
            assert terminal.finish() == code
        assert len(key.credentials) == (2 if code == 0 else 0)
    assert ids(key) == ["Example:alice", "Example:carol"]


def test_a_uri_is_asked_for_hidden_or_read(rig, tmp_path, run):
    """On a terminal it does not show; a script gives it as a line, before the password of the key."""
    key = rig.plug(password="open sesame")
    run("yubikey", "scan", "--uri", "--password-stdin", data=f"{BOB}\nopen sesame\n".encode())
    with Terminal("--run-dir", tmp_path, "yubikey", "scan", "--uri", "--yes") as terminal:
        terminal.wait_for("otpauth URI (it is not shown)")
        terminal.type(ALICE)
        terminal.wait_for("OATH password of")
        terminal.type("open sesame")
        assert terminal.finish() == 0
    assert BASE32 not in terminal.text
    assert ids(key) == ["Example:bob", "Example:alice"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([ALICE], "a URI is no argument"),
        ([ALICE.replace("otpauth", "OTPAuth")], "a URI is no argument"),
        (["--", f" {uri(payload(entry()))}"], "a URI is no argument"),
        (["--screen", "--clipboard"], "take one of"),
        (["code.png", "--uri"], "take one of"),
        (["-", "code.png"], "goes alone"),
        (["-", "--password-stdin"], "cannot go with -"),
        (["/none/code.png"], "cannot read /none/code.png: No such file"),
        (["/"], "cannot read /: Is a directory"),
        (["/dev/null"], "is empty"),
        (["/proc/self/status"], "is no picture"),
        (["/dev/zero"], "larger than"),
        (["-"], "is empty"),
        (["--uri"], "no answer was given"),
    ],
)
def test_what_is_no_source_is_told(rig, run, arguments, words):
    """And a URI as an argument is not even repeated: run() looks for the seed in what is said."""
    key = rig.plug()
    assert words in run("yubikey", "scan", *arguments, code=2).stderr
    assert key.credentials == []


@contextmanager
def copied(screen, kind, data):
    """Something in the clipboard of an X server."""
    assert shutil.which("xclip"), "xclip is missing: apt-get install xclip"
    command = ["xclip", "-quiet", "-selection", "clipboard", "-target", kind, "-in"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stderr=subprocess.PIPE, env={**os.environ, **screen}
    ) as process:
        try:
            process.stdin.write(data)
            process.stdin.close()
            assert b"Waiting" in process.stderr.readline()
            yield
        finally:
            process.terminate()


@pytest.mark.parametrize(
    ("kind", "data"), [("image/png", picture(ALICE)), ("UTF8_STRING", ALICE.encode()), ("image/jpeg", None)]
)
def test_what_was_copied_is_taken(rig, screen, run, kind, data):
    """A picture of either kind, or text."""
    key = rig.plug()
    with copied(screen, kind, data or jpeg(picture(ALICE))):
        run("yubikey", "scan", "--clipboard", environment=screen)
    assert ids(key) == ["Example:alice"]


def jpeg(data):
    """A picture in another format."""
    from PIL import Image

    out = io.BytesIO()
    Image.open(io.BytesIO(data)).convert("L").save(out, "JPEG", quality=30)
    return out.getvalue()


def test_a_clipboard_with_nothing_for_us_is_told(rig, screen, run, tmp_path):
    """Text that is no URI, files, no clipboard, no program that reads it."""
    rig.plug()
    with copied(screen, "UTF8_STRING", b"hello"):
        assert "is no picture" in run("yubikey", "scan", "--clipboard", code=2, environment=screen).stderr
    with copied(screen, "x-special/gnome-copied-files", b"copy\nfile:///etc"):
        assert "neither a picture" in run("yubikey", "scan", "--clipboard", code=2, environment=screen).stderr
    assert "no clipboard here" in run("yubikey", "scan", "--clipboard", code=2).stderr
    nowhere = {**screen, "PATH": str(tmp_path)}
    assert "install xclip" in run("yubikey", "scan", "--clipboard", code=2, environment=nowhere).stderr
    wayland = {"WAYLAND_DISPLAY": "wayland-0", "PATH": str(tmp_path)}
    assert "install wl-clipboard" in run("yubikey", "scan", "--clipboard", code=2, environment=wayland).stderr


def test_the_clipboard_of_wayland_is_asked_as_its_program_takes_it(rig, run, tmp_path):
    """By wl-paste's own options (wl-clipboard 2), of which the picture comes first."""
    key = rig.plug()
    (tmp_path / "code.png").write_bytes(picture(ALICE))
    program = tmp_path / "wl-paste"
    program.write_text(
        "#!/bin/sh\n"
        'case "$*" in\n'
        '    --list-types) printf "text/plain\\nimage/png\\n" ;;\n'
        f'    "--no-newline --type image/png") cat {tmp_path}/code.png ;;\n'
        "    *) exit 1 ;;\n"
        "esac\n"
    )
    program.chmod(0o755)
    path = f"{tmp_path}:{os.environ['PATH']}"
    run("yubikey", "scan", "--clipboard", environment={"WAYLAND_DISPLAY": "wayland-0", "PATH": path})
    assert ids(key) == ["Example:alice"]


@pytest.mark.parametrize("module", ["zxingcpp", "PIL", "mss", "jeepney"])
def test_a_missing_library_is_named_with_what_installs_it(rig, run, tmp_path, module):
    """For pictures, for X, for Wayland: no traceback."""
    rig.plug()
    (tmp_path / f"{module}.py").write_text(f"raise ImportError('No module named {module}')\n")
    where = {"jeepney": {"WAYLAND_DISPLAY": "wayland-0"}, "mss": {"DISPLAY": ":65000"}}.get(module, {})
    source = [] if where else ["-"]
    environment = {**where, "PYTHONPATH": str(tmp_path)}
    done = run("yubikey", "scan", *source, data=picture(ALICE), code=3, environment=environment)
    assert "otpbridge[hardware]" in done.stderr


# --- onto the key ---


def with_uri(run, text, *options, code=0):
    """Put a URI on the key."""
    return run("yubikey", "scan", "--uri", *options, data=f"{text}\n".encode(), code=code)


def test_it_is_called_what_was_said(rig, run):
    """By other names; an issuer loses the colons that a key cannot keep."""
    key = rig.plug()
    with_uri(run, ALICE, "--label", "alice.smith", "--issuer", "Work")
    with_uri(run, ALICE.replace("=Example", "=Example%3A%20Nord"))
    with_uri(run, ALICE, "--issuer", "")
    assert ids(key) == ["Work:alice.smith", "Example Nord:alice", "alice"]


@pytest.mark.parametrize(
    ("text", "options", "told"),
    [
        (f"otpauth://totp/15/foo?secret={BASE32}", (), (1, "read")),
        (ALICE, ("--label", "ü" * 32), (1, "has 72")),
        (ALICE, ("--label", ""), (1, "has no name")),
        (ALICE, ("--serial", "5"), (1, "no key with serial 5")),
        (ALICE, ("--touch",), (1, "needs 4.2.6")),
        (f"{ALICE}".replace("SHA1", "SHA512"), (), (1, "SHA512 needs 4.3.1")),
        (f"{ALICE}".replace("SHA1", "MD5"), (), (1, "algorithm must be")),
        (f"otpauth://hotp/alice?secret={BASE32}&counter=4294967296", (), (1, "counts from 4294967295 at most")),
        (ALICE.replace("Example", "Steam"), (), (1, "Steam")),
        ("https://example.org", (), (1, "nothing but 1 of another kind")),
        ("otpauth://totp/" + "a" * 5000, (), (2, "more than")),
    ],
)
def test_what_cannot_be_is_told_before_anything_is_written(rig, run, text, options, told):
    """By name, firmware, hash and counter; the key is not written to."""
    key = rig.plug(version=(4, 2, 4))
    code, words = told
    assert words in with_uri(run, text, *options, code=code).stderr
    assert not any(apdu.name == "PUT" for apdu in key.log)


def test_an_account_that_is_there_is_neither_overwritten_nor_removed(rig, run):
    """It stays as it was; under another name there is room."""
    key = rig.plug()
    key.add("Example:alice", bytes(20))
    assert "not overwritten" in with_uri(run, ALICE, code=1).stderr
    assert [credential.secret for credential in key.credentials] == [bytes(20)]
    with_uri(run, ALICE, "--label", "second")
    assert ids(key) == ["Example:alice", "Example:second"]


def test_room_for_all_or_for_none(rig, run):
    """Of two accounts for one place, not one is written; nor are two of one name."""
    key = rig.plug(version=(5, 4, 3))
    key.fill(leave=1)
    text = uri(payload(entry(name="alice"), entry(name="bob")))
    done = with_uri(run, text, "--pick", 1, "--pick", 2, code=1)
    assert "31 of 32" in done.stderr
    twice = uri(payload(entry(name="alice"), entry(name="alice", secret=bytes(20))))
    assert "two of the accounts" in with_uri(run, twice, "--pick", 1, "--pick", 2, code=1).stderr
    assert "several accounts are called alice" in with_uri(run, twice, "--account", "alice", code=2).stderr
    assert "several were chosen" in with_uri(run, text, "--pick", 1, "--pick", 2, "--label", "x", code=2).stderr
    assert not any(apdu.name == "PUT" for apdu in key.log)


def test_a_touch_is_asked_for_and_counted_down(rig, tmp_path):
    """And one that is late is a touch."""
    key = rig.plug()
    key.touch("late")
    file = tmp_path / "code.png"
    file.write_bytes(picture(ALICE))
    with Terminal("--run-dir", tmp_path, "yubikey", "scan", file, "--touch", "--yes") as terminal:
        terminal.wait_for("Touch YubiKey 5 NFC 12345678 now (15 s)")
        key.blinks()
        key.touch("given")
        terminal.wait_for("shows")
        assert terminal.finish() == 0
    assert [credential.touch for credential in key.credentials] == [True]


def test_a_key_that_is_not_touched_keeps_nothing(rig, run):
    """What was written is taken off again, and that is said."""
    key = rig.plug()
    key.touch("never")
    done = with_uri(run, ALICE, "--touch", code=1)
    assert "not touched in time" in done.stderr
    assert "Nothing is left" in done.stderr
    assert key.credentials == []


def test_giving_up_keeps_nothing(rig, tmp_path):
    """Ctrl-C while the key waits for a touch."""
    key = rig.plug()
    key.touch("late")
    file = tmp_path / "code.png"
    file.write_bytes(picture(ALICE))
    with Terminal("--run-dir", tmp_path, "yubikey", "scan", file, "--touch", "--yes") as terminal:
        terminal.wait_for("now (15 s)")
        key.blinks()
        terminal.press("\x03")
        terminal.wait_for("Giving up")
        key.touch("never")
        assert terminal.finish() == 130
    assert "Nothing is left" in terminal.text
    assert key.credentials == []


@pytest.mark.parametrize("executed", [False, True])
@pytest.mark.parametrize("at", ["PUT", "CALCULATE"])
def test_a_key_that_is_pulled_and_comes_back_is_cleaned(rig, tmp_path, at, executed):
    """Whether it was still written or not is read from the key, not guessed."""
    key = rig.plug()
    rig.pull(key, at=at, executed=executed)
    file = tmp_path / "code.png"
    file.write_bytes(picture(ALICE))
    with Terminal("--run-dir", tmp_path, "yubikey", "scan", file, "--yes") as terminal:
        terminal.wait_for("Plug YubiKey 5 NFC 12345678 in again")
        rig.insert(key)
        terminal.wait_for("Nothing is left")
        assert terminal.finish() == 1
    assert key.credentials == []


def test_a_key_that_stays_away_is_named(rig, run):
    """A script is told what may be left where, and how it comes off."""
    key = rig.plug()
    rig.pull(key, at="PUT", executed=True)
    done = with_uri(run, ALICE, code=1)
    assert "Example:alice may be left on YubiKey 5 NFC 12345678" in done.stderr
    assert "otpbridge yubikey remove" in done.stderr
    rig.insert(key)
    run("yubikey", "remove", "Example:alice", "--yes")


def test_what_was_proven_before_a_failure_stays_and_is_named(rig, run):
    """Of two accounts, the first is on the key and works; the second is nowhere."""
    key = rig.plug()
    key.touch("given")
    text = uri(payload(entry(name="alice"), entry(name="bob", secret=bytes(20))))
    rig.pull(key, after=1, at="PUT")
    done = with_uri(run, text, "--pick", 1, "--pick", 2, code=1)
    assert "On YubiKey 5 NFC 12345678 are, and stay: Example:alice." in done.stderr
    assert "Example:bob may be left" in done.stderr
    rig.insert(key)
    assert ids(key) == ["Example:alice"]


def test_a_key_that_computes_something_else_keeps_nothing(rig, monkeypatch, capsys):
    """Its code is held against the one of the seed."""
    key = rig.plug()
    account = NewAccount(Kind.TOTP, "alice", "Example", OtpParameters(), Secret(SEED))
    monkeypatch.setattr(yubikey_take, "code_of", lambda _account, _at: "000000x")
    reach = Reach()
    with pytest.raises(DeviceError, match="other codes"):
        yubikey_take.put(reach, reach.key(None), account)
    assert key.credentials == []
    assert "Nothing is left" in capsys.readouterr().err
