"""Tokens that are nobody's: judged instead of none, so that having none takes as long as a wrong code."""

from __future__ import annotations

from collections.abc import Callable

from otpbridge.model import Kind, OtpParameters, Secret, State, Token
from otpbridge.otp import recovery
from otpbridge.otp.yubiotp import YubiKey
from otpbridge.store.tokens import StoredToken
from otpbridge.vault.seal import Vault, token_identity
from otpbridge.verify.builtin.password import hash_password


class Decoys:
    """One decoy of each kind, made when it is first needed, and anew when the master key has changed."""

    def __init__(self, vault: Vault, random: Callable[[int], bytes]) -> None:
        self._vault = vault
        self._random = random
        self._made: dict[Kind, StoredToken] = {}
        self._key = vault.keyring.primary.id

    def of(self, kind: Kind) -> StoredToken:
        """The decoy of a kind. Its row is 0, which is no row."""
        found = self._made.get(kind)
        if found is None:
            token = Token("", "", "", kind, State.ACTIVE, OtpParameters())
            sealed = self._vault.seal(self._secret(kind), token_identity(token))
            found = self._made[kind] = StoredToken(token, 0, sealed)
        return found

    def refresh(self) -> None:
        """Forget those that are sealed under an older key, which may be gone at any time."""
        key = self._vault.keyring.primary.id
        if key != self._key:
            self._key, self._made = key, {}

    def _secret(self, kind: Kind) -> Secret:
        random = self._random
        match kind:
            case Kind.YUBIOTP:
                return YubiKey(random(6), Secret(random(6)), Secret(random(16))).pack()
            case Kind.RECOVERY:
                return recovery.recovery_codes(random)[1].pack()
            case Kind.REGISTRATION:
                return recovery.registration_code(random)[1].pack()
            case Kind.PASSWORD:
                return hash_password(random(16).hex(), random)
            case Kind.TOTP | Kind.HOTP | Kind.FIDO2:
                return Secret(random(20))
