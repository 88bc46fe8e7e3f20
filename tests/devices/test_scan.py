"""`otpbridge yubikey scan`: what a portal shows goes onto a key, by the real command on a real screen."""

from __future__ import annotations

import base64
import io
import json
import os
import subprocess
import time

import pytest
import segno
from real_daemon import MAIN
from terminal import Terminal
from xscreen import page, xserver

SEED = b"12345678901234567890"
BASE32 = base64.b32encode(SEED).decode()
ALICE = f"otpauth://totp/Example:alice?secret={BASE32}&issuer=Example&algorithm=SHA1&digits=6&period=30"
OTHER = f"otpauth://totp/Example:bob?secret={base64.b32encode(bytes(20)).decode()}&issuer=Example"
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
    assert "Example:alice on YubiKey 5 NFC 12345678 shows" in terminal.text
    assert [credential.secret for credential in key.credentials] == [SEED]
