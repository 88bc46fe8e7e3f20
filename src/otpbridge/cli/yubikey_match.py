"""Which of the accounts on a key are tokens of ours, and where key and store differ. Pure."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from otpbridge.devices.keys import Account, Key, key_issuer
from otpbridge.model import Kind, State

if TYPE_CHECKING:
    from otpbridge.wire.messages import TokenFields


class Finding(enum.StrEnum):
    """What key and store say of each other."""

    MATCHES = "matches"
    NOT_RECORDED = "not recorded"
    """A token of this name is in force, and the store does not know that it is on this key."""
    PENDING = "pending"
    DISABLED = "disabled"
    REVOKED = "revoked"
    UNKNOWN = "unknown"
    """The store knows no such token."""
    MISSING = "missing"
    """The store believes that the token is on this key, and it is not."""
    SLOT = "in a slot"
    """A token that a slot types: which, cannot be read from the key."""


WORDS = {
    Finding.MATCHES: "in force, and recorded for this key",
    Finding.NOT_RECORDED: "in force, but not recorded for this key: was it put there by other means?",
    Finding.PENDING: "was never confirmed: an enrolment was cut off; remove it from the key",
    Finding.DISABLED: "its codes are refused until the token is enabled",
    Finding.REVOKED: "its token is revoked; remove it from the key",
    Finding.UNKNOWN: "not ours, or its token was deleted",
    Finding.MISSING: "recorded for this key, and not on it: revoke the token, or enrol it again",
    Finding.SLOT: "recorded for a slot of this key, which cannot be read",
}
DIFFERENCES = frozenset({Finding.NOT_RECORDED, Finding.PENDING, Finding.REVOKED, Finding.MISSING, Finding.DISABLED})
_OF_STATE = {State.PENDING: Finding.PENDING, State.DISABLED: Finding.DISABLED, State.REVOKED: Finding.REVOKED}
_BEST_FIRST = (State.ACTIVE, State.DISABLED, State.PENDING, State.REVOKED)


@dataclass(frozen=True, slots=True)
class Row:
    """One account or token of one key."""

    finding: Finding
    account: Account | None = None
    token: TokenFields | None = None


def same(account: Account, token: TokenFields) -> bool:
    """Whether an account has the name and kind of a token."""
    return (account.kind, account.issuer, account.name) == (token.kind, key_issuer(token.issuer), token.label)


def token_of(key: Key, account: Account, tokens: Iterable[TokenFields]) -> TokenFields | None:
    """The token that an account is, as far as its name tells: one recorded for this key first, then by state."""
    fitting = [token for token in tokens if same(account, token)]
    fitting.sort(key=lambda token: (not recorded(key, token), _BEST_FIRST.index(token.state)))
    return fitting[0] if fitting else None


def recorded(key: Key, token: TokenFields) -> bool:
    """Whether the store believes that a token is on this key."""
    return str(key.serial) in (token.serials or ())


def compare(key: Key, accounts: Sequence[Account], tokens: Sequence[TokenFields]) -> list[Row]:
    """What is on a key against what the store believes."""
    rows = []
    for account in accounts:
        token = token_of(key, account, tokens)
        rows.append(Row(_finding(key, token), account, token))
    seen = {row.token.id for row in rows if row.token is not None}
    for token in tokens:
        if recorded(key, token) and token.id not in seen and token.state in {State.ACTIVE, State.DISABLED}:
            rows.append(Row(Finding.MISSING if token.kind is Kind.TOTP else Finding.SLOT, None, token))
    return rows


def _finding(key: Key, token: TokenFields | None) -> Finding:
    if token is None:
        return Finding.UNKNOWN
    if token.state is State.ACTIVE:
        return Finding.MATCHES if recorded(key, token) else Finding.NOT_RECORDED
    return _OF_STATE[token.state]
