"""An attempt that is played from a script, to test verifiers without a daemon.

    attempt = ScriptedAttempt(answers=["wrong", "open sesame"])
    assert judge(Sesame(), attempt) is Verdict.SUCCESS
    assert attempt.asked == ["Password: ", "Once more: "]

It keeps the promises of `otpbridge.verify.api.Attempt`: what was answered is not asked for again, an empty answer is
not handed out, a user without a token of a kind has a decoy, and what was spent cannot be spent again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from otpbridge.errors import OtpBridgeError
from otpbridge.model import (
    LOCAL,
    Context,
    Kind,
    Notice,
    OtpParameters,
    Prompt,
    RelyingParty,
    Secret,
    State,
    Token,
    Verdict,
)
from otpbridge.verify.api import Attempt, Enrolment, Verifier

_DECOYS = {
    Kind.TOTP: bytes(20),
    Kind.HOTP: bytes(20),
    Kind.YUBIOTP: bytes(28),
    Kind.FIDO2: bytes(20),
    Kind.RECOVERY: bytes(32 + 10 * 16),
    Kind.REGISTRATION: bytes(32 + 16),
    Kind.PASSWORD: b"$argon2id$v=19$m=47104,t=1,p=1$" + b"A" * 22 + b"$" + b"A" * 43,
}
"""What is sealed with a decoy: of the form that its kind has, and of no use."""


class EmptyAnswerError(OtpBridgeError):
    """The person has left the answer empty. What a verifier says then does not count."""


class NoAnswerLeftError(Exception):
    """The verifier asked more often than the script has answers."""


def token(kind: Kind, **changes: Any) -> Token:
    """An active token of alice."""
    fields = {"id": "t1", "user": "alice", "client": LOCAL, "state": State.ACTIVE, "parameters": OtpParameters()}
    return Token(**{**fields, "kind": kind, **changes})


@dataclass
class ScriptedAttempt:
    """An attempt whose answers are known beforehand, and which keeps what was done in it.

    `held` are the user's tokens, each with what is sealed in it; `given` the answers that other rules have asked for
    already, by name; `answers` those that the person gives, in order.
    """

    held: Sequence[tuple[Token, bytes | Secret]] = ()
    answers: Sequence[str] = ()
    given: dict[str, str] = field(default_factory=dict)
    now: float = 1_700_000_000.0
    user: str = "alice"
    client: str = LOCAL
    context: Context = field(default_factory=Context)
    relying_party: RelyingParty | None = None
    security_key: Callable[[str], str] | None = None
    """Answers what security keys are asked; None where none can be."""

    reason: str = ""
    """What the verifier has noted for the audit log."""
    asked: list[str] = field(default_factory=list)
    told: list[Notice] = field(default_factory=list)
    told_on_success: list[Notice] = field(default_factory=list)
    spends: dict[str, int] = field(default_factory=dict)
    """What was spent last, by token id: a moving factor, or a place in a list."""

    def __post_init__(self) -> None:
        self._answers = iter(self.answers)
        self._decoys = {kind: token(kind, id="", user="", client="") for kind in Kind}

    def tokens(self, kind: Kind) -> Sequence[Token]:
        """See Attempt."""
        return [held for held, _ in self.held if held.kind is kind] or [self._decoys[kind]]

    def secret(self, token: Token) -> Secret:
        """See Attempt."""
        for held, secret in self.held:
            if held is token:
                return secret if isinstance(secret, Secret) else Secret(secret)
        self._check(token)
        return Secret(_DECOYS[token.kind])

    async def ask(self, prompt: Prompt, *, again: bool = False) -> str:
        """See Attempt. Raises EmptyAnswerError."""
        if again or prompt.answer not in self.given:
            if prompt.notice:
                self.told.append(Notice(prompt.notice))
            self.asked.append(prompt.text)
            try:
                self.given[prompt.answer] = next(self._answers)
            except StopIteration:
                raise NoAnswerLeftError(prompt.text) from None
        text = self.given[prompt.answer]
        if not text.strip():
            raise EmptyAnswerError("the answer was left empty")
        return text

    async def tell(self, notice: Notice) -> None:
        """See Attempt."""
        self.told.append(notice)

    def tell_on_success(self, notice: Notice) -> None:
        """See Attempt."""
        self.told_on_success.append(notice)

    async def advance(self, token: Token, moving_factor: int, drift: int = 0) -> bool:
        """See Attempt."""
        self._check(token)
        if not token.id or token.id in self.spends or moving_factor < token.moving_factor:
            return False
        self.spends[token.id] = moving_factor
        return True

    async def strike(self, token: Token, place: int) -> bool:
        """See Attempt."""
        if not 0 <= place <= 62:
            raise ValueError("place is out of range")
        self._check(token)
        if not token.id or token.id in self.spends or token.moving_factor >> place & 1:
            return False
        self.spends[token.id] = place
        return True

    async def present(self, token: Token) -> bool:
        """See Attempt."""
        self._check(token)
        if not token.id or token.id in self.spends:
            return False
        self.spends[token.id] = token.moving_factor
        return True

    def note(self, reason: str) -> None:
        """See Attempt."""
        self.reason = reason

    def random(self, length: int) -> bytes:
        """See Attempt: bytes that are known beforehand."""
        return bytes(place % 256 for place in range(length))

    @property
    def reaches_keys(self) -> bool:
        """See Attempt."""
        return self.security_key is not None

    async def assertion(self, options: str) -> str:
        """See Attempt."""
        return "" if self.security_key is None else self.security_key(options)

    async def enrol(self, *, trust_caller: bool = False) -> Enrolment | None:
        """See Attempt: nothing to enrol."""
        return None

    @property
    def notices(self) -> list[str]:
        """All that the person was told, in order; what is told on success comes last."""
        return [notice.text for notice in (*self.told, *self.told_on_success)]

    def _check(self, token: Token) -> None:
        mine = (*(held for held, _ in self.held), *self._decoys.values())
        if not any(token is each for each in mine):
            raise ValueError("a verifier may only use the tokens of its attempt")


def judge(verifier: Verifier, attempt: Attempt) -> Verdict:
    """What a verifier says, run as the daemon runs it: in an event loop of its own."""
    return asyncio.run(verifier.verify(attempt))
