"""A stack: a program of rules, each with its verifier, run on one attempt."""

from __future__ import annotations

import enum
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from otpbridge.errors import OtpBridgeError
from otpbridge.model import Factor, Verdict
from otpbridge.verify.api import Attempt
from otpbridge.verify.evaluation import Evaluation
from otpbridge.verify.registry import Made
from otpbridge.verify.rules import Placed, Program

log = logging.getLogger(__name__)


class Mode(enum.Enum):
    """What policy makes of an attempt before anything is asked."""

    ASK = "ask"
    """A second factor is asked for."""
    WAIVED = "waived"
    """None is: verifiers of a second factor say `ignore` unasked."""
    ENROL = "enrol"
    """The user must have one and has none, and may get one here: only verifiers that enrol are asked for it."""


class StackAttempt(Attempt, Protocol):
    """What the stack itself needs to know of an attempt, beside what verifiers see."""

    mode: Mode
    first_factor: bool
    """Whether a first factor has passed."""
    second_factor: bool
    """Whether a second factor has."""
    blocked: bool
    """Whether back-off has turned the attempt away."""
    failed: list[str]
    """The verifiers that could not judge."""

    def begin_rule(self) -> None:
        """A rule is run next."""

    @property
    def declined(self) -> Verdict | None:
        """What the rule says whose question was left unanswered; None where it was answered."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What a stack found. `undecided`: no rule has left an impression, so `verdict` is only its default."""

    verdict: Verdict
    undecided: bool


@dataclass(frozen=True, slots=True)
class Stack:
    """A program with a verifier for each rule, by the identity of the rule.

    `enrols` says whether a rule of it enrols, `both_factors` whether it may ask for a password and for a code.
    """

    program: Program
    made: Mapping[int, Made]
    enrols: bool = field(init=False)
    both_factors: bool = field(init=False)

    def __post_init__(self) -> None:
        factors = {each.factor for each in self.made.values()}
        object.__setattr__(self, "enrols", any(each.enrols for each in self.made.values()))
        object.__setattr__(self, "both_factors", {Factor.FIRST, Factor.SECOND} <= factors)

    @property
    def name(self) -> str:
        """The name of the stack."""
        return self.program.name

    def of(self, rule: Placed) -> Made:
        """The verifier of a rule."""
        return self.made[id(rule)]

    async def evaluate(self, attempt: StackAttempt) -> Finding:
        """Run the rules on an attempt, as libpam runs its modules."""
        evaluation = Evaluation(self.program)
        while (rule := evaluation.rule) is not None:
            evaluation.give(await self._run(self.of(rule), attempt))
            if attempt.blocked:
                return Finding(Verdict.MAXTRIES, undecided=False)
        return Finding(evaluation.verdict, evaluation.undecided)

    async def _run(self, made: Made, attempt: StackAttempt) -> Verdict:
        unasked = said_unasked(made, attempt.mode)
        if unasked is not None:
            return unasked
        attempt.begin_rule()
        verdict = await _judge(made, attempt)
        if attempt.declined is not None:
            return attempt.declined
        if verdict is Verdict.AUTHINFO_UNAVAIL:
            attempt.failed.append(made.name)
        if made.factor is Factor.FIRST:
            if verdict is Verdict.IGNORE:
                # A login without a second factor rests on this one: it may refuse, but not look away.
                log.error("verifier %s is a first factor and said `ignore`", made.name)
                return Verdict.AUTHINFO_UNAVAIL
            attempt.first_factor |= verdict is Verdict.SUCCESS
        elif made.factor is Factor.SECOND:
            attempt.second_factor |= verdict is Verdict.SUCCESS
        return verdict


def said_unasked(made: Made, mode: Mode) -> Verdict | None:
    """What a rule says without its verifier being asked; None where it is asked."""
    if made.factor is not Factor.SECOND or mode is Mode.ASK:
        return None
    return None if mode is Mode.ENROL and made.enrols else Verdict.IGNORE


async def _judge(made: Made, attempt: StackAttempt) -> Verdict:
    try:
        verdict: object = await made.verifier.verify(attempt)
    except Exception as error:  # noqa: BLE001 - whatever a verifier raises is a refusal
        if attempt.declined is None and not attempt.blocked:
            # Only our own messages are known to hold no secret.
            detail = f": {error}" if isinstance(error, OtpBridgeError) else ""
            log.error("verifier %s failed: %s%s", made.name, type(error).__name__, detail)  # noqa: TRY400
        return Verdict.AUTHINFO_UNAVAIL
    if isinstance(verdict, Verdict):
        return verdict
    log.error("verifier %s returned a %s, not a verdict", made.name, type(verdict).__name__)
    return Verdict.AUTHINFO_UNAVAIL
