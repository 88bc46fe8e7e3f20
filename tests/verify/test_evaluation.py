"""What an evaluation says of itself; conformance/test_stack_is_libpam.py shows that its verdicts are libpam's."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otpbridge.model import Verdict
from otpbridge.verify.evaluation import Evaluation
from otpbridge.verify.rules import Act, resolve, warnings

BAD, GOOD = Verdict.AUTH_ERR, Verdict.SUCCESS


def run(rules, *verdicts):
    """Evaluate with these verdicts; the verifiers that were run, and the evaluation at its end."""
    evaluation = Evaluation(resolve("top", {"top": rules, "inner": ["sufficient in1", "requisite in2"]}))
    asked = []
    for verdict in verdicts:
        asked.append(evaluation.rule.rule.verifier)
        evaluation.give(verdict)
    assert evaluation.rule is None
    return asked, evaluation


CODES = ["sufficient totp", "sufficient hotp", "required recovery"]


@pytest.mark.parametrize(
    ("rules", "verdicts", "asked", "verdict"),
    [
        (CODES, [GOOD], ["totp"], GOOD),
        (CODES, [BAD, GOOD], ["totp", "hotp"], GOOD),
        (CODES, [BAD, BAD, GOOD], ["totp", "hotp", "recovery"], GOOD),
        (CODES, [BAD, BAD, Verdict.MAXTRIES], ["totp", "hotp", "recovery"], Verdict.MAXTRIES),
        (["requisite password", *CODES], [BAD], ["password"], BAD),
        (["required password", *CODES], [BAD, GOOD, GOOD, GOOD], ["password", "totp", "hotp", "recovery"], BAD),
        (["substack inner", "required last"], [GOOD, GOOD], ["in1", "last"], GOOD),
        (["substack inner", "required last"], [BAD, BAD, GOOD], ["in1", "in2", "last"], BAD),
        (["[success=1 default=ignore] a", "requisite deny", "required b"], [GOOD, GOOD], ["a", "b"], GOOD),
        (["[success=1 default=ignore] a", "requisite deny", "required b"], [BAD, BAD], ["a", "deny"], BAD),
    ],
)
def test_stacks_that_people_write(rules, verdicts, asked, verdict):
    """The rules that are run, in order, and what they amount to."""
    was_asked, evaluation = run(rules, *verdicts)
    assert (was_asked, evaluation.verdict, evaluation.undecided) == (asked, verdict, False)


@pytest.mark.parametrize(
    ("rules", "verdicts"),
    [
        ([], []),
        (["sufficient totp", "optional hotp"], [BAD, BAD]),
        (["required totp", "required hotp"], [Verdict.IGNORE, Verdict.IGNORE]),
        (["required totp", "[default=reset] hotp"], [GOOD, BAD]),
    ],
)
def test_where_nothing_decides_the_stack_refuses_and_says_so(rules, verdicts):
    """Not a single impression: `perm_denied`, and `undecided`."""
    _, evaluation = run(rules, *verdicts)
    assert (evaluation.verdict, evaluation.undecided) == (Verdict.PERM_DENIED, True)


def test_a_refusal_by_a_bad_jump_is_decided():
    """`undecided` tells nobody's word from the word of a broken rule."""
    _, evaluation = run(["[success=5] totp"], GOOD)
    assert (evaluation.verdict, evaluation.undecided) == (Verdict.PERM_DENIED, False)


def test_no_verdict_is_had_before_the_end():
    """A stack that is halfway through says nothing, least of all success."""
    evaluation = Evaluation(resolve("top", {"top": ["required password", "required totp"]}))
    evaluation.give(GOOD)
    with pytest.raises(RuntimeError, match="before its end"):
        _ = evaluation.verdict


def test_nothing_is_taken_after_the_end():
    """What has been judged stays judged."""
    _, evaluation = run(["requisite totp"], BAD)
    with pytest.raises(RuntimeError, match="after its end"):
        evaluation.give(GOOD)
    assert evaluation.verdict is BAD


actions = st.sampled_from([*Act, "1", "2"])
controls = st.builds("[success={} auth_err={} default={}]".format, actions, actions, actions)


def numbered(controls):
    """A rule for each of these controls."""
    return [control if control.startswith("substack") else f"{control} v" for control in controls]


@given(
    st.lists(controls | st.sampled_from(["requisite", "sufficient", "substack inner"]), max_size=5),
    st.lists(controls, max_size=3),
    st.lists(st.sampled_from(Verdict), min_size=30, max_size=30),
)
def test_no_rule_is_reached_that_is_said_never_to_be(top, inner, verdicts):
    """The warnings are right: no verdicts lead to a rule that they say is never reached."""
    program = resolve("top", {"top": numbered(top), "inner": numbered(inner)})
    said = warnings(program)
    evaluation = Evaluation(program)
    for verdict in verdicts:
        if evaluation.rule is None:
            break
        assert f"{evaluation.rule.where}: is never reached." not in said
        evaluation.give(verdict)
