"""A login by root is the same on the admins' socket, which the PAM module takes by itself, as on the one for all."""

from __future__ import annotations

import re

import pammodule
import pytest
from daemon_rig import Daemon, need_root, private_folder, provision
from msgspec import structs
from pamstack import Stack

from otpbridge.model import Enforcement
from otpbridge.wire import messages

pytestmark = pytest.mark.system

CONFIG = """
[policy]
trusted_networks = ["192.0.2.0/24"]
first_wait = 300
[throttle]
limit = 2
source_limit = 1000
[stacks.two]
rules = ["requisite password", "sufficient enrol", "required totp"]
"""
PASSWORD = "wrenches rust"
BOTH = ["authenticate", "acct_mgmt"]
PEOPLE = ["right", "used", "waits", "locked", "declines", "near", "combined", "two"]


class Person:
    """Somebody of each sort who logs in by one of the sockets, with a code of their own."""

    def __init__(self, keys, way):
        self._keys, self._way = keys, way

    def user(self, sort):
        return f"{sort}-by-{self._way}"

    def code(self, sort):
        return self._keys[self.user(sort)].code()

    def wrong(self, sort, count=1):
        return self._keys[self.user(sort)].wrong(count)


LOGINS = {
    "right": lambda person: [("", [person.code("right")], {})],
    "used": lambda person: [("", [person.code("used")], {})] * 2,
    "waits": lambda person: [("", [code], {}) for code in person.wrong("waits", 3)],
    "locked": lambda person: [("", [person.code("locked")], {})],
    "declines": lambda person: [("", [""], {})],
    "near": lambda person: [("", [person.code("near")], {"rhost": "192.0.2.7"})],
    "combined": lambda person: [("forward_pass", [PASSWORD + person.code("combined")], {"rhost": "198.51.100.7"})],
    "two": lambda person: [("stack=two", [PASSWORD, person.code("two")], {"tty": "/dev/tty1", "ruser": "root"})],
    "bare": lambda _person: [("", [], {})],
    "stranger": lambda _person: [("", ["123456"], {}), ("nullok", [], {})],
    "new": lambda _person: [("stack=two", [PASSWORD, "123456"], {})],
}
"""Of each sort: module options, answers, items of PAM; login by login."""


def texts(outcome, user):
    """What was shown and asked, without what is another user's: their name, a key to enrol with, how long to wait."""
    own = re.compile(rf"{user}|[A-Z2-7 ]{{32,}}|in [0-9]+ s")
    return [(message.style, own.sub("…", message.text)) for message in outcome.messages]


def told(daemon, user):
    """What stands in the audit log of their logins, without when, by which process and of which token."""
    rows = [entry for entry in daemon.audit() if entry.user == user and entry.service is not None]
    return [
        structs.replace(row, sequence=0, at=0, pid=0, user="…", token=None if row.token is None else "…")
        for row in rows
    ]


@pytest.fixture(scope="module")
def rig():
    """A daemon, and people of each sort for either socket."""
    need_root()
    with private_folder() as folder, Daemon(folder, config=CONFIG) as daemon:
        keys = provision(daemon, [f"{sort}-by-{way}" for way in ("verify", "admin") for sort in PEOPLE])
        with daemon.admin() as admin:
            for way in ("verify", "admin"):
                for user in (f"bare-by-{way}", f"new-by-{way}"):
                    admin.call(messages.AddUser(user=user))
                for user in [f"new-by-{way}", *(f"{sort}-by-{way}" for sort in PEOPLE if sort != "declines")]:
                    admin.call(messages.SetEnforcement(user=user, enforcement=Enforcement.REQUIRED, force=True))
                admin.call(messages.LockUser(user=f"locked-by-{way}"))
                for user in (f"two-by-{way}", f"new-by-{way}"):
                    admin.call(messages.SetPassword(user=user, password=PASSWORD))
        yield daemon, keys


@pytest.mark.parametrize("sort", LOGINS)
def test_a_login_is_the_same_by_either_socket(rig, tmp_path, sort):
    """The same questions, messages, verdicts and entries in the log, `nullok` and the source believed alike."""
    daemon, keys = rig
    found = {}
    for way in ("verify", "admin"):
        person = Person(keys, way)
        user = person.user(sort)
        outcomes = []
        for options, answers, items in LOGINS[sort](person):
            line = f"{pammodule.build()} socket={daemon.run_dir / way} {options}"
            stack = Stack(tmp_path, f"auth required {line}\naccount required {line}")
            outcome = stack.login(user, answers, phases=BOTH, items=items, stop_at_failure=False)
            outcomes.append((dict(outcome.codes), texts(outcome, user)))
        found[way] = (outcomes, told(daemon, user))
    assert found["admin"] == found["verify"]
    assert found["admin"][1]
