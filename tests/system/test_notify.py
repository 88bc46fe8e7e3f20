"""`otpbridge notify` beside a real daemon: nothing is lost, whoever dies, and the daemon never waits for it."""

from __future__ import annotations

import json
import os
import select
import signal
import socket

import pytest
from daemon_rig import SECONDS, Daemon, as_user, command, enrolled, need_root, plain_user, private_folder
from notifying import HookScript, Notify, end, lock, unlock

from otpbridge.wire import messages

pytestmark = pytest.mark.system


@pytest.fixture
def folder():
    with private_folder() as path:
        yield path


@pytest.fixture
def daemon(folder):
    with Daemon(folder) as rig:
        with rig.admin() as admin:
            admin.call(messages.AddUser(user="alice"))
        yield rig


@pytest.fixture
def hook(folder):
    """Makes hooks, which end with the test."""
    made = []

    def make(then=""):
        made.append(HookScript(folder, then))
        return made[-1]

    yield make
    for each in made:
        each.close()


def test_a_hook_is_run_for_each_event(daemon, hook):
    """An enrolment, a lock and what is done about it arrive one after the other; the hook is in the root folder."""
    script = hook()
    with Notify(daemon, "--exec", script.program) as notify:
        notify.came_to(end(daemon))
        token, _ = enrolled(daemon, "alice")
        lock(daemon, "alice", reason="on holiday")
        unlock(daemon, "alice")
        confirmed, locked, unlocked = (script.event() for _ in range(3))
    assert (confirmed["event"], confirmed["token"], confirmed["kind"]) == ("token_confirmed", token, "totp")
    assert (locked["event"], locked["user"], locked["client"]) == ("user_locked", "alice", "local")
    assert (locked["detail"], locked["by"]) == ({"reason": "on holiday"}, os.getuid())
    assert unlocked["event"] == "user_unlocked"
    assert confirmed["sequence"] < locked["sequence"] < unlocked["sequence"]
    assert script.cwd == "/"


def test_a_hook_that_hangs_is_ended(daemon, hook):
    """The next event is handed on after the time limit, and the daemon judges all the while."""
    script = hook("trap '' TERM; exec sleep 600")
    with Notify(daemon, "--exec", script.program, "--timeout", "0.5") as notify:
        notify.came_to(end(daemon))
        lock(daemon, "alice")
        unlock(daemon, "alice")
        assert script.event()["event"] == "user_locked"
        with daemon.client() as client:
            assert not client.verify("alice", "000000").ok
        assert script.event()["event"] == "user_unlocked"
        notify.heard("was ended after 0.5 s")
        notify.came_to(end(daemon) - 1)
    with pytest.raises(ProcessLookupError):
        os.kill(script.pid, 0)


@pytest.mark.parametrize(("then", "said"), [("kill -9 $$", "died of signal 9"), ("exit 3", "exit status 3")])
def test_a_hook_that_fails_stops_nothing(daemon, hook, then, said):
    """A hook that dies or refuses is named in the log, and gets the next event all the same."""
    script = hook(then)
    with Notify(daemon, "--exec", script.program) as notify:
        notify.came_to(end(daemon))
        lock(daemon, "alice")
        unlock(daemon, "alice")
        assert [script.event()["event"] for _ in range(2)] == ["user_locked", "user_unlocked"]
        notify.heard(said)
        notify.heard("(user_unlocked)")


def test_a_hook_that_is_missing_stops_nothing(daemon, folder):
    """Lines are written where there is no program to run; what is missing is said."""
    with Notify(daemon, "--exec", folder / "missing", "--file", "-") as notify:
        notify.came_to(end(daemon))
        lock(daemon, "alice")
        assert notify.event()["event"] == "user_locked"
        notify.heard("cannot be run: No such file or directory")
        notify.came_to(end(daemon))


def test_no_event_is_lost_when_it_is_killed(daemon, hook, folder):
    """Killed in the midst of an event, that one is handed on again; killed between two, none is."""
    gate = folder / "gate"
    os.mkfifo(gate)
    opened = os.open(gate, os.O_RDWR)
    script = hook(f"read -r _ < {gate}")
    with Notify(daemon, "--exec", script.program) as notify:
        notify.came_to(end(daemon))
        lock(daemon, "alice")
        first = script.event()
        notify.kill()
        os.kill(script.pid, signal.SIGKILL)
    unlock(daemon, "alice")
    with Notify(daemon, "--exec", script.program) as notify:
        assert script.event() == first
        os.write(opened, b"\n")
        second = script.event()
        os.write(opened, b"\n")
        assert (second["event"], second["sequence"]) == ("user_unlocked", first["sequence"] + 1)
        notify.came_to(second["sequence"])
        notify.kill()
    lock(daemon, "alice")
    with Notify(daemon, "--exec", script.program) as notify:
        assert script.event()["sequence"] == second["sequence"] + 1
        os.write(opened, b"\n")
        notify.came_to(end(daemon))
    os.close(opened)


@pytest.mark.parametrize("ends", ["stop", "kill"])
def test_no_event_is_lost_when_the_daemon_restarts(daemon, ends):
    """The daemon ends at once although it is followed, and what happens after its next start is heard."""
    with Notify(daemon) as notify:
        notify.came_to(end(daemon))
        lock(daemon, "alice")
        assert notify.event()["event"] == "user_locked"
        getattr(daemon, ends)()
        assert "cut off" not in daemon.log
        notify.heard("Trying again")
        daemon.start()
        unlock(daemon, "alice")
        assert notify.event()["event"] == "user_unlocked"
        notify.heard("following again")


def test_a_store_that_was_put_back_is_noticed(daemon, folder):
    """A place that the log does not reach any more is given up for its end, and that is said."""
    (folder / "place").write_text("1000000\n")
    with Notify(daemon) as notify:
        notify.heard("put back to an older state")
        notify.signal(signal.SIGHUP)
        lock(daemon, "alice")
        assert notify.event()["event"] == "user_locked"


def test_a_file_may_be_moved_away(daemon, folder):
    """After log rotation, which sends SIGHUP, lines go to the new file."""
    log = folder / "events"
    with Notify(daemon, "--file", log) as notify:
        notify.came_to(end(daemon))
        lock(daemon, "alice")
        notify.came_to(end(daemon))
        log.rename(folder / "events.1")
        notify.signal(signal.SIGHUP)
        unlock(daemon, "alice")
        notify.came_to(end(daemon))
    found = [json.loads((folder / name).read_text())["event"] for name in ("events.1", "events")]
    assert found == ["user_locked", "user_unlocked"]


def test_who_has_no_right_to_hear_is_refused(daemon):
    """An ordinary user hears nothing, not even of themselves."""
    need_root()
    user = plain_user()
    done = command("notify", run_dir=daemon.run_dir, prefix=as_user(user.pw_uid, user.pw_gid))
    assert (done.returncode, done.stdout) == (4, b"")


def test_a_caller_hears_of_its_own_clients(daemon, folder):
    """The right `notices` is for the clients of its entry, and for nothing but to hear."""
    need_root()
    user = plain_user()
    prefix = as_user(user.pw_uid, user.pw_gid)
    daemon.configure(f'[[callers]]\nuser = {user.pw_uid}\nclients = ["acme"]\nmay = ["notices"]\n')
    daemon.reload()
    with daemon.admin() as admin:
        admin.call(messages.AddUser(user="bob", client="acme"))
    place = folder / "theirs"
    place.mkdir()
    os.chown(place, user.pw_uid, user.pw_gid)
    with Notify(daemon, prefix=prefix, place=place / "place") as notify:
        notify.came_to(end(daemon))
        lock(daemon, "alice")
        unlock(daemon, "bob", "acme")
        assert notify.event()["user"] == "bob"
        daemon.configure("")
        daemon.reload()
        unlock(daemon, "bob", "acme")
        notify.heard("you may not do this")
    daemon.configure(f'[[callers]]\nuser = {user.pw_uid}\nclients = ["acme"]\nmay = ["notices"]\n')
    daemon.reload()
    refused = command("notify", "--client", "local", run_dir=daemon.run_dir, prefix=prefix)
    assert refused.returncode == 4
    judged = command("verify", "bob", "000000", "--client", "acme", run_dir=daemon.run_dir, prefix=prefix)
    assert judged.returncode == 4


def replies(sock):
    """All that there is to read, as (events, sequence)."""
    data = b""
    while piece := sock.recv(65_536):
        data += piece
    # The last reply may be cut off in its midst.
    found = [json.loads(frame)["parameters"] for frame in data.split(b"\0")[:-1]]
    return [event for reply in found for event in reply["events"]], found[-1]["sequence"]


def follow(daemon, after):
    """Follow without reading."""
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(SECONDS)
    sock.connect(os.fspath(daemon.run_dir / "admin"))
    call = {"method": "org.otpbridge.Notices.Watch", "parameters": {"after": after}, "more": True}
    sock.sendall(json.dumps(call).encode() + b"\0")
    return sock


def test_who_does_not_read_is_cut_off_and_misses_nothing(daemon):
    """The daemon works on beside a follower that has stopped reading, and hangs up; it comes back for the rest."""
    before = end(daemon)
    with daemon.admin() as admin:
        for _ in range(300):
            admin.call(messages.LockUser(user="alice", reason="x" * 500))
    with follow(daemon, before) as sock:
        poll = select.poll()
        poll.register(sock, 0)
        lock(daemon, "alice")
        assert poll.poll(SECONDS * 1000), "it was never cut off"
        first, place = replies(sock)
    assert 0 < len(first) < 301
    last, rest = end(daemon), []
    with follow(daemon, place) as sock:
        while not rest or rest[-1]["sequence"] < last:
            rest += read_reply(sock)["events"]
    assert [event["sequence"] for event in [*first, *rest]] == list(range(before + 1, last + 1))


def read_reply(sock):
    data = b""
    while not data.endswith(b"\0"):
        data += sock.recv(1)
    return json.loads(data[:-1])["parameters"]
