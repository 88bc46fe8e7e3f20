"""What a verification gives back, as plain types."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from otpbridge.model import Notice, Prompt, Verdict
from otpbridge.wire.messages import CheckReply, Step

OnNotice = Callable[[Notice], None]


@dataclass(frozen=True, slots=True)
class Verification:
    """A verdict. True exactly when it is `success`, so `if client.verify(…):` lets nobody else in.

    `ignore` is not true: it says that policy asks no second factor of this user. A portal that lets such users in
    checks `ignored` too. `retry_after` comes with `maxtries`: seconds until the next attempt is judged. `notices` are
    for the person; they are said once.
    """

    verdict: Verdict
    token: str | None = None
    retry_after: int | None = None
    notices: tuple[Notice, ...] = ()

    @property
    def ok(self) -> bool:
        """The person has shown a second factor."""
        return self.verdict is Verdict.SUCCESS

    @property
    def ignored(self) -> bool:
        """Policy asks no second factor of this user."""
        return self.verdict is Verdict.IGNORE

    def __bool__(self) -> bool:
        return self.ok


def verification_of(reply: CheckReply) -> Verification:
    """The reply to Check as a plain type."""
    return Verification(reply.verdict, reply.token, reply.retry_after, notices_of(reply))


def notices_of(step: Step | CheckReply) -> tuple[Notice, ...]:
    """What the person is to be told."""
    return tuple(Notice(notice.text, notice.style, notice.name or "", notice.count) for notice in step.notices)


def prompts_of(step: Step) -> tuple[Prompt, ...]:
    """What the person is to be asked."""
    return tuple(Prompt(prompt.text, prompt.style, prompt.answer) for prompt in step.prompts)
