"""The module inside sshd and su, with a daemon that says what real ones rarely say."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import AbstractContextManager

import pammodule
import pytest
from scripteddaemon import ScriptedDaemon, hang_up, hidden, judged, notice, step, streamed
from sshdstack import FIRST_UID, Machine, need_machine

pytestmark = [pytest.mark.system, pytest.mark.xdist_group("sshd")]

PASSWORDS = {"alice": "correct horse", "bob": "battery staple"}
CODE, YES, NO = step(hidden("Code: ")), step(verdict="success"), step(verdict="auth_err")

MachineMaker = Callable[..., AbstractContextManager[Machine]]


@pytest.fixture
def make_machine(folder, socket_path) -> MachineMaker:
    """Makes a machine whose sshd and su use the module with these options, before or after the password."""
    need_machine()

    def make(*options: str, code_first: bool = False) -> Machine:
        ours = f"auth required {pammodule.build()} socket={socket_path} {' '.join(options)}\n"
        unix = f"auth required pam_unix.so {'use_first_pass' if code_first else ''}\n"
        account = "account required pam_permit.so\nsession required pam_permit.so\n"
        text = (ours + unix if code_first else unix + ours) + account
        return Machine(
            folder,
            {"sshd": text, "su": text},
            PASSWORDS,
            sshd="AuthenticationMethods keyboard-interactive\n",
        )

    return make


def test_ssh_shows_what_belongs_to_a_prompt(make_machine, socket_path):
    """sshd holds notices back until it asks: then all of them are there, and nothing is lost."""
    asked = step(hidden("Code: "), notices=[notice("Two codes are left")])
    with (
        ScriptedDaemon(socket_path, [streamed(notice("Touch your key", "touch")), asked], YES),
        make_machine() as machine,
    ):
        login = machine.ssh("alice", [PASSWORDS["alice"], "123456"])
    assert login.output == "alice\n"
    assert login.prompts[-1] == "Touch your key\nTwo codes are left\nCode: "


def test_ssh_takes_both_in_one_answer(make_machine, socket_path):
    """For clients with a single field: password and code together, each judged by its own module."""
    password = PASSWORDS["alice"]
    behind, before = step(verdict="success", code=(len(password), 6)), step(verdict="success", code=(0, 8))
    with (
        ScriptedDaemon(
            socket_path, CODE, behind, CODE, before, CODE, step(verdict="ignore"), CODE, behind, CODE, NO
        ) as daemon,
        make_machine("forward_pass", code_first=True) as machine,
    ):
        logins = [machine.ssh("alice", [answer]) for answer in (password + "123456", "12345678" + password, password)]
        wrong_password = machine.ssh("alice", ["corrupt horse123456"])
        wrong_code = machine.ssh("alice", [password + "654321"])
    assert [(login.output, login.prompts) for login in logins] == [
        ("alice\n", ["Password & verification code: "])
    ] * 3
    assert not wrong_password.ok
    assert not wrong_code.ok
    assert daemon.responses[:3] == [[password + "123456"], ["12345678" + password], [password]]
    assert all(call["parameters"]["combined"] for call in daemon.calls if call["method"].endswith("Begin"))


@pytest.mark.parametrize(
    ("turns", "reason"),
    [([CODE, hang_up], "closed the connection"), ([CODE, b"nonsense\0"], "no answer of")],
    ids=["dies", "mad"],
)
def test_ssh_refuses_without_a_verdict(make_machine, socket_path, turns, reason):
    """A daemon that dies or goes mad once it has the code lets nobody in, and the system log says so."""
    with ScriptedDaemon(socket_path, *turns), make_machine() as machine:
        login = machine.ssh("alice", [PASSWORDS["alice"], "123456"])
        machine.wait_for(reason)
    assert (login.ok, login.output) == (False, "")


def test_su_does_not_trust_its_callers_daemon(make_machine, folder, socket_path):
    """In su the module is root's: a daemon of the user who calls gets no code and lets nobody in."""
    become = ["su", "bob", "-c", "id -un"]
    with ScriptedDaemon(socket_path, CODE, YES, CODE, YES, judged("success")) as daemon, make_machine() as machine:
        assert machine.run_as("alice", become, [PASSWORDS["bob"], "123456"]).output == "bob\n"
        asked = len(daemon.calls)
        context = daemon.calls[0]["parameters"]["context"]
        assert (context["service"], context["ruser"]) == ("su", "alice")
        os.chown(socket_path, FIRST_UID, FIRST_UID)
        login = machine.run_as("alice", become, [PASSWORDS["bob"], "123456"])
        machine.wait_for("find out who made it")
    assert (login.ok, login.output) == (False, "")
    assert len(daemon.calls) == asked
