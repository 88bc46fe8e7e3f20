"""What the daemon says of a user, as the pages show it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from otpbridge.client import Enforcement, Kind, State
from otpbridge.portal.visit import Visit

AUTHENTICATORS = frozenset({Kind.TOTP, Kind.HOTP, Kind.YUBIOTP, Kind.FIDO2})
"""What can be required of a user."""
_PROVE_WITH_CODE = frozenset({Kind.TOTP, Kind.HOTP, Kind.YUBIOTP, Kind.RECOVERY})


@dataclass(frozen=True, slots=True)
class Held:
    """One token."""

    id: str
    kind: Kind
    state: State
    label: str
    issuer: str
    created_at: int
    last_used_at: int | None
    codes_left: int | None


@dataclass(frozen=True, slots=True)
class Standing:
    """A user's tokens, and what is required of them."""

    user: str
    required: bool
    tokens: Sequence[Held]

    @property
    def authenticators(self) -> Sequence[Held]:
        """What was proven with a code or an answer."""
        return [token for token in self.tokens if token.kind in AUTHENTICATORS and token.state is not State.PENDING]

    @property
    def active(self) -> bool:
        """Whether an authenticator can be shown."""
        return any(token.state is State.ACTIVE for token in self.authenticators)

    @property
    def has_key(self) -> bool:
        """Whether a security key can be asked."""
        return any(token.kind is Kind.FIDO2 and token.state is State.ACTIVE for token in self.tokens)

    @property
    def has_codes(self) -> bool:
        """Whether there is anything that shows codes."""
        return any(token.kind in _PROVE_WITH_CODE and token.state is State.ACTIVE for token in self.tokens)

    @property
    def has_password(self) -> bool:
        """Whether the daemon keeps a password of theirs."""
        return any(token.kind is Kind.PASSWORD for token in self.tokens)

    @property
    def recovery_codes(self) -> int | None:
        """How many recovery codes are left; None where none were made."""
        return next((token.codes_left or 0 for token in self.tokens if token.kind is Kind.RECOVERY), None)

    @property
    def pending(self) -> bool:
        """Whether a set-up waits for its code."""
        return any(token.kind in AUTHENTICATORS and token.state is State.PENDING for token in self.tokens)

    def token(self, token: str) -> Held | None:
        """The token of this id, if it is this user's."""
        return next((held for held in self.tokens if held.id == token), None)


async def standing(visit: Visit, user: str) -> Standing:
    """What holds for a user of this client. Raises RemoteError NoSuchUser."""
    reply = await visit.house.otp.tokens(user, client=visit.client)
    return Standing(
        user,
        reply.enforcement is Enforcement.REQUIRED,
        [
            Held(
                token.id,
                token.kind,
                token.state,
                token.label,
                token.issuer,
                token.created_at,
                token.last_used_at,
                token.codes_left,
            )
            for token in reply.tokens
        ],
    )
