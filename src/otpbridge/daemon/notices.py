"""What of the audit log people are told, and in which words: a row of a table for each event."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from otpbridge.model import Happening
from otpbridge.store.chain import AuditRow
from otpbridge.store.tokens import Named
from otpbridge.wire.messages import Event


class _Entry(msgspec.Struct):
    """An entry of the audit log, as far as it may be told. Why a verification was refused is not."""

    at: float
    event: str
    client: str | None = None
    user: str | None = None
    token: str | None = None
    reason: str | None = None
    uid: int | None = None
    service: str | None = None
    rhost: str | None = None
    host: str | None = None
    detail: dict[str, Any] = {}


_decode = msgspec.json.Decoder(_Entry).decode

_VERIFY = "verify"


@dataclass(frozen=True, slots=True)
class _Row:
    """How one event is told. `detail` names what goes out of an entry's detail, by its name there."""

    what: Happening
    text: str
    detail: tuple[tuple[str, str], ...] = ()


_TABLE: Mapping[str, _Row] = {
    "token confirmed": _Row(Happening.TOKEN_CONFIRMED, "{user} has a new authenticator{which}."),
    "token disabled": _Row(Happening.TOKEN_DISABLED, "A token of {user}{which} was disabled."),
    "token enabled": _Row(Happening.TOKEN_ENABLED, "A token of {user}{which} was enabled again."),
    "token revoked": _Row(Happening.TOKEN_REVOKED, "A token of {user}{which} was revoked."),
    "tokens imported": _Row(
        Happening.TOKENS_IMPORTED, "Tokens were imported: {tokens}.", (("tokens", "tokens"), ("pending", "pending"))
    ),
    "recovery codes made": _Row(Happening.RECOVERY_CODES_MADE, "{user} has new recovery codes."),
    "registration code issued": _Row(
        Happening.REGISTRATION_CODE_ISSUED, "A registration code was issued for {user}."
    ),
    "password set": _Row(Happening.PASSWORD_SET, "The password of {user} for the verifier `password` was set."),
    "user reset": _Row(
        Happening.USER_RESET,
        "The second factor of {user} was reset; tokens revoked: {revoked}.",
        (("revoked", "revoked"), ("enforcement kept", "kept")),
    ),
    "user locked": _Row(Happening.USER_LOCKED, "{user} was locked."),
    "user unlocked": _Row(Happening.USER_UNLOCKED, "{user} was unlocked."),
    "user exempted": _Row(
        Happening.USER_EXEMPTED, "{user} is asked for no second factor for {seconds} s.", (("seconds", "seconds"),)
    ),
    "exemption ended": _Row(Happening.EXEMPTION_ENDED, "The exemption of {user} was ended."),
    "enforcement set": _Row(
        Happening.ENFORCEMENT_SET,
        "The second factor of {user} was made {enforcement}.",
        (("enforcement", "enforcement"), ("forced", "forced")),
    ),
    "user removed": _Row(Happening.USER_REMOVED, "{user} was removed, with all tokens."),
}
"""By the name of the event in the audit log."""

_RECOVERY, _REGISTRATION, _WAIT = "recovery code of", "registration code", "wait"
_VERIFIED: Mapping[str, _Row] = {
    _RECOVERY: _Row(
        Happening.RECOVERY_CODE_USED, "A recovery code of {user} was used; codes left: {left}.", (("left", "left"),)
    ),
    _REGISTRATION: _Row(Happening.REGISTRATION_CODE_USED, "The registration code of {user} was used."),
    _WAIT: _Row(
        Happening.BACKOFF_BEGAN,
        "After wrong codes, nothing is judged for {user} for {seconds} s.",
        ((_WAIT, "seconds"),),
    ),
}
"""Of a verification, by what its detail has."""


@dataclass(frozen=True, slots=True)
class Telling:
    """An entry of the audit log that people are told. `token` is the one that it is about."""

    sequence: int
    client: str
    token: str | None
    entry: _Entry
    row: _Row

    def event(self, named: Named | None) -> Event:
        """What goes out, given what the token is called; None where there is none, or no longer."""
        entry = self.entry
        detail = {name: entry.detail[key] for key, name in self.row.detail if key in entry.detail}
        which = "" if named is None else f" ({named.kind}, {named.label})" if named.label else f" ({named.kind})"
        text = self.row.text.format_map(_Words(detail, user=entry.user or "", which=which))
        if entry.reason is not None and entry.event != _VERIFY:
            detail["reason"] = entry.reason
        return Event(
            sequence=self.sequence,
            at=entry.at,
            event=self.row.what,
            text=text,
            client=self.client,
            user=entry.user,
            token=self.token,
            kind=None if named is None else named.kind,
            label=None if named is None else named.label,
            by=entry.uid,
            service=entry.service,
            rhost=entry.rhost,
            host=entry.host,
            detail=detail or None,
        )


class _Words(dict[str, Any]):
    """What a text may name. An entry that an older version wrote may lack some of it."""

    def __missing__(self, name: str) -> str:
        return "?"


def telling(row: AuditRow) -> Telling | None:
    """An entry of the audit log as one that people are told; None where they are not."""
    entry = _decode(row.entry)
    if entry.client is None:
        return None
    if entry.event != _VERIFY:
        found = _TABLE.get(entry.event)
        return None if found is None else Telling(row.sequence, entry.client, entry.token, entry, found)
    for name, found in _VERIFIED.items():
        if name in entry.detail:
            token = None if name == _WAIT else entry.detail[name]
            return Telling(row.sequence, entry.client, token, entry, found)
    return None
