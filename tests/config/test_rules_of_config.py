"""What a daemon takes of the stacks in otpbridge.toml: all that it can read, and nothing else."""

from __future__ import annotations

import logging

import pytest

from otpbridge import config
from otpbridge.daemon.main import Options, configured
from otpbridge.errors import ConfigError
from otpbridge.verify.loading import widest_window


def written(tmp_path, text):
    """The options of a daemon with this configuration."""
    file = tmp_path / "otpbridge.toml"
    file.write_text(text)
    return Options(tmp_path / "state", tmp_path / "run", file)


RULES = """
[stacks.portal]
grace = 5
rules = [
  # first of all
  "requisite password",
  {rule},
  'required recovery',
]
"""


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        ("'sufficent totp'", "stack `portal`, rule 2 (`sufficent totp`): unknown control `sufficent`. Did you mean"),
        ("'auth required totp'", "stack `portal`, rule 2 (`auth required totp`): `auth` is no control"),
        ("'[success=okay] totp'", "stack `portal`, rule 2 (`[success=okay] totp`): unknown action `okay`"),
        ("'include fallbck'", "stack `portal`, rule 2 (`include fallbck`): unknown stack `fallbck`"),
        ("'include portal'", "stack `portal`, rule 2 (`include portal`): the stacks include each other in a circle"),
        ("'required totp windw=3'", "stack `portal`, rule 2 (`required totp windw=3`): verifier totp has no option"),
        (
            "'required totp window=x'",
            "stack `portal`, rule 2 (`required totp window=x`): verifier totp, option window",
        ),
        (
            "'required totp window=99'",
            "stack `portal`, rule 2 (`required totp window=99`): verifier totp: window must",
        ),
        ("'required password x'", "stack `portal`, rule 2 (`required password x`): verifier password has no option"),
    ],
)
def test_a_rule_that_cannot_be_read_is_told_with_file_line_and_rule(tmp_path, rule, said):
    """The daemon does not start with it, whatever is wrong with it."""
    options = written(tmp_path, RULES.replace("{rule}", rule))
    with pytest.raises(ConfigError) as caught:
        configured(options)
    assert str(caught.value).startswith(f"{options.config_file}:7: {said}")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[verifiers.totp]\ndrift = 1\nwindw = 3\n", ":3: [verifiers.totp]: verifier totp has no option `windw`"),
        ("[verifiers.totp]\nwindow = 'x'\n", ":2: [verifiers.totp]: verifier totp, option window: Expected `int`"),
        ("\n[verifiers.totp]\nwindow = 99\n", ":2: [verifiers.totp]: verifier totp: window must be 0 to 10"),
        (
            "[verifiers.recovery]\nx = 1\n",
            ":2: [verifiers.recovery]: verifier recovery has no option `x`. It takes no",
        ),
        ("[verifiers.pam]\nservce = 'x'\n", ":2: [verifiers.pam]: verifier pam has no option `servce`. Did you mean"),
        (
            "\n[verifiers.topt]\nwindow = 1\n",
            ":2: [verifiers.topt]: there is no verifier `topt`. Did you mean `totp`?",
        ),
    ],
)
def test_a_wrong_option_for_all_rules_is_told_with_its_line(tmp_path, text, said):
    """Whether or not a rule uses the verifier: a typo never switches an option off."""
    options = written(tmp_path, text)
    with pytest.raises(ConfigError) as caught:
        configured(options)
    assert str(caught.value).startswith(f"{options.config_file}{said}")


def test_an_option_of_a_rule_is_blamed_on_the_rule_where_both_say_it(tmp_path):
    """The rule goes before [verifiers], so it is the rule that is wrong."""
    text = "[verifiers.totp]\nwindow = 3\n[stacks.a]\nrules = ['required totp window=99']\n"
    with pytest.raises(ConfigError, match=r"otpbridge.toml:4: stack `a`, rule 1 \(`required totp window=99`\)"):
        configured(written(tmp_path, text))


def test_a_caller_who_is_no_user_is_told_with_the_line(tmp_path):
    """Which of the callers it is, too."""
    text = "[[callers]]\nuser = 1\n[[callers]]\nmay = ['enrol']\nuser = 'no-such-user'\n"
    with pytest.raises(ConfigError, match=r"otpbridge.toml:5: \[\[callers\]\] user: there is no system user no-such"):
        configured(written(tmp_path, text))


def test_a_verifier_that_is_missing_stops_nobody_else(tmp_path, caplog):
    """A plug-in that was removed is said in the log and kept for status; the configuration holds."""
    text = "[verifiers.vendor]\nurl = 'x'\n[stacks.a]\nrules = ['sufficient totp', 'required vendor key=1']\n"
    with caplog.at_level(logging.ERROR):
        made = configured(written(tmp_path, text))
    assert [fault[:33] for fault in made.stacks.faults] == ["there is no verifier `vendor`. In"]
    assert made.stacks.faults[0] in caplog.text


def test_the_widest_window_is_that_of_any_rule():
    """After a restore no code is good again that any rule would have taken."""
    assert widest_window(config.parse("")) == 1
    assert widest_window(config.parse("[window]\ntotp = 2\n")) == 2
    assert widest_window(config.parse("[verifiers.totp]\nwindow = 4\n")) == 4
    rules = "[stacks.a]\nrules = ['required totp window=5', 'required vendor window=40']\n"
    assert widest_window(config.parse(rules)) == 5
