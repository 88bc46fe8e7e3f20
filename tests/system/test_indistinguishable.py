"""Who is not let in learns nothing: not who is a user, who has a token, nor how near a code was."""

from __future__ import annotations

import itertools
import os
import statistics
import sys
from collections.abc import Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import act_as
import pammodule
import pytest
from daemon_rig import LONG, Daemon, need_root, plain_user, private_folder, provision
from pamstack import Stack
from stopwatch import Line, slower, times

from otpbridge.model import Enforcement, Kind
from otpbridge.wire import messages

pytestmark = [pytest.mark.system, pytest.mark.timeout(900)]

CONFIG = """
[throttle]
limit = 1000
[stacks.portal]
rules = ["requisite password", "sufficient totp", "required recovery"]
"""
"""Back-off tells everybody alike that it is on; here it is kept out of the way of all else."""

REFUSED = [
    "unknown user",
    "required, no token",
    "wrong code",
    "used code",
    "disabled token",
    "locked, right code",
    "locked, wrong code",
    "wrong code of a YubiKey",
    "used recovery code",
]
FIRST = ["unknown user", "no password", "wrong password"]
LOCKED = ["locked, right password", "locked, wrong password"]
BY_PASSWORD = [*FIRST, *LOCKED, "right password, wrong code"]

TRIES = 3
"""A machine that is busy with other things may spoil one measurement; what can be told apart is so in all."""


@dataclass(frozen=True, slots=True)
class Measurement:
    """Sorts of refusals whose times are compared, each sort so many times.

    Two sorts are told apart where a time of one is longer than one of the other with a probability that is further
    than `bound` from 0.5, and their medians are further apart than `noticeable` microseconds. The first alone holds
    for differences of 5 µs as well, where a call over a socket takes 100 µs: what a look into the store costs more
    for each token of a user. Without decoys it is 80 µs for a code, and all of 50 ms for a password.
    """

    sorts: Sequence[str]
    stack: str | None = None
    rounds: int = 900 if LONG else 450
    """With 450, chance alone moves the probability by 0.02 (one standard deviation); with 60, by 0.05."""
    bound: float = 0.1
    noticeable: float = 35.0


class People:
    """Somebody of each sort, and what they answer."""

    def __init__(self, daemon):
        keys = provision(daemon, ["wrong", "used", "disabled", "locked", "mute", "patient", "portal"])
        keys |= provision(daemon, ["yubi"], kind=Kind.YUBIOTP)
        keys |= provision(daemon, ["paper"], kind=Kind.RECOVERY)
        self.keys = keys
        with daemon.admin() as admin, daemon.client() as client:
            admin.call(messages.AddUser(user="bare"))
            for user in ["bare", *keys]:
                enforcement = Enforcement.REQUIRED
                admin.call(messages.SetEnforcement(user=user, enforcement=enforcement, force=True))
            for user in ("used", "paper"):
                assert client.verify(user, keys[user].code()).ok
            ((token,),) = [reply.tokens for reply in admin.stream(messages.ListTokens(user="disabled"))]
            admin.call(messages.DisableToken(token=token.id))
            for user in ("portal", "locked"):
                client.call(messages.SetPassword(user=user, password="wrenches rust"))
            admin.call(messages.LockUser(user="locked"))
        self.answers = {
            "unknown user": ("ghost", keys["wrong"].code()),
            "required, no token": ("bare", keys["wrong"].code()),
            "wrong code": ("wrong", keys["wrong"].wrong()[0]),
            "used code": ("used", keys["used"].code()),
            "disabled token": ("disabled", keys["disabled"].code()),
            "locked, right code": ("locked", keys["locked"].code()),
            "locked, wrong code": ("locked", keys["locked"].wrong()[0]),
            "wrong code of a YubiKey": ("yubi", keys["yubi"].wrong()[0]),
            "used recovery code": ("paper", keys["paper"].code()),
        }
        code = keys["portal"].wrong()[0]
        self.by_password = {
            "unknown user": ("ghost", "wrenches rust", code),
            "no password": ("disabled", "wrenches rust", code),
            "wrong password": ("portal", "wrenches rusty", code),
            "locked, wrong password": ("locked", "wrenches rusty", code),
            "right password, wrong code": ("portal", "wrenches rust", code),
            "locked, right password": ("locked", "wrenches rust", keys["locked"].code()),
        }

    def of(self, sort, stack):
        """Who it is and what they answer."""
        user, *answers = (self.answers if stack is None else self.by_password)[sort]
        return ({"user": user} if stack is None else {"user": user, "stack": stack}), answers


@contextmanager
def fast_folder():
    """A folder in memory where there is one: waiting for a disk would hide differences."""
    memory = Path("/dev/shm")
    with ExitStack() as stack:
        if os.access(memory, os.W_OK):
            stack.enter_context(pytest.MonkeyPatch.context()).setattr("tempfile.tempdir", str(memory))
        yield stack.enter_context(private_folder())


@pytest.fixture(scope="module")
def served():
    with private_folder() as folder, Daemon(folder, config=CONFIG) as daemon:
        yield daemon, People(daemon)


@pytest.fixture
def folder_for_others():
    need_root()
    portal = plain_user()
    caller = f'\n[[callers]]\nuser = "{portal.pw_name}"\nclients = ["local"]\n'
    with private_folder() as folder, Daemon(folder, config=CONFIG + caller) as daemon:
        yield daemon, People(daemon), portal


# --- what is said ---


@pytest.mark.parametrize(("sort", "stack"), [(s, None) for s in REFUSED] + [(s, "portal") for s in BY_PASSWORD])
def test_one_call_is_answered_with_the_same_bytes(served, sort, stack):
    """Whatever was wrong, the reply to Check is that to an unknown user, byte for byte."""
    daemon, people = served
    with Line(daemon.verify_socket) as line:
        about, answers = people.of(sort, stack)
        said, _ = line.ask("Check", **about, responses=answers)
    assert said == b'{"parameters":{"verdict":"auth_err","notices":[]}}\0'


@pytest.mark.parametrize(("sort", "stack"), [(s, None) for s in REFUSED] + [(s, "portal") for s in FIRST + LOCKED])
def test_conversations_go_the_same_way(served, sort, stack):
    """The question and the end are the same bytes for everybody; where one is wrong no further question comes."""
    daemon, people = served
    about, answers = people.of(sort, stack)
    prompt, answer = ("Verification code: ", "code") if stack is None else ("Password: ", "password")
    asked = f'{{"notices":[],"prompts":[{{"style":"hidden","text":"{prompt}","answer":"{answer}"}}]}}'
    with Line(daemon.verify_socket) as line:
        begun, _ = line.ask("Begin", **about)
        ended, _ = line.ask("Continue", session="1", responses=answers[:1])
    assert begun == f'{{"parameters":{{"session":"1","step":{asked}}}}}\0'.encode()
    refused = '{"notices":[],"prompts":[],"verdict":"auth_err"}'
    assert ended == f'{{"parameters":{{"session":"1","step":{refused}}}}}\0'.encode()


def test_a_portal_is_told_nothing_more(folder_for_others):
    """A configured caller, which may verify for its client and no more, hears the same for all."""
    daemon, people, portal = folder_for_others
    calls = []
    for sort in REFUSED:
        about, answers = people.of(sort, None)
        calls.append(("org.otpbridge.Verify.Check", {**about, "responses": answers}))
        calls.append(("org.otpbridge.Verify.Account", {"user": "ghost" if sort == "unknown user" else "bare"}))
    said = act_as.calls(daemon.verify_socket, portal, calls)
    assert {repr((reply.parameters, reply.error)) for reply in said[::2]} == {
        repr(({"verdict": "auth_err", "notices": []}, None))
    }
    assert {repr((reply.parameters, reply.error)) for reply in said[1::2]} == {
        repr(({"verdict": "perm_denied"}, None))
    }


def test_people_at_a_login_see_the_same(served, tmp_path):
    """Through PAM: the same question, the same code of the same name, and nothing told."""
    daemon, people = served
    line = f"auth required {pammodule.build()} socket={daemon.verify_socket}"
    seen = {}
    for sort in REFUSED:
        about, answers = people.of(sort, None)
        place = tmp_path / sort.replace(" ", "-")
        place.mkdir()
        outcome = Stack(place, line).login(about["user"], answers)
        seen[sort] = (outcome.code, [(message.style, message.text) for message in outcome.messages])
    assert len({repr(each) for each in seen.values()}) == 1, seen
    assert seen["unknown user"][0] == 7


# --- how long it takes ---


def told_apart(daemon, people, what):
    """The pairs of sorts that can be told apart by the time of a step, and by how much."""
    with Line(daemon.verify_socket) as line:

        def check(about, answers):
            return lambda: line.check(about, *answers)

        def talk(about, answers):
            return lambda: line.talk(about, *answers[:1])

        steps = []
        for way in (check, talk) if what.stack is None else (talk,):
            steps += times({sort: way(*people.of(sort, what.stack)) for sort in what.sorts}, what.rounds)
    found = {}
    for step, by_sort in enumerate(steps):
        for one, other in itertools.combinations(what.sorts, 2):
            probability = slower(by_sort[one], by_sort[other])
            apart = (statistics.median(by_sort[one]) - statistics.median(by_sort[other])) / 1000
            if abs(probability - 0.5) > what.bound and abs(apart) > what.noticeable:
                found[step, one, other] = (round(probability, 3), round(apart))
    return found


def measured(what, prefix=()):
    """The same, with a daemon and people of its own."""
    with fast_folder() as folder, Daemon(folder, config=CONFIG, prefix=prefix) as daemon:
        return told_apart(daemon, People(daemon), what)


MEASURED = {
    "code": Measurement(["unknown user", "required, no token", "wrong code", "used code", "disabled token"]),
    "locked": Measurement(["unknown user", "locked, right code", "locked, wrong code", "wrong code"]),
    "password": Measurement(FIRST, "portal", rounds=300 if LONG else 60, bound=0.25, noticeable=5000.0),
}


@pytest.mark.parametrize("what", list(MEASURED))
def test_refusals_take_equally_long(what):
    """The time of a refusal says next to nothing of its cause, in one call or in a conversation."""
    found = []
    for _ in range(TRIES):
        found.append(measured(MEASURED[what]))
        if not found[-1]:
            return
    pytest.fail(f"told apart (step, one, other: probability that one takes longer, microseconds): {found}")


@pytest.mark.parametrize("what", ["code", "password"])
def test_without_decoys_they_would_be_told_apart(what):
    """The same measurement of a daemon that judges nothing where there is no token: it sees the difference."""
    unguarded = [sys.executable, str(Path(__file__).parents[1] / "support" / "unguarded_daemon.py")]
    nobody, without, wrong, *_ = MEASURED[what].sorts
    for _ in range(TRIES):
        found = {(one, other) for _, one, other in measured(MEASURED[what], unguarded)}
        if {(nobody, wrong), (without, wrong)} <= found:
            return
    pytest.fail(f"not told apart: {found}")
