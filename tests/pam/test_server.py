"""A daemon that is down, hung, mad or not ours refuses the login in time, and the log says what to do."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pammodule
import pytest
from pamstack import PAM_AUTHINFO_UNAVAIL, PAM_CRED_INSUFFICIENT, PAM_SUCCESS, Hesitant, Stack, finish
from scripteddaemon import ScriptedDaemon, hang_up, hidden, judged, notice, say_nothing, step, streamed

root_only = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files and processes to other users")

NOBODY = 65534
PHASES = ("authenticate", "acct_mgmt")
AT_ONCE = 2.0  # seconds: far below the 60 s that these logins would wait for a daemon


def refused(stack: Stack, *, phase: str = "authenticate", within: float = AT_ONCE, answers=("123456",) * 20) -> str:
    """Log in, which must be refused as unavailable and in time; returns the log."""
    outcome = stack.login("alice", answers, phases=[phase])
    assert outcome.code == PAM_AUTHINFO_UNAVAIL
    assert outcome.seconds < within
    assert "pam_otpbridge" in outcome.log
    return outcome.log


@pytest.mark.parametrize("phase", PHASES)
def test_no_socket(make_stack, phase):
    """Without a daemon's socket the login is refused at once."""
    assert "start otpbridged" in refused(make_stack("timeout=60"), phase=phase)


def test_no_folder(make_stack, folder):
    """Without the socket's folder the login is refused at once."""
    assert "start otpbridged" in refused(make_stack("timeout=60", socket=folder / "none" / "verify"))


@pytest.mark.parametrize("phase", PHASES)
def test_nobody_listens(make_stack, socket_path, phase):
    """A socket that a dead daemon left behind refuses at once."""
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(os.fspath(socket_path))
    assert "nobody listens" in refused(make_stack("timeout=60"), phase=phase)


def test_not_a_socket(make_stack, socket_path):
    """A file in the socket's place is not opened."""
    socket_path.write_text("not a socket")
    assert "not a socket" in refused(make_stack("timeout=60"))


def test_a_link_is_not_a_socket(make_stack, folder, socket_path):
    """A link to a socket is refused: whoever made it could turn it elsewhere."""
    with ScriptedDaemon(folder / "real", step(verdict="success")) as daemon:
        socket_path.symlink_to(folder / "real")
        refused(make_stack("timeout=60"))
    assert daemon.calls == []


@pytest.mark.parametrize("phase", PHASES)
def test_silence_ends_at_the_timeout(make_stack, socket_path, phase):
    """A daemon that accepts and never answers is given its timeout and no more."""
    with ScriptedDaemon(socket_path, say_nothing):
        outcome = make_stack("timeout=1").login("alice", phases=[phase])
    assert outcome.code == PAM_AUTHINFO_UNAVAIL
    assert 0.9 <= outcome.seconds < 3
    assert "in time" in outcome.log


def test_silence_after_the_code_ends_at_the_timeout(make_stack, socket_path):
    """Each call has a timeout of its own, also the one that carries the code."""
    with ScriptedDaemon(socket_path, step(hidden("Code: ")), say_nothing):
        outcome = make_stack("timeout=1").login("alice", ["123456"])
    assert outcome.code == PAM_AUTHINFO_UNAVAIL
    assert 0.9 <= outcome.seconds < 3


def test_a_stopped_daemon_ends_at_the_timeout(make_stack, socket_path):
    """A daemon that is stopped (SIGSTOP) still has a socket that accepts; the login does not hang on it."""
    code = (
        "import socket,sys\ns=socket.socket(socket.AF_UNIX);s.bind(sys.argv[1])\n"
        "s.listen(8);print(flush=True);s.accept()[0].recv(9)"
    )
    with subprocess.Popen([sys.executable, "-c", code, os.fspath(socket_path)], stdout=subprocess.PIPE) as daemon:
        try:
            assert daemon.stdout is not None
            daemon.stdout.readline()
            daemon.send_signal(signal.SIGSTOP)
            outcome = make_stack("timeout=1").login("alice")
        finally:
            daemon.kill()
    assert outcome.code == PAM_AUTHINFO_UNAVAIL
    assert 0.9 <= outcome.seconds < 3


def test_a_full_queue_is_waited_for(make_stack, socket_path):
    """A daemon too busy to accept is tried again until the timeout, as it may only be a burst of logins."""
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as first:
        listener.bind(os.fspath(socket_path))
        listener.listen(0)
        first.connect(os.fspath(socket_path))
        outcome = make_stack("timeout=1").login("alice")
        assert outcome.code == PAM_AUTHINFO_UNAVAIL
        assert 0.9 <= outcome.seconds < 3


def test_a_full_queue_that_empties_lets_in(make_stack, socket_path):
    """Once the burst is over the login that waited goes on."""
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as first:
        listener.bind(os.fspath(socket_path))
        listener.listen(0)
        first.connect(os.fspath(socket_path))
        process = make_stack("timeout=60").start("alice")
        asleep = Path(f"/proc/{process.pid}/wchan")  # the kernel function it waits in: poll, between two tries
        while "poll" not in asleep.read_text():
            assert process.poll() is None
        with listener.accept()[0], listener.accept()[0] as connection:
            assert connection.recv(65536).endswith(b"\0")
            connection.sendall(SUCCESS + b"\0")
            assert finish(process).code == PAM_SUCCESS


def trickle(connection: socket.socket) -> None:
    """Send a byte at a time, each long before any timeout of a single read."""
    connection.settimeout(0.05)
    while True:
        connection.sendall(b" ")
        try:
            if not connection.recv(1):
                return
        except TimeoutError:
            continue


def endless(connection: socket.socket) -> None:
    """Send one message without an end."""
    while True:
        connection.sendall(b'{"a":"' + b"x" * 65536)


def endless_notices(connection: socket.socket) -> None:
    """Send notices without an end."""
    while True:
        connection.sendall(b'{"continues":true,"parameters":{"session":"s","step":{"notices":[]}}}\0')


def test_a_trickle_ends_at_the_timeout(make_stack, socket_path):
    """Bytes that keep coming do not put the deadline off."""
    with ScriptedDaemon(socket_path, trickle):
        outcome = make_stack("timeout=1").login("alice")
    assert outcome.code == PAM_AUTHINFO_UNAVAIL
    assert 0.9 <= outcome.seconds < 3


def test_slow_notices_share_a_budget(make_stack, socket_path):
    """Notices put the deadline off, for a person may need a while to touch a key, but not for ever."""

    def stream_slowly(connection: socket.socket) -> None:
        connection.settimeout(0.7)
        while True:
            connection.sendall(b'{"continues":true,"parameters":{"session":"s","step":{"notices":[]}}}\0')
            try:
                if not connection.recv(1):
                    return
            except TimeoutError:
                continue

    with ScriptedDaemon(socket_path, stream_slowly):
        outcome = make_stack("timeout=1").login("alice")
    assert outcome.code == PAM_AUTHINFO_UNAVAIL
    assert 3.9 <= outcome.seconds < 6


@pytest.mark.parametrize("turn", [endless, endless_notices])
@pytest.mark.parametrize("phase", PHASES)
def test_floods_are_cut_off(make_stack, socket_path, turn, phase):
    """A message of any length, or any number of them, takes neither memory nor time."""
    with ScriptedDaemon(socket_path, turn):
        refused(make_stack("timeout=60"), phase=phase, within=5)


SUCCESS = b'{"parameters":{"session":"s","step":{"verdict":"success"}}}'


@pytest.mark.parametrize(
    "message",
    [
        b"\0",
        b"\xff\xff\xff\xff\0",
        b"\xff\xff\xff\xff" * 30000,
        b"HTTP/1.1 200 OK\r\n\r\n\0",
        b"success\0",
        b"{}\0",
        b"[" * 60000 + b"\0",
        b'{"parameters":' * 4000 + b"\0",
        SUCCESS[:-1] + b"\0",
        SUCCESS + b"x\0",
        SUCCESS.replace(b"success", b"succ\0ss") + b"\0",
        b'{"parameters":{"verdict":"success"}}\0',
        b'{"continues":true,' + SUCCESS[1:] + b"\0",
        SUCCESS.replace(b'"verdict"', b'"verdict":"auth_err","verdict"') + b"\0",
        b'{"parameters":{"session":"s","step":{"verdict":"success","prompts":[{"style":"hidden","text":"?"}]}}}\0',
        b'{"parameters":{"session":"s","step":{}}}\0',
    ],
)
def test_nonsense_refuses_at_once(make_stack, socket_path, message):
    """What is not an answer of the interface is no verdict, whatever it contains."""
    with ScriptedDaemon(socket_path, message):
        refused(make_stack("timeout=60"))
    socket_path.unlink()
    with ScriptedDaemon(socket_path, step(hidden("Code: ")), message):
        refused(make_stack("timeout=60"))


@pytest.mark.parametrize("part", [b"", SUCCESS[:20], SUCCESS], ids=["nothing", "half", "all but NUL"])
@pytest.mark.parametrize("turns", [[], [step(hidden("Code: "))]], ids=["begin", "continue"])
def test_hanging_up_refuses_at_once(make_stack, socket_path, part, turns):
    """A daemon that dies in the middle of a message refuses at once, not at the timeout."""
    with ScriptedDaemon(socket_path, *turns, [part, hang_up]):
        assert "closed the connection" in refused(make_stack("timeout=60"))


def test_a_daemon_that_dies_at_the_prompt(make_stack, socket_path):
    """A daemon gone while the person types refuses at once, and no SIGPIPE ends the host program."""
    with ScriptedDaemon(socket_path, [step(hidden("Code: ")), hang_up]):
        refused(make_stack("timeout=60"))


def test_an_answer_before_its_question_refuses(make_stack, socket_path):
    """A verdict sent before the code was, is not the verdict on the code."""
    both = b"".join(json.dumps(reply).encode() + b"\0" for reply in (step(hidden("Code: ")), step(verdict="success")))
    with ScriptedDaemon(socket_path, both) as daemon:
        refused(make_stack("timeout=60"))
    assert daemon.methods == ["Begin"]


def test_never_ignored(make_stack, socket_path):
    """No failure becomes PAM_IGNORE, with which a login would pass without its second factor."""
    for turns in ([], [hang_up], [b"\0"], [step(hidden("Code: ")), hang_up]):
        stack = make_stack(
            "nullok",
            control="[success=done ignore=1 default=die]",
            after="auth required pam_deny.so\nauth required pam_debug.so auth=cred_insufficient",
        )
        with ScriptedDaemon(socket_path, *turns):
            assert stack.login("alice", ["1"]).code == PAM_AUTHINFO_UNAVAIL
        socket_path.unlink()
    with ScriptedDaemon(socket_path, step(verdict="ignore")):
        assert stack.login("alice", ["1"]).code == PAM_CRED_INSUFFICIENT  # so the stack does show it


def test_time_at_the_prompt_is_the_persons_own(make_stack, socket_path):
    """A person may take longer to type than the daemon may take to answer, at every prompt."""
    answers = [Hesitant(code, seconds=1.2) for code in ("1", "2", "3", "4")]
    with ScriptedDaemon(
        socket_path,
        step(hidden("A: "), hidden("B: ")),
        step(hidden("C: ")),
        step(hidden("D: ")),
        step(verdict="success"),
    ):
        outcome = make_stack("timeout=1").login("alice", answers)
    assert outcome.code == PAM_SUCCESS
    assert outcome.seconds > 4


# --- whose daemon it is -------------------------------------------------------------------------------------


def test_a_folder_open_to_everyone_is_not_trusted(make_stack, folder, socket_path):
    """Where everyone can put a socket, nobody's socket is believed; a sticky folder of root's is fine."""
    with ScriptedDaemon(socket_path, step(verdict="success")) as daemon:
        folder.chmod(0o777)
        assert "0755" in refused(make_stack("timeout=60"))
        assert daemon.calls == []
        folder.chmod(0o1777)
        assert make_stack().login("alice").code == PAM_SUCCESS


@root_only
def test_another_users_folder_is_not_trusted(make_stack, folder, socket_path):
    """Root does not believe a socket in another user's folder."""
    with ScriptedDaemon(socket_path, step(verdict="success")) as daemon:
        os.chown(folder, NOBODY, NOBODY)
        refused(make_stack("timeout=60"))
    assert daemon.calls == []


@root_only
def test_another_users_socket_is_not_trusted(make_stack, socket_path):
    """Root does not believe another user's socket."""
    with ScriptedDaemon(socket_path, step(verdict="success")) as daemon:
        os.chown(socket_path, NOBODY, NOBODY)
        assert "find out who made it" in refused(make_stack("timeout=60"))
    assert daemon.calls == []


@root_only
def test_another_users_server_is_not_trusted(make_stack, socket_path):
    """Root's socket with another user's process behind it gets no code."""
    code = (
        "import os,socket,sys\ns=socket.socket(socket.AF_UNIX);s.bind(sys.argv[1]);os.seteuid(65534)\n"
        "s.listen(8);print(flush=True);c=s.accept()[0];print(c.recv(65536))\n"
    )
    with subprocess.Popen([sys.executable, "-c", code, os.fspath(socket_path)], stdout=subprocess.PIPE) as server:
        assert server.stdout is not None
        server.stdout.readline()
        log = refused(make_stack("timeout=60"))
        assert server.stdout.read().strip() == b"b''"
    assert "find out who runs it" in log


@root_only
def test_an_unprivileged_user_trusts_root_and_themselves_alone(folder, socket_path):
    """A screen locker that runs as its user works with root's daemon and with the user's own."""
    copy = folder / "pam_otpbridge.so"
    shutil.copy(pammodule.build(), copy)
    copy.chmod(0o755)
    script = folder / "pamstack.py"
    shutil.copy(Path(sys.modules["pamstack"].__file__), script)
    (folder / "pam.d").mkdir()
    (folder / "pam.d" / "lock").write_text(f"auth required {copy} socket={socket_path} timeout=60\n")
    request = (
        f'{{"folder": "{folder}/pam.d", "service": "lock", "user": "alice", "answers": [{{"text": "1"}}],'
        '"phases": ["authenticate"], "items": {}, "flags": 0, "stop_at_failure": true}'
    )

    def login() -> str:
        return subprocess.run(
            ["/usr/bin/python3", "-I", "-S", script],
            input=request,
            capture_output=True,
            text=True,
            check=True,
            user=NOBODY,
            group=NOBODY,
            extra_groups=[],
            cwd=folder,
        ).stdout

    with ScriptedDaemon(socket_path, step(verdict="success"), step(verdict="success")) as daemon:
        socket_path.chmod(0o666)
        assert '"authenticate": 0' in login()
        os.chown(socket_path, NOBODY, NOBODY)
        assert '"authenticate": 0' in login()
        os.chown(socket_path, 1234, 1234)
        assert f'"authenticate": {PAM_AUTHINFO_UNAVAIL}' in login()
        os.chown(socket_path, 0, 0)
        socket_path.chmod(0o600)
        assert f'"authenticate": {PAM_AUTHINFO_UNAVAIL}' in login()
    assert len(daemon.calls) == 2


def test_account_replies_do_not_stream(make_stack, socket_path):
    """The account call was not made with `more`, so a reply that continues is nonsense."""
    with ScriptedDaemon(socket_path, [streamed(notice("a")), judged("success")]):
        refused(make_stack("timeout=60"), phase="acct_mgmt")
