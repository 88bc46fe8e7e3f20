"""Rules of stacks: what libpam would make of them, or a ConfigError. A line `= NAME` begins a stack."""

from __future__ import annotations

import re

from fuzz_promises import text_of

from otpbridge.errors import ConfigError
from otpbridge.model import Verdict
from otpbridge.verify.rules import DEEPEST, Act, Inclusion, Jump, Rule, parse, resolve, warnings


def check(data: bytes) -> None:
    """A rule that is read means the same when it is written out in full, and stacks of rules become a program."""
    stacks: dict[str, list[str]] = {"default": []}
    rules = stacks["default"]
    for line in text_of(data).splitlines():
        if line.startswith("= "):
            rules = stacks.setdefault(line[2:], [])
            continue
        rules.append(line)
        try:
            rule = parse(line)
        except ConfigError:
            continue
        _check_rule(rule)
    for name in stacks:
        _check_stack(name, stacks)


def _check_rule(rule: Rule | Inclusion) -> None:
    if isinstance(rule, Inclusion):
        included = parse(f"{'substack' if rule.apart else 'include'} {_word(rule.stack)}")
        assert isinstance(included, Inclusion)
        assert (included.apart, included.stack) == (rule.apart, rule.stack)
        return
    assert set(rule.control.actions) == set(Verdict)
    assert all(isinstance(action, Act) or action.count > 0 for action in rule.control.actions.values())
    control = " ".join(f"{verdict}={action}" for verdict, action in rule.control.actions.items())
    options = " ".join(_word(f"{key}={value}") for key, value in rule.options.items())
    again = parse(f"[{control}] {_word(rule.verifier)} {options}")
    assert isinstance(again, Rule)
    assert (again.verifier, again.options) == (rule.verifier, rule.options)
    assert again.control.actions == rule.control.actions


def _word(text: str) -> str:
    """A word as it has to be written: with brackets around it where there are blanks in it."""
    if re.fullmatch(r"[^\s\[]\S*", text, re.ASCII):
        return text
    return f"[{text.replace(']', chr(92) + ']')}]"


def _check_place(error: ConfigError, stacks: dict[str, list[str]]) -> None:
    section, stack, key, number = error.place
    assert (section, key) == ("stacks", "rules")
    assert int(number) < len(stacks[str(stack)])


def _check_stack(name: str, stacks: dict[str, list[str]]) -> None:
    try:
        program = resolve(name, stacks)
    except ConfigError as error:
        _check_place(error, stacks)
        return
    assert all(placed.level < DEEPEST for placed in program.rules)
    for placed in program.rules:
        assert stacks[placed.stack][placed.number - 1] == placed.rule.text
    for place, element in enumerate(program.elements):
        end = program.end(place)
        assert place < end <= len(program.elements)
        landing = program.landing(place, Jump(1))
        assert landing is None or place < landing <= end
        assert element.level >= 0
    warnings(program)
