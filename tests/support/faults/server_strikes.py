"""What is done to a PostgreSQL server, the lines to it, and the daemons that share it."""

from __future__ import annotations

import signal

from pgcluster import Cluster
from pgproxy import Break, Proxy

from faults.history import Excuse
from faults.rig import Rounds
from faults.strikes import linger


class Shared:
    """A server, one database of it, and the breakable line of the first daemon."""

    def __init__(self, server: Cluster, database: str, proxy: Proxy) -> None:
        self._server = server
        self._database = database
        self._proxy = proxy

    def server_crashed(self, rounds: Rounds) -> None:
        """It crashes, and starts again."""
        with rounds.window("server crash", Excuse.UNAVAILABLE):
            self._server.stop("immediate")
            self._server.start()

    def server_stopped(self, rounds: Rounds) -> None:
        """All its processes stand still, for less than a line is given: nobody hears of it."""
        self._server.suspend()
        linger(rounds, 0.3, 1.5)
        self._server.resume()

    def lines_cut(self, rounds: Rounds) -> None:
        """Every connection is ended, once: what was on its way is done again."""
        assert self._server.cut(self._database)

    def commit_not_heard_of(self, rounds: Rounds) -> None:
        """A line breaks before the server hears of a commit: it is done again."""
        self._break(Break.BEFORE)

    def commit_not_answered(self, rounds: Rounds) -> None:
        """A line breaks after a commit, whose answer is lost: the daemon finds out what became of it."""
        self._break(Break.AFTER)

    def commit_in_doubt(self, rounds: Rounds) -> None:
        """The same, and nobody can be asked for a while."""
        with rounds.window("commit in doubt", Excuse.UNAVAILABLE):
            self._proxy.then_closed = True
            self._break(Break.AFTER)
            linger(rounds, 0.0, 1.0)
            self._proxy.then_closed = False
            self._proxy.open()
            rounds.crowd.wait_for(20)

    def daemon_killed(self, rounds: Rounds) -> None:
        """One of the daemons is killed; the other goes on."""
        with rounds.window("daemon killed", Excuse.CUT):
            victim = rounds.chance.choice(rounds.daemons)
            victim.kill()
            rounds.crowd.wait_for(50)
            victim.start()

    def daemon_stopped(self, rounds: Rounds) -> None:
        """One of the daemons stands still, maybe amid a commit, for less than the others wait for it."""
        victim = rounds.chance.choice(rounds.daemons)
        victim.signal(signal.SIGSTOP)
        linger(rounds, 0.3, 1.5)
        victim.signal(signal.SIGCONT)

    def _break(self, where: Break) -> None:
        self._proxy.broken.clear()
        self._proxy.breaks = where
        assert self._proxy.broken.wait(30)
