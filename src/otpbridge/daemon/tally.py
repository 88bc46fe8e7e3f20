"""What has been judged since the start, in plain numbers: a fraction of a microsecond a verification, and no lock.

Whatever callers say, there are only so many numbers: services are counted by name where they are well known, and
stacks until there are too many.
"""

from __future__ import annotations

import enum
from time import perf_counter

from otpbridge.model import Outcome, Token, Verdict
from otpbridge.store.histogram import SECONDS, Histogram

MOST = 2000
"""How many combinations of stack, service, kind and verdict are told apart."""
OTHER = "other"
NONE = "none"

SERVICES = {
    name: name
    for name in (
        "cockpit",
        "cron",
        "dovecot",
        "gdm-password",
        "lightdm",
        "login",
        "openvpn",
        "polkit-1",
        "portal",
        "ppp",
        "radiusd",
        "runuser",
        "samba",
        "sddm",
        "sshd",
        "su",
        "su-l",
        "sudo",
        "sudo-i",
        "vsftpd",
        "xrdp-sesman",
    )
} | {"": NONE}
"""Services that are counted by name."""


class Why(enum.StrEnum):
    """Why an attempt came out as it did."""

    ACCEPTED = "accepted"
    WRONG_CODE = "wrong_code"
    UNKNOWN_USER = "unknown_user"
    NO_TOKEN = "no_token"  # noqa: S105 - a reason, not a password
    CODE_USED = "code_used"
    EMPTY = "empty_answer"
    UNANSWERED = "unanswered"
    LEFT = "left"
    LOCKED = "locked"
    BACKOFF = "backoff"
    NOT_JUDGED = "not_judged"
    STORE = "store_failed"
    MUST_ENROL = "must_enrol"
    EXEMPT = "exempt"
    GRACE = "grace"
    OPTIONAL = "optional"
    NOT_IN_STORE = "not_in_store"
    NOT_ALLOWED = "not_allowed"
    OTHER = "other"


_WHY = {
    "code accepted": Why.ACCEPTED,
    "wrong code": Why.WRONG_CODE,
    "wrong code: user not in the store": Why.UNKNOWN_USER,
    "wrong code: no token": Why.NO_TOKEN,
    "code already used": Why.CODE_USED,
    "empty answer": Why.EMPTY,
    "not all prompts answered": Why.UNANSWERED,
    "left before the verdict": Why.LEFT,
    "user is locked": Why.LOCKED,
    "back-off, not judged": Why.BACKOFF,
    "not judged": Why.NOT_JUDGED,
    "the store could not be written": Why.STORE,
    "the store failed": Why.STORE,
    "required, and did not enrol": Why.MUST_ENROL,
    "exempt for a time": Why.EXEMPT,
    "grace period": Why.GRACE,
    "optional, no authenticator": Why.OPTIONAL,
    "optional, empty answer": Why.OPTIONAL,
    "user not in the store, nullok": Why.NOT_IN_STORE,
    "user not in the store, users.unknown = ignore": Why.NOT_IN_STORE,
    "not allowed to ask": Why.NOT_ALLOWED,
}
_PLAIN = {reason: why.value for reason, why in _WHY.items()}
_BEGINS = (("trusted network ", Why.EXEMPT), ("exempt group ", Why.EXEMPT))


class Tally:
    """The numbers of one daemon. They outlive a reload."""

    __slots__ = ("accounts", "reasons", "seconds", "verdicts")

    def __init__(self) -> None:
        self.verdicts: dict[tuple[str, str, str, str], int] = {}
        """By stack, service, kind of the token that was shown, and verdict."""
        self.accounts: dict[tuple[str, str], int] = {}
        """Of PAM's account phase, by service and verdict."""
        self.reasons: dict[str, int] = {why.value: 0 for why in Why}
        self.seconds = Histogram(SECONDS)
        """From the last answer of the person to the verdict."""

    def verified(self, stack: str, service: str, token: Token | None, outcome: Outcome, begun: float) -> None:
        """Count a verification. `begun` is when the last answer came (time.perf_counter)."""
        self.seconds.observe(perf_counter() - begun)
        self._count(stack, service, token, outcome)

    def given_up(self, stack: str, service: str, outcome: Outcome) -> None:
        """Count one whose end nobody waited for, or that was not begun."""
        self._count(stack, service, None, outcome)

    def account(self, service: str, outcome: Outcome) -> None:
        """Count an account phase."""
        key = (SERVICES.get(service, OTHER), outcome.verdict)
        self.accounts[key] = self.accounts.get(key, 0) + 1

    def _count(self, stack: str, service: str, token: Token | None, outcome: Outcome) -> None:
        verdict = outcome.verdict
        kind = NONE if token is None or verdict is not Verdict.SUCCESS else token.kind._value_
        # By their plain values: the hash of an enumeration's member is a call of a function.
        key = (stack, SERVICES.get(service, OTHER), kind, verdict._value_)
        verdicts = self.verdicts
        so_far = verdicts.get(key, 0)
        if not so_far and len(verdicts) >= MOST:
            key = (OTHER, OTHER, kind, verdict._value_)
            so_far = verdicts.get(key, 0)
        verdicts[key] = so_far + 1
        self.reasons[_PLAIN.get(outcome.reason) or why_of(outcome.reason).value] += 1


def why_of(reason: str) -> Why:
    """The kind of a reason that is made up of several."""
    # What verifiers note stands before it, and which of them failed after it.
    for part in reversed(reason.split("; ")):
        if (found := _WHY.get(part)) is not None:
            return found
    return next((why for begins, why in _BEGINS if reason.startswith(begins)), Why.OTHER)
