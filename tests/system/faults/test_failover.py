"""The primary dies and its standby takes over, under load: what was spent stays spent."""

from __future__ import annotations

import pytest
from daemon_rig import LONG, private_folder, provision
from faults.history import Excuse
from faults.rig import CONFIG, campaign
from pgcluster import OWNER, Cluster, Standby
from pgpair import pair_on

from otpbridge.model import Kind

pytestmark = [pytest.mark.system, pytest.mark.campaign, pytest.mark.timeout(600)]


@pytest.fixture
def primary():
    server = Cluster()
    yield server
    server.close()


@pytest.fixture
def standby(primary):
    server = Standby(primary)
    yield server
    server.close()


def test_a_promoted_standby_goes_on_with_every_code_that_was_spent(primary, standby):
    """With synchronous replication and both servers in `url`, daemons find the new one by themselves."""
    name = primary.create()
    url = f"postgresql://{OWNER}@/{name}?host={primary.folder}&host={standby.folder}"

    def failed_over(rounds):
        with rounds.window("failover", Excuse.UNAVAILABLE):
            primary.stop("immediate")
            standby.promote()

    with (
        private_folder() as folder,
        pair_on([url, url], folder, CONFIG) as daemons,
        campaign(daemons) as rounds,
    ):
        key = provision(daemons[0], ["alice"], kind=Kind.YUBIOTP)["alice"]
        rounds.play(failed_over)
        with daemons[0].client() as client:
            assert client.verify("alice", key.code()).ok
            if not LONG:
                # What follows is waiting, for the most part.
                return
            # The old primary is there again, first in the list, and knows nothing of it: it can confirm no commit.
            primary.start()
            assert standby.cut(name)
            assert client.verify("alice", key.code()).verdict == "authinfo_unavail"
            primary.stop("immediate")
            assert client.verify("alice", key.code()).verdict == "auth_err"
