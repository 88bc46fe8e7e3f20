"""Who may do what, and when a login is let pass without a code."""

from __future__ import annotations

import asyncio
import enum
import functools
import ipaddress
import pwd
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from otpbridge.config import CallerEntry, Config, Policy, Right, UnknownUsers
from otpbridge.errors import ConfigError
from otpbridge.model import LOCAL, Caller, Enforcement, Kind, Token, User, Verdict
from otpbridge.otp.recovery import codes_left
from otpbridge.store.store import Candidate
from otpbridge.verify.stack import Finding, Mode


class Authority(enum.Enum):
    """In what role a caller acts on a user."""

    NONE = "none"
    SELF = "self"
    CALLER = "caller"
    ADMIN = "admin"


@dataclass(frozen=True, slots=True)
class _Grant:
    clients: frozenset[str]
    rights: frozenset[Right]


class Rights:
    """The rights that the configuration gives. Root and the daemon's own uid are admin."""

    def __init__(self, config: Config, own_uid: int, uid_of: Callable[[str], int | None]) -> None:
        self._admins = frozenset({0, own_uid})
        self._uid_of = uid_of
        self._grants: Mapping[int, _Grant] = dict(
            _grant(entry, uid_of, number) for number, entry in enumerate(config.callers)
        )

    @property
    def trusted(self) -> frozenset[int]:
        """The uids that act for many people."""
        return self._admins | {uid for uid, grant in self._grants.items() if grant.rights - {Right.METRICS}}

    def given(self, caller: Caller, client: str, right: Right) -> Authority:
        """The role that a caller has for every user of a client. A uid on another host is none of ours."""
        if caller.host is not None:
            return Authority.NONE
        if caller.admin_socket or caller.uid in self._admins:
            return Authority.ADMIN
        grant = self._grants.get(caller.uid)
        if grant is not None and client in grant.clients and right in grant.rights:
            return Authority.CALLER
        return Authority.NONE

    def anywhere(self, caller: Caller, right: Right) -> bool:
        """Whether there is any client for whose users a caller has a right."""
        if caller.host is not None:
            return False
        if caller.admin_socket or caller.uid in self._admins:
            return True
        grant = self._grants.get(caller.uid)
        return grant is not None and right in grant.rights and bool(grant.clients)

    def may_watch(self, caller: Caller) -> bool:
        """Whether a caller may read the metrics, which are of no client."""
        if caller.host is not None:
            return False
        if caller.admin_socket or caller.uid in self._admins:
            return True
        grant = self._grants.get(caller.uid)
        return grant is not None and Right.METRICS in grant.rights

    async def authority(self, caller: Caller, client: str, user: str, right: Right) -> Authority:
        """The role in which a caller may act on one user: what is given to it, else itself."""
        given = self.given(caller, client, right)
        if given is not Authority.NONE or client != LOCAL or caller.host is not None:
            return given
        # In a thread: where accounts come from a directory, asking for one may take long.
        own = await asyncio.to_thread(self._uid_of, user)
        return Authority.SELF if own == caller.uid else Authority.NONE


def uid_of(name: str) -> int | None:
    """The uid of a system user; None if there is none."""
    try:
        return pwd.getpwnam(name).pw_uid
    except (KeyError, ValueError):
        return None


def _grant(entry: CallerEntry, uid_of: Callable[[str], int | None], number: int) -> tuple[int, _Grant]:
    uid = entry.user if isinstance(entry.user, int) else uid_of(entry.user)
    if uid is None:
        raise ConfigError(
            f"[[callers]] user: there is no system user {entry.user}; create it, or give its uid",
            ("callers", number, "user"),
        )
    return uid, _Grant(frozenset(entry.clients), frozenset(entry.may))


class Circumstances(NamedTuple):
    """What is known of an attempt when policy decides on it.

    `trusted` and `group` are the network and the group that exempt it, if any; `grace` says whether the same person
    passed just before.
    """

    known: UnknownUsers
    nullok: bool
    trusted: str | None = None
    group: str | None = None
    grace: bool = False
    enrols: bool = False


class Standing(NamedTuple):
    """What policy makes of an attempt: what is asked, why, and whether the person may leave a code out."""

    mode: Mode
    reason: str
    may_decline: bool = False


def effective(user: User, policy: Policy) -> Enforcement:
    """What holds for a user: what was set for them, else what policy says."""
    return user.enforcement or policy.enforcement


def standing(candidate: Candidate, policy: Policy, now: float, about: Circumstances) -> Standing:
    """Decide what is asked.

    A user who is not in the store is asked and refused like anyone with a wrong code, unless the configuration or
    the PAM line says otherwise. A locked one is asked too, and refused whatever the answer.
    """
    user = candidate.user
    if user is not None and user.locked_at is not None:
        return Standing(Mode.ASK, "user is locked")
    waived = _waived_for_all(about)
    if waived is None and user is None:
        waived = _waived_for_strangers(about)
    if waived is not None:
        return Standing(Mode.WAIVED, waived)
    if user is None:
        return Standing(Mode.ASK, "user not in the store: asked like anyone")
    return _of_user(user, candidate, effective(user, policy), now, about)


def is_usable(token: Token, now: float) -> bool:
    """Whether anything can still be shown with an active token: its time is not up, nor all of its codes spent."""
    if token.expires_at is not None and token.expires_at <= now:
        return False
    if token.kind is Kind.RECOVERY:
        return codes_left(token.moving_factor) > 0
    return token.kind is not Kind.REGISTRATION or token.moving_factor == 0


_STAND_INS = frozenset({Kind.RECOVERY, Kind.REGISTRATION})


def has_stand_in(candidate: Candidate, now: float, kinds: Collection[Kind] = _STAND_INS) -> bool:
    """Whether the user has a code that stands in for an authenticator."""
    return any(stored.token.kind in kinds and is_usable(stored.token, now) for stored in candidate.tokens)


_ASKED = {
    Enforcement.REQUIRED: Standing(Mode.ASK, "required, has an authenticator"),
    Enforcement.OPTIONAL: Standing(Mode.ASK, "optional, has an authenticator", may_decline=True),
}


def _of_user(
    user: User, candidate: Candidate, enforcement: Enforcement, now: float, about: Circumstances
) -> Standing:
    """What is asked of a user who is in the store, and not locked."""
    if user.exempt_until is not None and user.exempt_until > now:
        return Standing(Mode.WAIVED, "exempt for a time")
    if about.grace:
        return Standing(Mode.WAIVED, "grace period")
    if candidate.has_authenticator:
        return _ASKED[enforcement]
    if enforcement is Enforcement.OPTIONAL:
        if has_stand_in(candidate, now, {Kind.REGISTRATION}):
            # It was given out to be shown: for who has no password yet it is all there is.
            return Standing(Mode.ASK, "optional, no authenticator but a registration code", may_decline=True)
        return Standing(Mode.WAIVED, "optional, no authenticator")
    return _without_authenticator(candidate, now, enrols=about.enrols)


def _without_authenticator(candidate: Candidate, now: float, *, enrols: bool) -> Standing:
    """What is asked of a user who must have an authenticator and has none."""
    if has_stand_in(candidate, now):
        return Standing(Mode.ASK, "required, no authenticator but a code that stands in for one")
    if enrols:
        return Standing(Mode.ENROL, "required, no authenticator: enrols at login")
    return Standing(Mode.ASK, "required, no authenticator: cannot get in")


def _waived_for_all(about: Circumstances) -> str | None:
    """Why nobody is asked for a second factor here; None where people are."""
    if about.trusted is not None:
        return f"trusted network {about.trusted}"
    return None if about.group is None else f"exempt group {about.group}"


def _waived_for_strangers(about: Circumstances) -> str | None:
    """Why a user who is not in the store is not asked for a second factor; None where they are."""
    if about.nullok:
        return "user not in the store, nullok"
    return "user not in the store, users.unknown = ignore" if about.known is UnknownUsers.IGNORE else None


def amounts_to(found: Finding, mode: Mode, *, waived: bool, enrolled: bool) -> Verdict:
    """What a stack's finding amounts to for the caller: only `success` and `ignore` let in.

    `waived` says that no second factor was needed, `enrolled` that the user has enrolled in this attempt. In the mode
    ENROL the other rules of a second factor were left out: without the enrolment none is shown.
    """
    if waived and (found.undecided or found.verdict is Verdict.IGNORE):
        return Verdict.IGNORE
    if found.verdict is Verdict.SUCCESS and (enrolled or mode is not Mode.ENROL):
        return Verdict.SUCCESS
    return Verdict.AUTHINFO_UNAVAIL if found.verdict is Verdict.AUTHINFO_UNAVAIL else Verdict.AUTH_ERR


def trusted_network(rhost: str, policy: Policy) -> str | None:
    """The trusted network that a source is in. A name is in none: it is not resolved."""
    if not policy.trusted_networks or not rhost:
        return None
    try:
        address = ipaddress.ip_address(rhost)
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return next((each for each in policy.trusted_networks if address in _network(each)), None)


_network = functools.lru_cache(maxsize=1024)(ipaddress.ip_network)


def account(candidate: Candidate, stands: Standing, now: float, *, seen: bool, wanted: bool) -> tuple[Verdict, str]:
    """The verdict of PAM's account phase, which asks nothing: could this user have shown a code, and did they.

    `seen` says whether they did just before, from the same source at the same service; `wanted` that it must be so.
    """
    user = candidate.user
    if user is not None and user.locked_at is not None:
        return Verdict.ACCT_EXPIRED, "user is locked"
    if stands.mode is Mode.WAIVED:
        return Verdict.IGNORE, stands.reason
    if user is None:
        return Verdict.PERM_DENIED, "user not in the store"
    refused = _cannot_have_shown(candidate, stands, now, wanted=wanted)
    # What was shown may have been the last code that stood in for an authenticator.
    if refused is None or seen:
        return Verdict.SUCCESS, "has just shown a second factor" if seen else "has an authenticator"
    return Verdict.PERM_DENIED, refused


def _cannot_have_shown(candidate: Candidate, stands: Standing, now: float, *, wanted: bool) -> str | None:
    """Why a user who has not just shown a second factor is refused; None where that is not needed."""
    if not candidate.has_authenticator and not has_stand_in(candidate, now):
        return "required, no authenticator"
    return "no second factor was shown just before" if wanted and not stands.may_decline else None
