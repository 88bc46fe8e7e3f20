"""What a portal's helpdesk may do to the users of its clients, and that it ends there."""

from __future__ import annotations

import act_as
import pytest
from daemon_rig import Daemon, Key, need_root, plain_user, private_folder, provision, put

from otpbridge.model import Enforcement, Kind
from otpbridge.wire import messages

pytestmark = pytest.mark.system

VERIFY = "org.otpbridge.Verify"
ENROLL = "org.otpbridge.Enroll"

CONFIG = """
[throttle]
limit = 3
[[callers]]
user = "{portal}"
clients = ["acme", "initech"]
may = [{rights}]
[[callers]]
user = "{rival}"
clients = ["globex"]
may = ["verify", "enrol", "manage"]
[stacks.portal]
rules = ["requisite password", "sufficient totp", "required recovery"]
"""
ALL = '"verify", "enrol", "manage"'
NAMES = [f"user-{number:03}" for number in range(120)]


@pytest.fixture
def portal():
    """Who the portal of acme and initech runs as."""
    need_root()
    return plain_user(0)


@pytest.fixture
def rival():
    """Who the portal of globex runs as."""
    return plain_user(1)


@pytest.fixture
def stranger():
    """A user of this machine who is no portal."""
    return plain_user(2)


@pytest.fixture
def daemon(portal, rival):
    with private_folder() as folder:
        config = CONFIG.format(portal=portal.pw_name, rival=rival.pw_name, rights=ALL)
        with Daemon(folder, config=config) as rig:
            yield rig


def about(method, user="carol", client="acme", **more):
    return f"{ENROLL}.{method}", {"user": user, "client": client, **more}


def ask(daemon, caller, *asked, more=False):
    return act_as.calls(daemon.verify_socket, caller, asked, more=more)


def users(daemon, caller, client="acme", **more):
    """The names that a caller is listed, and in how many replies."""
    replies = ask(daemon, caller, (f"{ENROLL}.Users", {"client": client, **more}), more=True)
    assert [reply.error for reply in replies] == [None] * len(replies)
    return [user["name"] for reply in replies for user in reply.parameters["users"]], len(replies)


def shown(daemon, user="carol", client="acme"):
    with daemon.admin() as admin:
        return admin.call(messages.ShowUser(user=user, client=client))


def test_a_portal_lists_its_users_page_by_page(daemon, portal):
    """All of one client in order of name, none twice and none left out, or as many as are asked for after a name."""
    put(daemon, {name: Key() for name in reversed(NAMES)}, "acme")
    names, replies = users(daemon, portal)
    assert names == NAMES
    assert replies > 1
    pages = []
    after = None
    while page := users(daemon, portal, count=50, **({} if after is None else {"after": after}))[0]:
        pages.append(page)
        after = page[-1]
    assert [len(page) for page in pages] == [50, 50, 20]
    assert [name for page in pages for name in page] == NAMES
    assert users(daemon, portal, count=1) == ([NAMES[0]], 1)
    assert users(daemon, portal, client="initech") == ([], 1)


def test_a_user_is_shown_as_they_are(daemon, portal):
    """What policy says and what was set, locks, authenticators and the wait after wrong codes; nothing secret."""
    key = provision(daemon, ["carol"], client="acme")["carol"]
    for code in key.wrong(3):
        said = ask(daemon, portal, (f"{VERIFY}.Check", {"user": "carol", "client": "acme", "responses": [code]}))
        assert said[0].parameters["verdict"] == "auth_err"
    with daemon.admin() as admin:
        admin.call(messages.SetEnforcement(user="carol", client="acme", enforcement=Enforcement.REQUIRED))
        admin.call(messages.LockUser(user="carol", client="acme"))
        admin.call(messages.UnlockUser(user="carol", client="acme"))
        admin.call(messages.AddUser(user="dave", client="acme"))
        admin.call(messages.LockUser(user="dave", client="acme"))
    carol, dave = ask(daemon, portal, about("ShowUser"), about("ShowUser", "dave"))
    created = shown(daemon).user.created_at
    assert carol.parameters["user"] == {
        "name": "carol",
        "client": "acme",
        "enforcement": "required",
        "own": "required",
        "locked": False,
        "createdAt": created,
        "activeTokens": 1,
    }
    (said,) = dave.parameters.values()
    assert (said["enforcement"], said["locked"], said["activeTokens"], "own" in said) == ("optional", True, 0, False)


def test_the_wait_after_wrong_codes_is_shown(daemon, portal):
    """A helpdesk sees that a caller has only to wait."""
    key = provision(daemon, ["carol"], client="acme")["carol"]
    wrong = [(f"{VERIFY}.Check", {"user": "carol", "client": "acme", "responses": [code]}) for code in key.wrong(3)]
    *_, said = ask(daemon, portal, *wrong, about("ShowUser"))
    assert said.parameters["user"]["retryAfter"] == 1


def test_a_portal_adds_and_removes_users(daemon, portal):
    """Added once, gone with all tokens, and both are in the audit log with who did it and what was said of it."""
    added, again = ask(daemon, portal, about("AddUser"), about("AddUser"))
    assert (added.parameters["user"]["name"], again.error) == ("carol", "UserExists")
    key = Key()
    put(daemon, {"carol": key}, "acme")
    removed, gone = ask(daemon, portal, about("RemoveUser", reason="asked by bob"), about("RemoveUser"))
    assert (removed.error, gone.error) == (None, "NoSuchUser")
    with daemon.client() as otp:
        assert not otp.verify("carol", key.code(), client="acme")
    told = {entry.event: entry for entry in daemon.audit() if entry.event in {"user added", "user removed"}}
    assert told.keys() == {"user added", "user removed"}
    assert {(entry.client, entry.user, entry.uid) for entry in told.values()} == {("acme", "carol", portal.pw_uid)}
    assert told["user removed"].reason == "asked by bob"


def test_names_that_cannot_be_shown_are_no_names(daemon, portal):
    """No line feed or colour gets into a list of users."""
    for name in ("a\nb", "a\x1b[31mb", " a", "a\u202eb"):
        assert ask(daemon, portal, about("AddUser", name))[0].error == "BadParameters"
    assert ask(daemon, portal, about("AddUser", ""))[0].error == "InvalidParameter"
    assert users(daemon, portal) == ([], 1)


def test_removing_does_not_get_around_a_lock(daemon, portal):
    """Whom an administrator has locked cannot be removed and made anew; a reset leaves the lock too."""
    provision(daemon, ["carol"], client="acme")
    with daemon.admin() as admin:
        admin.call(messages.LockUser(user="carol", client="acme"))
        asked = [about("RemoveUser"), about("Reset"), about("SetPassword", password="long enough of a word")]
        removed, reset, password = ask(daemon, portal, *asked)
        assert (removed.error, removed.parameters) == ("Locked", {"user": "carol", "client": "acme"})
        assert (reset.error, password.error) == (None, None)
        assert shown(daemon).user.locked
        assert not admin.check("carol", ["long enough of a word"], client="acme", stack="portal")
        admin.call(messages.RemoveUser(user="carol", client="acme"))


def test_a_reset_is_that_of_the_admin(daemon, portal):
    """All tokens but the password are gone, the back-off is forgotten, the person is told, the audit log says who."""
    key = provision(daemon, ["carol"], client="acme")["carol"]
    asked = [
        about("SetPassword", password="correct horse"),
        about("SetEnforcement", enforcement="required"),
        about("NewRecoveryCodes"),
        about("Reset", reason="phone lost, says bob"),
    ]
    *_, codes, reset = ask(daemon, portal, *asked)
    assert (reset.error, reset.parameters) == (None, {"revoked": 2})
    after = shown(daemon)
    assert [token.kind for token in after.tokens] == [Kind.PASSWORD]
    assert (after.user.enforcement, after.user.misses) == (Enforcement.OPTIONAL, 0)
    with daemon.client() as otp:
        let_in = otp.check("carol", ["correct horse"], client="acme", stack="portal")
        assert let_in.ok
        assert any("reset by an administrator" in notice.text for notice in let_in.notices)
        otp.call(messages.ChooseEnforcement(user="carol", client="acme", enforcement=Enforcement.OPTIONAL))
        for code in (key.code(), codes.parameters["codes"][0]):
            assert not otp.verify("carol", code, client="acme").ok
    (row,) = [entry for entry in daemon.audit() if entry.event == "user reset"]
    assert (row.client, row.user, row.uid, row.reason) == ("acme", "carol", portal.pw_uid, "phone lost, says bob")


def test_the_audit_log_keeps_the_reason_of_a_portal(daemon, portal):
    """Of each change that a helpdesk makes: it knows who asked for it, the daemon only its uid."""
    reason = "portal, by bob: called back"
    asked = [
        about("AddUser", reason=reason),
        about("Start", "dave", kind="totp", reason=reason),
        about("SetEnforcement", enforcement="optional", reason=reason),
    ]
    _, started, _ = ask(daemon, portal, *asked)
    token = started.parameters["token"]
    ask(daemon, portal, (f"{ENROLL}.Remove", {"token": token, "reason": reason}))
    rows = [(row.event, row.user) for row in daemon.audit() if (row.reason, row.uid) == (reason, portal.pw_uid)]
    assert rows == [
        ("user added", "carol"),
        ("user added", "dave"),
        ("token started", "dave"),
        ("enforcement set", "carol"),
        ("token revoked", "dave"),
    ]


def test_what_users_say_of_their_own_changes_is_not_kept(daemon, stranger):
    """Nobody makes the audit log say that somebody else asked for what they did themselves."""
    name = stranger.pw_name
    asked = [
        about("Start", name, None, kind="totp", reason="portal, by root"),
        about("SetEnforcement", name, None, enforcement="optional", reason="portal, by root"),
    ]
    said = act_as.calls(daemon.verify_socket, stranger, asked)
    assert [each.error for each in said] == [None, None]
    rows = [row for row in daemon.audit() if row.user == name]
    assert {row.event for row in rows} == {"user added", "token started", "enforcement set"}
    assert {(row.uid, row.reason) for row in rows} == {(stranger.pw_uid, None)}


def test_a_reset_can_leave_the_duty(daemon, portal):
    """With `keepEnforcement` nobody gets in without a second factor, but with a registration code, once."""
    provision(daemon, ["carol"], client="acme")
    asked = [
        about("SetPassword", password="correct horse"),
        about("SetEnforcement", enforcement="required"),
        about("Reset", keepEnforcement=True),
        about("Invite", seconds=600),
        about("Invite", seconds=600, reason="the first was lost"),
    ]
    *_, first, second = ask(daemon, portal, *asked)
    with daemon.client() as otp:
        for code, right in ((first, False), (second, True), (second, False)):
            said = otp.check("carol", ["correct horse", code.parameters["code"]], client="acme", stack="portal")
            assert said.ok is right
    rows = [entry for entry in daemon.audit() if entry.event == "registration code issued"]
    assert [(row.uid, row.reason) for row in rows] == [(portal.pw_uid, None), (portal.pw_uid, "the first was lost")]
    issued = [first.parameters["code"], second.parameters["code"]]
    assert not any(code in repr(vars_of(row)) for row in rows for code in issued)


def vars_of(row):
    return {name: getattr(row, name) for name in row.__struct_fields__}


OUT_OF_RANGE = [
    (about("Invite", seconds=59), "seconds"),
    (about("Invite", seconds=30 * 86_400 + 1), "seconds"),
    (about("Invite", reason="x" * 501), "reason"),
    (about("Reset", reason="x" * 501), "reason"),
    (about("RemoveUser", reason="x" * 501), "reason"),
    (about("AddUser", "eve", reason="x" * 501), "reason"),
    (about("Start", kind="totp", reason="x" * 501), "reason"),
    (about("SetEnforcement", enforcement="optional", reason="x" * 501), "reason"),
    (about("Reset", client="No Client"), "client"),
    (about("ShowUser", "x" * 257), "user"),
    ((f"{ENROLL}.Users", {"client": "acme", "count": 0}), "count"),
    (about("Activity", count=0), "count"),
    (about("Activity", count=101), "count"),
]


def test_what_is_out_of_range_is_refused(daemon, portal):
    """Nothing is done with a parameter that cannot be meant."""
    provision(daemon, ["carol"], client="acme")
    said = ask(daemon, portal, *[asked for asked, _ in OUT_OF_RANGE], more=True)
    for each, (asked, parameter) in zip(said, OUT_OF_RANGE, strict=True):
        assert (each.error, each.parameters) == ("InvalidParameter", {"parameter": parameter}), asked
    assert shown(daemon).user.active_tokens == 1


EVERY = [
    (f"{ENROLL}.Users", {"client": "acme"}),
    about("ShowUser"),
    about("AddUser", "eve"),
    about("RemoveUser"),
    about("Reset"),
    about("Invite"),
]


def test_whoever_is_not_there_is_said_not_to_be(daemon, portal):
    """A portal hears so of its own client; of another's it hears the same whether the user is there or not."""
    provision(daemon, ["carol"], client="globex")
    for method in ("ShowUser", "RemoveUser", "Reset", "Invite", "Activity"):
        (said,) = ask(daemon, portal, about(method), more=True)
        assert (said.error, said.parameters) == ("NoSuchUser", {"user": "carol", "client": "acme"})
        theirs = [about(method, name, "globex") for name in ("carol", "nobody")]
        here, absent = ask(daemon, portal, *theirs, more=True)
        assert here == absent
        assert here.error == "PermissionDenied"


@pytest.mark.parametrize("rights", ["", '"verify"', '"verify", "enrol", "notices"'])
def test_the_right_is_given_by_itself(daemon, portal, rival, rights):
    """A portal that may only verify, or enrol, neither lists users nor does anything else of this."""
    provision(daemon, ["carol"], client="acme")
    daemon.configure(CONFIG.format(portal=portal.pw_name, rival=rival.pw_name, rights=rights))
    daemon.reload()
    said = ask(daemon, portal, *EVERY, more=True)
    assert [each.error for each in said] == ["PermissionDenied"] * len(EVERY)
    assert (shown(daemon).user.active_tokens, shown(daemon).user.locked) == (1, False)


def test_the_right_to_manage_gives_no_other(daemon, portal, rival):
    """Who may manage and no more cannot judge codes, give tokens or passwords, nor see what people did."""
    provision(daemon, ["carol"], client="acme")
    token = shown(daemon).tokens[0].id
    daemon.configure(CONFIG.format(portal=portal.pw_name, rival=rival.pw_name, rights='"manage"'))
    daemon.reload()
    assert users(daemon, portal) == (["carol"], 1)
    asked = [
        about("Start", kind="totp"),
        about("SetPassword", password="correct horse"),
        about("Tokens"),
        about("NewRecoveryCodes"),
        about("Activity"),
        about("SetEnforcement", enforcement="optional"),
    ]
    assert {each.error for each in ask(daemon, portal, *asked, more=True)} == {"PermissionDenied"}
    remove, check = ask(
        daemon,
        portal,
        (f"{ENROLL}.Remove", {"token": token}),
        (f"{VERIFY}.Check", {"user": "carol", "client": "acme", "responses": ["123456"]}),
    )
    assert (remove.error, check.parameters["verdict"]) == ("NoSuchToken", "perm_denied")


def test_nobody_manages_themselves(daemon, stranger):
    """A user of this machine may enrol themselves, but not list, reset, invite or remove: not even themselves."""
    me = stranger.pw_name
    key = provision(daemon, [me])[me]
    asked = [about(method.rpartition(".")[2], me, "local") for method, parameters in EVERY if "user" in parameters]
    asked.append((f"{ENROLL}.Users", {"client": "local"}))
    assert {each.error for each in ask(daemon, stranger, *asked, more=True)} == {"PermissionDenied"}
    # Nor after a proof, on the same connection.
    proof = (f"{VERIFY}.Check", {"user": me, "responses": [key.code()]})
    proven, *said = ask(daemon, stranger, proof, *asked, more=True)
    assert proven.parameters["verdict"] == "success"
    assert {each.error for each in said} == {"PermissionDenied"}
    assert {each.error for each in ask(daemon, stranger, *EVERY, more=True)} == {"PermissionDenied"}


def test_two_portals_with_the_same_user_name_never_meet(daemon, portal, rival):
    """Whatever one portal does to its carol, the other's carol and the account of that name are as they were."""
    keys = {client: provision(daemon, ["carol"], client=client)["carol"] for client in ("acme", "globex", "local")}
    theirs = {token.id for client in ("globex", "local") for token in shown(daemon, client=client).tokens}
    before = [shown(daemon, client=client) for client in ("globex", "local")]
    for method, more in (("Reset", {}), ("Invite", {}), ("ShowUser", {}), ("Activity", {}), ("RemoveUser", {})):
        assert ask(daemon, portal, about(method, **more), more=True)[0].error is None
        for client in ("globex", "local", "unheard-of"):
            assert ask(daemon, portal, about(method, client=client), more=True)[0].error == "PermissionDenied"
    assert users(daemon, portal) == ([], 1)
    assert users(daemon, rival, "globex") == (["carol"], 1)
    # Ids of tokens that were guessed, or seen somewhere, are no way in either.
    for token in (*theirs, "0000000000000000"):
        for method, more in (("Confirm", {"code": "123456"}), ("Discard", {}), ("Remove", {})):
            (said,) = ask(daemon, portal, (f"{ENROLL}.{method}", {"token": token, **more}))
            assert (said.error, said.parameters) == ("NoSuchToken", {"token": token})
    assert [shown(daemon, client=client) for client in ("globex", "local")] == before
    for client, right in (("acme", False), ("globex", True), ("local", True)):
        with daemon.client() as otp:
            assert otp.verify("carol", keys[client].code(), client=client).ok is right


def test_a_right_that_is_taken_away_is_gone(daemon, portal, rival):
    """After a reload without `manage` the same portal is refused."""
    assert users(daemon, portal) == ([], 1)
    daemon.configure(CONFIG.format(portal=portal.pw_name, rival=rival.pw_name, rights='"verify", "enrol"'))
    daemon.reload()
    assert {each.error for each in ask(daemon, portal, *EVERY, more=True)} == {"PermissionDenied"}


def test_root_manages_all_over_the_verify_socket(daemon):
    """Whoever may administer need not be named as a caller."""
    with daemon.client() as otp:
        assert otp.add_user("carol", client="acme").name == "carol"
        assert [user.name for user in otp.users(client="acme")] == ["carol"]
        assert otp.reset("carol", client="acme") == 0
        assert otp.invite("carol", client="acme", seconds=60).code
        otp.remove_user("carol", client="acme")
        assert otp.users(client="acme") == ()
