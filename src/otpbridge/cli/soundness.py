"""Look stacks through for what an admin hardly means: ways in without a factor, and rules that do nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from otpbridge.config import Config
from otpbridge.model import Factor, Verdict
from otpbridge.verify.evaluation import Evaluation
from otpbridge.verify.registry import Made
from otpbridge.verify.rules import Placed, warnings
from otpbridge.verify.stack import Stack

_MOST_RUNS = 20_000
"""Evaluations of one stack for one question; one of usual length needs some dozens."""

_Choices = Callable[[Made], tuple[Verdict, ...]]

_YES, _NO, _FAILED, _NOTHING = Verdict.SUCCESS, Verdict.AUTH_ERR, Verdict.AUTHINFO_UNAVAIL, Verdict.IGNORE


class _TooManyWaysError(Exception):
    """A stack cannot be tried in every way."""


@dataclass(slots=True)
class Found:
    """`warnings` are to be put right; `notes` are to be known."""

    warnings: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def look(config: Config, stacks: Mapping[str, Stack]) -> Found:
    """Look all stacks through."""
    found = Found()
    for stack in stacks.values():
        _look_at(config, stack, found)
    found.warnings = list(dict.fromkeys(found.warnings))
    found.notes = list(dict.fromkeys(found.notes))
    return found


def _look_at(config: Config, stack: Stack, found: Found) -> None:
    faults = {made.fault for rule in stack.program.rules if (made := stack.of(rule)).fault}
    found.warnings += [
        f"stack {stack.name}: {fault} Its rules say authinfo_unavail." for fault in sorted(map(str, faults))
    ]
    found.warnings += warnings(stack.program)
    try:
        if not faults and not _lets_in(stack, _anything):
            found.warnings.append(f"stack {stack.name} lets nobody in, whatever succeeds. Does it end in deny?")
        else:
            found.warnings += _ways_without_factor(stack)
    except _TooManyWaysError:
        found.warnings.append(f"stack {stack.name} has too many ways through it to be checked. Make it shorter.")
    if not any(stack.of(rule).factor is Factor.SECOND for rule in stack.program.rules):
        found.notes.append(f"stack {stack.name} asks for no second factor.")
    for rule in stack.program.rules:
        if stack.of(rule).enrols:
            _look_at_enrolment(config, stack, rule, found)


# --- ways in ---


def _ways_without_factor(stack: Stack) -> list[str]:
    """How the stack lets in although what was to keep people out has refused. The worst of it alone."""
    if _lets_in(stack, _refusing):
        return [f"stack {stack.name} lets in whoever comes: with every answer wrong it still says yes. {_PERMIT}"]
    if _lets_in(stack, _failing):
        bad = "Let authinfo_unavail of its rules be `bad` or `die`."
        return [f"stack {stack.name} lets in whoever comes while a verifier fails. {bad}"]
    second = any(stack.of(rule).factor is Factor.SECOND and not stack.of(rule).enrols for rule in stack.program.rules)
    told = []
    if second and _lets_in(stack, _password_alone):
        told.append(
            f"stack {stack.name} lets in with the first factor alone, though the second was refused. Make the first"
            " `required` or `requisite`, and one rule of the second, the last, `required`."
        )
    elif stack.enrols and _lets_in(stack, _not_enrolled):
        told.append(
            f"stack {stack.name} says yes with the first factor alone to who has no authenticator and does not enrol"
            " one; the daemon refuses them. Write the rule as `[success=done ignore=ignore default=die] enrol`."
        )
    return told


_PERMIT = "Does it end in `permit`, or is every rule `optional`?"


def _anything(made: Made) -> tuple[Verdict, ...]:
    return _fixed(made) or ((_YES, _NOTHING) if made.enrols else (_YES, _NO))


def _refusing(made: Made) -> tuple[Verdict, ...]:
    if made.factor is Factor.NEITHER:
        return _fixed(made) or (_YES, _NO)
    return (_NOTHING,) if made.enrols else (_NO,)


def _failing(made: Made) -> tuple[Verdict, ...]:
    refused = _refusing(made)
    return (*refused, _FAILED) if refused == (_NO,) and made.factor is not Factor.NEITHER else refused


def _password_alone(made: Made) -> tuple[Verdict, ...]:
    return (_YES,) if made.factor is Factor.FIRST else _failing(made)


def _not_enrolled(made: Made) -> tuple[Verdict, ...]:
    """Who is to enrol is asked for no code: only the rule that enrols speaks for the second factor."""
    if made.enrols:
        return (_NO,)
    return (_NOTHING,) if made.factor is Factor.SECOND else _password_alone(made)


def _fixed(made: Made) -> tuple[Verdict, ...]:
    """What a verifier says in any case; nothing where that depends."""
    if made.fault is not None:
        return (_FAILED,)
    if made.own and made.factor is Factor.NEITHER:
        return (_YES,) if made.name == "permit" else (_NO,)
    return ()


def _lets_in(stack: Stack, choices: _Choices) -> bool:
    """Whether any of these verdicts of its verifiers makes the stack say `success`. Raises _TooManyWaysError."""
    for runs, verdict in enumerate(_outcomes(stack, choices)):
        if verdict is Verdict.SUCCESS:
            return True
        if runs == _MOST_RUNS:
            raise _TooManyWaysError
    return False


def _outcomes(stack: Stack, choices: _Choices) -> Iterator[Verdict]:
    """What the stack says for each row of verdicts that its verifiers may give."""
    waiting: list[tuple[Verdict, ...]] = [()]
    while waiting:
        given = waiting.pop()
        evaluation = Evaluation(stack.program)
        for verdict in given:
            evaluation.give(verdict)
        while (rule := evaluation.rule) is not None:
            first, *others = choices(stack.of(rule))
            waiting += [(*given, other) for other in others]
            given = (*given, first)
            evaluation.give(first)
        yield evaluation.verdict


# --- enrolment ---


def _look_at_enrolment(config: Config, stack: Stack, rule: Placed, found: Found) -> None:
    word = rule.rule.options.get("first_factor") or config.verifiers.get("enrol", {}).get("first_factor", "stack")
    rules = stack.program.rules
    before = rules[: rules.index(rule)]
    if word == "caller":
        found.notes.append(
            f"{rule.where}: whoever calls this stack must have checked a first factor and stopped where it was wrong."
            " In pam.d a line such as `auth requisite pam_unix.so` must stand before pam_otpbridge.so; a `required`"
            " one goes on, and shows the key of the new authenticator to anyone."
        )
    elif not any(stack.of(earlier).factor is Factor.FIRST for earlier in before):
        found.warnings.append(
            f"{rule.where}: enrols nobody, for no first factor comes before it. Put `requisite password` or"
            " `requisite pam` before it, or, where PAM has asked for a password already, write"
            " `enrol first_factor=caller`."
        )
