"""The same token by other ways: a YubiKey that takes it from the screen, and logins through PAM."""

from __future__ import annotations

import json
import shutil
import subprocess
import time

import mss
import pammodule
import pytest
from daemon_rig import CLI, SECONDS, plain_environment
from pamstack import PAM_AUTH_ERR, PAM_SUCCESS, Stack
from PIL import Image
from portal_rig import Person, decoded
from virtualkey.rig import shared_rig
from xscreen import xserver

pytestmark = pytest.mark.system


@pytest.fixture
def screen_page(playwright):
    """A page in a window that fills a screen; with the environment of that screen."""
    if shutil.which("Xvfb") is None:
        pytest.skip("Xvfb is not installed")
    with xserver(1400, 1300) as screen:
        browser = playwright.chromium.launch(
            executable_path="/usr/bin/chromium",
            headless=False,
            env=plain_environment(**screen),
            args=["--no-sandbox", "--kiosk", "--window-position=0,0", "--window-size=1400,1300", "--disable-gpu"],
        )
        yield browser.new_page(no_viewport=True), screen
        browser.close()


def wait_until_seen(screen):
    """Return once a QR code is on the screen."""
    deadline = time.monotonic() + SECONDS
    with mss.MSS(display=screen["DISPLAY"]) as server:
        while True:
            shot = server.grab(server.monitors[0])
            picture = Image.frombytes("RGB", shot.size, shot.bgra, "raw", "BGRX")
            if decoded(picture):
                return
            assert time.monotonic() < deadline, "the page did not come up"


def test_a29_a_yubikey_takes_the_code_from_the_screen(portal, screen_page):
    """`otpbridge yubikey scan --screen` puts what the page shows onto a key, and that key's code logs in."""
    page, screen = screen_page
    rig = shared_rig()
    rig.reset()
    rig.plug()
    portal.add("a29")
    a29 = Person(portal, page, "a29")
    assert a29.log_in()
    a29.window()
    phone = a29.generate().phone
    wait_until_seen(screen)

    def yubikey(*arguments):
        done = subprocess.run(
            [*CLI, "--run-dir", portal.folder, "--json", "yubikey", *arguments],
            capture_output=True,
            text=True,
            check=False,
            timeout=SECONDS,
            env=plain_environment(**screen, **rig.settings),
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    yubikey("scan", "--screen", "--yes")
    used = phone.code()
    a29.confirm(used)
    page.wait_for_url("**/recovery-codes")
    a29.log_out()
    while (code := yubikey("code")[0]["code"]) == used:
        pass  # the same time step still
    assert a29.log_in(code)
    a29.go("/user")
    page.get_by_label("REQUIRED", exact=True).check()
    page.get_by_role("button", name="Save").click()
    assert portal.admin.tokens("a29", client="acme").enforcement == "required"


def test_a30_pam_and_portal_honour_one_token_once(portal, new_page, tmp_path):
    """Set up in the portal, good at a PAM login; a code that was used at one is refused at the other."""
    portal.add("a30", client="local")
    a30 = Person(portal, new_page(), "a30", "linux")
    assert a30.log_in()
    phone = a30.set_up()
    stack = Stack(tmp_path, f"auth required {pammodule.build()} socket={portal.daemon.verify_socket}")
    portal.require("a30", client="local")
    a30.log_out()
    at_pam = phone.code()
    assert stack.login("a30", [at_pam]).code == PAM_SUCCESS
    assert not a30.log_in(at_pam)
    at_portal = phone.code()
    assert a30.log_in(at_portal)
    assert stack.login("a30", [at_portal]).code == PAM_AUTH_ERR
