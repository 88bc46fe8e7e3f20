"""Finding verifiers and making them: options are typed and checked, and no package stands in the way of another."""

from __future__ import annotations

import dataclasses
import logging

import pytest
from plugin_folder import PLUGINS, declare

from otpbridge.errors import ConfigError
from otpbridge.model import Factor, Prompt, Verdict
from otpbridge.verify import registry
from otpbridge.verify.builtin.totp import Totp
from otpbridge.verify.registry import MOST_AT_ONCE, Missing, Option, OptionError, installed, make, options_of

SOURCE = '''
from __future__ import annotations

from dataclasses import dataclass

from otpbridge.model import Factor, Prompt, Verdict


@dataclass(frozen=True, kw_only=True)
class Options:
    word: str
    times: int = 3
    ratio: float = 0.5
    loud: bool = False

    def __post_init__(self):
        if self.times < 1:
            raise ValueError("times must be 1 or more")


class Word:
    """Accepts a word."""

    Options = Options
    factor = Factor.FIRST
    first_prompt = Prompt("Word: ", answer="word")
    at_once = 2
    enrols = True
    blocks = False

    def __init__(self, options):
        self.options = options

    async def verify(self, attempt):
        return Verdict.SUCCESS


class Plain:
    async def verify(self, attempt):
        return Verdict.SUCCESS
'''


@pytest.fixture
def site(tmp_path, monkeypatch):
    """A folder that is searched for packages, with one that has the verifiers `word` and `plain`."""
    (tmp_path / "worded.py").write_text(SOURCE)
    declare(tmp_path, "worded", {"word": "worded:Word", "plain": "worded:Plain"}, version="2.3")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.syspath_prepend(PLUGINS)
    return tmp_path


def word(**given):
    """The verifier `word` with the options of a rule."""
    return make("word", given, {}, installed())


# --- what is there ---


def test_all_of_ours_are_there_and_load():
    """Every verifier that the documentation names."""
    found = installed()
    ours = {"totp", "hotp", "yubiotp", "fido2", "recovery", "password", "pam", "enrol", "permit", "deny"}
    assert {name for name, each in found.items() if each.own} == ours
    for each in found.values():
        assert each.load() is each.load()


def test_a_package_is_known_by_name_and_version(site):
    """As `otpbridge stack verifiers` lists it."""
    found = installed()["word"]
    assert (found.package, found.version, found.target, found.own) == ("worded", "2.3", "worded:Word", False)


def test_of_two_packages_with_one_name_neither_is_used_and_ours_is_never_replaced(site, caplog, monkeypatch):
    """The order of the search path does not decide who gets in."""
    declare(site / "more", "more", {"word": "worded:Word", "totp": "worded:Plain"})
    monkeypatch.syspath_prepend(site / "more")
    with caplog.at_level(logging.ERROR):
        found = installed()
    assert "word" not in found
    assert found["totp"].load() is Totp
    assert "verifier word is declared by several packages (more, worded): none of them is used" in caplog.text
    assert "verifier totp is declared by several packages (more, otpbridge): otpbridge's own is used" in caplog.text


# --- options ---


def test_options_of_a_rule_go_before_those_of_the_configuration(site):
    """Text of a rule becomes what the option is; what neither gives has its default."""
    made = make("word", {"times": "7", "loud": "true"}, {"word": "please", "times": 5}, installed())
    options = made.verifier.options
    assert (options.word, options.times, options.ratio, options.loud) == ("please", 7, 0.5, True)


@pytest.mark.parametrize(
    ("given", "option", "said"),
    [
        ({"word": "x", "tims": "3"}, "tims", "has no option `tims`. Did you mean `times`?"),
        ({"word": "x", "times": "many"}, "times", "option times"),
        ({"word": "x", "times": "0"}, None, "times must be 1 or more"),
        ({}, "word", "word"),
    ],
    ids=["unknown", "no number", "out of range", "missing"],
)
def test_what_an_option_cannot_be_is_an_error_of_the_configuration(site, given, option, said):
    """The daemon does not start with it, and the message says what to change."""
    with pytest.raises(OptionError) as caught:
        word(**given)
    assert said in str(caught.value)
    assert option is None or option in str(caught.value)


def test_a_verifier_without_options_takes_none(site):
    """And says so."""
    with pytest.raises(OptionError, match="It takes no options"):
        make("plain", {"x": "1"}, {}, installed())


def test_options_are_described_for_people(site):
    """Name, type and default; what must be given has none."""
    assert options_of(installed()["word"].load()) == [
        Option("word", "str", None),
        Option("times", "int", "3"),
        Option("ratio", "float", "0.5"),
        Option("loud", "bool", "False"),
    ]
    assert options_of(installed()["plain"].load()) == []


def test_options_that_cannot_be_read_are_said():
    """An annotation that names nothing, a default that fails, what is no dataclass."""

    @dataclasses.dataclass
    class Unknown:
        x: Nowhere  # noqa: F821

    @dataclasses.dataclass
    class Fails:
        x: list = dataclasses.field(default_factory=lambda: 1 / 0)

    for options in (Unknown, Fails, dict, 5):
        with pytest.raises(ConfigError, match=r"Options|options"):
            options_of(type("V", (), {"Options": options}))


# --- what is made ---


def test_what_a_class_says_of_itself_is_taken_but_not_what_only_ours_may_say(site):
    """A stranger may be a first factor; it may neither enrol nor run on the daemon's event loop."""
    made = word(word="please")
    assert (made.factor, made.at_once) == (Factor.FIRST, 2)
    assert made.first_prompt == Prompt("Word: ", answer="word")
    assert (made.own, made.enrols, made.direct, made.fault) == (False, False, False, None)
    plain = make("plain", {}, {}, installed())
    assert (plain.factor, plain.first_prompt) == (Factor.SECOND, None)


def test_of_ours_only_what_blocks_gets_a_thread():
    """`password` and `pam` are kept off the event loop, the others are not."""
    made = {name: make(name, {}, {}, installed()) for name in ("totp", "password", "enrol", "permit")}
    assert {name: each.direct for name, each in made.items()} == {
        "totp": True,
        "password": False,
        "enrol": True,
        "permit": True,
    }
    assert made["enrol"].enrols


@pytest.mark.parametrize("places", [0, -1, 1.5, "4", None, MOST_AT_ONCE + 1])
def test_places_are_a_sensible_number(site, monkeypatch, places):
    """Anything else is a fault of the verifier."""
    monkeypatch.setattr(installed()["word"].load(), "at_once", places)
    assert "`at_once`" in word(word="please").fault


def test_what_is_not_installed_is_missing_and_never_waived():
    """It refuses, is asked even where no second factor is, and the fault names what was meant."""
    made = make("topt", {"window": "1"}, {}, installed())
    assert isinstance(made.verifier, Missing)
    assert (made.factor, made.direct) == (Factor.NEITHER, True)
    assert "Did you mean `totp`?" in made.fault
    with pytest.raises(StopIteration) as end:
        made.verifier.verify(None).send(None)
    assert end.value.value is Verdict.AUTHINFO_UNAVAIL


def test_an_import_that_never_ends_costs_its_time_once(site, monkeypatch):
    """Ten rules with such a verifier do not take ten times as long."""
    monkeypatch.setattr(registry, "LOAD_SECONDS", 0.05)
    loads = []
    bounded = registry._bounded
    monkeypatch.setattr(registry, "_bounded", lambda call: (loads.append(call), bounded(call))[1])
    declare(site / "hangs", "hangs", {"hangs": "bad_hang:X"})
    monkeypatch.syspath_prepend(site / "hangs")
    found = installed()
    faults = {make("hangs", {}, {}, found).fault for _ in range(10)}
    assert faults == {"verifier hangs (bad_hang:X): it does not load: it takes more than 0.05 seconds"}
    assert len(loads) == 1


def test_the_text_of_a_strangers_error_is_not_repeated(site, monkeypatch):
    """It may hold what was in the configuration: a key, a password."""
    declare(site / "odd", "odd", {"odd": "bad:RaisesInInit"})
    monkeypatch.syspath_prepend(site / "odd")
    assert (
        make("odd", {}, {}, installed()).fault == "verifier odd (bad:RaisesInInit): it cannot be made: RuntimeError"
    )


def test_a_script_without_a_guard_does_not_end_the_daemon(site, monkeypatch):
    """An import that calls sys.exit is a fault like any other."""
    declare(site / "exits", "exits", {"exits": "bad_exit:X"})
    monkeypatch.syspath_prepend(site / "exits")
    assert make("exits", {}, {}, installed()).fault == "verifier exits (bad_exit:X): it does not load: SystemExit"
