"""org.otpbridge.Enroll: new tokens, the codes that prove them, and what users may change themselves."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from otpbridge.config import Policy, Right
from otpbridge.daemon.desk import (
    Counter,
    Desk,
    client_of,
    denied,
    event,
    invalid,
    reason_of,
    token_event,
    token_fields,
    user_of,
)
from otpbridge.daemon.ids import new_token_id
from otpbridge.daemon.policy import Authority, effective
from otpbridge.daemon.shown import shown_factor
from otpbridge.daemon.verify_handlers import proven
from otpbridge.enroll import otpauth, seeds
from otpbridge.enroll.names import check_text
from otpbridge.enroll.otpauth import OtpauthKey
from otpbridge.errors import EnrolError
from otpbridge.model import (
    Enforcement,
    Kind,
    OtpParameters,
    Secret,
    State,
    Token,
)
from otpbridge.otp import recovery, yubiotp
from otpbridge.otp.diagnose import Fault, counter_fault, fault
from otpbridge.store import tokens, users
from otpbridge.store.tokens import NoSuchTokenError, StoredToken, WrongStateError
from otpbridge.store.writer import Transaction
from otpbridge.vault.seal import token_identity
from otpbridge.verify.builtin.password import check_strength, hash_password
from otpbridge.wire.messages import (
    ENROLL,
    ChooseEnforcement,
    Confirm,
    ConfirmReply,
    Discard,
    Empty,
    NewRecoveryCodes,
    RecoveryCodesReply,
    Remove,
    SetPassword,
    SetPasswordReply,
    Start,
    StartReply,
    Tokens,
    TokensReply,
)
from otpbridge.wire.service import Call, VarlinkError

_SERIAL = re.compile(r"[0-9A-Za-z-]{1,32}")
_MOST_SERIALS = 8

PROOF_SECONDS = 300
"""How long a success on a connection counts as proof that the user is there."""


class EnrollCounter(Counter):
    """Handlers of org.otpbridge.Enroll for one socket."""

    async def start(self, call: Call, asked: Start) -> StartReply:
        """Make a pending token; the only reply that holds its seed."""
        client, user = client_of(asked.client), user_of(asked.user)
        authority = await self.demand(call, client, user, Right.ENROL)
        reason = reason_of(asked.reason, authority)
        check_text(user, "user name")
        await self.demand_proof(call, authority, client, user)
        desk = self.desk
        held = desk.config.policy_of(client)
        parameters = _parameters(asked, held)
        new = _new_secret(desk, asked.kind, parameters)
        now = int(desk.clock())
        token = Token(
            id=new_token_id(desk.random),
            user=user,
            client=client,
            kind=asked.kind,
            state=State.PENDING,
            parameters=parameters,
            label=(new.label or user) if asked.label is None else asked.label,
            issuer=desk.config.issuer_of(client, desk.host) if asked.issuer is None else asked.issuer,
            created_at=now,
            expires_at=now + desk.config.enrolment.pending,
        )
        uri = None
        if token.kind is not Kind.YUBIOTP:
            uri = otpauth.build(OtpauthKey(token.kind, new.sealed, parameters, token.label, token.issuer))
        else:
            check_text(token.label, "label")
        sealed = desk.store.vault.seal(new.sealed, token_identity(token))
        fingerprint = desk.store.fingerprint(new.seed)

        await desk.change(starting(call, token, sealed, fingerprint, held, reason=reason))
        return StartReply(
            token=token.id,
            user=user,
            client=client,
            kind=token.kind,
            state=token.state,
            seed_hex=seeds.to_hex(new.seed),
            seed_base32=None if uri is None else seeds.to_base32(new.seed),
            uri=uri,
            public_id=new.public_id,
            private_id=new.private_id,
            expires_in=desk.config.enrolment.pending,
        )

    async def confirm(self, call: Call, asked: Confirm) -> ConfirmReply:
        """Prove a pending token with a code, which is spent."""
        stored = await self.own(call, asked.token)
        token = stored.token
        desk = self.desk
        now = desk.clock()
        serials = _serials(asked.serials or ())
        check_pending(token, now)
        if token.kind is Kind.FIDO2:
            raise EnrolError("a security key does not show codes: its registration ends with FinishFido2")
        seed = desk.store.seed(stored)
        found = shown_factor(desk.config.window, token, seed, asked.code, now)
        await self.count(call, token, "token confirmation", passed=found is not None)
        if found is None:
            return _refused(token, _explain(desk, token, seed, asked.code, now))
        spent, drift = found

        def work(transaction: Transaction) -> list[str]:
            replaced = tokens.confirm(transaction, token.id, spent, drift, serials)
            confirmed(call, transaction, token, replaced, serials)
            return replaced

        replaced = await desk.change(work)
        return ConfirmReply(confirmed=True, state=State.ACTIVE, replaced=tuple(replaced))

    async def discard(self, call: Call, asked: Discard) -> Empty:
        """Drop a pending token."""
        token = (await self.own(call, asked.token)).token

        def work(transaction: Transaction) -> None:
            tokens.discard(transaction, token.id)
            transaction.audit(token_event(call, "token discarded", token))

        await self.desk.change(work)
        return Empty()

    async def new_recovery_codes(self, call: Call, asked: NewRecoveryCodes) -> RecoveryCodesReply:
        """Make a list of recovery codes; the only reply that holds them."""
        client, user = client_of(asked.client), user_of(asked.user)
        authority = await self.demand(call, client, user, Right.ENROL)
        await self.demand_proof(call, authority, client, user)
        desk = self.desk
        codes, record = recovery.recovery_codes(desk.random)
        token = active_token(desk, Kind.RECOVERY, client, user)
        sealed = desk.store.vault.seal(record.pack(), token_identity(token))

        def work(transaction: Transaction) -> None:
            if not users.state(transaction.connection, client, user).active_tokens:
                raise users.NoAuthenticatorError(client, user)
            replace_token(call, transaction, token, sealed, "recovery codes made")

        await desk.change(work)
        return RecoveryCodesReply(token=token.id, codes=tuple(code.reveal().decode() for code in codes))

    async def set_password(self, call: Call, asked: SetPassword) -> SetPasswordReply:
        """Set the password of the `password` verifier."""
        client, user = client_of(asked.client), user_of(asked.user)
        if await self.demand(call, client, user, Right.ENROL) is Authority.SELF:
            raise denied()
        check_text(user, "user name")
        desk = self.desk
        check_strength(asked.password, user, desk.config.policy_of(client).password_length)
        # In a thread: it takes as long as guessing one is to take.
        hashed = await asyncio.to_thread(hash_password, asked.password, desk.random)
        token = active_token(desk, Kind.PASSWORD, client, user)
        sealed = desk.store.vault.seal(hashed, token_identity(token))

        def work(transaction: Transaction) -> None:
            if users.ensure(transaction, client, user):
                transaction.audit(event(call, "user added", client=client, user=user))
            replace_token(call, transaction, token, sealed, "password set")

        await desk.change(work)
        return SetPasswordReply(token=token.id)

    async def list_tokens(self, call: Call, asked: Tokens) -> TokensReply:
        """A user's tokens."""
        client, user = client_of(asked.client), user_of(asked.user)
        await self.demand(call, client, user, Right.ENROL)
        found = await self.desk.store.read(lambda connection: users.find(connection, client, user))
        if found is None:
            raise users.NoSuchUserError(client, user)
        listed = await self.desk.store.read(lambda connection: tokens.of_user(connection, client, user))
        return TokensReply(
            enforcement=effective(found, self.desk.config.policy_of(client)),
            tokens=tuple(token_fields(stored.token) for stored in listed),
        )

    async def remove(self, call: Call, asked: Remove) -> Empty:
        """Revoke a token of one's own, or of a user of the caller."""
        stored = await self.own(call, asked.token)
        token = stored.token
        authority = await self.demand(call, token.client, token.user, Right.ENROL)
        reason = reason_of(asked.reason, authority)
        await self.demand_proof(call, authority, token.client, token.user)
        await self.desk.change(
            revoking(call, token, reason=reason, keep_one=self.desk.config.policy_of(token.client))
        )
        return Empty()

    async def set_enforcement(self, call: Call, asked: ChooseEnforcement) -> Empty:
        """The how-to's REQUIRED and NOT REQUIRED."""
        client, user = client_of(asked.client), user_of(asked.user)
        authority = await self.demand(call, client, user, Right.ENROL)
        reason = reason_of(asked.reason, authority)
        if asked.enforcement is Enforcement.OPTIONAL:
            await self.demand_proof(call, authority, client, user)
        await self.desk.change(enforcing(call, client, user, asked.enforcement, reason=reason))
        return Empty()

    async def own(self, call: Call, token_id: str) -> StoredToken:
        """A token that the caller may act on; to all others it does not exist."""
        stored = await self.desk.store.read(lambda connection: tokens.find(connection, token_id))
        token = stored.token
        authority = await self.desk.rights.authority(self.caller(call), token.client, token.user, Right.ENROL)
        if authority is Authority.NONE:
            raise NoSuchTokenError(token_id)
        return stored

    async def demand_proof(self, call: Call, authority: Authority, client: str, user: str) -> None:
        """A user who acts for themselves and has a token must have shown it: a stolen session is not the user."""
        if authority is not Authority.SELF:
            return
        candidate = await self.desk.store.candidate(client, user)
        if candidate.has_authenticator and not proven(call, user, self.desk.clock(), PROOF_SECONDS):
            raise VarlinkError(f"{ENROLL}.ProofNeeded")


def check_pending(token: Token, now: float) -> None:
    """Raise WrongStateError, or NoSuchTokenError where its time is up, unless a token waits to be proven."""
    if token.state is not State.PENDING:
        raise WrongStateError(token.id, token.state)
    if token.expires_at is not None and token.expires_at <= now:
        raise NoSuchTokenError(token.id)


def starting(
    call: Call, token: Token, sealed: bytes, fingerprint: bytes | None, held: Policy, *, reason: str | None = None
) -> Callable[[Transaction], None]:
    """The change that adds a pending token, with its user where there is none yet."""
    client, user = token.client, token.user

    def work(transaction: Transaction) -> None:
        labels = tokens.authenticators(transaction.connection, client, user)
        if token.label not in labels and len(labels) >= held.tokens_per_user:
            raise EnrolError(f"{user} has {len(labels)} authenticators, as many as allowed; remove one first")
        if users.ensure(transaction, client, user):
            transaction.audit(event(call, "user added", client=client, user=user, reason=reason))
        for older in tokens.add(transaction, token, sealed, fingerprint):
            discarded = "a newer enrolment was started"
            transaction.audit(token_event(call, "token discarded", token, older, discarded))
        detail: dict[str, str | int | bool] = {"kind": token.kind, "label": token.label}
        whose = {"client": client, "user": user, "token": token.id}
        transaction.audit(event(call, "token started", **whose, reason=reason, detail=detail))

    return work


def confirmed(
    call: Call, transaction: Transaction, token: Token, replaced: Sequence[str], serials: Sequence[str] = ()
) -> None:
    """Write down that a token was proven, and which ones it took over from."""
    detail: dict[str, str | int | bool] | None = {"serials": " ".join(serials)} if serials else None
    whose = {"client": token.client, "user": token.user, "token": token.id}
    transaction.audit(event(call, "token confirmed", **whose, detail=detail))
    for older in replaced:
        transaction.audit(token_event(call, "token revoked", token, older, f"replaced by {token.id}"))


def active_token(desk: Desk, kind: Kind, client: str, user: str, expires_at: int | None = None) -> Token:
    """A token that is active at once: it was made here, and there is nothing to prove."""
    now = int(desk.clock())
    return Token(
        id=new_token_id(desk.random),
        user=user,
        client=client,
        kind=kind,
        state=State.ACTIVE,
        parameters=OtpParameters(),
        created_at=now,
        confirmed_at=now,
        expires_at=expires_at,
    )


def revoking(
    call: Call, token: Token, *, keep_one: Policy | None, reason: str | None = None
) -> Callable[[Transaction], None]:
    """The change that revokes a token, whatever state it is in; its seed is destroyed.

    With a policy in `keep_one`, not the last authenticator of a user who must have one by it.
    """

    def work(transaction: Transaction) -> None:
        if token.state is State.PENDING:
            tokens.discard(transaction, token.id)
        else:
            owner = users.find(transaction.connection, token.client, token.user)
            needed = keep_one is not None and owner is not None and effective(owner, keep_one) is Enforcement.REQUIRED
            tokens.change_state(transaction, token.id, {State.ACTIVE, State.DISABLED}, State.REVOKED, keep_one=needed)
        transaction.audit(token_event(call, "token revoked", token, reason=reason))

    return work


def enforcing(
    call: Call,
    client: str,
    user: str,
    enforcement: Enforcement | None,
    *,
    force: bool = False,
    reason: str | None = None,
) -> Callable[[Transaction], None]:
    """The change that sets a user's enforcement."""

    def work(transaction: Transaction) -> None:
        users.enforce(transaction, client, user, enforcement, force=force)
        detail: dict[str, str | int | bool] = {"enforcement": enforcement or "as policy says"}
        if force:
            detail["forced"] = True
        transaction.audit(event(call, "enforcement set", client=client, user=user, reason=reason, detail=detail))

    return work


@dataclass(frozen=True, slots=True)
class _New:
    """The secret of a new token: the seed as people see it, and what is sealed."""

    seed: Secret
    sealed: Secret
    label: str = ""
    public_id: str | None = None
    private_id: str | None = None


def _new_secret(desk: Desk, kind: Kind, parameters: OtpParameters) -> _New:
    random = desk.random
    if kind in {Kind.TOTP, Kind.HOTP}:
        seed = Secret(random(parameters.algorithm.seed_bytes))
        return _New(seed, seed)
    if kind is Kind.YUBIOTP:
        # Public ids that begin with ff are for keys that are not Yubico's own programming.
        key = yubiotp.YubiKey(b"\xff" + random(5), Secret(random(6)), Secret(random(16)))
        public_id = yubiotp.modhex(key.public_id)
        return _New(key.aes_key, key.pack(), public_id, public_id, key.private_id.reveal().hex())
    raise EnrolError(f"a token of kind {kind} is not made with Start; there is a call of its own for it")


def _parameters(asked: Start, held: Policy) -> OtpParameters:
    """The parameters of a new token, where policy allows them. Raises EnrolError."""
    algorithm = asked.algorithm or held.algorithms[0]
    digits = held.digits[0] if asked.digits is None else asked.digits
    parameters = OtpParameters(algorithm, digits, 30 if asked.period is None else asked.period)
    otpauth.check_parameters(parameters)
    if algorithm not in held.algorithms:
        raise EnrolError(f"algorithm {algorithm} is not allowed here; use {', '.join(held.algorithms)}")
    if digits not in held.digits:
        raise EnrolError(f"{digits} digits are not allowed here; use {', '.join(map(str, held.digits))}")
    return parameters


def _serials(given: Sequence[str]) -> tuple[str, ...]:
    """The serials of hardware keys. Raises InvalidParameter."""
    if len(given) > _MOST_SERIALS or not all(map(_SERIAL.fullmatch, given)):
        raise invalid("serials")
    return tuple(given)


def replace_token(
    call: Call, transaction: Transaction, token: Token, sealed: bytes, name: str, *, reason: str | None = None
) -> None:
    """Put a token in place of the one like it."""
    for older in tokens.put(transaction, token, sealed, None):
        transaction.audit(token_event(call, "token revoked", token, older, f"replaced by {token.id}"))
    transaction.audit(token_event(call, name, token, reason=reason))


def _explain(desk: Desk, token: Token, seed: Secret, code: str, now: float) -> Fault | None:
    if token.kind is Kind.YUBIOTP:
        return None
    if token.kind is Kind.HOTP:
        return counter_fault(seed.reveal(), code, token.parameters, token.moving_factor, desk.config.window.hotp)
    return fault(seed.reveal(), code, token.parameters, now)


def _refused(token: Token, found: Fault | None) -> ConfirmReply:
    if found is None:
        name, hint = "wrong_code", "The code does not match. Type the one that your authenticator shows now."
    else:
        name, hint = found.what.value, found.hint
    return ConfirmReply(confirmed=False, state=token.state, replaced=(), fault=name, hint=hint)
