"""The daemon's verdict is PAM's answer, by name; without one PAM refuses."""

from __future__ import annotations

import pytest
from pamstack import (
    PAM_ACCT_EXPIRED,
    PAM_AUTH_ERR,
    PAM_AUTHINFO_UNAVAIL,
    PAM_CRED_INSUFFICIENT,
    PAM_MAXTRIES,
    PAM_NEW_AUTHTOK_REQD,
    PAM_PERM_DENIED,
    PAM_SUCCESS,
    PAM_USER_UNKNOWN,
    Stack,
)
from scripteddaemon import ScriptedDaemon, error, hidden, judged, step

VERDICTS = {
    "success": PAM_SUCCESS,
    "auth_err": PAM_AUTH_ERR,
    "maxtries": PAM_MAXTRIES,
    "acct_expired": PAM_ACCT_EXPIRED,
    "new_authtok_reqd": PAM_NEW_AUTHTOK_REQD,
    "perm_denied": PAM_PERM_DENIED,
    "user_unknown": PAM_USER_UNKNOWN,
    "authinfo_unavail": PAM_AUTHINFO_UNAVAIL,
    "ignore": PAM_CRED_INSUFFICIENT,  # what tells_ignore makes of PAM_IGNORE
    "cred_expired": PAM_AUTHINFO_UNAVAIL,  # no verdict of the interface
    "": PAM_AUTHINFO_UNAVAIL,
}


def tells_ignore(stack: Stack) -> Stack:
    """Make PAM_IGNORE visible, which libpam never returns: it jumps to a module that says PAM_CRED_INSUFFICIENT."""
    auth, account = stack.text.strip().splitlines()[0], stack.text.strip().splitlines()[-1]
    lines: list[str] = []
    for kind, line in (("auth", auth), ("account", account)):
        own = line.split(maxsplit=2)[2]
        reply = {"auth": "auth=cred_insufficient", "account": "acct=cred_insufficient"}[kind]
        lines += [
            f"{kind} [success=done ignore=1 default=die] {own}",
            f"{kind} requisite pam_deny.so",
            f"{kind} required pam_debug.so {reply}",
        ]
    return Stack(stack.folder, "\n".join(lines), preload=stack.preload, environment=stack.environment)


@pytest.mark.parametrize("verdict", VERDICTS)
def test_verdict_after_a_code(make_stack, socket_path, verdict):
    """A verdict becomes the PAM code of the same name; one without a name here refuses."""
    with ScriptedDaemon(socket_path, step(hidden("Code: ")), step(verdict=verdict)) as daemon:
        outcome = tells_ignore(make_stack()).login("alice", ["123456"])
    assert outcome.code == VERDICTS[verdict]
    assert daemon.methods == ["Begin", "Continue"]
    assert daemon.responses == [["123456"]]


@pytest.mark.parametrize("verdict", VERDICTS)
def test_verdict_without_a_prompt(make_stack, socket_path, verdict):
    """The daemon may judge without asking, and the person is then asked nothing."""
    with ScriptedDaemon(socket_path, step(verdict=verdict)) as daemon:
        outcome = tells_ignore(make_stack()).login("alice")
    assert outcome.code == VERDICTS[verdict]
    assert outcome.prompts == []
    assert daemon.methods == ["Begin"]


@pytest.mark.parametrize("verdict", VERDICTS)
def test_account_verdict(make_stack, socket_path, verdict):
    """The account phase asks the daemon too, so a login with a public key meets locks and enforcement."""
    with ScriptedDaemon(socket_path, judged(verdict)) as daemon:
        outcome = tells_ignore(make_stack("stack=ssh", "nullok")).login("alice", phases=["acct_mgmt"])
    assert outcome.code == VERDICTS[verdict]
    assert daemon.calls == [
        {
            "method": "org.otpbridge.Verify.Account",
            "parameters": {
                "user": "alice",
                "stack": "ssh",
                "nullok": True,
                "context": {"service": "otpbridge-test"},
            },
        }
    ]


@pytest.mark.parametrize("phase", ["authenticate", "acct_mgmt"])
@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("org.varlink.service.PermissionDenied", PAM_PERM_DENIED),
        ("org.varlink.service.InvalidParameter", PAM_AUTHINFO_UNAVAIL),
        ("org.varlink.service.MethodNotFound", PAM_AUTHINFO_UNAVAIL),
        ("org.otpbridge.Verify.UnknownStack", PAM_AUTHINFO_UNAVAIL),
        ("org.otpbridge.Verify.Busy", PAM_AUTHINFO_UNAVAIL),
        ("org.otpbridge.Verify.NoSuchSession", PAM_AUTHINFO_UNAVAIL),
        ("com.example.Unheard", PAM_AUTHINFO_UNAVAIL),
        ("success", PAM_AUTHINFO_UNAVAIL),
    ],
)
def test_error_replies_refuse_and_say_why_in_the_log(make_stack, socket_path, phase, name, code):
    """A call that could not be judged refuses, and the log says what to do, not what the daemon wrote."""
    with ScriptedDaemon(socket_path, error(name, verdict="success", reason="text-of-the-daemon")):
        outcome = make_stack().login("alice", phases=[phase])
    assert outcome.code == code
    assert "pam_otpbridge" in outcome.log
    assert "text-of-the-daemon" not in outcome.log


def test_error_after_a_code_refuses(make_stack, socket_path):
    """An error in the middle of a conversation refuses."""
    with ScriptedDaemon(socket_path, step(hidden("Code: ")), error("org.otpbridge.Verify.NoSuchSession")) as daemon:
        outcome = make_stack().login("alice", ["123456"])
    assert outcome.code == PAM_AUTHINFO_UNAVAIL
    assert daemon.methods == ["Begin", "Continue"]


def test_setcred_succeeds_after_a_login(make_stack, socket_path):
    """A whole login passes all phases: setting credentials never undoes an authentication."""
    with ScriptedDaemon(socket_path, step(verdict="success"), judged("success")):
        outcome = make_stack().login("alice", phases=["authenticate", "acct_mgmt", "setcred"])
    assert outcome.codes == {"start": 0, "authenticate": 0, "acct_mgmt": 0, "setcred": 0}


def test_too_many_attempts_are_told_with_the_time_to_wait(make_stack, socket_path):
    """Who is throttled is told so and for how long, before they try again in vain."""
    with ScriptedDaemon(socket_path, step(hidden("Code: ")), step(verdict="maxtries", retry_after=30)):
        outcome = make_stack().login("alice", ["123456"])
    assert outcome.code == PAM_MAXTRIES
    assert [(m.style.name, m.text) for m in outcome.messages[1:]] == [
        ("ERROR", "Too many attempts; try again in 30 s.")
    ]


def test_a_plain_refusal_says_nothing(make_stack, socket_path):
    """A wrong code is refused without a word about why, even if the daemon sent a time to wait."""
    with ScriptedDaemon(socket_path, step(hidden("Code: ")), step(verdict="auth_err", retry_after=30)):
        outcome = make_stack().login("alice", ["123456"])
    assert outcome.code == PAM_AUTH_ERR
    assert [message.text for message in outcome.messages] == ["Code: "]
    assert "alice" not in outcome.log


@pytest.mark.parametrize(
    "user", ["x" * 257, b"al\xffice", b"\xed\xa0\x80", ""], ids=["long", "latin", "surrogate", "empty"]
)
def test_a_user_name_that_could_become_another_is_refused_unseen(make_stack, socket_path, user):
    """A name is never cut or mended, for it could then be the name of another user."""
    name = user.decode("utf-8", "surrogateescape") if isinstance(user, bytes) else user
    with ScriptedDaemon(socket_path, step(verdict="success"), judged("success")) as daemon:
        outcome = make_stack().login(name, phases=["authenticate", "acct_mgmt"], stop_at_failure=False)
    assert outcome.codes == {"start": 0, "authenticate": PAM_USER_UNKNOWN, "acct_mgmt": PAM_USER_UNKNOWN}
    assert daemon.calls == []


def test_a_user_name_is_sent_as_it_is(make_stack, socket_path):
    """The longest name, with any characters, reaches the daemon whole."""
    name = ('é"\\\x01/ ' * 40)[:250]
    while len(name.encode()) > 256:
        name = name[:-1]
    with ScriptedDaemon(socket_path, step(verdict="success")) as daemon:
        assert make_stack().login(name).code == PAM_SUCCESS
    assert daemon.calls[0]["parameters"]["user"] == name


def test_without_a_user_name_pam_asks_for_it(make_stack, socket_path):
    """As the first module of login(1) it lets libpam ask for the user, and refuses when none is given."""
    with ScriptedDaemon(socket_path, step(verdict="success")) as daemon:
        assert make_stack().login(None, ["alice"]).code == PAM_SUCCESS
        assert make_stack().login(None, []).code != PAM_SUCCESS
    assert [call["parameters"]["user"] for call in daemon.calls] == ["alice"]
