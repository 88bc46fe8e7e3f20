"""Faults under load, two daemons on one PostgreSQL database: one store, whoever and whatever dies."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from daemon_rig import private_folder
from faults import strikes
from faults.rig import CONFIG, campaign
from faults.server_strikes import Shared
from pgcluster import cluster
from pgpair import pair_on
from pgproxy import proxied

pytestmark = [pytest.mark.system, pytest.mark.campaign, pytest.mark.timeout(100_000)]


@pytest.fixture
def shared():
    """Two daemons, one of which reaches the server by a line that can be broken."""
    server = cluster()
    database = server.create()
    with (
        private_folder() as folder,
        TemporaryDirectory(prefix="otpb-px-") as place,
        proxied(server.folder, Path(place)) as proxy,
    ):
        url = server.url(database)
        breakable = url.replace(str(server.folder).replace("/", "%2F"), place.replace("/", "%2F"))
        with pair_on([breakable, url], folder, CONFIG) as daemons:
            yield Shared(server, database, proxy), daemons
    server.remove(database)


def test_nothing_that_was_answered_is_undone_on_a_shared_store(shared):
    """The server, the lines to it, and the daemons, each in turn."""
    at, daemons = shared
    every = [
        at.server_crashed,
        at.server_stopped,
        at.lines_cut,
        at.commit_not_heard_of,
        at.commit_not_answered,
        at.commit_in_doubt,
        at.daemon_killed,
        at.daemon_stopped,
        strikes.no_descriptors,
        strikes.no_memory,
    ]
    with campaign(daemons) as rounds:
        rounds.play_each(every, short=5)
