"""Users and tokens: every change is allowed only from where it may start."""

from __future__ import annotations

import asyncio
import sqlite3
import threading

import pytest
from sqlalchemy import select, text
from storerig import NOW, only, run, running

from otpbridge.errors import StoreError
from otpbridge.model import AuditEvent, Enforcement, Kind, Secret, State
from otpbridge.store import imports, lines, rekey, tables, tokens, users
from otpbridge.store.tokens import LastTokenError, NoSuchTokenError, SpentError, WrongStateError
from otpbridge.store.users import NoSuchUserError, NotConfirmedError, UserExistsError
from otpbridge.vault.keys import Keyring, MasterKey


def in_store(tmp_path, work):
    """Run `work(rig)` on a store."""

    async def whole():
        async with running(tmp_path) as rig:
            await work(rig)

    run(whole())


def test_required_is_refused_until_a_token_is_active(tmp_path):
    """Tested before enforced; only force overrides it."""

    async def work(rig):
        await rig.token(state=State.PENDING)
        for enforcement, force, error in (
            (Enforcement.REQUIRED, False, NotConfirmedError),
            (Enforcement.REQUIRED, True, None),
            (Enforcement.OPTIONAL, False, None),
        ):
            change = rig.change(
                lambda transaction, e=enforcement, f=force: users.enforce(transaction, "local", "alice", e, force=f)
            )
            if error is None:
                await change
            else:
                with pytest.raises(error):
                    await change
        with pytest.raises(NoSuchUserError):
            await rig.change(lambda t: users.enforce(t, "local", "nobody", Enforcement.REQUIRED))
        await rig.change(lambda t: tokens.confirm(t, "t1", 5, 0))
        await rig.change(lambda t: users.enforce(t, "local", "alice", Enforcement.REQUIRED))

    in_store(tmp_path, work)


def test_confirming_spends_the_code_and_replaces_the_same_label(tmp_path):
    """Old until new: the active token of that label is revoked by the confirmation, not before; others stay."""

    async def work(rig):
        await rig.token(token_id="old", label="phone")
        await rig.token(token_id="other", label="yubikey")
        await rig.token(token_id="new", label="phone", state=State.PENDING)
        assert rig.find("old").token.state is State.ACTIVE
        assert await rig.change(lambda t: tokens.confirm(t, "new", 77, -1)) == ["old"]
        new, old = rig.find("new"), rig.find("old")
        assert (new.token.state, new.token.moving_factor, new.token.drift) == (State.ACTIVE, 78, -1)
        assert (old.token.state, old.sealed) == (State.REVOKED, None)
        assert rig.find("other").token.state is State.ACTIVE
        with pytest.raises(WrongStateError):
            await rig.change(lambda t: tokens.confirm(t, "new", 79, 0))

    in_store(tmp_path, work)


def test_a_newer_pending_token_discards_the_older(tmp_path):
    """Generate twice: only the newest counts, per kind."""

    async def work(rig):
        await rig.token(token_id="one", state=State.PENDING)
        await rig.token(token_id="counter", state=State.PENDING, kind=Kind.HOTP)
        await rig.token(token_id="two", state=State.PENDING)
        with pytest.raises(NoSuchTokenError):
            rig.find("one")
        assert rig.find("two").token.state is State.PENDING
        assert rig.find("counter").token.state is State.PENDING

    in_store(tmp_path, work)


def test_a_pending_token_dies_after_its_time(tmp_path):
    """Too late to confirm, and tidied away with its owner named for the audit log."""

    async def work(rig):
        await rig.token(state=State.PENDING)
        late = NOW + 600_000
        with pytest.raises(NoSuchTokenError):
            await rig.change(lambda t: tokens.confirm(t, "t1", 5, 0), late)
        assert await rig.change(tokens.expire, late - 1000) == []
        assert await rig.change(tokens.expire, late) == [("t1", "local", "alice")]
        with pytest.raises(NoSuchTokenError):
            rig.find("t1")

    in_store(tmp_path, work)


def test_states_change_only_along_their_arrows(tmp_path):
    """active ⇄ disabled → revoked, and nothing comes back from revoked."""

    async def work(rig):
        await rig.token()

        async def change(source, target):
            await rig.change(lambda t: tokens.change_state(t, "t1", {source}, target))

        await change(State.ACTIVE, State.DISABLED)
        with pytest.raises(WrongStateError):
            await change(State.ACTIVE, State.DISABLED)
        await change(State.DISABLED, State.ACTIVE)
        await change(State.ACTIVE, State.REVOKED)
        assert rig.find("t1").sealed is None
        for source in (State.ACTIVE, State.DISABLED, State.PENDING):
            with pytest.raises(WrongStateError):
                await change(source, State.ACTIVE)
        with pytest.raises(NoSuchTokenError):
            await rig.change(lambda t: tokens.change_state(t, "none", {State.ACTIVE}, State.DISABLED))
        with pytest.raises(WrongStateError):
            await rig.change(lambda t: tokens.discard(t, "t1"))

    in_store(tmp_path, work)


def test_the_last_token_of_a_required_user_is_kept(tmp_path):
    """A user cannot lock themselves out; with another token, or when optional, the same change is done."""

    async def work(rig):
        await rig.token(token_id="one", label="a")

        def revoke(transaction):
            tokens.change_state(transaction, "one", {State.ACTIVE}, State.REVOKED, keep_one=True)

        await rig.change(lambda t: users.enforce(t, "local", "alice", Enforcement.REQUIRED))
        with pytest.raises(LastTokenError):
            await rig.change(revoke)
        await rig.token(token_id="two", label="b")
        await rig.change(revoke)
        assert rig.find("one").token.state is State.REVOKED

    in_store(tmp_path, work)


def test_resynchronising_spends_both_codes_and_takes_no_spent_ones(tmp_path):
    """Recorded codes cannot turn a counter back."""

    async def work(rig):
        await rig.token(kind=Kind.HOTP)
        await rig.change(lambda t: tokens.resynchronise(t, "t1", 40, 0))
        assert rig.find("t1").token.moving_factor == 41
        with pytest.raises(SpentError):
            await rig.change(lambda t: tokens.resynchronise(t, "t1", 40, 0))

    in_store(tmp_path, work)


def test_removing_a_user_takes_tokens_and_back_off_along(tmp_path):
    """Nothing of the user stays but the audit log."""

    async def work(rig):
        await rig.token()
        await rig.attempt()
        await rig.change(lambda t: users.remove(t, "local", "alice"))
        assert rig.misses().misses == 0
        with pytest.raises(NoSuchTokenError):
            rig.find("t1")
        with pytest.raises(NoSuchUserError):
            await rig.change(lambda t: users.remove(t, "local", "alice"))

    in_store(tmp_path, work)


def test_a_user_is_added_once(tmp_path):
    """Twice is an error; the same name in two clients is two users."""

    async def work(rig):
        await rig.change(lambda t: users.add(t, "local", "alice"))
        await rig.change(lambda t: users.add(t, "acme", "alice"))
        with pytest.raises(UserExistsError):
            await rig.change(lambda t: users.add(t, "local", "alice"))
        listed = rig.read(lambda c: users.page(c, None, None, 10))
        assert [(state.user.client, state.user.name) for state in listed] == [("acme", "alice"), ("local", "alice")]

    in_store(tmp_path, work)


def test_pages_hold_every_user_and_token_once(tmp_path):
    """Listing in pages of any size gives what listing at once gives."""

    async def work(rig):
        for number in range(7):
            await rig.token(f"u{number % 4}", f"t{number}", label=str(number))
        for most in (1, 2, 3, 50):
            seen, after = [], None
            while page := rig.read(lambda c, m=most, a=after: tokens.page(c, None, a, m, revoked=False)):
                seen += [stored.token.id for stored in page]
                after = (page[-1].token.client, page[-1].token.user, page[-1].seq)
            assert sorted(seen) == [f"t{number}" for number in range(7)]
            names, last = [], None
            while people := rig.read(lambda c, m=most, a=last: users.page(c, "local", a, m)):
                names += [state.user.name for state in people]
                last = (people[-1].user.client, people[-1].user.name)
            assert names == ["u0", "u1", "u2", "u3"]

    in_store(tmp_path, work)


def test_a_change_that_fails_takes_nothing_with_it(tmp_path):
    """Of three changes in one batch the middle one is undone, with its audit row; the others are done."""

    async def work(rig):
        def bad(transaction):
            users.add(transaction, "local", "half")
            transaction.audit(AuditEvent("never"))
            raise ZeroDivisionError

        import asyncio

        results = await asyncio.gather(
            rig.store.change(lambda t: users.add(t, "local", "one"), NOW),
            rig.store.change(bad, NOW),
            rig.store.change(lambda t: users.add(t, "local", "two"), NOW),
            return_exceptions=True,
        )
        assert [type(result) for result in results] == [type(None), StoreError, type(None)]
        names = [state.user.name for state in rig.read(lambda c: users.page(c, None, None, 10))]
        assert names == ["one", "two"]
        assert rig.read(rig.store.counts).audit_entries == 0

    in_store(tmp_path, work)


def test_the_same_seed_is_never_two_tokens(tmp_path):
    """One code would be good twice."""

    async def work(rig):
        seed = Secret(b"s" * 20)
        await rig.token(token_id="one", seed=seed)
        with pytest.raises(StoreError):
            await rig.token("bob", "two", seed=seed)

    in_store(tmp_path, work)


def test_an_import_is_all_or_nothing(tmp_path):
    """Staged rows are invisible; duplicates are found by line; dropped rows leave nothing."""

    async def work(rig):
        await rig.token("old", "old", seed=Secret(b"o" * 20))

        def staged(lines):
            rows = []
            for line, (name, seed) in enumerate(lines, 1):
                token = rig.find("old").token
                fresh = token._replace(id=f"i{line}", user=name, state=State.ACTIVE)
                rows.append((line, fresh, b"sealed", rig.store.fingerprint(Secret(seed))))
            return rows

        rows = staged([("a", b"1" * 20), ("b", b"2" * 20), ("a", b"1" * 20), ("c", b"o" * 20)])
        await rig.change(lambda t: imports.stage(t, "i", rows))
        assert (await rig.store.candidate("local", "a")).user is None
        found = await rig.change(lambda t: imports.duplicates(t, "i", 10))
        assert [line for line, _ in found] == [3, 4]
        await rig.change(lambda t: imports.drop(t, "i"))
        rows = staged([("a", b"1" * 20), ("a", b"2" * 20), ("old", b"3" * 20)])
        await rig.change(lambda t: imports.stage(t, "j", rows))
        assert await rig.change(lambda t: imports.finish(t, "j")) == 3
        assert len((await rig.store.candidate("local", "a")).tokens) == 2
        assert len((await rig.store.candidate("local", "old")).tokens) == 2
        with rig.store.engine.connect() as connection:
            assert connection.execute(select(tables.staged)).all() == []

    in_store(tmp_path, work)


def test_a_rotation_leaves_nothing_under_the_old_key(tmp_path):
    """All seeds and the store's own secret open under the new key alone."""

    async def work(rig):
        for number in range(450):
            await rig.token(f"u{number}", f"t{number}")
        vault = rig.store.vault
        seeds = [rig.store.seed(rig.find(f"t{number}")).reveal() for number in range(450)]
        old = vault.keyring.primary
        vault.keyring = Keyring(MasterKey.of(Secret(b"n" * 32)), (old,))
        await rig.change(lambda t: rekey.reseal_root(t, vault))
        assert rig.read(lambda c: rekey.stale(c, vault)) == 450
        while await rig.change(lambda t: rekey.reseal(t, vault)):
            pass
        vault.keyring = Keyring(vault.keyring.primary)
        assert [rig.store.seed(rig.find(f"t{number}")).reveal() for number in range(450)] == seeds
        assert rig.read(lambda c: rekey.root(c, vault)) is not None
        with rig.store.engine.connect() as connection:
            sealed = connection.execute(text("SELECT sealed FROM token UNION ALL SELECT value FROM meta")).scalars()
            assert not any(old.id == value[1:5] for value in sealed)

    in_store(tmp_path, work)


@pytest.mark.parametrize("kept", [True, False], ids=["kept", "undone"])
def test_a_login_sees_nothing_of_a_change_that_is_not_committed(tmp_path, kept):
    """A lock that is being put on, and may be taken back, neither refuses nor admits anybody before it is there."""

    async def work(rig):
        await rig.token()
        under_way, go_on = threading.Event(), threading.Event()

        def slow(transaction):
            users.lock(transaction, "local", "alice", locked=True)
            under_way.set()
            go_on.wait(10)
            if not kept:
                raise StoreError("undone")

        change = asyncio.ensure_future(rig.change(slow))
        await asyncio.to_thread(under_way.wait, 10)
        meanwhile = await rig.store.candidate("local", "alice")
        go_on.set()
        (outcome,) = await asyncio.gather(change, return_exceptions=True)
        after = await rig.store.candidate("local", "alice")
        assert (meanwhile.user.locked_at, isinstance(outcome, StoreError)) == (None, not kept)
        assert (after.user.locked_at is None) is not kept

    in_store(tmp_path, work)


@only("sqlite")
def test_a_login_sees_nothing_of_what_could_be_neither_committed_nor_undone(tmp_path, monkeypatch):
    """A transaction that a broken disk leaves open is not read."""

    def broken(*_):
        raise sqlite3.OperationalError("disk I/O error")

    async def work(rig):
        await rig.token()
        monkeypatch.setattr(lines.SqliteLine, "commit", broken)
        monkeypatch.setattr(lines.SqliteLine, "roll_back", broken)
        with pytest.raises(StoreError):
            await rig.change(lambda transaction: users.lock(transaction, "local", "alice", locked=True))
        assert (await rig.store.candidate("local", "alice")).user.locked_at is None

    in_store(tmp_path, work)
