"""Several centres on one PostgreSQL store, and relays that ask whichever is there."""

from __future__ import annotations

import os
import shutil
import subprocess

import pytest
from daemon_rig import CLI, SECONDS, Daemon, plain_environment, private_folder, provision
from pgcluster import cluster
from pgpair import daemon_on
from relay_rig import centre_config, free_port, issue

from otpbridge.model import Verdict

pytestmark = pytest.mark.system


@pytest.fixture
def centres():
    """Two centres with one master key on one database, and a relay that knows both."""
    server = cluster()
    name = server.create()
    with private_folder() as folder:
        ports = [free_port(), free_port()]
        one, other = (
            daemon_on(server.url(name), folder / place, centre_config(port) + "\n")
            for place, port in zip(("one", "other"), ports, strict=True)
        )
        with one:
            other.state_dir.mkdir(mode=0o700)
            shutil.copy2(one.state_dir / "master.key", other.state_dir)
            home = folder / "web1"
            home.mkdir()
            certificate = issue(one, "web1", home / "relay.pem")
            where = ", ".join(f'"127.0.0.1:{port}"' for port in ports)
            text = f'[relay]\ncentres = [{where}]\ncertificate = "{certificate}"\n'
            with other, Daemon(home, config=text) as relay:
                yield one, other, relay
    server.remove(name)


def test_logins_go_on_when_a_centre_is_killed(centres):
    """A code that the first one took is spent at the second; both take the same certificates and revocations."""
    one, other, relay = centres
    key = provision(one, ["alice"])["alice"]
    with relay.client() as otp:
        assert otp.verify("alice", key.code())
        with otp.begin("alice") as talk:
            one.kill()
            talk.answer(key.code(1))
            assert talk.verdict is Verdict.AUTHINFO_UNAVAIL
        assert otp.verify("alice", key.code()).verdict is Verdict.AUTH_ERR
        assert otp.verify("alice", key.code(1))
        one.start()
        revoke = [*CLI, "relay", "revoke", "web1", "--run-dir", os.fspath(one.run_dir)]
        subprocess.run(revoke, check=True, timeout=SECONDS, env=plain_environment(), stdout=subprocess.DEVNULL)
        # Not told by anybody: the other centre has to see it in the store.
        other.wait_for("connections of hosts that are not let in any more")
        assert otp.verify("alice", key.code(2)).verdict is Verdict.AUTHINFO_UNAVAIL
    said = [(row.verdict, row.host) for row in other.audit() if row.event == "verify"]
    assert said == [("success", "web1"), ("auth_err", "web1"), ("success", "web1")]
    other.check_audit()
