"""org.otpbridge.Enroll: the users of a client, for callers who manage them."""

from __future__ import annotations

from functools import partial

from otpbridge.config import Right
from otpbridge.daemon import people
from otpbridge.daemon.desk import Counter, client_of, denied, invalid, reason_of, user_fields, user_of
from otpbridge.daemon.policy import Authority
from otpbridge.store import users
from otpbridge.store.users import UserState
from otpbridge.wire.messages import (
    AddManagedUser,
    Empty,
    Invite,
    ManagedUser,
    ManagedUserReply,
    ManagedUsers,
    ManagedUsersReply,
    RegistrationCodeReply,
    RemoveManagedUser,
    Reset,
    ResetReply,
    ShowManagedUser,
)
from otpbridge.wire.service import Call

_PAGE = 50
"""Users of a reply: with the longest names that there can be, they fit into a message."""


class PeopleCounter(Counter):
    """Handlers of the right `manage` for one socket. Nobody has it over themselves alone."""

    async def list_users(self, call: Call, asked: ManagedUsers) -> ManagedUsersReply:
        """The users of a client, a page a reply."""
        client = client_of(asked.client)
        self._demand(call, client)
        after = None if asked.after is None else (client, asked.after)
        left = asked.count
        if left is not None and left < 1:
            raise invalid("count")
        while True:
            most = _PAGE if left is None else min(_PAGE, left)
            page = await self.desk.store.read(partial(users.page, client=client, after=after, most=most))
            reply = ManagedUsersReply(users=tuple(map(self._managed, page)))
            left = None if left is None else left - len(page)
            if len(page) < most or left == 0:
                return reply
            await call.send(reply)
            # Again, as the configuration may have changed meanwhile.
            self._demand(call, client)
            after = (client, page[-1].user.name)

    async def show_user(self, call: Call, asked: ShowManagedUser) -> ManagedUserReply:
        """One user."""
        client, user = self._whose(call, asked.client, asked.user)
        return await self._shown(client, user)

    async def add_user(self, call: Call, asked: AddManagedUser) -> ManagedUserReply:
        """Add a user."""
        client, user = self._whose(call, asked.client, asked.user)
        await self.desk.change(people.adding(call, client, user, reason_of(asked.reason)))
        return await self._shown(client, user)

    async def remove_user(self, call: Call, asked: RemoveManagedUser) -> Empty:
        """Delete a user with all tokens, unless an administrator has locked them."""
        client, user = self._whose(call, asked.client, asked.user)
        reason = reason_of(asked.reason)
        await self.desk.change(people.removing(call, client, user, reason, spare_locked=True))
        return Empty()

    async def reset(self, call: Call, asked: Reset) -> ResetReply:
        """For a lost phone: no tokens, no back-off, optional."""
        client, user = self._whose(call, asked.client, asked.user)
        reason = reason_of(asked.reason)
        work = people.resetting(call, client, user, reason, keep=bool(asked.keep_enforcement))
        return ResetReply(revoked=await self.desk.change(work))

    async def invite(self, call: Call, asked: Invite) -> RegistrationCodeReply:
        """A code that stands in for an authenticator once; the only reply that holds it."""
        client, user = self._whose(call, asked.client, asked.user)
        reason = reason_of(asked.reason)
        return await people.invite(self.desk, call, client, user, asked.seconds, reason=reason)

    def _whose(self, call: Call, client: str | None, user: str) -> tuple[str, str]:
        """Which user a call is about. Raises InvalidParameter or PermissionDenied."""
        found = client_of(client), user_of(user)
        self._demand(call, found[0])
        return found

    def _demand(self, call: Call, client: str) -> None:
        """Raise PermissionDenied unless the caller manages every user of a client."""
        if self.desk.rights.given(self.caller(call), client, Right.MANAGE) is Authority.NONE:
            raise denied()

    async def _shown(self, client: str, user: str) -> ManagedUserReply:
        return ManagedUserReply(
            user=self._managed(await self.desk.store.read(partial(users.state, client=client, name=user)))
        )

    def _managed(self, state: UserState) -> ManagedUser:
        fields = user_fields(self.desk, state)
        return ManagedUser(
            name=fields.name,
            client=fields.client,
            enforcement=fields.enforcement,
            own=fields.own,
            locked=fields.locked,
            created_at=fields.created_at,
            active_tokens=fields.active_tokens,
            retry_after=fields.retry_after,
        )
