"""The root helper that checks Linux passwords: started by a service manager, with pam_unix and real accounts."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from daemon_rig import private_folder
from pam_accounts import System, need_system
from pam_helper import Helper, spoken

from otpbridge.errors import UnavailableError
from otpbridge.helper import exchange
from otpbridge.helper.exchange import ask
from otpbridge.model import Verdict

pytestmark = pytest.mark.system

SERVICE = (Path(__file__).resolve().parents[2] / "systemd/pam.d/otpbridge-password").read_text()
PASSWORDS = {"alice": "correct horse", "bob": "schlüssel ☂", "carol": "ended long ago"}
NOTHING = (b"", "ConnectionResetError")
REFUSING = "auth required pam_deny.so\naccount required pam_permit.so\n"


@pytest.fixture(scope="module")
def system():
    need_system()
    with private_folder() as folder:
        services = {
            # As shipped, without the seconds that a failure takes.
            "otpbridge-password": SERVICE.replace("pam_unix.so", "pam_unix.so nodelay"),
            "refusing": REFUSING,
            "broken": "auth required pam_unix.so nodelay\naccount required pam_no_such_module.so\n",
            "hanging": "auth required pam_exec.so quiet /bin/sleep 5\n",
        }
        made = System(folder, services, PASSWORDS)
        made.expire("carol")
        yield made


@pytest.fixture
def helper(system, tmp_path_factory):
    """Starts a helper whose only caller is `user`."""
    if shutil.which("systemd-socket-activate") is None:
        pytest.skip("systemd-socket-activate is not installed")
    with private_folder() as folder:
        started = []

        def start(*, user="root", service="otpbridge-password", more=()):
            made = Helper(system, folder / "s", "--service", service, "--user", user, *more)
            started.append(made.__enter__())
            (folder / "s").chmod(0o666)
            return made

        yield start
        for made in started:
            made.__exit__()


def checked(system, *asked, service="otpbridge-password", prefix=()):
    """What PamService says of each (user, password) on that system."""
    script = (
        "import json, sys\n"
        "from otpbridge.errors import ConfigError\n"
        "from otpbridge.helper.service import PamService\n"
        "name, asked = json.loads(sys.stdin.read())\n"
        "try: service = PamService(name)\n"
        "except ConfigError as error: print(json.dumps(str(error)))\n"
        "else: print(json.dumps([service.check(*each) for each in asked]))\n"
    )
    done = subprocess.run(
        system.inside(*prefix, sys.executable, "-I", "-c", script),
        input=json.dumps([service, asked]),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return json.loads(done.stdout)


# --- the service ---


def test_root_tells_right_passwords_from_wrong_ones(system):
    """pam_unix through python-pam, as shipped: only the right password of an account that has not ended passes."""
    asked = [
        ("alice", PASSWORDS["alice"]),
        ("bob", PASSWORDS["bob"]),
        ("alice", PASSWORDS["bob"]),
        ("nobody-of-that-name", PASSWORDS["alice"]),
        ("root", "x"),
        ("carol", PASSWORDS["carol"]),
    ]
    assert checked(system, *asked) == ["success", "success", *["auth_err"] * 4]


def test_what_cannot_be_a_password_does_not_reach_pam(system):
    """Nothing, a NUL, half a character, more than PAM takes: refused and no error."""
    right = PASSWORDS["alice"]
    asked = [
        ("alice", ""),
        ("", right),
        ("alice", f"{right}\0"),
        ("alice\0", right),
        ("alice", f"{right}\udcff"),
        ("alice", "x" * 512),
        ("x" * 257, right),
    ]
    assert checked(system, *asked) == ["auth_err"] * 7


def test_a_service_that_is_broken_passes_nobody_and_says_so(system):
    """A module that does not load is no wrong password: nobody's failure is counted for it."""
    assert checked(system, ("alice", PASSWORDS["alice"]), service="broken") == ["authinfo_unavail"]


def test_without_root_no_password_is_found_right(system):
    """An unprivileged process cannot check others' passwords (unix_chkpwd): it says so instead of refusing them."""
    prefix = ("setpriv", "--reuid=12345", "--regid=12345", "--clear-groups", "--no-new-privs")
    assert checked(system, ("alice", PASSWORDS["alice"]), prefix=prefix) == ["authinfo_unavail"]


@pytest.mark.parametrize("name", ["no-such-service", "../pam.d/refusing", "", "a b"])
def test_a_service_that_does_not_exist_is_an_error(system, name):
    """libpam would silently ask `other` instead."""
    said = checked(system, ("alice", "x"), service=name)
    assert said.startswith("PAM service")


# --- the helper ---


def test_the_helper_tells_right_passwords_from_wrong_ones(helper):
    """Any number of checks, each by a process of its own."""
    path = str(helper().path)
    assert [ask(path, user, password) for user, password in PASSWORDS.items()] == [
        Verdict.SUCCESS,
        Verdict.SUCCESS,
        Verdict.AUTH_ERR,
    ]
    assert ask(path, "alice", "wrong") is Verdict.AUTH_ERR
    assert ask(path, "alice", "") is Verdict.AUTH_ERR


def test_the_command_line_says_which_service_is_asked(helper):
    """A request has a user and a password and nothing else."""
    assert ask(str(helper(service="refusing").path), "alice", PASSWORDS["alice"]) is Verdict.AUTH_ERR


def test_only_the_daemon_user_is_answered(helper, system):
    """Root and other users get no word, even where the socket lets them connect."""
    made = helper(user="alice")
    request = b"alice\0" + PASSWORDS["alice"].encode()
    assert spoken(made.path, request, system.uid("alice")) == b"success"
    for uid in (0, system.uid("bob")):
        assert spoken(made.path, request, uid) in NOTHING
        made.wait_for(f"uid {uid} asked, who may not")


@pytest.mark.parametrize(
    "request_",
    [b"alice", b"\0", b"alice\0", b"alice\0correct horse\0", b"alice\0\xff", b"alice\0" + b"x" * 5000],
    ids=repr,
)
def test_odd_requests_pass_nobody(helper, request_):
    """Half a request, bytes that are no text, far too much: no success."""
    assert spoken(helper().path, request_[:6000]) in (b"", b"auth_err")


def test_who_says_nothing_is_not_waited_for(helper):
    """The process ends by itself and the next request is answered."""
    made = helper(more=("--seconds", "1"))
    assert spoken(made.path, b"") == b""
    assert ask(str(made.path), "alice", PASSWORDS["alice"]) is Verdict.SUCCESS


def test_a_module_that_hangs_is_not_waited_for(helper):
    """PAM may hang for ever; the helper does not, and the daemon is told that there is no verdict."""
    made = helper(service="hanging", more=("--seconds", "1"))
    with pytest.raises(UnavailableError, match="no verdict"):
        ask(str(made.path), "alice", PASSWORDS["alice"])


@pytest.mark.parametrize(
    ("options", "said"), [({"service": "no-such"}, "no such file"), ({"user": "no-such"}, "there is no user")]
)
def test_a_wrong_command_line_is_in_the_log(helper, options, said):
    """Service or user missing: no verdict, and the log says what to do."""
    made = helper(**options)
    with pytest.raises(UnavailableError):
        ask(str(made.path), "alice", PASSWORDS["alice"])
    made.wait_for(said)


def test_no_password_is_logged(helper):
    """Neither right nor wrong ones."""
    made = helper()
    ask(str(made.path), "alice", PASSWORDS["alice"])
    ask(str(made.path), "alice", "S3cr3t-typo")
    spoken(made.path, b"S3cr3t-typo")
    made.wait_for("not a user and a password")
    assert "S3cr3t-typo" not in made.log
    assert PASSWORDS["alice"] not in made.log


def test_without_the_helper_the_error_says_what_to_start(tmp_path):
    """Nobody there: an error that names the socket, and never a verdict."""
    with pytest.raises(UnavailableError, match=r"otpbridge-pam-helper\.socket"):
        ask(str(tmp_path / "nobody"), "alice", "x")


def test_passwords_are_given_to_root_alone(helper, monkeypatch):
    """A socket that somebody else put in the helper's place gets no password."""
    made = helper()
    monkeypatch.setattr(exchange, "peer_uid", lambda _: 12345)
    with pytest.raises(UnavailableError, match="uid 12345"):
        ask(str(made.path), "alice", PASSWORDS["alice"])
