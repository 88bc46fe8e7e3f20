"""What the person is asked and shown, and what becomes of the answers."""

from __future__ import annotations

import json
import threading

import pytest
from pamstack import PAM_AUTH_ERR, PAM_AUTHINFO_UNAVAIL, PAM_CONV_ERR, PAM_SILENT, PAM_SUCCESS, Missing, Style
from scripteddaemon import ScriptedDaemon, hidden, notice, step, streamed, visible


def test_prompt_styles(make_stack, socket_path):
    """A hidden prompt does not echo, a visible one does; answers go back in order."""
    with ScriptedDaemon(socket_path, step(hidden("Secret: "), visible("Name: ")), step(verdict="success")) as daemon:
        outcome = make_stack().login("alice", ["one", "two"])
    assert outcome.code == PAM_SUCCESS
    assert [(m.style, m.text) for m in outcome.messages] == [
        (Style.HIDDEN, "Secret: "),
        (Style.VISIBLE, "Name: "),
    ]
    assert daemon.responses == [["one", "two"]]


def test_several_rounds_keep_their_session(make_stack, socket_path):
    """A stack may ask again and again; each answer goes to the session that asked."""
    turns = [step(hidden(f"{n}: "), session=f"s{n}") for n in range(3)]
    with ScriptedDaemon(socket_path, *turns, step(verdict="success")) as daemon:
        outcome = make_stack().login("alice", ["a", "b", "c"])
    assert outcome.code == PAM_SUCCESS
    assert [call["parameters"].get("session") for call in daemon.calls] == [None, "s0", "s1", "s2"]
    assert daemon.responses == [["a"], ["b"], ["c"]]


def test_a_daemon_that_asks_forever_is_left(make_stack, socket_path):
    """Nobody is kept typing by a daemon that never judges."""
    with ScriptedDaemon(socket_path, *[step(hidden("Again: "))] * 40):
        outcome = make_stack().login("alice", ["x"] * 40)
    assert outcome.code == PAM_AUTHINFO_UNAVAIL
    assert len(outcome.prompts) <= 16


def test_an_empty_answer_is_sent(make_stack, socket_path):
    """Whether an empty answer passes (an optional user's) is the daemon's decision."""
    with ScriptedDaemon(socket_path, step(hidden("Code: ")), step(verdict="auth_err")) as daemon:
        assert make_stack().login("alice", [""]).code == PAM_AUTH_ERR
    assert daemon.responses == [[""]]


@pytest.mark.parametrize(
    ("missing", "code"),
    [
        (Missing.NULL, PAM_AUTH_ERR),
        (Missing.NOTHING, PAM_AUTH_ERR),
        (Missing.FAILS, PAM_CONV_ERR),
        (Missing.SAYS_IGNORE, PAM_CONV_ERR),
    ],
)
def test_a_missing_answer_refuses(make_stack, socket_path, missing, code):
    """An answer that is not there is never taken for an empty one, nor the host's failure for a verdict."""
    with ScriptedDaemon(socket_path, step(hidden("Code: ")), step(verdict="ignore")) as daemon:
        outcome = make_stack(
            control="[success=done ignore=1 default=die]",
            after="auth required pam_deny.so\nauth required pam_permit.so",
        ).login("alice", [missing])
    assert outcome.code == code
    assert daemon.responses == []


def test_the_second_answer_missing_refuses(make_stack, socket_path):
    """Half of the answers are not sent."""
    with ScriptedDaemon(socket_path, step(hidden("A: "), hidden("B: ")), step(verdict="success")) as daemon:
        assert make_stack().login("alice", ["one", Missing.NULL]).code == PAM_AUTH_ERR
    assert daemon.responses == []


def test_an_endless_answer_refuses(make_stack, socket_path):
    """An answer longer than any code or password is refused unsent; the longest allowed is sent whole."""
    with ScriptedDaemon(
        socket_path, step(hidden("Code: ")), step(hidden("Code: ")), step(verdict="success")
    ) as daemon:
        assert make_stack().login("alice", ["1" * 1025]).code == PAM_AUTH_ERR
        assert make_stack().login("alice", ["\x01" * 1024]).code == PAM_SUCCESS
    assert daemon.responses == [["\x01" * 1024]]


def test_eight_longest_answers_fit_into_a_message(make_stack, socket_path):
    """The most prompts a step may have, each answered at the greatest length, still make one message."""
    with ScriptedDaemon(socket_path, step(*[hidden("?")] * 8), step(verdict="success")) as daemon:
        assert make_stack().login("alice", ["\x01" * 1024] * 8).code == PAM_SUCCESS
    assert daemon.responses == [["\x01" * 1024] * 8]
    assert len(daemon.frames[1]) < 65536


def test_bytes_that_are_not_utf8_are_replaced(make_stack, socket_path):
    """An answer in another encoding is judged (and counted) as a wrong one, and never breaks the message."""
    with ScriptedDaemon(socket_path, step(hidden("Code: ")), step(verdict="auth_err")) as daemon:
        assert make_stack().login("alice", [b'p\xe4ss"\\\x1b\xed\xa0\x80']).code == PAM_AUTH_ERR
    assert daemon.responses == [['p\ufffdss"\\\x1b\ufffd\ufffd\ufffd']]


def test_what_pam_knows_of_the_attempt_is_sent(make_stack, socket_path):
    """The daemon sees service, host, terminal and remote user: cut to a sane length, mended, escaped."""
    items = {"rhost": '10.0.0.1"}\n', "tty": "ssh\udcff", "ruser": "é" * 400}
    with ScriptedDaemon(socket_path, step(verdict="success")) as daemon:
        assert make_stack("stack=ssh").login("alice", items=items).code == PAM_SUCCESS
    assert daemon.calls == [
        {
            "method": "org.otpbridge.Verify.Begin",
            "more": True,
            "parameters": {
                "user": "alice",
                "stack": "ssh",
                "context": {
                    "service": "otpbridge-test",
                    "rhost": '10.0.0.1"}\n',
                    "tty": "ssh\ufffd",
                    "ruser": "é" * 128,
                },
            },
        }
    ]


def test_daemon_text_cannot_steer_the_terminal(make_stack, socket_path):
    """Escape sequences, control characters and overrides of direction never reach the screen."""
    nasty = "\x1b]0;t\x07\x9b2J\u202eCo\u2066de\r\n\x7f: "
    with ScriptedDaemon(
        socket_path, step(hidden(nasty), notices=[notice(nasty), notice(nasty, "error")]), step(verdict="success")
    ):
        outcome = make_stack().login("alice", ["123456"])
    assert [(m.style, m.text) for m in outcome.messages] == [
        (Style.ERROR, "]0;t2JCode\n: "),
        (Style.HIDDEN, "]0;t2JCode\n: \n]0;t2JCode : "),
    ]


def test_notices_with_a_prompt_are_part_of_it(make_stack, socket_path):
    """sshd and some greeters show the last text alone, so what belongs to a prompt is in its text."""
    with ScriptedDaemon(
        socket_path,
        step(hidden("Code: "), hidden("PIN: "), notices=[notice("Line one"), notice("Line two", "touch")]),
        step(verdict="success"),
    ):
        outcome = make_stack().login("alice", ["1", "2"])
    assert [(m.style, m.text) for m in outcome.messages] == [
        (Style.HIDDEN, "Line one\nLine two\nCode: "),
        (Style.HIDDEN, "PIN: "),
    ]


def test_notices_with_a_verdict_are_shown(make_stack, socket_path):
    """What the daemon says about a verdict is shown in the style that fits."""
    notices = [notice("Three recovery codes are left"), notice("Bad", "error")]
    with ScriptedDaemon(socket_path, step(notices=notices, verdict="success")):
        outcome = make_stack().login("alice")
    assert [(m.style, m.text) for m in outcome.messages] == [
        (Style.INFO, "Three recovery codes are left"),
        (Style.ERROR, "Bad"),
    ]


def test_a_touch_is_asked_for_at_once(make_stack, socket_path):
    """A notice that streams is on the screen while the daemon still waits for the touch."""
    shown = threading.Event()

    def wait_for_the_touch(_connection):
        assert shown.wait(timeout=60)

    with ScriptedDaemon(
        socket_path, [streamed(notice("Touch your key", "touch")), wait_for_the_touch, step(verdict="success")]
    ):
        outcome = make_stack("timeout=60").login("alice", on_message=lambda _message: shown.set())
    assert outcome.code == PAM_SUCCESS
    assert [(m.style, m.text) for m in outcome.messages] == [(Style.INFO, "Touch your key")]


def test_a_touch_is_asked_for_in_silent_logins_too(make_stack, socket_path):
    """sudo sets PAM_SILENT: without this nobody would know what it waits for. Signs of life show nothing."""
    touch = streamed(notice("Touch your key", "touch"), notice("a mere message"))
    with ScriptedDaemon(socket_path, [touch, streamed(), streamed(), step(verdict="success")]):
        outcome = make_stack().login("alice", flags=PAM_SILENT)
    assert outcome.code == PAM_SUCCESS
    assert [(m.style, m.text) for m in outcome.messages] == [(Style.INFO, "Touch your key")]


def test_silent_logins_see_prompts_alone(make_stack, socket_path):
    """With PAM_SILENT nothing but prompts is shown, and in front of a prompt what is needed to answer it."""
    with ScriptedDaemon(
        socket_path,
        [streamed(notice("a")), step(hidden("Code: "), notices=[notice("b"), notice("c", "error")])],
        step(notices=[notice("d")], verdict="maxtries", retry_after=9),
    ):
        outcome = make_stack().login("alice", ["123456"], flags=PAM_SILENT)
    assert [message.text for message in outcome.messages] == ["b\nCode: "]


def test_long_texts_are_cut(make_stack, socket_path):
    """A text of any length is shown as far as PAM's own limit for a line goes, cut at a character."""
    long = notice("ä" * 2000 + "\nshort\n" + "ö" * 2000)
    with ScriptedDaemon(socket_path, step(hidden("é" * 5000), notices=[long]), step(verdict="success")):
        outcome = make_stack().login("alice", ["1"])
    assert outcome.prompts == ["ä" * 255 + "\nshort\n" + "ö" * 255 + "\n" + "é" * 255]


QR = "Scan this:\n" + ("█▀▄ " * 20 + "\n") * 45 + "Key: GEZD GNBV\n"


def test_a_drawing_is_shown_whole(make_stack, socket_path):
    """A QR code and the key below it are one text, line by line: before a prompt, at once, or with the verdict."""
    assert 8_000 < len(QR.encode()) < 10_000
    with ScriptedDaemon(
        socket_path,
        [streamed(notice(QR)), step(hidden("Code: "), notices=[notice("First"), notice(QR), notice("Last")])],
        step(notices=[notice(QR), notice("Bye")], verdict="success"),
    ):
        outcome = make_stack().login("alice", ["1"])
    assert [(m.style, m.text) for m in outcome.messages] == [
        (Style.INFO, QR.rstrip()),
        (Style.HIDDEN, f"First\n{QR}Last\nCode: "),
        (Style.INFO, QR.rstrip()),
        (Style.INFO, "Bye"),
    ]


def test_a_prompt_has_one_line(make_stack, socket_path):
    """A prompt is one line whatever the daemon says; only notices have lines."""
    with ScriptedDaemon(socket_path, step(hidden("Co\nde\n: ")), step(verdict="success")):
        assert make_stack().login("alice", ["1"]).prompts == ["Co de : "]


def test_notices_without_end_leave_room_for_the_prompt(make_stack, socket_path):
    """More text than a screen has is cut, and the question still comes after it."""
    flood = [notice("n" * 99 + "\n") for _ in range(15)]
    flood.append(notice(("x" * 99 + "\n") * 400))
    with ScriptedDaemon(socket_path, step(hidden("p" * 600), notices=flood), step(verdict="success")):
        (prompt,) = make_stack().login("alice", ["1"]).prompts
    assert prompt.startswith(("n" * 99 + "\n") * 15 + ("x" * 99 + "\n") * 100)
    assert prompt.endswith("x\n" + "p" * 511)
    assert len(prompt) <= 16384 + 512


def test_fields_of_a_later_release_are_ignored(make_stack, socket_path):
    """A newer daemon may say more than this module knows."""
    begin = step(hidden("Code: ")) | {"later": {"a": [1, None]}, "error": None, "continues": None}
    begin["parameters"]["later"] = [{"deep": [[[]]]}]
    begin["parameters"]["step"] |= {"later": -1.5e3, "verdict": None, "retryAfter": None}
    begin["parameters"]["step"]["prompts"][0]["later"] = True
    with ScriptedDaemon(socket_path, json.dumps(begin).encode() + b"\0", step(verdict="success")):
        assert make_stack().login("alice", ["1"]).code == PAM_SUCCESS
