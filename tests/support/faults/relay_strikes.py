"""What is done to relays, their centre, and the network between them."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from daemon_rig import LONG, SECONDS, Daemon, need_root
from relay_rig import Wire

from faults.history import Excuse
from faults.rig import Rounds
from faults.strikes import linger


class Relayed:
    """Relays, of which the first has a line that can be cut; the centre is the daemon of the rounds."""

    def __init__(self, relays: list[Daemon], wire: Wire) -> None:
        self._relays = relays
        self._wire = wire

    def relay_killed(self, rounds: Rounds) -> None:
        """A relay is killed; the other goes on."""
        with rounds.window("relay killed", Excuse.CUT):
            victim = rounds.chance.choice(self._relays)
            victim.kill()
            rounds.crowd.wait_for(50)
            victim.start()

    def centre_killed(self, rounds: Rounds) -> None:
        """The centre is killed: relays refuse, and go on when it is back."""
        with rounds.window("centre killed", Excuse.UNAVAILABLE, Excuse.CUT):
            rounds.daemon.kill()
            linger(rounds, 0.0, 0.5)
            rounds.daemon.start()
            rounds.crowd.wait_for(50)

    def centre_stopped(self, rounds: Rounds) -> None:
        """The centre stands still, for less than a relay waits."""
        rounds.daemon.signal(signal.SIGSTOP)
        linger(rounds, 0.2, 0.8)
        rounds.daemon.signal(signal.SIGCONT)

    def line_cut(self, rounds: Rounds) -> None:
        """The line is cut amid calls: these may be judged, and are not sent again."""
        with rounds.window("line cut", Excuse.UNAVAILABLE):
            self._wire.cut()
            rounds.crowd.wait_for(20)

    def answers_lost(self, rounds: Rounds) -> None:
        """The centre judges, and what it says does not arrive."""
        with rounds.window("answers lost", Excuse.UNAVAILABLE):
            self._wire.asked.clear()
            self._wire.hold()
            assert self._wire.asked.wait(SECONDS)
            linger(rounds, 0.2, 0.5)
            self._wire.release()
            self._wire.cut()
            rounds.crowd.wait_for(20)


class Network:
    """A network of its own, with nothing but a loopback interface. `prefix` runs a command in it."""

    def __init__(self, pid: int) -> None:
        self.prefix = ["nsenter", f"--net=/proc/{pid}/ns/net"]

    def down(self, rounds: Rounds) -> None:
        """Every packet is dropped, for a while."""
        with rounds.window("network down", Excuse.UNAVAILABLE):
            self.run("ip", "link", "set", "lo", "down")
            linger(rounds, 0.5, 7.0 if LONG else 1.5)
            self.run("ip", "link", "set", "lo", "up")
            rounds.crowd.wait_for(50)

    def narrow(self, rounds: Rounds) -> None:
        """There is room for few packets, and the others are dropped."""
        with rounds.window("network narrow", Excuse.UNAVAILABLE):
            shape = ("tbf", "rate", "64kbit", "burst", "2000", "limit", "3000")
            self.run("tc", "qdisc", "add", "dev", "lo", "root", *shape)
            linger(rounds, 0.5, 7.0 if LONG else 1.5)
            self.run("tc", "qdisc", "del", "dev", "lo", "root")
            rounds.crowd.wait_for(50)

    def run(self, *command: str) -> None:
        subprocess.run([*self.prefix, *command], check=True, timeout=SECONDS)


@contextmanager
def private_network() -> Iterator[Network]:
    """A network while the block lasts. Skips where none can be made."""
    need_root()
    holder = subprocess.Popen(
        ["unshare", "--net", "sh", "-c", "echo made; read x"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        if holder.stdout.readline() != "made\n":
            pytest.skip("no network of one's own can be made here")
        network = Network(holder.pid)
        network.run("ip", "link", "set", "lo", "up")
        yield network
    finally:
        holder.communicate(timeout=SECONDS)
