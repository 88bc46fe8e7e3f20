"""`otpbridge stack check`: sound stacks pass in silence, each way of leaving a door open is named."""

from __future__ import annotations

import re

import pytest

ENROL = "[success=done ignore=ignore default=die] enrol"


@pytest.fixture
def check(otpbridge, tmp_path):
    """Check a configuration that has these rules as stack `x`, and what else is given."""

    def check(*rules, more="", json=True):
        path = tmp_path / "otpbridge.toml"
        quoted = ", ".join(f"'{rule}'" for rule in rules)
        path.write_text(f"[stacks.x]\nrules = [{quoted}]\n{more}", encoding="utf-8")
        return otpbridge(*(["--json"] if json else []), "stack", "check", "--config", path)

    return check


@pytest.mark.parametrize(
    "rules",
    [
        ["include default"],
        ["requisite password", "sufficient totp", "required recovery"],
        ["requisite password", ENROL, "include default"],
        ["requisite password", "substack default", "required permit"],
        ["[success=1 default=ignore] totp", "requisite deny", "required permit"],
        ["required totp", "required hotp", "required yubiotp", "required recovery", "required password"],
    ],
)
def test_sound_stacks_pass(check, rules):
    """What admins write and mean has no warning, exit code 0."""
    said = check(*rules)
    assert (said.code, said.json["warnings"]) == (0, [])


@pytest.mark.parametrize(
    ("rules", "words"),
    [
        (["sufficient totp", "required permit"], "lets in whoever comes: with every answer wrong"),
        (["optional totp", "optional permit"], "lets in whoever comes: with every answer wrong"),
        (["[authinfo_unavail=ignore default=die success=ok] totp", "required permit"], "while a verifier fails"),
        (["sufficient password", "required totp"], "with the first factor alone, though the second was refused"),
        (["required password", "optional totp"], "with the first factor alone, though the second was refused"),
        (["requisite password", "sufficient enrol", "include default"], "does not enrol one"),
        (["required totp", "required deny"], "lets nobody in"),
        ([ENROL, "include default"], "enrols nobody, for no first factor comes before it"),
        ([ENROL, "requisite password", "include default"], "enrols nobody"),
        (["required acme", "required totp"], "there is no verifier `acme`"),
        (["requisite deny", "required totp", "required permit"], "lets nobody in"),
        (["[default=done] totp", "required hotp"], "is never reached|nobody"),
        (["[success=9 default=die] totp", "required hotp"], "jump over 9 goes beyond the end"),
    ],
)
def test_each_open_door_is_named(check, rules, words):
    """A warning says which stack and what is wrong with it; exit code 1."""
    said = check(*rules)
    assert said.code == 1
    warnings = said.json["warnings"]
    assert any(re.search(words, text) and re.search(r"\bx\b", text) for text in warnings), warnings
    shown = check(*rules, json=False)
    assert shown.code == 1
    assert re.search("Warning: ", shown.out)
    assert max(map(len, shown.out.splitlines()[1:])) <= 80


def test_enrolment_on_the_word_of_the_caller_is_noted(check):
    """first_factor=caller is allowed, and what must stand in pam.d then is said; in the rule or for all rules."""
    rule = f"{ENROL} first_factor=caller"
    said = check(rule, "include default")
    assert (said.code, said.json["warnings"]) == (0, [])
    (note,) = said.json["notes"]
    assert "auth requisite pam_unix.so" in note
    everywhere = check(ENROL, "include default", more='[verifiers.enrol]\nfirst_factor = "caller"\n')
    assert (everywhere.code, len(everywhere.json["notes"])) == (0, 1)


def test_a_password_alone_is_noted(check):
    """A stack without a second factor may be meant; it is said."""
    said = check("required password")
    assert said.code == 0
    assert said.json["notes"] == ["stack x asks for no second factor."]


def test_what_the_daemon_would_not_take_is_a_usage_error(check):
    """A rule that cannot be read exits with 2 and says where it stands; nothing is shown as checked."""
    for rule, words in (("sufficent totp", "sufficient"), ("required totp windw=2", "windw"), ("include nil", "nil")):
        said = check(rule)
        assert said.code == 2
        assert words in said.json["message"]
        assert "x" in said.json["message"]
        assert "otpbridge.toml:2: " in said.json["message"]


def test_every_stack_is_shown_with_what_it_includes(check):
    """Rules are numbered as they run, with their factor and, where included, with their place; 80 columns."""
    said = check("requisite password", ENROL, "substack default", json=False)
    assert said.code == 0
    lines = said.out.splitlines()
    assert any(re.match(r" +1  requisite password +first$", line) for line in lines)
    assert any(re.match(r" +2  \[success=done .*\] enrol +enrols$", line) for line in lines)
    assert any(re.match(r" +3    sufficient fido2 +second +default, rule 1$", line) for line in lines)
    assert max(map(len, lines[1:])) <= 80
    assert "Nothing to warn of." in said.out
    rules = {each["name"]: each["rules"] for each in check("substack default").json["stacks"]}
    assert [(rule["stack"], rule["level"]) for rule in rules["x"]] == [("default", 1)] * 5


def test_a_stack_too_long_to_be_checked_is_named(check):
    """What was not tried in every way does not pass as sound."""
    said = check(*["[success=ok authinfo_unavail=ignore default=bad] totp"] * 20, "required deny")
    assert said.code == 1
    assert "too many ways" in said.json["warnings"][0]


def test_verifiers_are_listed_with_package_and_options(otpbridge):
    """Each has its package, version, factor and options with type and default."""
    listed = {each["name"]: each for each in otpbridge("--json", "stack", "verifiers").json}
    assert set(listed) >= {"totp", "hotp", "yubiotp", "recovery", "password", "pam", "permit", "deny", "enrol"}
    assert listed["totp"]["package"] == "otpbridge"
    assert listed["totp"]["factor"] == "second"
    assert {"name": "window", "type": "int", "default": "1"} in listed["totp"]["options"]
    said = otpbridge("stack", "verifiers").out
    assert re.search(r"^totp +second factor +otpbridge \d", said, re.MULTILINE)
    assert "window  (int, default: 1)" in said


def test_a_verifier_that_does_not_load_says_why(otpbridge, monkeypatch):
    """One that is broken stands in the list with its error, and the others stand too."""
    from importlib.metadata import EntryPoint, EntryPoints, entry_points

    broken = EntryPoint("acme", "acme_verifier:Acme", "otpbridge.verifiers")
    every = EntryPoints([*entry_points(group="otpbridge.verifiers"), broken])
    monkeypatch.setattr("otpbridge.verify.registry.entry_points", lambda **_: every)
    listed = {each["name"]: each for each in otpbridge("--json", "stack", "verifiers").json}
    assert "acme_verifier" in listed["acme"]["fault"]
    assert listed["totp"]["fault"] is None
    assert "does not load" in otpbridge("stack", "verifiers").out
