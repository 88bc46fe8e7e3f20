"""Exit codes and messages: what a script and a person learn when something is not done."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest
from fake_daemon import error
from samples import token

from otpbridge.cli import exits
from otpbridge.cli.main import run
from otpbridge.errors import ConfigError, EnrolError, ProtocolError, RemoteError, StoreError, UnavailableError
from otpbridge.model import Verdict
from otpbridge.wire import idl, messages
from otpbridge.wire.service import VarlinkError

REMOTE = [
    (error("NoSuchUser", user="alice", client="local"), 1, "no user alice"),
    (error("NoSuchUser", user="alice", client="acme"), 1, "no user alice of client acme"),
    (error("UserExists", user="alice", client="local"), 1, "a user alice already"),
    (error("NoSuchToken", token="t1"), 1, "no token t1"),
    (error("WrongState", token="t1", state="revoked"), 1, "t1 is revoked.*enroll"),
    (error("WrongState", token="t1", state="pending"), 1, "t1 is pending.*confirm"),
    (error("NotConfirmed", user="alice", client="local"), 1, "locked out.*--force"),
    (error("NoAuthenticator", user="alice", client="acme"), 1, "enroll totp alice --client acme"),
    (error("BadParameters", reason="digits must be 6"), 2, "digits must be 6"),
    (error("KeyNotRotatable", reason="the key is a credential"), 1, "the key is a credential"),
    (error("Failed", reason="the disk is full"), 3, "the disk is full"),
    (error("Busy", retryAfter=8), 1, "8 s"),
    (error("UnheardOf", what="x"), 3, "UnheardOf"),
    (VarlinkError("org.varlink.service.PermissionDenied"), 4, "may not.*otpbridge-admin"),
    (VarlinkError("org.varlink.service.InvalidParameter", {"parameter": "user"}), 2, "user"),
    (VarlinkError("org.varlink.service.InvalidParameter", {"parameter": "seconds"}), 2, "30 days"),
    (VarlinkError("org.varlink.service.MethodNotFound", {"method": "x"}), 3, "another version"),
]


@pytest.mark.parametrize(("answer", "code", "words"), REMOTE, ids=lambda value: getattr(value, "name", None))
def test_each_error_of_the_daemon_has_its_exit_code_and_words(daemon, otpbridge, answer, code, words):
    """A refusal by the daemon becomes one line that says what to do, an exit code, and with --json one value."""
    daemon.answers[messages.ShowToken] = answer
    said = otpbridge("token", "show", "t1")
    assert (said.code, said.out) == (code, "")
    assert re.search(words, said.err)
    assert said.err.count("\n") == 1
    told = otpbridge("--json", "token", "show", "t1")
    assert told.code == code
    assert told.json["error"] == answer.name.rpartition(".")[2]
    assert re.search(words, told.json["message"])


def test_every_error_of_the_interfaces_has_words():
    """No error that our interfaces declare is left to be shown raw."""
    declared = {
        name
        for interface in (messages.VERIFY, messages.ENROLL, messages.ADMIN)
        for name in re.findall(r"^error (\w+)", idl.load(interface).text, re.MULTILINE)
    }
    assert len(declared) >= 10
    assert declared <= set(exits._TABLE)


@pytest.mark.parametrize(
    ("raised", "code"),
    [
        (UnavailableError("x"), 3),
        (ProtocolError("x"), 3),
        (RemoteError("org.otpbridge.Admin.Busy", {"retryAfter": 1}), 1),
        (EnrolError("x"), 2),
        (ConfigError("x"), 2),
        (StoreError("x"), 1),
        (exits.CommandError(exits.Code.NOT_PERMITTED, "x"), 4),
    ],
)
def test_each_branch_of_the_error_tree_has_its_exit_code(raised, code):
    """Whatever otpbridge raises on purpose has a known exit code."""
    assert exits.explain(raised).code == code


def test_no_daemon_is_exit_code_3(otpbridge):
    """Without a daemon the command says so, how to start it, and exits with 3."""
    said = otpbridge("--json", "status")
    assert said.code == 3
    assert said.json["error"] == "Unavailable"
    assert "serve" in said.err


def test_wrong_usage_is_exit_code_2(daemon, otpbridge):
    """What cannot be meant is refused before the daemon is asked."""
    for arguments in (
        ["enroll", "fido", "alice"],
        ["enroll", "totp", "alice", "--digits", "9"],
        ["enroll", "totp", "alice", "--period", "5"],
        ["enroll", "hotp", "alice", "--period", "60"],
        ["enroll", "totp", "alice", "--algorithm", "MD5"],
        ["enroll", "totp", "alice", "--qr", "code.jpg"],
        ["enroll", "recovery", "alice", "--qr", "none"],
        ["user", "add"],
        ["user", "exempt", "alice", "--for", "2h"],
        ["user", "exempt", "alice", "--for", "2h", "--reason", " "],
        ["user", "exempt", "alice", "--for", "2", "--reason", "x"],
        ["user", "exempt", "alice", "--for", "-2h", "--reason", "x"],
        ["user", "exempt", "alice"],
        ["user", "invite", "alice", "--for", "soon"],
        ["stack", "check", "--config", "/nonexistent/otpbridge.toml"],
        ["audit", "tail", "-n", "-1"],
        ["frobnicate"],
    ):
        said = otpbridge(*arguments)
        assert (said.code, said.out) == (2, ""), arguments
        assert otpbridge("--json", *arguments).json["error"] in {"Usage", "BadParameters"}
    assert daemon.calls == []


def test_an_admin_socket_that_may_not_be_opened_is_exit_code_4(run_dir, daemon, otpbridge, monkeypatch):
    """Who is not an admin is told who is."""
    monkeypatch.setattr("os.access", lambda path, *_, **__: "admin" not in str(path))
    said = otpbridge("user", "add", "bob")
    assert said.code == 4
    assert "otpbridge-admin" in said.err
    assert daemon.calls == []


def test_text_from_elsewhere_cannot_steer_the_terminal(daemon, otpbridge):
    """Control characters in names and reasons are shown as escapes, in text and in JSON."""
    daemon.answers[messages.ShowToken] = messages.TokenReply(token=token(label="a\x1b]0;x\x07\x9b2J\u202eb"))
    said = otpbridge("token", "show", "t1")
    assert not re.search("[\x1b\x07\x9b\u202e]", said.out)
    assert r"\x1b]0;x\x07" in said.out
    assert otpbridge("--json", "token", "show", "t1").out.isascii()
    daemon.answers[messages.ShowToken] = error("BadParameters", reason="\x1b[2Jgone")
    assert "\x1b" not in otpbridge("token", "show", "t1").err


def test_ctrl_c_is_quiet(daemon, otpbridge, monkeypatch):
    """An interrupted command says nothing more and exits with 130."""

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("otpbridge.cli.ask.code", interrupted)
    said = otpbridge("verify", "alice")
    assert (said.code, said.out, said.err.strip()) == (130, "", "")


def test_a_broken_pipe_is_quiet(daemon, run_dir):
    """`otpbridge … | head` ends without a traceback."""
    daemon.answers[messages.ListTokens] = [
        messages.TokenListReply(tokens=tuple(token(id=f"t{page}-{n}") for n in range(100))) for page in range(50)
    ]
    process = subprocess.Popen(
        [sys.executable, "-c", "from otpbridge.cli.main import main; main()", "--run-dir", run_dir, "token", "list"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline().startswith("TOKEN")
    process.stdout.close()
    assert process.stderr.read() == ""
    process.stderr.close()
    assert process.wait() == 141


def shell(run_dir, words, **environment):
    """Run the command line in a shell, for what only a shell can do."""
    return subprocess.run(
        ["/bin/sh", "-c", f'exec "$0" -c "from otpbridge.cli.main import main; main()" {words}', sys.executable],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OTPBRIDGE_RUN_DIR": str(run_dir), **environment},
    )


def test_a_full_disk_is_told(daemon, run_dir):
    """When the output cannot be written, that is said in a line, exit code 1."""
    daemon.answers[messages.ShowToken] = messages.TokenReply(token=token())
    done = shell(run_dir, "token show t1 > /dev/full")
    assert done.returncode == 1
    assert re.fullmatch("otpbridge: cannot write to standard output: .*\n", done.stderr)


def test_closed_streams_are_no_harm(daemon, run_dir):
    """Without standard input, output or error the command still runs, and nothing reaches a socket by accident."""
    daemon.answers[messages.ShowToken] = messages.TokenReply(token=token())
    daemon.answers[messages.Check] = messages.CheckReply(verdict=Verdict.AUTH_ERR, notices=())
    assert shell(run_dir, "token show t1 <&- >&- 2>&-").returncode == 0
    assert shell(run_dir, "verify alice 123456 >&-").returncode == 1
    done = shell(run_dir, "verify alice <&-")
    assert (done.returncode, "Traceback" in done.stderr) == (2, False)


def test_arguments_that_are_no_text_are_refused(daemon, run_dir):
    """A name that is not UTF-8 is a usage error, not a traceback."""
    done = shell(run_dir, "token show \"$(printf 'a\\377b')\"")
    assert (done.returncode, done.stdout) == (2, "")
    assert "UTF-8" in done.stderr
    assert "Traceback" not in done.stderr


def test_other_encodings_are_no_harm(daemon, run_dir):
    """On a terminal that is not UTF-8, names that it lacks are shown as escapes."""
    daemon.answers[messages.ShowToken] = messages.TokenReply(token=token(label="\u65e5"))
    done = shell(run_dir, "token show t1", PYTHONIOENCODING="latin-1")
    assert (done.returncode, done.stderr) == (0, "")
    assert r"\u65e5" in done.stdout


def test_options_may_stand_before_or_after_the_command(daemon, run_dir, capfd):
    """--run-dir and --json are taken in both places."""
    daemon.answers[messages.ShowToken] = messages.TokenReply(token=token())
    assert run(["token", "show", "t1", "--json", "--run-dir", str(run_dir)]) == 0
    assert '"id": "t1"' in capfd.readouterr().out


def test_the_run_dir_may_come_from_the_environment(daemon, run_dir, capfd, monkeypatch):
    """$OTPBRIDGE_RUN_DIR says where the daemon is."""
    daemon.answers[messages.ShowToken] = messages.TokenReply(token=token())
    monkeypatch.setenv("OTPBRIDGE_RUN_DIR", str(run_dir))
    assert run(["token", "show", "t1"]) == 0
    assert "t1" in capfd.readouterr().out
