"""Without `socket=` the module chooses: root's logins go by the admins' socket, where no user can be before them."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pammodule
import pytest
from pamstack import PAM_AUTHINFO_UNAVAIL, PAM_SUCCESS, Stack, at_system_place
from scripteddaemon import ScriptedDaemon, judged, say_nothing, step

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root is given a /run/otpbridge of its own")

NOBODY = 65534
PHASES = ("authenticate", "acct_mgmt")
YES = {"authenticate": step(verdict="success"), "acct_mgmt": judged("success")}
WITHOUT_CAPABILITIES = ("setpriv", "--bounding-set=-all", "--inh-caps=-all")
"""Root whom modes of files hold for, as in many containers."""


@pytest.fixture
def sockets(folder):
    """Listen on either socket or on both, and say yes."""
    with ExitStack() as stack:

        def listen(*names: str, phase: str = "authenticate") -> list[ScriptedDaemon]:
            return [stack.enter_context(ScriptedDaemon(folder / name, YES[phase])) for name in names]

        yield listen


@pytest.fixture
def root(module, folder) -> Stack:
    """A stack without `socket=` on a machine whose /run/otpbridge is this folder."""
    stack = plain(folder, module.path)
    return replace(stack, preload=module.preload, environment=module.environment)


def plain(folder: Path, module: Path, *words: str) -> Stack:
    """The same with this module; `words` run the program that logs in."""
    line = f"required {module} debug timeout=60"
    return Stack(folder / "pam.d", f"auth {line}\naccount {line}", prefix=(*at_system_place(folder), *words))


@pytest.mark.parametrize("phase", PHASES)
def test_root_goes_by_the_admins_socket(root, sockets, phase):
    """Where both are there, the socket that all may open is left alone."""
    admin, verify = sockets("admin", "verify", phase=phase)
    outcome = root.login("alice", phases=[phase])
    assert outcome.code == PAM_SUCCESS, outcome.log
    assert (len(admin.calls), len(verify.calls)) == (1, 0)
    assert "/run/otpbridge/admin: connected" in outcome.log


def test_su_goes_by_it_too(folder, sockets):
    """A program that is root's while a user runs it: for sockets the effective uid counts."""
    admin, verify = sockets("admin", "verify")
    outcome = plain(folder, pammodule.build(), "setpriv", f"--ruid={NOBODY}").login("alice")
    assert outcome.code == PAM_SUCCESS, outcome.log
    assert (len(admin.calls), len(verify.calls)) == (1, 0)


def nothing(path: Path) -> None:
    """No such socket: the unit is not enabled."""


def left(path: Path) -> None:
    """A socket that nobody listens on any more."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(os.fspath(path))


def shut(path: Path) -> None:
    """A socket that this process may not open."""
    left(path)
    path.chmod(0)


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("how", [nothing, left, shut])
def test_where_it_is_closed_the_other_one_does(root, folder, sockets, how, phase):
    """Not there, not served or not for this process: the login goes on by the socket that all may open, at once."""
    how(folder / "admin")
    (verify,) = sockets("verify", phase=phase)
    words = WITHOUT_CAPABILITIES if how is shut else ()
    outcome = replace(root, prefix=(*root.prefix, *words)).login("alice", phases=[phase])
    assert outcome.code == PAM_SUCCESS, outcome.log
    assert outcome.seconds < 10
    assert len(verify.calls) == 1
    assert "/run/otpbridge/admin: " in outcome.log
    assert "/run/otpbridge/verify: connected" in outcome.log


def test_where_both_are_closed_it_is_refused(root, folder):
    """Refused at once, and the log names the socket that is there for all."""
    left(folder / "admin")
    outcome = root.login("alice")
    assert outcome.code == PAM_AUTHINFO_UNAVAIL
    assert outcome.seconds < 10
    assert "/run/otpbridge/verify: the socket does not exist" in outcome.log


def test_one_that_is_not_to_be_trusted_ends_the_login(root, folder, sockets):
    """Who could make a socket of theirs there can have made the other one too: nothing is sent to either."""
    admin, verify = sockets("admin", "verify")
    os.chown(folder / "admin", NOBODY, NOBODY)
    outcome = root.login("alice")
    assert outcome.code == PAM_AUTHINFO_UNAVAIL
    assert (len(admin.calls), len(verify.calls)) == (0, 0)
    assert "find out who made it" in outcome.log


def test_who_was_reached_is_waited_for(root, folder, sockets):
    """A daemon that takes the call and says nothing is not asked again by the other one: there is one timeout."""
    (verify,) = sockets("verify")
    with ScriptedDaemon(folder / "admin", say_nothing) as admin:
        outcome = replace(root, text=root.text.replace("timeout=60", "timeout=1")).login("alice")
    assert outcome.code == PAM_AUTHINFO_UNAVAIL
    assert outcome.seconds < 3
    assert (len(admin.calls), len(verify.calls)) == (1, 0)


def test_others_go_by_the_socket_for_all(folder, sockets):
    """A screen locker that runs as its user does not even try the other one, whoever may open it."""
    admin, verify = sockets("admin", "verify")
    copy, script = folder / "pam_otpbridge.so", folder / "pamstack.py"
    shutil.copy(pammodule.build(), copy)
    shutil.copy(Path(sys.modules["pamstack"].__file__), script)
    (folder / "pam.d").mkdir()
    (folder / "pam.d" / "lock").write_text(f"auth required {copy}\n")
    for name in ("admin", "verify"):
        (folder / name).chmod(0o666)
    request = (
        f'{{"folder": "{folder}/pam.d", "service": "lock", "user": "alice", "answers": [],'
        '"phases": ["authenticate"], "items": {}, "flags": 0, "stop_at_failure": true}'
    )
    drop = ("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups")
    done = subprocess.run(
        [*at_system_place(folder), *drop, "/usr/bin/python3", "-I", "-S", script],
        input=request,
        capture_output=True,
        text=True,
        check=True,
        cwd=folder,
    )
    assert f'"authenticate": {PAM_SUCCESS}' in done.stdout, done.stderr
    assert (len(admin.calls), len(verify.calls)) == (0, 1)
