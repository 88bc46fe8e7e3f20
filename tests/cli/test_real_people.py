"""Helpdesk and people at the command line, with a real daemon: YubiKeys, recovery codes, locks, lost phones."""

from __future__ import annotations

import json
import re
import subprocess
import time

import pytest
from real_daemon import MAIN, real_daemon
from terminal import Terminal, left_over
from yubikey import YubiKey

from otpbridge.model import OtpParameters
from otpbridge.otp.totp import totp

pytestmark = pytest.mark.system
DEFAULTS = OtpParameters()
CONFIG = """
[policy]
enforcement = "required"
[stacks.portal]
rules = ["requisite password", "sufficient totp", "required recovery"]
[stacks.sshd]
rules = ["requisite password", "[success=done ignore=ignore default=die] enrol", "include default"]
"""
PASSWORD = "correct horse battery staple"


@pytest.fixture
def daemon(tmp_path_factory):
    folder = tmp_path_factory.mktemp("d")
    (folder / "otpbridge.toml").write_text(CONFIG)
    with real_daemon(folder, "--config", folder / "otpbridge.toml"):
        yield folder / "run"


def run(run_dir, *arguments, stdin=""):
    """Run a command as a person sees it."""
    done = subprocess.run(
        [*MAIN, "--run-dir", run_dir, *map(str, arguments)], input=stdin, capture_output=True, text=True, check=False
    )
    assert "Traceback" not in done.stderr
    return done


def command(run_dir, *arguments, stdin="", code=0):
    """Run a command; return its JSON value."""
    done = run(run_dir, "--json", *arguments, stdin=stdin)
    assert done.returncode == code, (arguments, done.stdout, done.stderr)
    return json.loads(done.stdout)


def enrolled(run_dir, user="alice"):
    """Give a user an app; return its seed. The code of the present time step is spent."""
    key = command(run_dir, "enroll", "totp", user)
    seed = bytes.fromhex(key["secret_hex"])
    command(run_dir, "token", "confirm", key["token"], totp(seed, time.time(), DEFAULTS))
    return seed


def next_code(seed):
    """The code after the one that is shown now."""
    return totp(seed, time.time() + 30, DEFAULTS)


def yubikey(public_id, private_id, key):
    """A slot that was programmed with these texts."""
    return YubiKey(public_id, bytes.fromhex(private_id), bytes.fromhex(key))


# --- YubiKeys ---


def test_a_yubikey_is_enrolled_on_a_terminal(daemon):
    """Program a slot with what is shown, touch it: in force. Nothing secret is left, nor asked on a command line."""
    with Terminal("--run-dir", daemon, "enroll", "yubiotp", "alice", lines=24, columns=80) as terminal:
        shown = terminal.wait_for("Touch your key")
        public_id = re.search(r"Public ID \(modhex\) +([a-z]+)", shown)[1]
        private_id = re.search(r"Private ID \(hex\) +([0-9a-f]{12})", shown)[1]
        key = re.search(r"Secret key \(hex\) +([0-9a-f]{32})", shown)[1]
        typed = re.search("ykman otp yubiotp .*", shown)[0]
        assert public_id in typed
        assert private_id not in typed
        assert key not in typed
        assert all(question in shown for question in ("Enter private ID", "Enter secret key"))
        slot = yubikey(public_id, private_id, key)
        terminal.type("123456")
        assert "not typed by a slot that holds these values" in terminal.wait_for("Touch your key").replace(
            "\r\n", ""
        )
        terminal.type(slot.code())
        assert terminal.finish() == 0
        left = left_over(terminal.text)
    assert "is active" in left
    assert not re.search(f"{private_id}|{key}", left)
    assert command(daemon, "verify", "alice", slot.code(), code=1)["verdict"] == "auth_err"
    assert command(daemon, "verify", "alice", slot.code(1))["verdict"] == "success"


def test_a_yubikey_is_enrolled_by_a_script(daemon):
    """--json gives the three values; the token waits until `token confirm` gets what the key types."""
    made = command(daemon, "enroll", "yubiotp", "alice", "--label", "blue key")
    assert list(made) == [
        *("token", "user", "client", "kind", "state"),
        *("public_id", "private_id", "secret_hex", "expires_in"),
    ]
    slot = yubikey(made["public_id"], made["private_id"], made["secret_hex"])
    assert (
        command(daemon, "token", "confirm", made["token"], stdin=f"{slot.wrong()[0]}\n", code=1)["state"] == "pending"
    )
    assert command(daemon, "token", "confirm", made["token"], stdin=f"{slot.code()}\n")["state"] == "active"
    plain = run(daemon, "token", "list", "alice")
    assert re.search(r"yubiotp +active +- .*blue key", plain.stdout)


def test_yubikeys_are_imported_with_apps(daemon, tmp_path):
    """A file may hold both kinds of line; a wrong one stores nothing and is named without its keys."""
    key, private_id = "00112233445566778899aabbccddeeff", "0a1b2c3d4e5f"
    lines = [
        f"bob\tvvcbdefghijk,{private_id},{key}\n",
        "carol\totpauth://totp/Example:carol?secret=GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ\n",
    ]
    path = tmp_path / "keys.tsv"
    path.write_text(
        "".join([*lines, f"dave\tvvcbdefghijl,{private_id[:-1]},{key}\n", f"erin\tvvcbdefghijn,{private_id},{key}\n"])
    )
    refused = run(daemon, "import", path)
    assert refused.returncode == 1
    assert "line 3: the private id must be 12 hex digits" in refused.stderr
    assert not re.search(f"{key}|{private_id[:-1]}", refused.stderr + refused.stdout)
    path.write_text("".join([*lines, f"erin\tvvcbdefghijn,{private_id},{key}\n"]))
    twice = command(daemon, "import", path, code=1)
    assert twice["errors"] == [{"line": 3, "reason": "this key stands in line 1 too"}]
    path.write_text("".join(lines))
    assert command(daemon, "import", path)["imported"] == 2
    slot = yubikey("vvcbdefghijk", private_id, key)
    assert command(daemon, "verify", "bob", slot.code())["verdict"] == "success"
    assert command(daemon, "verify", "bob", slot.code(), code=1)["verdict"] == "auth_err"


# --- recovery codes ---


def test_recovery_codes_are_printed_once_and_stand_in_for_the_app(daemon):
    """Refused without an authenticator; then ten codes, each good once, and an older list no longer counts."""
    run(daemon, "user", "add", "alice")
    refused = run(daemon, "enroll", "recovery", "alice")
    assert refused.returncode == 1
    assert "otpbridge enroll totp alice" in refused.stderr
    enrolled(daemon)
    piped = run(daemon, "enroll", "recovery", "alice")
    old = piped.stdout.splitlines()
    assert len(set(old)) == 10
    assert "no longer count" in piped.stderr
    assert not any(code in piped.stderr for code in old)
    codes = command(daemon, "enroll", "recovery", "alice")["codes"]
    assert command(daemon, "verify", "alice", stdin=f"{old[0]}\n", code=1)["verdict"] == "auth_err"
    said = run(daemon, "verify", "alice", stdin=f"{codes[3].lower()}\n")
    assert said.returncode == 0
    assert "9 recovery codes are left" in said.stdout
    assert command(daemon, "verify", "alice", codes[3], code=1)["verdict"] == "auth_err"
    assert "9 codes left" in run(daemon, "token", "list", "alice").stdout


@pytest.mark.parametrize("interrupted", [False, True])
def test_recovery_codes_are_cleared_from_the_terminal(daemon, interrupted):
    """They are numbered on a screen of their own, until Enter; interrupted, how to get new ones is said."""
    enrolled(daemon)
    with Terminal("--run-dir", daemon, "enroll", "recovery", "alice") as terminal:
        shown = terminal.wait_for("Press Enter")
        codes = re.findall(r"^ +\d+ +([0-9A-Z-]{19})\r$", shown, re.MULTILINE)
        assert len(codes) == 10
        if interrupted:
            terminal.press("\x03")
        else:
            terminal.type("")
        assert terminal.finish() == (130 if interrupted else 0)
        left = left_over(terminal.text)
    assert not any(code in left for code in codes)
    assert ("The codes count, seen or not" in left) == interrupted
    assert command(daemon, "verify", "alice", codes[9])["verdict"] == "success"


# --- users ---


def test_a_locked_user_gets_in_nowhere_until_unlocked(daemon):
    """`user lock` refuses right codes, shows in `user list` and the audit log with its reason; `unlock` ends it."""
    seed = enrolled(daemon)
    said = run(daemon, "user", "lock", "alice", "--reason", "laptop stolen")
    assert "otpbridge user unlock alice" in said.stdout
    assert command(daemon, "verify", "alice", next_code(seed), code=1)["verdict"] == "auth_err"
    assert re.search(r"^alice .*locked$", run(daemon, "user", "list").stdout, re.MULTILINE)
    assert command(daemon, "user", "show", "alice")["locked"] is True
    assert any(entry["reason"] == "laptop stolen" for entry in command(daemon, "audit", "tail"))
    assert command(daemon, "user", "unlock", "alice")["locked"] is False
    assert command(daemon, "verify", "alice", next_code(seed))["verdict"] == "success"
    assert run(daemon, "user", "lock", "nobody").returncode == 1


def test_an_exemption_is_for_a_time_with_a_reason(daemon):
    """`user exempt` asks no code of the user until its time is up or it is ended."""
    enrolled(daemon)
    for wrong in (
        ["--for", "2h"],
        ["--for", "2 hours", "--reason", "x"],
        ["--end", "--for", "2h"],
        [],
        ["--for", "0s"],
    ):
        assert run(daemon, "user", "exempt", "alice", *wrong).returncode == 2
    too_long = run(daemon, "user", "exempt", "alice", "--for", "31d", "--reason", "x")
    assert too_long.returncode == 2
    assert "30 days" in too_long.stderr
    now = command(daemon, "user", "exempt", "alice", "--for", "2h", "--reason", "key at home")
    assert 7100 < now["exempt_until"] - time.time() <= 7200
    assert command(daemon, "verify", "alice", "", code=1)["verdict"] == "ignore"
    assert "exempt until" in run(daemon, "user", "list").stdout
    assert "Exempt until" in run(daemon, "user", "show", "alice").stdout
    assert command(daemon, "user", "exempt", "alice", "--end")["exempt_until"] is None
    assert command(daemon, "verify", "alice", "", code=1)["verdict"] == "auth_err"


def test_policy_holds_again_for_a_user(daemon):
    """`user inherit` takes `optional` back, and says what holds by policy."""
    run(daemon, "user", "add", "alice")
    assert "required by policy" in run(daemon, "user", "show", "alice").stdout
    assert command(daemon, "user", "optional", "alice")["own"] == "optional"
    assert "by policy" not in run(daemon, "user", "list").stdout
    assert "required for alice now, by policy" in run(daemon, "user", "inherit", "alice").stdout
    assert command(daemon, "user", "show", "alice")["own"] is None


def test_a_lost_phone_on_the_phone(daemon):
    """Reset, invite, read the code out, and the user gets in with it once; a newer code replaces an older one."""
    seed = enrolled(daemon)
    assert "user invite alice" in run(daemon, "user", "reset", "alice", "--keep-required").stdout
    assert command(daemon, "user", "show", "alice")["enforcement"] == "required"
    assert command(daemon, "verify", "alice", next_code(seed), code=1)["verdict"] == "auth_err"
    old = command(daemon, "user", "invite", "alice", "--for", "90s")["code"]
    said = run(daemon, "user", "invite", "alice").stdout
    (code,) = re.findall(
        r"^    ([0-9A-HJKMNP-TV-Z]{4}-[0-9A-HJKMNP-TV-Z]{4}-[0-9A-HJKMNP-TV-Z]{4})$", said, re.MULTILINE
    )
    for group in code.split("-"):
        (words,) = re.findall(rf"^    {group}   (.*)$", said, re.MULTILINE)
        assert len(words.split()) == 4
        assert all(word[0] == letter for word, letter in zip(words.split(), group, strict=True) if letter.isalpha())
    assert "otpbridge enroll totp alice" in said
    assert max(map(len, said.splitlines())) <= 82
    assert command(daemon, "verify", "alice", old, code=1)["verdict"] == "auth_err"
    assert command(daemon, "verify", "alice", code.replace("-", " ").lower())["verdict"] == "success"
    assert command(daemon, "verify", "alice", code, code=1)["verdict"] == "auth_err"
    assert run(daemon, "user", "invite", "alice", "--for", "5s").returncode == 2
    assert run(daemon, "user", "invite", "nobody").returncode == 1


def test_a_password_is_asked_twice_and_never_shown(daemon):
    """On a terminal two that differ change nothing; elsewhere a line is read; a weak one is refused."""
    with Terminal("--run-dir", daemon, "user", "password", "alice") as terminal:
        terminal.wait_for("New password of alice: ")
        terminal.type(PASSWORD)
        terminal.wait_for("The same again: ")
        terminal.type("something else")
        assert terminal.finish() == 2
        assert "not the same" in terminal.text
        assert PASSWORD not in terminal.text
    assert command(daemon, "token", "list") == []
    with Terminal("--run-dir", daemon, "user", "password", "alice") as terminal:
        for question in ("New password of alice: ", "The same again: "):
            terminal.wait_for(question)
            terminal.type(PASSWORD)
        assert terminal.finish() == 0
    assert command(daemon, "user", "password", "alice", stdin="123\n", code=2)["error"] == "BadParameters"
    assert command(daemon, "user", "password", "alice", stdin=f"{PASSWORD}!\n")["user"] == "alice"
    assert [token["kind"] for token in command(daemon, "token", "list", "alice")] == ["password"]


# --- conversations ---


def test_password_and_code_are_asked_one_after_the_other(daemon):
    """On a terminal each question of the stack is asked, hidden, and what the person is told is shown."""
    enrolled(daemon)
    run(daemon, "user", "password", "alice", stdin=f"{PASSWORD}\n")
    codes = command(daemon, "enroll", "recovery", "alice")["codes"]
    with Terminal("--run-dir", daemon, "verify", "alice", "--stack", "portal") as terminal:
        terminal.wait_for("Password: ")
        terminal.type(PASSWORD)
        terminal.wait_for("Verification code: ")
        terminal.type(codes[0])
        assert terminal.finish() == 0
        assert "9 recovery codes are left" in terminal.text
        assert "success: " in terminal.text
        assert PASSWORD not in terminal.text
    with Terminal("--run-dir", daemon, "verify", "alice", "--stack", "portal") as terminal:
        terminal.wait_for("Password: ")
        terminal.type("wrong")
        assert terminal.finish() == 1
    two_lines = command(daemon, "verify", "alice", "--stack", "portal", stdin=f"{PASSWORD}\n{codes[1]}\n")
    assert two_lines["verdict"] == "success"
    assert "8 recovery codes are left" in two_lines["notices"][0]["text"]


def test_a_conversation_on_a_terminal_names_the_token_as_one_call_does(daemon):
    """With --json both say which token was shown, and none where it was refused."""
    enrolled(daemon)
    listed = command(daemon, "enroll", "recovery", "alice")
    said = []
    for code in (listed["codes"][0], "000000"):
        with Terminal("--run-dir", daemon, "--json", "verify", "alice") as terminal:
            terminal.wait_for("Verification code: ")
            terminal.type(code)
            terminal.finish()
            said.append(json.loads(terminal.text.splitlines()[-1]))
    assert [(each["verdict"], each["token"]) for each in said] == [("success", listed["token"]), ("auth_err", None)]
    assert command(daemon, "verify", "alice", listed["codes"][1])["token"] == listed["token"]


def test_enrolment_at_login_is_carried_on_a_terminal(daemon):
    """A stack that enrols shows its QR code line by line and the key below, asks for the code, and lets in."""
    run(daemon, "user", "password", "bob", stdin=f"{PASSWORD}\n")
    with Terminal("--run-dir", daemon, "verify", "bob", "--stack", "sshd", lines=80) as terminal:
        terminal.wait_for("Password: ")
        terminal.type(PASSWORD)
        shown = terminal.wait_for("Code that your authenticator shows: ")
        assert shown.count("\u2588") > 100
        assert "\\n" not in shown
        terminal.type("000000")
        terminal.wait_for("Code that your authenticator shows: ")
        terminal.press("\x03")
        assert terminal.finish() == 130
    assert command(daemon, "verify", "bob", "--stack", "sshd", stdin=f"{PASSWORD}\n", code=1)["verdict"] == "auth_err"


# --- stacks ---


def test_a_stack_is_explained_at_80_columns(daemon):
    """Rule by rule, then the ways in; a locked user has none; an unknown stack and user are told."""
    enrolled(daemon)
    run(daemon, "user", "password", "alice", stdin=f"{PASSWORD}\n")
    said = run(daemon, "stack", "explain", "alice", "--service", "portal")
    assert said.returncode == 0
    assert max(map(len, said.stdout.splitlines())) <= 80
    assert re.search(r"^  1  requisite password +yes, goes on +no, ends here$", said.stdout, re.MULTILINE)
    assert re.search(r"^  2  sufficient totp +yes, ends here +goes on$", said.stdout, re.MULTILINE)
    assert said.stdout.partition("Ways in:\n")[2].split("\n")[0] == "  password + totp"
    value = command(daemon, "stack", "explain", "alice", "--stack", "portal")
    assert [rule["number"] for rule in value["rules"]] == [1, 2, 3]
    run(daemon, "user", "lock", "alice")
    locked = run(daemon, "stack", "explain", "alice")
    assert "Ways in: none" in locked.stdout
    assert "otpbridge user show alice" in locked.stdout
    assert run(daemon, "stack", "explain", "alice", "--stack", "nil").returncode == 2
