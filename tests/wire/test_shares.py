"""How much of the loop each caller gets."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from otpbridge.wire.shares import Shares

BURST = 0.005


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
