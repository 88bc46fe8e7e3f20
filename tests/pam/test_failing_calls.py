"""Whatever call of libc or libpam fails inside the module, nobody passes by it."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pammodule
import pytest
from pamstack import PAM_CRED_INSUFFICIENT, PAM_SUCCESS, PAM_SYSTEM_ERR, Stack
from scripteddaemon import ScriptedDaemon, hidden, judged, notice, step, streamed

SOURCE = Path(__file__).with_name("failing.c")
MOST_CALLS = 200
"""Far more than a login makes, so that the search for the last one ends."""

IGNORED = PAM_CRED_INSUFFICIENT

MADE = {
    "socket",
    "connect",
    "getsockopt",
    "lstat64",
    "poll",
    "send",
    "recv",
    "clock_gettime",
    "calloc",
    "pam_get_user",
}
"""Calls without which there is no login, so each of them must have failed once."""


@pytest.fixture(scope="session")
def failing(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The library that makes calls fail, compiled."""
    library = tmp_path_factory.mktemp("failing") / "failing.so"
    command = ["gcc", "-std=gnu11", "-O1", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", SOURCE, "-o", library]
    subprocess.run([*command, "-lpam", "-ldl"], check=True)
    return library


@pytest.fixture
def with_each_call_failing(folder, socket_path, failing, tmp_path):
    """Log in once for each call that the module makes, with that one failing: (call, return code) of each login."""
    line = f"{pammodule.build()} socket={socket_path} nullok forward_pass try_first_pass"
    # libpam never returns PAM_IGNORE: here it jumps to a module that says PAM_CRED_INSUFFICIENT.
    after = ("required pam_deny.so", "required pam_debug.so auth=cred_insufficient acct=cred_insufficient")
    rules = (f"[success=done ignore=1 default=die] {line}", *after)
    text = "\n".join(f"{phase} {rule}" for phase in ("auth", "account") for rule in rules)

    def every(phase, *turns):
        outcomes = []
        for number in range(1, MOST_CALLS):
            log = tmp_path / f"{phase}{number}"
            setting = {"FAIL_AT": str(number), "FAIL_LOG": str(log)}
            trial = Stack(folder / "pam.d", text, preload=str(failing), environment=setting)
            with ScriptedDaemon(socket_path, *turns):
                outcome = trial.login("alice", ["hunter2 123456"], phases=(phase,))
            socket_path.unlink()
            if not log.exists():
                return outcomes
            outcomes.append((log.read_text(), outcome.code))
        raise AssertionError("the module made calls without end")

    return every


PROMPT = [streamed(notice("Hm")), step(hidden("Code: "))]
CASES = {
    "wrong code": ("authenticate", [PROMPT, step(verdict="auth_err")], {PAM_SUCCESS, IGNORED}),
    "right code": ("authenticate", [PROMPT, step(verdict="success")], {IGNORED}),
    "locked account": ("acct_mgmt", [judged("auth_err")], {PAM_SUCCESS, IGNORED}),
}


@pytest.mark.parametrize("phase", ["authenticate", "acct_mgmt"])
def test_what_pam_does_not_say_refuses(with_each_call_failing, phase):
    """A login whose remote host, service, terminal or password cannot be read is not judged without it."""
    turns = {"authenticate": [PROMPT, step(verdict="success")], "acct_mgmt": [judged("success")]}
    outcomes = with_each_call_failing(phase, *turns[phase])
    unread = [code for name, code in outcomes if name == "pam_get_item"]
    assert len(unread) == {"authenticate": 5, "acct_mgmt": 4}[phase]
    assert set(unread) == {PAM_SYSTEM_ERR}


@pytest.mark.parametrize("case", CASES)
def test_no_call_that_fails_lets_in(with_each_call_failing, case):
    """Out of memory, of descriptors, of anything, at any moment: refused, and never ignored, even with `nullok`."""
    phase, turns, never = CASES[case]
    outcomes = with_each_call_failing(phase, *turns)
    assert {name for name, _ in outcomes} >= MADE
    assert [(name, code) for name, code in outcomes if code in never] == []
