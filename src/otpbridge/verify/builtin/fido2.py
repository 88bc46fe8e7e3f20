"""Judge the answers of security keys and passkeys (WebAuthn), in a browser or on this machine."""

from __future__ import annotations

from dataclasses import dataclass

from otpbridge import webauthn
from otpbridge.errors import WebauthnError
from otpbridge.model import Kind, UserVerification, Verdict
from otpbridge.verify.api import Attempt


@dataclass(frozen=True, kw_only=True)
class Fido2Options:
    """What a key must do beside being touched."""

    user_verification: UserVerification | None = None
    """Whether the key must ask who uses it (PIN, fingerprint). Without it, what `[webauthn]` says."""


class Fido2:
    """Accepts the answer of one of the user's security keys to a challenge that is used once.

    Users without a key are not asked. Nor is anyone where no key can be: the caller shows no page, and the login is
    not at this machine.
    """

    Options = Fido2Options

    def __init__(self, options: Fido2Options) -> None:
        self._options = options

    async def verify(self, attempt: Attempt) -> Verdict:
        """Ask the user's keys; the one that answers must be one of them, and its counter must have grown."""
        party = attempt.relying_party
        if party is None or not attempt.reaches_keys:
            return Verdict.AUTH_ERR
        # A decoy has no id, and would be asked in vain.
        tokens = [token for token in attempt.tokens(Kind.FIDO2) if token.id]
        if not tokens:
            return Verdict.AUTH_ERR
        await webauthn.ready()
        from otpbridge.webauthn.ceremony import Assertion  # noqa: PLC0415 - only where somebody has a key
        from otpbridge.webauthn.credential import Credential  # noqa: PLC0415

        asked = Assertion(
            party,
            [Credential.unpack(attempt.secret(token)) for token in tokens],
            attempt.random(webauthn.CHALLENGE_BYTES),
            self._options.user_verification,
        )
        answer = await attempt.assertion(asked.options)
        if not answer:
            return Verdict.AUTH_ERR
        try:
            shown = asked.judge(answer)
        except WebauthnError as error:
            attempt.note(f"security key: {error}")
            return Verdict.AUTH_ERR
        token = tokens[shown.place]
        # A key that does not count says 0 for ever; one that does never says the same twice (§6.1.1).
        counts = shown.counter or token.moving_factor
        passed = await (attempt.advance(token, shown.counter) if counts else attempt.present(token))
        if not passed and counts:
            attempt.note("security key: its signature counter did not grow; there may be a copy of it")
        return Verdict.SUCCESS if passed else Verdict.AUTH_ERR
