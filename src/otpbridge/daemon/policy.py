"""Who may do what, and when a login is let pass without a code."""

from __future__ import annotations

import asyncio
import enum
import pwd
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from otpbridge.config import CallerEntry, Config, Right, UnknownUsers
from otpbridge.errors import ConfigError
from otpbridge.model import LOCAL, Caller, Enforcement, Verdict


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
        self._grants: Mapping[int, _Grant] = dict(_grant(entry, uid_of) for entry in config.callers)

    @property
    def trusted(self) -> frozenset[int]:
        """The uids that act for many people."""
        return self._admins | frozenset(self._grants)

    def given(self, caller: Caller, client: str, right: Right) -> Authority:
        """The role that a caller has for every user of a client."""
        if caller.admin_socket or caller.uid in self._admins:
            return Authority.ADMIN
        grant = self._grants.get(caller.uid)
        if grant is not None and client in grant.clients and right in grant.rights:
            return Authority.CALLER
        return Authority.NONE

    async def authority(self, caller: Caller, client: str, user: str, right: Right) -> Authority:
        """The role in which a caller may act on one user: what is given to it, else itself."""
        given = self.given(caller, client, right)
        if given is not Authority.NONE or client != LOCAL:
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


def _grant(entry: CallerEntry, uid_of: Callable[[str], int | None]) -> tuple[int, _Grant]:
    uid = entry.user if isinstance(entry.user, int) else uid_of(entry.user)
    if uid is None:
        raise ConfigError(f"[[callers]] user: there is no system user {entry.user}; create it, or give its uid")
    return uid, _Grant(frozenset(entry.clients), frozenset(entry.may))


def passes_unasked(
    enforcement: Enforcement | None, *, has_token: bool, unknown: UnknownUsers, nullok: bool
) -> str | None:
    """Why a login is let pass without a question; None where a code is asked for.

    `enforcement` is None for a user who is not in the store. Such a user is asked and refused like anyone with a
    wrong code, unless the configuration or the PAM line says otherwise.
    """
    if enforcement is None:
        if nullok:
            return "user not in the store, nullok"
        if unknown is UnknownUsers.IGNORE:
            return "user not in the store, users.unknown = ignore"
        return None
    if enforcement is Enforcement.OPTIONAL and not has_token:
        return "optional, no token"
    return None


def on_empty_answer(enforcement: Enforcement | None, *, has_token: bool) -> tuple[Verdict, str]:
    """The verdict on an empty answer: only who need not show a code may leave it out. It counts as no guess."""
    if enforcement is Enforcement.OPTIONAL and has_token:
        return Verdict.IGNORE, "optional, empty answer"
    return Verdict.AUTH_ERR, "empty answer"


def account(enforcement: Enforcement | None, *, has_token: bool, unasked: str | None) -> tuple[Verdict, str]:
    """The verdict of PAM's account phase, which asks nothing: could this user have shown a code at all."""
    if unasked is not None:
        return Verdict.IGNORE, unasked
    if enforcement is None:
        return Verdict.PERM_DENIED, "user not in the store"
    if not has_token:
        return Verdict.PERM_DENIED, "required, no token"
    return Verdict.SUCCESS, "has a token"
