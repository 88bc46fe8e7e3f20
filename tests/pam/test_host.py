"""A host program finds itself as it was: nothing changed, nothing left open, no code left in memory."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest
from pamstack import PAM_AUTH_ERR, PAM_AUTHINFO_UNAVAIL, PAM_SERVICE_ERR, PAM_SUCCESS, Stack
from scripteddaemon import ScriptedDaemon, hang_up, hidden, judged, notice, step, streamed

SOURCE = Path(__file__).with_name("host.c")


@dataclass(frozen=True, slots=True)
class Report:
    """What the host program found."""

    code: int
    account: int
    changed: list[str]
    copies: int
    log: str


@pytest.fixture(scope="session")
def host(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The host program, compiled."""
    program = tmp_path_factory.mktemp("host") / "host"
    subprocess.run(
        ["gcc", "-std=gnu11", "-O1", "-g", "-Wall", "-Wextra", "-Werror", SOURCE, "-o", program, "-lpam"], check=True
    )
    return program


def run(host: Path, stack: Stack, *modes: str) -> Report:
    """Log in with the host program."""
    stack.folder.mkdir(exist_ok=True)
    (stack.folder / stack.service).write_text(stack.text + "\n")
    reading, writing = os.pipe()
    environment = dict(os.environ) | dict(stack.environment)
    if stack.preload is not None:
        environment["LD_PRELOAD"] = stack.preload
    command = ["bash", "-c", f'exec 9>&{writing} {writing}>&- "$0" "$@"', host, stack.folder, stack.service]
    process = subprocess.run(
        [*command, "alice", *modes], pass_fds=[writing], capture_output=True, text=True, check=False, env=environment
    )
    os.close(writing)
    with os.fdopen(reading) as pipe:
        lines = [line.split(maxsplit=1) for line in pipe.read().splitlines()]
    assert process.returncode == 0, process.stderr
    values = dict(lines)
    changed = [value for key, value in lines if key == "changed"]
    return Report(int(values["code"]), int(values["account"]), changed, int(values["found"]), process.stderr)


ANSWER = "".join(chr(ord("AbCd"[i % 4]) + i % 11) for i in range(48))
"""What the host program answers, and looks for in its memory."""

TURNS = {
    "success": (
        [
            [streamed(notice("Touch")), step(hidden("Code: "), hidden("PIN: "))],
            step(verdict="success", code=(0, len(ANSWER))),
        ],
        judged("success"),
        (PAM_SUCCESS, PAM_SUCCESS),
    ),
    "refused": (
        [step(hidden("Code: ")), step(verdict="auth_err")],
        judged("auth_err"),
        (PAM_AUTH_ERR, PAM_AUTH_ERR),
    ),
    "dies": (
        [step(hidden("Code: ")), hang_up],
        hang_up,
        (PAM_AUTHINFO_UNAVAIL, PAM_AUTHINFO_UNAVAIL),
    ),
}


@pytest.mark.parametrize("case", TURNS)
@pytest.mark.parametrize("options", [(), ("debug",), ("forward_pass",)], ids=["plain", "debug", "forward_pass"])
def test_the_host_finds_itself_as_it_was(host, make_stack, socket_path, case, options):
    """Descriptors, umask, users, groups, signals, timers, limits, environment and locale are the same after a login.

    So are who logs in and from where, on which the host acts. Its syslog name, options and facility are too: they
    would turn the host's own messages into the module's.
    """
    turns, account, codes = TURNS[case]
    with ScriptedDaemon(socket_path, *turns, account):
        report = run(host, make_stack(*options))
    assert (report.code, report.account) == codes
    assert report.changed == []
    assert "the-host[" in report.log.splitlines()[-1]
    assert report.log.splitlines()[-1].endswith("]: still here")
    if options == ("debug",):
        assert "]: pam_otpbridge(" in report.log  # said under the host's name


def test_the_host_finds_itself_as_it_was_after_wrong_options(host, make_stack):
    """A wrong PAM line changes nothing in the host either."""
    report = run(host, make_stack("tiemout=3"))
    assert report.code == PAM_SERVICE_ERR
    assert report.changed == []


@pytest.mark.parametrize("case", TURNS)
@pytest.mark.parametrize("options", [(), ("debug",), ("forward_pass",)], ids=["plain", "debug", "forward_pass"])
def test_no_code_stays_in_memory(host, make_stack, socket_path, case, options):
    """After the login no copy of what was typed is left in heap, stack or data of the host program."""
    turns, account, codes = TURNS[case]
    with ScriptedDaemon(socket_path, *turns, account):
        report = run(host, make_stack(*options))
    assert report.code == codes[0]
    assert report.copies == 0


@pytest.mark.parametrize("verdict", ["success", "auth_err"])
def test_no_key_stays_in_memory(host, module, make_stack, socket_path, verdict):
    """Of a key that was shown to enrol with, no copy is left either: shown at once, with a prompt or a verdict."""
    if module.preload is not None:
        pytest.skip("the address sanitizer keeps copies that libpam makes while it formats a message")
    key = notice(f"Your key:\n{ANSWER}")
    turns = [[streamed(key), step(hidden("Code: "), notices=[key])], step(verdict=verdict, notices=[key])]
    with ScriptedDaemon(socket_path, *turns, judged(verdict)):
        report = run(host, make_stack())
    assert report.code == {"success": PAM_SUCCESS, "auth_err": PAM_AUTH_ERR}[verdict]
    assert report.copies == 0


def test_a_copy_would_be_found(host, make_stack, socket_path):
    """The search for the code finds a copy that the host program keeps on purpose."""
    with ScriptedDaemon(socket_path, step(hidden("Code: ")), step(verdict="success"), judged("success")):
        report = run(host, make_stack(), "keep")
    assert report.copies == 1


def test_a_host_without_standard_descriptors(host, make_stack, socket_path):
    """Where a host has closed its standard descriptors, the connection does not take their numbers.

    Else what some library prints to standard error would be sent to the daemon.
    """
    with ScriptedDaemon(socket_path, step(hidden("Code: ")), step(verdict="success"), judged("success")):
        report = run(host, make_stack(), "close")
    assert (report.code, report.account) == (PAM_SUCCESS, PAM_SUCCESS)
    assert report.changed == []
