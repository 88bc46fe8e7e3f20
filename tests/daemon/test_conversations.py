"""Conversations over a connection that a caller keeps open."""

from __future__ import annotations

import os

from storerig import NOW, run, running

from otpbridge.config import parse
from otpbridge.daemon.desk import Desk
from otpbridge.daemon.judge import Judge
from otpbridge.daemon.policy import Rights, uid_of
from otpbridge.daemon.stacks import Stacks
from otpbridge.daemon.tally import Tally
from otpbridge.daemon.verify_handlers import VerifyCounter
from otpbridge.model import Verdict
from otpbridge.wire.messages import Begin, Continue
from otpbridge.wire.service import Call, Peer


class Kept:
    """A connection that counts what is to happen at its end."""

    def __init__(self):
        self.peer = Peer(0, 0, 1)
        self.state = {}
        self.at_end = []

    def on_close(self, callback):
        """Remember it."""
        self.at_end.append(callback)


def test_a_kept_connection_grows_by_no_conversation(tmp_path):
    """However many people log in over one connection, what is kept for its end stays the same."""

    async def work():
        async with running(tmp_path) as rig:
            config, now = parse(""), NOW / 1000
            stacks = Stacks(config)
            judge = Judge(rig.store, config, stacks, clock=lambda: now, random=os.urandom, host="host", tally=Tally())
            desk = Desk(rig.store, config, Rights(config, 0, uid_of), judge, lambda: now, os.urandom, "host", 0)
            counter, connection = VerifyCounter(desk, admin=False), Kept()
            call = Call(connection, "x", more=False, oneway=False)
            for number in range(20):
                begun = await counter.begin(call, Begin(user=f"u{number}"))
                done = await counter.proceed(call, Continue(session=begun.session, responses=("000000",)))
                assert done.step.verdict is Verdict.AUTH_ERR
            await counter.begin(call, Begin(user="left open"))
            assert len(connection.at_end) == 1
            connection.at_end[0]()

    run(work())
