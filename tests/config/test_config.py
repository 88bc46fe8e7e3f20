"""otpbridge.toml, and where the folders are."""

from __future__ import annotations

import os

import pytest

from otpbridge import config
from otpbridge.config import Config, KeySource, Right, UnknownUsers
from otpbridge.errors import ConfigError


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
        ("[throttle]\n\nlimit = 0\n", "otpbridge.toml:3: throttle.limit: Expected `int` >= 1"),
        ("[key]\nsource = 'flie'\n", "otpbridge.toml:2: key.source: Invalid enum value 'flie'"),
        ("[users]\nunknown = true\n", "otpbridge.toml:2: users.unknown: Expected `str`"),
        ("users = 3\n", "otpbridge.toml:1: users: Expected `object`"),
        ("[key\n", "otpbridge.toml: not TOML"),
    ],
)
def test_a_mistake_is_told_with_its_line(text, said):
    """A typo never switches a rule off: it is refused, with file, line and the nearest name."""
    with pytest.raises(ConfigError) as caught:
        config.parse(text)
    assert str(caught.value).startswith(said)


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
