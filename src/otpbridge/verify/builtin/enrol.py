"""Set up an authenticator while logging in, for those who must have one and have none."""

from __future__ import annotations

import enum
from dataclasses import dataclass, replace
from typing import ClassVar

from otpbridge.model import Notice, NoticeStyle, Prompt, Verdict
from otpbridge.verify.api import Attempt

PROMPT = Prompt("Code that your authenticator shows: ")
TRIES = 3
_SET_UP = Notice("Your authenticator is set up. Its codes are asked for from now on.", name="authenticator_set_up")


class FirstFactor(enum.StrEnum):
    """Who has seen to it that the person is who they say they are."""

    STACK = "stack"
    """A verifier that stands before this one in the stack, `password` or `pam`."""
    CALLER = "caller"
    """Whoever called: a PAM stack that has asked for a password or key before it asks for the code."""


@dataclass(frozen=True, kw_only=True)
class EnrolOptions:
    """Whose word is taken that a first factor has passed."""

    first_factor: FirstFactor = FirstFactor.STACK


class Enrol:
    """Shows the key of a new authenticator, asks for its code, and lets the person in with it."""

    enrols: ClassVar[bool] = True
    Options = EnrolOptions

    def __init__(self, options: EnrolOptions) -> None:
        self._options = options

    async def verify(self, attempt: Attempt) -> Verdict:
        """Enrol the user; `ignore` for all who need not or may not enrol here."""
        enrolment = await attempt.enrol(trust_caller=self._options.first_factor is FirstFactor.CALLER)
        if enrolment is None:
            return Verdict.IGNORE
        prompt = replace(PROMPT, notice=enrolment.instructions)
        for _ in range(TRIES):
            if await enrolment.confirm(await attempt.ask(prompt, again=True)):
                attempt.tell_on_success(_SET_UP)
                return Verdict.SUCCESS
            await attempt.tell(Notice("That code does not match.", NoticeStyle.ERROR))
            prompt = PROMPT
        return Verdict.AUTH_ERR
