"""What many, long or hostile things cost: the daemon stays as large as it was, and others are served."""

from __future__ import annotations

import pytest
from daemon_rig import Daemon, private_folder, provision

from otpbridge.wire import messages

pytestmark = pytest.mark.system

LONGEST_NAME = 256
"""Bytes of a user's name."""


def test_everything_is_listed_however_long_the_names_are():
    """Names that take twice their length in JSON: users, tokens and log come whole, in as many replies as needed."""
    users = [f"{number:03d}{chr(34) * (LONGEST_NAME - 3)}" for number in range(130)]
    with private_folder() as folder, Daemon(folder) as daemon:
        for start in (0, 65):
            provision(daemon, users[start : start + 65])
        with daemon.client() as client:
            for user in users:
                client.verify(user, "nothing")
        with daemon.admin() as admin:
            listed = [user.name for page in admin.stream(messages.ListUsers()) for user in page.users]
            owners = [token.user for page in admin.stream(messages.ListTokens()) for token in page.tokens]
        assert listed == users
        assert owners == users
        assert [entry.user for entry in daemon.audit() if entry.event == "verify"] == users
