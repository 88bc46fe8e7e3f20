"""Security keys that are plugged in: registered, asked, refused as by a browser. The judge is the library."""

from __future__ import annotations

import json
import threading
from contextlib import ExitStack
from dataclasses import dataclass, field

import pytest
from fido2.hid.base import HidDescriptor
from fido2.server import Fido2Server
from fido2.webauthn import PublicKeyCredentialRpEntity, PublicKeyCredentialUserEntity
from softhid import HidKey
from softkey import SECONDS, SoftKey

from otpbridge.devices import fido_find
from otpbridge.devices.fido import Ceremony
from otpbridge.errors import (
    AccountExistsError,
    CannotError,
    DeviceError,
    DeviceGoneError,
    FullError,
    GivenUpError,
    NoAccountError,
    NoDeviceError,
    NoPinError,
    NotAllowedError,
    PinBlockedError,
    TouchTimeoutError,
    WebauthnError,
)
from otpbridge.model import RelyingParty, Secret
from otpbridge.webauthn.ceremony import Registration

HOST = "portal.example.org"
ORIGIN = f"https://{HOST}"
ALICE = PublicKeyCredentialUserEntity(id=b"handle of alice", name="alice", display_name="alice")


@dataclass
class Person:
    """Who sits before the keys: gives these PINs, and does this when asked for a touch."""

    pins: list = field(default_factory=list)
    on_touch: object = None
    told: list = field(default_factory=list)

    def touch(self, key, seconds):
        assert seconds >= 0
        self.told.append(key)
        if self.on_touch is not None:
            self.on_touch()

    def pin(self, wanted):
        self.told.append(wanted)
        return Secret(self.pins.pop(0).encode()) if self.pins else None


@dataclass
class Node:
    """A soft key, plugged in."""

    key: SoftKey

    def __str__(self):
        return self.key.name

    def open(self, _stop):
        return self.key.connect()


class Site:
    """A relying party and its user."""

    def __init__(self, verification="discouraged", keys=()):
        self.server = Fido2Server(PublicKeyCredentialRpEntity(id=HOST, name="Example"), attestation="direct")
        self.verification = verification
        self.keys = list(keys)
        self.credentials = []

    def ceremony(self, person, seconds=SECONDS):
        return Ceremony(person, seconds, lambda: [Node(key) for key in self.keys])

    def creation(self):
        options, state = self.server.register_begin(
            ALICE, self.credentials, user_verification=self.verification, resident_key_requirement="discouraged"
        )
        return json.dumps(dict(options)["publicKey"]), state

    def request(self):
        options, state = self.server.authenticate_begin(self.credentials, user_verification=self.verification)
        return json.dumps(dict(options)["publicKey"]), state

    def register(self, person=None, seconds=SECONDS, origin=ORIGIN):
        options, state = self.creation()
        answer = json.loads(self.ceremony(person or Person(), seconds).register(options, origin))
        data = self.server.register_complete(state, answer)
        self.credentials.append(data.credential_data)
        return answer, data

    def login(self, person=None, seconds=SECONDS, origin=ORIGIN):
        options, state = self.request()
        answer = json.loads(self.ceremony(person or Person(), seconds).assertion(options, origin))
        return self.server.authenticate_complete(state, self.credentials, answer)


@pytest.fixture(params=["fido2", "u2f"])
def any_key(request):
    """A key of either kind."""
    return SoftKey(u2f_only=request.param == "u2f")


def test_a_key_is_registered_and_then_signs(any_key):
    """What a key answers is accepted by an independent relying party, from both kinds of key."""
    site = Site(keys=[any_key])
    site.register()
    assert site.login() == site.credentials[0]
    assert site.login() == site.credentials[0]


def test_the_answer_has_what_that_of_a_browser_has():
    """RegistrationResponseJSON: transports, authenticator data and algorithm can be read without CBOR."""
    answer, data = Site(keys=[SoftKey()]).register()
    assert answer["response"]["transports"] == ["usb"]
    assert answer["response"]["publicKeyAlgorithm"] == -7
    assert answer["response"]["authenticatorData"]
    assert answer["id"] == answer["rawId"]
    assert not data.is_user_verified()


@pytest.mark.parametrize("attestation", ["self", "basic"])
def test_an_attestation_that_does_not_hold_is_refused(any_key, attestation):
    """The same key, whose attestation holds, is taken."""
    any_key.attestation = attestation
    party = RelyingParty(HOST, "Example", (ORIGIN,))
    registration = Registration(party, b"c" * 32, b"u" * 32)
    options = registration.options("alice", [])
    site = Site(keys=[any_key])
    assert registration.judge(site.ceremony(Person()).register(options, ORIGIN)).credential.user_handle == b"u" * 32
    any_key.tampered = True
    with pytest.raises(WebauthnError):
        registration.judge(site.ceremony(Person()).register(options, ORIGIN))


# --- touch ---


def test_a_touch_is_told_while_the_key_waits_for_it(any_key):
    """The person hears of it when the key blinks, not when it is over; and once."""
    site = Site(keys=[any_key])
    any_key.touch = "late"
    person = Person(on_touch=any_key.press)
    site.register(person)
    assert person.told == ["Soft Key"]
    site.login(person)
    assert person.told == ["Soft Key"] * 2


def test_nobody_has_to_be_waited_for_longer_than_asked(any_key):
    """When the time is up the key stops blinking, and nothing is registered."""
    any_key.touch = "late"
    site = Site(keys=[any_key])
    with pytest.raises(TouchTimeoutError, match=r"nobody touched the key within 0\.2 s"):
        site.register(seconds=0.2)
    assert not any_key.credentials


def test_a_key_that_was_given_up_stops_blinking():
    """The key is told, and rests."""
    key = SoftKey(touch="late")
    with pytest.raises(TouchTimeoutError):
        Site(keys=[key]).register(seconds=0.2)
    key.rests()
    assert key.cancelled == 1


def test_a_key_may_give_up_itself():
    """Keys wait for a touch so long and no longer."""
    with pytest.raises(TouchTimeoutError, match="nobody touched Soft Key in time"):
        Site(keys=[SoftKey(touch="never")]).register()


def test_another_thread_can_call_it_off(any_key):
    """Whoever asked may go away: the key stops blinking at once."""
    any_key.touch = "late"
    site = Site(keys=[any_key])
    ceremony = site.ceremony(Person())

    def call_off():
        any_key.blinks()
        ceremony.cancel()

    thread = threading.Thread(target=call_off)
    thread.start()
    with pytest.raises(GivenUpError, match="called off"):
        ceremony.register(site.creation()[0], ORIGIN)
    thread.join()
    assert not any_key.credentials


def test_ctrl_c_stops_the_key():
    """An interrupt leaves no key blinking."""
    key = SoftKey(touch="late")

    def interrupt():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Site(keys=[key]).register(Person(on_touch=interrupt))
    key.rests()
    assert key.cancelled == 1


# --- PIN ---


def test_a_pin_is_asked_for_where_the_relying_party_wants_it():
    """With the right PIN the answer says that the key has seen to it who uses it."""
    site = Site("required", [SoftKey(pin="1234")])
    person = Person(["1234"])
    _, data = site.register(person)
    assert data.is_user_verified()
    asked = person.told[0]
    assert (asked.key, asked.tries_left, asked.wrong) == ("Soft Key", 8, False)
    assert site.login(Person(["1234"])) == site.credentials[0]


def test_no_pin_is_asked_for_where_none_is_wanted():
    """A key with a PIN is only touched where that is enough."""
    site = Site("discouraged", [SoftKey(pin="1234")])
    person = Person()
    site.register(person)
    site.login(person)
    assert person.told == ["Soft Key"] * 2


def test_a_wrong_pin_is_asked_for_again():
    """The person hears that it was wrong, and how many tries the key has left."""
    person = Person(["0000", "1234"])
    Site("required", [SoftKey(pin="1234")]).register(person)
    assert [(each.tries_left, each.wrong) for each in person.told if each != "Soft Key"] == [(8, False), (7, True)]


def test_after_three_wrong_pins_the_key_must_be_plugged_in_anew():
    """The key says so, and the person is not asked in vain."""
    person = Person(["0000"] * 9)
    key = SoftKey(pin="1234")
    with pytest.raises(PinBlockedError, match="Pull it out"):
        Site("required", [key]).register(person)
    assert len(person.pins) == 6
    assert key.pin_tries == 5
    with pytest.raises(PinBlockedError, match="Pull it out"):
        Site("required", [key]).register(person)
    assert len(person.pins) == 6
    key.plug()
    Site("required", [key]).register(Person(["1234"]))


def test_a_blocked_key_says_so():
    """After eight wrong PINs none is taken; the person learns that only a reset helps."""
    person = Person(["1234"])
    with pytest.raises(PinBlockedError, match="reset"):
        Site("required", [SoftKey(pin="1234", pin_tries=0)]).register(person)
    assert person.pins == ["1234"]
    with pytest.raises(PinBlockedError, match="reset"):
        Site("required", [SoftKey(pin="1234", pin_tries=1)]).register(Person(["0000"]))


def test_who_gives_no_pin_gives_up():
    """An empty PIN is none."""
    for pins in ([], [""]):
        with pytest.raises(GivenUpError, match="no PIN was given"):
            Site("required", [SoftKey(pin="1234")]).register(Person(pins))


def test_a_key_without_a_pin_cannot_ask_for_one():
    """The person learns how to set one."""
    with pytest.raises(NoPinError, match="change-pin"):
        Site("required", [SoftKey()]).register()
    with pytest.raises(NoPinError, match="must be changed"):
        Site("required", [SoftKey(pin="1234", must_change_pin=True)]).register(Person(["1234"]))
    with pytest.raises(CannotError, match="cannot ask who uses it"):
        Site("required", [SoftKey(u2f_only=True)]).register()


def test_a_pin_that_is_only_preferred_is_asked_for_where_there_is_one(any_key):
    """Keys without a PIN are used without; those with one ask for it."""
    Site("preferred", [any_key]).register()
    site = Site("preferred", [SoftKey(pin="1234")])
    _, data = site.register(Person(["1234"]))
    assert data.is_user_verified()


def test_the_time_for_a_pin_is_the_persons_own():
    """Who looks for the PIN longer than a touch may take is not late."""
    looked_up = threading.Event()

    class Slow(Person):
        def pin(self, wanted):
            looked_up.wait(1.0)
            return super().pin(wanted)

    Site("required", [SoftKey(pin="1234")]).register(Slow(["1234"]), seconds=0.9)


# --- several keys ---


def test_of_several_keys_the_touched_one_is_registered():
    """All of them blink; the first touch says which, the second registers."""
    keys = [SoftKey(name="left", touch="late"), SoftKey(name="right", touch="late")]
    site = Site(keys=keys)
    person = Person(on_touch=keys[1].press)
    site.register(person)
    assert person.told == ["", "right"]
    assert [len(key.credentials) for key in keys] == [0, 1]
    keys[0].rests()


def test_a_key_that_knows_only_u2f_can_be_chosen(any_key):
    """Among others that know more."""
    other = SoftKey(name="other", touch="late")
    any_key.touch = "late"
    site = Site(keys=[other, any_key])
    site.register(Person(on_touch=any_key.press))
    assert other.credentials == []
    other.rests()
    assert site.login(Person(on_touch=any_key.press)) == site.credentials[0]


def test_only_keys_of_the_user_blink():
    """A key that cannot answer is not asked."""
    mine, other = SoftKey(name="mine"), SoftKey(name="other", touch="late")
    site = Site(keys=[mine])
    site.register()
    site.keys = [other, mine]
    person = Person()
    site.login(person)
    assert person.told == ["mine"]
    assert other.cancelled == 0


def test_either_of_two_keys_of_a_user_will_do(any_key):
    """Both blink, one is touched, and the other stops."""
    backup = SoftKey(name="backup")
    site = Site(keys=[any_key])
    site.register()
    site.keys = [backup]
    site.register()
    site.keys = [any_key, backup]
    any_key.touch = backup.touch = "late"
    person = Person(on_touch=backup.press)
    assert site.login(person) == site.credentials[1]
    assert person.told == [""]


def test_of_two_keys_with_a_pin_the_touched_one_asks_for_it():
    """Nobody has to know which key a question for a PIN is about."""
    left, right = SoftKey(name="left", pin="1111"), SoftKey(name="right", pin="2222")
    site = Site("required", [left])
    site.register(Person(["1111"]))
    site.keys = [right]
    site.register(Person(["2222"]))
    site.keys = [left, right]
    left.touch = right.touch = "late"
    person = Person(["2222"], on_touch=right.press)
    assert site.login(person) == site.credentials[1]
    assert [getattr(each, "key", each) for each in person.told] == ["", "right", "right"]


def test_a_key_that_is_pulled_does_not_spoil_the_others():
    """One of two keys fails: the other is still good."""
    keys = [SoftKey(name="left"), SoftKey(name="right")]
    site = Site(keys=keys[:1])
    site.register()
    site.keys = keys[1:]
    site.register()
    site.keys = keys
    for key in keys:
        key.touch = "late"

    def pull_one_touch_the_other():
        keys[0].pull()
        keys[1].press()

    assert site.login(Person(on_touch=pull_one_touch_the_other)) == site.credentials[1]


# --- refusals ---


def test_a_key_of_somebody_else_is_told_at_once(any_key):
    """Nobody touches a key in vain."""
    site = Site(keys=[any_key])
    site.register()
    site.keys = [SoftKey(name="stranger", touch="late")]
    person = Person()
    with pytest.raises(NoAccountError, match=r"none of the keys .* \(stranger\)"):
        site.login(person)
    assert person.told == []


def test_a_key_is_not_registered_twice(any_key):
    """The exclude list is looked up without a touch."""
    site = Site(keys=[any_key])
    site.register()
    person = Person()
    with pytest.raises(AccountExistsError, match="already"):
        site.register(person)
    assert person.told == []
    assert len(any_key.credentials) == 1


def test_a_full_key_says_so():
    """The person learns why, and not a number."""
    with pytest.raises(FullError, match="is full"):
        Site(keys=[SoftKey(full=True)]).register()


def test_a_key_that_is_pulled_is_told():
    """In the middle of it."""
    key = SoftKey(touch="late")
    with pytest.raises(DeviceGoneError, match="pulled out"):
        Site(keys=[key]).register(Person(on_touch=key.pull))


def test_without_a_key_nothing_is_asked():
    """The person learns that none is plugged in."""
    with pytest.raises(NoDeviceError, match="no security key"):
        Site().register()


@pytest.mark.parametrize("options", ["", "[]", "{}", '{"challenge": 1}', '{"challenge": "AAAA", "rp": 5}'])
def test_a_question_that_is_none_is_told(options):
    """Nonsense from the other side is an error in words."""
    ceremony = Site(keys=[SoftKey()]).ceremony(Person())
    with pytest.raises(DeviceError, match="cannot be understood"):
        ceremony.register(options, ORIGIN)


def test_keys_are_bound_to_a_host():
    """A page of another host gets no answer."""
    key = SoftKey()
    with pytest.raises(CannotError, match="another host"):
        Site(keys=[key]).register(origin="https://evil.example.com")
    assert not key.credentials


# --- which keys there are, and packets ---

FIDO = bytes.fromhex("06d0f10901a1010920150026ff007508954081020921150026ff00750895409102c0")
KEYBOARD = bytes.fromhex("05010906a101050719e029e71500250175019508810295017508810195057501c0")


def tree(folder, **descriptors):
    """A /sys/class/hidraw with these."""
    for name, descriptor in descriptors.items():
        device = folder / "sys" / name / "device"
        device.mkdir(parents=True)
        (device / "report_descriptor").write_bytes(descriptor)
        (device / "uevent").write_text("DRIVER=hid-generic\nHID_NAME=Example Key\x1b[31m\n")
    (folder / "dev").mkdir()
    return folder / "sys", folder / "dev"


def test_keys_are_told_from_keyboards(tmp_path):
    """A keyboard is none, whatever may be read of it; names hold nothing that a terminal would obey."""
    system, devices = tree(tmp_path, hidraw0=KEYBOARD, hidraw1=FIDO, hidraw2=b"")
    for number in range(3):
        (devices / f"hidraw{number}").touch()
    (found,) = fido_find.plugged(system, devices)
    assert (found.path, str(found)) == (devices / "hidraw1", "Example Key[31m")


def test_no_hidraw_is_no_key(tmp_path):
    """A machine without any such device has no key, which is not an error."""
    assert fido_find.plugged(tmp_path / "sys", tmp_path / "dev") == ()


def test_keys_that_may_not_be_opened_are_told(tmp_path):
    """The library would say that there is none."""
    with pytest.raises(NotAllowedError, match=r"Example Key.*docs/fido2\.md"):
        fido_find.plugged(*tree(tmp_path, hidraw1=FIDO))


@pytest.fixture
def packets(monkeypatch):
    """Keys behind files, opened as /dev/hidraw is."""
    monkeypatch.setattr(
        fido_find, "get_descriptor", lambda path: HidDescriptor(path, 0x1050, 0x0402, 64, 64, "Soft Key", None)
    )
    with ExitStack() as stack:
        yield lambda key, **how: fido_find.Node(stack.enter_context(HidKey(key, **how)).path, "Soft Key")


def over(site, node):
    """The site's ceremonies over packets."""
    site.ceremony = lambda person, seconds=SECONDS: Ceremony(person, seconds, lambda: [node])
    return site


def test_a_key_is_used_over_packets(packets, any_key):
    """Registration and login as the bytes of CTAPHID: long messages, keepalives, and a key that is busy at first."""
    any_key.touch = "late"
    site = over(Site(), packets(any_key, busy=2))
    person = Person(on_touch=any_key.press)
    site.register(person)
    assert site.login(person) == site.credentials[0]


def test_a_key_is_stopped_over_packets(packets):
    """When the time is up the key gets CTAPHID_CANCEL."""
    key = SoftKey(touch="late")
    site = over(Site(), packets(key))
    with pytest.raises(TouchTimeoutError):
        site.register(seconds=0.5)
    key.rests()
    assert key.cancelled == 1


def test_a_key_that_says_nothing_is_given_up(packets):
    """Neither the ceremony nor its thread waits for ever."""
    node = packets(SoftKey(), silent=True)
    site = over(Site(), node)
    with pytest.raises(TouchTimeoutError):
        site.register(seconds=0.1)
    clock = iter(range(0, 1000, 3))
    descriptor = fido_find.get_descriptor(node.path)
    connection = fido_find.BoundedConnection(descriptor, threading.Event(), lambda: next(clock))
    with pytest.raises(TimeoutError, match="says nothing"):
        connection.read_packet()
    connection.close()


def test_a_key_that_is_gone_cannot_be_opened(tmp_path):
    """It was listed, and then pulled."""
    with pytest.raises(DeviceGoneError, match="pulled out"):
        fido_find.Node(tmp_path / "hidraw9", "Soft Key").open(threading.Event())
