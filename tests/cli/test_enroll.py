"""`otpbridge enroll`: keys shown once, a code asked for, nothing left on the screen."""

from __future__ import annotations

import re
import signal
import stat

import pytest
from fake_daemon import error
from pictures import enlarged, framed, png_pixels, qr_texts, svg_pixels, terminal_pixels
from samples import BASE32, HEX, URI, started
from terminal import Terminal, left_over

from otpbridge.enroll.seeds import grouped
from otpbridge.model import Algorithm, Kind, State, Verdict
from otpbridge.wire.messages import (
    Begin,
    Check,
    CheckReply,
    Confirm,
    ConfirmReply,
    Continue,
    Discard,
    Empty,
    PromptFields,
    Start,
    Step,
    StepReply,
)
from otpbridge.wire.service import VarlinkError

FIELDS = ["token", "user", "client", "kind", "state", "secret_hex", "secret_base32", "uri", "expires_in"]


@pytest.fixture
def enrolling(daemon):
    """A daemon that starts an enrolment and confirms it with 123456."""
    return prepare(daemon)


def prepare(daemon):
    def confirm(request):
        if request.code == "123456":
            return ConfirmReply(confirmed=True, state=State.ACTIVE, replaced=())
        return ConfirmReply(
            confirmed=False, state=State.PENDING, replaced=(), fault="algorithm", hint="Your app ignores SHA256."
        )

    daemon.answers.update({Start: started(), Confirm: confirm, Discard: Empty()})
    return daemon


def names(daemon):
    return [type(request) for request in daemon.requests()]


# --- without a terminal ---


def test_json_has_the_fields_that_scripts_know(enrolling, otpbridge):
    """`enroll --json` gives exactly the promised fields, and on standard error how to confirm."""
    said = otpbridge("--json", "enroll", "totp", "alice")
    assert said.code == 0
    assert list(said.json) == FIELDS
    assert said.json == {
        "token": "t1",
        "user": "alice",
        "client": "local",
        "kind": "totp",
        "state": "pending",
        "secret_hex": HEX,
        "secret_base32": BASE32,
        "uri": URI,
        "expires_in": 600,
    }
    assert "otpbridge token confirm t1" in said.err
    assert BASE32 not in said.err
    assert names(enrolling) == [Start]


def test_all_options_reach_the_daemon(enrolling, otpbridge):
    """Client, label, issuer, hash, digits and period are passed on; what is left out is the daemon's to choose."""
    options = [
        "--client",
        "acme",
        "--label",
        "l",
        "--issuer",
        "i",
        "--algorithm",
        "sha256",
        "--digits",
        "8",
        "--period",
        "60",
    ]
    assert otpbridge("--json", "enroll", "totp", "alice", *options).code == 0
    assert otpbridge("--json", "enroll", "hotp", "bob").code == 0
    full, bare = enrolling.requests()
    assert (full.user, full.kind, full.client, full.label, full.issuer) == ("alice", Kind.TOTP, "acme", "l", "i")
    assert (full.algorithm, full.digits, full.period) == (Algorithm.SHA256, 8, 60)
    assert (bare.user, bare.kind) == ("bob", Kind.HOTP)
    assert {bare.client, bare.label, bare.issuer, bare.algorithm, bare.digits, bare.period} == {None}


def test_without_a_terminal_the_token_stays_pending(enrolling, otpbridge):
    """In a pipe both keys are printed, base32 first, with the URI and how to confirm; nobody is asked."""
    said = otpbridge("enroll", "totp", "alice", stdin="123456\n")
    assert said.code == 0
    assert said.out.index(grouped(BASE32)) < said.out.index(HEX)
    for words in (
        "Google Authenticator key",
        "TOTP Seed key",
        URI,
        "SHA1, 6 digits",
        "token confirm t1",
        "10 minutes",
    ):
        assert words in said.out
    assert said.out.count("separate device") == 1
    assert "\x1b" not in said.out
    assert names(enrolling) == [Start]


def test_a_code_confirms_at_once(enrolling, otpbridge):
    """--code confirms without a question; with --json the state is what it became."""
    said = otpbridge("--json", "enroll", "totp", "alice", "--code", "123456")
    assert (said.code, said.json["state"]) == (0, "active")
    assert list(said.json) == FIELDS
    wrong = otpbridge("--json", "enroll", "totp", "alice", "--code", "000000")
    assert (wrong.code, wrong.json["state"]) == (1, "pending")
    assert "ignores SHA256" in wrong.err
    assert otpbridge("enroll", "totp", "alice", "--code", "123456").code == 0
    assert names(enrolling) == [Start, Confirm] * 3


def test_a_code_may_come_by_standard_input(enrolling, otpbridge):
    """`--code -` reads the code once the keys are told, so a script can compute it from them."""
    said = otpbridge("--json", "enroll", "totp", "alice", "--code", "-", stdin="123456\n")
    assert said.code == 0
    assert said.json["secret_base32"] == BASE32
    assert otpbridge("enroll", "totp", "alice", "--code", "-", stdin="000000\n").code == 1


@pytest.mark.parametrize(("name", "read"), [("a.png", png_pixels), ("a.svg", svg_pixels)])
def test_the_code_goes_to_a_file(enrolling, otpbridge, tmp_path, name, read):
    """--qr FILE saves a picture that scans, for its owner alone."""
    path = tmp_path / name
    assert otpbridge("--json", "enroll", "totp", "alice", "--qr", path).code == 0
    assert qr_texts(framed(enlarged(read(path.read_bytes()), 3), 255, 20)) == [URI]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_file_that_cannot_be_written_leaves_no_token(enrolling, otpbridge, tmp_path):
    """When the picture cannot be saved, the keys are shown nowhere and the pending token is discarded."""
    said = otpbridge("enroll", "totp", "alice", "--qr", tmp_path / "none" / "a.png")
    assert said.code == 2
    assert "cannot write" in said.err
    assert BASE32 not in said.out + said.err
    assert names(enrolling) == [Start, Discard]


def test_a_drawing_may_be_asked_for_in_a_pipe(enrolling, otpbridge):
    """--qr terminal draws in any case; with --json beside the value."""
    plain = otpbridge("enroll", "totp", "alice", "--qr", "terminal").out
    drawing = "".join(line for line in plain.splitlines(keepends=True) if "\x1b" in line)
    assert qr_texts(framed(enlarged(terminal_pixels(drawing, 0, 0), 3), 0, 20)) == [URI]
    said = otpbridge("--json", "enroll", "totp", "alice", "--qr", "terminal")
    assert said.json["uri"] == URI
    assert "\u2580" in said.err


def test_who_has_a_token_proves_it_first(user_daemon, otpbridge):
    """A user who has a token shows a code of it on the same connection before a new one is started."""
    prepare(user_daemon)
    proven = []
    user_daemon.answers[Start] = lambda _request: started() if proven else error("ProofNeeded")
    user_daemon.answers[Check] = lambda _request: proven.append(1) or CheckReply(verdict=Verdict.SUCCESS, notices=())
    assert otpbridge("--json", "enroll", "totp", "alice", stdin="654321\n").json["token"] == "t1"
    assert names(user_daemon) == [Start, Check, Start]
    assert {(socket, connection) for socket, connection, _ in user_daemon.calls} == {("verify", 0)}
    proven.clear()
    refused = otpbridge("--json", "enroll", "totp", "alice")
    assert (refused.code, refused.json["error"]) == (4, "ProofNeeded")


# --- on a terminal ---


def on_terminal(run_dir, *arguments, **size):
    return Terminal("--run-dir", run_dir, "enroll", "totp", "alice", *arguments, **size)


@pytest.mark.parametrize(
    "size",
    [{}, {"lines": 24, "columns": 80}, {"term": "linux"}, {"lines": 24, "columns": 40}],
    ids=["large", "small", "console", "narrow"],
)
def test_a_person_scans_types_and_is_done(enrolling, run_dir, size):
    """Both keys and advice are shown, a code is asked for, and afterwards no key can be read on the terminal."""
    with on_terminal(run_dir, **size) as terminal:
        shown = terminal.wait_for("Code that it shows now")
        assert grouped(BASE32) in shown
        assert HEX in shown
        assert shown.count("separate device") == 1
        terminal.type("123456")
        assert terminal.finish() == 0
        left = left_over(terminal.text)
    assert "t1 is active" in left
    assert "otpbridge user require alice" in left
    assert not re.search(f"GEZD|{HEX}|\u2580|otpauth", left)
    assert names(enrolling) == [Start, Confirm]


def test_the_drawing_on_the_terminal_scans(enrolling, run_dir):
    """The code that a person sees is the URI."""
    with on_terminal(run_dir) as terminal:
        shown = terminal.wait_for("Account ")
        terminal.press("\x03")
        terminal.finish()
    drawing = "\n".join(line for line in shown.split("\r\n") if "\u2580" in line)
    drawing = drawing[drawing.index("\x1b[38;5;") :]
    assert qr_texts(framed(enlarged(terminal_pixels(drawing, 255, 0), 3), 0, 20)) == [URI]


def test_a_narrow_terminal_says_what_to_do(enrolling, run_dir):
    """Where the code does not fit it is not drawn broken."""
    with on_terminal(run_dir, columns=40) as terminal:
        shown = terminal.wait_for("Code that it shows now")
        assert "\u2580" not in shown
        assert "--qr FILE.png" in shown
        terminal.press("\x03")
        terminal.finish()


def test_a_wrong_code_is_explained_and_asked_for_again(enrolling, run_dir):
    """The daemon's hint is shown, an empty line is asked again, and a right code then confirms."""
    with on_terminal(run_dir) as terminal:
        terminal.wait_for("Code that it shows now")
        terminal.type("000000")
        assert "Your app ignores SHA256." in terminal.wait_for("Code that it shows now")
        terminal.type("")
        terminal.wait_for("Code that it shows now")
        terminal.type("123456")
        assert terminal.finish() == 0
    assert names(enrolling) == [Start, Confirm, Confirm]


def test_back_off_is_told(enrolling, run_dir):
    """When nothing is judged for a while the person is told how long, and asked again."""
    answers = iter([error("Busy", retryAfter=4), ConfirmReply(confirmed=True, state=State.ACTIVE, replaced=())])
    enrolling.answers[Confirm] = lambda _request: next(answers)
    with on_terminal(run_dir) as terminal:
        terminal.wait_for("Code that it shows now")
        terminal.type("123456")
        assert "Wait 4 s" in terminal.wait_for("Code that it shows now")
        terminal.type("123456")
        assert terminal.finish() == 0


def test_too_many_wrong_codes_end_it(enrolling, run_dir):
    """After some wrong codes the pending token is discarded, and that is said; exit code 1."""
    with on_terminal(run_dir) as terminal:
        for _ in range(5):
            terminal.wait_for("Code that it shows now")
            terminal.type("000000")
        assert terminal.finish() == 1
        left = left_over(terminal.text)
    assert "discarded; nothing has changed" in left
    assert "GEZD" not in left
    assert names(enrolling)[-1] is Discard


@pytest.mark.parametrize("how", ["ctrl-c", "ctrl-d", "SIGTERM", "SIGHUP"])
def test_giving_up_discards_the_token(enrolling, run_dir, how):
    """However it is left, the keys are cleared, the pending token is discarded and that is said; no traceback."""
    with on_terminal(run_dir) as terminal:
        terminal.wait_for("Code that it shows now (Ctrl-C gives up): ")
        if how == "ctrl-c":
            terminal.press("\x03")
        elif how == "ctrl-d":
            terminal.press("\x04")
        else:
            terminal.send_signal(signal.Signals[how])
        assert terminal.finish() == (2 if how == "ctrl-d" else 130)
        left = left_over(terminal.text)
    assert "discarded; nothing has changed" in left
    assert "Traceback" not in terminal.text
    assert "GEZD" not in left
    assert names(enrolling) == [Start, Discard]


def test_a_token_that_cannot_be_discarded_is_said_to_expire(enrolling, run_dir):
    """When the daemon does not answer any more, the person learns that the token was never in force."""
    enrolling.answers[Discard] = error("NoSuchToken", token="t1")
    with on_terminal(run_dir) as terminal:
        terminal.wait_for("Code that it shows now")
        terminal.press("\x03")
        assert terminal.finish() == 130
    assert "never in force" in left_over(terminal.text)


def test_the_keys_are_cleared_when_the_daemon_fails(enrolling, run_dir):
    """An error while the code is judged is told once the keys are gone."""
    enrolling.answers[Confirm] = error("Failed", reason="the disk is full")
    with on_terminal(run_dir) as terminal:
        terminal.wait_for("Code that it shows now")
        terminal.type("123456")
        assert terminal.finish() == 3
        left = left_over(terminal.text)
    assert "the disk is full" in left
    assert "GEZD" not in left


def test_removing_asks_a_person_first(daemon, run_dir):
    """On a terminal what cannot be undone is asked for; No changes nothing, --yes is not asked."""
    from otpbridge.wire.messages import RemoveUser

    daemon.answers[RemoveUser] = Empty()
    with Terminal("--run-dir", run_dir, "user", "remove", "alice") as terminal:
        terminal.wait_for("[y/N]")
        terminal.type("")
        assert terminal.finish() == 1
    assert daemon.calls == []
    with Terminal("--run-dir", run_dir, "user", "remove", "alice", "--yes") as terminal:
        assert terminal.finish() == 0
    assert names(daemon) == [RemoveUser]


def test_a_person_proves_it_by_all_that_the_stack_asks(run_dir, user_daemon):
    """On a terminal the proof is a conversation: password, then code; the call is repeated on the same connection."""
    prepare(user_daemon)
    proven = []
    steps = {"Password: ": ("hunter2", "Code: "), "Code: ": ("123456", None)}
    waiting = []

    def step(prompt):
        waiting[:] = [prompt]
        prompts = (PromptFields(style="hidden", text=prompt, answer="code"),)
        return StepReply(session="s", step=Step(notices=(), prompts=prompts))

    def proceed(request):
        answer, following = steps[waiting[0]]
        assert request.responses == (answer,)
        if following is not None:
            return step(following)
        proven.append(True)
        return StepReply(session="s", step=Step(notices=(), prompts=(), verdict=Verdict.SUCCESS))

    user_daemon.answers.update(
        {
            Start: lambda _request: started() if proven else VarlinkError("org.otpbridge.Enroll.ProofNeeded"),
            Begin: lambda _request: step("Password: "),
            Continue: proceed,
        }
    )
    with on_terminal(run_dir) as terminal:
        terminal.wait_for("prove that it is you")
        terminal.wait_for("Password: ")
        terminal.type("hunter2")
        terminal.wait_for("Code: ")
        terminal.type("123456")
        terminal.wait_for("Code that it shows now")
        terminal.type("123456")
        assert terminal.finish() == 0
        assert "hunter2" not in terminal.text
    assert names(user_daemon) == [Start, Begin, Continue, Continue, Start, Confirm]
    assert len({connection for _, connection, _ in user_daemon.calls}) == 1
