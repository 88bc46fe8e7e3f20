"""`otpbridge enroll fido2`: a key on this machine becomes an authenticator, or nothing is left."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from daemon_rig import SECONDS, Daemon, plain_environment, private_folder
from softkey import SoftKey
from softkey_wire import Keyring
from terminal import Program

from otpbridge.devices.fido import Ceremony
from otpbridge.model import State, Verdict
from otpbridge.wire import messages

pytestmark = pytest.mark.system

PROGRAM = [sys.executable, Path(__file__).parents[1] / "support/softkey_program.py", "cli"]
HOST = "portal.example.org"
CONFIG = f'''
[stacks.page]
rules = ["required fido2"]
[webauthn]
rp_id = "{HOST}"
'''
WITH_PIN = CONFIG + 'user_verification = "required"\n'


@pytest.fixture
def folder():
    with private_folder() as folder:
        (folder / "usb").mkdir()
        yield folder


@pytest.fixture
def ring(folder):
    with Keyring(folder / "usb") as ring:
        yield ring


@pytest.fixture
def daemon(folder):
    with Daemon(folder, config=CONFIG) as daemon:
        yield daemon


def on_terminal(daemon, ring, *arguments):
    """The command with a person before it."""
    command = [*PROGRAM, "--run-dir", daemon.run_dir, "enroll", "fido2", *arguments]
    return Program(*command, environment=ring.environment)


def in_script(daemon, ring, *arguments, code=0, stdin=""):
    """The command without a terminal; what it says on both outputs."""
    done = subprocess.run(
        [*PROGRAM, "--run-dir", daemon.run_dir, *arguments],
        input=stdin,
        capture_output=True,
        text=True,
        check=False,
        timeout=SECONDS,
        env=plain_environment(**ring.environment),
    )
    assert "Traceback" not in done.stderr
    assert done.returncode == code, done.stderr
    return done.stdout, done.stderr


def tokens(daemon, user="alice"):
    with daemon.client() as client:
        return client.tokens(user).tokens


class Browser:
    """A person before a page, whose browser has this key."""

    def __init__(self, key):
        self._key = key

    def touch(self, key, seconds):
        self._key.press()

    def pin(self, wanted):
        raise AssertionError("no PIN was to be asked for")

    def __str__(self):
        return "a key"

    def open(self, _stop):
        return self._key.plug()

    def login(self, daemon, user="alice"):
        """Log in on a page of the portal; the verdict."""
        with daemon.client() as client, client.begin(user, webauthn=True, stack="page") as talk:
            (prompt,) = talk.prompts
            talk.answer(Ceremony(self, SECONDS, lambda: [self]).assertion(prompt.text, f"https://{HOST}"))
            return talk.verdict


def test_a_key_is_registered_by_a_touch_and_lets_in(daemon, ring):
    """The person is told what to do, and the key then logs in where keys are asked for."""
    key = ring.plug(SoftKey(touch="late"))
    with on_terminal(daemon, ring, "alice") as terminal:
        terminal.wait_for("Touch Soft Key now (")
        key.press()
        terminal.wait_for("is active: security key.")
        terminal.wait_for("otpbridge user require alice")
        terminal.wait_for("otpbridge enroll recovery alice")
        assert terminal.finish() == 0
    (token,) = tokens(daemon)
    assert (token.kind, token.state) == ("fido2", State.ACTIVE)
    assert Browser(key).login(daemon) is Verdict.SUCCESS


def test_a_script_gets_the_token_as_json(daemon, ring):
    """Standard output has one JSON value; the request to touch the key is on standard error."""
    ring.plug(SoftKey())
    out, err = in_script(daemon, ring, "--json", "enroll", "fido2", "alice", "--label", "blue key")
    told = json.loads(out)
    (token,) = tokens(daemon)
    assert told == {
        "token": token.id,
        "user": "alice",
        "client": "local",
        "kind": "fido2",
        "state": "active",
        "label": "blue key",
        "replaced": [],
    }
    assert "Touch Soft Key now.\n" in err


def test_a_pin_is_asked_for_hidden(folder, ring):
    """The PIN is not shown while it is typed; a wrong one is told, with the tries that are left."""
    key = ring.plug(SoftKey(pin="2580"))
    with Daemon(folder, config=WITH_PIN) as daemon, on_terminal(daemon, ring, "alice") as terminal:
        terminal.wait_for("PIN of Soft Key: ")
        terminal.type("0000")
        terminal.wait_for("That was not it. 7 tries are left.")
        terminal.wait_for("PIN of Soft Key: ")
        terminal.type("2580")
        terminal.wait_for("is active")
        assert terminal.finish() == 0
        assert "2580" not in terminal.text
        assert "2580" not in daemon.log
    assert len(key.credentials) == 1


def test_a_script_gives_the_pin_on_standard_input(folder, ring):
    """It is asked for once: a wrong one costs one try."""
    key = ring.plug(SoftKey(pin="2580"))
    with Daemon(folder, config=WITH_PIN) as daemon:
        _, err = in_script(daemon, ring, "enroll", "fido2", "alice", stdin="0000\n0000\n", code=1)
        assert "no PIN was given" in err
        assert key.pin_tries == 7
        in_script(daemon, ring, "enroll", "fido2", "alice", stdin="2580\n")


def test_ctrl_c_leaves_nothing(daemon, ring):
    """The key stops blinking at once, and the pending token is gone."""
    key = ring.plug(SoftKey(touch="late"))
    with on_terminal(daemon, ring, "alice") as terminal:
        terminal.wait_for("Touch Soft Key now (")
        key.blinks()
        terminal.press("\x03")
        terminal.wait_for("The new token was discarded; nothing has changed.")
        assert terminal.finish() == 130
    key.rests()
    assert tokens(daemon) == ()
    assert key.credentials == []


def test_ctrl_c_at_the_pin_leaves_nothing(folder, ring):
    """Nor does giving up before a PIN is typed, or typing none."""
    key = ring.plug(SoftKey(pin="2580"))
    with Daemon(folder, config=WITH_PIN) as daemon:
        for pressed, code in (("\x03", 130), ("\n", 1)):
            with on_terminal(daemon, ring, "alice") as terminal:
                terminal.wait_for("PIN of Soft Key: ")
                terminal.press(pressed)
                terminal.wait_for("The new token was discarded")
                assert terminal.finish() == code
        assert tokens(daemon) == ()
    assert key.pin_tries == 8


def test_a_key_that_is_not_touched_leaves_nothing(daemon, ring):
    """The person learns why, and a script gets it as JSON."""
    ring.plug(SoftKey(touch="never"))
    _, err = in_script(daemon, ring, "--json", "enroll", "fido2", "alice", code=1)
    assert "nobody touched Soft Key in time" in err
    assert tokens(daemon) == ()


def test_a_key_that_is_pulled_leaves_nothing(daemon, ring):
    """It is told in words."""
    key = ring.plug(SoftKey(touch="late"))
    with on_terminal(daemon, ring, "alice") as terminal:
        terminal.wait_for("Touch Soft Key now (")
        key.blinks()
        ring.unplug(key)
        terminal.wait_for("The new token was discarded")
        terminal.wait_for("pulled out")
        assert terminal.finish() == 1
    assert tokens(daemon) == ()


def test_without_a_key_nothing_is_begun(daemon, ring):
    """No pending token, no row in the audit log."""
    before = len(daemon.audit())
    _, err = in_script(daemon, ring, "enroll", "fido2", "alice", code=1)
    assert "no security key is plugged in" in err
    assert len(daemon.audit()) == before


def test_a_key_is_registered_once_for_a_user(daemon, ring):
    """The second time it says so, and the first registration stays as it is; another user may have the same key."""
    ring.plug(SoftKey())
    in_script(daemon, ring, "enroll", "fido2", "alice")
    _, err = in_script(daemon, ring, "enroll", "fido2", "alice", code=1)
    assert "registered for this user already" in err
    assert len(tokens(daemon)) == 1
    in_script(daemon, ring, "enroll", "fido2", "bob")


def test_of_several_keys_the_touched_one_is_registered(daemon, ring):
    """Each blinks; the first touch chooses."""
    left, right = ring.plug(SoftKey(name="left", touch="late")), ring.plug(SoftKey(name="right", touch="late"))
    with on_terminal(daemon, ring, "alice") as terminal:
        terminal.wait_for("Touch the key that is to be registered (")
        left.blinks()
        right.press()
        terminal.wait_for("Touch right now (")
        right.press()
        terminal.wait_for("is active")
        assert terminal.finish() == 0
    assert [len(key.credentials) for key in (left, right)] == [0, 1]


def test_an_answer_that_does_not_hold_is_refused(daemon, ring):
    """The daemon judges what the key says; nothing of it is left."""
    ring.plug(SoftKey(tampered=True))
    _, err = in_script(daemon, ring, "enroll", "fido2", "alice", code=1)
    assert "The key was not registered" in err
    assert tokens(daemon) == ()


# --- what the verifier sees in what keys answer ---


@pytest.fixture
def registered(daemon, ring):
    """A key of alice, who must have a second factor."""
    key = ring.plug(SoftKey())
    in_script(daemon, ring, "enroll", "fido2", "alice")
    with daemon.admin() as admin:
        admin.call(messages.SetEnforcement(user="alice", enforcement="required"))
    return key


def test_a_copy_of_a_key_is_found_out(daemon, registered):
    """A counter that does not grow is refused, and the audit log says why. The key itself is let in again."""
    registered.counter += 5
    assert Browser(registered).login(daemon) is Verdict.SUCCESS
    registered.counter -= 3
    assert Browser(registered).login(daemon) is Verdict.AUTH_ERR
    assert "counter" in daemon.audit()[-1].reason
    registered.counter += 5
    assert Browser(registered).login(daemon) is Verdict.SUCCESS


def test_a_key_that_does_not_count_is_let_in(daemon, ring):
    """Passkeys say 0 for ever."""
    key = ring.plug(SoftKey(counts=False))
    in_script(daemon, ring, "enroll", "fido2", "alice")
    assert [Browser(key).login(daemon) for _ in range(3)] == [Verdict.SUCCESS] * 3


def test_an_account_of_somebody_else_is_refused(daemon, registered):
    """A key that says it signs for another user does not let in."""
    registered.user_handle = os.urandom(32)
    assert Browser(registered).login(daemon) is Verdict.AUTH_ERR


def test_an_answer_is_good_once(daemon, registered):
    """A second attempt has a challenge of its own: what was answered to the first is refused."""
    browser = Browser(registered)
    with daemon.client() as client:
        with client.begin("alice", webauthn=True, stack="page") as talk:
            answer = Ceremony(browser, SECONDS, lambda: [browser]).assertion(talk.prompts[0].text, f"https://{HOST}")
            talk.answer(answer)
            assert talk.verdict is Verdict.SUCCESS
        with client.begin("alice", webauthn=True, stack="page") as talk:
            talk.answer(answer)
            assert talk.verdict is Verdict.AUTH_ERR


def test_another_page_of_the_same_host_is_refused(daemon, registered):
    """A page that the configuration does not name cannot pass its visitors on."""
    browser = Browser(registered)
    with daemon.client() as client, client.begin("alice", webauthn=True, stack="page") as talk:
        answer = Ceremony(browser, SECONDS, lambda: [browser]).assertion(talk.prompts[0].text, f"https://evil.{HOST}")
        talk.answer(answer)
        assert talk.verdict is Verdict.AUTH_ERR
