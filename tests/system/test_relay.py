"""Relays: hosts without a store ask a centre over TLS; real daemons on loopback, real certificates."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import act_as
import crowd
import pammodule
import pytest
from certificates import CLIENT, SERVER, Ca
from crowd import Round
from daemon_rig import CLI, SECONDS, Daemon, need_root, plain_environment, plain_user, private_folder, provision
from pamstack import PAM_AUTHINFO_UNAVAIL, PAM_MAXTRIES, PAM_SUCCESS, Stack
from plugin_folder import declare, environment
from relay_rig import Fleet, Wire, free_port, issue

from otpbridge.errors import RemoteError
from otpbridge.model import Context, Verdict
from otpbridge.wire import messages

pytestmark = pytest.mark.system

CODE = "123456"
HOSTS = """
[relays.hosts.web1]
[relays.hosts.web2]
[relays.hosts.gone]
[relays.hosts.narrow]
users = ["alice"]
stacks = ["default"]
"""
CONFIG = """
[throttle]
limit = 3
source_limit = 4
first_wait = 300
[stacks.other]
rules = ["required totp"]
[clients.acme]
[stacks.slow]
rules = ["required slow file=FILE"]
"""
SLOW = '''
import asyncio
from pathlib import Path
from dataclasses import dataclass
from otpbridge.model import Notice, Verdict

@dataclass(frozen=True, kw_only=True)
class Options:
    file: str

class Slow:
    """Tells the person something, then waits until a file is there."""
    Options = Options

    def __init__(self, options):
        self._file = Path(options.file)

    async def verify(self, attempt):
        await attempt.ask(PROMPT)
        await attempt.tell(Notice("Look at your phone."))
        while not self._file.exists():
            await asyncio.sleep(0.01)
        return Verdict.SUCCESS

from otpbridge.model import Prompt
PROMPT = Prompt("Verification code: ")
'''


@pytest.fixture(scope="module")
def fleet():
    """A centre and its hosts."""
    with private_folder() as folder:
        (folder / "plugins").mkdir()
        (folder / "plugins/slowly.py").write_text(SLOW)
        declare(folder / "site", "slowly", {"slow": "slowly:Slow"})
        found = Fleet(folder, hosts=HOSTS, config=CONFIG.replace("FILE", str(folder / "go")))
        found.centre.environment = environment(folder / "site", folder / "plugins")
        with found:
            yield found


@pytest.fixture(scope="module")
def web1(fleet):
    """A relay of it."""
    with fleet.relay("web1") as relay:
        yield relay


@pytest.fixture(scope="module")
def web2(fleet):
    """Another one."""
    with fleet.relay("web2") as relay:
        yield relay


@pytest.fixture
def someone(fleet, request):
    """A user of this test alone, with their authenticator."""
    name = f"u{abs(hash(request.node.nodeid)) % 10**12}"
    return name, provision(fleet.centre, [name])[name]


def verdicts(centre, user):
    """What the centre has judged about a user: verdict, reason and host of each attempt."""
    rows = [entry for entry in centre.audit() if entry.user == user and entry.event == "verify"]
    return [(row.verdict, row.reason, row.host) for row in rows]


def verified(daemon, user, code):
    """Check a code on a connection of its own."""
    with daemon.client() as otp:
        return otp.verify(user, code)


def otpbridge(daemon, *words):
    """Run the command line on a daemon."""
    command = [*CLI, "--run-dir", os.fspath(daemon.run_dir), *map(str, words)]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=SECONDS, env=plain_environment(), check=False
    )


# --- what works as on the centre itself ---


@pytest.mark.parametrize("name", ["verify", "admin"])
def test_pam_logs_in_through_a_relay_and_the_audit_log_names_the_host(fleet, web1, someone, name):
    """The PAM module works unchanged, by either socket, both phases; each row has the host, and what it said."""
    user, key = someone
    line = f"{pammodule.build()} socket={web1.run_dir / name}"
    stack = Stack(fleet.folder / "pam.d", f"auth required {line}\naccount required {line}\n")
    outcome = stack.login(user, [key.code()], phases=["authenticate", "acct_mgmt"], items={"rhost": "192.0.2.7"})
    assert (outcome.code, outcome.prompts) == (PAM_SUCCESS, ["Verification code: "]), outcome.log
    rows = [entry for entry in fleet.centre.audit() if entry.user == user and entry.event in {"verify", "account"}]
    said = [(row.event, row.verdict, row.host, row.rhost, row.service, row.uid) for row in rows]
    about = ("success", "web1", "192.0.2.7", "otpbridge-test", os.getuid())
    assert said == [("verify", *about), ("account", *about)]
    assert all(row.pid not in {web1.pid, fleet.centre.pid} for row in rows)


def test_back_off_arrives_with_its_time(web1, someone):
    """After too many wrong codes PAM and callers hear that nothing is judged, and for how long."""
    user, key = someone
    with web1.client() as otp:
        for code in key.wrong(3):
            assert otp.verify(user, code).verdict is Verdict.AUTH_ERR
        turned_away = otp.verify(user, key.code())
    assert turned_away.verdict is Verdict.MAXTRIES
    assert turned_away.retry_after
    stack = Stack(web1.folder / "pam.d", f"auth required {pammodule.build()} socket={web1.verify_socket}\n")
    assert stack.login(user, [key.code()]).code == PAM_MAXTRIES


def test_notices_arrive_at_once(fleet, web1, someone):
    """A notice is there while the verifier still waits: here, for what is done when the notice is seen."""
    user, key = someone
    seen = []

    def heard(notice):
        seen.append(notice.text)
        (fleet.folder / "go").touch()

    with web1.client() as otp, otp.begin(user, stack="slow", on_notice=heard) as talk:
        talk.answer(key.code())
    assert talk.verdict is Verdict.SUCCESS
    assert seen == ["Look at your phone."]


def test_a_source_is_counted_at_the_centre_for_all_hosts(fleet, web1, web2):
    """Wrong codes from one address through two relays add up to one back-off."""
    keys = provision(fleet.centre, ["src1", "src2", "src3"])
    context = Context(rhost="198.51.100.1")
    with web1.client() as first, web2.client() as second:
        for user in ("src1", "src2"):
            for otp, code in zip((first, second), keys[user].wrong(2), strict=True):
                assert otp.verify(user, code, context=context).verdict is Verdict.AUTH_ERR
        assert second.verify("src3", keys["src3"].code(), context=context).verdict is Verdict.MAXTRIES
        assert second.verify("src3", keys["src3"].code())


def test_the_host_has_no_store_and_no_key(web1, someone):
    """Neither files nor open descriptors of a relay are those of a store or of a key."""
    with web1.client() as otp:
        assert otp.verify(someone[0], someone[1].code())
    files = {path.name for path in web1.folder.rglob("*") if path.is_file() and "pam.d" not in path.parts}
    assert files == {"relay.pem", "otpbridge.toml"}
    assert not web1.state_dir.exists()
    opened = [os.readlink(entry.path) for entry in os.scandir(f"/proc/{web1.pid}/fd")]
    assert not [name for name in opened if name.endswith((".db", ".key", ".pem", "-wal")) or "memfd" in name], opened


def test_what_is_not_verifying_is_refused_with_the_centre_s_name(fleet, web1):
    """Enrolment and administration say where to go, for programs and for people."""
    with web1.client() as otp, pytest.raises(RemoteError) as refused:
        otp.enrol("alice")
    assert refused.value.name == "org.otpbridge.Enroll.AtCentre"
    assert refused.value.parameters == {"centres": [fleet.address]}
    said = otpbridge(web1, "user", "list")
    assert (said.returncode, said.stdout) == (1, "")
    assert f"do this at the centre ({fleet.address})" in said.stderr


def test_status_of_a_relay_and_of_its_centre(fleet, web1):
    """The relay tells which centre is there and when its certificate ends; the centre lists the certificate."""
    web1.wait_for(f"centre {fleet.address} is there")
    said = json.loads(otpbridge(web1, "--json", "status").stdout)
    assert said["host"] == "web1"
    assert [(each["address"], each["reachable"]) for each in said["centres"]] == [(fleet.address, True)]
    assert said["warnings"] == []
    listed = json.loads(otpbridge(fleet.centre, "--json", "relay", "list").stdout)
    (own,) = [each for each in listed if each["serial"] == said["serial"]]
    assert (own["host"], own["expires_at"]) == ("web1", said["expires_at"])
    assert own["connections"] >= 1
    assert "reachable" in otpbridge(web1, "status").stdout
    assert f"a relay of {fleet.address}" in otpbridge(web1, "doctor").stdout
    issue(fleet.centre, "soon", fleet.folder / "soon.pem", "--days", "3")
    warned = otpbridge(fleet.centre, "status").stdout
    assert re.search(r"the relay certificate of soon ends on .*: otpbridge relay issue soon", warned)
    assert "certificate of web1" not in warned


def test_sixty_four_logins_at_once(fleet, web1):
    """All of them are let in, each once."""
    keys = provision(fleet.centre, [f"many{number}" for number in range(64)])
    round_ = Round(list(keys), [key.code() for key in keys.values()])
    assert crowd.over_socket(web1.verify_socket, 64, [round_], crowd.Way.TALK) == [["success"] * 64]


def test_two_relays_with_the_same_code(fleet, web1, web2, someone):
    """One of all attempts with it gets in, whichever relays they come through."""
    user, key = someone
    code, start = key.code(), Barrier(8)

    def attempt(relay):
        with relay.client() as otp:
            otp.call(messages.Account(user=user))
            start.wait(SECONDS)
            return otp.verify(user, code).verdict

    with ThreadPoolExecutor(8) as pool:
        said = list(pool.map(attempt, [web1, web2] * 4))
    assert said.count(Verdict.SUCCESS) == 1, said


# --- who may ask ---


def test_a_host_asks_about_its_own_users_and_stacks_alone(fleet):
    """Anything else is perm_denied, with nothing judged, and stands in the audit log."""
    keys = provision(fleet.centre, ["alice", "mallory"])
    with fleet.relay("narrow") as relay, relay.client() as otp:
        assert otp.verify("mallory", keys["mallory"].code()).verdict is Verdict.PERM_DENIED
        assert otp.verify("alice", CODE, client="acme").verdict is Verdict.PERM_DENIED
        assert otp.verify("alice", keys["alice"].code(), stack="other").verdict is Verdict.PERM_DENIED
        by_service = otp.verify("alice", keys["alice"].code(), context=Context(service="other"))
        assert by_service.verdict is Verdict.PERM_DENIED
        assert otp.call(messages.Account(user="mallory")).verdict is Verdict.PERM_DENIED
        assert otp.begin("mallory").verdict is Verdict.PERM_DENIED
        assert otp.verify("alice", keys["alice"].code())
    rows = [entry for entry in fleet.centre.audit() if entry.host == "narrow"]
    refused = ["user", "client", "stack", "stack", "user", "user"]
    words = {"user": "may not ask about this user", "client": "may not ask about this client", "stack": "this stack"}
    assert [row.verdict for row in rows] == ["perm_denied"] * 6 + ["success"]
    assert all(words[what] in row.reason for what, row in zip(refused, rows, strict=False))


def test_a_host_without_an_entry_is_not_let_in(fleet):
    """A certificate alone opens nothing: the configuration has to name the host."""
    with fleet.relay("stranger") as relay, relay.client() as otp:
        assert otp.verify("alice", CODE).verdict is Verdict.AUTHINFO_UNAVAIL
    fleet.centre.wait_for('no [relays.hosts."stranger"]')


def test_people_on_a_host_ask_about_themselves_alone(fleet, web1):
    """A relay knows its callers as every daemon does, and what people say of their own attempt is not believed."""
    need_root()
    user, other = plain_user(0), plain_user(1).pw_name
    me = user.pw_name
    keys = provision(fleet.centre, [me, other])
    check = "org.otpbridge.Verify.Check"
    about = {"rhost": "203.0.113.5", "service": "sshd"}
    said = act_as.calls(
        web1.verify_socket,
        user,
        [
            (check, {"user": other, "responses": [keys[other].code()]}),
            (check, {"user": "nobody-here", "responses": [CODE], "nullok": True}),
            (check, {"user": me, "responses": [keys[me].code()], "context": about}),
        ],
    )
    assert [each.parameters.get("verdict") for each in said] == ["perm_denied", "perm_denied", "success"]
    rows = [entry for entry in fleet.centre.audit() if entry.user in {me, other} and entry.event == "verify"]
    assert [(row.user, row.rhost, row.uid) for row in rows] == [(me, None, user.pw_uid)]


def test_revoking_ends_connections_at_once(fleet, someone):
    """A login that has its prompt already is not judged any more, and no new connection is let in."""
    user, key = someone
    with fleet.relay("gone", folder=fleet.folder / "revoked") as relay, relay.client() as otp:
        with otp.begin(user) as talk:
            done = json.loads(otpbridge(fleet.centre, "--json", "relay", "revoke", "gone").stdout)
            assert done["closed"] >= 1
            talk.answer(key.code())
            assert talk.verdict is Verdict.AUTHINFO_UNAVAIL
        assert otp.verify(user, key.code()).verdict is Verdict.AUTHINFO_UNAVAIL
    assert verdicts(fleet.centre, user) == []
    fleet.centre.wait_for("of gone is revoked")
    assert otpbridge(fleet.centre, "relay", "revoke", "gone").returncode == 1
    issue(fleet.centre, "gone", fleet.folder / "again.pem")
    with fleet.relay("gone", certificate=fleet.folder / "again.pem", folder=fleet.folder / "again") as relay:
        assert verified(relay, user, key.code())


def test_the_authority_outlives_a_rotation_of_the_master_key():
    """After `key rotate` and a restart the same authority issues, and hosts go on being let in."""
    with private_folder() as folder, Fleet(folder) as fleet:
        key = provision(fleet.centre, ["alice"])["alice"]
        before = issue(fleet.centre, "web1", folder / "before.pem").read_text()
        assert otpbridge(fleet.centre, "key", "rotate").returncode == 0
        assert fleet.centre.stop() == 0
        fleet.centre.start()
        after = issue(fleet.centre, "web1", folder / "after.pem").read_text()
        begin = "-----BEGIN CERTIFICATE-----"
        assert before.split(begin)[2] == after.split(begin)[2]
        assert (folder / "after.pem").stat().st_mode & 0o777 == 0o600
        with fleet.relay("web1", certificate=folder / "before.pem") as relay:
            assert verified(relay, "alice", key.code())


# --- when centres fail ---


def test_an_answer_is_never_sent_twice(fleet, someone):
    """The centre has the code, and its verdict is lost: the login is refused, and the code was judged once."""
    user, key = someone
    with (
        Wire(fleet.port) as line,
        fleet.relay("web1", centres=[line.address, fleet.address], folder=fleet.folder / "lossy") as relay,
    ):
        # Else the other one may be seen first, and is asked.
        relay.wait_for(f"centre {line.address} is there")
        with relay.client() as otp, otp.begin(user) as talk, ThreadPoolExecutor(1) as pool:
            line.hold()
            answering = pool.submit(talk.answer, key.code())
            assert line.asked.wait(SECONDS)
            # Judged, and on its way back.
            with fleet.centre.admin() as admin:
                replies = admin.stream(messages.AuditTail(count=1000, follow=True), timeout=SECONDS)
                next(
                    entry
                    for reply in replies
                    for entry in reply.entries
                    if entry.user == user and entry.event == "verify"
                )
            line.cut()
            answering.result(SECONDS)
            assert talk.verdict is Verdict.AUTHINFO_UNAVAIL
            line.release()
            assert otp.verify(user, key.code(1))
    assert verdicts(fleet.centre, user) == [
        ("success", "code accepted", "web1"),
        ("success", "code accepted", "web1"),
    ]


def test_what_holds_no_answer_is_asked_elsewhere(fleet, someone):
    """A centre that says nothing more is left for the next one, before a code is sent: the person notices nothing."""
    user, key = someone
    with (
        Wire(fleet.port) as line,
        fleet.relay(
            "web1",
            centres=[line.address, fleet.address],
            folder=fleet.folder / "silent",
            settings="timeout = 4\nconnect = 1",
        ) as relay,
        relay.client() as otp,
    ):
        relay.wait_for(f"centre {line.address} is there")
        line.hold()
        with otp.begin(user) as talk:
            talk.answer(key.code())
            assert talk.verdict is Verdict.SUCCESS
        assert otp.call(messages.Account(user=user)).verdict is Verdict.SUCCESS
        assert otp.verify(user, key.code(1))
        status = json.loads(otpbridge(relay, "--json", "status").stdout)
        assert [each["reachable"] for each in status["centres"]] == [False, True]
    assert [verdict for verdict, _, _ in verdicts(fleet.centre, user)] == ["success"] * 2


def test_a_hung_centre_is_a_refusal_within_the_deadline():
    """SIGSTOP at any moment: PAM hears authinfo_unavail; once the centre goes on, so do logins."""
    with private_folder() as folder, Fleet(folder) as fleet:
        key = provision(fleet.centre, ["alice"])["alice"]
        with (
            fleet.relay("web1", settings="timeout = 2\nconnect = 1") as relay,
            relay.client() as otp,
            otp.begin("alice") as talk,
        ):
            fleet.centre.signal(signal.SIGSTOP)
            try:
                talk.answer(key.code())
                assert talk.verdict is Verdict.AUTHINFO_UNAVAIL
                stack = Stack(folder / "pam.d", f"auth required {pammodule.build()} socket={relay.verify_socket}\n")
                assert stack.login("alice", [CODE]).code == PAM_AUTHINFO_UNAVAIL
                assert otp.verify("alice", CODE).verdict is Verdict.AUTHINFO_UNAVAIL
            finally:
                fleet.centre.signal(signal.SIGCONT)
            relay.wait_for(f"centre {fleet.address} is there", 2)
            assert otp.verify("alice", key.code(1))


def test_a_centre_that_is_not_there_is_passed_over(fleet, someone):
    """The first of two centres is down: logins go to the second; with none left they are refused."""
    user, key = someone
    nobody = f"127.0.0.1:{free_port()}"
    with fleet.relay("web1", centres=[nobody, fleet.address], folder=fleet.folder / "first-down") as relay:
        assert verified(relay, user, key.code())
    with fleet.relay("web1", centres=[nobody], folder=fleet.folder / "all-down") as relay:
        assert verified(relay, user, key.code(1)).verdict is Verdict.AUTHINFO_UNAVAIL
        relay.wait_for(f"centre {nobody} is away: Connection refused")


def test_a_centre_of_another_name_is_no_centre(fleet, someone):
    """Where the name that was asked for is not in the certificate, nothing is sent."""
    user, key = someone
    address = f"localhost.localdomain:{fleet.port}"
    with fleet.relay("web1", centres=[address], folder=fleet.folder / "misnamed") as relay:
        assert verified(relay, user, key.code()).verdict is Verdict.AUTHINFO_UNAVAIL
    assert verdicts(fleet.centre, user) == []


def test_a_relay_does_not_start_with_a_key_that_others_can_read(fleet):
    """It says which file, and what to do."""
    relay = fleet.relay("web1", folder=fleet.folder / "open")
    (fleet.folder / "open/relay.pem").chmod(0o644)
    assert "others can read it (mode 0644); chmod 0600" in relay.refused()
    missing = fleet.relay("web1", certificate=fleet.folder / "none.pem", folder=fleet.folder / "none-here")
    assert "otpbridge relay issue HOST" in missing.refused()


def test_a_private_key_need_not_leave_its_host(fleet, someone):
    """A request that openssl made on the host is enough; something else is no request."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    user, key = someone
    home = fleet.folder / "own-key"
    home.mkdir()
    made = [
        "openssl",
        "req",
        "-new",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-noenc",
        "-subj",
        "/CN=x",
    ]
    subprocess.run([*made, "-keyout", home / "relay.key", "-out", home / "csr"], check=True, capture_output=True)
    certificate = issue(fleet.centre, "web1", home / "web1.pem", "--request", os.fspath(home / "csr"))
    assert "PRIVATE KEY" not in certificate.read_text()
    separately = f'key = "{home}/relay.key"'
    with fleet.relay("web1", certificate=certificate, folder=home, settings=separately) as relay:
        assert verified(relay, user, key.code())
    words = ("relay", "issue", "web1", "--request", home / "relay.key", "--out", home / "not-written.pem")
    refused = otpbridge(fleet.centre, *words)
    assert refused.returncode == 2
    assert "not a certificate request" in refused.stderr


def test_the_command_line_makes_a_relay(fleet, someone):
    """`otpbridged --relay host:port` needs no configuration but the certificate's place."""
    user, key = someone
    home = fleet.folder / "by-option"
    home.mkdir()
    issue(fleet.centre, "web1", home / "relay.pem")
    options = ["--run-dir", os.fspath(home / "run"), "--relay", fleet.address]
    relay = Daemon(home, options=options, environment=plain_environment(CREDENTIALS_DIRECTORY=os.fspath(home)))
    with relay:
        assert verified(relay, user, key.code())


# --- certificates of an authority of one's own ---


@pytest.fixture(scope="module")
def ca():
    """The authority."""
    return Ca()


@pytest.fixture(scope="module")
def own(ca):
    """A centre that has its certificate from there, and lets in hosts that have."""
    with private_folder() as folder:
        ca.issue(folder / "centre.pem", "localhost", SERVER)
        (folder / "ca.pem").write_text(ca.pem)
        made = f'authority = "{folder}/ca.pem"\ncertificate = "{folder}/centre.pem"\n[relays.hosts.web1]\n'
        with Fleet(folder, hosts=made) as fleet:
            yield fleet


def relay_of(fleet, certificate, *, name):
    """A relay with this certificate, in a folder of that name."""
    folder = fleet.folder / name
    folder.mkdir()
    address = f"localhost:{fleet.port}"
    return fleet.relay("web1", certificate=certificate, centres=[address], folder=folder)


def test_an_authority_of_ones_own(own, ca):
    """Its hosts are let in, `issue` says where certificates come from, and a serial number can be revoked."""
    key = provision(own.centre, ["alice"])["alice"]
    serial = ca.issue(own.folder / "web1.pem", "web1", CLIENT)
    with relay_of(own, own.folder / "web1.pem", name="good") as relay, relay.client() as otp:
        assert otp.verify("alice", key.code())
        refused = otpbridge(own.centre, "relay", "issue", "web1", "--out", own.folder / "unwritten.pem")
        assert refused.returncode == 1
        assert "an authority of your own" in refused.stderr
        assert not (own.folder / "unwritten.pem").exists()
        done = json.loads(otpbridge(own.centre, "--json", "relay", "revoke", "web1", "--serial", serial).stdout)
        assert done["revoked"] == 1
        assert done["closed"] >= 1
        assert otp.verify("alice", key.code(1)).verdict is Verdict.AUTHINFO_UNAVAIL
    own.centre.wait_for(f"certificate {serial} of web1 is revoked")


@pytest.mark.parametrize(("which", "why"), [("ended", "has expired"), ("foreign", "certificate signature failure")])
def test_certificates_that_are_not_accepted(own, ca, which, why):
    """One that has ended, and one of an authority that only has the name: the centre's log says why."""
    issuer = ca if which == "ended" else Ca()
    path = own.folder / f"{which}.pem"
    issuer.issue(path, "web1", CLIENT, begins=-3, ends=-1 if which == "ended" else 30)
    path.write_text(path.read_text().replace(issuer.pem, ca.pem))
    with relay_of(own, path, name=which) as relay:
        assert verified(relay, "alice", CODE).verdict is Verdict.AUTHINFO_UNAVAIL
        if which == "ended":
            assert "has ended" in otpbridge(relay, "status").stdout
    own.centre.wait_for(why)


def test_a_host_cannot_play_the_centre(ca):
    """A certificate for clients is not taken for that of a centre, whatever name is in it."""
    with private_folder() as folder:
        ca.issue(folder / "stolen.pem", "localhost", CLIENT)
        ca.issue(folder / "web1.pem", "web1", CLIENT)
        (folder / "ca.pem").write_text(ca.pem)
        made = f'authority = "{folder}/ca.pem"\ncertificate = "{folder}/stolen.pem"\n[relays.hosts.web1]\n'
        with Fleet(folder, hosts=made) as fleet:
            key = provision(fleet.centre, ["alice"])["alice"]
            with relay_of(fleet, folder / "web1.pem", name="deceived") as relay:
                assert verified(relay, "alice", key.code()).verdict is Verdict.AUTHINFO_UNAVAIL
                relay.wait_for("its certificate is not accepted: unsuitable certificate purpose")
            assert verdicts(fleet.centre, "alice") == []
