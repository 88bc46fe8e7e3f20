"""The changes to a user that admins and managing callers make alike."""

from __future__ import annotations

from collections.abc import Callable

from otpbridge.daemon.desk import Desk, event, invalid
from otpbridge.daemon.enroll_handlers import active_token, replace_token
from otpbridge.enroll.names import check_text
from otpbridge.model import Enforcement, Kind
from otpbridge.otp import recovery
from otpbridge.store import tokens, users
from otpbridge.store.writer import Transaction
from otpbridge.vault.seal import token_identity
from otpbridge.wire.messages import RegistrationCodeReply
from otpbridge.wire.service import Call

DAY = 86_400
_SHORTEST_REGISTRATION = 60
_LONGEST_REGISTRATION = 30 * DAY
_RESET = "Your second factor was reset by an administrator. If you did not ask for that, tell them now."


def adding(call: Call, client: str, user: str, reason: str | None = None) -> Callable[[Transaction], None]:
    """The change that adds a user. Raises EnrolError for a name that cannot be shown."""
    check_text(user, "user name")

    def work(transaction: Transaction) -> None:
        users.add(transaction, client, user)
        transaction.audit(event(call, "user added", client=client, user=user, reason=reason))

    return work


def removing(
    call: Call, client: str, user: str, reason: str | None = None, *, spare_locked: bool = False
) -> Callable[[Transaction], None]:
    """The change that deletes a user with all tokens."""

    def work(transaction: Transaction) -> None:
        users.remove(transaction, client, user, spare_locked=spare_locked)
        transaction.audit(event(call, "user removed", client=client, user=user, reason=reason))

    return work


def resetting(
    call: Call, client: str, user: str, reason: str | None = None, *, keep: bool
) -> Callable[[Transaction], int]:
    """The change for a lost phone: no tokens, no back-off, optional unless `keep`. It gives how many were revoked."""

    def work(transaction: Transaction) -> int:
        if not keep:
            users.enforce(transaction, client, user, Enforcement.OPTIONAL)
        users.leave_notice(transaction, client, user, _RESET)
        revoked = tokens.revoke_all(transaction, client, user)
        users.forget(transaction, client, user)
        detail: dict[str, str | int | bool] = {"revoked": len(revoked), "enforcement kept": keep}
        transaction.audit(event(call, "user reset", client=client, user=user, reason=reason, detail=detail))
        return len(revoked)

    return work


async def invite(
    desk: Desk, call: Call, client: str, user: str, seconds: int | None, *, reason: str | None = None
) -> RegistrationCodeReply:
    """Issue a code that stands in for an authenticator once; the only reply that holds it."""
    lasts = DAY if seconds is None else seconds
    if not _SHORTEST_REGISTRATION <= lasts <= _LONGEST_REGISTRATION:
        raise invalid("seconds")
    code, record = recovery.registration_code(desk.random)
    expires_at = int(desk.clock()) + lasts
    token = active_token(desk, Kind.REGISTRATION, client, user, expires_at=expires_at)
    sealed = desk.store.vault.seal(record.pack(), token_identity(token))

    def work(transaction: Transaction) -> None:
        if users.find(transaction.connection, client, user) is None:
            raise users.NoSuchUserError(client, user)
        replace_token(call, transaction, token, sealed, "registration code issued", reason=reason)

    await desk.change(work)
    return RegistrationCodeReply(token=token.id, code=code.reveal().decode(), expires_at=expires_at)
