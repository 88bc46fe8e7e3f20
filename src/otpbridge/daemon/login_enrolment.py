"""Enrol a user while they log in: nothing is stored before a code has proven the new token."""

from __future__ import annotations

from collections.abc import Callable

from otpbridge.config import Config
from otpbridge.daemon.attempt import StoreAttempt
from otpbridge.daemon.ids import new_token_id
from otpbridge.daemon.shown import shown_factor
from otpbridge.enroll import otpauth, qr, seeds
from otpbridge.enroll.otpauth import OtpauthKey
from otpbridge.model import AuditEvent, Context, Kind, OtpParameters, Secret, State, Token
from otpbridge.store import tokens, users
from otpbridge.store.store import Store
from otpbridge.store.writer import Transaction
from otpbridge.vault.seal import token_identity


class LoginEnrolment:
    """A TOTP token for the user of an attempt (see verify.api.Enrolment)."""

    def __init__(
        self,
        store: Store,
        config: Config,
        attempt: StoreAttempt,
        *,
        host: str,
        random: Callable[[int], bytes],
        about: AuditEvent,
    ) -> None:
        self._store = store
        self._config = config
        self._attempt = attempt
        self._about = about
        algorithm = config.policy_of(attempt.client).algorithms[0]
        self._seed = Secret(random(algorithm.seed_bytes))
        self._token = Token(
            id=new_token_id(random),
            user=attempt.user,
            client=attempt.client,
            kind=Kind.TOTP,
            state=State.ACTIVE,
            parameters=OtpParameters(algorithm, config.policy_of(attempt.client).digits[0]),
            label=attempt.user,
            issuer=config.issuer_of(attempt.client, host),
        )

    @property
    def instructions(self) -> str:
        """See verify.api."""
        token = self._token
        uri = otpauth.build(OtpauthKey(token.kind, self._seed, token.parameters, token.label, token.issuer))
        key = seeds.grouped(seeds.to_base32(self._seed))
        lines = ["This account needs a second factor. Set one up now, with an authenticator app."]
        if can_draw(self._attempt.context):
            lines += ["Scan this picture:", qr.terminal_plain(uri), "Or type this key into the app:"]
        else:
            lines.append("Type this key into the app:")
        lines += ["", f"    {key}", ""]
        return "\n".join(lines)

    async def confirm(self, code: str) -> bool:
        """See verify.api. False too where another login has enrolled the user meanwhile."""
        token, attempt = self._token, self._attempt
        shown = shown_factor(self._config.window, token, self._seed, code, attempt.now)
        if shown is None:
            return False
        step, drift = shown
        now = int(attempt.now)
        proven = token._replace(moving_factor=step + 1, drift=drift, created_at=now, confirmed_at=now)
        sealed = self._store.vault.seal(self._seed, token_identity(proven))

        def work(transaction: Transaction) -> bool:
            if tokens.authenticators(transaction.connection, token.client, token.user):
                return False
            users.ensure(transaction, token.client, token.user)
            tokens.put(transaction, proven, sealed, self._store.fingerprint(self._seed))
            transaction.audit(self._about)
            return True

        self._about = self._about._replace(event="token confirmed", token=token.id, reason="enrolled at login")
        if not await self._store.change(work, int(attempt.now * 1000)):
            return False
        attempt.enrolled = token.id
        return True


def can_draw(context: Context) -> bool:
    """Whether a picture of block characters can be expected to be seen as it is meant.

    A terminal draws it: that of a login over ssh, on the console, or in a window. A login screen does not.
    """
    if context.service in _SCREENS or context.tty.startswith(":"):
        return False
    return bool(context.tty) or context.service in _TERMINALS


_SCREENS = frozenset({"gdm-password", "gdm", "lightdm", "sddm", "xdm", "kde", "polkit-1", "xscreensaver", "cockpit"})
_TERMINALS = frozenset({"sshd", "login", "su", "su-l", "sudo", "sudo-i"})
