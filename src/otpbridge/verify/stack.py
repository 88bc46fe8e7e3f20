"""Evaluate a stack: which verifiers are asked, in what order, and what their verdicts amount to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from otpbridge.model import Verdict
from otpbridge.verify.api import Attempt, Verifier

DEFAULT = "default"


@dataclass(frozen=True, slots=True)
class Stack:
    """A named list of verifiers of which one has to pass, as PAM's `sufficient` does it."""

    name: str
    verifiers: Sequence[Verifier]

    async def evaluate(self, attempt: Attempt) -> Verdict:
        """The verdict of the stack on one attempt."""
        worst = Verdict.AUTH_ERR
        for verifier in self.verifiers:
            verdict = await verifier.verify(attempt)
            if verdict is Verdict.SUCCESS:
                return verdict
            if verdict is Verdict.AUTHINFO_UNAVAIL:
                worst = verdict
        return worst
