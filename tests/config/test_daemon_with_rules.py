"""A daemon and its rules: it does not start with one that it cannot read, and does with a plug-in that is missing."""

from __future__ import annotations

import signal

import pytest
from daemon_rig import Daemon, command, private_folder, provision

pytestmark = pytest.mark.system

MISSING = "[stacks.default]\nrules = ['sufficient totp', 'required vendor-push']\n"


@pytest.fixture
def daemon():
    with private_folder() as folder:
        rig = Daemon(folder)
        yield rig
        rig.kill()


def test_a_rule_that_cannot_be_read_keeps_the_daemon_from_starting(daemon):
    """File, line and rule are said before anything is made: no store, no key, no socket."""
    daemon.configure("[stacks.sshd]\nrules = [\n  'sufficient totp',\n  'requird recovery',\n]\n")
    said = daemon.refused()
    assert f"{daemon.config_file}:4: stack `sshd`, rule 2 (`requird recovery`): unknown control `requird`." in said
    assert "Traceback" not in said
    assert not (daemon.state_dir / "otpbridge.db").exists()


def test_a_rule_that_cannot_be_read_changes_nothing_in_a_reload(daemon):
    """The rules that were in force stay in force; the log says the same as at the start."""
    with daemon:
        key = provision(daemon, ["alice"])["alice"]
        daemon.configure("[stacks.default]\nrules = ['required totp windw=3']\n")
        daemon.signal(signal.SIGHUP)
        daemon.wait_for("Nothing was changed")
        assert f"reload: {daemon.config_file}:2: stack `default`, rule 1 (`required totp windw=3`): " in daemon.log
        with daemon.client() as client:
            assert client.verify("alice", key.code()).ok
    assert "Traceback" not in daemon.log


def test_a_missing_plug_in_is_said_and_stops_nobody_else(daemon):
    """The daemon starts, its log and its status name the verifier, and codes of the other rules let in."""
    daemon.configure(MISSING)
    with daemon:
        key = provision(daemon, ["alice"])["alice"]
        assert "there is no verifier `vendor-push`." in daemon.log
        said = command("status", run_dir=daemon.run_dir).stdout.decode()
        assert "Warning: there is no verifier `vendor-push`." in said
        with daemon.client() as client:
            assert client.verify("alice", key.code()).ok
            assert client.verify("alice", key.wrong()[0]).verdict == "authinfo_unavail"
