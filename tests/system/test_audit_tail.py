"""Following the audit log: nothing is left out, and nobody who follows holds up the daemon."""

from __future__ import annotations

import math
import threading
from contextlib import closing

import pytest
from daemon_rig import Daemon, private_folder, provision

from otpbridge.wire import messages

pytestmark = pytest.mark.system

ROUNDS = 150


def test_a_follower_gets_every_row_once_and_in_order():
    """Whatever commits them: verifications on the event loop, and changes in the writer's thread."""
    with private_folder() as folder, Daemon(folder, config="[throttle]\nlimit = 1000\n") as daemon:
        provision(daemon, ["alice"])

        def guess():
            with daemon.client() as client:
                for _ in range(ROUNDS):
                    client.verify("alice", "000000")

        def change():
            with daemon.admin() as admin:
                for number in range(ROUNDS):
                    admin.call(messages.AddUser(user=f"u{number}"))

        with daemon.admin(math.inf) as admin:
            replies = admin.stream(messages.AuditTail(count=1, follow=True), timeout=20)
            with closing(replies):
                seen = [entry.sequence for entry in next(replies).entries]
                work = [threading.Thread(target=each) for each in (guess, change)]
                for each in work:
                    each.start()
                while len(seen) < 1 + 2 * ROUNDS:
                    seen += [entry.sequence for entry in next(replies).entries]
                for each in work:
                    each.join()
        assert seen == list(range(seen[0], seen[0] + 1 + 2 * ROUNDS))


def test_a_daemon_that_is_followed_ends_at_once():
    """The follower is sent away; nothing is cut off."""
    with private_folder() as folder, Daemon(folder) as daemon, daemon.admin() as admin:
        replies = admin.stream(messages.AuditTail(follow=True), timeout=20)
        next(replies)
        assert daemon.stop() == 0
        assert "cut off" not in daemon.log
        assert not [entry for reply in replies for entry in reply.entries if entry.event == "verify"]
