"""`otpbridge yubikey` with virtual keys and a real daemon: what a helpdesk does, and everything that goes wrong."""

from __future__ import annotations

import base64
import json
import os
import shutil
import signal
import subprocess
import time
from contextlib import ExitStack
from pathlib import Path
from tempfile import mkdtemp

import pytest
from real_daemon import MAIN, real_daemon
from terminal import Terminal

from otpbridge.client import Client
from otpbridge.wire import messages

ALICE = ("yubikey", "enroll", "alice", "--issuer", "Example")


@pytest.fixture(scope="module")
def started():
    """The run folder of a daemon. To start one takes longer than most of the tests do."""
    folder = Path(mkdtemp(prefix="otpb-"))
    try:
        with real_daemon(folder):
            yield folder / "run"
    finally:
        shutil.rmtree(folder)


@pytest.fixture
def daemon(rig, started):
    """The run folder of a daemon that knows of nobody."""
    with Client(run_dir=started, admin=True) as client:
        known = [user for page in client.stream(messages.ListUsers()) for user in page.users]
        for user in known:
            client.call(messages.RemoveUser(user=user.name, client=user.client))
    return started


def run(daemon, *arguments, code=0, text=None):
    """Run a command; what it says on both streams."""
    done = subprocess.run(
        [*MAIN, "--run-dir", str(daemon), *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        input="" if text is None else text,
    )
    assert done.returncode == code, (done.stdout, done.stderr)
    assert "Traceback" not in done.stderr
    return done


def answer(daemon, *arguments, code=0, text=None):
    """Run a command with --json; its answer."""
    done = run(daemon, "--json", *arguments, code=code, text=text)
    assert len(done.stdout.splitlines()) == 1
    return json.loads(done.stdout)


def tokens(daemon):
    """Every token, with its state."""
    return {token["id"]: token["state"] for token in answer(daemon, "token", "list", "--all")}


def totp(credential, at):
    """What oathtool computes from what is really on a key."""
    secret = base64.b32encode(credential.secret).decode()
    options = [f"--totp={credential.algorithm}", "-b", "-d", str(credential.digits), "-N", f"@{int(at)}", "-"]
    return subprocess.run(
        ["oathtool", *options], input=secret, capture_output=True, text=True, check=True
    ).stdout.strip()


def nothing_left(daemon, *keys):
    """Neither a token nor an account."""
    assert tokens(daemon) == {}
    assert [key.credentials for key in keys] == [[] for _ in keys]


@pytest.mark.parametrize("options", [(), ("--touch",), ("--algorithm", "SHA256", "--digits", "8")])
def test_a_key_is_enrolled_in_one_command(rig, daemon, options):
    """The seed is on the key, the token in force, its next code lets in; and the seed was shown to nobody."""
    key = rig.plug(serial=12345678)
    done = run(daemon, *ALICE, *options)
    (credential,) = key.credentials
    assert credential.id == b"Example:alice"
    assert credential.touch == ("--touch" in options)
    seed = credential.secret
    for form in (seed.hex(), seed.hex().upper(), base64.b32encode(seed).decode().rstrip("=")):
        assert form not in done.stdout + done.stderr
    (token,) = answer(daemon, "token", "list")
    assert (token["state"], token["serials"]) == ("active", ["12345678"])
    later = totp(credential, time.time() + 30)
    assert answer(daemon, "verify", "alice", later)["verdict"] == "success"


def test_a_counter_is_enrolled(rig, daemon):
    """The code that proved it is spent on both sides: the key's next one lets in."""
    rig.plug()
    answer(daemon, *ALICE, "--kind", "hotp")
    (shown,) = answer(daemon, "yubikey", "code", "alice")
    assert answer(daemon, "verify", "alice", shown["code"])["verdict"] == "success"


@pytest.mark.parametrize("touch", [False, True])
def test_a_second_key_gets_the_same(rig, daemon, touch):
    """Both hold the seed, both have shown that they compute the same, and both are recorded."""
    first, second = rig.plug(serial=1111111), rig.plug(serial=2222222, version=(5, 4, 3))
    options = ["--touch"] if touch else []
    told = answer(daemon, *ALICE, "--serial", 1111111, "--backup", *options)
    assert told["serials"] == [1111111, 2222222]
    assert first.credentials == second.credentials
    (token,) = answer(daemon, "token", "list")
    assert token["serials"] == ["1111111", "2222222"]


def test_a_second_key_that_fails_leaves_the_first_as_it_was(rig, daemon):
    """Nothing is half done: no token, and no account on either."""
    first, second = rig.plug(serial=1111111), rig.plug(serial=2222222)
    rig.pull(second, at="CALCULATE")
    done = run(daemon, *ALICE, "--serial", 1111111, "--backup", code=1)
    assert "may be left on YubiKey 5 NFC 2222222" in done.stderr
    assert tokens(daemon) == {}
    assert first.credentials == []
    full = rig.plug(serial=3333333)
    full.fill()
    done = run(daemon, *ALICE, "--serial", 1111111, "--backup-serial", 3333333, code=1)
    assert "64 accounts" in done.stderr
    nothing_left(daemon, first)


def test_a_second_key_is_asked_for(rig, daemon):
    """With one socket, the keys are plugged in one after the other."""
    first = rig.plug(serial=1111111)
    with Terminal("--run-dir", daemon, *ALICE, "--backup") as terminal:
        terminal.wait_for("Plug in the second key")
        rig.unplug(first)
        second = rig.plug(serial=2222222)
        assert terminal.finish() == 0
    assert first.credentials == second.credentials
    assert list(tokens(daemon).values()) == ["active"]


def test_a_key_that_is_not_touched_leaves_nothing(rig, daemon):
    """It is told, and what was written is taken back."""
    key = rig.plug()
    key.touch("never")
    done = run(daemon, *ALICE, "--touch", code=1)
    assert "Touch YubiKey 5 NFC 12345678 now" in done.stderr
    assert "not touched in time" in done.stderr
    assert "Nothing is left" in done.stderr
    nothing_left(daemon, key)


def test_a_touch_is_counted_down(rig, daemon):
    """A person sees how many seconds are left, and a late touch is a touch."""
    key = rig.plug()
    key.touch("late")
    with Terminal("--run-dir", daemon, *ALICE, "--touch") as terminal:
        terminal.wait_for("Touch YubiKey 5 NFC 12345678 now (15 s)")
        key.blinks()
        key.touch("given")
        assert terminal.finish() == 0
    assert list(tokens(daemon).values()) == ["active"]


def test_giving_up_leaves_nothing(rig, daemon):
    """Ctrl-C while the key waits for a touch."""
    key = rig.plug()
    key.touch("late")
    with Terminal("--run-dir", daemon, *ALICE, "--touch") as terminal:
        terminal.wait_for("now (15 s)")
        key.blinks()
        terminal.press("\x03")
        terminal.wait_for("Giving up")
        key.touch("never")
        assert terminal.finish() == 130
    nothing_left(daemon, key)


def test_a_touch_after_giving_up_ends_the_wait(rig, daemon):
    """The key cannot be told to stop, but it can be touched: then all is taken back at once."""
    key = rig.plug()
    key.touch("late")
    with Terminal("--run-dir", daemon, *ALICE, "--touch") as terminal:
        key.blinks()
        terminal.press("\x03")
        terminal.wait_for("touch it, or wait 15 s at most")
        key.touch("given")
        terminal.wait_for("Nothing is left")
        assert terminal.finish() == 130
    nothing_left(daemon, key)


def test_a_second_ctrl_c_leaves_a_code_alone(rig, daemon):
    """Nothing was begun, so there is nothing to wait for."""
    key = rig.plug()
    key.add("Example:alice", bytes(20), touch=True)
    key.touch("late")
    with Terminal("--run-dir", daemon, "yubikey", "code", "alice") as terminal:
        key.blinks()
        terminal.press("\x03")
        terminal.wait_for("Ctrl-C leaves it to itself")
        # One that comes when Python has ended all but itself ends it as any program.
        assert terminal.finish(pressing="\x03") in {130, -signal.SIGINT}


@pytest.mark.parametrize("executed", [False, True])
def test_a_key_that_is_pulled_and_comes_back_is_cleaned(rig, daemon, executed):
    """Whether it was still written or not is read from the key, not guessed."""
    key = rig.plug()
    rig.pull(key, at="PUT", executed=executed)
    with Terminal("--run-dir", daemon, *ALICE) as terminal:
        terminal.wait_for("Plug YubiKey 5 NFC 12345678 in again")
        rig.insert(key)
        terminal.wait_for("Nothing is left")
        assert terminal.finish() == 1
    nothing_left(daemon, key)


def test_a_key_that_stays_away_is_named(rig, daemon):
    """A script is told what may be left where, and the token is gone: it is of no use."""
    key = rig.plug()
    rig.pull(key, at="PUT", executed=True)
    done = run(daemon, *ALICE, code=1)
    assert "Example:alice may be left on YubiKey 5 NFC 12345678" in done.stderr
    assert tokens(daemon) == {}
    rig.insert(key)
    (row,) = answer(daemon, "yubikey", "audit")
    assert row["finding"] == "unknown"


def test_a_daemon_that_refuses_leaves_nothing(rig, daemon):
    """An enrolment that another one took over from is not put in force, nor is its account kept."""
    key = rig.plug()
    key.touch("late")
    with Terminal("--run-dir", daemon, *ALICE, "--touch") as terminal:
        terminal.wait_for("now (15 s)")
        key.blinks()
        newer = answer(daemon, "enroll", "totp", "alice")
        key.touch("given")
        assert terminal.finish() == 1
    assert tokens(daemon) == {newer["token"]: "pending"}
    assert key.credentials == []


@pytest.mark.parametrize("back", [False, True])
def test_a_daemon_that_goes_away_in_the_midst_is_asked_again(rig, back):
    """Back again it says that nothing was confirmed, and all is undone; else the key is left, and that is said."""
    key = rig.plug()
    key.touch("late")
    folder = Path(mkdtemp(prefix="otpb-"))
    try:
        with ExitStack() as daemons:
            process = daemons.enter_context(real_daemon(folder))
            with Terminal("--run-dir", folder / "run", *ALICE, "--touch") as terminal:
                terminal.wait_for("now (15 s)")
                key.blinks()
                process.terminate()
                process.wait(20)
                key.touch("given")
                if back:
                    daemons.enter_context(real_daemon(folder))
                    terminal.wait_for("Nothing is left")
                else:
                    terminal.wait_for("nobody knows whether it is in force")
                    terminal.wait_for("otpbridge yubikey audit")
                assert terminal.finish() == 3
            assert len(key.credentials) == (not back)
            if back:
                nothing_left(folder / "run", key)
            else:
                daemons.enter_context(real_daemon(folder))
                (row,) = answer(folder / "run", "yubikey", "audit", code=1)
                assert row["finding"] == "pending"
    finally:
        shutil.rmtree(folder)


def test_an_account_that_is_there_is_not_overwritten(rig, daemon):
    """Nor is it taken back with what failed."""
    key = rig.plug()
    key.add("Example:alice", bytes(20))
    done = run(daemon, *ALICE, code=1)
    assert "not overwritten" in done.stderr
    assert [credential.secret for credential in key.credentials] == [bytes(20)]
    assert tokens(daemon) == {}


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (("--algorithm", "SHA512"), 1, "SHA512 needs 4.3.1"),
        (("--label", "15/foo", "--issuer", ""), 1, "read"),
        (("--label", "ü" * 32), 2, "72 bytes"),
        (("--kind", "hotp", "--backup"), 2, "out of step"),
        (("--kind", "yubiotp"), 2, "--slot"),
        (("--slot", "2", "--kind", "totp"), 2, "no clock"),
        (("--slot", "2", "--touch"), 2, "--touch"),
        (("--slot", "2"), 1, "firmware 4.3.0"),
        (("--serial", "5"), 1, "no key with serial 5"),
    ],
)
def test_what_cannot_be_is_told_before_anything_is_written(rig, daemon, options, code, words):
    """By name, firmware and kind; the key is not written to and no token is left."""
    key = rig.plug(version=(4, 3, 0))
    assert words in run(daemon, *ALICE, *options, code=code).stderr
    assert not any(entry.name == "PUT" for entry in key.log)
    nothing_left(daemon, key)


def test_passwords_come_from_standard_input_and_from_people(rig, daemon):
    """A locked key is opened by neither option nor environment; without a password a script is told what to do."""
    key = rig.plug(password="open sesame")
    assert "--password-stdin" in run(daemon, *ALICE, code=1).stderr
    assert "is not the OATH password" in run(daemon, *ALICE, "--password-stdin", text="wrong\n", code=1).stderr
    nothing_left(daemon, key)
    run(daemon, *ALICE, "--password-stdin", text="open sesame\n")
    with Terminal("--run-dir", daemon, "yubikey", "remove", "alice", "--yes") as terminal:
        terminal.wait_for("OATH password of YubiKey 5 NFC 12345678")
        terminal.type("wrong")
        terminal.wait_for("That was not it")
        terminal.wait_for("OATH password of YubiKey 5 NFC 12345678")
        terminal.type("open sesame")
        assert terminal.finish() == 0
        assert "open sesame" not in terminal.text
    assert key.credentials == []


def test_what_ykman_remembers_is_used(rig, daemon, tmp_path, monkeypatch):
    """A password that `ykman oath access remember` keeps opens the key, and ykman's store is not written to."""
    rig.plug(password="tea")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setenv("PYTHON_KEYRING_BACKEND", "plain_keyring.Keyring")
    monkeypatch.setenv("PLAIN_KEYRING", str(tmp_path / "keyring"))
    (tmp_path / "plain_keyring.py").write_text(_PLAIN_KEYRING)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    ykman = Path(MAIN[0]).with_name("ykman")
    subprocess.run([ykman, "oath", "access", "remember"], input="tea\n", text=True, capture_output=True, check=True)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.json")}
    assert before
    run(daemon, *ALICE)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*.json")} == before


_PLAIN_KEYRING = """
import os
from pathlib import Path
from keyring.backend import KeyringBackend

class Keyring(KeyringBackend):
    priority = 1

    def get_password(self, service, username):
        path = Path(os.environ["PLAIN_KEYRING"])
        return path.read_text() if path.exists() else None

    def set_password(self, service, username, password):
        Path(os.environ["PLAIN_KEYRING"]).write_text(password)
"""


def test_a_password_is_set_and_cleared(rig, daemon):
    """The new one counts at once, and can be taken away."""
    key = rig.plug()
    run(daemon, "yubikey", "access", "set", "--password-stdin", text="first\n")
    assert key.locked
    run(daemon, "yubikey", "access", "set", "--password-stdin", text="first\nsecond\n")
    run(daemon, "yubikey", "access", "clear", "--password-stdin", text="first\n", code=1)
    run(daemon, "yubikey", "access", "clear", "--password-stdin", text="second\n")
    assert not key.locked
    with Terminal("--run-dir", daemon, "yubikey", "access", "set") as terminal:
        terminal.wait_for("New OATH password")
        terminal.type("one")
        terminal.wait_for("Once more")
        terminal.type("two")
        assert terminal.finish() == 1
    assert not key.locked


def test_keys_are_listed_with_our_tokens(rig, daemon):
    """What they are, how full, locked or not, and whose tokens they hold."""
    rig.plug(serial=1111111)
    told = answer(daemon, *ALICE)
    rig.plug(serial=2222222, version=(5, 4, 3), password="tea", form_factor="usb-c-nano")
    first, second = answer(daemon, "yubikey", "list")["keys"]
    assert first == {
        "serial": 1111111,
        "model": "YubiKey 5 NFC",
        "firmware": "5.7.1",
        "form_factor": "Keychain (USB-A)",
        "oath": True,
        "locked": False,
        "accounts": ["Example:alice"],
        "capacity": 64,
        "tokens": [{"token": told["token"], "user": "alice", "client": "local"}],
    }
    assert (second["locked"], second["accounts"], second["capacity"]) == (True, None, 32)
    lines = run(daemon, "yubikey", "list").stdout.splitlines()
    assert "1/64" in lines[1]
    assert f"{told['token']} (alice)" in lines[1]
    assert "locked" in lines[2]


def test_keys_are_listed_without_a_daemon(rig, tmp_path):
    """And it is said that tokens are not known."""
    rig.plug().add("Example:alice", bytes(20))
    done = run(tmp_path, "yubikey", "list")
    assert "1/64" in done.stdout
    assert "is not known" in done.stderr
    assert answer(tmp_path, "yubikey", "list")["keys"][0]["tokens"] is None


def test_what_is_in_the_way_is_told(rig, tmp_path):
    """No key, no service, no permission, another program: what to do, in one line, at once."""
    assert "no YubiKey is plugged in" in run(tmp_path, "yubikey", "list", code=1).stderr
    key = rig.plug()
    with rig.hold(key):
        assert "in use by another program" in run(tmp_path, "yubikey", "list", code=1).stderr
        assert answer(tmp_path, "yubikey", "code", code=1)["error"] == "DeviceBusy"
    rig.forbid("service")
    assert "polkit" in run(tmp_path, "yubikey", "list", code=4).stderr
    rig.stop()
    assert "pcscd.socket" in run(tmp_path, "yubikey", "list", code=3).stderr


def test_scdaemon_is_ended_only_when_told(rig, tmp_path):
    """Without --take-over it lives; with it, it is ended and named."""
    key = rig.plug()
    program = tmp_path / "scdaemon"
    shutil.copy(shutil.which("sleep"), program)
    with subprocess.Popen([program, "60"]) as process:
        try:
            with rig.hold(key):
                run(tmp_path, "yubikey", "list", code=1)
                assert process.poll() is None
                done = run(tmp_path, "yubikey", "list", "--take-over", code=1)
            assert f"Told scdaemon (pid {process.pid}) to let go" in done.stderr
            assert process.wait(20)
        finally:
            process.kill()


def test_codes_of_all_keys_are_shown(rig, daemon):
    """As oathtool computes them; those that take a touch only when one account is named."""
    first, second = rig.plug(serial=1111111), rig.plug(serial=2222222)
    first.add("Example:alice", b"a" * 20)
    second.add("Example:bob", b"b" * 20, touch=True)
    second.add("carol", b"c" * 20, kind="hotp")
    before = int(time.time())
    shown = answer(daemon, "yubikey", "code")
    moments = {totp(first.credentials[0], at) for at in (before, time.time())}
    assert {row["account"]: row["code"] for row in shown} == {
        "Example:alice": shown[0]["code"],
        "Example:bob": None,
        "carol": None,
    }
    assert shown[0]["code"] in moments
    (bob,) = answer(daemon, "yubikey", "code", "bob")
    assert bob["code"] in {totp(second.credentials[0], at) for at in (before, time.time())}
    run(daemon, "yubikey", "code", "nobody", code=1)
    assert "(touch)" in run(daemon, "yubikey", "code").stdout


def test_accounts_are_renamed_and_removed(rig, daemon):
    """By their names, where those are clear."""
    key = rig.plug()
    key.add("Example:alice", bytes(20))
    key.add("Example:bob", bytes(20))
    assert "several accounts" in run(daemon, "yubikey", "remove", "Example", code=2).stderr
    run(daemon, "yubikey", "rename", "bob", "Other:robert")
    assert {credential.id for credential in key.credentials} == {b"Example:alice", b"Other:robert"}
    assert "already" in run(daemon, "yubikey", "rename", "robert", "Example:alice", code=1).stderr
    run(daemon, "yubikey", "remove", "robert")
    assert {credential.id for credential in key.credentials} == {b"Example:alice"}


def test_renaming_one_of_our_tokens_is_warned_of(rig, daemon):
    """It works on, but the store calls it as before: whoever renames it is told, and back again nothing differs."""
    rig.plug()
    told = answer(daemon, *ALICE)
    assert answer(daemon, "yubikey", "rename", "alice", "Other:alice")["token"] == told["token"]
    assert {row["finding"] for row in answer(daemon, "yubikey", "audit", code=1)} == {"unknown", "missing"}
    done = run(daemon, "yubikey", "rename", "alice", "Example:alice")
    assert "still called" not in done.stderr
    assert [row["finding"] for row in answer(daemon, "yubikey", "audit")] == ["matches"]
    done = run(daemon, "yubikey", "rename", "alice", "Example:al")
    assert f"token {told['token']} is still called Example:alice" in done.stderr


def test_a_reset_takes_the_serial_number(rig, daemon):
    """Anything else changes nothing."""
    key = rig.plug(serial=1111111, password="forgotten")
    key.add("Example:alice", bytes(20))
    for wrong in ("", "yes\n", "11111\n"):
        run(daemon, "yubikey", "reset", text=wrong, code=1 if wrong else 2)
    assert len(key.credentials) == 1
    run(daemon, "yubikey", "reset", text="1111111\n")
    assert (key.credentials, key.locked) == ([], False)


def test_an_audit_finds_what_differs(rig, daemon):
    """All well: exit code 0. A token that is revoked, and an account that is gone, are marked."""
    key = rig.plug()
    told = answer(daemon, *ALICE)
    assert [row["finding"] for row in answer(daemon, "yubikey", "audit")] == ["matches"]
    run(daemon, "yubikey", "remove", "alice")
    (row,) = answer(daemon, "yubikey", "audit", code=1)
    assert (row["finding"], row["token"]) == ("missing", told["token"])
    key.add("Example:alice", bytes(20))
    run(daemon, "token", "remove", told["token"])
    (row,) = answer(daemon, "yubikey", "audit", code=1)
    assert row["finding"] == "revoked"
    assert run(daemon, "yubikey", "audit", code=1).stdout.splitlines()[1].startswith("*")


@pytest.mark.parametrize(
    "options", [(), ("--touch",), ("--kind", "hotp"), ("--digits", "8", "--algorithm", "SHA256")]
)
def test_an_account_moves_to_another_key(rig, daemon, options):
    """A new seed of the same kind is on the new key and in force; the old key holds nothing, its token is revoked."""
    old, new = rig.plug(serial=1111111), rig.plug(serial=2222222)
    first = answer(daemon, *ALICE, "--serial", 1111111, *options)
    (before,) = old.credentials
    told = answer(daemon, "yubikey", "move", "alice", "--serial", 1111111, "--to", 2222222)
    (after,) = new.credentials
    assert old.credentials == []
    assert after.secret != before.secret
    assert [getattr(after, what) for what in _FORM] == [getattr(before, what) for what in _FORM]
    assert tokens(daemon) == {first["token"]: "revoked", told["token"]: "active"}
    assert (told["serials"], told["from"], told["removed"]) == ([2222222], ["1111111"], True)
    if before.kind == "totp":
        assert answer(daemon, "verify", "alice", totp(before, time.time() + 30), code=1)["verdict"] == "auth_err"
        assert answer(daemon, "verify", "alice", totp(after, time.time() + 30))["verdict"] == "success"


_FORM = ("id", "kind", "algorithm", "digits", "touch")


def test_an_account_moves_with_one_socket(rig, daemon):
    """Each key is asked for in its turn, and the old one is needed last alone."""
    old = rig.plug(serial=1111111)
    answer(daemon, *ALICE)
    with Terminal("--run-dir", daemon, "yubikey", "move", "alice", "--to", 2222222) as terminal:
        terminal.wait_for("Plug in the key 2222222")
        rig.unplug(old)
        new = rig.plug(serial=2222222)
        terminal.wait_for("alice has it on YubiKey 5 NFC 2222222")
        terminal.wait_for("Plug in the key 1111111")
        rig.insert(old)
        terminal.wait_for("Example:alice is gone from YubiKey 5 NFC 1111111")
        assert terminal.finish() == 0
    assert (len(new.credentials), old.credentials) == (1, [])


def test_a_move_from_a_key_that_is_lost_revokes_its_token(rig, daemon):
    """What is left on it is of no use, and said."""
    old = rig.plug(serial=1111111)
    first = answer(daemon, *ALICE)
    rig.unplug(old)
    rig.plug(serial=2222222)
    done = run(daemon, "yubikey", "move", "alice", "--to", 2222222)
    assert "still on the key 1111111, of no use" in done.stderr
    assert tokens(daemon)[first["token"]] == "revoked"


def test_a_move_that_fails_leaves_the_old_key_in_force(rig, daemon):
    """The new key is not touched, is full, or is not there: nothing has changed, and that is said."""
    old, new = rig.plug(serial=1111111), rig.plug(serial=2222222)
    first = answer(daemon, *ALICE, "--serial", 1111111, "--touch")
    command = ("yubikey", "move", "alice", "--to", 2222222)
    new.touch("never")
    done = run(daemon, *command, code=1)
    assert f"Token {first['token']} on the key 1111111 is in force as before" in done.stderr
    new.fill()
    run(daemon, *command, code=1)
    rig.unplug(new)
    assert "no key with serial 2222222" in run(daemon, *command, code=1).stderr
    assert tokens(daemon) == {first["token"]: "active"}
    assert len(old.credentials) == 1
    assert not any(credential.id == b"Example:alice" for credential in new.credentials)


def test_only_one_account_of_one_key_is_moved(rig, daemon):
    """None, several, one on two keys, one to where it is: refused, and what to do is said."""
    rig.plug(serial=1111111)
    rig.plug(serial=2222222)
    command = ("yubikey", "move", "alice", "--to", 2222222)
    run(daemon, "user", "add", "alice")
    assert "no account in force" in run(daemon, *command, code=1).stderr
    answer(daemon, *ALICE, "--serial", 1111111, "--backup")
    assert "--backup" in run(daemon, *command, code=1).stderr
    answer(daemon, *ALICE, "--serial", 1111111, "--label", "work")
    assert "several" in run(daemon, *command, code=2).stderr
    elsewhere = ("yubikey", "move", "alice", "--label", "work", "--to", 1111111)
    assert "already" in run(daemon, *elsewhere, code=2).stderr
    assert list(tokens(daemon).values()) == ["active", "active"]


@pytest.mark.parametrize("kind", ["yubiotp", "hotp"])
def test_a_slot_is_enrolled_by_its_touch(rig, daemon, kind):
    """It is programmed, types, and what it types is in force; the next touch lets in."""
    key = rig.plug()
    with Terminal("--run-dir", daemon, "yubikey", "enroll", "alice", "--slot", "2", "--kind", kind) as terminal:
        terminal.wait_for("hold it for 3 seconds")
        terminal.press(key.press(2))
        assert terminal.finish() == 0
        slot = key.slots[2]
        assert slot.secret.hex() not in terminal.text
    (token,) = answer(daemon, "token", "list")
    assert (token["state"], token["serials"]) == ("active", ["12345678"])
    assert answer(daemon, "verify", "alice", key.press(2).strip())["verdict"] == "success"


def test_a_programmed_slot_is_not_overwritten(rig, daemon):
    """Without --force nothing is changed; with it and a wrong touch the slot is empty and no token left."""
    key = rig.plug()
    key.program(1, secret=bytes(16), fixed=b"\1" * 6)
    done = run(daemon, "yubikey", "enroll", "alice", "--slot", "1", code=1)
    assert "--force" in done.stderr
    assert key.slots[1].fixed == b"\1" * 6
    run(daemon, "yubikey", "enroll", "alice", "--slot", "1", "--force", text="cccccc\n", code=1)
    assert key.slots[1] is None
    nothing_left(daemon, key)


def test_a_slot_gets_an_access_code(rig, daemon):
    """Asked for, never an argument; a wrong touch takes it back with the code."""
    key = rig.plug()
    command = ("yubikey", "enroll", "alice", "--slot", "2", "--access-code")
    run(daemon, *command, text="12\n", code=2)
    run(daemon, *command, text="010203040506\nwrong\n", code=1)
    assert key.slots[2] is None
    with Terminal("--run-dir", daemon, *command) as terminal:
        terminal.wait_for("Access code")
        terminal.type("010203040506")
        terminal.wait_for("Touch")
        terminal.press(key.press(2))
        assert terminal.finish() == 0
        assert "010203040506" not in terminal.text
    assert key.slots[2].access_code == bytes.fromhex("010203040506")


def test_without_the_libraries_one_line_says_what_to_install(rig, tmp_path):
    """And --help works all the same."""
    hidden = "import sys; sys.modules['smartcard'] = None; from otpbridge.cli.main import main; main()"
    for arguments, code in [(["list"], 3), (["list", "--help"], 0)]:
        done = subprocess.run(
            [MAIN[0], "-c", hidden, "yubikey", *arguments], capture_output=True, text=True, check=False
        )
        assert done.returncode == code
        assert ("pip install 'otpbridge[hardware]'" in done.stderr) == bool(code)
        assert len(done.stderr.splitlines()) == bool(code)
