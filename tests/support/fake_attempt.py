"""An attempt without a daemon: all that a verifier can see and do, for testing one.

    attempt = FakeAttempt([(token(Kind.TOTP), seed)], answers=["123456"])
    assert judge(verifier, attempt) is Verdict.SUCCESS
    assert attempt.spends == {"t1": 42}
    assert attempt.asked == ["Verification code: "]

It keeps the promises of `otpbridge.verify.api.Attempt`: what was answered is not asked for again, a user without a
token has a decoy, what was spent cannot be spent again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from otpbridge.model import Context, Kind, Notice, OtpParameters, Prompt, Secret, State, Token, Verdict
from otpbridge.verify.api import Attempt, Enrolment, Verifier

DECOYS = {
    Kind.TOTP: bytes(20),
    Kind.HOTP: bytes(20),
    Kind.YUBIOTP: bytes(28),
    Kind.RECOVERY: bytes(32 + 10 * 16),
    Kind.REGISTRATION: bytes(32 + 16),
    Kind.PASSWORD: b"$argon2id$v=19$m=47104,t=1,p=1$" + b"A" * 22 + b"$" + b"A" * 43,
}
"""What is sealed with a decoy: of the form that its kind has, and of no use."""


class NoAnswerLeftError(Exception):
    """The verifier asked more often than there are answers."""


def token(kind: Kind, **changes: Any) -> Token:
    """An active token of alice."""
    fields = {"id": "t1", "user": "alice", "client": "local", "state": State.ACTIVE, "parameters": OtpParameters()}
    return Token(**{**fields, "kind": kind, **changes})


@dataclass
class FakeEnrolment:
    """A new authenticator which shows these codes."""

    codes: Sequence[str]
    instructions: str = "otpauth://…\nKEY KEY KEY"
    confirmed: bool = False

    async def confirm(self, code: str) -> bool:
        self.confirmed = code in self.codes
        return self.confirmed


@dataclass
class FakeAttempt:
    """An attempt whose answers are known beforehand. Given answers are handed out before `answers` are asked for."""

    held: Sequence[tuple[Token, bytes | Secret]] = ()
    answers: Sequence[str] = ()
    given: dict[str, str] = field(default_factory=dict)
    now: float = 1_700_000_000.0
    user: str = "alice"
    client: str = "local"
    context: Context = field(default_factory=Context)
    enrolment: Enrolment | None = None

    asked: list[str] = field(default_factory=list)
    told: list[Notice] = field(default_factory=list)
    told_on_success: list[Notice] = field(default_factory=list)
    spends: dict[str, int] = field(default_factory=dict)
    revealed: list[Token] = field(default_factory=list)
    trusted_caller: bool | None = None

    def __post_init__(self) -> None:
        self._answers = iter(self.answers)
        self._decoys = {kind: token(kind, id="", user="", client="") for kind in Kind}

    def tokens(self, kind: Kind) -> Sequence[Token]:
        return [held for held, _ in self.held if held.kind is kind] or [self._decoys[kind]]

    def secret(self, token: Token) -> Secret:
        self.revealed.append(token)
        for held, secret in self.held:
            if held is token:
                return secret if isinstance(secret, Secret) else Secret(secret)
        if token is self._decoys[token.kind]:
            return Secret(DECOYS[token.kind])
        raise ValueError("a verifier may only use the tokens of its attempt")

    async def ask(self, prompt: Prompt, *, again: bool = False) -> str:
        if again or prompt.answer not in self.given:
            self.asked.append(prompt.text)
            try:
                self.given[prompt.answer] = next(self._answers)
            except StopIteration:
                raise NoAnswerLeftError(prompt.text) from None
        return self.given[prompt.answer]

    async def tell(self, notice: Notice) -> None:
        self.told.append(notice)

    def tell_on_success(self, notice: Notice) -> None:
        self.told_on_success.append(notice)

    async def advance(self, token: Token, moving_factor: int, drift: int = 0) -> bool:
        if self._is_decoy(token) or moving_factor < token.moving_factor:
            return False
        self.spends[token.id] = moving_factor
        return True

    async def strike(self, token: Token, place: int) -> bool:
        assert 0 <= place <= 62
        if self._is_decoy(token) or token.moving_factor >> place & 1:
            return False
        self.spends[token.id] = place
        return True

    async def enrol(self, *, trust_caller: bool = False) -> Enrolment | None:
        self.trusted_caller = trust_caller
        return self.enrolment

    @property
    def notices(self) -> list[str]:
        """All that the person was told, in order; what is told on success comes last."""
        return [notice.text for notice in (*self.told, *self.told_on_success)]

    def _is_decoy(self, token: Token) -> bool:
        if token is self._decoys[token.kind]:
            return True
        if any(held is token for held, _ in self.held):
            return False
        raise ValueError("a verifier may only use the tokens of its attempt")


def judge(verifier: Verifier, attempt: Attempt) -> Verdict:
    """What the verifier says. It may await nothing but its attempt, so no event loop is needed."""
    coroutine = verifier.verify(attempt)
    try:
        coroutine.send(None)
    except StopIteration as end:
        return end.value
    coroutine.close()
    raise AssertionError("a verifier awaits something other than its attempt")
