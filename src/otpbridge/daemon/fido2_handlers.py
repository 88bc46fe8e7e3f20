"""org.otpbridge.Enroll: the registration of security keys, in two calls (WebAuthn §7.1)."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING

from otpbridge import webauthn
from otpbridge.config import Right
from otpbridge.daemon.desk import client_of, invalid, reason_of, token_event, user_of
from otpbridge.daemon.enroll_handlers import EnrollCounter, check_pending, confirmed, starting
from otpbridge.daemon.ids import new_token_id
from otpbridge.enroll.names import check_text
from otpbridge.errors import EnrolError, WebauthnError
from otpbridge.model import Kind, OtpParameters, RelyingParty, Secret, State, Token
from otpbridge.store import tokens
from otpbridge.store.writer import Transaction
from otpbridge.vault.seal import token_identity
from otpbridge.wire.messages import FinishFido2, FinishFido2Reply, StartFido2, StartFido2Reply
from otpbridge.wire.service import Call

if TYPE_CHECKING:
    from otpbridge.webauthn.credential import Credential

_LABEL = "security key"


class Fido2Counter(EnrollCounter):
    """Handlers of the registration for one socket."""

    async def start_fido2(self, call: Call, asked: StartFido2) -> StartFido2Reply:
        """Make a pending security key, and what it is asked."""
        client, user = client_of(asked.client), user_of(asked.user)
        authority = await self.demand(call, client, user, Right.ENROL)
        reason = reason_of(asked.reason, authority)
        check_text(user, "user name")
        await self.demand_proof(call, authority, client, user)
        desk = self.desk
        party = self._relying_party(client)
        await webauthn.ready()
        from otpbridge.webauthn.ceremony import Registration  # noqa: PLC0415 - only where somebody has a key
        from otpbridge.webauthn.credential import Waiting  # noqa: PLC0415

        present = await self._present(client, user)
        label = _free_label([token.label for token, _ in present]) if asked.label is None else asked.label
        check_text(label, "label")
        now = int(desk.clock())
        token = Token(
            id=new_token_id(desk.random),
            user=user,
            client=client,
            kind=Kind.FIDO2,
            state=State.PENDING,
            parameters=OtpParameters(),
            label=label,
            issuer=party.id,
            created_at=now,
            expires_at=now + desk.config.enrolment.pending,
        )
        # A user has one handle at a relying party (§5.4.3); a key that keeps accounts would keep two of them.
        handle = present[0][1].user_handle if present else desk.random(webauthn.HANDLE_BYTES)
        waiting = Waiting(desk.random(webauthn.CHALLENGE_BYTES), handle)
        sealed = desk.store.vault.seal(waiting.pack(), token_identity(token))
        await desk.change(starting(call, token, sealed, None, desk.config.policy_of(client), reason=reason))
        excluded = [credential for held, credential in present if held.label != label]
        return StartFido2Reply(
            token=token.id,
            user=user,
            client=client,
            label=label,
            options=Registration(party, waiting.challenge, handle).options(user, excluded),
            origin=party.origins[0],
            expires_in=desk.config.enrolment.pending,
        )

    async def finish_fido2(self, call: Call, asked: FinishFido2) -> FinishFido2Reply:
        """Prove a pending security key. Its challenge is used up, whatever comes of it."""
        if len(asked.credential) > webauthn.LONGEST_ANSWER:
            raise invalid("credential")
        stored = await self.own(call, asked.token)
        token, desk = stored.token, self.desk
        check_pending(token, desk.clock())
        if token.kind is not Kind.FIDO2:
            raise EnrolError(f"a token of kind {token.kind} is proven with Confirm")
        await webauthn.ready()
        from otpbridge.webauthn.ceremony import Registration  # noqa: PLC0415 - only where somebody has a key
        from otpbridge.webauthn.credential import Waiting  # noqa: PLC0415

        waiting = Waiting.unpack(desk.store.seed(stored))
        party = self._relying_party(token.client)
        try:
            made = Registration(party, waiting.challenge, waiting.user_handle).judge(asked.credential)
        except WebauthnError as error:
            return await self._refuse(call, token, error)
        record = desk.store.vault.seal(made.credential.pack(), token_identity(token))
        fingerprint = desk.store.fingerprint(Secret(made.credential.id))
        # The next counter that may be shown; a key that does not count shows 0 for ever.
        counter = made.counter + 1 if made.counter else 0

        def work(transaction: Transaction) -> list[str]:
            replaced = tokens.complete(transaction, token.id, record, fingerprint, counter)
            confirmed(call, transaction, token, replaced)
            return replaced

        return FinishFido2Reply(confirmed=True, replaced=tuple(await desk.change(work)))

    async def _refuse(self, call: Call, token: Token, why: WebauthnError) -> FinishFido2Reply:
        """Drop a pending security key whose answer does not hold."""

        def work(transaction: Transaction) -> None:
            tokens.discard(transaction, token.id)
            transaction.audit(token_event(call, "token discarded", token, reason=f"registration refused: {why}"))

        await self.desk.change(work)
        return FinishFido2Reply(confirmed=False, replaced=(), hint=f"The key was not registered: {why}. Begin again.")

    def _relying_party(self, client: str) -> RelyingParty:
        party = self.desk.config.relying_party(client, self.desk.host)
        if party is None:
            raise EnrolError(f"security keys of {client} need [clients.{client}.webauthn] rp_id in otpbridge.toml")
        return party

    async def _present(self, client: str, user: str) -> Sequence[tuple[Token, Credential]]:
        """The security keys that a user has."""
        from otpbridge.webauthn.credential import Credential  # noqa: PLC0415

        store = self.desk.store
        held = await store.read(lambda connection: tokens.of_user(connection, client, user))
        return [
            (each.token, Credential.unpack(store.seed(each)))
            for each in held
            if each.token.kind is Kind.FIDO2 and each.token.state is not State.PENDING
        ]


def _free_label(taken: Sequence[str]) -> str:
    names = itertools.chain([_LABEL], (f"{_LABEL} {number}" for number in itertools.count(2)))
    return next(name for name in names if name not in taken)
