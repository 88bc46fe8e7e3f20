"""Real logins against stacks of a real daemon: what a person sees and types in ssh, su, sudo and login."""

from __future__ import annotations

import base64
import re
import shutil
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pammodule
import pytest
from daemon_rig import SECONDS, Daemon, Key, enrolled, issued, private_folder, provision
from pam_helper import Helper
from pictures import enlarged, framed, plain_pixels, qr_texts
from sshdstack import Machine, need_machine
from terminal import Program

from otpbridge.model import Enforcement, Kind
from otpbridge.wire import messages

pytestmark = pytest.mark.system

PASSWORDS = {"alice": "correct horse 12", "bob": "battery staple", "carol": "tr0ub4dor and 3"}
"""Of the accounts of the machine, and of the users of the stacks that ask for a password themselves."""

KEY_AND_CODE = "AuthenticationMethods publickey,keyboard-interactive\n"
KEY_ALONE = "AuthenticationMethods publickey\n"
PASSWORD = "Password: "
CODE = "Verification code: "
BOTH = "Password & verification code: "
PROOF = "Code that your authenticator shows: "
ASKED = re.compile(f"{PASSWORD}|{CODE}|{BOTH}|{PROOF}")
SHELL = re.compile(r"^\$ ", re.MULTILINE)

ALONE = """
auth required {module}
auth required pam_permit.so
account required {module}
account required pam_permit.so
session required pam_permit.so
"""
"""A service of which otpbridge judges everything."""

PASSWORD_THEN_CODE = """
rules = ["requisite password", "sufficient totp", "required recovery"]
"""
ENROLMENT = """
rules = ["requisite password", "sufficient enrol", "sufficient totp", "required recovery"]
enforcement = "required"
"""


class Person(Program):
    """Somebody at a terminal that shows UTF-8."""

    def __init__(self, *words: str) -> None:
        super().__init__(*words, environment={"LC_ALL": "C.UTF-8", "HOME": "/"})

    def wait_for_one_of(self, pattern: re.Pattern[str]) -> bool:
        """Read until this comes; False if the program ends before."""
        deadline = time.monotonic() + SECONDS
        while (found := pattern.search(self.text, self._seen)) is None:
            if not self._read(deadline):
                return False
        self._seen = found.end()
        return True


@dataclass(frozen=True, slots=True)
class Seen:
    """What a person saw of a login, and whether it let them in."""

    ok: bool
    text: str

    @property
    def asked(self) -> list[str]:
        """The questions, in order."""
        return ASKED.findall(self.text)


@dataclass(frozen=True, slots=True)
class Site:
    """A machine with its daemon."""

    daemon: Daemon
    machine: Machine

    def ssh(self, user: str, *answers: str, key: Path | None = None) -> Seen:
        """Log in with ssh on a terminal, with an answer to each question."""
        return self.converse(self.machine.ssh_command(user, key=key), user, answers, shell=True)

    def become(self, user: str, by: str, *answers: str) -> Seen:
        """Become another user with su."""
        return self.converse(self.machine.inside(["su", user, "-c", "id -un"], by), user, answers)

    def converse(self, words: Sequence[str], user: str, answers: Sequence[str], *, shell: bool = False) -> Seen:
        """Run a program that lets in as this user, and says who one is: of itself, or in the shell that it gives."""
        with Person(*words) as terminal:
            for answer in answers:
                assert terminal.wait_for_one_of(ASKED), f"no question for {answer!r}: {terminal.text!r}"
                terminal.type(answer)
            if shell and terminal.wait_for_one_of(SHELL):
                terminal.type("id -un; exit")
            status = terminal.finish()
        return Seen(status == 0 and re.search(rf"^{user}\r$", terminal.text, re.MULTILINE) is not None, terminal.text)

    def tell(self, *calls: messages.Request) -> None:
        """Do what an admin does."""
        with self.daemon.admin() as admin:
            for call in calls:
                admin.call(call)

    def set_passwords(self) -> None:
        """Give the users their passwords for the verifier `password`."""
        self.tell(*(messages.SetPassword(user=user, password=text) for user, text in PASSWORDS.items()))

    def require(self, *users: str) -> None:
        """Make a second factor required, whether or not they have one."""
        self.tell(
            *(messages.SetEnforcement(user=user, enforcement=Enforcement.REQUIRED, force=True) for user in users)
        )

    def reasons(self, event: str = "verify") -> list[str | None]:
        """Why the daemon said what it said, attempt by attempt."""
        return [entry.reason for entry in self.daemon.audit() if entry.event == event]


Opener = Callable[..., Site]


@pytest.fixture
def folder() -> Iterator[Path]:
    need_machine()
    with private_folder() as path:
        yield path


@pytest.fixture
def opened(folder: Path) -> Iterator[Opener]:
    """Opens a site: the daemon's configuration, sshd's, and PAM services by name (`{module}` is ours)."""
    with ExitStack() as stack:

        def start(
            config: str = "", sshd: str = "", sudoers: str = "", services: Mapping[str, str] | None = None
        ) -> Site:
            daemon = stack.enter_context(Daemon(folder, config=config))
            files = {
                name: text.format(module=pammodule.build()) for name, text in (services or {"sshd": ALONE}).items()
            }
            place = folder / "machine"
            place.mkdir()
            methods = sshd or "AuthenticationMethods keyboard-interactive\n"
            machine = Machine(place, files, PASSWORDS, sshd=methods, sudoers=sudoers, run_dir=daemon.run_dir)
            return Site(daemon, stack.enter_context(machine))

        yield start


# --- what is asked ---


def test_one_stack_asks_for_password_and_code(opened: Opener):
    """Both right: in. A wrong password ends it before the code; a wrong code is refused, and each counts as one."""
    site = opened(f"[stacks.sshd]\n{PASSWORD_THEN_CODE}")
    site.set_passwords()
    key = provision(site.daemon, ["alice"])["alice"]
    site.require("alice")
    right = site.ssh("alice", PASSWORDS["alice"], key.code())
    assert (right.ok, right.asked) == (True, [PASSWORD, CODE]), (right, site.machine.log)
    assert site.daemon.show("alice").misses == 0
    wrong = site.ssh("alice", PASSWORDS["bob"])
    assert (wrong.ok, wrong.asked) == (False, [PASSWORD])
    refused = site.ssh("alice", PASSWORDS["alice"], key.wrong()[0])
    assert (refused.ok, refused.asked) == (False, [PASSWORD, CODE])
    assert site.daemon.show("alice").misses == 2
    assert PASSWORDS["alice"] not in site.machine.log + site.daemon.log


@dataclass(frozen=True, slots=True)
class _Inside:
    """Runs the helper in the machine, where its accounts are."""

    machine: Machine

    def inside(self, *words: object) -> list[str]:
        return self.machine.inside([str(word) for word in words])


def test_the_helper_checks_the_system_password_for_the_stack(opened: Opener, folder: Path):
    """`pam` with its helper: what is in /etc/shadow opens and nothing else, and without the helper nothing does."""
    if shutil.which("systemd-socket-activate") is None:
        pytest.skip("systemd-socket-activate is not installed")
    path = folder / "helper"
    site = opened(
        f'[stacks.sshd]\nrules = ["requisite pam helper={path}", "sufficient totp", "required recovery"]\n',
        services={
            "sshd": ALONE,
            "otpbridge-password": "auth required pam_unix.so nodelay\naccount required pam_unix.so\n",
        },
    )
    key = provision(site.daemon, ["bob"])["bob"]
    site.require("bob")
    with Helper(_Inside(site.machine), path, "--service", "otpbridge-password", "--user", "root"):  # type: ignore[arg-type] # all it uses
        assert not site.ssh("bob", PASSWORDS["alice"]).ok
        right = site.ssh("bob", PASSWORDS["bob"], key.code())
        assert (right.ok, right.asked) == (True, [PASSWORD, CODE]), (right, site.machine.log)
    gone = site.ssh("bob", PASSWORDS["bob"])
    assert (gone.ok, gone.asked) == (False, [PASSWORD])


def test_the_service_chooses_the_stack_and_the_pam_line_before_it(opened: Opener):
    """sshd and su each have the stack of their name; sudo has the one that its PAM line names."""
    if shutil.which("sudo") is None:
        pytest.skip("sudo is not installed")
    site = opened(
        f"""
        [stacks.sshd]
        rules = ["required totp"]
        [stacks.su]
        {PASSWORD_THEN_CODE}
        [stacks.sudo]
        rules = ["required deny"]
        [stacks.keys-only]
        rules = ["required yubiotp"]
        """,
        services={"sshd": ALONE, "su": ALONE, "sudo": ALONE.replace("{module}", "{module} stack=keys-only")},
        sudoers="Defaults !lecture, passwd_tries=1\nalice ALL=(ALL:ALL) ALL\n",
    )
    site.set_passwords()
    key = provision(site.daemon, ["alice"])["alice"]
    _, yubikey = enrolled(site.daemon, "alice", Kind.YUBIOTP)
    site.require("alice")
    assert site.ssh("alice", key.code()).asked == [CODE]
    became = site.become("alice", "bob", PASSWORDS["alice"], key.code(1))
    assert (became.ok, became.asked) == (True, [PASSWORD, CODE]), (became, site.machine.log)
    run = site.machine.inside(["sudo", "-k", "id", "-un"], "alice")
    right = site.converse(run, "root", [yubikey.code()])
    assert (right.ok, right.asked) == (True, [CODE]), (right, site.machine.log)
    assert not site.converse(run, "root", [Key().code()]).ok


# --- other codes than those of an app ---


def test_a_recovery_code_lets_in_and_says_how_many_are_left(opened: Opener):
    """Behind the system's password; once. The person sees what is left, and who is refused sees nothing of it."""
    unix = "auth requisite pam_unix.so nodelay\n"
    site = opened(services={"sshd": unix + ALONE})
    key = provision(site.daemon, ["alice"])["alice"]
    with site.daemon.admin() as admin:
        _, paper = issued(admin, "alice", Kind.RECOVERY)
    site.require("alice")
    by_paper = site.ssh("alice", PASSWORDS["alice"], paper.code().lower())
    assert (by_paper.ok, by_paper.asked) == (True, [PASSWORD, CODE]), (by_paper, site.machine.log)
    assert "This recovery code is used up. 9 recovery codes are left." in by_paper.text
    again = site.ssh("alice", PASSWORDS["alice"], paper.code())
    assert not again.ok
    assert "left" not in again.text
    assert site.ssh("alice", PASSWORDS["alice"], key.code()).ok


def test_a_registration_code_of_the_helpdesk_lets_in_once(opened: Opener):
    """Behind a key, for a required user who has no authenticator; then they are told to set one up."""
    site = opened(sshd=KEY_AND_CODE)
    with site.daemon.admin() as admin:
        _, spoken = issued(admin, "carol", Kind.REGISTRATION)
    key = site.machine.make_key("carol")
    assert not site.ssh("carol", "123456", key=key).ok
    right = site.ssh("carol", spoken.code(), key=key)
    assert (right.ok, right.asked) == (True, [CODE]), (right, site.machine.log)
    assert "Set up an authenticator now: otpbridge enroll totp" in right.text
    assert not site.ssh("carol", spoken.code(), key=key).ok


def test_what_a_yubikey_types_lets_in_once(opened: Opener):
    """Behind a key: a touch is a login; the same again, and an older one, are not."""
    site = opened(sshd=KEY_AND_CODE)
    _, yubikey = enrolled(site.daemon, "alice", Kind.YUBIOTP)
    site.require("alice")
    key = site.machine.make_key("alice")
    older, touch = yubikey.code(), yubikey.code(1)
    assert site.ssh("alice", touch, key=key).ok, site.machine.log
    assert not site.ssh("alice", touch, key=key).ok
    assert not site.ssh("alice", older, key=key).ok
    assert site.ssh("alice", yubikey.code(2), key=key).ok


@pytest.mark.parametrize("order", ["password first", "code first"])
def test_one_field_takes_both_and_leaves_pam_unix_the_password(opened: Opener, order: str):
    """An app's code or a YubiKey's, at either end of a password that has digits too; both must be right."""
    one_field = "auth requisite {module} forward_pass\nauth required pam_unix.so use_first_pass nodelay\n"
    site = opened(services={"sshd": one_field + ALONE.partition("auth required pam_permit.so\n")[2]})
    key = provision(site.daemon, ["alice"])["alice"]
    _, yubikey = enrolled(site.daemon, "alice", Kind.YUBIOTP)
    site.require("alice")

    def typed(password: str, code: str) -> str:
        return password + code if order == "password first" else code + password

    right = site.ssh("alice", typed(PASSWORDS["alice"], key.code()))
    assert (right.ok, right.asked) == (True, [BOTH]), (right, site.machine.log)
    assert site.ssh("alice", typed(PASSWORDS["alice"], yubikey.code())).ok, site.machine.log
    assert not site.ssh("alice", typed(PASSWORDS["alice"], key.wrong()[0])).ok
    assert not site.ssh("alice", typed(PASSWORDS["bob"], key.code(1))).ok
    assert not site.ssh("alice", PASSWORDS["alice"]).ok


# --- setting an authenticator up while logging in ---


def codes_in(text: str) -> list[str]:
    """What a camera reads on a dark screen."""
    lines = text.replace("\r\n", "\n").splitlines()
    drawn = [line for line in lines if "\u2588" in line and set(line) <= set("\u2588\u2580\u2584 ")]
    return qr_texts(framed(enlarged(plain_pixels("\n".join(drawn), 255, 0), 3), 0, 30)) if drawn else []


def key_below(text: str) -> str:
    """The key that stands below the picture, to be typed."""
    return re.findall(r"^ {4}((?:[A-Z2-7]{4} ?)+)\r$", text, re.MULTILINE)[-1].replace(" ", "")


def phone(key: str) -> Key:
    """An app that has this key."""
    return Key(seed=base64.b32decode(key + "=" * (-len(key) % 8)), period=30)


@pytest.mark.parametrize("program", ["ssh", "login"])
def test_an_authenticator_is_set_up_while_logging_in(opened: Opener, program: str):
    """Password, picture and key; a wrong code corrected, a right one lets in. The next login asks for a code."""
    if shutil.which(program) is None:
        pytest.skip(f"{program} is not installed")
    service = {"ssh": "sshd"}.get(program, program)
    site = opened(f"[stacks.{service}]\n{ENROLMENT}", services={"sshd": ALONE, "login": ALONE})
    site.set_passwords()
    words = {
        "ssh": site.machine.ssh_command("carol"),
        "login": site.machine.inside(["login", "carol"]),
    }[program]
    with Person(*words) as terminal:
        terminal.wait_for(PASSWORD)
        terminal.type(PASSWORDS["carol"])
        screen = terminal.wait_for(PROOF)
        (uri,) = codes_in(screen)
        key = key_below(screen)
        assert parse_qs(urlsplit(uri).query)["secret"] == [key]
        app = phone(key)
        terminal.type(app.wrong()[0])
        assert "That code does not match." in terminal.wait_for(PROOF)
        begun = time.time()
        terminal.type(app.code())
        terminal.wait_for("Your authenticator is set up.")
        terminal.wait_for("$ ")
        terminal.type("echo I am $(id -un); exit")
        terminal.wait_for("I am carol\r\n")
        terminal.finish()
    with Person(*words) as terminal:
        terminal.wait_for(PASSWORD)
        terminal.type(PASSWORDS["carol"])
        assert not codes_in(terminal.wait_for(CODE))
        terminal.type(app.code(1 - (int(time.time()) // 30 - int(begun) // 30)))  # the one after the first
        terminal.wait_for("$ ")
        terminal.type("exit")
        terminal.finish()
    assert [entry.reason for entry in site.daemon.audit() if entry.event == "token confirmed"] == [
        "enrolled at login"
    ]


def test_nobody_sets_one_up_without_the_password(opened: Opener):
    """A wrong password shows no key, and one that was shown to somebody who left is worth nothing."""
    site = opened(f"[stacks.sshd]\n{ENROLMENT}")
    site.set_passwords()
    wrong = site.ssh("carol", PASSWORDS["alice"])
    assert (wrong.ok, wrong.asked) == (False, [PASSWORD])
    with Person(*site.machine.ssh_command("carol")) as terminal:
        terminal.wait_for(PASSWORD)
        terminal.type(PASSWORDS["carol"])
        left = phone(key_below(terminal.wait_for(PROOF)))
    with site.daemon.client() as client:
        assert client.tokens("carol").tokens[0].kind is Kind.PASSWORD
    with Person(*site.machine.ssh_command("carol")) as terminal:
        terminal.wait_for(PASSWORD)
        terminal.type(PASSWORDS["carol"])
        assert phone(key_below(terminal.wait_for(PROOF))) != left
        terminal.type(left.code())
        assert "That code does not match." in terminal.wait_for(PROOF)


def test_where_nothing_can_be_drawn_the_key_is_shown_alone(opened: Opener):
    """A login screen gets no block characters. sudo stands for one here, under the name of its service."""
    if shutil.which("sudo") is None:
        pytest.skip("sudo is not installed")
    site = opened(
        f"[stacks.lightdm]\n{ENROLMENT}",
        services={"sshd": ALONE, "lightdm": ALONE},
        sudoers="Defaults !lecture, passwd_tries=1, pam_service=lightdm\ncarol ALL=(ALL:ALL) ALL\n",
    )
    site.set_passwords()
    run = site.machine.inside(["sudo", "-k", "id", "-un"], "carol")
    with Person(*run) as terminal:
        terminal.wait_for("[sudo] password for carol: ")  # sudo's own words
        terminal.type(PASSWORDS["carol"])
        screen = terminal.wait_for(PROOF)
        assert "\u2588" not in screen
        terminal.type(phone(key_below(screen)).code())
        terminal.wait_for("root\r\n")
        assert terminal.finish() == 0


# --- who is not asked ---


def test_a_key_alone_meets_locks_exemptions_and_enforcement(opened: Opener):
    """sshd asks nothing, and the account phase still decides: each change counts at the next login."""
    site = opened(sshd=KEY_ALONE)
    key = site.machine.make_key("alice")
    site.tell(messages.AddUser(user="alice"))
    site.require("alice")
    assert not site.ssh("alice", key=key).ok
    site.tell(messages.ExemptUser(user="alice", seconds=7200, reason="phone at the repair shop"))
    assert site.ssh("alice", key=key).ok, site.machine.log
    site.tell(messages.ExemptUser(user="alice", seconds=0))
    assert not site.ssh("alice", key=key).ok
    provision(site.daemon, ["alice"])
    assert site.ssh("alice", key=key).ok
    site.tell(messages.LockUser(user="alice", reason="left the company"))
    assert not site.ssh("alice", key=key).ok
    site.tell(messages.UnlockUser(user="alice"))
    assert site.ssh("alice", key=key).ok
    assert site.reasons("account") == [
        "required, no authenticator",
        "exempt for a time",
        "required, no authenticator",
        "has an authenticator",
        "user is locked",
        "has an authenticator",
    ]


def test_a_key_that_went_past_the_code_can_be_turned_away(opened: Opener):
    """`account = "verified"`: where sshd asked for no code by mistake, who should have shown one is refused."""
    site = opened('[policy]\naccount = "verified"\n', sshd=f"{KEY_AND_CODE}Match User bob\n    {KEY_ALONE}")
    keys = provision(site.daemon, ["alice", "bob"])
    site.require("alice", "bob")
    alice, bob = site.machine.make_key("alice"), site.machine.make_key("bob")
    assert site.ssh("alice", keys["alice"].code(), key=alice).ok, site.machine.log
    assert not site.ssh("bob", key=bob).ok
    site.machine.wait_for("Access denied for user bob by PAM account configuration")
    assert site.reasons("account") == ["has just shown a second factor", "no second factor was shown just before"]


def test_grace_spares_the_second_login_of_one_service(opened: Opener):
    """From the same address ssh asks once; su asks, though the same person did just show a code."""
    site = opened("[policy]\ngrace = 3600\n", sshd=KEY_AND_CODE, services={"sshd": ALONE, "su": ALONE})
    codes = provision(site.daemon, ["alice"])["alice"]
    site.require("alice")
    key = site.machine.make_key("alice")
    first = site.ssh("alice", codes.code(), key=key)
    assert (first.ok, first.asked) == (True, [CODE]), (first, site.machine.log)
    second = site.ssh("alice", key=key)
    assert (second.ok, second.asked) == (True, []), (second, site.machine.log)
    elsewhere = site.become("alice", "bob", codes.code(1))
    assert (elsewhere.ok, elsewhere.asked) == (True, [CODE])


def test_from_a_trusted_network_the_password_is_enough(opened: Opener):
    """It is still asked for. Without an address, in su, the code is as well."""
    site = opened(
        f'[policy]\ntrusted_networks = ["127.0.0.0/8"]\n[stacks.default]\n{PASSWORD_THEN_CODE}',
        services={"sshd": ALONE, "su": ALONE},
    )
    site.set_passwords()
    codes = provision(site.daemon, ["alice"])["alice"]
    site.require("alice")
    near = site.ssh("alice", PASSWORDS["alice"])
    assert (near.ok, near.asked) == (True, [PASSWORD]), (near, site.machine.log)
    assert not site.ssh("alice", PASSWORDS["bob"]).ok
    here = site.become("alice", "bob", PASSWORDS["alice"], codes.code())
    assert (here.ok, here.asked) == (True, [PASSWORD, CODE]), (here, site.machine.log)


# --- what people are told, and what goes wrong ---


def test_who_was_reset_is_told_at_the_next_login(opened: Opener):
    """In by the key alone, once with the message and then without it."""
    site = opened(sshd=KEY_AND_CODE)
    provision(site.daemon, ["alice"])
    site.require("alice")
    key = site.machine.make_key("alice")
    site.tell(messages.ResetUser(user="alice"))
    told = site.ssh("alice", key=key)
    assert (told.ok, told.asked) == (True, []), (told, site.machine.log)
    assert "Your second factor was reset by an administrator." in told.text
    later = site.ssh("alice", key=key)
    assert later.ok
    assert "reset" not in later.text


@pytest.mark.parametrize("fate", ["stopped", "hung"])
def test_a_daemon_that_goes_between_two_questions_refuses(opened: Opener, fate: str):
    """Password taken, daemon gone: refused within the module's time, whatever is answered; the log has the reason."""
    slow = ALONE.replace("{module}", "{module} timeout=2")
    site = opened(f"[stacks.sshd]\n{PASSWORD_THEN_CODE}", services={"sshd": slow})
    site.set_passwords()
    codes = provision(site.daemon, ["alice"])["alice"]
    site.require("alice")
    with Person(*site.machine.ssh_command("alice")) as terminal:
        terminal.wait_for(PASSWORD)
        terminal.type(PASSWORDS["alice"])
        terminal.wait_for(CODE)
        if fate == "stopped":
            site.daemon.stop()
        else:
            site.daemon.signal(signal.SIGSTOP)
        terminal.type(codes.code())
        assert terminal.finish() != 0
    site.machine.wait_for({"stopped": "closed the connection", "hung": "did not answer in time"}[fate])
    if fate == "stopped":
        site.daemon.start()
    else:
        site.daemon.signal(signal.SIGCONT)
    assert site.ssh("alice", PASSWORDS["alice"], codes.code(1)).ok
