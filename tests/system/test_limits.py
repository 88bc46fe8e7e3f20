"""What many, long or hostile things cost: the daemon stays as large as it was, and others are served."""

from __future__ import annotations

import subprocess
import sys
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pammodule
import pytest
from daemon_rig import LONG, Daemon, need_root, plain_environment, private_folder, provision
from pamstack import PAM_SUCCESS, Stack, at_system_place

from otpbridge.model import Kind
from otpbridge.wire import messages

pytestmark = pytest.mark.system

CALLER = Path(__file__).resolve().parents[2] / "benchmarks" / "limits_caller.py"
ATTACKS = ("flood", "silent_flood", "half", "endless", "deaf", "greedy", "guess", "begin")
LOGINS = 200 if LONG else 4
MOST_MIB = 32.0
"""How much larger a daemon may become by what others than root do to it: 1024 connections, a message each."""
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


# --- those who do too much ---

OTHER = 61_001
"""A uid that nobody has."""


@contextmanager
def attack(daemon, what, number, uid=OTHER):
    """Another user does this until the block ends."""
    command = [sys.executable, "-I", "-S", CALLER, str(uid), daemon.verify_socket, what, str(number)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env=plain_environment(USER="mallory")
    ) as process:
        try:
            assert process.stdout.readline() == "on\n"
            yield
            assert process.poll() is None
        finally:
            process.kill()


def resident_mib(pid):
    """Resident memory of a process."""
    (line,) = (text for text in Path(f"/proc/{pid}/status").read_text().splitlines() if text.startswith("VmRSS:"))
    return int(line.split()[1]) / 1024


def descriptors(pid):
    """How many files a process has open."""
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


@pytest.fixture(scope="module")
def beset():
    """A daemon, and users who log in while others attack it."""
    need_root()
    with private_folder() as folder, Daemon(folder) as daemon:
        keys = provision(daemon, [*ATTACKS, "idle"], kind=Kind.HOTP)
        with daemon.client() as client:
            assert not client.verify("nobody", "000000").ok
        yield daemon, keys


@pytest.mark.campaign
@pytest.mark.parametrize("what", ATTACKS)
def test_others_log_in_whatever_one_user_does(beset, what):
    """Floods, calls without a pause, replies that are not read, messages without an end: all others are served.

    Root's logins by PAM are, and portals on the socket for all. The daemon stays as large as it was, but for what
    that user's connections may hold.
    """
    daemon, keys = beset
    before = resident_mib(daemon.pid)
    line = f"auth required {pammodule.build()}"
    stack = Stack(daemon.folder / "pam.d", line, prefix=at_system_place(daemon.run_dir))
    with attack(daemon, what, 60):
        for ahead in range(0, LOGINS, 2):
            outcome = stack.login(what, [keys[what].code(ahead)])
            assert outcome.code == PAM_SUCCESS, outcome.log
            with daemon.client() as client:
                assert client.verify(what, keys[what].code(ahead + 1)).ok
        assert resident_mib(daemon.pid) - before < MOST_MIB


@pytest.mark.campaign
def test_ten_thousand_who_say_nothing_get_as_many_places_as_there_are(beset):
    """Of each user so many, of all together so many; the others are closed at once, and root finds room."""
    daemon, keys = beset
    before = resident_mib(daemon.pid)
    with ExitStack() as held:
        for place in range(20):
            held.enter_context(attack(daemon, "idle", 500, OTHER + 1 + place))
        for ahead in range(LOGINS):
            with daemon.client() as client:
                assert client.verify("idle", keys["idle"].code(ahead)).ok
        assert 1000 <= descriptors(daemon.pid) <= 1100
        assert resident_mib(daemon.pid) - before < MOST_MIB
    daemon.check_audit()
