"""What a centre makes of the calls of hosts: handlers, judge and store in this process."""

from __future__ import annotations

import os

import pytest
from certificates import CLIENT, Ca
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from stackrig import Bench
from storerig import NOW, run, running

from otpbridge.config import Right, parse
from otpbridge.daemon.desk import Desk
from otpbridge.daemon.policy import Authority, Rights
from otpbridge.daemon.relay.authority import identify
from otpbridge.daemon.relay.centre import Centre, RelayedCounter
from otpbridge.errors import ConfigError
from otpbridge.model import Caller, Enforcement, Kind, Secret, Verdict
from otpbridge.store import users
from otpbridge.wire.messages import ContextFields, Origin, RelayedAccount, RelayedBegin, RelayedCheck, RelayedContinue
from otpbridge.wire.service import Call, Host, VarlinkError

SEED = b"12345678901234567890"
HOSTS = "[relays.hosts.web1]\n[relays.hosts.web2]\n[relays.hosts.lab]\nenrol = true\n"
SSHD = ContextFields(service="sshd", rhost="192.0.2.1")
LATER = 1 << 40


class Connection:
    """A host's connection, as far as handlers see it."""

    def __init__(self, host):
        self.peer = host
        self.state = {}

    def on_close(self, callback):
        """Nothing ends here."""


class Asking:
    """A centre, and what its hosts ask."""

    def __init__(self, rig, config):
        self.bench = Bench(rig, config=config + HOSTS)
        self.desk = Desk(
            rig.store,
            self.bench.config,
            Rights(self.bench.config, 0, lambda _name: 0),
            self.bench.judge,
            lambda: self.bench.time,
            os.urandom,
            "centre",
            NOW // 1000,
        )
        self.counter = RelayedCounter(self.desk, Centre(self.desk))
        self._connections = {}

    def call(self, host, *, expires_at=LATER):
        """A call on the connection of a host."""
        connection = self._connections.setdefault(host, Connection(Host(host, "1", expires_at)))
        return Call(connection, "org.otpbridge.Relay.Check", more=False, oneway=False)

    async def check(self, host, code, *, own=False, uid=0):
        """The verdict on a code of alice's."""
        origin = Origin(uid=uid, pid=7, own=own)
        asked = RelayedCheck(user="alice", responses=(code,), context=SSHD, origin=origin)
        return (await self.counter.check(self.call(host), asked)).verdict

    async def account(self, host):
        """The verdict of PAM's account phase."""
        asked = RelayedAccount(user="alice", context=SSHD, origin=Origin(uid=0, pid=7, own=False))
        return (await self.counter.account(self.call(host), asked)).verdict


def asking(tmp_path, work, config=""):
    """Run a test on a centre where alice has an authenticator."""

    async def begun():
        async with running(tmp_path) as rig:
            centre = Asking(rig, config)
            await centre.bench.put(Kind.TOTP, Secret(SEED))
            await work(centre)

    run(begun())


def test_root_of_a_host_is_nobody_at_the_centre():
    """Uid 0 on a host, and a uid that the centre's configuration names, have no right there at all."""
    rights = Rights(parse("[[callers]]\nuser = 33\nclients = ['local']\n"), 0, lambda _name: 0)
    for caller in (Caller(0, -1, 7, host="web1"), Caller(33, -1, 7, host="web1")):
        for right in Right:
            assert rights.given(caller, "local", right) is Authority.NONE
            assert not rights.anywhere(caller, right)
            assert run(rights.authority(caller, "local", "root", right)) is Authority.NONE


@pytest.mark.parametrize("config", ["[policy]\naccount = 'verified'\n", "[policy]\ngrace = 600\n"])
def test_a_success_counts_on_the_same_host_alone(tmp_path, config):
    """What lets a login in because of one just before holds at that host, and not at another one."""

    async def work(centre):
        await centre.bench.enforce(Enforcement.REQUIRED)
        assert await centre.check("web1", centre.bench.code()) is Verdict.SUCCESS
        if "grace" in config:
            assert await centre.check("web1", "") is Verdict.IGNORE
            assert await centre.check("web2", "") is Verdict.AUTH_ERR
        else:
            assert await centre.account("web1") is Verdict.SUCCESS
            assert await centre.account("web2") is Verdict.PERM_DENIED

    asking(tmp_path, work, config)


def test_a_host_says_for_whom_it_does_not_vouch(tmp_path):
    """Where somebody asks about themselves, the source that the host passes on counts for nothing."""

    async def work(centre):
        assert await centre.check("web1", "000000", own=True) is Verdict.AUTH_ERR
        assert await centre.check("web1", centre.bench.code()) is Verdict.SUCCESS
        own, passed = centre.bench.audit()[-2:]
        assert ("rhost" in own, passed["rhost"]) == (False, "192.0.2.1")
        assert own["host"] == passed["host"] == "web1"

    asking(tmp_path, work)


@pytest.mark.parametrize(("host", "enrols"), [("web1", False), ("lab", True)])
def test_nobody_enrols_through_a_host_that_may_not(tmp_path, host, enrols):
    """A stack that enrols at login shows a new key through those hosts alone whose entry says so."""

    async def work(centre):
        await centre.bench.rig.change(lambda transaction: users.ensure(transaction, "local", "carol"))
        await centre.bench.enforce(Enforcement.REQUIRED, "carol")
        origin = Origin(uid=0, pid=7, own=False)
        begun = await centre.counter.begin(centre.call(host), RelayedBegin(user="carol", context=SSHD, origin=origin))
        shown = " ".join(notice.text for notice in begun.step.notices)
        assert ("type this key into the app" in shown) is enrols, shown
        if not enrols:
            asked = RelayedContinue(session=begun.session, responses=("123456",))
            assert (await centre.counter.proceed(centre.call(host), asked)).step.verdict is Verdict.AUTH_ERR

    asking(tmp_path, work, "[stacks.default]\nrules = ['sufficient totp', 'required enrol first_factor=caller']\n")


def test_a_certificate_that_ends_while_it_is_used(tmp_path):
    """From that moment on the host may not ask, and the audit log says why."""

    async def work(centre):
        call = centre.call("web1", expires_at=int(centre.bench.time) - 1)
        asked = RelayedCheck(user="alice", responses=("1",), origin=Origin(uid=0, pid=7, own=False))
        assert (await centre.counter.check(call, asked)).verdict is Verdict.PERM_DENIED
        assert "has ended" in centre.bench.audit()[-1]["reason"]

    asking(tmp_path, work)


def test_a_uid_that_is_none_is_refused(tmp_path):
    """What a host says of its processes has to be possible."""

    async def work(centre):
        with pytest.raises(VarlinkError, match="InvalidParameter"):
            await centre.check("web1", "000000", uid=1 << 32)

    asking(tmp_path, work)


@pytest.mark.parametrize(("names", "known"), [(1, True), (2, False)])
def test_a_host_is_called_as_the_only_name_in_its_certificate(tmp_path, names, known):
    """A certificate of several names is nobody's: it is not for the host to choose which one it is."""
    path = tmp_path / "host.pem"
    serial = Ca().issue(path, "web1", CLIENT, names=names)
    der = x509.load_pem_x509_certificate(path.read_bytes()).public_bytes(Encoding.DER)
    if known:
        assert (identify(der).name, identify(der).serial) == ("web1", serial)
    else:
        with pytest.raises(ConfigError, match="has 2 names"):
            identify(der)


def test_bytes_that_are_no_certificate_name_nobody():
    """Whatever comes from outside is refused in the same way."""
    with pytest.raises(ConfigError, match="cannot be read"):
        identify(b"no certificate")
