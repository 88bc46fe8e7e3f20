"""Real logins: Debian's sshd, su and sudo with the lines that the documentation gives."""

from __future__ import annotations

import pwd
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pammodule
import pytest
import sshdstack
from daemon_rig import Daemon, private_folder, provision
from sshdstack import Machine, need_machine

from otpbridge.model import Enforcement, Verdict
from otpbridge.wire import messages

pytestmark = pytest.mark.system

PASSWORDS = {"alice": "correct horse", "bob": "battery staple", "carol": "tr0ub4dor"}
PASSWORD_AND_CODE = "AuthenticationMethods keyboard-interactive\n"
KEY_AND_CODE = "AuthenticationMethods publickey,keyboard-interactive\n"
CODE = "Verification code: "
PASSWORD = "Password: "


@pytest.fixture
def folder():
    need_machine()
    with private_folder() as path:
        yield path


@pytest.fixture
def daemon(folder):
    with Daemon(folder) as rig:
        yield rig


@pytest.fixture
def keys(daemon):
    """Alice and Bob have tokens and must show them; Carol has none."""
    found = provision(daemon, ["alice", "bob"])
    with daemon.admin() as admin:
        for user in found:
            admin.call(messages.SetEnforcement(user=user, enforcement=Enforcement.REQUIRED))
    return found


def lines(*, password=True):
    """A PAM service as docs/admin.md has it."""
    module = pammodule.build()
    first = "@include common-auth\n" if password else ""
    last = "" if password else "auth required pam_permit.so\n"
    return (
        f"{first}auth required {module}\n{last}"
        f"@include common-account\naccount required {module}\n@include common-session\n"
    )


@pytest.fixture
def machine(daemon):
    """A machine whose sshd asks for password and code."""
    place = daemon.folder / "machine"
    place.mkdir()
    with Machine(place, {"sshd": lines()}, PASSWORDS, sshd=PASSWORD_AND_CODE, run_dir=daemon.run_dir) as made:
        yield made


@pytest.fixture
def key_machine(daemon):
    """A machine whose sshd asks for a key and a code."""
    place = daemon.folder / "machine"
    place.mkdir()
    with Machine(
        place, {"sshd": lines(password=False)}, PASSWORDS, sshd=KEY_AND_CODE, run_dir=daemon.run_dir
    ) as made:
        yield made


def verdicts(daemon):
    return [(entry.user, entry.verdict) for entry in daemon.audit() if entry.event == "verify"]


def opened(daemon, name):
    """How many connections there were to one of its sockets."""
    with daemon.admin() as admin:
        families = [family for reply in admin.stream(messages.Read()) for family in reply.families]
    (counted,) = (family for family in families if family.name == "otpbridge_connections_opened_total")
    return sum(series.value for series in counted.series if name in series.labels)


def test_password_and_code_let_in_and_once(machine, daemon, keys):
    """sshd asks for the password, then for the code; both right: in. The same code again: refused."""
    code = keys["alice"].code()
    login = machine.ssh("alice", [PASSWORDS["alice"], code])
    assert login.ok, (login, machine.log)
    assert login.output == "alice\n"
    assert list(login.prompts) == [PASSWORD, CODE]
    again = machine.ssh("alice", [PASSWORDS["alice"], code])
    assert not again.ok
    assert list(again.prompts) == [PASSWORD, CODE]
    assert machine.ssh("alice", [PASSWORDS["alice"], keys["alice"].code(1)]).ok
    assert verdicts(daemon) == [("alice", "success"), ("alice", "auth_err"), ("alice", "success")]
    row = next(entry for entry in daemon.audit() if entry.event == "verify")
    assert (row.service, row.rhost, row.uid) == ("sshd", "127.0.0.1", 0)
    assert opened(daemon, "verify") == 0


def test_a_wrong_code_or_no_code_is_refused(machine, keys):
    """The right password alone opens nothing."""
    for answer in (keys["alice"].wrong()[0], "", keys["bob"].code(), PASSWORDS["alice"], "x" * 600):
        login = machine.ssh("alice", [PASSWORDS["alice"], answer])
        assert not login.ok
        assert login.output == ""
    assert PASSWORDS["alice"] not in machine.log


def test_a_wrong_password_ends_before_the_code(machine, daemon, keys):
    """The code is neither asked for nor spent: who does not know the password cannot make the owner wait."""
    login = machine.ssh("alice", ["wrong", keys["alice"].code()])
    assert not login.ok
    assert list(login.prompts) == [PASSWORD]
    assert verdicts(daemon) == []
    assert machine.ssh("alice", [PASSWORDS["alice"], keys["alice"].code()]).ok


def test_while_codes_are_not_judged_sshd_asks_for_no_password_instead(daemon, keys, monkeypatch):
    """On the connection that is told to wait, sshd offers neither its own password method nor another prompt."""
    both = sshdstack.SSHD.replace("PasswordAuthentication no", "PasswordAuthentication yes")
    monkeypatch.setattr(sshdstack, "SSHD", both)
    place = daemon.folder / "machine"
    place.mkdir()
    daemon.configure("[policy]\nfirst_wait = 300\n")
    daemon.reload()
    with daemon.client() as client:
        while client.verify("alice", keys["alice"].wrong()[0]).verdict is not Verdict.MAXTRIES:
            pass
    with Machine(place, {"sshd": lines()}, PASSWORDS, sshd="", run_dir=daemon.run_dir) as machine:
        login = machine.ssh("alice", [PASSWORDS["alice"], keys["alice"].code(), PASSWORDS["alice"]])
    assert not login.ok
    assert list(login.prompts) == [PASSWORD, CODE]
    assert "Permission denied (publickey)" in login.errors


def test_without_the_daemon_nobody_gets_in_and_the_log_says_why(machine, daemon, keys):
    """The daemon stopped: refused at once, not after a time-out, with the reason in the log; back when it is back."""
    daemon.stop()
    login = machine.ssh("alice", [PASSWORDS["alice"], keys["alice"].code()])
    assert not login.ok
    # pam_unix and sshd take their own time after a failure; the module's time-out would be far longer.
    assert login.seconds < 10
    machine.wait_for("the socket does not exist")
    daemon.start()
    assert machine.ssh("alice", [PASSWORDS["alice"], keys["alice"].code()]).ok


def test_the_daemon_killed_is_like_the_daemon_stopped(machine, daemon, keys):
    """A socket that nobody serves is refused as fast, with a reason of its own."""
    daemon.kill()
    login = machine.ssh("alice", [PASSWORDS["alice"], keys["alice"].code()])
    assert not login.ok
    assert login.seconds < 10
    machine.wait_for("nobody listens")
    daemon.start()


def test_who_need_not_show_a_code_is_not_asked(machine, daemon, keys):
    """In the store, optional, without a token: the password is enough. Not in the store: asked and refused."""
    with daemon.admin() as admin:
        admin.call(messages.AddUser(user="carol"))
    login = machine.ssh("carol", [PASSWORDS["carol"]])
    assert login.ok, machine.log
    assert list(login.prompts) == [PASSWORD]
    with daemon.admin() as admin:
        admin.call(messages.RemoveUser(user="carol"))
    login = machine.ssh("carol", [PASSWORDS["carol"], "123456"])
    assert not login.ok
    assert list(login.prompts) == [PASSWORD, CODE]


def test_who_may_leave_the_code_out_leaves_it_empty(key_machine, daemon, keys):
    """Optional with a token: an empty answer passes on to what else the stack asks, a wrong code is refused."""
    with daemon.admin() as admin:
        admin.call(messages.SetEnforcement(user="alice", enforcement=Enforcement.OPTIONAL))
    key = key_machine.make_key("alice")
    assert key_machine.ssh("alice", [""], key=key).ok
    assert not key_machine.ssh("alice", [keys["alice"].wrong()[0]], key=key).ok


def test_a_code_is_required_of_whom_it_is_required(machine, daemon, keys):
    """Required without a token: asked like everyone, and refused whatever is answered."""
    with daemon.admin() as admin:
        admin.call(messages.AddUser(user="carol"))
        admin.call(messages.SetEnforcement(user="carol", enforcement=Enforcement.REQUIRED, force=True))
    for answer in ("123456", ""):
        login = machine.ssh("carol", [PASSWORDS["carol"], answer])
        assert not login.ok
        assert list(login.prompts) == [PASSWORD, CODE]


def test_accounts_that_do_not_exist_are_asked_like_others(machine, keys):
    """sshd and the stack ask a made-up name for its password; there is nothing to tell it by."""
    login = machine.ssh("nobody-of-that-name", ["guess", "123456"])
    assert not login.ok
    assert login.prompts[0] == PASSWORD


def test_key_and_code_let_in_and_once(key_machine, daemon, keys):
    """With a key sshd asks for the code alone; right: in, the same again: refused."""
    key = key_machine.make_key("alice")
    code = keys["alice"].code()
    login = key_machine.ssh("alice", [code], key=key)
    assert login.ok, (login, key_machine.log)
    assert (login.output, list(login.prompts)) == ("alice\n", [CODE])
    assert not key_machine.ssh("alice", [code], key=key).ok
    assert not key_machine.ssh("alice", [keys["alice"].wrong()[0]], key=key).ok
    assert key_machine.ssh("alice", [keys["alice"].code(1)], key=key).ok
    assert [verdict for _, verdict in verdicts(daemon)] == ["success", "auth_err", "auth_err", "success"]


def test_neither_key_nor_code_is_enough_alone(key_machine, daemon, keys):
    """Without the key nothing is asked; with another's key neither; with a key and no code the door stays shut."""
    alice, bob = key_machine.make_key("alice"), key_machine.make_key("bob")
    for key in (None, bob):
        login = key_machine.ssh("alice", [keys["alice"].code()], key=key)
        assert not login.ok
        assert list(login.prompts) == []
    login = key_machine.ssh("alice", [""], key=alice)
    assert not login.ok
    login = key_machine.ssh("alice", [], key=alice, PreferredAuthentications="publickey")
    assert not login.ok
    assert "success" not in dict(verdicts(daemon)).values()


def test_without_the_daemon_a_key_is_not_enough(key_machine, daemon, keys):
    """The daemon stopped: who has the key is refused as well."""
    key = key_machine.make_key("alice")
    daemon.stop()
    assert not key_machine.ssh("alice", [keys["alice"].code()], key=key).ok
    daemon.start()
    assert key_machine.ssh("alice", [keys["alice"].code()], key=key).ok


def test_with_a_key_alone_the_account_phase_still_asks_the_daemon(daemon, keys):
    """Where sshd asks for a key only, the account line refuses who is not in the store, or when nobody can say."""
    place = daemon.folder / "machine"
    place.mkdir()
    only_key = "AuthenticationMethods publickey\n"
    with Machine(place, {"sshd": lines()}, PASSWORDS, sshd=only_key, run_dir=daemon.run_dir) as machine:
        alice, carol = machine.make_key("alice"), machine.make_key("carol")
        assert machine.ssh("alice", key=alice).ok, machine.log
        assert not machine.ssh("carol", key=carol).ok
        daemon.stop()
        assert not machine.ssh("alice", key=alice).ok
        daemon.start()


def test_many_people_log_in_at_once(machine, daemon, keys):
    """Logins of different people do not stand in each other's way."""
    people = ["alice", "bob"]
    with ThreadPoolExecutor(len(people)) as pool:
        logins = list(pool.map(lambda who: machine.ssh(who, [PASSWORDS[who], keys[who].code()]), people))
    assert [login.output for login in logins] == ["alice\n", "bob\n"]


SU = "auth sufficient pam_rootok.so\n"
SUDOERS = "Defaults !use_pty, !lecture, passwd_tries=1\nalice ALL=(ALL:ALL) ALL\n"


@pytest.fixture
def shell_machine(daemon):
    """A machine whose su and sudo ask for password and code."""
    place = daemon.folder / "machine"
    place.mkdir()
    services = {"sshd": lines(), "su": SU + lines(), "sudo": lines()}
    with Machine(place, services, PASSWORDS, sudoers=SUDOERS, run_dir=daemon.run_dir) as made:
        yield made


def test_su_asks_for_the_code_of_whom_one_becomes(shell_machine, daemon, keys):
    """Alice becomes Bob with Bob's password and Bob's code; hers does not do, nor does his a second time."""
    become = ["su", "bob", "-c", "id -un"]
    code = keys["bob"].code()
    wrong = shell_machine.run_as("alice", become, [PASSWORDS["bob"], keys["alice"].code()])
    assert not wrong.ok
    right = shell_machine.run_as("alice", become, [PASSWORDS["bob"], code])
    assert (right.status, right.output) == (0, "bob\n"), (right, shell_machine.log)
    again = shell_machine.run_as("alice", become, [PASSWORDS["bob"], code])
    assert not again.ok
    assert again.output == ""
    row = [entry for entry in daemon.audit() if entry.event == "verify"][-1]
    assert (row.user, row.service, row.reason, row.uid) == ("bob", "su", "code already used", 0)
    assert opened(daemon, "verify") == 0


def test_sudo_asks_for_ones_own_code(shell_machine, daemon, keys):
    """Alice runs a command as root with her password and her code, each time a new one."""
    if shutil.which("sudo") is None:
        pytest.skip("sudo is not installed")
    run = ["sudo", "-S", "-k", "-p", "", "id", "-un"]
    code = keys["alice"].code()
    right = shell_machine.run_as("alice", run, [PASSWORDS["alice"], code])
    assert (right.status, right.output) == (0, "root\n"), (right, shell_machine.log)
    for answers in ([PASSWORDS["alice"], code], [PASSWORDS["alice"]], [code]):
        refused = shell_machine.run_as("alice", run, answers)
        assert (refused.ok, refused.output) == (False, "")
    daemon.stop()
    assert not shell_machine.run_as("alice", run, [PASSWORDS["alice"], keys["alice"].code(1)]).ok
    daemon.start()
    other = shell_machine.run_as("bob", run, [PASSWORDS["bob"], keys["bob"].code()])
    assert not other.ok, "who is not in sudoers is not let in by a code"
    assert opened(daemon, "verify") == 0


def test_nothing_of_this_machine_is_changed(daemon, keys):
    """The accounts exist inside alone; files and mounts outside are what they were."""
    watched = [Path("/etc/passwd"), Path("/etc/shadow"), Path("/etc/group"), *Path("/etc/pam.d").iterdir()]
    before = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in watched}
    mounts = Path("/proc/self/mounts").read_text()
    place = daemon.folder / "machine"
    place.mkdir()
    with Machine(place, {"sshd": lines()}, PASSWORDS, sshd=PASSWORD_AND_CODE, run_dir=daemon.run_dir) as machine:
        assert machine.ssh("alice", [PASSWORDS["alice"], keys["alice"].code()]).ok
        assert "alice" not in {entry.pw_name for entry in pwd.getpwall()}
        assert Path("/proc/self/mounts").read_text() == mounts
    assert {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in watched} == before
