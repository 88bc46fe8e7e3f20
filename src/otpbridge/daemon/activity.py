"""Enroll.Activity: what of the audit log is for the person whom it is about.

A refusal never says why, nor which token it came close to: who has found a session open, or guesses, learns no more
from this list than from the verdicts.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import msgspec
from sqlalchemy import Connection

from otpbridge.config import Right
from otpbridge.daemon.desk import Counter, client_of, invalid, user_of
from otpbridge.daemon.notices import telling
from otpbridge.model import Deed, Enforcement, Verdict
from otpbridge.store import about, tokens, users
from otpbridge.store.chain import AuditRow
from otpbridge.store.tokens import Named
from otpbridge.wire.messages import AccountEvent, Activity, ActivityReply
from otpbridge.wire.service import Call

_USUAL = 20
_MOST = 100
_PAGE = 10
"""Events of a reply: with the longest names that there can be, they fit into a message."""
_ROWS = 500
_MOST_ROWS = 4000
"""Rows that are read at a time, and at most: many may be of what nobody is told."""

_LET_IN = frozenset({Verdict.SUCCESS, Verdict.IGNORE})
_BEGINNINGS = frozenset({"user added", "user removed"})
"""What was before belongs to nobody, or to somebody else who had the name."""
_DEEDS = {deed.value: deed for deed in Deed}

Found = tuple[str | None, AccountEvent]
"""An event, and the token that it names."""


class _Entry(msgspec.Struct):
    """An entry of the audit log, as far as it is needed here."""

    at: float
    event: str
    token: str | None = None
    verdict: Verdict | None = None
    service: str | None = None
    rhost: str | None = None
    host: str | None = None
    detail: dict[str, Any] = {}


_decode = msgspec.json.Decoder(_Entry).decode


class ActivityCounter(Counter):
    """The handler of Enroll.Activity for one socket."""

    async def activity(self, call: Call, asked: Activity) -> ActivityReply:
        """The newest events of a user, a page a reply."""
        client, user = client_of(asked.client), user_of(asked.user)
        await self.demand(call, client, user, Right.ENROL)
        count = _USUAL if asked.count is None else asked.count
        if not 1 <= count <= _MOST:
            raise invalid("count")
        store = self.desk.store
        if await store.read(partial(users.find, client=client, name=user)) is None:
            raise users.NoSuchUserError(client, user)
        found = await store.read_long(partial(_newest, client=client, name=user, count=count))
        ids = {token for token, _ in found if token is not None}
        named = await store.read(partial(tokens.named, ids=ids)) if ids else {}
        events = [_named(event, named.get(token or "")) for token, event in found]
        for start in range(0, len(events) - _PAGE, _PAGE):
            await call.send(ActivityReply(events=tuple(events[start : start + _PAGE])))
        rest = len(events) % _PAGE or _PAGE
        return ActivityReply(events=tuple(events[-rest:]))


def _newest(connection: Connection, client: str, name: str, count: int) -> list[Found]:
    """The newest events of a user, `count` at most."""
    found: list[Found] = []
    before: int | None = None
    for _ in range(0, _MOST_ROWS, _ROWS):
        rows = about.of_user(connection, client, name, before, _ROWS)
        whole = _told(rows, found, count)
        if whole or len(rows) < _ROWS:
            break
        before = rows[-1].sequence
    return found


def _told(rows: Sequence[AuditRow], found: list[Found], count: int) -> bool:
    """Add what is told of some rows; whether there is nothing more to add."""
    for row in rows:
        entry = _decode(row.entry)
        if entry.event in _BEGINNINGS:
            return True
        event = _event(row, entry)
        if event is not None:
            found.append(event)
            if len(found) == count:
                return True
    return False


def _event(row: AuditRow, entry: _Entry) -> Found | None:
    """A row as the person may know it; None where it is not for them."""
    if entry.event == "verify":
        return None if entry.detail.get("unanswered") else _login(entry)
    told = telling(row)
    deed = None if told is None else _DEEDS.get(told.row.what)
    if deed is None:
        return None
    said = entry.detail.get("enforcement")
    enforcement = Enforcement(said) if deed is Deed.ENFORCEMENT_SET and said in set(Enforcement) else None
    return entry.token, _event_of(entry, deed, enforcement=enforcement)


def _login(entry: _Entry) -> Found:
    let_in = entry.verdict in _LET_IN
    # A refused one may have a token too: that of a code which was right, but used.
    token = entry.token if let_in else None
    return token, _event_of(entry, Deed.LOGIN, let_in=let_in)


def _event_of(entry: _Entry, deed: Deed, **more: Any) -> AccountEvent:
    return AccountEvent(at=entry.at, event=deed, service=entry.service, rhost=entry.rhost, host=entry.host, **more)


def _named(event: AccountEvent, token: Named | None) -> AccountEvent:
    if token is None:
        return event
    return msgspec.structs.replace(event, kind=token.kind, label=token.label or None)
