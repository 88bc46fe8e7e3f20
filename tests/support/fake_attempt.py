"""The scripted attempt that otpbridge offers to others, with what only our own verifiers do.

attempt = FakeAttempt([(token(Kind.TOTP), seed)], answers=["123456"])
assert judge(verifier, attempt) is Verdict.SUCCESS
assert attempt.spends == {"t1": 42}
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from otpbridge.model import Prompt, Secret, Token, Verdict
from otpbridge.verify.api import Attempt, Enrolment, Verifier
from otpbridge.verify.testing import EmptyAnswerError, ScriptedAttempt, token

__all__ = ["FakeAttempt", "FakeEnrolment", "judge", "token"]


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
class FakeAttempt(ScriptedAttempt):
    """A scripted attempt that may enrol, and remembers which secrets were looked at."""

    enrolment: Enrolment | None = None
    revealed: list[Token] = field(default_factory=list)
    trusted_caller: bool | None = None

    def secret(self, token: Token) -> Secret:
        self.revealed.append(token)
        return super().secret(token)

    async def ask(self, prompt: Prompt, *, again: bool = False) -> str:
        """Ours refuse an empty answer also where it is handed out to them."""
        try:
            return await super().ask(prompt, again=again)
        except EmptyAnswerError:
            return self.given[prompt.answer]

    async def enrol(self, *, trust_caller: bool = False) -> Enrolment | None:
        self.trusted_caller = trust_caller
        return self.enrolment


def judge(verifier: Verifier, attempt: Attempt) -> Verdict:
    """What the verifier says. It may await nothing but its attempt, so no event loop is needed."""
    coroutine = verifier.verify(attempt)
    try:
        coroutine.send(None)
    except StopIteration as end:
        return end.value
    coroutine.close()
    raise AssertionError("a verifier awaits something other than its attempt")
