"""A login at this machine asks for a security key on its USB port, and a login from elsewhere never does."""

from __future__ import annotations

import json
import os
import sys
import threading
from pathlib import Path

import pammodule
import pytest
from daemon_rig import SECONDS, Daemon, need_root, plain_environment, private_folder, provision
from pamstack import PAM_SILENT, PAM_SUCCESS, Stack, Style, at_system_place
from softkey import SoftKey
from softkey_wire import Keyring

from otpbridge.devices.fido import Ceremony
from otpbridge.model import Context, Kind, NoticeStyle, Secret, Verdict
from otpbridge.wire import messages

pytestmark = pytest.mark.system

PROGRAM = [sys.executable, os.fspath(Path(__file__).parents[1] / "support/softkey_program.py"), "daemon"]
HOST = "desk.example.org"
CONFIG = f"""
[webauthn]
rp_id = "{HOST}"
[local_keys]
enabled = true
[stacks.default]
rules = ["sufficient fido2", "required totp"]
[policy]
enforcement = "required"
"""
WITH_PIN = CONFIG.replace("[local_keys]", 'user_verification = "required"\n[local_keys]')
AT_THE_DESK = "UID=1000\nREMOTE=0\nSEAT=seat0\n"
FROM_ELSEWHERE = "UID=1000\nREMOTE=1\n"
SUDO = Context(service="sudo", tty="/dev/tty1")
CODE = "Verification code: "
TOUCH = "Touch your security key."


class Machine:
    """A machine with USB ports and people before it."""

    def __init__(self, folder, ring):
        self.folder = folder
        self.ring = ring
        self.keys = {}
        process = folder / "machine/proc/500"
        process.mkdir(parents=True)
        (process / "stat").write_text("500 (sudo) S 0 500 0 0 -1\n")
        (process / "cgroup").write_text("0::/user.slice/user-1000.slice/session-3.scope\n")
        (folder / "machine/sessions").mkdir()
        self.session(AT_THE_DESK)

    def session(self, text):
        (self.folder / "machine/sessions/3").write_text(text)

    def daemon(self, config=CONFIG):
        extra = {"TEST_MACHINE": os.fspath(self.folder / "machine"), **self.ring.environment}
        return Daemon(self.folder, config=config, prefix=PROGRAM, environment=plain_environment(**extra))

    def register(self, daemon, user="alice", *, touch="given", pin=None):
        """A new key of a user, plugged in; the user has a phone as well."""
        key = SoftKey(pin=pin)
        if user not in self.keys:
            self.keys |= provision(daemon, [user])
        with daemon.client() as client:
            started = client.start_fido2(user)
            answer = Ceremony(AtBirth(key), SECONDS, lambda: [AtBirth(key)]).register(started.options, started.origin)
            assert client.finish_fido2(started.token, answer).confirmed
        key.log.clear()
        key.touch = touch
        return self.ring.plug(key)


class AtBirth:
    """Who registers a key before it is used."""

    def __init__(self, key):
        self._key = key

    def __str__(self):
        return self._key.name

    def open(self, _stop):
        return self._key.plug()

    def touch(self, _key, _seconds):
        """The finger is there."""

    def pin(self, _wanted):
        return Secret(self._key.pin.encode())


@pytest.fixture
def machine():
    need_root()
    with private_folder() as folder:
        (folder / "usb").mkdir()
        with Keyring(folder / "usb") as ring:
            yield Machine(folder, ring)


@pytest.fixture
def daemon(machine):
    with machine.daemon() as daemon:
        yield daemon


class Login:
    """A login of alice as PAM does it: notices come at once. Does this when it is told to touch a key."""

    def __init__(self, daemon, on_touch=None, context=SUDO, user="alice"):
        self.told = []
        self._on_touch = on_touch
        with daemon.client() as client, client.begin(user, context=context, on_notice=self._hear) as talk:
            self._talk(talk)
            self.verdict = talk.verdict
            self.prompts = [prompt.text for prompt in talk.prompts]

    def _talk(self, talk):
        """Answers nothing."""

    def _hear(self, notice):
        self.told.append((notice.style, notice.text))
        if notice.style is NoticeStyle.TOUCH and self._on_touch is not None:
            self._on_touch()


def with_pins(*pins):
    """A login whose person types these."""

    class Typing(Login):
        def _talk(self, talk):
            self.asked = []
            for pin in pins:
                self.asked += [prompt.text for prompt in talk.prompts]
                talk.answer(pin)

    return Typing


def test_a_touch_lets_in(machine, daemon):
    """The notice is there while the key blinks; the touch is enough, and the audit log names the key's token."""
    key = machine.register(daemon, touch="late")
    login = Login(daemon, key.press)
    assert (login.verdict, login.told) == (Verdict.SUCCESS, [(NoticeStyle.TOUCH, TOUCH)])
    with daemon.client() as client:
        (token,) = [each.id for each in client.tokens("alice").tokens if each.kind is Kind.FIDO2]
    assert daemon.audit()[-1].token == token


@pytest.mark.parametrize(
    "context",
    [
        Context(service="sudo", rhost="192.0.2.1"),
        Context(service="sudo", rhost="localhost"),
        Context(service="sshd"),
        Context(),
    ],
)
def test_a_login_from_elsewhere_is_asked_for_a_code(machine, daemon, context):
    """A remote host, or a service that may not: the key does not hear of it."""
    key = machine.register(daemon)
    login = Login(daemon, context=context)
    assert (login.verdict, login.prompts, login.told) == (None, [CODE], [])
    assert key.log == []


def test_sudo_in_a_remote_shell_is_asked_for_a_code(machine, daemon):
    """It knows of no remote host, but its session does; from the next login at the desk on the key is asked again."""
    key = machine.register(daemon)
    machine.session(FROM_ELSEWHERE)
    assert Login(daemon).prompts == [CODE]
    assert key.log == []
    machine.session(AT_THE_DESK)
    assert Login(daemon).verdict is Verdict.SUCCESS


def test_without_the_section_no_key_is_asked(machine):
    """Local keys are off until the configuration says otherwise; a reload is enough."""
    with machine.daemon(CONFIG.replace("enabled = true", "")) as daemon:
        key = machine.register(daemon)
        assert Login(daemon).prompts == [CODE]
        assert key.log == []
        daemon.configure(CONFIG)
        daemon.reload()
        assert Login(daemon).verdict is Verdict.SUCCESS
        daemon.configure(CONFIG.replace("[local_keys]", '[local_keys]\nservices = ["login"]'))
        daemon.reload()
        assert Login(daemon).prompts == [CODE]


def test_who_cannot_be_told_at_once_is_not_asked(machine, daemon):
    """A caller that waits for the whole step would hear of the touch when it is too late."""
    key = machine.register(daemon)
    with daemon.client() as client, client.begin("alice", context=SUDO) as talk:
        assert [prompt.text for prompt in talk.prompts] == [CODE]
    assert key.log == []


def test_nor_is_who_stops_listening(machine):
    """The second step of a conversation may be asked for without notices, whatever the first was."""
    rules = '["sufficient fido2", "required totp"]'
    with machine.daemon(CONFIG.replace(rules, '["required totp", "required fido2"]')) as daemon:
        key = machine.register(daemon)
        begin = messages.Begin(user="alice", context=messages.ContextFields(service="sudo"))
        with daemon.client() as client:
            *_, begun = client.stream(begin)
            code = machine.keys["alice"].code()
            answer = messages.Continue(session=begun.session, responses=(code,))
            assert client.call(answer).step.verdict is Verdict.AUTH_ERR
        assert key.log == []


def test_without_a_key_the_code_is_asked_for_at_once(machine, daemon):
    """No key, the key of somebody else, a user without one: nothing is told, nothing waited for."""
    key = machine.register(daemon)
    machine.ring.unplug(key)
    assert (Login(daemon).prompts, Login(daemon).told) == ([CODE], [])
    machine.register(daemon, "bob")
    assert (Login(daemon).prompts, Login(daemon).told) == ([CODE], [])
    assert Login(daemon, user="nobody-here").prompts == [CODE]


def test_a_key_that_is_not_touched_leads_to_the_code(machine, daemon):
    """The person learns why they are asked for a code now; and the code is good."""
    machine.register(daemon, touch="never")

    class Typing(Login):
        def _talk(self, talk):
            talk.answer(machine.keys["alice"].code())

    login = Typing(daemon)
    assert login.told == [(NoticeStyle.TOUCH, TOUCH), (NoticeStyle.ERROR, "Nobody touched Soft Key in time.")]
    assert login.verdict is Verdict.SUCCESS


def test_a_caller_hears_that_it_goes_on(machine, daemon):
    """While the key waits, replies without a notice come: a caller can tell waiting from a daemon that hangs."""
    key = machine.register(daemon, touch="late")
    request = messages.Begin(user="alice", context=messages.ContextFields(service="sudo"))
    with daemon.client() as client:
        replies = client.stream(request)
        # Before the key blinks some may have come already.
        told = next(reply.step.notices for reply in replies if reply.step.notices)
        assert [notice.text for notice in told] == [TOUCH]
        for _ in range(3):
            step = next(replies).step
            assert (step.notices, step.prompts, step.verdict) == ((), (), None)
        key.press()
        last = [each for each in replies if each.step.verdict is not None]
    assert [each.step.verdict for each in last] == [Verdict.SUCCESS]


def test_a_caller_that_goes_away_stops_the_key(machine, daemon):
    """Ctrl-C in sudo: nothing blinks that nobody waits for, and the next login is served."""
    key = machine.register(daemon, touch="late")
    request = messages.Begin(user="alice", context=messages.ContextFields(service="sudo"))
    client = daemon.client()
    replies = client.stream(request)
    next(replies)
    key.blinks()
    replies.close()
    client.close()
    key.rests()
    assert key.cancelled == 1
    waiting = threading.Event()
    for _ in range(200):
        # What the thread of the first one still has to put away takes it a moment.
        if Login(daemon, key.press).verdict is Verdict.SUCCESS:
            break
        waiting.wait(0.05)
    else:
        raise AssertionError("the keys are still taken")


def test_one_login_at_a_time_has_the_keys(machine, daemon):
    """Whoever touches a key must know for what: a second login is told so, and asked for a code."""
    key = machine.register(daemon, touch="late")
    others = []

    def meanwhile():
        others.append(Login(daemon))
        key.press()

    assert Login(daemon, meanwhile).verdict is Verdict.SUCCESS
    (other,) = others
    assert other.told == [(NoticeStyle.ERROR, "The security keys are in use by another login.")]
    assert (other.verdict, other.prompts) == (None, [CODE])


def test_a_copy_of_a_key_is_refused(machine, daemon):
    """A counter that does not grow: the touch is worth nothing, and the code is asked for."""
    key = machine.register(daemon)
    assert Login(daemon).verdict is Verdict.SUCCESS
    key.counter -= 1
    assert Login(daemon).prompts == [CODE]


def test_a_pin_is_asked_for_in_the_same_conversation(machine):
    """Hidden, with the tries that are left; then the touch lets in. No log has it."""
    with machine.daemon(WITH_PIN) as daemon:
        key = machine.register(daemon, pin="2580", touch="late")
        login = with_pins("0000", "2580")(daemon, key.press)
        assert login.verdict is Verdict.SUCCESS
        assert login.asked == ["Security key PIN: ", "Wrong PIN, 7 tries left. Security key PIN: "]
        assert "2580" not in daemon.log
        assert all("2580" not in json.dumps(str(entry)) for entry in daemon.audit())


def test_who_types_no_pin_is_asked_for_a_code(machine):
    """The key keeps its tries."""
    with machine.daemon(WITH_PIN) as daemon:
        key = machine.register(daemon, pin="2580")
        login = with_pins("")(daemon)
        assert login.prompts == [CODE]
        assert key.pin_tries == 8


def test_a_pin_that_is_never_typed_frees_the_keys(machine):
    """A conversation that ends at the PIN ends for the key too."""
    with machine.daemon(WITH_PIN) as daemon:
        machine.register(daemon, pin="2580")
        for _ in range(3):
            assert Login(daemon).prompts[-1] in {"Security key PIN: ", CODE}
        waiting = threading.Event()
        for _ in range(200):
            login = Login(daemon)
            if login.prompts == ["Security key PIN: "]:
                break
            waiting.wait(0.05)
        else:
            raise AssertionError("the keys are still taken")


# --- through PAM ---


def pam(machine, daemon, *options):
    """A stack of PAM as sudo has it."""
    line = f"{pammodule.build()} {' '.join(options)}"
    place = at_system_place(daemon.run_dir)
    text = f"auth required {line}\naccount required {line}"
    return Stack(machine.folder / "pam.d", text, service="sudo", prefix=place)


def test_sudo_at_the_desk_is_a_touch(machine, daemon):
    """The message is shown while the key waits, though sudo is silent."""
    key = machine.register(daemon, touch="late")
    outcome = pam(machine, daemon).login("alice", flags=PAM_SILENT, on_message=lambda _message: key.press())
    assert outcome.code == PAM_SUCCESS
    assert [(message.style, message.text) for message in outcome.messages] == [(Style.INFO, TOUCH)]


def test_pam_with_a_remote_host_asks_for_the_code(machine, daemon):
    """As sshd sets it; the same stack, the same user."""
    key = machine.register(daemon)
    code = machine.keys["alice"].code()
    outcome = pam(machine, daemon).login("alice", [code], items={"rhost": "192.0.2.1"})
    assert (outcome.code, outcome.prompts) == (PAM_SUCCESS, [CODE])
    assert key.log == []


@pytest.mark.parametrize("option", ["", "forward_pass", "try_first_pass"])
def test_a_pin_through_pam(machine, option):
    """PIN, touch, in; with whatever the module does to passwords."""
    with machine.daemon(WITH_PIN) as daemon:
        key = machine.register(daemon, pin="2580")
        outcome = pam(machine, daemon, option).login("alice", ["2580"])
        assert (outcome.code, outcome.prompts) == (PAM_SUCCESS, ["Security key PIN: "])
        assert key.pin_tries == 8


def test_password_and_code_in_one_answer_come_after_a_pin(machine):
    """Who types no PIN is asked for both, which are taken apart as ever."""
    with machine.daemon(WITH_PIN) as daemon:
        machine.register(daemon, pin="2580")
        code = machine.keys["alice"].code()
        outcome = pam(machine, daemon, "forward_pass").login("alice", ["", f"pass word{code}"])
        assert outcome.code == PAM_SUCCESS
        assert outcome.prompts == ["Security key PIN: ", "Password & verification code: "]


def test_an_interrupted_login_stops_the_key(machine, daemon):
    """Ctrl-C at sudo ends its process: the key rests."""
    key = machine.register(daemon, touch="late")
    with pam(machine, daemon).start("alice") as process:
        key.blinks()
        process.kill()
    key.rests()
    assert key.cancelled == 1
