"""How much of the loop each caller gets."""

from __future__ import annotations

import dataclasses
import os
import socket
import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from wire_rig import LOOPS, Wire, bound, serving

from otpbridge.model import Verdict
from otpbridge.wire.messages import Account, AccountReply
from otpbridge.wire.service import Limits, Peer
from otpbridge.wire.shares import Shares

BURST = 0.005
CALL = b'{"method":"org.otpbridge.Verify.Account","parameters":{"user":"alice"}}\0'


@given(
    share=st.sampled_from([0.05, 0.1, 0.5]),
    pieces=st.lists(st.floats(0.000_01, 0.002), min_size=1, max_size=300),
)
def test_who_asks_without_a_pause_gets_a_burst_and_then_their_share(share, pieces):
    """Whatever each piece of work costs: never more than that and one piece. Another caller waits for none of it."""
    shares, now, used = Shares(share), 100.0, 0.0
    for piece in pieces:
        while wait := shares.wait("mallory", now):
            now += wait
        assert used <= BURST + share * (now - 100.0) + 1e-9
        shares.charge("mallory", piece, now)
        used += piece
    assert shares.wait("alice", now) == 0


def test_what_was_used_is_forgotten_and_the_caller_with_it():
    """A caller who pauses has a whole burst again; nothing is kept of who has used nothing for a while."""
    shares = Shares(0.1)
    shares.charge("mallory", 1.0, 100.0)
    shares.tidy(109.0)
    assert shares.wait("mallory", 109.0) > 0
    shares.tidy(111.0)
    assert shares.wait("mallory", 109.0) == 0


@dataclasses.dataclass(frozen=True)
class Trusting(Limits):
    """Trusts whoever connects while `now` holds something, root or not."""

    now: list[bool] = dataclasses.field(default_factory=list)

    def trusts(self, key):
        return bool(self.now)


def read(wire):
    """Take replies until there are none."""
    while not wire.at_end():
        pass


class Work:
    """A handler that takes a tenth of a millisecond; `served` has the connection of each call."""

    def __init__(self):
        self.served = []

    def __call__(self, call, _asked):
        self.served.append(call.connection)
        end = time.thread_time() + 0.0001
        while time.thread_time() < end:
            pass
        return AccountReply(verdict=Verdict.SUCCESS)


@pytest.mark.parametrize("loop", LOOPS)
def test_who_calls_without_a_pause_waits_and_nobody_else_does(tmp_path, loop):
    """With a thousandth of the time, the calls of one are hardly begun when all those of another are done."""
    work, limits = Work(), Trusting()
    with (
        serving(tmp_path / "verify", {Account: work}, loop=loop, limits=limits, share=0.001) as rig,
        rig.connect() as greedy,
    ):
        greedy.send(CALL * 1000)
        assert greedy.reply()
        limits.now.append(True)
        reader = threading.Thread(target=read, args=(greedy,))
        reader.start()
        with rig.connect() as other:
            for _ in range(100):
                other.send(CALL)
                assert other.reply()
        done = work.served.count(work.served[0])
        greedy.sock.shutdown(socket.SHUT_RDWR)
        reader.join()
        assert done < 500


@pytest.mark.parametrize("loop", LOOPS)
def test_who_has_to_wait_gets_every_answer(tmp_path, loop):
    """Calls that came at once are answered in turns, all of them, though the caller has finished writing."""
    with (
        serving(tmp_path / "verify", {Account: Work()}, loop=loop, limits=Trusting(), share=0.5) as rig,
        rig.connect() as greedy,
    ):
        greedy.send(CALL * 400)
        greedy.sock.shutdown(socket.SHUT_WR)
        for _ in range(400):
            assert greedy.reply()
        assert greedy.at_end()


@pytest.mark.parametrize("loop", LOOPS)
def test_who_has_hung_up_takes_no_place(tmp_path, loop):
    """Of a flood of connections that are closed again, those after it find room, and its time is put down."""
    sock = bound(tmp_path / "verify")
    sock.listen(1024)
    for _ in range(500):
        Wire(tmp_path / "verify").sock.close()
    limits = Trusting(connections_per_uid=2)
    with (
        Wire(tmp_path / "verify"),
        serving(tmp_path / "verify", {}, loop=loop, limits=limits, sock=sock, share=0.001) as rig,
    ):

        async def waits():
            peer = Peer(os.getuid(), os.getgid(), os.getpid())
            return rig.server.shares_of(peer).wait(peer.key, time.monotonic())

        while rig.server.opened + sum(rig.server.refused.values()) < 501:
            rig.connections()
        assert (rig.connections(), rig.server.refused["caller"]) == (1, 0)
        assert rig.run(waits()) > 0
