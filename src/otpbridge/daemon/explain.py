"""Explain a stack: what each of its rules would do to a user, and what lets the user in."""

from __future__ import annotations

from itertools import combinations

from otpbridge.daemon import policy
from otpbridge.daemon.judge import Case
from otpbridge.model import Factor, Kind, Verdict
from otpbridge.verify.evaluation import Evaluation
from otpbridge.verify.registry import Made
from otpbridge.verify.rules import Placed
from otpbridge.verify.stack import Finding, Mode, Stack, said_unasked
from otpbridge.wire.messages import ExplainedRule, ExplainStackReply

_MOST_TOGETHER = 3
"""Rules whose success is looked at together."""
_MOST_WAYS = 20

_KINDS: dict[str, tuple[Kind, ...]] = {
    "totp": (Kind.TOTP,),
    "hotp": (Kind.HOTP,),
    "yubiotp": (Kind.YUBIOTP,),
    "fido2": (Kind.FIDO2,),
    "recovery": (Kind.RECOVERY, Kind.REGISTRATION),
    "password": (Kind.PASSWORD,),
}


def explain(case: Case, now: int) -> ExplainStackReply:
    """What would happen to the user of a case, without asking anything. `now` in Unix seconds."""
    rules = case.stack.program.rules
    unasked = {id(rule): _unasked(case, rule, now) for rule in rules}
    open_rules = [rule for rule in rules if unasked[id(rule)][0] is None]
    reached: set[int] = set()
    ways: list[tuple[set[int], str]] = []
    for together in range(min(_MOST_TOGETHER, len(open_rules)) + 1):
        for chosen in combinations(open_rules, together):
            passing = {id(rule) for rule in chosen}
            verdict = _outcome(case, unasked, passing, reached)
            if verdict in {Verdict.SUCCESS, Verdict.IGNORE} and not any(way <= passing for way, _ in ways):
                ways.append((passing, _named(chosen, case, verdict)))
    shown = tuple(_rule(case.stack, rule, unasked[id(rule)], reached=id(rule) in reached) for rule in rules)
    said = case.standing.reason
    if case.standing.may_decline:
        said += "; the code may be left out"
    return ExplainStackReply(
        stack=case.stack.name,
        policy=f"{_MODES[case.standing.mode]}: {said}",
        rules=shown,
        ways=() if _locked(case) else tuple(text for _, text in ways[:_MOST_WAYS]),
    )


_MODES = {
    Mode.ASK: "a second factor is asked for",
    Mode.WAIVED: "no second factor is asked for",
    Mode.ENROL: "an authenticator is set up at login",
}


def _locked(case: Case) -> bool:
    return case.candidate.user is not None and case.candidate.user.locked_at is not None


def _outcome(
    case: Case, unasked: dict[int, tuple[Verdict | None, str]], passing: set[int], reached: set[int]
) -> Verdict:
    """What the stack says when these rules succeed and the others that are asked refuse."""
    evaluation = Evaluation(case.stack.program)
    while (rule := evaluation.rule) is not None:
        reached.add(id(rule))
        verdict = unasked[id(rule)][0]
        if verdict is None:
            verdict = Verdict.SUCCESS if id(rule) in passing else Verdict.AUTH_ERR
            if case.standing.may_decline and not passing and case.stack.of(rule).factor is Factor.SECOND:
                verdict = Verdict.IGNORE
        evaluation.give(verdict)
    return policy.amounts_to(
        Finding(evaluation.verdict, evaluation.undecided),
        case.standing.mode,
        waived=case.standing.mode is Mode.WAIVED or (case.standing.may_decline and not passing),
        enrolled=any(id(rule) in passing and case.stack.of(rule).enrols for rule in case.stack.program.rules),
    )


def _unasked(case: Case, rule: Placed, now: int) -> tuple[Verdict | None, str]:
    """What a rule says whatever is answered, and why; None where it depends on the answer."""
    made = case.stack.of(rule)
    if made.fault is not None:
        return Verdict.AUTHINFO_UNAVAIL, made.fault
    said = said_unasked(made, case.standing.mode)
    if said is not None:
        return said, "no second factor is asked for" if case.standing.mode is Mode.WAIVED else "the user enrols"
    if made.enrols and case.standing.mode is not Mode.ENROL:
        return Verdict.IGNORE, "nothing to enrol"
    if made.factor is Factor.NEITHER:
        return (Verdict.SUCCESS if made.name == "permit" else Verdict.AUTH_ERR), "says so always"
    return _by_tokens(case, made, now)


def _by_tokens(case: Case, made: Made, now: int) -> tuple[Verdict | None, str]:
    kinds = _KINDS.get(made.name)
    if kinds is None:
        return None, "depends on the answer"
    count = sum(
        stored.token.kind in kinds and policy.is_usable(stored.token, now) for stored in case.candidate.tokens
    )
    if not count:
        return Verdict.AUTH_ERR, f"asks, and refuses: the user has no {' or '.join(kinds)} token"
    return None, f"{count} {' or '.join(kinds)} token{'s' if count > 1 else ''}"


def _rule(stack: Stack, placed: Placed, said: tuple[Verdict | None, str], *, reached: bool) -> ExplainedRule:
    return ExplainedRule(
        stack=placed.stack,
        number=placed.number,
        level=placed.level,
        rule=placed.rule.text,
        reached=reached,
        verdict=said[0],
        why=said[1],
        on_success=str(placed.action(Verdict.SUCCESS)),
        on_failure=str(placed.action(Verdict.AUTH_ERR)),
    )


def _named(chosen: tuple[Placed, ...], case: Case, verdict: Verdict) -> str:
    names = " + ".join(rule.rule.verifier for rule in chosen)
    if names:
        return names
    if verdict is Verdict.IGNORE:
        return (
            "nothing here: it is left to whoever called" if case.standing.mode is Mode.WAIVED else "an empty answer"
        )
    return "nothing: the stack lets anyone in"
