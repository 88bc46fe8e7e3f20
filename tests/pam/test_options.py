"""The options of the PAM line mean what admins know them to mean; a wrong one is never passed over."""

from __future__ import annotations

from pathlib import Path

import pytest
from pamstack import PAM_AUTH_ERR, PAM_AUTHINFO_UNAVAIL, PAM_MAXTRIES, PAM_SERVICE_ERR, PAM_SUCCESS, Style
from scripteddaemon import ScriptedDaemon, hidden, judged, notice, step, visible

CODE_ASKED = step(hidden("Code: "))


@pytest.mark.parametrize("phase", ["authenticate", "acct_mgmt"])
def test_wrong_options_are_all_logged_and_refuse(make_stack, socket_path, phase):
    """A typing error in a PAM line locks nobody in unseen: the log names every wrong option, not just the first."""
    with ScriptedDaemon(socket_path, step(verdict="success"), judged("success")) as daemon:
        outcome = make_stack("nulok", "timeout=0", "debug", "stack=../x", "use_first_pass=1").login(
            "alice", ["123456"], phases=[phase]
        )
    assert outcome.code == PAM_SERVICE_ERR
    for wrong in ("nulok", "timeout=0", "stack=../x", "use_first_pass=1"):
        assert f'option "{wrong}"' in outcome.log
    assert 'option "debug"' not in outcome.log
    assert daemon.calls == []
    assert outcome.messages == []


@pytest.mark.parametrize(
    ("options", "prompts"),
    [
        ([], ["Password: ", "Verification code: ", "Verification code: ", "Name: "]),
        (["[prompt=Phone: ]"], ["Password: ", "Phone: ", "Phone: ", "Name: "]),
        (["authtok_prompt=OTP>"], ["Password: ", "OTP>", "OTP>", "Name: "]),
        (
            ["forward_pass"],
            ["Password & verification code: ", "Verification code: ", "Verification code: ", "Name: "],
        ),
        (["forward_pass", "[prompt=Both: ]"], ["Both: ", "Verification code: ", "Verification code: ", "Name: "]),
    ],
)
def test_prompt_text(make_stack, socket_path, options, prompts):
    """The admin's text is for the code, whenever it is asked for; with forward_pass for both in one."""
    password, code, name = hidden("Password: "), hidden("Verification code: "), visible("Name: ")
    wrong = notice("Wrong code", "error")
    with ScriptedDaemon(
        socket_path, step(password), step(code), step(code, name, notices=[wrong]), step(verdict="success")
    ):
        outcome = make_stack(*options).login("alice", ["1", "2", "3", "4"])
    assert outcome.prompts == prompts
    assert [m.text for m in outcome.messages] == [*prompts[:2], "Wrong code", *prompts[2:]]


@pytest.mark.parametrize("option", ["echo_verification_code", "echo-verification-code"])
def test_echo(make_stack, socket_path, option):
    """Codes may be shown as they are typed, but never what holds a password or may hold one."""
    turns = [
        step(hidden("Password: "), hidden("Verification code: ")),
        step(hidden("Secret word: "), visible("Name: ")),
        step(hidden("Verification code: ")),
        step(verdict="success"),
    ]
    answers = ["hunter2pw", "123456", "open sesame", "alice", "123456"]
    with ScriptedDaemon(socket_path, *turns, *turns[-2:]):
        echoed = make_stack(option).login("alice", answers)
        combined = make_stack(option, "forward_pass").login("alice", ["secret123456"])
    assert [message.style for message in echoed.messages] == [
        Style.HIDDEN,
        Style.VISIBLE,
        Style.HIDDEN,
        Style.VISIBLE,
        Style.VISIBLE,
    ]
    assert [message.style for message in combined.messages] == [Style.HIDDEN]


@pytest.mark.parametrize("option", ["nullok", "nouserok"])
def test_nullok_is_told_to_the_daemon(make_stack, socket_path, option):
    """Whether a user who is not in the store may pass is asked of the daemon, by both names of the option."""
    with ScriptedDaemon(socket_path, step(verdict="success"), step(verdict="success")) as daemon:
        make_stack(option).login("alice")
        make_stack().login("alice")
    assert [call["parameters"].get("nullok") for call in daemon.calls] == [True, None]


def test_debug_prints_no_secret(make_stack, socket_path):
    """With `debug` the log shows the states of a login, and not a character of what was typed or received."""
    asked = step(hidden("prompt-of-the-daemon: "), notices=[notice("text-of-the-daemon")], session="session-name")
    with ScriptedDaemon(socket_path, asked, step(verdict="success")):
        outcome = make_stack("debug", "forward_pass").login("alice", ["hunter2pw871263"], items={"rhost": "h0st"})
    assert outcome.code == PAM_SUCCESS
    assert "answer of bytes (15)" in outcome.log
    for secret in ("hunter2pw", "871263", "of-the-daemon", "session-name", "h0st"):
        assert secret not in outcome.log


def test_nothing_is_logged_about_a_login_that_worked(make_stack, socket_path):
    """The daemon keeps the audit log; the module writes only when something must be done."""
    with ScriptedDaemon(socket_path, CODE_ASKED, step(verdict="success"), CODE_ASKED, step(verdict="auth_err")):
        assert "pam_otpbridge" not in make_stack().login("alice", ["123456"]).log
        assert "pam_otpbridge" not in make_stack().login("alice", ["123456"]).log


# --- passwords that other modules asked for -----------------------------------------------------------------

EARLIER = "auth optional pam_exec.so quiet expose_authtok /bin/true"  # asks for a password and keeps it
PERMIT = "auth required pam_permit.so"  # a stack that only ignores refuses


@pytest.fixture
def later(folder: Path) -> tuple[str, Path]:
    """A module after ours that writes the password it finds to a file."""
    script, found = folder / "keep", folder / "found"
    script.write_text(f"#!/bin/sh\nexec cat > {found}\n")
    script.chmod(0o755)
    return f"auth optional pam_exec.so quiet expose_authtok {script}", found


def password_in(found: Path) -> str:
    """What pam_exec handed over, which ends with a NUL."""
    return found.read_bytes().rstrip(b"\0").decode()


def test_a_code_is_asked_for_even_when_a_password_is_known(make_stack, socket_path):
    """Without an option the password of an earlier module is never taken for the code."""
    with ScriptedDaemon(socket_path, CODE_ASKED, step(verdict="success")) as daemon:
        outcome = make_stack(before=EARLIER).login("alice", ["hunter2pw", "123456"])
    assert outcome.code == PAM_SUCCESS
    assert outcome.prompts[1:] == ["Code: "]
    assert daemon.responses == [["123456"]]


@pytest.mark.parametrize("typed", ["123456", "hunter2pw", ""])
def test_use_first_pass_takes_the_earlier_answer(make_stack, socket_path, typed):
    """With use_first_pass what was typed before is the code, whatever it looks like, and nobody is asked again."""
    with ScriptedDaemon(socket_path, CODE_ASKED, step(verdict="success")) as daemon:
        outcome = make_stack("use_first_pass", before=EARLIER).login("alice", [typed, "654321"])
    assert outcome.code == PAM_SUCCESS
    assert len(outcome.prompts) == 1
    assert daemon.responses == [[typed]]


def test_use_first_pass_never_asks(make_stack, socket_path):
    """With use_first_pass and nothing typed before, or a second prompt, the login is refused unasked."""
    with ScriptedDaemon(
        socket_path, CODE_ASKED, step(hidden("A: "), hidden("B: ")), CODE_ASKED, step(hidden("Next: "))
    ) as daemon:
        assert make_stack("use_first_pass").login("alice", ["123456"]).code == PAM_AUTH_ERR
    with ScriptedDaemon(
        socket_path.with_name("two"), step(hidden("A: "), hidden("B: ")), CODE_ASKED, step(hidden("Next: "))
    ) as second:
        stack = make_stack("use_first_pass", before=EARLIER, socket=second.path)
        assert stack.login("alice", ["123456", "x"]).code == PAM_AUTH_ERR
        outcome = stack.login("alice", ["123456", "x"])
    assert outcome.code == PAM_AUTH_ERR
    assert len(outcome.prompts) == 1
    assert daemon.responses == []
    assert second.responses == [["123456"]]


@pytest.mark.parametrize("typed", ["123456", "12 34-5678", "c" * 44])
def test_try_first_pass_tries_what_looks_like_a_code(make_stack, socket_path, typed):
    """With try_first_pass a code typed before is enough."""
    with ScriptedDaemon(socket_path, CODE_ASKED, step(verdict="success")) as daemon:
        outcome = make_stack("try_first_pass", before=EARLIER).login("alice", [typed])
    assert outcome.code == PAM_SUCCESS
    assert len(outcome.prompts) == 1
    assert daemon.responses == [[typed]]


@pytest.mark.parametrize("typed", ["hunter2pw", "12345", "123456789", "c" * 43, ""])
def test_try_first_pass_sends_no_password(make_stack, socket_path, typed):
    """With try_first_pass a password is not sent as a code, for it would count as a miss; the code is asked for."""
    with ScriptedDaemon(socket_path, CODE_ASKED, step(verdict="success")) as daemon:
        outcome = make_stack("try_first_pass", before=EARLIER).login("alice", [typed, "123456"])
    assert outcome.code == PAM_SUCCESS
    assert daemon.methods == ["Begin", "Continue"]
    assert daemon.responses == [["123456"]]


def test_try_first_pass_asks_after_a_refusal(make_stack, socket_path):
    """With try_first_pass a refused first answer is followed by a prompt, once."""
    refused = step(verdict="auth_err")
    with ScriptedDaemon(socket_path, CODE_ASKED, refused, CODE_ASKED, step(verdict="success")) as daemon:
        outcome = make_stack("try_first_pass", before=EARLIER).login("alice", ["111111", "123456"])
    assert outcome.code == PAM_SUCCESS
    assert outcome.prompts[1:] == ["Code: "]
    assert daemon.methods == ["Begin", "Continue", "Begin", "Continue"]
    assert daemon.responses == [["111111"], ["123456"]]


@pytest.mark.parametrize(
    ("turns", "answers", "code"),
    [
        ([CODE_ASKED, step(verdict="maxtries")], ["111111", "123456"], PAM_MAXTRIES),
        ([step(verdict="auth_err"), step(verdict="success")], ["111111", "123456"], PAM_AUTH_ERR),
        (
            [CODE_ASKED, step(hidden("B: ")), step(verdict="auth_err"), step(verdict="success")],
            ["111111", "x"],
            PAM_AUTH_ERR,
        ),
        (
            [CODE_ASKED, step(verdict="auth_err"), CODE_ASKED, step(verdict="auth_err"), step(verdict="success")],
            ["111111", "222222"],
            PAM_AUTH_ERR,
        ),
    ],
    ids=["throttled", "refused unasked", "asked already", "refused twice"],
)
def test_try_first_pass_tries_no_further(make_stack, socket_path, turns, answers, code):
    """The second try is for a first answer that was refused as such, and for nothing else."""
    if turns[0] is not CODE_ASKED:
        answers = ["hunter2pw"]
    with ScriptedDaemon(socket_path, *turns):
        outcome = make_stack("try_first_pass", control="requisite", before=EARLIER).login("alice", answers)
    assert outcome.code == code


@pytest.mark.parametrize("typed", ["hunter2pw", "123456", ""])
def test_try_first_pass_gives_a_password_to_a_prompt_for_one(make_stack, socket_path, typed):
    """A stack of the daemon that begins with the password takes the one typed before; the code is asked for."""
    turns = [step(hidden("Password: ")), step(hidden("Verification code: ")), step(verdict="success")]
    with ScriptedDaemon(socket_path, *turns) as daemon:
        outcome = make_stack("try_first_pass", before=EARLIER).login("alice", [typed, "654321"])
    assert outcome.code == PAM_SUCCESS
    assert outcome.prompts[1:] == ["Verification code: "]
    assert daemon.responses == [[typed], ["654321"]]


@pytest.mark.parametrize(
    ("option", "sent"),
    [
        ("try_first_pass", [["1111"], ["2222"], ["654321"]]),
        ("use_first_pass", [[""], [""], ["654321"]]),
        ("forward_pass", [["1111"], ["2222"], ["pass123456"]]),
    ],
)
def test_the_pin_of_a_security_key_is_an_answer_of_its_own(make_stack, socket_path, option, sent):
    """What was typed before is not tried as a PIN, which would cost a try; nor is the PIN kept as a password."""
    pins = [step(hidden(f"{again}Security key PIN: ")) for again in ("", "Wrong PIN, 7 tries left. ")]
    answers = ["1111", "2222", "pass123456"]
    before = "" if option == "forward_pass" else EARLIER
    with ScriptedDaemon(socket_path, *pins, step(hidden("Verification code: ")), step(verdict="success")) as daemon:
        outcome = make_stack(option, before=before).login("alice", answers if not before else ["654321", *answers])
    assert outcome.code == PAM_SUCCESS
    assert daemon.responses == sent
    if option == "forward_pass":
        assert outcome.prompts[-1] == "Password & verification code: "


@pytest.mark.parametrize("option", ["try_first_pass", "use_first_pass"])
def test_a_first_pass_hides_no_notice(make_stack, socket_path, option):
    """What would stand above a prompt is shown, once, although nobody has to answer that prompt."""
    said = [notice("Your phone is new"), notice("It is late", "error")]
    with ScriptedDaemon(socket_path, step(hidden("Code: "), notices=said), step(verdict="success")):
        outcome = make_stack(option, before=EARLIER).login("alice", ["123456"])
    assert outcome.code == PAM_SUCCESS
    assert [(m.style, m.text) for m in outcome.messages[1:]] == [
        (Style.INFO, "Your phone is new"),
        (Style.ERROR, "It is late"),
    ]


def test_try_first_pass_is_for_the_first_prompt_alone(make_stack, socket_path):
    """What was typed before answers one prompt: not the next of the same step, nor one after a wrong code."""
    code = hidden("Verification code: ")
    turns = [step(code, code), step(code, notices=[notice("Wrong code", "error")]), step(verdict="success")]
    with ScriptedDaemon(socket_path, *turns) as daemon:
        outcome = make_stack("try_first_pass", before=EARLIER).login("alice", ["111111", "222222", "333333"])
    assert outcome.code == PAM_SUCCESS
    assert daemon.responses == [["111111", "222222"], ["333333"]]


# --- password and code in one answer ------------------------------------------------------------------------


def combined_of(daemon: ScriptedDaemon) -> list[bool | None]:
    """What each Begin said of the first answer."""
    return [call["parameters"].get("combined") for call in daemon.calls if call["method"].endswith("Begin")]


@pytest.mark.parametrize("verdict", ["success", "ignore"])
@pytest.mark.parametrize(
    ("typed", "code", "password"),
    [
        ("hunter2pw123456", (9, 6), b"hunter2pw"),
        ("12345678hunter2pw", (0, 8), b"hunter2pw"),
        ("hunter" + "c" * 44, (6, 44), b"hunter"),
        ("pässwort 123456", (10, 6), "pässwort ".encode()),
        (b"p\xe4ss\xf6123456", (9, 6), b"p\xe4ss\xf6"),
        ("before123456after", (6, 6), b"beforeafter"),
        ("hunter2pw123456", None, b"hunter2pw123456"),
        ("x" * 500 + "123456", (500, 6), b"x" * 500),
    ],
)
def test_forward_pass_splits_where_the_daemon_says(make_stack, socket_path, later, *, typed, code, password, verdict):
    """With forward_pass one prompt takes both. The daemon finds the code; all around it is for the next module."""
    line, found = later
    with ScriptedDaemon(socket_path, CODE_ASKED, step(verdict=verdict, code=code)) as daemon:
        outcome = make_stack("forward_pass", after=f"{PERMIT}\n{line}").login("alice", [typed])
    assert outcome.code == PAM_SUCCESS
    assert outcome.prompts == ["Password & verification code: "]
    assert combined_of(daemon) == [True]
    sent = typed if isinstance(typed, str) else typed.decode(errors="replace")
    assert daemon.responses == [[sent]]
    assert found.read_bytes().rstrip(b"\0") == password


def test_without_forward_pass_the_answer_is_a_code(make_stack, socket_path, later):
    """Without the option nothing is combined, nothing is split, and the answer is not left to the next module."""
    line, found = later
    with ScriptedDaemon(socket_path, CODE_ASKED, step(verdict="success", code=(0, 1))) as daemon:
        outcome = make_stack(after=line).login("alice", ["hunter2pw123456", "asked-again"])
    assert outcome.code == PAM_SUCCESS
    assert combined_of(daemon) == [None]
    assert password_in(found) == "asked-again"


@pytest.mark.parametrize(
    "code",
    [(16, 0), (9, 7), (0, 16), (65535, 65535), (65536, 1), (-1, 6), (2, 1), (1, 1)],
    ids=["behind", "too long", "longer than all", "far away", "out of bounds", "before", "starts in", "ends in"],
)
@pytest.mark.parametrize("verdict", ["success", "ignore"])
def test_forward_pass_refuses_a_split_that_cannot_be(make_stack, socket_path, later, code, verdict):
    """A code that is said to lie outside of the answer or to begin or end within a character: nobody gets in."""
    line, found = later
    with ScriptedDaemon(socket_path, CODE_ASKED, step(verdict=verdict, code=code)):
        outcome = make_stack("forward_pass", after=f"{PERMIT}\n{line}").login("alice", ["häkte2pw123456", "again"])
    assert outcome.code == PAM_AUTHINFO_UNAVAIL
    assert "no answer of org.otpbridge.Verify" in outcome.log
    assert password_in(found) == "again"


def test_forward_pass_keeps_the_first_answer_alone(make_stack, socket_path, later):
    """When the code is asked for again, the password is still that of the first answer."""
    line, found = later
    again = step(hidden("Verification code: "), notices=[notice("Wrong code", "error")])
    with ScriptedDaemon(socket_path, CODE_ASKED, again, step(verdict="success", code=(9, 6))) as daemon:
        outcome = make_stack("forward_pass", after=line).login("alice", ["hunter2pw111111", "222222"])
    assert outcome.code == PAM_SUCCESS
    assert daemon.responses == [["hunter2pw111111"], ["222222"]]
    assert password_in(found) == "hunter2pw"


@pytest.mark.parametrize("verdict", ["auth_err", "maxtries", "authinfo_unavail"])
def test_forward_pass_leaves_nothing_of_a_refused_login(make_stack, socket_path, later, verdict):
    """After a refusal the next module does not find the password."""
    line, found = later
    with ScriptedDaemon(socket_path, CODE_ASKED, step(verdict=verdict, code=(9, 6))):
        outcome = make_stack("forward_pass", after=line).login("alice", ["hunter2pw123456", "asked-again"])
    assert outcome.code == {"auth_err": PAM_AUTH_ERR, "maxtries": PAM_MAXTRIES}.get(verdict, PAM_AUTHINFO_UNAVAIL)
    assert password_in(found) == "asked-again"


def test_forward_pass_with_the_code_alone(make_stack, socket_path, later):
    """Who types only the code is asked for the password by the next module."""
    line, found = later
    with ScriptedDaemon(socket_path, CODE_ASKED, step(verdict="success", code=(0, 6))) as daemon:
        outcome = make_stack("forward_pass", after=line).login("alice", ["123456", "asked-again"])
    assert outcome.code == PAM_SUCCESS
    assert daemon.responses == [["123456"]]
    assert password_in(found) == "asked-again"


@pytest.mark.parametrize("first_pass", ["use_first_pass", "try_first_pass"])
@pytest.mark.parametrize(
    ("typed", "code", "password"),
    [
        ("hunter2pw123456", (9, 6), "hunter2pw"),
        ("123456hunter2pw", (0, 6), "hunter2pw"),
        ("c" * 44 + "hunter", (0, 44), "hunter"),
    ],
)
def test_forward_pass_splits_an_earlier_answer(make_stack, socket_path, later, first_pass, *, typed, code, password):
    """Both may have been typed for an earlier module: the code is cut out and the password left."""
    line, found = later
    with ScriptedDaemon(socket_path, CODE_ASKED, step(verdict="success", code=code)) as daemon:
        outcome = make_stack("forward_pass", first_pass, before=EARLIER, after=line).login("alice", [typed])
    assert outcome.code == PAM_SUCCESS
    assert len(outcome.prompts) == 1
    assert combined_of(daemon) == [True]
    assert daemon.responses == [[typed]]
    assert password_in(found) == password


@pytest.mark.parametrize("typed", ["hunter2pw", "hunter12345", "12 34 56", "!123456!", "x" + "c" * 43, ""])
def test_forward_pass_tries_no_password_without_a_code(make_stack, socket_path, later, typed):
    """A password that no code can be part of is not sent as a guess, whatever the daemon asks; both are asked for."""
    line, found = later
    turns = [step(hidden("Password: ")), step(verdict="success", code=(3, 6))]
    with ScriptedDaemon(socket_path, *turns) as daemon:
        outcome = make_stack("forward_pass", "try_first_pass", before=EARLIER, after=line).login(
            "alice", [typed, "new123456"]
        )
    assert outcome.code == PAM_SUCCESS
    assert outcome.prompts[1:] == ["Password & verification code: "]
    assert daemon.responses == [["new123456"]]
    assert password_in(found) == "new"


def test_forward_pass_takes_the_second_try(make_stack, socket_path, later):
    """When the earlier answer was refused and both are asked for, the password is that of the new answer."""
    line, found = later
    refused = step(verdict="auth_err")
    with ScriptedDaemon(socket_path, CODE_ASKED, refused, CODE_ASKED, step(verdict="success", code=(0, 6))) as daemon:
        outcome = make_stack("forward_pass", "try_first_pass", before=EARLIER, after=line).login(
            "alice", ["a-longer-one111111", "123456new"]
        )
    assert outcome.code == PAM_SUCCESS
    assert combined_of(daemon) == [True, True]
    assert daemon.responses == [["a-longer-one111111"], ["123456new"]]
    assert password_in(found) == "new"
