"""What a security key answers holds for one challenge, on our pages, for one user: or it is refused."""

from __future__ import annotations

import base64
import contextlib
import json

import pytest
import webkey
from fido2 import cbor
from fido2.webauthn import CollectedClientData
from hypothesis import given, settings
from hypothesis import strategies as st
from softkey import SoftKey

from otpbridge.errors import VaultError, WebauthnError
from otpbridge.model import RelyingParty, Secret, UserVerification
from otpbridge.webauthn.ceremony import Assertion, Registration
from otpbridge.webauthn.credential import Credential, Waiting

ORIGIN = "https://portal.example.org"
PARTY = RelyingParty("example.org", "Example", (ORIGIN, "https://example.org:8443"))
STRICT = RelyingParty("example.org", "Example", (ORIGIN,), UserVerification.REQUIRED)
CHALLENGE, OTHER_CHALLENGE = b"c" * 32, b"d" * 32
HANDLE = b"h" * 32


def made(key, party=PARTY, *, present=(), pin=None, attestation="none", origin=ORIGIN):
    """What a key answers to a registration, and the registration."""
    asked = Registration(party, CHALLENGE, HANDLE)
    options = asked.options("alice", present)
    return asked, webkey.create(key.plug(), options, origin, pin=pin, attestation=attestation)


def registered(key, **how):
    asked, answer = made(key, **how)
    return asked.judge(answer)


def shown(key, credentials, party=PARTY, *, challenge=CHALLENGE, pin=None, origin=ORIGIN):
    """What a key answers to an assertion, and the assertion."""
    asked = Assertion(party, credentials, challenge)
    return asked, webkey.get(key.plug(), asked.options, origin, pin=pin)


def changed(answer, **parts):
    """The answer with parts of its response replaced."""
    read = json.loads(answer)
    read["response"] |= {name: base64.urlsafe_b64encode(value).rstrip(b"=").decode() for name, value in parts.items()}
    return json.dumps(read)


def part(answer, name):
    text = json.loads(answer)["response"][name]
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def test_a_registered_key_answers_and_no_other_does():
    """The way of every login, and of a key that is not the user's."""
    mine, other = SoftKey(), SoftKey()
    first = registered(mine).credential
    second = registered(other).credential
    asked, answer = shown(other, [first, second])
    assert asked.judge(answer).place == 1
    with pytest.raises(WebauthnError, match="not one of this user"):
        Assertion(PARTY, [first], CHALLENGE).judge(answer)


@pytest.mark.parametrize("origin", PARTY.origins)
def test_every_origin_of_the_configuration_is_good(origin):
    """A portal may have several names."""
    key = SoftKey()
    credential = registered(key, origin=origin).credential
    asked, answer = shown(key, [credential], origin=origin)
    asked.judge(answer)


def test_another_origin_is_refused():
    """A page below the same domain is not ours: the browser signs what page it was."""
    key = SoftKey()
    elsewhere = "https://evil.example.org"
    asked, answer = made(key, origin=elsewhere)
    with pytest.raises(WebauthnError, match="origins"):
        asked.judge(answer)
    credential = registered(key).credential
    asked, answer = shown(key, [credential], origin=elsewhere)
    with pytest.raises(WebauthnError, match="origins"):
        asked.judge(answer)


def test_an_answer_is_good_for_its_challenge_alone():
    """What was overheard answers no other question."""
    key = SoftKey()
    asked, answer = made(key)
    with pytest.raises(WebauthnError, match="another challenge"):
        Registration(PARTY, OTHER_CHALLENGE, HANDLE).judge(answer)
    credential = asked.judge(answer).credential
    _, answer = shown(key, [credential])
    with pytest.raises(WebauthnError, match="another challenge"):
        Assertion(PARTY, [credential], OTHER_CHALLENGE).judge(answer)


def test_a_registration_answers_no_login_and_the_other_way_round():
    """The two ceremonies cannot be taken for each other."""
    key = SoftKey()
    asked, registration = made(key)
    credential = asked.judge(registration).credential
    _, assertion = shown(key, [credential])
    with pytest.raises(WebauthnError):
        Assertion(PARTY, [credential], CHALLENGE).judge(registration)
    with pytest.raises(WebauthnError):
        asked.judge(assertion)


def test_a_key_of_another_relying_party_is_refused():
    """A key that was registered elsewhere proves nothing here."""
    key = SoftKey()
    elsewhere = RelyingParty("other.example", "Other", ("https://other.example",))
    credential = registered(key, party=elsewhere, origin="https://other.example").credential
    _, answer = shown(key, [credential], party=elsewhere, origin="https://other.example")
    both = RelyingParty("example.org", "Example", ("https://other.example",))
    with pytest.raises(WebauthnError, match="rp_id"):
        Assertion(both, [credential], CHALLENGE).judge(answer)


def test_a_page_inside_a_foreign_one_is_refused():
    """Somebody else's page may have led the person to click."""
    key = SoftKey()
    credential = registered(key).credential
    data = CollectedClientData.create(
        type=CollectedClientData.TYPE.GET, challenge=CHALLENGE, origin=ORIGIN, cross_origin=True
    )
    made_by = next(each for each in key.credentials if each.id == credential.id)
    from softkey import _sign

    _, answer = shown(key, [credential])
    signature = _sign(made_by.private, part(answer, "authenticatorData") + data.hash)
    asked = Assertion(PARTY, [credential], CHALLENGE)
    with pytest.raises(WebauthnError, match="foreign"):
        asked.judge(changed(answer, clientDataJSON=bytes(data), signature=signature))


def test_a_changed_signature_or_what_it_covers_is_refused():
    """Each bit counts."""
    key = SoftKey()
    credential = registered(key).credential
    asked, answer = shown(key, [credential])
    for name in ("signature", "authenticatorData", "clientDataJSON"):
        value = bytearray(part(answer, name))
        value[-2] ^= 1
        with pytest.raises(WebauthnError):
            asked.judge(changed(answer, **{name: bytes(value)}))


def test_another_users_handle_is_refused():
    """A key that says it answers for somebody else is not believed."""
    key = SoftKey()
    credential = registered(key).credential
    key.user_handle = b"somebody else"
    asked, answer = shown(key, [credential])
    assert json.loads(answer)["response"].get("userHandle")
    with pytest.raises(WebauthnError, match="user handle"):
        asked.judge(answer)


def test_where_the_key_must_ask_who_uses_it_a_touch_is_not_enough():
    """User verification is decided here, whatever the page has asked the key for."""
    key = SoftKey(pin="1234")
    credential = registered(key, pin="1234").credential
    _, touched = shown(key, [credential])
    strict = Assertion(STRICT, [credential], CHALLENGE)
    with pytest.raises(WebauthnError, match="PIN"):
        strict.judge(touched)
    assert json.loads(strict.options)["userVerification"] == "required"
    strict.judge(webkey.get(key.plug(), strict.options, ORIGIN, pin="1234"))
    lenient = Assertion(STRICT, [credential], CHALLENGE, UserVerification.DISCOURAGED)
    lenient.judge(touched)


@pytest.mark.parametrize("form", ["self", "basic"])
def test_an_attestation_need_not_be_there_but_must_hold(form):
    """A tampered one is refused though none was asked for."""
    honest = SoftKey(attestation=form)
    registered(honest, attestation="direct")
    with pytest.raises(WebauthnError):
        registered(SoftKey(attestation=form, tampered=True), attestation="direct")


def test_an_attestation_of_an_unknown_form_is_refused():
    """What cannot be checked is not taken."""
    asked, answer = made(SoftKey())
    held = cbor.decode(part(answer, "attestationObject"))
    with pytest.raises(WebauthnError, match="form"):
        asked.judge(changed(answer, attestationObject=cbor.encode({**held, "fmt": "home-made"})))


def test_a_u2f_key_works():
    """Old keys too."""
    key = SoftKey(u2f_only=True)
    credential = registered(key, attestation="direct").credential
    asked, answer = shown(key, [credential])
    assert asked.judge(answer).counter > 0


def test_what_is_sealed_comes_back():
    """And a pending record is never taken for an active one."""
    credential = registered(SoftKey()).credential
    assert Credential.unpack(credential.pack()) == credential
    waiting = Waiting(CHALLENGE, HANDLE)
    assert Waiting.unpack(waiting.pack()) == waiting
    for kind, sealed in ((Credential, waiting.pack()), (Waiting, credential.pack()), (Credential, Secret(b"?"))):
        with pytest.raises(VaultError):
            kind.unpack(sealed)


ANSWERS = {
    "registration": made(SoftKey(), attestation="direct"),
    "assertion": shown(key := SoftKey(), [registered(key).credential]),
}

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@pytest.mark.parametrize("which", ANSWERS)
@settings(deadline=None)
@given(data=st.data())
def test_a_malformed_answer_is_refused_and_nothing_else_happens(which, data):
    """Whatever is sent, the error is ours."""
    asked, answer = ANSWERS[which]
    read = json.loads(answer)
    name = data.draw(st.sampled_from(sorted(read["response"])))
    match data.draw(st.sampled_from(["bytes", "json", "top", "cut", "text"])):
        case "bytes":
            value = bytearray(part(answer, name)) if isinstance(read["response"][name], str) else bytearray(b"x")
            place = data.draw(st.integers(0, len(value) - 1))
            value[place] ^= data.draw(st.integers(1, 255))
            broken = changed(answer, **{name: bytes(value)})
        case "json":
            read["response"][name] = data.draw(JSON)
            broken = json.dumps(read)
        case "top":
            read[data.draw(st.sampled_from(sorted(read)))] = data.draw(JSON)
            broken = json.dumps(read)
        case "cut":
            broken = answer[: data.draw(st.integers(0, len(answer) - 1))]
        case _:
            broken = data.draw(st.text(max_size=60))
    with contextlib.suppress(WebauthnError):
        asked.judge(broken)


@pytest.mark.parametrize(
    "answer",
    ["", "null", "[]", "{}", '{"response": {}}', "[" * 30_000, '{"response": ' * 5_000, "x" * 40_000],
    ids=["empty", "null", "list", "object", "no-parts", "nested", "deep", "long"],
)
def test_what_is_no_answer_at_all_is_refused(answer):
    """Nothing of it reaches the caller as anything but a refusal."""
    for asked, _ in ANSWERS.values():
        with pytest.raises(WebauthnError):
            asked.judge(answer)


@pytest.mark.parametrize("which", ANSWERS)
def test_a_number_in_place_of_bytes_is_refused(which):
    """The daemon's memory is not at the sender's disposal."""
    asked, answer = ANSWERS[which]
    read = json.loads(answer)
    for name in read["response"]:
        broken = {**read, "response": {**read["response"], name: 10**13}}
        with pytest.raises(WebauthnError, match="not that of"):
            asked.judge(json.dumps(broken))
    with pytest.raises(WebauthnError, match="not that of"):
        asked.judge(json.dumps({**read, "id": 10**13, "rawId": 10**13}))


def test_nested_cbor_is_refused():
    """A message that is all brackets."""
    asked, answer = ANSWERS["registration"]
    with pytest.raises(WebauthnError):
        asked.judge(changed(answer, attestationObject=b"\x81" * 20_000))
