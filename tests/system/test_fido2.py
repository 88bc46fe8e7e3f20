"""Security keys at a real daemon, as a portal uses them: registered in two calls, asked in a conversation."""

from __future__ import annotations

import json

import pytest
import webkey
from daemon_rig import Daemon, private_folder, provision
from fido2 import cbor
from fido2.client import ClientError
from fido2.utils import websafe_decode, websafe_encode
from softkey import SoftKey

from otpbridge.client import RemoteError
from otpbridge.model import Enforcement, Kind, PromptStyle, State, Verdict
from otpbridge.wire import messages

pytestmark = pytest.mark.system

ORIGIN = "https://login.acme.example"
CONFIG = f"""
[clients.acme]
enforcement = "required"
[clients.acme.webauthn]
rp_id = "acme.example"
origins = ["{ORIGIN}"]
[clients.bare]
"""


@pytest.fixture(scope="module")
def daemon():
    with private_folder() as folder, Daemon(folder, config=CONFIG) as running:
        yield running


@pytest.fixture
def portal(daemon):
    with daemon.client() as client:
        yield client


def register(portal, user, key, *, client="acme", label=None, **how):
    """Give a user a security key; the token."""
    begun = portal.start_fido2(user, client=client, label=label)
    answer = webkey.create(key.plug(), begun.options, begun.origin, **how)
    done = portal.finish_fido2(begun.token, answer)
    assert done.confirmed, done.hint
    return begun.token


def asked(portal, user, **how):
    """A conversation that has come to the question for a key."""
    talk = portal.begin(user, client=how.pop("client", "acme"), webauthn=True, **how)
    assert [prompt.style for prompt in talk.prompts] == [PromptStyle.WEBAUTHN]
    return talk


def login(portal, user, key):
    """The verdict of a login with a key."""
    with asked(portal, user) as talk:
        return talk.answer(webkey.get(key.plug(), talk.prompts[0].text, ORIGIN)).verdict


def why(daemon, user):
    """What the audit log says of the last verification of a user."""
    return [entry for entry in daemon.audit() if entry.user == user and entry.event == "verify"][-1].reason


def test_a_key_is_registered_and_logs_in_again_and_again(daemon, portal):
    """The whole way; the token is the key's, and both calls are in the audit log."""
    key = SoftKey()
    token = register(portal, "ann", key)
    for _ in range(3):
        assert login(portal, "ann", key) is Verdict.SUCCESS
    held = portal.tokens("ann", client="acme").tokens
    assert [(each.id, each.kind, each.state, each.label) for each in held] == [
        (token, Kind.FIDO2, State.ACTIVE, "security key")
    ]
    assert held[0].last_used_at
    rows = [(entry.event, entry.verdict, entry.token) for entry in daemon.audit() if entry.user == "ann"]
    assert rows[-3:] == [("verify", "success", token)] * 3
    daemon.check_audit()


def test_an_answer_is_good_once(daemon, portal):
    """Neither in the conversation that asked for it nor in another, though the key would still be right."""
    key = SoftKey(counts=False)
    register(portal, "bea", key)
    first = asked(portal, "bea")
    answer = webkey.get(key.plug(), first.prompts[0].text, ORIGIN)
    assert first.answer(answer).verdict is Verdict.SUCCESS
    with asked(portal, "bea") as again:
        again.answer(answer)
        assert again.verdict is not Verdict.SUCCESS
        assert [prompt.style for prompt in again.prompts] == [PromptStyle.HIDDEN]
        assert again.answer("").verdict is Verdict.AUTH_ERR
    assert login(portal, "bea", key) is Verdict.SUCCESS
    last = [entry for entry in daemon.audit() if entry.user == "bea"][-1]
    assert last.verdict == "success"
    assert not last.detail


def test_the_answer_to_one_conversation_is_none_in_another(portal):
    """Each has a challenge of its own."""
    key = SoftKey()
    register(portal, "cora", key)
    with asked(portal, "cora") as one, asked(portal, "cora") as other:
        assert json.loads(one.prompts[0].text)["challenge"] != json.loads(other.prompts[0].text)["challenge"]
        answer = webkey.get(key.plug(), one.prompts[0].text, ORIGIN)
        assert other.answer(answer).verdict is not Verdict.SUCCESS
        assert one.answer(answer).verdict is Verdict.SUCCESS


def test_a_copy_of_a_key_is_found_out(daemon, portal):
    """Its counter is behind; a key that never counts is no copy, and one that stops counting is."""
    key = SoftKey()
    register(portal, "dora", key)
    before = key.counter
    assert login(portal, "dora", key) is Verdict.SUCCESS
    key.counter = before
    assert_refused(portal, "dora", key)
    assert "copy" in why(daemon, "dora")
    key.counts = False
    assert_refused(portal, "dora", key)
    key.counts = True
    key.counter = before + 10
    assert login(portal, "dora", key) is Verdict.SUCCESS


def assert_refused(portal, user, key, origin=ORIGIN):
    with asked(portal, user) as talk:
        talk.answer(webkey.get(key.plug(), talk.prompts[0].text, origin))
        assert talk.verdict is None
        assert talk.answer("").verdict is Verdict.AUTH_ERR


def test_a_page_that_is_not_ours_is_refused_and_the_log_says_so(daemon, portal):
    """The admin whose `origins` are wrong finds it in the audit log; the page hears nothing."""
    key = SoftKey()
    elsewhere = "https://www.acme.example"
    begun = portal.start_fido2("eva", client="acme")
    done = portal.finish_fido2(begun.token, webkey.create(key.plug(), begun.options, elsewhere))
    assert not done.confirmed
    assert "origins" in done.hint
    register(portal, "eva", key)
    assert_refused(portal, "eva", key, origin=elsewhere)
    assert "origins" in why(daemon, "eva")


def test_a_registration_is_judged_once(portal):
    """Whatever came of it, its challenge is used up."""
    key = SoftKey()
    begun = portal.start_fido2("fay", client="acme")
    answer = webkey.create(key.plug(), begun.options, ORIGIN)
    assert not portal.finish_fido2(begun.token, "{}").confirmed
    with pytest.raises(RemoteError, match="NoSuchToken"):
        portal.finish_fido2(begun.token, answer)
    begun = portal.start_fido2("fay", client="acme")
    answer = webkey.create(key.plug(), begun.options, ORIGIN)
    assert portal.finish_fido2(begun.token, answer).confirmed
    with pytest.raises(RemoteError, match="WrongState"):
        portal.finish_fido2(begun.token, answer)


def test_a_newer_registration_ends_an_older_one(portal):
    """Two tabs: the older one is told."""
    key = SoftKey()
    older = portal.start_fido2("gwen", client="acme")
    newer = portal.start_fido2("gwen", client="acme")
    with pytest.raises(RemoteError, match="NoSuchToken"):
        portal.finish_fido2(older.token, webkey.create(key.plug(), older.options, ORIGIN))
    assert portal.finish_fido2(newer.token, webkey.create(key.plug(), newer.options, ORIGIN)).confirmed


def test_one_key_is_one_token(portal):
    """A key says that it is registered already; a credential that comes twice is refused for another user too."""
    key = SoftKey()
    register(portal, "hedy", key)
    begun = portal.start_fido2("hedy", client="acme")
    assert [each["id"] for each in json.loads(begun.options)["excludeCredentials"]]
    with pytest.raises(ClientError):
        webkey.create(key.plug(), begun.options, ORIGIN)
    # A browser that does not heed the list, or another user of the same key.
    for user in ("hedy", "hedwig"):
        begun = portal.start_fido2(user, client="acme")
        answer = claimed(key, begun)
        with pytest.raises(RemoteError, match="registered already"):
            portal.finish_fido2(begun.token, answer)
    second = register(portal, "hedy", SoftKey())
    labels = {each.id: each.label for each in portal.tokens("hedy", client="acme").tokens}
    assert labels[second] == "security key 2"


def claimed(key, begun):
    """A registration that claims the credential id of another key."""
    answer = webkey.create(
        SoftKey().plug(), json.dumps({**json.loads(begun.options), "excludeCredentials": []}), ORIGIN
    )
    read = json.loads(answer)
    own, other = websafe_decode(read["rawId"]), key.credentials[0].id
    made = cbor.decode(websafe_decode(read["response"]["attestationObject"]))
    made |= {"authData": made["authData"].replace(own, other), "fmt": "none", "attStmt": {}}
    read["id"] = read["rawId"] = websafe_encode(other)
    read["response"]["attestationObject"] = websafe_encode(cbor.encode(made))
    return json.dumps(read)


def test_a_key_under_the_label_of_another_takes_its_place(portal):
    """As with every token: old until new, then the old one is of no use."""
    old, new = SoftKey(), SoftKey()
    register(portal, "ida", old, label="office")
    begun = portal.start_fido2("ida", client="acme", label="office")
    assert login(portal, "ida", old) is Verdict.SUCCESS
    begun = portal.start_fido2("ida", client="acme", label="office")
    done = portal.finish_fido2(begun.token, webkey.create(new.plug(), begun.options, ORIGIN))
    assert len(done.replaced) == 1
    assert login(portal, "ida", new) is Verdict.SUCCESS
    with asked(portal, "ida") as talk:
        allowed = json.loads(talk.prompts[0].text)["allowCredentials"]
    assert len(allowed) == 1


def test_who_has_a_key_and_codes_may_use_either(daemon, portal):
    """An empty answer to the question for the key goes on to the code; a wrong code after it is refused."""
    key = SoftKey()
    register(portal, "jana", key)
    code = provision(daemon, ["jana"], "acme")["jana"].code()
    with asked(portal, "jana") as talk:
        assert [prompt.style for prompt in talk.answer("").prompts] == [PromptStyle.HIDDEN]
        assert talk.answer(code).verdict is Verdict.SUCCESS
    with asked(portal, "jana") as talk:
        talk.answer("")
        assert talk.answer(code).verdict is Verdict.AUTH_ERR
    assert login(portal, "jana", key) is Verdict.SUCCESS


def test_nobody_is_asked_for_a_key_who_has_none_or_cannot_show_one(daemon, portal):
    """Without a page (PAM over the network), and for users without a key, codes are asked for at once."""
    provision(daemon, ["kate"], "acme")
    with portal.begin("kate", client="acme", webauthn=True) as talk:
        assert [prompt.style for prompt in talk.prompts] == [PromptStyle.HIDDEN]
    register(portal, "kate", SoftKey())
    with portal.begin("kate", client="acme") as talk:
        assert [prompt.style for prompt in talk.prompts] == [PromptStyle.HIDDEN]
    with portal.begin("nobody-at-all", client="acme", webauthn=True) as talk:
        assert [prompt.style for prompt in talk.prompts] == [PromptStyle.HIDDEN]


def test_a_locked_user_is_asked_like_others_and_refused(daemon, portal):
    """The page does not tell that the user is locked."""
    key = SoftKey()
    register(portal, "lea", key)
    with daemon.admin() as admin:
        admin.call(messages.LockUser(user="lea", client="acme"))
    with asked(portal, "lea") as talk:
        talk.answer(webkey.get(key.plug(), talk.prompts[0].text, ORIGIN))
        assert talk.verdict is None
        assert talk.answer("").verdict is Verdict.AUTH_ERR
    assert why(daemon, "lea") == "user is locked"


def test_a_wrong_answer_counts_as_a_wrong_code(daemon, portal):
    """Back-off does not care what was guessed."""
    key = SoftKey()
    register(portal, "mia", key)
    for _ in range(4):
        with asked(portal, "mia") as talk:
            talk.answer("{}")
            talk.answer("")
    talk = portal.begin("mia", client="acme", webauthn=True)
    with talk:
        while talk.verdict is None:
            talk.answer(
                *(
                    webkey.get(key.plug(), prompt.text, ORIGIN) if prompt.style is PromptStyle.WEBAUTHN else ""
                    for prompt in talk.prompts
                )
            )
    assert talk.verdict is Verdict.MAXTRIES
    assert talk.retry_after


def test_a_required_user_with_a_key_alone_is_enrolled(portal):
    """It is an authenticator like any other: REQUIRED can be set, and the last one stays."""
    token = register(portal, "nora", SoftKey())
    portal.set_enforcement("nora", Enforcement.REQUIRED, client="acme")
    with pytest.raises(RemoteError, match="LastToken"):
        portal.remove(token)


def test_a_client_without_a_host_name_has_no_keys(portal):
    """And is told what to write where."""
    with pytest.raises(RemoteError, match=r"clients\.bare\.webauthn"):
        portal.start_fido2("olga", client="bare")


def test_confirm_and_finish_are_not_taken_for_each_other(portal):
    """A code proves no key, an answer proves no code."""
    begun = portal.start_fido2("paula", client="acme")
    with pytest.raises(RemoteError, match="FinishFido2"):
        portal.confirm(begun.token, "123456")
    started = portal.enrol("paula", client="acme")
    with pytest.raises(RemoteError, match="Confirm"):
        portal.finish_fido2(started.token, "{}")


def test_a_key_lives_through_a_restart_and_a_new_master_key():
    """What is sealed with a token opens after both."""
    key = SoftKey()
    with private_folder() as folder:
        daemon = Daemon(folder, config=CONFIG)
        with daemon, daemon.client() as portal:
            register(portal, "rosa", key)
            pending = portal.start_fido2("ruth", client="acme")
            with daemon.admin() as admin:
                list(admin.stream(messages.RotateKey()))
            assert login(portal, "rosa", key) is Verdict.SUCCESS
        with daemon, daemon.client() as portal:
            assert login(portal, "rosa", key) is Verdict.SUCCESS
            late = SoftKey()
            assert portal.finish_fido2(pending.token, webkey.create(late.plug(), pending.options, ORIGIN)).confirmed
            assert login(portal, "ruth", late) is Verdict.SUCCESS
