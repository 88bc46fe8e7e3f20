"""A copy that is put back: nothing that was spent, revoked, locked or ended since is good again."""

from __future__ import annotations

import contextlib
import io

import pytest
from sqlalchemy import select
from storerig import NOW, only, run, running

from otpbridge.model import Kind, State
from otpbridge.store import backup, relays, schema, tables, tokens, users
from otpbridge.store.engine import begin, open_engine
from otpbridge.store.relays import Issued

BACKENDS = ("sqlite",)
"""What is restored is a file."""


def copied(rig):
    """A backup of a store."""
    with rig.store.engine.connect() as connection:
        return io.BytesIO("".join(backup.dump(connection, rig.store.backup_key, NOW // 1000)).encode())


@contextlib.contextmanager
def restored(file, folder):
    """A backup in a store of its own, not merged with anything."""
    engine = open_engine(f"sqlite:///{folder / 'restored.db'}", folder)
    with engine.connect() as connection:
        schema.migrate(connection)
        connection.exec_driver_sql(begin(engine))
        backup.load(connection, file)
        yield connection
        connection.exec_driver_sql("ROLLBACK")
    engine.dispose()


def merged(tmp_path, prepare, later, also=lambda connection: None):
    """Prepare a store, copy it, go on; then the copy merged with what the store had become, as (token, user)."""
    found = {}

    async def work():
        async with running(tmp_path) as rig:
            await prepare(rig)
            file = copied(rig)
            await later(rig)
            with restored(file, tmp_path) as connection, rig.store.engine.connect() as replaced:
                backup.merge(connection, replaced)
                also(connection)
                found["token"] = {row.id: row for row in connection.execute(select(tables.token))}
                found["user"] = {row.name: row for row in connection.execute(select(tables.user))}

    run(work())
    return found["token"], found["user"]


def test_codes_of_a_list_struck_out_before_and_after_stay_struck_out(tmp_path):
    """The masks of both are one: the copy has codes struck out that the store has not, and the other way round."""

    async def prepare(rig):
        listed = await rig.put()
        for place in (0, 7, 62):
            await rig.attempt(strike=(listed.seq, 1 << place))

    async def later(rig):
        listed = rig.find("r1")
        await rig.change(lambda t: t.connection.execute(tables.token.update().values(moving_factor=0)))
        await rig.attempt(strike=(listed.seq, 1 << 3))

    found, _ = merged(tmp_path, prepare, later)
    assert found["r1"].moving_factor == 1 << 0 | 1 << 7 | 1 << 62 | 1 << 3


@pytest.mark.parametrize("kind", [Kind.TOTP, Kind.HOTP, Kind.YUBIOTP, Kind.REGISTRATION])
def test_counters_are_as_far_as_either_has_come(tmp_path, kind):
    """Spent since: taken over. Further on in the copy: kept."""

    async def prepare(rig):
        for name in ("one", "two"):
            token = await rig.put(token_id=name, kind=kind, label=name)
            await rig.attempt(spend=(token.seq, 10))

    async def later(rig):
        await rig.attempt(spend=(rig.find("one").seq, 25))
        back = tables.token.update().where(tables.token.c.id == "two").values(moving_factor=4)
        await rig.change(lambda t: t.connection.execute(back))

    found, _ = merged(tmp_path, prepare, later)
    assert (found["one"].moving_factor, found["two"].moving_factor) == (25, 10)


@pytest.mark.parametrize("kind", [Kind.TOTP, Kind.RECOVERY, Kind.PASSWORD])
def test_what_was_revoked_since_stays_revoked(tmp_path, kind):
    """Its seed is not in the store again; an old password does not come back by a copy."""

    async def prepare(rig):
        await rig.put(token_id="old", kind=kind)

    async def later(rig):
        await rig.put(token_id="new", kind=kind)

    found, _ = merged(tmp_path, prepare, later)
    assert [*found] == ["old"]
    assert (found["old"].state, found["old"].sealed, found["old"].fingerprint) == (State.REVOKED, None, None)


def test_locks_are_carried_over_and_ended_exemptions_stay_ended(tmp_path):
    """Locked since: locked. Exempt no longer, or not as long: so it stays. Nobody is let in longer than was said."""
    names = ("locked", "ended", "shortened", "lengthened", "kept", "removed")

    async def prepare(rig):
        for name in names:
            await rig.change(lambda t, n=name: users.add(t, "local", n))
            await rig.change(lambda t, n=name: users.exempt(t, "local", n, 1000))
        await rig.change(lambda t: users.lock(t, "local", "kept", locked=True))

    async def later(rig):
        def work(t):
            users.lock(t, "local", "locked", locked=True)
            users.lock(t, "local", "kept", locked=False)
            users.exempt(t, "local", "ended", None)
            users.exempt(t, "local", "shortened", 500)
            users.exempt(t, "local", "lengthened", 2000)
            users.remove(t, "local", "removed")

        await rig.change(work)

    _, found = merged(tmp_path, prepare, later)
    assert {name: found[name].exempt_until for name in names} == {
        "locked": 1000,
        "ended": None,
        "shortened": 500,
        "lengthened": 1000,
        "kept": 1000,
        "removed": 1000,
    }
    # Whoever was unlocked since is locked again, as in the copy: an admin sees to it.
    assert {name for name in names if found[name].locked_at} == {"locked", "kept"}


def test_where_nothing_remembers_what_was_spent_all_that_counts_is_disabled(tmp_path):
    """Counters and lists, active ones alone; codes of time go on past what was shown, and passwords are not spent."""

    async def work():
        async with running(tmp_path) as rig:
            for kind in Kind:
                await rig.put(token_id=str(kind), kind=kind)
            await rig.put("bob", "gone", kind=Kind.HOTP)
            await rig.change(lambda t: tokens.change_state(t, "gone", {State.ACTIVE}, State.REVOKED))
            with restored(copied(rig), tmp_path) as connection:
                assert backup.disable_counters(connection) == 4
                states = {row.id: row.state for row in connection.execute(select(tables.token))}
                backup.spend_past(connection, NOW // 1000, 5)
                clock = connection.execute(select(tables.token).where(tables.token.c.id == "totp")).one()
        disabled = {kind for kind in Kind if states[kind] == State.DISABLED}
        assert disabled == {Kind.HOTP, Kind.YUBIOTP, Kind.RECOVERY, Kind.REGISTRATION}
        assert states["gone"] == State.REVOKED
        assert clock.moving_factor == NOW // 1000 // 30 + 5 + 1

    run(work())


@only("sqlite", "postgresql")
def test_a_copy_has_no_successes_and_all_else(tmp_path):
    """Grace is not a thing to bring back; misses are, so that a copy does not give guesses."""

    async def work():
        async with running(tmp_path) as rig:
            token = await rig.token()
            await rig.attempt(spend=(token.seq, 10), source="192.0.2.1", service="sshd")
            await rig.attempt(source="192.0.2.1")
            with restored(copied(rig), tmp_path) as connection:
                assert connection.execute(select(tables.seen)).all() == []
                rows = {row.key: row.misses for row in connection.execute(select(tables.throttle))}
        assert rows == {"user/local/alice": 1, "source/192.0.2.1": 1}

    run(work())


def test_what_was_revoked_of_hosts_stays_revoked(tmp_path):
    """A copy from before the revocation does not let a host in again; one that was issued since can be revoked."""

    async def prepare(rig):
        await rig.change(lambda t: relays.record(t, Issued("a1", "web1", 1, 2)))
        await rig.change(lambda t: relays.record(t, Issued("b2", "web2", 1, 2)))

    async def later(rig):
        await rig.change(lambda t: relays.revoke(t, "web1", None))
        await rig.change(lambda t: relays.record(t, Issued("c3", "web3", 1, 2)))
        await rig.change(lambda t: relays.revoke(t, "elsewhere", "d4"))

    found = {}
    merged(tmp_path, prepare, later, also=lambda connection: found.update(all=relays.known(connection)))
    assert {(each.host, each.revoked_at is not None) for each in found["all"]} == {
        ("web1", True),
        ("web2", False),
        ("web3", False),
        ("elsewhere", True),
    }
