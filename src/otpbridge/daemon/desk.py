"""What all handlers share: the parts of the daemon, who calls, and domain types as wire types."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from otpbridge.config import CLIENT_NAME, Config, Right
from otpbridge.daemon.judge import Judge
from otpbridge.daemon.policy import Authority, Rights, effective
from otpbridge.errors import StoreError
from otpbridge.model import LOCAL, AuditEvent, Backoff, Caller, Kind, Token
from otpbridge.otp.recovery import codes_left
from otpbridge.store import users
from otpbridge.store.settle import Ruling, Settled, Settlement
from otpbridge.store.store import Store
from otpbridge.store.users import UserState
from otpbridge.store.writer import Transaction
from otpbridge.wire.calls import SERVICE
from otpbridge.wire.messages import TokenFields, UserFields
from otpbridge.wire.service import Call, VarlinkError

T = TypeVar("T")

LONGEST_NAME = 256
_LONGEST_REASON = 500
_OATH = frozenset({Kind.TOTP, Kind.HOTP})


@dataclass(slots=True)
class Desk:
    """The parts of a running daemon. `config` and `rights` are replaced on reload, `judge` with them."""

    store: Store
    config: Config
    rights: Rights
    judge: Judge
    clock: Callable[[], float]
    random: Callable[[int], bytes]
    host: str
    started_at: int

    @property
    def now_ms(self) -> int:
        """The time in Unix milliseconds."""
        return int(self.clock() * 1000)

    def rule_of(self, client: str) -> Backoff:
        """Back-off of the users of a client, where no stack says otherwise."""
        return self.config.throttle.per_user(self.config.policy_of(client))

    async def change(self, work: Callable[[Transaction], T]) -> T:
        """Run a change in the store; it is on disk when this returns. Raises our own errors."""
        return await self.store.change(work, self.now_ms)


class Counter:
    """Where calls of one socket arrive: knows whether it is the admin socket."""

    def __init__(self, desk: Desk, *, admin: bool) -> None:
        self.desk = desk
        self._admin = admin

    def caller(self, call: Call) -> Caller:
        """Who calls, through which socket."""
        peer = call.peer
        return Caller(peer.uid, peer.gid, peer.pid, admin_socket=self._admin)

    async def demand(self, call: Call, client: str, user: str, right: Right) -> Authority:
        """The caller's role over a user. Raises PermissionDenied where there is none."""
        authority = await self.desk.rights.authority(self.caller(call), client, user, right)
        if authority is Authority.NONE:
            raise denied()
        return authority

    async def count(self, call: Call, token: Token, name: str, *, passed: bool) -> None:
        """Put a try at proving one token through back-off and into the audit log.

        Raises Busy where nothing is judged for this token now, so that its codes cannot be guessed.
        """
        interface = call.method.rpartition(".")[0]

        def conclude(ruling: Ruling) -> tuple[AuditEvent, Ruling]:
            reason = "code accepted" if passed else "wrong code"
            if ruling.settled is Settled.BLOCKED:
                reason = "back-off, not judged"
            return token_event(call, name, token, reason=reason), ruling

        ruling = await self.desk.store.settle(
            Settlement(
                users.token_key(token.id),
                None,
                passed,
                (),
                self.desk.now_ms,
                self.desk.rule_of(token.client),
                conclude,
            )
        )
        if ruling.settled is Settled.BLOCKED:
            raise VarlinkError(f"{interface}.Busy", {"retryAfter": -(-ruling.wait // 1000)})
        if ruling.settled is Settled.FAILED:
            raise StoreError("the store could not be written")


def denied() -> VarlinkError:
    """The caller may not do this."""
    return VarlinkError(f"{SERVICE}.PermissionDenied")


def invalid(parameter: str) -> VarlinkError:
    """A parameter cannot be what it is."""
    return VarlinkError(f"{SERVICE}.InvalidParameter", {"parameter": parameter})


def client_of(name: str | None) -> str:
    """The client of a call: `local` when left out. Raises InvalidParameter."""
    if name is None:
        return LOCAL
    if not CLIENT_NAME.fullmatch(name):
        raise invalid("client")
    return name


def user_of(name: str) -> str:
    """The user of a call. Raises InvalidParameter for a name that no user can have."""
    # No database keeps a text with a NUL in it.
    if not name or "\0" in name or len(name.encode()) > LONGEST_NAME:
        raise invalid("user")
    return name


def reason_of(reason: str | None, authority: Authority = Authority.CALLER) -> str | None:
    """A reason that a caller gives, for the audit log. Raises InvalidParameter.

    Who acts for themselves is not believed: nobody stands behind what they say.
    """
    if reason is not None and len(reason) > _LONGEST_REASON:
        raise invalid("reason")
    return None if authority is Authority.SELF else reason or None


def event(call: Call, name: str, **fields: Any) -> AuditEvent:
    """An audit event of what a caller did."""
    return AuditEvent(name, uid=call.peer.uid, pid=call.peer.pid, **fields)


def token_event(
    call: Call, name: str, token: Token, token_id: str | None = None, reason: str | None = None
) -> AuditEvent:
    """An audit event of what a caller did to a token, or to another one of the same user."""
    return event(call, name, client=token.client, user=token.user, token=token_id or token.id, reason=reason)


def token_fields(token: Token) -> TokenFields:
    """A token as it goes out: nothing of its seed or its moving factor."""
    parameters = token.parameters
    return TokenFields(
        id=token.id,
        user=token.user,
        client=token.client,
        kind=token.kind,
        state=token.state,
        label=token.label,
        issuer=token.issuer,
        algorithm=parameters.algorithm if token.kind in _OATH else None,
        digits=parameters.digits if token.kind in _OATH else None,
        period=parameters.period if token.kind is Kind.TOTP else None,
        drift=token.drift,
        codes_left=codes_left(token.moving_factor) if token.kind is Kind.RECOVERY else None,
        created_at=token.created_at,
        expires_at=token.expires_at,
        confirmed_at=token.confirmed_at,
        last_used_at=token.last_used_at,
        serials=token.serials or None,
    )


def user_fields(desk: Desk, state: UserState) -> UserFields:
    """A user as it goes out, with what back-off counts now."""
    held = desk.config.policy_of(state.user.client)
    rule = desk.config.throttle.per_user(held)
    now, throttle = desk.now_ms, state.throttle
    exempt_until = state.user.exempt_until
    left = rule.blocked_for(throttle.not_before, now)
    return UserFields(
        name=state.user.name,
        client=state.user.client,
        enforcement=effective(state.user, held),
        own=state.user.enforcement,
        locked=state.user.locked_at is not None,
        exempt_until=exempt_until if exempt_until is not None and exempt_until * 1000 > now else None,
        created_at=state.user.created_at,
        active_tokens=state.active_tokens,
        misses=rule.remaining(throttle.misses, throttle.last, now),
        refused=throttle.refused,
        retry_after=-(-left // 1000) if left else None,
    )
