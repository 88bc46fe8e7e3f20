"""What is done to a daemon and its disk. Each breaks something, sees that it is broken, and mends it."""

from __future__ import annotations

import os
import resource
import signal
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path

from daemon_rig import SECONDS, Daemon

from faults.clients import PERIOD
from faults.history import Excuse
from faults.rig import Rounds
from otpbridge.errors import UnavailableError
from otpbridge.wire import messages

_LOOK = 0.01


def until(come: Callable[[], object]) -> None:
    """Wait for something that cannot be waited for."""
    deadline = time.monotonic() + SECONDS
    while not come():
        assert time.monotonic() < deadline, "it has not come"
        threading.Event().wait(_LOOK)


def linger(rounds: Rounds, shortest: float, longest: float) -> None:
    """Let a fault last."""
    threading.Event().wait(rounds.chance.uniform(shortest, longest))


def revive(daemon: Daemon) -> None:
    """Start a daemon again that has ended by itself, as a service manager does."""
    try:
        with daemon.admin() as admin:
            admin.call(messages.Status())
    except UnavailableError:
        daemon.wait()
        daemon.start()


# --- the process ---


def killed(rounds: Rounds) -> None:
    """kill -9, anywhere; now and then once more while it starts."""
    with rounds.window("kill", Excuse.CUT):
        rounds.daemon.kill()
        if rounds.chance.random() < 0.3:
            rounds.daemon.launch()
            linger(rounds, 0.0, 0.4)
            rounds.daemon.kill()
        rounds.daemon.start()


def killed_amid_a_slow_commit(rounds: Rounds) -> None:
    """The same, with flushes that take so long that it happens in the middle of one."""
    rounds.control.delay_us = 5000
    linger(rounds, 0.05, 0.2)
    killed(rounds)
    rounds.control.heal()


def torn(rounds: Rounds) -> None:
    """It dies in the middle of a write, of which half is done."""
    with rounds.window("torn write", Excuse.CUT):
        rounds.control.writes = rounds.chance.randrange(60)
        assert rounds.daemon.wait() == -signal.SIGKILL
        rounds.control.heal()
        rounds.daemon.start()


def stopped(rounds: Rounds) -> None:
    """SIGSTOP, for less than clients wait: nobody is left without an answer."""
    rounds.daemon.signal(signal.SIGSTOP)
    linger(rounds, 0.2, 1.0)
    rounds.daemon.signal(signal.SIGCONT)


# --- the disk ---


def full(rounds: Rounds) -> None:
    """No room, then there is again: refused meanwhile, and it goes on by itself."""
    with rounds.window("disk full", Excuse.UNAVAILABLE):
        failing(rounds, room=rounds.chance.randrange(40_000))
        rounds.control.heal()


def unflushed(rounds: Rounds) -> None:
    """fsync(2) fails, then works again."""
    with rounds.window("fsync fails", Excuse.UNAVAILABLE):
        failing(rounds, flushes=rounds.chance.randrange(10))
        rounds.control.heal()


def unflushed_then_killed(rounds: Rounds) -> None:
    """fsync(2) fails, and before it works again the daemon is killed."""
    with rounds.window("fsync fails, kill", Excuse.UNAVAILABLE, Excuse.CUT):
        failing(rounds, flushes=rounds.chance.randrange(10))
        rounds.daemon.kill()
        rounds.control.heal()
        rounds.daemon.start()


def full_then_killed(rounds: Rounds) -> None:
    """There is no room, and the daemon is killed, and starts when there is again."""
    with rounds.window("disk full, kill", Excuse.UNAVAILABLE, Excuse.CUT):
        failing(rounds, room=rounds.chance.randrange(40_000))
        rounds.daemon.kill()
        rounds.control.heal()
        rounds.daemon.start()


def failing(rounds: Rounds, **how: int) -> None:
    """Have the disk fail, until some attempts have met it."""
    control = rounds.control
    before = control.refused
    for name, value in how.items():
        setattr(control, name, value)
    until(lambda: control.refused >= before + 8)


# --- the clock ---


def clock_ahead(rounds: Rounds) -> None:
    """The clock is ahead for a while: codes of then are good then, and not again when their time has come."""
    _stepped(rounds, 2 * PERIOD)


def clock_back(rounds: Rounds) -> None:
    """The clock is behind for a while: what was spent stays so."""
    _stepped(rounds, -2 * PERIOD)


def _stepped(rounds: Rounds, seconds: int) -> None:
    with rounds.window("clock", Excuse.CLOCK):
        rounds.control.clock_s = seconds
        rounds.crowd.wait_for(300)
        rounds.control.heal()


# --- what a process may have ---


def no_descriptors(rounds: Rounds) -> None:
    """None is left, and hundreds want to connect. Who is connected already is answered."""
    pid = rounds.daemon.pid
    before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    used = max(int(name) for name in os.listdir(f"/proc/{pid}/fd")) + 1
    crowd = [socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) for _ in range(200)]
    with rounds.window("descriptors", Excuse.CUT, Excuse.UNAVAILABLE):
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (used + 3, before[1]))
        for sock in crowd:
            sock.connect_ex(os.fspath(rounds.daemon.verify_socket))
        rounds.daemon.wait_for("cannot accept connections")
        rounds.crowd.wait_for(200)
        resource.prlimit(pid, resource.RLIMIT_NOFILE, before)
        for sock in crowd:
            sock.close()


def no_memory(rounds: Rounds) -> None:
    """The process gets no more, while big requests ask for some. Where it has to end, it is started again."""
    pid = rounds.daemon.pid
    before = resource.prlimit(pid, resource.RLIMIT_AS)
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[0])
    crowd = [socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) for _ in range(200)]
    with rounds.window("memory", Excuse.CUT, Excuse.UNAVAILABLE):
        resource.prlimit(pid, resource.RLIMIT_AS, (pages * 4096, before[1]))
        for sock in crowd:
            sock.settimeout(0.2)
            try:
                sock.connect(os.fspath(rounds.daemon.verify_socket))
                sock.send(b'{"method":"' + b"x" * 60_000)
            except OSError:
                break
        linger(rounds, 0.3, 0.6)
        resource.prlimit(pid, resource.RLIMIT_AS, before)
        for sock in crowd:
            sock.close()
        revive(rounds.daemon)
    assert rounds.daemon.log.count("Traceback") < 10, "it does not flood the log"
