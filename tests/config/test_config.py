"""otpbridge.toml, and where the folders are."""

from __future__ import annotations

import os

import pytest

from otpbridge import config
from otpbridge.config import Config, KeySource, Right, Source, UnknownUsers
from otpbridge.errors import ConfigError
from otpbridge.model import Backoff


def test_an_empty_file_means_all_defaults():
    """Nothing has to be configured."""
    assert config.parse("") == Config()
    assert Config().users.unknown is UnknownUsers.REFUSE


def test_no_file_means_all_defaults(tmp_path, monkeypatch):
    """The system's file may be absent."""
    monkeypatch.setattr(config, "SYSTEM_CONFIG", tmp_path / "none.toml")
    assert config.load(None) == Config()


def test_everything_that_can_be_set_is_read():
    """Every section arrives as its type."""
    read = config.parse(
        """
        admin_group = "wheel"
        [key]
        source = "file"
        file = "/etc/otpbridge/master.key"
        [users]
        unknown = "ignore"
        [throttle]
        limit = 3
        [[callers]]
        user = "portal"
        clients = ["acme", "globex"]
        may = ["verify", "enrol"]
        [clients.acme]
        issuer = "Acme Hosting"
        """
    )
    assert read.key.source is KeySource.FILE
    assert str(read.key.file) == "/etc/otpbridge/master.key"
    assert read.users.unknown is UnknownUsers.IGNORE
    assert read.throttle.limit == 3
    assert read.callers[0].may == (Right.VERIFY, Right.ENROL)
    assert read.issuer_of("acme", "host") == "Acme Hosting"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[throttle]\nlimt = 3\n", "otpbridge.toml:2: [throttle] unknown key `limt`. Did you mean `limit`?"),
        ("\n\nthrotle = 1\n", "otpbridge.toml:3: unknown key `throtle`. Did you mean `throttle`?"),
        ("[[callers]]\nuser = 1\nclient = []\n", "otpbridge.toml:3: [callers] unknown key `client`. Did you mean"),
        (
            "[local_keys]\nenable = true\n",
            "otpbridge.toml:2: [local_keys] unknown key `enable`. Did you mean `enabled`?",
        ),
        ("\n[local_keys]\ntimeout = 4\n", "otpbridge.toml:3: local_keys.timeout: Expected `int` >= 5"),
        ("[local_keys]\nservices = 'sudo'\n", "otpbridge.toml:2: local_keys.services: Expected `array`"),
        ("[throttle]\n\nlimit = 0\n", "otpbridge.toml:3: throttle.limit: Expected `int` >= 1"),
        ("[key]\nsource = 'flie'\n", "otpbridge.toml:2: key.source: Invalid enum value 'flie'"),
        ("[key]\n\nfile = 2\n", "otpbridge.toml:3: key.file: Expected `str`"),
        ("[users]\nunknown = true\n", "otpbridge.toml:2: users.unknown: Expected `str`"),
        ("users = 3\n", "otpbridge.toml:1: users: Expected `object`"),
        ("[key\n", "otpbridge.toml: not TOML"),
        ("[policy]\ngrace = 1\ngrce = 2\n", "otpbridge.toml:3: [policy] unknown key `grce`. Did you mean `grace`?"),
        ("[clients.a]\n[clients.b]\nisuer = ''\n", "otpbridge.toml:3: [clients.b] unknown key `isuer`. Did you mean"),
        ("[clients.'b.org']\nrules = []\n", "otpbridge.toml:2: [clients.b.org] unknown key `rules`. Known keys: acc"),
        (
            "[stacks.s]\nrules = ['permit']\n\nissuer = 'x'",
            "otpbridge.toml:4: [stacks.s] unknown key `issuer`. Known",
        ),
        ("stacks = {s = {rules = [''], grac = 1}}", "otpbridge.toml:1: [stacks.s] unknown key `grac`. Did you mean"),
        ("clients.a.limt = 1\n", "otpbridge.toml:1: [clients.a] unknown key `limt`. Did you mean `limit`?"),
        ("[[callers]]\nuser = 1\n[[callers]]\nusr = 2\n", "otpbridge.toml:4: [callers] unknown key `usr`. Did you"),
        (
            "callers = [{user = 1},\n{usr = 2}]\n",
            "otpbridge.toml:2: [callers] unknown key `usr`. Did you mean `user`?",
        ),
        ("[policy]\n\ndigits = []\n", "otpbridge.toml:3: policy.digits: Expected `array` of length >= 1"),
        ("[policy]\ndigits = [\n6, # as usual\n9]\n", "otpbridge.toml:4: policy.digits: Expected `int` <= 8"),
        ("[policy]\naccount = 'seen'\n", "otpbridge.toml:2: policy.account: Invalid enum value 'seen'"),
        (
            "[clients.a]\nlimit = 1\n[clients.b]\nlimit = 0\n",
            "otpbridge.toml:4: clients.b.limit: Expected `int` >= 1",
        ),
        ("[stacks.a]\nrules = ['permit']\n[stacks.b]\n", "otpbridge.toml:3: stacks.b: Object missing required field"),
        ("[stacks.a]\nrules = []\n", "otpbridge.toml:2: stacks.a.rules: Expected `array` of length >= 1"),
        ("[stacks.a]\nrules = [\n'a,]',\n\n4]\n", "otpbridge.toml:5: stacks.a.rules: Expected `str`, got `int`"),
        ("[stacks]\na = 3\n", "otpbridge.toml:2: stacks.a: Expected `object`, got `int`"),
        ("\n[clients.Acme]\nlimit = 1\n", "otpbridge.toml:2: [clients.Acme]: `Acme` cannot be the name of a client"),
        ("[[callers]]\nuser = 1\nclients = ['a',\n'b c']", "otpbridge.toml:4: [[callers]] clients: `b c` cannot be"),
        ("[verifiers.v]\na = 1\nb = [1]\n", "otpbridge.toml:3: verifiers.v.b: Expected `bool | int | float | str`"),
        ("[[callers]]\nuser = 1\n[[callers]]\nuser = 2\nmay = ['all']\n", "otpbridge.toml:5: callers.may: Invalid"),
    ],
)
def test_a_mistake_is_told_with_its_line(text, said):
    """A typo never switches a rule off: it is refused, with file, line and the nearest name."""
    with pytest.raises(ConfigError) as caught:
        config.parse(text)
    assert str(caught.value).startswith(said)


@pytest.mark.parametrize("section", ["[policy]", "[clients.acme]", "[stacks.sshd]\nrules = ['permit']"])
@pytest.mark.parametrize(
    "network", ["10.0.0.1/8", "office.example.org", "10.0.0.0/33", "10.0.0.0-10.0.0.9", "::1/200"]
)
def test_a_network_that_is_none_is_told_with_its_line(section, network):
    """Names are not resolved and host bits not guessed away: nobody is trusted by mistake."""
    head = section + "\ntrusted_networks = [\n  '192.0.2.0/24', # the office\n"
    with pytest.raises(ConfigError) as caught:
        config.parse(f"{head}  '{network}',\n]\n")
    said = str(caught.value)
    assert said.startswith(f"otpbridge.toml:{head.count(chr(10)) + 1}: ")
    assert "trusted_networks: " in said
    assert said.endswith("Write 192.0.2.0/24 or 2001:db8::/32.")
    config.parse(head + "  '2001:db8::/32', '127.0.0.1']\n")


POLICIES = """
[policy]
enforcement = "required"
grace = 10
limit = 7
trusted_networks = ["192.0.2.0/24"]
[clients.acme]
enforcement = "optional"
grace = 20
digits = [8]
[stacks.sudo]
rules = ["include default"]
grace = 30
trusted_networks = []
account = "verified"
"""


@pytest.mark.parametrize(
    ("client", "stack", "expected"),
    [
        ("local", None, ("required", 10, 1, "enrolled")),
        ("local", "sudo", ("required", 30, 0, "verified")),
        ("acme", None, ("optional", 20, 1, "enrolled")),
        ("acme", "sudo", ("optional", 30, 0, "verified")),
        ("other", "default", ("required", 10, 1, "enrolled")),
    ],
)
def test_a_stack_goes_before_a_client_and_both_before_all(client, stack, expected):
    """Each key comes from the nearest that says it; an empty list and a zero are said too."""
    held = config.parse(POLICIES).policy_of(client, stack)
    assert (held.enforcement, held.grace, len(held.trusted_networks), held.account) == expected
    assert held.digits == ((8,) if client == "acme" else (6, 7, 8))
    assert held.limit == 7


def test_without_a_word_anywhere_policy_is_the_default():
    """No file: optional, nobody trusted, no grace."""
    held = Config().policy_of("acme", "default")
    assert held == config.Policy()
    assert (held.enforcement, held.trusted_networks, held.grace) == ("optional", (), 0)


def test_back_off_is_that_of_the_policy_and_else_of_throttle():
    """What a policy leaves out comes from [throttle], and a first wait is never longer than the longest."""
    read = config.parse("[throttle]\nlimit = 3\nforget = 60\n[clients.a]\nfirst_wait = 500\n[clients.b]\nlimit = 9\n")
    assert read.throttle.per_user(read.policy_of("local")) == Backoff(3, 1000, 300_000, 60_000)
    assert read.throttle.per_user(read.policy_of("a")) == Backoff(3, 500_000, 500_000, 60_000)
    assert read.throttle.per_user(read.policy_of("b")) == Backoff(9, 1000, 300_000, 60_000)
    assert read.throttle.per_source == Backoff(50, 1000, 300_000, 60_000)


def test_the_default_stack_is_there_until_another_one_has_its_name():
    """`default` need not be written, and can be."""
    assert config.parse("[stacks.a]\nrules = ['deny']\n").rules == {"default": config.DEFAULT_RULES, "a": ("deny",)}
    assert config.parse("[stacks.default]\nrules = ['deny']\n").rules == {"default": ("deny",)}


def test_an_error_about_no_place_in_the_file_keeps_its_words():
    """Only what has a place gets a line, and what is no error of the configuration passes."""
    source = Source("otpbridge.toml", "a = 1\nb = 2\n")
    for raised, said in ((ConfigError("x"), "x"), (ConfigError("x", ("b",)), "otpbridge.toml:2: x")):
        with pytest.raises(ConfigError) as caught, source.told():
            raise raised
        assert str(caught.value) == said
    with pytest.raises(ZeroDivisionError), source.told():
        raise ZeroDivisionError


def test_a_file_that_cannot_be_read_is_told(tmp_path):
    """A named file that is not there is an error, not a default."""
    with pytest.raises(ConfigError, match=r"none.toml: cannot be read: No such file"):
        config.load(tmp_path / "none.toml")
    binary = tmp_path / "binary.toml"
    binary.write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="not UTF-8"):
        config.load(binary)


def test_the_issuer_is_the_host_for_linux_accounts_and_the_client_for_portals():
    """Two clients with the same user name give different labels."""
    assert Config().issuer_of("local", "web1") == "web1"
    assert Config().issuer_of("acme", "web1") == "acme"
    assert config.parse('[enrolment]\nissuer = "Example"').issuer_of("local", "web1") == "Example"


def test_an_ordinary_user_gets_the_xdg_folders(monkeypatch):
    """Without root, state and sockets lie where the desktop's rules put them."""
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setenv("XDG_STATE_HOME", "/home/u/.state")
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/user/1000")
    assert str(config.default_state_dir()) == "/home/u/.state/otpbridge"
    assert str(config.default_run_dir()) == "/run/user/1000/otpbridge"
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    assert str(config.default_run_dir()) == "/home/u/.state/otpbridge/run"
    monkeypatch.setenv("XDG_STATE_HOME", "relative")
    monkeypatch.setenv("HOME", "/home/u")
    assert str(config.default_state_dir()) == "/home/u/.local/state/otpbridge"


def test_root_gets_the_system_folders(monkeypatch):
    """As root it lives in /var/lib and /run."""
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert str(config.default_state_dir()) == "/var/lib/otpbridge"
    assert str(config.default_run_dir()) == "/run/otpbridge"


def test_a_client_looks_for_a_daemon_of_its_user_first(tmp_path, monkeypatch):
    """What is named wins, then the user's own daemon, then the system's."""
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.delenv("OTPBRIDGE_RUN_DIR", raising=False)
    assert config.find_run_dir() == config.SYSTEM_RUN
    (tmp_path / "otpbridge").mkdir()
    (tmp_path / "otpbridge" / "verify").touch()
    assert config.find_run_dir() == tmp_path / "otpbridge"
    monkeypatch.setenv("OTPBRIDGE_RUN_DIR", "/elsewhere")
    assert str(config.find_run_dir()) == "/elsewhere"


def test_keys_of_linux_accounts_belong_to_this_machine():
    """Its name in lower case, as browsers and keys have host names; another client has none until it is said."""
    config = Config()
    party = config.relying_party("local", "Desk")
    assert (party.id, party.origins) == ("desk", ("https://desk",))
    assert config.relying_party("acme", "Desk") is None
