"""A stack gives the verdict that libpam gives, and runs the same rules in the same order: libpam itself is asked."""

from __future__ import annotations

from itertools import product

import pamstack
import pytest
from daemon_rig import LONG
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from libpam_stacks import Judgement, Libpam

from otpbridge.errors import ConfigError
from otpbridge.model import Verdict
from otpbridge.verify.evaluation import Evaluation
from otpbridge.verify.rules import DEEPEST, RETURN_VALUES, Act, resolve

CODES = {verdict: getattr(pamstack, f"PAM_{verdict.name}") for verdict in Verdict}
SAID = [f"auth={verdict}" for verdict in Verdict]
ACTIONS = [*Act, "1", "2", "3", "7"]
KEYWORDS = ["required", "requisite", "sufficient", "optional"]
MANY = settings(max_examples=50_000 if LONG else 3_000, deadline=None, suppress_health_check=[HealthCheck.too_slow])
FIRST = {
    "nothing": "optional pam_debug.so auth=ignore",
    "success": "required pam_debug.so auth=success",
    "less than success": "required pam_debug.so auth=new_authtok_reqd",
    "no success": "[default=ok] pam_debug.so auth=auth_err",
    "refusal": "required pam_debug.so auth=auth_err",
}


@st.composite
def own_rules(draw):
    """A rule with a verifier. Brackets have their keys in any order and are often without `default`."""
    control = draw(st.sampled_from([*KEYWORDS, "Required", "[", "[", "[", "["]))
    if control == "[":
        keys = draw(st.lists(st.sampled_from([*Verdict, "default", "abort"]), min_size=1, max_size=5, unique=True))
        control = f"[{' '.join(f'{key}={draw(st.sampled_from(ACTIONS))}' for key in keys)}]"
    return f"{control} pam_debug.so {draw(st.sampled_from(SAID))}"


def stacks_of(*below, **sizes):
    """Lists of rules, of which some name one of the stacks below."""
    naming = [f"{control} {stack}" for control, stack in product(("include", "substack"), below)]
    rules = st.one_of(own_rules(), own_rules(), st.sampled_from(naming)) if naming else own_rules()
    return st.lists(rules, **sizes)


stacks = st.fixed_dictionaries(
    {
        "top": stacks_of("one", "two", "three", min_size=1, max_size=6),
        "one": stacks_of("two", "three", max_size=4),
        "two": stacks_of("three", max_size=3),
        "three": stacks_of(max_size=3),
    }
)


@pytest.fixture(scope="module")
def libpam(tmp_path_factory):
    """libpam in a process of its own."""
    with Libpam(tmp_path_factory.mktemp("pam")) as judge:
        yield judge


def judge(name, stacks):
    """Our judgement, in libpam's terms."""
    evaluation = Evaluation(resolve(name, stacks))
    said = []
    while evaluation.rule is not None:
        said.append(evaluation.rule.rule.options["auth"])
        evaluation.give(Verdict(said[-1]))
    return Judgement(CODES[evaluation.verdict], tuple(said))


@pytest.mark.campaign
@pytest.mark.timeout(1800)
@MANY
@given(stacks)
def test_random_stacks_are_judged_as_libpam_judges_them(libpam, stacks):
    """Whatever the controls, jumps, inclusions and verdicts: the rules that run and the verdict are libpam's."""
    assert judge("top", stacks) == libpam.judge("top", stacks)


@pytest.mark.parametrize("first", FIRST)
def test_every_action_on_every_verdict_is_libpams(libpam, first):
    """What each action makes of each verdict, after each impression, in a stack or a substack, is as in libpam."""
    for verdict, action, inclusion in product(Verdict, ACTIONS, ("include", "substack")):
        tried = f"[{verdict}={action}] pam_debug.so auth={verdict}"
        stacks = {
            "top": [FIRST[first], f"{inclusion} inner", "[default=ignore] pam_debug.so auth=maxtries"],
            "inner": ["optional pam_debug.so auth=success", tried, "optional pam_debug.so auth=acct_expired"],
        }
        assert judge("top", stacks) == libpam.judge("top", stacks), tried


@pytest.mark.parametrize("key", sorted(RETURN_VALUES))
def test_every_return_value_has_libpams_name(libpam, key):
    """What may stand before a `=` is what libpam knows: an unknown name would turn its whole control to `bad`."""
    stacks = {"top": [f"[{key}=ok success=done] pam_debug.so auth=success"]}
    if key == "success":
        with pytest.raises(ConfigError):
            resolve("top", stacks)
        return
    assert judge("top", stacks) == libpam.judge("top", stacks) == Judgement(pamstack.PAM_SUCCESS, ("success",))


@pytest.mark.parametrize(
    "rule",
    [
        "required pam_debug.so auth=auth_err",
        "  required\tpam_debug.so \t auth=auth_err  ",
        "REQUIRED pam_debug.so auth=auth_err",
        "[success = ok  auth_err =bad default= die] pam_debug.so auth=auth_err",
        "[ default=bad ] pam_debug.so auth=auth_err",
        "[success=ok] pam_debug.so auth=auth_err",
        "[default=ok auth_err=bad] pam_debug.so auth=auth_err",
        "required pam_debug.so [auth=auth_err]",
        "required pam_debug.so flag auth=auth_err",
        r"required pam_debug.so [text=auth=success \] \ auth=success] auth=auth_err",
        r"required pam_debug.so [text=a[b\]c\\\]] auth=auth_err",
        "required [pam_debug.so] auth=auth_err",
    ],
)
def test_words_are_divided_as_libpam_divides_them(libpam, rule):
    """Blanks, brackets and their escapes mean in a rule what they mean in pam.d."""
    stacks = {"top": [rule]}
    assert judge("top", stacks) == libpam.judge("top", stacks) == Judgement(pamstack.PAM_AUTH_ERR, ("auth_err",))


@pytest.mark.parametrize("control", ["include", "substack"])
def test_stacks_are_nested_as_deep_as_in_libpam(libpam, control):
    """The deepest nesting that libpam runs is accepted; one deeper is an error here, and libpam refuses it.

    Old libpam, which Debian 12 has, lets `include` go deeper than `substack`; newer ones and we do not.
    """
    last = "required pam_debug.so auth=success"
    stacks = {f"s{depth}": [f"{control} s{depth + 1}"] for depth in range(DEEPEST)} | {f"s{DEEPEST}": [last]}
    assert judge("s1", stacks) == libpam.judge("s1", stacks) == Judgement(pamstack.PAM_SUCCESS, ("success",))
    with pytest.raises(ConfigError, match="deeper than 16"):
        resolve("s0", stacks)
    if control == "substack":
        assert libpam.judge("s0", stacks) == Judgement(pamstack.PAM_PERM_DENIED, ())


@pytest.mark.parametrize("top", [[], ["substack none"], ["include none", "substack none"]])
def test_a_stack_without_rules_refuses_as_in_libpam(libpam, top):
    """Where there is nothing to run, nobody gets in."""
    stacks = {"top": top, "none": []}
    assert judge("top", stacks) == libpam.judge("top", stacks) == Judgement(pamstack.PAM_PERM_DENIED, ())
