"""What people see of what happened to their account, and what this list never tells."""

from __future__ import annotations

import act_as
import pytest
from daemon_rig import Daemon, Key, need_root, plain_user, private_folder, programmed, provision, put

from otpbridge.client import Deed, Enforcement, Kind
from otpbridge.wire import messages

pytestmark = pytest.mark.system

VERIFY = "org.otpbridge.Verify"
ENROLL = "org.otpbridge.Enroll"

CONFIG = """
[throttle]
limit = 100
[[callers]]
user = "{portal}"
clients = ["acme"]
may = [{rights}]
[stacks.portal]
rules = ["requisite password", "sufficient totp", "required recovery"]
"""


@pytest.fixture
def portal():
    """Who the portal of acme runs as."""
    need_root()
    return plain_user(0)


@pytest.fixture
def me():
    """An ordinary user of this machine."""
    return plain_user(1)


@pytest.fixture
def daemon(portal):
    config = CONFIG.format(portal=portal.pw_name, rights='"verify", "enrol"')
    with private_folder() as folder, Daemon(folder, config=config) as rig:
        yield rig


def ask(daemon, caller, *asked, more=False):
    return act_as.calls(daemon.verify_socket, caller, asked, more=more)


def check(user, *responses, client="acme", **more):
    return f"{VERIFY}.Check", {"user": user, "client": client, "responses": responses, **more}


def seen(daemon, caller, user="carol", client="acme", **more):
    """The events that a caller is shown, newest first, without their times."""
    asked = {"user": user, "client": client, **more}
    replies = ask(daemon, caller, (f"{ENROLL}.Activity", asked), more=True)
    assert [reply.error for reply in replies] == [None] * len(replies)
    events = [event for reply in replies for event in reply.parameters["events"]]
    assert [event["at"] for event in events] == sorted((event.pop("at") for event in list(events)), reverse=True)
    return events


def test_a_life_of_an_account(daemon, portal):
    """Each login with how it ended, from where and with which token; each change with what it was about."""
    with daemon.client() as otp:
        otp.set_password("carol", "correct horse", client="acme")
        started = otp.enrol("carol", client="acme", label="phone", period=900)
        key = Key(seed=bytes.fromhex(started.seed_hex))
        assert otp.confirm(started.token, key.code()).confirmed
        otp.set_enforcement("carol", Enforcement.REQUIRED, client="acme")
        paper = otp.new_recovery_codes("carol", client="acme").codes
    come_from = {"context": {"service": "portal", "rhost": "203.0.113.7"}, "stack": "portal"}
    said = ask(
        daemon,
        portal,
        check("carol", "correct horse", key.code(1), **come_from),
        check("carol", "correct horse", key.wrong()[0], **come_from),
        check("carol", "correct horse", paper[0]),
    )
    assert [each.parameters["verdict"] for each in said] == ["success", "auth_err", "auth_err"]
    (said,) = ask(daemon, portal, check("carol", "correct horse", paper[0], stack="portal"))
    assert said.parameters["verdict"] == "success"
    with daemon.admin() as admin:
        admin.call(messages.LockUser(user="carol", client="acme", reason="for a reason"))
        admin.call(messages.UnlockUser(user="carol", client="acme"))
        admin.call(messages.ExemptUser(user="carol", client="acme", seconds=60))
        admin.call(messages.SetEnforcement(user="carol", client="acme"))
        admin.call(messages.ResetUser(user="carol", client="acme"))
    where = {"service": "portal", "rhost": "203.0.113.7"}
    assert seen(daemon, portal) == [
        {"event": "user_reset"},
        {"event": "enforcement_set"},
        {"event": "user_exempted"},
        {"event": "user_unlocked"},
        {"event": "user_locked"},
        {"event": "login", "letIn": True, "kind": "recovery"},
        {"event": "login", "letIn": False},
        {"event": "login", "letIn": False, **where},
        {"event": "login", "letIn": True, "kind": "totp", "label": "phone", **where},
        {"event": "recovery_codes_made", "kind": "recovery"},
        {"event": "enforcement_set", "enforcement": "required"},
        {"event": "token_confirmed", "kind": "totp", "label": "phone"},
        {"event": "password_set", "kind": "password"},
    ]


def test_refusals_look_alike(daemon, portal):
    """Wrong, used, locked, back-off, no second answer: nothing tells whoever looks which of them it was."""
    keys = provision(daemon, ["carol"], client="acme")
    key = keys["carol"]
    with daemon.client() as otp:
        otp.set_password("carol", "correct horse", client="acme")
    right, wrong = key.code(), key.wrong(200)
    assert ask(daemon, portal, check("carol", right))[0].parameters["verdict"] == "success"
    before = len(seen(daemon, portal, count=100))
    tried = [
        check("carol", wrong[0]),
        check("carol", right),
        check("carol", "correct horse", wrong[1], stack="portal"),
        check("carol", "correct horse", right, stack="portal"),
        check("carol", "a wrong word", key.code(1), stack="portal"),
    ]
    said = ask(daemon, portal, *tried)
    assert {each.parameters["verdict"] for each in said} == {"auth_err"}
    with daemon.admin() as admin:
        admin.call(messages.LockUser(user="carol", client="acme"))
        assert ask(daemon, portal, check("carol", key.code(1)))[0].parameters["verdict"] == "auth_err"
        admin.call(messages.UnlockUser(user="carol", client="acme"))
    daemon.configure(daemon.config_file.read_text().replace("limit = 100", "limit = 1"))
    daemon.reload()
    blocked = ask(daemon, portal, check("carol", wrong[2]), check("carol", key.code(1)))
    assert [each.parameters["verdict"] for each in blocked] == ["auth_err", "maxtries"]
    events = seen(daemon, portal, count=100)
    new = events[: len(events) - before]
    logins = [event for event in new if event["event"] == "login"]
    assert logins == [{"event": "login", "letIn": False}] * 8
    assert [event for event in new if event not in logins] == [{"event": "user_unlocked"}, {"event": "user_locked"}]


def test_asking_whether_a_code_is_needed_is_no_login(daemon, portal):
    """A portal that first asks without an answer does not fill the list with refusals; who is let in so is in it."""
    provision(daemon, ["carol"], client="acme")
    with daemon.client() as otp:
        otp.set_enforcement("carol", Enforcement.REQUIRED, client="acme")
    assert ask(daemon, portal, check("carol"))[0].parameters["verdict"] == "auth_err"
    begun = (f"{VERIFY}.Begin", {"user": "carol", "client": "acme"})
    ask(daemon, portal, begun)
    assert [event["event"] for event in seen(daemon, portal)] == ["enforcement_set"]
    with daemon.client() as otp:
        otp.set_enforcement("carol", Enforcement.OPTIONAL, client="acme")
    assert ask(daemon, portal, check("carol"))[0].parameters["verdict"] == "ignore"
    assert seen(daemon, portal)[0] == {"event": "login", "letIn": True}


def test_a_login_that_is_left_half_way_is_a_refusal(daemon, portal):
    """Trying a password and leaving at the question after it does not go unseen."""
    provision(daemon, ["carol"], client="acme")
    with daemon.client() as otp:
        otp.set_password("carol", "correct horse", client="acme")
    asked = [
        (f"{VERIFY}.Begin", {"user": "carol", "client": "acme", "stack": "portal"}),
        (f"{VERIFY}.Continue", {"session": "1", "responses": ["correct horse"]}),
        (f"{VERIFY}.Cancel", {"session": "1"}),
        check("carol", "123456"),
    ]
    _, asks, cancelled, refused = ask(daemon, portal, *asked)
    assert asks.parameters["step"]["prompts"]
    assert (cancelled.error, refused.parameters["verdict"]) == (None, "auth_err")
    assert [event for event in seen(daemon, portal) if event["event"] == "login"] == [
        {"event": "login", "letIn": False},
        {"event": "login", "letIn": False},
    ]


def test_reasons_and_who_did_it_are_for_admins(daemon, portal):
    """No word of an administrator, no uid and no id of a token is in the list."""
    with daemon.admin() as admin:
        admin.call(messages.AddUser(user="carol", client="acme"))
        admin.call(messages.LockUser(user="carol", client="acme", reason="suspected of theft"))
        admin.reset("carol", client="acme", reason="as the police asked")
        started = admin.enrol("carol", Kind.YUBIOTP, client="acme")
        assert admin.confirm(started.token, programmed(started).code()).confirmed
    (reply,) = ask(daemon, portal, (f"{ENROLL}.Activity", {"user": "carol", "client": "acme"}), more=True)
    told = repr(reply.parameters)
    assert "user_locked" in told
    for hidden in ("theft", "police", "uid", "pid", "reason", started.token, started.seed_hex):
        assert hidden not in told


def test_only_ones_own_clients_are_told_of(daemon, portal):
    """The list of a user is of that client; of others a portal hears as little as of users who are not there."""
    for client in ("acme", "globex", None):
        provision(daemon, ["carol"], client=client)
    with daemon.client() as otp:
        for client in ("globex", "local"):
            otp.verify("carol", "000000", client=client)
            otp.new_recovery_codes("carol", client=client)
    assert seen(daemon, portal) == []
    for client in ("globex", "local"):
        theirs = [(f"{ENROLL}.Activity", {"user": user, "client": client}) for user in ("carol", "nobody")]
        assert {each.error for each in ask(daemon, portal, *theirs, more=True)} == {"PermissionDenied"}


def test_a_portal_without_the_right_sees_nothing(daemon, portal):
    """To judge codes is not to know what people did."""
    provision(daemon, ["carol"], client="acme")
    daemon.configure(CONFIG.format(portal=portal.pw_name, rights='"verify", "manage", "notices"'))
    daemon.reload()
    asked = (f"{ENROLL}.Activity", {"user": "carol", "client": "acme"})
    assert ask(daemon, portal, asked, more=True)[0].error == "PermissionDenied"


def test_people_see_their_own_and_no_other(daemon, me, portal):
    """A user of this machine sees what happened to their account, and is refused for each other name alike."""
    name, other = me.pw_name, portal.pw_name
    keys = provision(daemon, [name, other])
    with daemon.client() as otp:
        assert otp.verify(name, keys[name].code()).ok
        otp.verify(other, keys[other].code())
    (event,) = seen(daemon, me, name, "local")
    assert (event["event"], event["letIn"], event["kind"]) == ("login", True, "totp")
    refused = [
        (f"{ENROLL}.Activity", {"user": user, **client})
        for user in (other, "root", "nobody-of-that-name")
        for client in ({}, {"client": "acme"})
    ]
    refused.append((f"{ENROLL}.Activity", {"user": name, "client": "acme"}))
    assert {each.error for each in ask(daemon, me, *refused, more=True)} == {"PermissionDenied"}


def test_who_gets_a_name_anew_does_not_get_its_past(daemon, portal):
    """The list goes back to where the user was added: what another person of that name did is not told."""
    provision(daemon, ["carol"], client="acme")
    with daemon.client() as otp:
        otp.new_recovery_codes("carol", client="acme")
        otp.remove_user("carol", client="acme")
        otp.verify("carol", "000000", client="acme")
        assert ask(daemon, portal, (f"{ENROLL}.Activity", {"user": "carol", "client": "acme"}), more=True)[0].error
        otp.add_user("carol", client="acme")
        assert seen(daemon, portal) == []
        otp.verify("carol", "000000", client="acme")
    assert seen(daemon, portal) == [{"event": "login", "letIn": True}]


def test_the_newest_come_first_and_only_so_many(daemon, portal):
    """20 events, or as many as are asked for, in several replies; however many there are."""
    key = Key()
    put(daemon, {"carol": key}, "acme")
    with daemon.client() as otp:
        for code in key.wrong(150):
            otp.verify("carol", code, client="acme")
        assert otp.verify("carol", key.code(), client="acme").ok is False, "that is too many for any"
        otp.set_enforcement("carol", Enforcement.REQUIRED, client="acme")
        events = otp.activity("carol", client="acme", count=100)
        assert (len(events), events[0].event, events[1].event) == (100, Deed.ENFORCEMENT_SET, Deed.LOGIN)
        assert len(otp.activity("carol", client="acme")) == 20
        assert [event.event for event in otp.activity("carol", client="acme", count=1)] == [Deed.ENFORCEMENT_SET]
    assert len(seen(daemon, portal)) == 20


def test_long_names_do_not_break_the_list(daemon, portal):
    """Whatever a caller says of where it came from fits into the replies."""
    provision(daemon, ["carol"], client="acme")
    context = {"service": "\x01" * 300, "rhost": "\x02" * 300}
    ask(daemon, portal, *[check("carol", "000000", context=context) for _ in range(30)])
    events = seen(daemon, portal, count=100)
    assert len(events) == 30
    assert {event["service"] for event in events} == {"\x01" * 256}


def test_the_list_is_not_there_without_more(daemon, portal):
    """A reply that may be one of several is not given to who expects one."""
    provision(daemon, ["carol"], client="acme")
    for method in ("Activity", "Users"):
        asked = {"client": "acme"} | ({"user": "carol"} if method == "Activity" else {})
        assert ask(daemon, portal, (f"{ENROLL}.{method}", asked))[0].error == "ExpectedMore"
