"""What of the audit log is told, in which words, and how followers are woken."""

from __future__ import annotations

import asyncio
import json
import os

import pytest
from stackrig import Bench
from storerig import RULE, run, running

from otpbridge.daemon.followers import Follower
from otpbridge.daemon.notices import _TABLE, _VERIFIED, telling
from otpbridge.model import Happening, Kind, Secret
from otpbridge.otp import recovery
from otpbridge.store import auditlog
from otpbridge.store.chain import AuditRow
from otpbridge.store.tokens import Named


def row(sequence=1, **entry):
    """A row of the audit log."""
    return AuditRow(sequence, json.dumps({"at": 1.0, "event": "verify", "client": "local", "user": "alice"} | entry))


def test_every_happening_has_its_row():
    """Each event of the interface is told of something, and nothing else is."""
    rows = [*_TABLE.values(), *_VERIFIED.values()]
    assert sorted(each.what for each in rows) == sorted(Happening)


@pytest.mark.parametrize("name", ["daemon started", "user added", "token started", "verify", "account"])
def test_what_is_no_news_is_not_told(name):
    """Plain logins, refusals and what the daemon does itself are for the audit log alone."""
    assert telling(row(event=name, verdict="auth_err", reason="wrong code")) is None


def test_why_a_login_was_refused_is_not_told():
    """A wait that began is told; the reason, the token and the process stay in the audit log."""
    found = telling(row(verdict="auth_err", reason="code already used", token="t1", pid=7, detail={"wait": 4}))
    event = found.event(None)
    assert (event.event, event.detail, event.token) == ("backoff_began", {"seconds": 4}, None)
    assert "used" not in event.text


def test_detail_goes_out_only_where_it_is_named():
    """What a later version writes into the audit log does not go out unseen."""
    found = telling(row(event="user reset", detail={"revoked": 2, "enforcement kept": True, "seed": "x"}))
    assert found.event(None).detail == {"revoked": 2, "kept": True}


def test_an_entry_of_an_older_version_is_told_too():
    """A missing number leaves a gap in the sentence, and no follower stuck."""
    assert telling(row(event="user reset")).event(None).text.endswith("revoked: ?.")


def test_a_token_is_told_by_kind_and_label():
    """People know their phone by its label."""
    event = telling(row(event="token revoked", token="t1")).event(Named(Kind.TOTP, "phone {user}"))
    assert event.text == "A token of alice (totp, phone {user}) was revoked."
    assert (event.kind, event.label) == ("totp", "phone {user}")


def told(bench):
    """The events of all that a store has in its log."""
    rows = bench.rig.read(lambda connection: auditlog.newest(connection, 1000))
    return [found.event(None) for each in rows if (found := telling(each)) is not None]


def test_a_wait_is_told_once(tmp_path):
    """Of all wrong codes the one that begins a wait is told, and what is turned away in it is not."""

    async def work():
        async with running(tmp_path) as rig:
            bench = Bench(rig, config=f"[throttle]\nlimit = {RULE.limit}")
            await bench.put(Kind.TOTP, Secret(b"1" * 20))
            for _ in range(RULE.limit + 3):
                await bench.check("000000")
                await bench.check("000000", user="nobody-of-that-name")
            (event,) = told(bench)
            assert (event.event, event.user, event.detail) == ("backoff_began", "alice", {"seconds": 1})
            bench.time += 1
            await bench.check("000000")
            assert [each.detail for each in told(bench)] == [{"seconds": 1}, {"seconds": 2}]

    run(work())


def test_a_recovery_code_that_was_used_is_told(tmp_path):
    """With how many are left; the same code again is no news."""

    async def work():
        async with running(tmp_path) as rig:
            bench = Bench(rig)
            codes, record = recovery.recovery_codes(os.urandom)
            await bench.put(Kind.TOTP, Secret(b"1" * 20))
            await bench.put(Kind.RECOVERY, record.pack(), token_id="r1")
            for code in (codes[0], codes[0], codes[1]):
                await bench.check(code.reveal().decode())
            found = [(each.event, each.token, each.detail) for each in told(bench)]
            assert found == [("recovery_code_used", "r1", {"left": 9}), ("recovery_code_used", "r1", {"left": 8})]

    run(work())


def test_rows_that_come_out_of_order_wake_a_follower():
    """A follower moves on by itself only over rows that follow; else it reads the log, and passes nothing over."""

    async def work():
        follower = Follower()
        follower.position = 1
        waiting = asyncio.ensure_future(follower.news())
        await asyncio.sleep(0)
        follower.heard([row(2)], worth=False)
        assert (follower.position, waiting.done()) == (2, False)
        follower.heard([row(4)], worth=False)
        await waiting
        assert follower.position == 2

    run(work())
