"""Rules are read as pam.d is, and whatever is not understood is an error that says what to do."""

from __future__ import annotations

import pytest

from otpbridge.errors import ConfigError
from otpbridge.model import Verdict
from otpbridge.verify.rules import Act, Entrance, Inclusion, Jump, Placed, Rule, parse, resolve, warnings


def test_a_rule_has_a_control_a_verifier_and_options():
    """Options are `key=value`, a flag, or a value with blanks in brackets, in which `\\]` is a bracket."""
    rule = parse(r"required totp window=2 quiet [prompt=Type [the\] code: ] empty= [equation=a=b]")
    assert isinstance(rule, Rule)
    assert (rule.control.text, rule.verifier) == ("required", "totp")
    assert rule.options == {
        "window": "2",
        "quiet": "true",
        "prompt": "Type [the] code: ",
        "empty": "",
        "equation": "a=b",
    }


def test_a_control_in_brackets_says_what_each_verdict_does():
    """Named verdicts have their action, all others that of `default`; names that are no verdict do nothing."""
    rule = parse("[success=2 ignore = ignore abort=die default=reset] totp")
    assert isinstance(rule, Rule)
    others = dict.fromkeys(Verdict, Act.RESET)
    assert rule.control.actions == others | {Verdict.SUCCESS: Jump(2), Verdict.IGNORE: Act.IGNORE}
    assert rule.control.text == "[success=2 ignore = ignore abort=die default=reset]"
    assert [str(rule.control.actions[verdict]) for verdict in (Verdict.SUCCESS, Verdict.IGNORE)] == ["2", "ignore"]


def test_other_stacks_are_included():
    """`include` and `substack` take the name of a stack."""
    assert parse("include more") == Inclusion("include more", "more", apart=False)
    assert parse("Substack more") == Inclusion("Substack more", "more", apart=True)


MISTAKES = {
    "": "a rule is `control verifier [options]`. Add what is missing.",
    "  \t ": "a rule is `control verifier [options]`. Add what is missing.",
    "required": "a rule is `control verifier [options]`. Add what is missing.",
    "include": "a rule is `control verifier [options]`. Add what is missing.",
    "requird totp": "unknown control `requird`. Did you mean `required`?",
    "@include other": "unknown control `@include`. Did you mean `include`?",
    "frobnicate totp": "unknown control `frobnicate`. Known: include, optional, required, requisite, substack, su",
    "auth required totp": "`auth` is no control. Leave PAM's type column out: a rule begins with its control.",
    "-auth required totp": "`-auth` is no control. Leave PAM's type column out: a rule begins with its control.",
    "success=ok totp": "unknown control `success=ok`. Write actions in brackets: `[success=ok default=bad]`.",
    "[] totp": "the control is empty. Write for example `[success=ok default=bad]`.",
    "[ ] totp": "the control is empty. Write for example `[success=ok default=bad]`.",
    "[required] totp": "unknown return value `required`.",
    "[sucess=ok] totp": "unknown return value `sucess`. Did you mean `success`?",
    "[Success=ok] totp": "unknown return value `Success`. Did you mean `success`?",
    "[=ok] totp": "unknown return value ``.",
    "[success] totp": "`success` has no action. Write `success=ok`, or another of",
    "[success=] totp": "unknown action ``. Known: bad, die, done, ignore, ok, reset; or how many rules to jump over",
    "[success=okay] totp": "unknown action `okay`. Did you mean `ok`?",
    "[success=ok,default=bad] totp": "unknown action `ok,default=bad`.",
    "[success=okdefault=bad] totp": "unknown action `okdefault=bad`.",
    "[success=0] totp": "unknown action `0`.",
    "[success=-1] totp": "unknown action `-1`.",
    "[success=01] totp": "unknown action `01`.",
    "[success=1000000] totp": "unknown action `1000000`.",
    "[success=٢] totp": "unknown action `٢`.",
    "[success=ok success=bad] totp": "`success` is given twice. Keep one.",
    "[default=ok default=bad] totp": "`default` is given twice. Keep one.",
    "[success=ok totp": "`[success=ok totp` is not closed by a `]` with a blank after it.",
    r"[success=ok\] totp": r"`[success=ok\] totp` is not closed by a `]` with a blank after it.",
    "[success=ok]totp": "`[success=ok]totp` is not closed by a `]` with a blank after it.",
    "required totp [prompt=Code: ": "`[prompt=Code:` is not closed by a `]` with a blank after it.",
    "required totp window=1 window=2": "option `window` is given twice. Keep one.",
    "required totp quiet quiet=false": "option `quiet` is given twice. Keep one.",
    "required totp =2": "`=2` is no option. Write `key=value` or a flag",
    "required totp # the phone": "`#` is no option. Write `key=value` or a flag",
    "required totp prompt=Type the: code": "`the:` is no option. Write `key=value` or a flag",
    "required totp []": "`` is no option.",
    "include more window=2": "`include` takes the name of a stack and nothing else. Remove `window=2`.",
    "include mine": "unknown stack `mine`. Known: deep, ring, top.",
    "substack rin": "unknown stack `rin`. Did you mean `ring`?",
    "include top": "the stacks include each other in a circle: top -> top. Remove one of these rules.",
    "substack ring": "the stacks include each other in a circle: top -> ring -> top. Remove one of these rules.",
}


@pytest.mark.parametrize("text", MISTAKES)
def test_a_mistake_is_an_error_that_says_where_and_what_to_do(text):
    """The stack, the number and the text of the rule come first, then what is wrong with it."""
    stacks = {"top": ["required totp", text], "ring": ["include top"], "deep": []}
    with pytest.raises(ConfigError) as caught:
        resolve("top", stacks)
    at = "stack `ring`, rule 1 (`include top`): " if text == "substack ring" else f"stack `top`, rule 2 (`{text}`): "
    assert str(caught.value).startswith(at + MISTAKES[text])


def test_an_unknown_stack_is_an_error():
    """The nearest name is offered."""
    with pytest.raises(ConfigError, match=r"^unknown stack `portl`\. Did you mean `portal`\?$"):
        resolve("portl", {"default": [], "portal": []})


def test_a_mistake_in_an_included_stack_is_told_where_it_stands():
    """Not at the rule that includes it."""
    with pytest.raises(ConfigError, match=r"^stack `low`, rule 2 \(`sufficent hotp`\): unknown control"):
        resolve(
            "top", {"top": ["include middle"], "middle": ["include low"], "low": ["required a", "sufficent hotp"]}
        )


def test_a_program_is_flat_and_knows_where_each_rule_stands():
    """`include` stays at its level; `substack` has an entrance there and is one level up; twice is no circle."""
    stacks = {
        "top": ["include in", "substack in", "required last"],
        "in": ["optional a", "substack none"],
        "none": [],
    }
    program = resolve("top", stacks)
    shape = [
        (element.level, element.stack, element.number, element.rule.verifier)
        if isinstance(element, Placed)
        else element
        for element in program.elements
    ]
    assert shape == [
        (0, "in", 1, "a"),
        Entrance(0),
        Entrance(0),
        (1, "in", 1, "a"),
        Entrance(1),
        (0, "top", 3, "last"),
    ]
    assert [placed.rule.verifier for placed in program.rules] == ["a", "a", "last"]
    assert program.rules[2].where == "stack `top`, rule 3 (`required last`)"


@pytest.mark.parametrize(
    ("count", "rules", "leads_nowhere"),
    [
        (1, [], True),
        (1, ["required b"], False),
        (2, ["required b"], True),
        (2, ["substack two", "required b"], False),
        (3, ["substack two", "required b"], True),
        (3, ["include two", "required b"], False),
        (4, ["include two", "required b"], True),
        (1, ["substack none"], False),
        (1, ["include none"], True),
    ],
)
def test_a_jump_beyond_the_end_is_warned_of(count, rules, leads_nowhere):
    """A substack counts as one, an included stack as its rules; right behind the last rule is no mistake."""
    rule = f"[success={count} default=ignore] a"
    stacks = {"top": [rule, *rules], "two": ["required c", "required d"], "none": []}
    text = f"stack `top`, rule 1 (`{rule}`): the jump over {count} goes beyond the end: who takes it is refused."
    assert warnings(resolve("top", stacks)) == ([text] if leads_nowhere else [])


@pytest.mark.parametrize(
    ("rules", "unreached"),
    [
        (["sufficient a", "required b"], []),
        (["[default=done] a", "required b"], ["b"]),
        (["[default=die] a", "required b", "required c"], ["b", "c"]),
        (["[default=bad] a", "[default=done] b", "required c"], []),
        (["[default=bad] a", "[default=reset] b", "[default=done] c", "required d"], ["d"]),
        (["[default=bad] a", "substack resets"], []),
        (["[default=1] a", "required b", "required c"], ["b"]),
        (["[default=2] a", "substack inner", "required b", "required c"], ["inner", "b"]),
        (["[default=7] a", "required b"], ["b"]),
        (["substack ends", "required b"], ["beyond"]),
        (["include ends", "required b"], ["beyond", "b"]),
        (["required a", "substack ends", "include inner", "[default=die] b", "include inner"], ["beyond"]),
    ],
)
def test_a_rule_that_is_never_reached_is_warned_of(rules, unreached):
    """Whatever the verdicts: what ends or jumps in every case leaves rules out. What ends a substack ends no more."""
    stacks = {
        "top": rules,
        "inner": ["required inner"],
        "ends": ["[default=die] ends", "required beyond"],
        "resets": ["[default=reset] resets", "[default=done] done", "required beyond"],
    }
    found = [text for text in warnings(resolve("top", stacks)) if text.endswith(": is never reached.")]
    assert [text.split("`)")[0].split()[-1] for text in found] == unreached
