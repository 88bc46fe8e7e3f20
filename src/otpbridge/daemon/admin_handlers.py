"""org.otpbridge.Admin: users, tokens and status. Audit, import, keys and backup have modules of their own."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from otpbridge import __version__
from otpbridge.daemon import people
from otpbridge.daemon.accounts import LookupFailedError
from otpbridge.daemon.archiving import Archivist
from otpbridge.daemon.desk import (
    Counter,
    Desk,
    client_of,
    event,
    invalid,
    reason_of,
    token_event,
    token_fields,
    user_fields,
    user_of,
)
from otpbridge.daemon.enroll_handlers import enforcing, revoking
from otpbridge.daemon.explain import explain
from otpbridge.daemon.judge import Subject
from otpbridge.daemon.pages import send_but_last
from otpbridge.daemon.policy import Authority
from otpbridge.daemon.relay.desk import ending
from otpbridge.errors import EnrolError, StoreError
from otpbridge.model import Context, Enforcement, Kind, State
from otpbridge.otp.drift import resynchronise
from otpbridge.otp.totp import time_step
from otpbridge.store import schema, tokens, users
from otpbridge.store.tokens import StoredToken, WrongStateError
from otpbridge.store.users import UserState
from otpbridge.store.writer import Transaction
from otpbridge.vault.keys import KeyPlace
from otpbridge.wire.messages import (
    AddUser,
    DisableToken,
    Empty,
    EnableToken,
    ExemptUser,
    ExplainStack,
    ExplainStackReply,
    IssueRegistrationCode,
    ListTokens,
    ListUsers,
    LockUser,
    RegistrationCodeReply,
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
    UnlockUser,
    UserReply,
    UsersReply,
)
from otpbridge.wire.service import Call

_PAGE = 100
_LONGEST_EXEMPTION = 30 * people.DAY


class AdminCounter(Counter):
    """Handlers of org.otpbridge.Admin. Whoever can open the admin socket may call them."""

    def __init__(self, desk: Desk, keys: KeyPlace, archivist: Archivist) -> None:
        super().__init__(desk, admin=True)
        self.keys = keys
        self._archivist = archivist

    # --- users ---

    async def add_user(self, call: Call, asked: AddUser) -> UserReply:
        """Add a user."""
        client, user = client_of(asked.client), user_of(asked.user)
        await self.desk.change(people.adding(call, client, user))
        return await self._user(client, user)

    async def show_user(self, call: Call, asked: ShowUser) -> ShowUserReply:
        """A user with tokens."""
        client, user = client_of(asked.client), user_of(asked.user)
        state = await self._state(client, user)
        listed = await self.desk.store.read(lambda connection: tokens.of_user(connection, client, user))
        return ShowUserReply(
            user=user_fields(self.desk, state), tokens=tuple(token_fields(stored.token) for stored in listed)
        )

    async def remove_user(self, call: Call, asked: RemoveUser) -> Empty:
        """Delete a user with all tokens."""
        client, user = client_of(asked.client), user_of(asked.user)
        await self.desk.change(people.removing(call, client, user))
        return Empty()

    async def list_users(self, call: Call, asked: ListUsers) -> UsersReply:
        """Every user, a page a reply."""
        client = None if asked.client is None else client_of(asked.client)
        after: tuple[str, str] | None = None
        while True:
            page = await self.desk.store.read(partial(users.page, client=client, after=after, most=_PAGE))
            fields = (user_fields(self.desk, state) for state in page)
            reply = await send_but_last(call, fields, lambda some: UsersReply(users=some))
            if len(page) < _PAGE:
                return reply
            await call.send(reply)
            after = (page[-1].user.client, page[-1].user.name)

    async def set_enforcement(self, call: Call, asked: SetEnforcement) -> UserReply:
        """Make a second factor required or optional."""
        client, user = client_of(asked.client), user_of(asked.user)
        reason = reason_of(asked.reason)
        force = bool(asked.force) and asked.enforcement is Enforcement.REQUIRED
        await self.desk.change(enforcing(call, client, user, asked.enforcement, force=force, reason=reason))
        return await self._user(client, user)

    async def reset_user(self, call: Call, asked: ResetUser) -> ResetReply:
        """For a lost phone: no tokens, no back-off, optional."""
        client, user = client_of(asked.client), user_of(asked.user)
        work = people.resetting(call, client, user, keep=bool(asked.keep_enforcement))
        return ResetReply(revoked=await self.desk.change(work))

    async def exempt_user(self, call: Call, asked: ExemptUser) -> UserReply:
        """Ask no second factor of a user for a time."""
        client, user = client_of(asked.client), user_of(asked.user)
        seconds = asked.seconds or 0
        if not 0 <= seconds <= _LONGEST_EXEMPTION:
            raise invalid("seconds")
        until = int(self.desk.clock()) + seconds if seconds else None

        def work(transaction: Transaction) -> None:
            users.exempt(transaction, client, user, until)
            name = "user exempted" if seconds else "exemption ended"
            detail: dict[str, str | int | bool] | None = {"seconds": seconds} if seconds else None
            reason = reason_of(asked.reason)
            transaction.audit(event(call, name, client=client, user=user, reason=reason, detail=detail))

        await self.desk.change(work)
        return await self._user(client, user)

    async def lock_user(self, call: Call, asked: LockUser) -> UserReply:
        """Let a user in nowhere."""
        return await self._lock(call, asked.client, asked.user, reason_of(asked.reason), locked=True)

    async def unlock_user(self, call: Call, asked: UnlockUser) -> UserReply:
        """Let a user in again, and forget the back-off."""
        return await self._lock(call, asked.client, asked.user, None, locked=False)

    async def issue_registration_code(self, call: Call, asked: IssueRegistrationCode) -> RegistrationCodeReply:
        """A code that stands in for an authenticator once; the only reply that holds it."""
        client, user = client_of(asked.client), user_of(asked.user)
        return await people.invite(self.desk, call, client, user, asked.seconds)

    async def explain_stack(self, call: Call, asked: ExplainStack) -> ExplainStackReply:
        """What would happen to a user at a stack, and why."""
        client, user = client_of(asked.client), user_of(asked.user)
        context = Context(service=asked.service or "", rhost=(asked.rhost or "").lower())
        subject = Subject(self.caller(call), Authority.ADMIN, client, user, context, nullok=False, stack=asked.stack)
        try:
            case = await self.desk.judge.case(subject)
        except LookupFailedError as error:
            raise StoreError(str(error)) from None
        return explain(case, int(self.desk.clock()))

    # --- tokens ---

    async def list_tokens(self, call: Call, asked: ListTokens) -> TokenListReply:
        """Tokens, a page a reply."""
        client = None if asked.client is None else client_of(asked.client)
        revoked = bool(asked.all)
        if asked.user is not None:
            owner, user = client_of(asked.client), user_of(asked.user)
            await self._state(owner, user)
            return await _tokens(
                call, await self.desk.store.read(partial(tokens.of_user, client=owner, name=user, revoked=revoked))
            )
        after: tuple[str, str, int] | None = None
        while True:
            page = await self.desk.store.read(
                partial(tokens.page, client=client, after=after, most=_PAGE, revoked=revoked)
            )
            reply = await _tokens(call, page)
            if len(page) < _PAGE:
                return reply
            await call.send(reply)
            last = page[-1]
            after = (last.token.client, last.token.user, last.seq)

    async def show_token(self, call: Call, asked: ShowToken) -> TokenReply:
        """One token."""
        return TokenReply(token=token_fields((await self._find(asked.token)).token))

    async def disable_token(self, call: Call, asked: DisableToken) -> TokenReply:
        """Take a token out of use for a while."""
        return await self._change_state(call, asked.token, "token disabled", State.ACTIVE, State.DISABLED)

    async def enable_token(self, call: Call, asked: EnableToken) -> TokenReply:
        """Take a disabled token into use again."""
        return await self._change_state(call, asked.token, "token enabled", State.DISABLED, State.ACTIVE)

    async def remove_token(self, call: Call, asked: RemoveToken) -> TokenReply:
        """Revoke a token; its seed is destroyed."""
        token = (await self._find(asked.token)).token
        await self.desk.change(revoking(call, token, keep_one=None))
        return TokenReply(token=token_fields(token._replace(state=State.REVOKED, expires_at=None)))

    async def resync(self, call: Call, asked: Resync) -> ResyncReply:
        """Put a drifted token back in step by two consecutive codes (RFC 4226 §7.4)."""
        desk = self.desk
        stored = await self._find(asked.token)
        token, reach, now = stored.token, desk.config.window.resync, desk.clock()
        if token.kind not in {Kind.TOTP, Kind.HOTP}:
            raise EnrolError(f"token {token.id} is a {token.kind} token, which cannot drift")
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

    # --- status ---

    async def status(self, call: Call, asked: Status) -> StatusReply:
        """How the daemon is."""
        desk = self.desk
        counts = await desk.store.read_long(desk.store.counts)
        vault = desk.store.vault
        warnings = []
        beside_store = self.keys.beside_store and not desk.store.is_shared
        if beside_store:
            warnings.append(
                f"the master key ({self.keys.path}) lies beside the store: who steals the disk has both. "
                "Keep it elsewhere: docs/admin.md, section Master key"
            )
        if vault.keyring.previous:
            warnings.append(
                "there are two master keys. Once `otpbridge key rotate` has been run, take the old one out of every "
                "daemon's key file"
                if desk.store.is_shared
                else "a key rotation has not finished: run `otpbridge key rotate` again"
            )
        warnings += await desk.store.read_long(partial(ending, now=int(desk.clock())))
        if self._archivist.failure is not None:
            warnings.append(self._archivist.failure)
        warnings += [f"{fault} Its rules say `authinfo_unavail`." for fault in desk.judge.stacks.faults]
        return StatusReply(
            version=__version__,
            ready=True,
            started_at=desk.started_at,
            store=desk.store.url,
            schema=schema.HEAD,
            key_source=self.keys.source,
            key_id=vault.keyring.primary.id.hex(),
            key_beside_store=beside_store,
            rotating=bool(vault.keyring.previous),
            users=counts.users,
            active_tokens=counts.active_tokens,
            audit_entries=counts.audit_entries,
            audit_anchor=counts.audit_anchor,
            warnings=tuple(warnings),
        )

    # --- parts ---

    async def _lock(self, call: Call, named: str | None, name: str, reason: str | None, *, locked: bool) -> UserReply:
        client, user = client_of(named), user_of(name)

        def work(transaction: Transaction) -> None:
            users.lock(transaction, client, user, locked=locked)
            users.forget(transaction, client, user)
            done = "user locked" if locked else "user unlocked"
            transaction.audit(event(call, done, client=client, user=user, reason=reason))

        await self.desk.change(work)
        return await self._user(client, user)

    async def _state(self, client: str, user: str) -> UserState:
        return await self.desk.store.read(partial(users.state, client=client, name=user))

    async def _user(self, client: str, user: str) -> UserReply:
        return UserReply(user=user_fields(self.desk, await self._state(client, user)))

    async def _find(self, token_id: str) -> StoredToken:
        return await self.desk.store.read(partial(tokens.find, token_id=token_id))

    async def _change_state(self, call: Call, token_id: str, name: str, source: State, target: State) -> TokenReply:
        token = (await self._find(token_id)).token

        def work(transaction: Transaction) -> None:
            tokens.change_state(transaction, token_id, {source}, target)
            transaction.audit(token_event(call, name, token))

        await self.desk.change(work)
        return TokenReply(token=token_fields((await self._find(token_id)).token))


async def _tokens(call: Call, page: Sequence[StoredToken]) -> TokenListReply:
    """Send tokens but for those of the last reply, which is given back."""
    fields = (token_fields(stored.token) for stored in page)
    return await send_but_last(call, fields, lambda some: TokenListReply(tokens=some))
