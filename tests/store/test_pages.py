"""Users and tokens in pages: all of them once, and none costs more the further on it is."""

from __future__ import annotations

import pytest
from sqlalchemy import event
from storerig import only, run, running

from otpbridge.model import Kind
from otpbridge.store import tokens, users

KINDS = (Kind.RECOVERY, Kind.REGISTRATION, Kind.PASSWORD)
NAMES = ["ann", "bob", "cecil", "Zoe", "émile", "a b", "z"]


def all_users(connection):
    """Every user, two a page."""
    found, after = [], None
    while page := users.page(connection, None, after, 2):
        found += page
        after = (page[-1].user.client, page[-1].user.name)
    return [state.user.name for state in found]


def all_tokens(connection):
    """Every token, two a page."""
    found, after = [], None
    while page := tokens.page(connection, None, after, 2, revoked=False):
        found += page
        last = page[-1]
        after = (last.token.client, last.token.user, last.seq)
    return [stored.token.id for stored in found]


async def filled(rig):
    """Three tokens of each, put in by turns; the ids in order of user and age."""
    for turn in range(3):
        for name in NAMES:
            await rig.put(name, f"{name}-{turn}", kind=KINDS[turn])
    return [f"{name}-{turn}" for name in sorted(NAMES) for turn in range(3)]


def test_all_come_once_and_in_order(tmp_path):
    """Whatever page a user's tokens are on."""

    async def work():
        async with running(tmp_path) as rig:
            expected = await filled(rig)
            assert rig.read(all_users) == sorted(NAMES)
            assert rig.read(all_tokens) == expected

    run(work())


@only("sqlite")
@pytest.mark.parametrize("read", [all_users, all_tokens])
def test_a_page_is_found_by_the_index(tmp_path, read):
    """None of what came before it is read again, in however large a store."""

    async def work():
        async with running(tmp_path) as rig:
            await filled(rig)
            with rig.store.engine.connect() as connection:
                asked = []
                event.listen(connection, "before_cursor_execute", lambda *given: asked.append(given[2:4]))
                read(connection)
                statement, parameters = asked[-1]
                plan = [row[-1] for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters)]
            assert "((client,name)>(?,?))" in plan[0]
            assert not [step for step in plan if "SCAN" in step]

    run(work())
