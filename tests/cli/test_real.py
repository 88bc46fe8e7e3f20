"""The command line and the daemon together, as installed: from nothing to a login, and a backup and back."""

from __future__ import annotations

import base64
import json
import re
import subprocess
import time

import pytest
from pskc import PSKC
from pskc_files import TOTP
from real_daemon import MAIN, real_daemon
from terminal import Terminal

from otpbridge.model import OtpParameters
from otpbridge.otp.hotp import hotp
from otpbridge.otp.totp import totp

pytestmark = pytest.mark.system
DEFAULTS = OtpParameters()


@pytest.fixture
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("d")


@pytest.fixture
def daemon(folder):
    with real_daemon(folder):
        yield folder / "run"


def command(run_dir, *arguments, stdin="", code=0):
    """Run a command; return its JSON value."""
    done = subprocess.run(
        [*MAIN, "--run-dir", run_dir, "--json", *map(str, arguments)],
        input=stdin,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == code, (arguments, done.stdout, done.stderr)
    assert "Traceback" not in done.stderr
    return json.loads(done.stdout)


def code_now(seed_hex, steps=0):
    """The code of the present step, or of one after it."""
    return totp(bytes.fromhex(seed_hex), time.time() + 30 * steps, DEFAULTS)


def test_from_nothing_to_a_required_second_factor(daemon):
    """Enrol, confirm, require, log in: only the right code passes, and once; a lost phone is reset."""
    assert command(daemon, "user", "list") == []
    key = command(daemon, "enroll", "totp", "alice")
    assert key["state"] == "pending"
    assert command(daemon, "user", "require", "alice", code=1)["error"] == "NotConfirmed"
    assert command(daemon, "verify", "alice", code_now(key["secret_hex"]), code=1)["verdict"] != "success"
    confirmed = command(daemon, "token", "confirm", key["token"], stdin=f"{code_now(key['secret_hex'])}\n")
    assert confirmed["confirmed"] is True
    assert command(daemon, "user", "require", "alice")["enforcement"] == "required"
    fresh = code_now(key["secret_hex"], 1)
    assert command(daemon, "verify", "alice", stdin=f"{fresh}\n") == {
        "verdict": "success",
        "token": key["token"],
        "retry_after": None,
        "notices": [],
    }
    assert command(daemon, "verify", "alice", fresh, code=1)["verdict"] == "auth_err"
    assert [token["id"] for token in command(daemon, "token", "list", "alice")] == [key["token"]]
    assert command(daemon, "token", "disable", key["token"])["state"] == "disabled"
    assert command(daemon, "token", "enable", key["token"])["state"] == "active"
    assert command(daemon, "user", "reset", "alice")["revoked"] == 1
    assert command(daemon, "user", "show", "alice")["enforcement"] == "optional"
    assert command(daemon, "user", "remove", "alice")["removed"] == "alice"
    assert command(daemon, "user", "show", "alice", code=1)["error"] == "NoSuchUser"
    assert command(daemon, "audit", "verify")["intact"] is True
    events = [entry["event"] for entry in command(daemon, "audit", "tail")]
    assert events[-1] == "user removed"


def test_a_person_enrols_on_a_terminal(daemon):
    """Type the key that is shown into an app, type the code it gives: the token is in force, its code spent."""
    with Terminal("--run-dir", daemon, "enroll", "totp", "alice") as terminal:
        shown = terminal.wait_for("Code that it shows now")
        key = re.search(r"Google Authenticator key +([A-Z2-7 ]+)", shown)[1].replace(" ", "")
        seed = base64.b32decode(key)
        terminal.type("000000")
        terminal.wait_for("Code that it shows now")
        code = totp(seed, time.time(), DEFAULTS)
        terminal.type(f"{code[:3]} {code[3:]}")
        assert terminal.finish() == 0
    assert command(daemon, "verify", "alice", code, code=1)["verdict"] == "auth_err"
    assert command(daemon, "verify", "alice", totp(seed, time.time() + 30, DEFAULTS))["verdict"] == "success"


def test_giving_up_on_a_terminal_leaves_nothing(daemon):
    """Ctrl-C at the question leaves no token, pending or other."""
    with Terminal("--run-dir", daemon, "enroll", "totp", "alice") as terminal:
        terminal.wait_for("Code that it shows now")
        terminal.press("\x03")
        assert terminal.finish() == 130
    assert command(daemon, "token", "list") == []


def test_an_app_that_ignores_the_hash_is_named(daemon):
    """A code made with SHA1 where SHA256 was asked for is refused with that reason."""
    key = command(daemon, "enroll", "totp", "alice", "--algorithm", "SHA256")
    said = command(daemon, "token", "confirm", key["token"], code_now(key["secret_hex"]), code=1)
    assert said["fault"] == "algorithm"
    assert "ignores SHA256" in said["hint"]


def test_a_counter_token_is_resynchronised(daemon):
    """A token pressed 100 times in vain works again after two codes in a row."""
    key = command(daemon, "enroll", "hotp", "bob")
    seed = bytes.fromhex(key["secret_hex"])
    command(daemon, "token", "confirm", key["token"], hotp(seed, 0, DEFAULTS))
    assert command(daemon, "verify", "bob", hotp(seed, 100, DEFAULTS), code=1)["verdict"] == "auth_err"
    pair = hotp(seed, 101, DEFAULTS), hotp(seed, 102, DEFAULTS)
    assert command(daemon, "token", "resync", key["token"], *pair)["resynced"] is True
    assert command(daemon, "token", "resync", key["token"], *pair, code=1)["resynced"] is False
    assert command(daemon, "verify", "bob", hotp(seed, 103, DEFAULTS))["verdict"] == "success"


def test_tokens_are_imported_all_or_none(daemon, tmp_path):
    """A file with one wrong line stores nothing and names the line; corrected, all its tokens work."""
    seeds = {f"user{n}": bytes([n]) * 20 for n in range(1, 51)}
    lines = [
        f"{name}\totpauth://totp/Example:{name}?secret={base64.b32encode(seed).decode()}\n"
        for name, seed in seeds.items()
    ]
    path = tmp_path / "tokens.tsv"
    path.write_text("".join([*lines[:20], "user99\totpauth://totp/x?secret=1\n", *lines[20:]]))
    refused = command(daemon, "import", path, code=1)
    assert (refused["imported"], [each["line"] for each in refused["errors"]]) == (0, [21])
    assert command(daemon, "token", "list") == []
    path.write_text("# moved from elsewhere\n\n" + "".join(lines))
    assert command(daemon, "import", path) == {"imported": 50, "errors": []}
    assert command(daemon, "verify", "user7", totp(seeds["user7"], time.time(), DEFAULTS))["verdict"] == "success"


def test_hardware_tokens_are_imported_with_their_clocks(daemon, tmp_path):
    """A maker's encrypted PSKC file: the codes that oathtool computes log in, at the time that each device has."""
    seeds = [b"%032d" % number for number in range(2)]
    delivery = PSKC()
    for number, seed in enumerate(seeds):
        delivery.add_key(
            id=f"K{number}",
            serial=f"100{number}",
            secret=seed,
            response_length=8,
            algorithm=TOTP,
            algorithm_suite="HMAC-SHA256",
            time_interval=60,
            time_drift=-5 * number,
        )
    delivery.encryption.setup_pbkdf2("a passphrase", iterations=1000)
    delivery.write(str(tmp_path / "delivery.pskcxml"))
    (tmp_path / "users.csv").write_text("serial,user\n1000,alice\n1001,bob\n")
    told = ("import", tmp_path / "delivery.pskcxml", "--users", tmp_path / "users.csv")
    command(daemon, *told, stdin="another\n", code=1)
    assert command(daemon, *told, stdin="a passphrase\n") == {"imported": 2, "errors": []}
    again = command(daemon, *told, stdin="a passphrase\n", code=1)
    assert [(each["serial"], "already" in each["reason"]) for each in again["errors"]] == [
        ("1000", True),
        ("1001", True),
    ]
    tokens = {token["user"]: token for token in command(daemon, "token", "list")}
    assert [(token["label"], token["drift"]) for token in tokens.values()] == [("1000", 0), ("1001", -5)]
    for user, seed, behind in (("alice", seeds[0], 0), ("bob", seeds[1], 5)):
        device = f"@{time.time() - 60 * behind:.0f}"
        now = ["oathtool", "--totp=sha256", "--digits=8", "--time-step-size=60s", f"--now={device}", seed.hex()]
        code = subprocess.run(now, capture_output=True, text=True, check=True).stdout.strip()
        assert command(daemon, "verify", user, code)["verdict"] == "success"


def test_a_backup_comes_back(folder, tmp_path):
    """After a rotation of the key, backup and restore, tokens work, and a code spent after the backup does not."""
    backup = tmp_path / "store.backup"
    with real_daemon(folder):
        run_dir = folder / "run"
        key = command(run_dir, "enroll", "totp", "alice")
        command(run_dir, "token", "confirm", key["token"], code_now(key["secret_hex"]))
        assert command(run_dir, "key", "rotate")["resealed"] >= 1
        assert command(run_dir, "backup", backup)["bytes"] == backup.stat().st_size
        spent = code_now(key["secret_hex"], 1)
        assert command(run_dir, "verify", "alice", spent)["verdict"] == "success"
    seed = base64.b32encode(bytes.fromhex(key["secret_hex"]))
    assert seed not in backup.read_bytes()
    assert key["secret_hex"].encode() not in backup.read_bytes()
    done = subprocess.run(
        [*MAIN, "restore", "-", "--state-dir", folder / "state"],
        input=backup.read_text(encoding="utf-8"),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    with real_daemon(folder):
        assert command(run_dir, "token", "show", key["token"])["state"] == "active"
        assert command(run_dir, "verify", "alice", spent, code=1)["verdict"] == "auth_err"
        assert command(run_dir, "audit", "verify")["intact"] is True


def test_the_audit_log_is_followed(daemon):
    """`audit tail -f` shows an entry while it is written, and ends quietly with Ctrl-C."""
    with Terminal("--run-dir", daemon, "audit", "tail", "-f") as terminal:
        terminal.wait_for("daemon started")
        command(daemon, "user", "add", "carol")
        terminal.wait_for("user added carol")
        terminal.press("\x03")
        assert terminal.finish() == 130
        assert "Traceback" not in terminal.text


def test_a_second_daemon_on_the_same_store_is_refused(daemon, folder):
    """`otpbridge serve` on a store in use says so and does not start."""
    done = subprocess.run(
        [*MAIN, "serve", "--state-dir", folder / "state", "--run-dir", folder / "run2"],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode != 0
    assert str(folder / "state") in done.stderr
    assert "Traceback" not in done.stderr
