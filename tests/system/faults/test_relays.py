"""Faults under load, logins through relays: what the centre has judged is judged once, whatever is lost underway."""

from __future__ import annotations

import pytest
from daemon_rig import Daemon, private_folder
from faults.relay_strikes import Relayed, private_network
from faults.rig import CONFIG, campaign
from relay_rig import HOSTS, Wire, centre_config, free_port, issue

pytestmark = [pytest.mark.system, pytest.mark.campaign, pytest.mark.timeout(100_000)]

RELAY = """
[relay]
centres = ["{address}"]
certificate = "{certificate}"
timeout = 5
"""


def relay_of(centre, host, address, folder, prefix=()):
    """A relay that is not started."""
    home = folder / host
    home.mkdir()
    certificate = issue(centre, host, home / "relay.pem")
    return Daemon(home, config=RELAY.format(address=address, certificate=certificate), prefix=prefix)


def test_nothing_that_was_answered_through_relays_is_undone():
    """Relays die, the centre dies, lines are cut, answers are lost."""
    port = free_port()
    with (
        private_folder() as folder,
        Daemon(folder, config=centre_config(port, extra=CONFIG)) as centre,
        Wire(port) as wire,
        relay_of(centre, HOSTS[0], wire.address, folder) as one,
        relay_of(centre, HOSTS[1], f"127.0.0.1:{port}", folder) as other,
        campaign([centre], doors=[one, other]) as rounds,
    ):
        at = Relayed([one, other], wire)
        every = [at.relay_killed, at.centre_killed, at.centre_stopped, at.line_cut, at.answers_lost]
        rounds.play_each(every, short=3)


def test_nothing_is_undone_where_packets_are_dropped():
    """All of them, and many, on the way between a relay and its centre."""
    port = free_port()
    with (
        private_network() as network,
        private_folder() as folder,
        Daemon(folder, config=centre_config(port, extra=CONFIG), prefix=network.prefix) as centre,
        relay_of(centre, HOSTS[0], f"127.0.0.1:{port}", folder, network.prefix) as relay,
        campaign([centre], doors=[relay]) as rounds,
    ):
        rounds.play_each([network.down, network.narrow], short=2)
