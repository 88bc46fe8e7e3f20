"""Tokens that are active at once, that stand in, and that go by themselves; and what a store forgets in time."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import func, select
from storerig import NOW, RULE, Rig, opened, run, running

from otpbridge.errors import StoreError
from otpbridge.model import Backoff, Enforcement, Kind, Secret, State
from otpbridge.store import tables, tokens, users
from otpbridge.store.settle import Settled, Sighting
from otpbridge.store.tokens import LastTokenError, NoSuchTokenError
from otpbridge.store.users import NoSuchUserError, NotConfirmedError

SECOND = 1000
STAND_INS = [Kind.RECOVERY, Kind.REGISTRATION, Kind.PASSWORD]


def in_store(tmp_path, work, **how):
    """Run `work(rig)` on a store."""

    async def whole():
        async with running(tmp_path, **how) as rig:
            await work(rig)

    run(whole())


# --- put ---


@pytest.mark.parametrize("kind", STAND_INS)
def test_what_is_put_takes_the_place_of_its_like(tmp_path, kind):
    """New recovery codes end the old ones, disabled or not; other kinds, labels and users keep theirs."""

    async def work(rig):
        await rig.put(token_id="old", kind=kind)
        await rig.put(token_id="older", kind=kind, label="other")
        await rig.change(lambda t: tokens.change_state(t, "older", {State.ACTIVE}, State.DISABLED))
        await rig.put("bob", "his", kind=kind)
        await rig.token(token_id="clock")
        await rig.put(token_id="new", kind=kind)
        await rig.put(token_id="newer", kind=kind, label="other")
        states = {name: rig.find(name).token.state for name in ("old", "older", "his", "clock", "new", "newer")}
        assert states.pop("old") is states.pop("older") is State.REVOKED
        assert set(states.values()) == {State.ACTIVE}
        assert rig.find("old").sealed is None

    in_store(tmp_path, work)


def test_nothing_is_put_for_nobody(tmp_path):
    """A user who was removed meanwhile gets no token without an owner."""

    async def work(rig):
        stored = await rig.put()
        await rig.change(lambda t: users.remove(t, "local", "alice"))
        with pytest.raises(StoreError):
            await rig.change(lambda t: tokens.put(t, stored.token, b"sealed", None))
        assert (await rig.store.candidate("local", "alice")).user is None

    in_store(tmp_path, work)


def test_two_passwords_may_be_the_same(tmp_path):
    """Only seeds are held against each other: a password says nothing of who else has it."""

    async def work(rig):
        one = await rig.put(token_id="p1", kind=Kind.PASSWORD)
        await rig.change(lambda t: users.add(t, "local", "bob"))
        for name in ("alice", "bob"):
            token = one.token._replace(id=f"of {name}", user=name)
            await rig.change(lambda t, token=token: tokens.put(t, token, b"sealed", None))

    in_store(tmp_path, work)


# --- what is an authenticator, and what stands in for one ---


def test_what_stands_in_is_no_second_factor_to_keep_or_require(tmp_path):
    """With recovery codes and a password alone nobody can be required; nor do they free the last authenticator."""

    async def work(rig):
        for number, kind in enumerate(STAND_INS):
            await rig.put(token_id=f"s{number}", kind=kind)
        with pytest.raises(NotConfirmedError):
            await rig.change(lambda t: users.enforce(t, "local", "alice", Enforcement.REQUIRED))
        assert not (await rig.store.candidate("local", "alice")).has_authenticator
        assert rig.read(lambda c: users.state(c, "local", "alice")).active_tokens == 0
        assert rig.read(lambda c: tokens.authenticators(c, "local", "alice")) == []
        await rig.token(label="phone")
        assert (await rig.store.candidate("local", "alice")).has_authenticator
        assert rig.read(lambda c: tokens.authenticators(c, "local", "alice")) == ["phone"]
        with pytest.raises(LastTokenError):
            await _revoke(rig, "t1")
        for number in range(len(STAND_INS)):
            await _revoke(rig, f"s{number}")
        await rig.token(token_id="t2", label="key", kind=Kind.HOTP)
        await rig.change(lambda t: tokens.change_state(t, "t2", {State.ACTIVE}, State.DISABLED))
        with pytest.raises(LastTokenError):
            await _revoke(rig, "t1")
        await _revoke(rig, "t2")

    in_store(tmp_path, work)


async def _revoke(rig, token_id):
    sources = {State.ACTIVE, State.DISABLED}
    await rig.change(lambda t: tokens.change_state(t, token_id, sources, State.REVOKED, keep_one=True))


def test_a_reset_leaves_the_password(tmp_path):
    """Who lost the phone has not lost the password: all else goes, pending tokens and recovery codes too."""

    async def work(rig):
        await rig.token(token_id="clock")
        await rig.token(token_id="waiting", state=State.PENDING, label="new")
        await rig.put(token_id="list")
        await rig.put(token_id="invitation", kind=Kind.REGISTRATION, expires_at=NOW // 1000 + 60)
        await rig.put(token_id="password", kind=Kind.PASSWORD)
        await rig.put("bob", "his")
        gone = await rig.change(lambda t: tokens.revoke_all(t, "local", "alice"))
        assert sorted(gone) == ["clock", "invitation", "list", "waiting"]
        assert {rig.find(each).sealed for each in gone} == {None}
        assert {rig.find(each).token.state for each in ("password", "his")} == {State.ACTIVE}

    in_store(tmp_path, work)


def test_a_registration_code_goes_when_its_time_is_up(tmp_path):
    """Used, disabled or neither; recovery codes and tokens in use stay, and so does one that is still good."""

    async def work(rig):
        soon, later = NOW // 1000 + 60, NOW // 1000 + 3600
        await rig.put(token_id="due", kind=Kind.REGISTRATION, expires_at=soon)
        await rig.put("bob", "disabled", kind=Kind.REGISTRATION, expires_at=soon)
        await rig.change(lambda t: tokens.change_state(t, "disabled", {State.ACTIVE}, State.DISABLED))
        await rig.put("carol", "good", kind=Kind.REGISTRATION, expires_at=later)
        await rig.put(token_id="list")
        await rig.token()
        assert await rig.change(tokens.expire, soon * SECOND - 1) == []
        gone = await rig.change(tokens.expire, soon * SECOND)
        assert sorted(gone) == [("disabled", "local", "bob"), ("due", "local", "alice")]
        with pytest.raises(NoSuchTokenError):
            rig.find("due")
        assert {rig.find(each).token.state for each in ("good", "list", "t1")} == {State.ACTIVE}

    in_store(tmp_path, work)


def test_a_user_is_as_was_said_last(tmp_path):
    """Enforcement given back to policy, locks, exemptions and notices, as a login reads them."""

    async def work(rig):
        await rig.token()

        async def now():
            user = (await rig.store.candidate("local", "alice")).user
            return user.enforcement, user.locked_at, user.exempt_until, user.notice

        assert await now() == (None, None, None, None)
        await rig.change(lambda t: users.enforce(t, "local", "alice", Enforcement.REQUIRED))
        await rig.change(lambda t: users.lock(t, "local", "alice", locked=True))
        await rig.change(lambda t: users.exempt(t, "local", "alice", 5))
        await rig.change(lambda t: users.leave_notice(t, "local", "alice", "hello"))
        assert await now() == (Enforcement.REQUIRED, NOW // 1000, 5, "hello")
        await rig.change(lambda t: users.enforce(t, "local", "alice", None))
        await rig.change(lambda t: users.lock(t, "local", "alice", locked=False))
        await rig.change(lambda t: users.exempt(t, "local", "alice", None))
        await rig.change(lambda t: users.leave_notice(t, "local", "alice", None))
        assert await now() == (None, None, None, None)
        with pytest.raises(NoSuchUserError):
            await rig.change(lambda t: users.lock(t, "local", "nobody", locked=True))

    in_store(tmp_path, work)


# --- successes that are remembered ---


HERE, THERE = "192.0.2.1", "192.0.2.2"


def test_a_success_is_remembered_where_it_was_and_nowhere_else(tmp_path):
    """By user, service and source; the newest counts. What was refused is not remembered."""

    async def work(rig):
        token = await rig.token()

        async def seen(service="sshd", source=HERE, name="alice"):
            return await rig.store.seen_at(Sighting("local", name, service, source))

        await rig.attempt(source=HERE, service="sshd", passed=False)
        assert await seen() is None
        for step, now in ((10, NOW), (11, NOW + 5 * SECOND)):
            await rig.attempt(spend=(token.seq, step), source=HERE, service="sshd", now=now)
            assert await seen() == now
        spent = await rig.attempt(spend=(token.seq, 11), source=HERE, service="sshd", now=NOW + 9 * SECOND)
        assert spent.settled is Settled.SPENT
        assert await seen() == NOW + 5 * SECOND
        assert [await seen("sudo"), await seen(source=THERE), await seen(name="bob")] == [None] * 3
        await rig.attempt(spend=(token.seq, 20), source=HERE, now=NOW + 20 * SECOND)
        assert await seen() == NOW + 5 * SECOND
        await rig.change(lambda t: users.forget(t, "local", "alice"))
        assert await seen() is None

    in_store(tmp_path, work)


def test_successes_are_forgotten_after_the_longest_grace(tmp_path):
    """Seven days, to the second: no policy can look further back."""

    async def work(rig):
        token = await rig.token()
        await rig.attempt(spend=(token.seq, 10), source=HERE, service="sshd")
        seen = Sighting("local", "alice", "sshd", HERE)
        week = 7 * 86_400 * SECOND
        await rig.change(rig.store.tidy, NOW + week)
        assert await rig.store.seen_at(seen) == NOW
        await rig.change(rig.store.tidy, NOW + week + 1)
        assert await rig.store.seen_at(seen) is None

    in_store(tmp_path, work)


# --- tidying ---

FORGET = RULE.forget


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rule=st.builds(
        lambda limit, grows, longest: Backoff(limit, 1 if grows else longest, longest, FORGET),
        st.integers(1, 4),
        st.booleans(),
        st.sampled_from([1, 10, FORGET // 2, FORGET, 3 * FORGET, 86_400_000]),
    ),
    misses=st.lists(st.sampled_from([0, 1, FORGET - 1, FORGET, 2 * FORGET]), min_size=1, max_size=6),
    after=st.sampled_from(
        [-86_400_000, -1, 0, 1, FORGET - 1, FORGET, FORGET + 1, 2 * FORGET, 5 * FORGET, 86_400_000]
    ),
    reserving=st.booleans(),
)
def test_tidying_takes_what_counts_nothing_and_keeps_the_rest(tmp_path_factory, rule, misses, after, reserving):
    """Whatever the rule, also where waits are longer than it takes to forget: nobody gets a guess by the broom."""

    async def work():
        store = opened(tmp_path_factory.mktemp("s"), rule)
        store.start()
        rig, now, left = Rig(store, rule), NOW, {"alice": (0, NOW, 0), HERE: (0, NOW, 0)}
        for elapsed in misses:
            now += elapsed
            ruling = await rig.attempt(source=HERE, now=now, reserving=reserving)
            if ruling.settled is Settled.MISSED:
                for key, (count, since, _) in left.items():
                    rest = rule.remaining(count, since, now)
                    kept = key == HERE and reserving and rest
                    state = (count + 1, since) if kept else (rest + 1, now)
                    left[key] = (*state, now + rule.wait(rest + 1))
        when = now + after
        await rig.change(store.tidy, when)
        for key, state in (("alice", rig.misses()), (HERE, rig.source_misses(HERE))):
            count, since, until = left[key]
            counts = rule.remaining(count, since, when) or rule.blocked_for(until, when)
            assert bool(state.misses) >= bool(counts), key
            # A clock that was set back may leave a row that counts nothing for a while, never the other way round.
            assert bool(state.misses) == bool(counts) or until > when, key
        await store.close()

    run(work())


def test_tidying_takes_rows_of_forgiven_misses_and_of_confirmations(tmp_path):
    """Nothing stays for ever: of sources behind which all passed, of tokens that were confirmed long ago."""

    async def work(rig):
        token = await rig.token()
        await rig.attempt(reserving=True, source=HERE)
        await rig.attempt(spend=(token.seq, 9), reserved=[NOW], source=HERE, now=NOW + 1)
        await rig.store.settle(rig.settlement()._replace(subject=users.token_key("t9")))
        assert rig.throttle(users.token_key("t9")).misses == 1
        await rig.change(rig.store.tidy, NOW + FORGET - 1)
        assert rig.throttle(users.token_key("t9")).misses == 1
        await rig.change(rig.store.tidy, NOW + FORGET)
        assert rig.read(lambda c: c.execute(select(func.count()).select_from(tables.throttle)).scalar()) == 0

    in_store(tmp_path, work)


def test_a_seed_of_a_list_is_the_store_s_own(tmp_path):
    """What is put is sealed as everything else, and opens again."""

    async def work(rig):
        stored = await rig.put(seed=Secret(b"k" * 32))
        assert rig.store.seed(stored).reveal() == b"k" * 32
        assert b"k" * 32 not in stored.sealed

    in_store(tmp_path, work)
