"""A user's whole life in any order, beside a model that says of each code whether it must be accepted.

The handlers, the judge and the store are the real ones, in this process, so that the clock can be moved.
"""

from __future__ import annotations

import asyncio
import os
import shutil
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from tempfile import mkdtemp
from types import SimpleNamespace

import pytest
from daemon_rig import LONG, programmed
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test
from stackrig import Bench
from storerig import Rig, opened

from otpbridge.daemon.admin_handlers import AdminCounter
from otpbridge.daemon.answers import guarded
from otpbridge.daemon.attempt import Question
from otpbridge.daemon.desk import Desk
from otpbridge.daemon.enroll_handlers import EnrollCounter
from otpbridge.daemon.policy import Rights
from otpbridge.model import Enforcement, Kind, OtpParameters
from otpbridge.otp.hotp import hotp
from otpbridge.store import tokens
from otpbridge.wire import messages
from otpbridge.wire.service import VarlinkError

pytestmark = [pytest.mark.system, pytest.mark.campaign, pytest.mark.timeout(3600)]

EXAMPLES, STEPS = (3000, 80) if LONG else (100, 50)
PHASES = [phase for phase in Phase if LONG or phase is not Phase.shrink]
"""To find the shortest life that shows a fault takes minutes; OTPBRIDGE_LONG=1 does it."""
DIGITS = 8
"""So many that no code is another one's by chance."""
LIMIT, FIRST_WAIT, LONGEST_WAIT, FORGET = 3, 10, 80, 600
CLOCKS = 10
PENDING, REGISTRATION, EXEMPTION = 300, 120, 90
MOST = 10
CONFIG = f"""
[throttle]
limit = {LIMIT}
first_wait = {FIRST_WAIT}
longest_wait = {LONGEST_WAIT}
forget = {FORGET}
[enrolment]
pending = {PENDING}
"""
AUTHENTICATORS = (Kind.TOTP, Kind.HOTP, Kind.YUBIOTP)


# --- the model ---


@dataclass
class Counted:
    """What back-off must know of a user, or of a token that is to be proven."""

    misses: int = 0
    last: int = 0
    not_before: int = 0

    def blocked(self, now):
        return 0 < self.not_before - self._as_of(now) <= LONGEST_WAIT

    def _as_of(self, now):
        """What seems to be a little older than the last miss has only waited, and counts as of then."""
        return self.last if now < self.last < now + CLOCKS else now

    def miss(self, now):
        now = self._as_of(now)
        forgotten = max(0, now - self.last) // FORGET
        self.misses = max(0, self.misses - forgotten) + 1
        self.last = now
        beyond = self.misses - LIMIT
        self.not_before = now + (min(LONGEST_WAIT, FIRST_WAIT * 2**beyond) if beyond >= 0 else 0)

    def hit(self):
        self.misses = self.last = self.not_before = 0


@dataclass
class Owned:
    """A token, and how its codes are made. `spent` has all that was accepted of it: steps, counters or places."""

    id: str
    kind: Kind
    state: str
    label: str = ""
    seed: bytes = b""
    key: object = None
    codes: tuple[str, ...] = ()
    until: int | None = None
    floor: int = 0
    drift: int = 0
    spent: set[int] = field(default_factory=set)
    tries: Counted = field(default_factory=Counted)

    def code(self, place):
        """The code of a time step, of a counter, of a touch or at a place of the list."""
        if self.codes:
            return self.codes[place % len(self.codes)]
        place = max(0, place)
        return self.key.code(place) if self.key else hotp(self.seed, place, OtpParameters(digits=DIGITS))

    def usual(self, now):
        """The place of the code that the person would show now."""
        if self.kind is Kind.TOTP:
            return now // 30
        if self.codes:
            return next((place for place in range(len(self.codes)) if place not in self.spent), 0)
        return self.floor

    def takes(self, place, now):
        """Whether the code of a place must be accepted, were it shown now."""
        if self.state != "active" or (self.until is not None and self.until <= now):
            return False
        if self.codes:
            return place % len(self.codes) not in self.spent
        return place >= max(self.floor, 0) and self.reaches(place, now, self.drift)

    def reaches(self, place, now, drift):
        if self.kind is Kind.TOTP:
            return abs(place - now // 30 - drift) <= 1 or place == now // 30
        return place <= self.floor + 10 if self.kind is Kind.HOTP else True

    def spend(self, place, now, drift):
        """Accept the code of a place."""
        self.spent.add(place % len(self.codes) if self.codes else place)
        self.floor = place + 1
        if self.kind is Kind.TOTP:
            off = place - now // 30 - drift
            self.drift = max(-10, min(10, drift + (off > 0) - (off < 0)))


# --- what is tested ---


class Bureau:
    """A store in memory, with a judge and the handlers before it; each life has a user of its own in it."""

    def __init__(self, folder):
        self.loop = asyncio.new_event_loop()
        self.store = opened(folder)
        self.names = (f"user{number}" for number in count())

        async def start():
            self.store.start()

        self.run(start())
        self.bench = Bench(Rig(self.store), config=CONFIG)
        self.desk = Desk(
            store=self.store,
            config=self.bench.config,
            rights=Rights(self.bench.config, os.geteuid(), lambda _: None),
            judge=self.bench.judge,
            clock=lambda: self.bench.time,
            random=os.urandom,
            host="example",
            started_at=0,
        )
        self._enroll = EnrollCounter(self.desk, admin=True)
        self._admin = AdminCounter(self.desk, None, None)
        self._handlers = {
            messages.Start: self._enroll.start,
            messages.Confirm: self._enroll.confirm,
            messages.Discard: self._enroll.discard,
            messages.NewRecoveryCodes: self._enroll.new_recovery_codes,
            messages.AddUser: self._admin.add_user,
            messages.ShowUser: self._admin.show_user,
            messages.SetEnforcement: self._admin.set_enforcement,
            messages.ResetUser: self._admin.reset_user,
            messages.ExemptUser: self._admin.exempt_user,
            messages.LockUser: self._admin.lock_user,
            messages.UnlockUser: self._admin.unlock_user,
            messages.IssueRegistrationCode: self._admin.issue_registration_code,
            messages.DisableToken: self._admin.disable_token,
            messages.EnableToken: self._admin.enable_token,
            messages.RemoveToken: self._admin.remove_token,
        }

    def run(self, work):
        return self.loop.run_until_complete(work)

    def call(self, request):
        """The reply, or the name of the error."""
        peer = SimpleNamespace(uid=0, gid=0, pid=1)
        call = SimpleNamespace(peer=peer, method=request.METHOD, connection=SimpleNamespace(state={}), more=False)
        try:
            return self.run(guarded(self._handlers[type(request)])(call, request))
        except VarlinkError as error:
            return error.name.rpartition(".")[2]

    def verdict(self, user, answer, *, talk):
        """What becomes of an answer, in one call or in a conversation."""
        subject = self.bench.subject(user)
        judge = self.bench.judge

        async def talked():
            conversation, step = await judge.begin(subject)
            return await judge.answer(conversation, [answer]) if isinstance(step, Question) else step

        return self.run(talked() if talk else judge.check(subject, [answer])).verdict.value

    def tidy(self):
        """What the daemon does once a minute."""

        def work(transaction):
            gone = tokens.expire(transaction)
            self.store.tidy(transaction)
            return [token for token, _, _ in gone]

        return self.run(self.desk.change(work))

    def close(self):
        self.run(self.store.close())
        self.loop.close()


PICK = st.integers(0, 1000)
BOTH = st.booleans()


class Life(RuleBasedStateMachine):
    """One user; `bureau` is set by the test."""

    bureau: Bureau

    def __init__(self):
        super().__init__()
        self.now = 1_800_000_000
        self.name = next(self.bureau.names)
        self.owned: list[Owned] = []
        self.enforcement: Enforcement | None = None
        self.locked = False
        self.exempt_until = 0
        self.misses = Counted()
        self.accepted: set[str] = set()
        self._at(0)
        assert not isinstance(self._call(messages.AddUser(user=self.name)), str)

    def _at(self, seconds):
        self.now += seconds
        self.bureau.bench.time = float(self.now)

    def _call(self, request):
        self.bureau.bench.time = float(self.now)
        return self.bureau.call(request)

    def _in(self, *states):
        return [token for token in self.owned if token.state in states]

    def _active(self):
        return [token for token in self._in("active") if token.kind in AUTHENTICATORS]

    def _of(self, pick, *kinds):
        found = [token for token in self.owned if not kinds or token.kind in kinds]
        return found[pick % len(found)]

    # --- enrolment ---

    @precondition(lambda self: len(self._in("active", "disabled")) < MOST - 1)
    @rule(kind=st.sampled_from(AUTHENTICATORS), label=st.sampled_from(["phone", "tablet"]))
    def start(self, kind, label):
        """Also of a label that there is already: that is to generate anew."""
        self._start(kind, label)

    @precondition(lambda self: len(self._in("active", "disabled")) < MOST - 1)
    @rule(kind=st.sampled_from(AUTHENTICATORS))
    def enrol(self, kind):
        token = self._start(kind, "phone")
        self._confirm(token, place := token.usual(self.now), token.code(place), right=True)

    def _start(self, kind, label):
        named = None if kind is Kind.YUBIOTP else label
        request = messages.Start(user=self.name, kind=kind, label=named, digits=DIGITS)
        reply = self._call(request)
        assert not isinstance(reply, str), reply
        for older in self._in("pending"):
            if older.kind is kind:
                older.state = "gone"
        key = programmed(reply) if kind is Kind.YUBIOTP else None
        token = Owned(
            reply.token, kind, "pending", key.public_id if key else label, bytes.fromhex(reply.seed_hex), key
        )
        token.until = self.now + PENDING
        self.owned.append(token)
        return token

    @precondition(lambda self: self._in("pending"))
    @rule(offset=st.sampled_from([0, 0, 0, -1, 1, -2, 2, 11]), right=st.sampled_from([True, True, False]), pick=PICK)
    def confirm(self, offset, right, pick):
        pending = self._in("pending")
        token = pending[pick % len(pending)]
        place = max(0, token.usual(self.now) + offset)
        self._confirm(token, place, token.code(place) if right else "00000000", right=right)

    @precondition(lambda self: self.owned)
    @rule(pick=PICK)
    def confirm_again(self, pick):
        """A code for a token that may be active, disabled, revoked or gone."""
        token = (
            self._of(pick, *AUTHENTICATORS) if any(t.kind in AUTHENTICATORS for t in self.owned) else self.owned[0]
        )
        if token.state != "pending":
            answer = self._call(messages.Confirm(token=token.id, code=token.code(token.usual(self.now))))
            assert answer in ({"NoSuchToken"} if token.state == "gone" else {"WrongState"}), answer

    def _confirm(self, token, place, code, *, right):
        reply = self._call(messages.Confirm(token=token.id, code=code))
        if token.until <= self.now:
            assert reply == "NoSuchToken"
        elif token.tries.blocked(self.now):
            assert reply == "Busy"
        elif right and token.reaches(place, self.now, 0):
            assert reply.confirmed
            token.state, token.until = "active", None
            token.spend(place, self.now, 0)
            self.accepted.add(code)
            replaced = {other.id for other in self._like(token)}
            assert set(reply.replaced) == replaced
            for other in self._like(token):
                other.state = "revoked"
        else:
            assert not reply.confirmed
            token.tries.miss(self.now)

    def _like(self, token):
        """Those that a token takes over from."""
        return [
            other
            for other in self._in("active", "disabled")
            if (other.kind, other.label) == (token.kind, token.label) and other is not token
        ]

    @precondition(lambda self: self._in("pending"))
    @rule(pick=PICK)
    def discard(self, pick):
        pending = self._in("pending")
        token = pending[pick % len(pending)]
        assert not isinstance(self._call(messages.Discard(token=token.id)), str)
        token.state = "gone"

    @rule()
    def make_recovery_codes(self):
        reply = self._call(messages.NewRecoveryCodes(user=self.name))
        if not self._active():
            assert reply == "NoAuthenticator"
            return
        self._put(Owned(reply.token, Kind.RECOVERY, "active", codes=reply.codes))

    @rule()
    def issue_registration_code(self):
        reply = self._call(messages.IssueRegistrationCode(user=self.name, seconds=REGISTRATION))
        self._put(Owned(reply.token, Kind.REGISTRATION, "active", codes=(reply.code,), until=self.now + REGISTRATION))

    def _put(self, token):
        self.owned.append(token)
        for other in self._like(token):
            other.state = "revoked"

    # --- verification ---

    @precondition(lambda self: self.owned)
    @rule(pick=PICK, talk=BOTH)
    def show_the_code_of_the_moment(self, pick, talk):
        token = self._of(pick)
        self._show(token, token.usual(self.now), talk)

    @precondition(lambda self: self._in("active"))
    @rule(pick=PICK, talk=BOTH)
    def log_in(self, pick, talk):
        active = self._in("active")
        token = active[pick % len(active)]
        self._show(token, token.usual(self.now), talk)

    @precondition(lambda self: self.owned)
    @rule(pick=PICK, offset=st.integers(-12, 12), talk=BOTH)
    def show_a_code_near_it(self, pick, offset, talk):
        token = self._of(pick)
        self._show(token, max(0, token.usual(self.now) + offset), talk)

    @precondition(lambda self: any(token.spent for token in self.owned))
    @rule(pick=PICK, talk=BOTH)
    def show_a_used_code(self, pick, talk):
        spent = [(token, place) for token in self.owned for place in sorted(token.spent)]
        self._show(*spent[pick % len(spent)], talk)

    @rule(code=st.sampled_from(["00000000", "x", "ccccccbcccccdddddddddddddddddddddddddddddddd"]), talk=BOTH)
    def show_something_else(self, code, talk):
        assert self._verdict(code, talk) == self._expected(accepts=False)

    @rule(talk=BOTH)
    def show_nothing(self, talk):
        verdict = self._verdict("", talk)
        optional = self.enforcement is not Enforcement.REQUIRED
        passes = self._waived() or (optional and not self.locked)
        assert verdict == ("ignore" if passes else "auth_err")

    def _waived(self):
        """Whether no second factor is asked for."""
        if self.locked:
            return False
        optional = self.enforcement is not Enforcement.REQUIRED
        return self.exempt_until > self.now or (optional and not self._active() and not self._invited())

    def _invited(self):
        """Whether there is a registration code that can still be shown."""
        mine = (token for token in self._in("active") if token.kind is Kind.REGISTRATION)
        return any(token.until > self.now and not token.spent for token in mine)

    def _show(self, token, place, talk):
        code = token.code(place)
        takes = token.takes(place, self.now)
        verdict = self._verdict(code, talk)
        assert verdict != "success" or code not in self.accepted, "no code is ever accepted twice"
        assert verdict == self._expected(accepts=takes)
        if verdict == "success":
            self.accepted.add(code)
            token.spend(place, self.now, token.drift)

    def _verdict(self, code, talk):
        self.bureau.bench.time = float(self.now)
        return self.bureau.verdict(self.name, code, talk=talk)

    def _expected(self, *, accepts):
        """The verdict on a code, which back-off counts."""
        if self._waived():
            return "ignore"
        if self.misses.blocked(self.now):
            return "maxtries"
        if accepts and not self.locked:
            self.misses.hit()
            return "success"
        self.misses.miss(self.now)
        return "auth_err"

    # --- what admins do ---

    @precondition(lambda self: self.owned)
    @rule(pick=PICK)
    def disable(self, pick):
        self._change(self._of(pick), messages.DisableToken, "active", "disabled")

    @precondition(lambda self: self.owned)
    @rule(pick=PICK)
    def enable(self, pick):
        self._change(self._of(pick), messages.EnableToken, "disabled", "active")

    def _change(self, token, request, source, target):
        reply = self._call(request(token=token.id))
        if token.state == source:
            assert reply.token.state == target
            token.state = target
        else:
            assert reply == ("NoSuchToken" if token.state == "gone" else "WrongState")

    @precondition(lambda self: self.owned)
    @rule(pick=PICK)
    def remove(self, pick):
        token = self._of(pick)
        reply = self._call(messages.RemoveToken(token=token.id))
        if token.state in {"gone", "revoked"}:
            assert reply == ("NoSuchToken" if token.state == "gone" else "WrongState")
        else:
            assert not isinstance(reply, str)
            token.state = "gone" if token.state == "pending" else "revoked"

    @rule(keep=BOTH)
    def reset(self, keep):
        revoked = self._in("pending", "active", "disabled")
        assert self._call(messages.ResetUser(user=self.name, keep_enforcement=keep)).revoked == len(revoked)
        for token in revoked:
            token.state = "revoked"
        self.misses.hit()
        if not keep:
            self.enforcement = Enforcement.OPTIONAL

    @rule(enforcement=st.sampled_from([*Enforcement, Enforcement.REQUIRED, None]), force=BOTH)
    def enforce(self, enforcement, force):
        reply = self._call(messages.SetEnforcement(user=self.name, enforcement=enforcement, force=force))
        if enforcement is Enforcement.REQUIRED and not force and not self._active():
            assert reply == "NotConfirmed"
        else:
            assert reply.user.own == enforcement
            self.enforcement = enforcement

    @rule(ends=st.sampled_from([False, False, True]))
    def exempt(self, ends):
        seconds = None if ends else EXEMPTION
        assert not isinstance(self._call(messages.ExemptUser(user=self.name, seconds=seconds, reason="x")), str)
        self.exempt_until = 0 if ends else self.now + EXEMPTION

    @rule(locked=st.sampled_from([True, False, False]))
    def lock(self, locked):
        request = messages.LockUser if locked else messages.UnlockUser
        assert self._call(request(user=self.name)).user.locked is locked
        self.locked = locked
        self.misses.hit()

    # --- time ---

    @rule(seconds=st.sampled_from([1, 29, 30, 31, 60, 90, 119, 120, 300, 600, 3600]))
    def time_passes(self, seconds):
        self._at(seconds)

    @rule(seconds=st.sampled_from([1, 30, 60, 90, 300, 3600]))
    def the_clock_is_set_back(self, seconds):
        self._at(-seconds)

    @precondition(lambda self: self.misses.blocked(self.now))
    @rule(to=st.sampled_from([0, -1, -3600]), talk=BOTH)
    def back_off_passes(self, to, talk):
        """It is over in time, not a second before; seen from an hour before, it is the clock that is wrong."""
        self._at(self.misses.not_before - self.now + to)
        self.show_something_else("00000000", talk)

    @precondition(lambda self: self.exempt_until > self.now)
    @rule(early=BOTH, talk=BOTH)
    def an_exemption_ends(self, early, talk):
        self._demand_a_code()
        self._at(self.exempt_until - self.now - early)
        self.show_something_else("00000000", talk)

    @precondition(lambda self: self._lapsing("active"))
    @rule(early=BOTH, talk=BOTH)
    def a_registration_code_lapses(self, early, talk):
        self._demand_a_code()
        self.exempt(ends=True)
        token = self._lapsing("active")[-1]
        self._at(token.until - self.now - early)
        self._show(token, 0, talk)

    @precondition(lambda self: self._lapsing("pending"))
    @rule(early=BOTH)
    def an_enrolment_lapses(self, early):
        token = self._lapsing("pending")[-1]
        self._at(token.until - self.now - early)
        place = token.usual(self.now)
        self._confirm(token, place, token.code(place), right=True)

    def _demand_a_code(self):
        self.enforce(Enforcement.REQUIRED, force=True)
        self.lock(locked=False)

    def _lapsing(self, state):
        """Those whose time is not up yet."""
        return [token for token in self._in(state) if token.until is not None and token.until > self.now]

    @rule()
    def tidy(self):
        self._at(0)
        gone = self.bureau.tidy()
        for token in self.owned:
            due = token.until is not None and token.until <= self.now and token.state != "revoked"
            if due and (token.state == "pending" or token.kind is Kind.REGISTRATION):
                assert token.state == "gone" or token.id in gone
                token.state = "gone"
        if self.misses.misses <= (self.now - self.misses.last) // FORGET and self.misses.not_before < self.now:
            self.misses.hit()

    @invariant()
    def the_admin_sees_what_is(self):
        shown = self._call(messages.ShowUser(user=self.name))
        assert shown.user.active_tokens == len(self._active())
        assert shown.user.locked is self.locked
        assert (shown.user.exempt_until is not None) is (self.exempt_until > self.now)
        listed = {token.id: token.state for token in shown.tokens}
        assert listed == {token.id: token.state for token in self._in("pending", "active", "disabled")}


@contextmanager
def bureau():
    memory = Path("/dev/shm")
    folder = Path(mkdtemp(prefix="otpb-", dir=memory if os.access(memory, os.W_OK) else None))
    try:
        made = Bureau(folder)
        yield made
        made.close()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def test_what_must_be_accepted_is_and_nothing_else_in_any_order_of_events():
    """Enrol, prove, log in, lose, reset, lock, exempt, set the clock: each answer is the one that the model says."""
    with bureau() as made:

        class Here(Life):
            bureau = made

        run_state_machine_as_test(
            Here,
            settings=settings(
                max_examples=EXAMPLES,
                stateful_step_count=STEPS,
                deadline=None,
                phases=PHASES,
                suppress_health_check=list(HealthCheck),
            ),
        )
