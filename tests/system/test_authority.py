"""Who may ask what: the kernel says who calls, and nothing a caller says of itself counts."""

from __future__ import annotations

import grp
import pwd
import random
import statistics
import time

import act_as
import pytest
from daemon_rig import PERIOD, Daemon, Key, need_root, plain_user, private_folder, provision
from wire_rig import Wire

from otpbridge.model import Enforcement
from otpbridge.wire import messages

pytestmark = pytest.mark.system

VERIFY = "org.otpbridge.Verify"
ENROLL = "org.otpbridge.Enroll"
ADMIN = "org.otpbridge.Admin"
PATIENT = "[throttle]\nlimit = 100\n"
"""Wrong codes are part of what is tried here; back-off has its own tests."""


@pytest.fixture
def me():
    """An ordinary user of this machine."""
    need_root()
    return plain_user(0)


@pytest.fixture
def other():
    """Another one."""
    return plain_user(1)


@pytest.fixture
def daemon():
    need_root()
    with private_folder() as folder, Daemon(folder, config=PATIENT) as rig:
        yield rig


def ask(daemon, user, *asked):
    """Calls of `user` on one connection to the verify socket."""
    return act_as.calls(daemon.verify_socket, user, asked)


def check(user, code, **more):
    return f"{VERIFY}.Check", {"user": user, "responses": [code], **more}


def start(user, **more):
    return f"{ENROLL}.Start", {"user": user, "kind": "totp", "period": PERIOD, **more}


def enrol_oneself(daemon, user):
    """Enrol and confirm as an ordinary user; the token's id and key."""
    (started,) = ask(daemon, user, start(user.pw_name))
    key = Key(seed=bytes.fromhex(started.parameters["seedHex"]))
    token = started.parameters["token"]
    (confirmed,) = ask(daemon, user, (f"{ENROLL}.Confirm", {"token": token, "code": key.code()}))
    assert confirmed.parameters["confirmed"] is True
    return token, key


def test_a_user_enrols_and_verifies_themselves(daemon, me):
    """Without any right given, people have their own second factor, and only their own code proves it."""
    token, key = enrol_oneself(daemon, me)
    said = ask(daemon, me, check(me.pw_name, key.wrong()[0]), check(me.pw_name, key.code(1)))
    assert [each.parameters["verdict"] for each in said] == ["auth_err", "success"]
    (listed,) = ask(daemon, me, (f"{ENROLL}.Tokens", {"user": me.pw_name}))
    assert [each["id"] for each in listed.parameters["tokens"]] == [token]


def test_a_user_may_not_verify_others(daemon, me, other):
    """Another user's right code is refused like any name: whether that user is there cannot be told."""
    key = provision(daemon, [other.pw_name])[other.pw_name]
    acme = provision(daemon, [me.pw_name], client="acme")[me.pw_name]
    for user, code, more in (
        (other.pw_name, key.code(), {}),
        ("nobody-of-that-name", key.code(), {}),
        ("root", "123456", {}),
        (me.pw_name, acme.code(), {"client": "acme"}),
    ):
        asked = [
            check(user, code, **more),
            (f"{VERIFY}.Begin", {"user": user, **more}),
            (f"{VERIFY}.Account", {"user": user, **more}),
        ]
        checked, begun, account = ask(daemon, me, *asked)
        assert checked.parameters == {"verdict": "perm_denied", "notices": []}
        assert begun.parameters["step"] == {"notices": [], "prompts": [], "verdict": "perm_denied"}
        assert account.parameters == {"verdict": "perm_denied"}
    with daemon.client() as client:
        assert client.verify(other.pw_name, key.code()).ok, "the code was not spent"
    assert daemon.show(other.pw_name).misses == 0, "nor did anything count against its owner"


def test_a_user_may_not_change_what_belongs_to_others(daemon, me, other):
    """Tokens of others do not exist for a user, and users of others may not be touched."""
    token, key = enrol_oneself(daemon, other)
    (pending,) = ask(daemon, other, check(other.pw_name, key.code(1)), start(other.pw_name))[1:]
    theirs = pending.parameters["token"]
    for asked in (
        start(other.pw_name),
        start("nobody-of-that-name"),
        start(me.pw_name, client="acme"),
        (f"{ENROLL}.Tokens", {"user": other.pw_name}),
        (f"{ENROLL}.Tokens", {"user": "nobody-of-that-name"}),
        (f"{ENROLL}.SetEnforcement", {"user": other.pw_name, "enforcement": "optional"}),
    ):
        (said,) = ask(daemon, me, asked)
        assert said.error == "PermissionDenied", asked
    for name in (token, theirs, "0000000000000000"):
        for method, more in (("Confirm", {"code": key.code()}), ("Discard", {}), ("Remove", {})):
            (said,) = ask(daemon, me, (f"{ENROLL}.{method}", {"token": name, **more}))
            assert (said.error, said.parameters) == ("NoSuchToken", {"token": name})
    assert daemon.show(other.pw_name).active_tokens == 1


def test_the_admin_socket_is_closed_to_users(daemon, me):
    """Only root and the admin group can even connect to it."""
    with pytest.raises(act_as.CannotConnectError, match="EACCES"):
        act_as.calls(daemon.run_dir / "admin", me, [(f"{ADMIN}.Status", {})])


def test_the_admin_group_may_administer(me):
    """Members of the configured group open the admin socket and may do there what root may."""
    group = grp.getgrgid(me.pw_gid).gr_name
    with private_folder() as folder, Daemon(folder, config=f'admin_group = "{group}"\n') as daemon:
        asked = [(f"{ADMIN}.AddUser", {"user": "alice"}), (f"{ADMIN}.ShowUser", {"user": "alice"})]
        added, shown = act_as.calls(daemon.run_dir / "admin", me, asked)
        assert (added.error, shown.error) == (None, None)
        # On the other socket the same user is nobody special.
        assert ask(daemon, me, check("alice", "123456"))[0].parameters["verdict"] == "perm_denied"


def test_no_admin_call_goes_over_the_verify_socket(daemon, me):
    """Not even root administers over the socket that is open to all."""
    for caller in (me, pwd.getpwuid(0)):
        asked = [(f"{ADMIN}.Status", {}), (f"{ADMIN}.AddUser", {"user": "x"}), (f"{ADMIN}.Backup", {})]
        said = ask(daemon, caller, *asked)
        assert {each.error for each in said} <= {"InterfaceNotFound", "MethodNotFound", "MethodNotImplemented"}
        assert None not in {each.error for each in said}


def test_a_second_enrolment_needs_the_first_factor(daemon, me):
    """Whoever finds a session open cannot add a phone of their own, take the token away or the duty off."""
    token, key = enrol_oneself(daemon, me)
    name = me.pw_name
    changes = [
        start(name),
        (f"{ENROLL}.Remove", {"token": token}),
        (f"{ENROLL}.SetEnforcement", {"user": name, "enforcement": "optional"}),
    ]
    for change in changes:
        assert ask(daemon, me, change)[0].error == "ProofNeeded"
        # A wrong code is no proof, nor is one that was spent, on this connection or another.
        said = ask(daemon, me, check(name, key.wrong()[0]), change)
        assert said[1].error == "ProofNeeded"
        said = ask(daemon, me, check(name, key.code()), change)
        assert (said[0].parameters["verdict"], said[1].error) == ("auth_err", "ProofNeeded")
    assert ask(daemon, me, check(name, key.code(1)))[0].parameters["verdict"] == "success"
    assert ask(daemon, me, changes[0])[0].error == "ProofNeeded", "a proof is good on its own connection alone"


def test_a_proof_opens_ones_own_changes(daemon, me):
    """After a right code on the same connection a user may add a token and remove the old one."""
    token, key = enrol_oneself(daemon, me)
    proof = check(me.pw_name, key.code(1))
    said = ask(daemon, me, proof, start(me.pw_name, label="second"), (f"{ENROLL}.Remove", {"token": token}))
    assert [each.error for each in said] == [None, None, None]
    assert said[0].parameters["verdict"] == "success"
    assert daemon.show(me.pw_name).active_tokens == 0


def test_requiring_it_of_oneself_needs_no_proof_but_a_token(daemon, me):
    """More protection is had for the asking, once it cannot lock one out."""
    asked = (f"{ENROLL}.SetEnforcement", {"user": me.pw_name, "enforcement": "required"})
    assert ask(daemon, me, start(me.pw_name), asked)[1].error == "NotConfirmed"
    enrol_oneself(daemon, me)
    assert ask(daemon, me, asked)[0].error is None
    assert daemon.show(me.pw_name).enforcement == Enforcement.REQUIRED


def test_nullok_is_for_those_who_verify_others(daemon, me):
    """A user cannot talk themselves past the question; a PAM service that runs as root can say `nullok`."""
    asked = [
        check(me.pw_name, "123456", nullok=True),
        (f"{VERIFY}.Begin", {"user": me.pw_name, "nullok": True}),
        (f"{VERIFY}.Account", {"user": me.pw_name, "nullok": True}),
    ]
    checked, begun, account = ask(daemon, me, *asked)
    assert checked.parameters["verdict"] == "auth_err"
    assert "verdict" not in begun.parameters["step"]
    assert len(begun.parameters["step"]["prompts"]) == 1
    assert account.parameters["verdict"] == "perm_denied"
    with daemon.client() as client:
        assert client.verify(me.pw_name, "123456", nullok=True).verdict == "ignore"


def test_what_a_user_says_of_the_source_is_not_believed(daemon, me):
    """Nobody puts back-off on another's address by claiming to come from there."""
    enrol_oneself(daemon, me)
    wrong = check(me.pw_name, "000000", context={"rhost": "192.0.2.7", "service": "sshd"})
    ask(daemon, me, wrong)
    (row,) = [entry for entry in daemon.audit() if entry.event == "verify"]
    assert (row.uid, row.rhost, row.service) == (me.pw_uid, None, "sshd")


def test_a_conversation_belongs_to_its_connection(daemon, other):
    """Who learns the name of a login under way can neither answer nor end it, not even as root."""
    key = provision(daemon, ["carol"])["carol"]
    with Wire(daemon.verify_socket) as login, Wire(daemon.verify_socket) as beside:
        session = login.ask(f"{VERIFY}.Begin", {"user": "carol"})["parameters"]["session"]
        answer = {"session": session, "responses": [key.code()]}
        for method, parameters in (("Continue", answer), ("Cancel", {"session": session})):
            (said,) = ask(daemon, other, (f"{VERIFY}.{method}", parameters))
            assert said.error == "NoSuchSession"
            assert beside.ask(f"{VERIFY}.{method}", parameters)["error"] == f"{VERIFY}.NoSuchSession"
        assert login.ask(f"{VERIFY}.Continue", answer)["parameters"]["step"]["verdict"] == "success"


CALLERS = """
[throttle]
limit = 100
[[callers]]
user = "{portal}"
clients = ["acme", "initech"]
may = [{rights}]
"""


@pytest.fixture
def portal(daemon, me):
    """The user that a portal runs as, and how to give it rights."""

    def give(*rights):
        quoted = ", ".join(f'"{right}"' for right in rights)
        daemon.configure(CALLERS.format(portal=me.pw_name, rights=quoted))
        daemon.reload()
        return me

    return give


def test_a_caller_verifies_users_of_its_clients_and_no_others(daemon, portal, other):
    """A portal judges its own customers; those of another, and Linux accounts, it does not even see."""
    caller = portal("verify")
    keys = {client: provision(daemon, ["carol"], client=client)["carol"] for client in ("acme", "initech", "globex")}
    local = provision(daemon, ["carol"])["carol"]
    for client in ("acme", "initech"):
        assert ask(daemon, caller, check("carol", keys[client].code(), client=client))[0].parameters == {
            "verdict": "success",
            "notices": [],
            "token": ask_token(daemon, client),
        }
    for client, key in (("globex", keys["globex"]), ("local", local), ("unheard-of", local)):
        said = ask(daemon, caller, check("carol", key.code(), client=client))
        assert said[0].parameters == {"verdict": "perm_denied", "notices": []}
    said = ask(daemon, other, check("carol", keys["acme"].code(1), client="acme"))
    assert said[0].parameters == {"verdict": "perm_denied", "notices": []}
    # What it may not ask counts against nobody and spends nothing.
    with daemon.client() as client:
        assert client.verify("carol", keys["globex"].code(), client="globex").ok
        assert client.verify("carol", local.code()).ok


def ask_token(daemon, client):
    with daemon.admin() as admin:
        return admin.call(messages.ShowUser(user="carol", client=client)).tokens[0].id


def test_a_caller_that_may_verify_may_not_enrol(daemon, portal):
    """Rights are given one by one."""
    caller = portal("verify")
    provision(daemon, ["carol"], client="acme")
    for asked in (
        start("carol", client="acme"),
        (f"{ENROLL}.Tokens", {"user": "carol", "client": "acme"}),
        (f"{ENROLL}.SetEnforcement", {"user": "carol", "client": "acme", "enforcement": "optional"}),
    ):
        assert ask(daemon, caller, asked)[0].error == "PermissionDenied"
    remove = (f"{ENROLL}.Remove", {"token": ask_token(daemon, "acme")})
    assert ask(daemon, caller, remove)[0].error == "NoSuchToken"


def test_a_caller_that_may_enrol_does_so_for_its_clients_alone(daemon, portal):
    """A portal enrols its customers without their code, and nobody else; it cannot verify unless it may."""
    caller = portal("enrol")
    provision(daemon, ["carol"], client="acme")
    provision(daemon, ["carol"], client="globex")
    said = ask(daemon, caller, start("carol", client="acme"), start("dave", client="initech"))
    assert [each.error for each in said] == [None, None]
    assert ask(daemon, caller, start("carol", client="globex"))[0].error == "PermissionDenied"
    remove = (f"{ENROLL}.Remove", {"token": ask_token(daemon, "globex")})
    assert ask(daemon, caller, remove)[0].error == "NoSuchToken"
    remove = (f"{ENROLL}.Remove", {"token": ask_token(daemon, "acme")})
    assert ask(daemon, caller, remove)[0].error is None
    assert ask(daemon, caller, check("carol", "123456", client="acme"))[0].parameters["verdict"] == "perm_denied"


def test_a_caller_is_still_a_user(daemon, portal):
    """Who a portal runs as may have a token of their own, and must prove it like anyone."""
    caller = portal("verify", "enrol")
    _, key = enrol_oneself(daemon, caller)
    assert ask(daemon, caller, check(caller.pw_name, key.code(1)))[0].parameters["verdict"] == "success"
    assert ask(daemon, caller, start(caller.pw_name))[0].error == "ProofNeeded"


def test_rights_taken_away_are_gone_with_the_next_call(daemon, portal):
    """After a reload without the entry the same portal is a stranger."""
    caller = portal("verify")
    key = provision(daemon, ["carol"], client="acme")["carol"]
    asked = check("carol", key.code(), client="acme")
    daemon.configure("")
    daemon.reload()
    assert ask(daemon, caller, asked)[0].parameters["verdict"] == "perm_denied"


def test_why_a_code_is_refused_cannot_be_told_from_outside(daemon, portal):
    """No user, no token, a disabled one, a wrong or used code: one verdict, one prompt, one shape of reply."""
    caller = portal("verify")
    names = ["wrong", "used", "disabled", "removed"]
    keys = provision(daemon, names, client="acme")
    with daemon.admin() as admin:
        tokens = {name: admin.call(messages.ShowUser(user=name, client="acme")).tokens[0].id for name in keys}
        admin.call(messages.AddUser(user="no-token", client="acme"))
        for name in ("disabled", "removed", "no-token"):
            admin.call(
                messages.SetEnforcement(user=name, client="acme", enforcement=Enforcement.REQUIRED, force=True)
            )
        admin.call(messages.DisableToken(token=tokens["disabled"]))
        admin.call(messages.RemoveToken(token=tokens["removed"]))
    with daemon.client() as client:
        assert client.verify("used", keys["used"].code(), client="acme").ok
    codes = {
        "wrong": keys["wrong"].wrong()[0],
        "used": keys["used"].code(),
        "disabled": keys["disabled"].code(),
        "removed": keys["removed"].code(),
        "no-token": "123456",
        "unknown": "123456",
        "ünknown \u202e": "123456",
    }
    shapes, conversations = {}, {}
    for name, code in codes.items():
        (checked,) = ask(daemon, caller, check(name, code, client="acme"))
        shapes[name] = (checked.error, dict(checked.parameters))
        begin = (f"{VERIFY}.Begin", {"user": name, "client": "acme"})
        begun, done = ask(daemon, caller, begin, (f"{VERIFY}.Continue", {"session": "1", "responses": [code]}))
        conversations[name] = (begun, done)
    assert set(map(str, shapes.values())) == {str((None, {"verdict": "auth_err", "notices": []}))}
    assert len(set(map(str, conversations.values()))) == 1, conversations
    refusals = [entry for entry in daemon.audit() if entry.event == "verify" and entry.verdict == "auth_err"]
    assert len({entry.reason for entry in refusals}) > 3, "the log does tell"


def test_how_long_a_refusal_takes_does_not_tell_either(daemon):
    """A user who is not there takes as long to refuse as one with a token and a wrong code."""
    known = provision(daemon, [f"known{number}" for number in range(400)])
    seconds = {"known": [], "unknown": []}
    with daemon.client() as client:
        for number, key in enumerate(known.values()):
            code = key.wrong()[0]
            for kind, times in random.sample(list(seconds.items()), 2):
                begun = time.perf_counter()
                assert client.verify(f"{kind}{number}", code).verdict == "auth_err"
                times.append(time.perf_counter() - begun)
    there, absent = (statistics.median(times) for times in seconds.values())
    assert 0.89 < there / absent < 1.12, (there, absent)
