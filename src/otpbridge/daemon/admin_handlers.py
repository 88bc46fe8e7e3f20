"""org.otpbridge.Admin: users, tokens, status and audit. Long work (import, keys, backup) is in its own modules."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import msgspec

from otpbridge import __version__
from otpbridge.daemon.desk import (
    Counter,
    Desk,
    client_of,
    event,
    invalid,
    token_event,
    token_fields,
    user_fields,
    user_of,
)
from otpbridge.daemon.enroll_handlers import enforcing, revoking
from otpbridge.enroll.names import check_text
from otpbridge.model import Enforcement, Kind, State
from otpbridge.otp.drift import resynchronise
from otpbridge.otp.totp import time_step
from otpbridge.store import auditlog, schema, tokens, users
from otpbridge.store.auditlog import AuditRow
from otpbridge.store.tokens import StoredToken, WrongStateError
from otpbridge.store.users import UserState
from otpbridge.store.writer import Transaction
from otpbridge.vault.keys import KeyPlace
from otpbridge.wire.messages import (
    AddUser,
    AuditTail,
    AuditTailReply,
    AuditVerify,
    AuditVerifyReply,
    DisableToken,
    Empty,
    EnableToken,
    Entry,
    ListTokens,
    ListUsers,
    RemoveToken,
    RemoveUser,
    ResetReply,
    ResetUser,
    Resync,
    ResyncReply,
    SetEnforcement,
    ShowToken,
    ShowUser,
    ShowUserReply,
    Status,
    StatusReply,
    TokenListReply,
    TokenReply,
    UserReply,
    UsersReply,
)
from otpbridge.wire.service import Call

_PAGE = 100
_MOST_ENTRIES = 100_000
_WAITING = 1000
"""Audit rows that may wait for a follower who does not read; then it is told to come again."""


class AdminCounter(Counter):
    """Handlers of org.otpbridge.Admin. Whoever can open the admin socket may call them."""

    def __init__(self, desk: Desk, keys: KeyPlace) -> None:
        super().__init__(desk, admin=True)
        self.keys = keys

    # --- users ---

    async def add_user(self, call: Call, asked: AddUser) -> UserReply:
        """Add a user."""
        client, user = client_of(asked.client), user_of(asked.user)
        check_text(user, "user name")

        def work(transaction: Transaction) -> None:
            users.add(transaction, client, user)
            transaction.audit(event(call, "user added", client=client, user=user))

        await self.desk.change(work)
        return self._user(client, user)

    async def show_user(self, call: Call, asked: ShowUser) -> ShowUserReply:
        """A user with tokens."""
        client, user = client_of(asked.client), user_of(asked.user)
        state = self._state(client, user)
        listed = self.desk.store.read(lambda connection: tokens.of_user(connection, client, user))
        return ShowUserReply(
            user=user_fields(self.desk, state), tokens=tuple(token_fields(stored.token) for stored in listed)
        )

    async def remove_user(self, call: Call, asked: RemoveUser) -> Empty:
        """Delete a user with all tokens."""
        client, user = client_of(asked.client), user_of(asked.user)

        def work(transaction: Transaction) -> None:
            users.remove(transaction, client, user)
            transaction.audit(event(call, "user removed", client=client, user=user))

        await self.desk.change(work)
        return Empty()

    async def list_users(self, call: Call, asked: ListUsers) -> UsersReply:
        """Every user, a page a reply."""
        client = None if asked.client is None else client_of(asked.client)
        after: tuple[str, str] | None = None
        while True:
            page = self.desk.store.read(partial(users.page, client=client, after=after, most=_PAGE))
            reply = UsersReply(users=tuple(user_fields(self.desk, state) for state in page))
            if len(page) < _PAGE:
                return reply
            await call.send(reply)
            after = (page[-1].user.client, page[-1].user.name)

    async def set_enforcement(self, call: Call, asked: SetEnforcement) -> UserReply:
        """Make a second factor required or optional."""
        client, user = client_of(asked.client), user_of(asked.user)
        force = bool(asked.force) and asked.enforcement is Enforcement.REQUIRED
        await self.desk.change(enforcing(call, client, user, asked.enforcement, force=force))
        return self._user(client, user)

    async def reset_user(self, call: Call, asked: ResetUser) -> ResetReply:
        """For a lost phone: no tokens, no back-off, optional."""
        client, user = client_of(asked.client), user_of(asked.user)

        def work(transaction: Transaction) -> int:
            users.enforce(transaction, client, user, Enforcement.OPTIONAL)
            revoked = tokens.revoke_all(transaction, client, user)
            users.forget(transaction, client, user)
            transaction.audit(event(call, "user reset", client=client, user=user, detail={"revoked": len(revoked)}))
            return len(revoked)

        return ResetReply(revoked=await self.desk.change(work))

    # --- tokens ---

    async def list_tokens(self, call: Call, asked: ListTokens) -> TokenListReply:
        """Tokens, a page a reply."""
        client = None if asked.client is None else client_of(asked.client)
        revoked = bool(asked.all)
        if asked.user is not None:
            owner, user = client_of(asked.client), user_of(asked.user)
            self._state(owner, user)
            return _tokens(self.desk.store.read(partial(tokens.of_user, client=owner, name=user, revoked=revoked)))
        after: tuple[str, str, int] | None = None
        while True:
            page = self.desk.store.read(partial(tokens.page, client=client, after=after, most=_PAGE, revoked=revoked))
            if len(page) < _PAGE:
                return _tokens(page)
            await call.send(_tokens(page))
            last = page[-1]
            after = (last.token.client, last.token.user, last.seq)

    async def show_token(self, call: Call, asked: ShowToken) -> TokenReply:
        """One token."""
        return TokenReply(token=token_fields(self._find(asked.token).token))

    async def disable_token(self, call: Call, asked: DisableToken) -> TokenReply:
        """Take a token out of use for a while."""
        return await self._change_state(call, asked.token, "token disabled", State.ACTIVE, State.DISABLED)

    async def enable_token(self, call: Call, asked: EnableToken) -> TokenReply:
        """Take a disabled token into use again."""
        return await self._change_state(call, asked.token, "token enabled", State.DISABLED, State.ACTIVE)

    async def remove_token(self, call: Call, asked: RemoveToken) -> TokenReply:
        """Revoke a token; its seed is destroyed."""
        token = self._find(asked.token).token
        await self.desk.change(revoking(call, token, keep_one=False))
        return TokenReply(token=token_fields(replace(token, state=State.REVOKED, expires_at=None)))

    async def resync(self, call: Call, asked: Resync) -> ResyncReply:
        """Put a drifted token back in step by two consecutive codes (RFC 4226 §7.4)."""
        desk = self.desk
        stored = self._find(asked.token)
        token, reach, now = stored.token, desk.config.window.resync, desk.clock()
        if token.state not in {State.ACTIVE, State.DISABLED}:
            raise WrongStateError(token.id, token.state)
        expected = time_step(now, token.parameters) if token.kind is Kind.TOTP else token.moving_factor
        start = max(token.moving_factor, expected - reach)
        second = resynchronise(
            desk.store.seed(stored).reveal(),
            asked.first,
            asked.second,
            token.parameters,
            start=start,
            look_ahead=expected + reach - start,
        )
        await self.count(call, token, "token resynchronisation", passed=second is not None)
        if second is None:
            return ResyncReply(resynced=False)
        drift = second - expected if token.kind is Kind.TOTP else 0

        def work(transaction: Transaction) -> None:
            tokens.resynchronise(transaction, token.id, second, drift)
            transaction.audit(token_event(call, "token resynchronised", token))

        await desk.change(work)
        return ResyncReply(resynced=True)

    # --- status and audit ---

    async def status(self, call: Call, asked: Status) -> StatusReply:
        """How the daemon is."""
        desk = self.desk
        counts = await desk.store.read_long(desk.store.counts)
        vault = desk.store.vault
        warnings = []
        if self.keys.beside_store:
            warnings.append(
                f"the master key ({self.keys.path}) lies beside the store: who steals the disk has both. "
                "Keep it elsewhere: docs/admin.md, section Master key"
            )
        if vault.keyring.previous:
            warnings.append("a key rotation has not finished: run `otpbridge key rotate` again")
        return StatusReply(
            version=__version__,
            ready=True,
            started_at=desk.started_at,
            store=desk.store.url,
            schema=schema.HEAD,
            key_source=self.keys.source,
            key_id=vault.keyring.primary.id.hex(),
            key_beside_store=self.keys.beside_store,
            rotating=bool(vault.keyring.previous),
            users=counts.users,
            active_tokens=counts.active_tokens,
            audit_entries=counts.audit_entries,
            audit_anchor=counts.audit_anchor,
            warnings=tuple(warnings),
        )

    async def audit_tail(self, call: Call, asked: AuditTail) -> AuditTailReply:
        """The newest entries, then, when following, each new one."""
        count = 20 if asked.count is None else asked.count
        if not 0 <= count <= _MOST_ENTRIES:
            raise invalid("count")
        waiting: asyncio.Queue[list[AuditRow]] = asyncio.Queue(_WAITING)
        unwatch = self.desk.store.watch(partial(_offer, waiting)) if asked.follow else None
        try:
            rows = await self.desk.store.read_long(partial(auditlog.newest, count=count))
            while True:
                for start in range(0, len(rows), _PAGE):
                    reply = AuditTailReply(entries=tuple(map(_entry, rows[start : start + _PAGE])))
                    if unwatch is None and start + _PAGE >= len(rows):
                        return reply
                    await call.send(reply)
                if unwatch is None:
                    return AuditTailReply(entries=())
                last = rows[-1].sequence if rows else 0
                rows = [row for row in await waiting.get() if row.sequence > last]
        finally:
            if unwatch is not None:
                unwatch()

    async def audit_verify(self, call: Call, asked: AuditVerify) -> AuditVerifyReply:
        """Check the whole chain."""
        store = self.desk.store
        try:
            found = await store.read_long(partial(store.audit.check, anchor=asked.anchor))
        except ValueError:
            raise invalid("anchor") from None
        return AuditVerifyReply(
            intact=found.fault is None, entries=found.entries, anchor=found.anchor, fault=found.fault
        )

    # --- parts ---

    def _state(self, client: str, user: str) -> UserState:
        return self.desk.store.read(partial(users.state, client=client, name=user))

    def _user(self, client: str, user: str) -> UserReply:
        return UserReply(user=user_fields(self.desk, self._state(client, user)))

    def _find(self, token_id: str) -> StoredToken:
        return self.desk.store.read(partial(tokens.find, token_id=token_id))

    async def _change_state(self, call: Call, token_id: str, name: str, source: State, target: State) -> TokenReply:
        token = self._find(token_id).token

        def work(transaction: Transaction) -> None:
            tokens.change_state(transaction, token_id, {source}, target)
            transaction.audit(token_event(call, name, token))

        await self.desk.change(work)
        return TokenReply(token=token_fields(self._find(token_id).token))


def _offer(waiting: asyncio.Queue[list[AuditRow]], rows: list[AuditRow]) -> None:
    # Rows that no longer fit are lost to this follower alone, who sees the gap in the sequence.
    if not waiting.full():
        waiting.put_nowait(rows)


def _tokens(page: Sequence[StoredToken]) -> TokenListReply:
    return TokenListReply(tokens=tuple(token_fields(stored.token) for stored in page))


def _entry(row: AuditRow) -> Entry:
    return msgspec.convert({"sequence": row.sequence, **msgspec.json.decode(row.entry)}, Entry)
