"""The primary dies and its standby takes over, under load: what was spent stays spent."""

from __future__ import annotations

import pytest
from daemon_rig import private_folder
from faults.history import Excuse
from faults.rig import CONFIG, campaign
from pgcluster import OWNER, Cluster, Standby
from pgpair import pair_on

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
        rounds.play(failed_over)
