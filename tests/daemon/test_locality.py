"""A remote login never asks for a key on the server's USB port: who is at the machine, by /proc and logind."""

from __future__ import annotations

import os

import pytest

from otpbridge.daemon.locality import why_remote
from otpbridge.model import Caller, Context

SERVICES = ("login", "sudo", "gdm-password")
SCOPE = "/user.slice/user-1000.slice/session-3.scope"
MANAGER = "/user.slice/user-1000.slice/user@1000.service"
TERMINAL = f"{MANAGER}/app.slice/app-terminal.scope"
GETTY = "/system.slice/system-getty.slice/getty@tty1.service"
SEAT = "UID=1000\nREMOTE=0\nSEAT=seat0\nTYPE=tty\n"
REMOTE = "UID=1000\nREMOTE=1\nTYPE=tty\n"
PID = 500


class Machine:
    """A /proc and a /run/systemd/sessions."""

    def __init__(self, folder):
        self.proc = folder / "proc"
        self.sessions = folder / "sessions"
        self.sessions.mkdir()

    def process(self, pid, name, parent, group=None):
        folder = self.proc / str(pid)
        folder.mkdir(parents=True)
        (folder / "stat").write_text(f"{pid} ({name}) S {parent} {pid} 0 0 -1\n")
        if group is not None:
            (folder / "cgroup").write_text(f"0::{group}\n")

    def running(self, group, *names):
        """The caller, below these programs and init."""
        self.process(1, "systemd", 0)
        for place, name in enumerate(names):
            self.process(10 + place, name, 9 + place if place else 1)
        self.process(PID, "sudo", 9 + len(names) if names else 1, group)
        return self

    def session(self, id_, text):
        (self.sessions / id_).write_text(f"# This is private data. Do not parse.\n{text}")
        return self

    def why(self, *, uid=0, pid=PID, **said):
        context = Context(**{"service": "sudo", **said})
        return why_remote(Caller(uid, uid, pid), context, SERVICES, proc=self.proc, sessions=self.sessions)


@pytest.fixture
def machine(tmp_path):
    return Machine(tmp_path)


@pytest.mark.parametrize("group", [SCOPE, TERMINAL, f"{SCOPE}/below", f"{MANAGER}/../session-9.scope"])
def test_a_session_with_a_seat_is_at_the_machine(machine, group):
    """On a console, and in a window of a desktop, which systemd runs below the user's own manager."""
    assert machine.running(group, "bash").session("3", SEAT).why() is None


@pytest.mark.parametrize(
    "group",
    [
        GETTY,
        "/system.slice/getty@tty2.service",
        "/system.slice/gdm.service",
        "/system.slice/gdm3.service",
        "/system.slice/sddm.service",
        "/system.slice/lightdm.service",
    ],
)
def test_what_greets_people_at_the_screen_is_at_the_machine(machine, group):
    """There is no session yet when login and display managers ask."""
    assert machine.running(group).why(service="login") is None


@pytest.mark.parametrize(
    "group",
    [
        "/",
        "/init.scope",
        "/system.slice/cron.service",
        "/system.slice/ssh.service",
        "/system.slice/polkit-agent-helper@1.service",
        "/system.slice/serial-getty@ttyS0.service",
        "/system.slice/app/x/getty@tty1.service",
        "/user.slice/user-1000.slice",
        "/user.slice/session-3.scope",
        "/machine.slice/user.slice/user-1000.slice/session-3.scope",
        "/user.slice/user-1000.slice/user@1001.service",
        "/user.slice/user-1000.slice/user@1000.service.d",
        "/user.slice/user-1000.slice/session-4.scope",
        "/user.slice/user-1001.slice/session-3.scope",
    ],
)
def test_all_other_places_are_remote(machine, group):
    """Other services, containers, sessions that are not there, and groups whose names only look right."""
    assert machine.running(group).session("3", SEAT).why() is not None


@pytest.mark.parametrize("group", [SCOPE, TERMINAL])
@pytest.mark.parametrize(
    "text",
    [
        REMOTE,
        f"{REMOTE}SEAT=seat0\n",
        "UID=1000\nSEAT=seat0\n",
        "UID=1000\nREMOTE=0\n",
        "UID=1000\nREMOTE=0\nSEAT=\n",
        "UID=1001\nREMOTE=0\nSEAT=seat0\n",
        "REMOTE=0\nSEAT=seat0\n",
        "",
    ],
)
def test_a_session_without_a_seat_is_remote(machine, group, text):
    """Those from elsewhere, those of nobody, those of somebody else, and what cannot be understood."""
    assert machine.running(group).session("3", text).why() is not None


@pytest.mark.parametrize("group", [SCOPE, TERMINAL])
def test_who_is_logged_in_from_elsewhere_as_well_is_remote(machine, group):
    """A terminal multiplexer that was started at the machine may have its other end anywhere."""
    assert machine.running(group).session("3", SEAT).why() is None
    assert "elsewhere" in machine.session("c7", REMOTE).why()
    machine.session("c7", REMOTE.replace("1000", "1001"))
    assert machine.why() is None


@pytest.mark.parametrize(
    "name",
    ["sshd", "sshd-session", "sshd-auth", "mosh-server", "dropbear", "in.telnetd", "telnetd", "xrdp-sesman", "Xvnc"],
)
def test_below_a_program_that_brings_people_in_all_is_remote(machine, name):
    """Whatever the session says."""
    assert machine.running(SCOPE, "systemd", name, "bash", "tmux: server").session("3", SEAT).why() == f"below {name}"


def test_names_with_parentheses_do_not_hide_ancestors(machine):
    """A process may call itself anything; its parent is read all the same."""
    assert machine.running(SCOPE, "sshd", "a) S 1 (b").session("3", SEAT).why() == "below sshd"


@pytest.mark.parametrize("said", [{"uid": 1000}, {"rhost": "192.0.2.1"}, {"rhost": "localhost"}, {"service": "sshd"}])
def test_what_the_caller_says_rules_out(machine, said):
    """Only root, without a remote host, at a service that may; a stack that is asked for changes nothing."""
    machine.running(SCOPE).session("3", SEAT)
    assert machine.why() is None
    assert machine.why(**said) is not None


def test_what_cannot_be_read_is_remote(machine):
    """A process that has gone, one of another namespace, a machine without logind, a broken table."""
    machine.running(SCOPE).session("3", SEAT)
    assert machine.why(pid=PID + 1) is not None
    assert machine.why(pid=0) is not None
    assert machine.why(pid=-1) is not None
    (machine.proc / str(PID) / "cgroup").write_text("nonsense")
    assert machine.why() is not None
    (machine.proc / str(PID) / "cgroup").write_text(f"4:cpu:{SCOPE}\n")
    assert machine.why() is not None
    (machine.proc / str(PID) / "cgroup").write_text(f"1:name=systemd:{SCOPE}\n0::/\n")
    assert machine.why() is None
    (machine.proc / "1/stat").write_text("")
    assert machine.why() is not None


def test_without_logind_all_is_remote(machine):
    """Where no folder of sessions is, nobody is at the machine."""
    machine.running(SCOPE)
    machine.sessions.rmdir()
    assert machine.why() is not None


def test_a_circle_of_ancestors_ends(machine):
    """A table that cannot be is not walked for ever."""
    machine.process(PID, "sudo", 7, SCOPE)
    machine.process(7, "bash", PID)
    assert machine.session("3", SEAT).why() is not None


def test_this_very_process_can_be_looked_up():
    """The real /proc is read as the made-up one is; whatever it is, a test does not sit at a screen's login."""
    found = why_remote(Caller(0, 0, os.getpid()), Context("sudo"), SERVICES)
    assert found is None or isinstance(found, str)
