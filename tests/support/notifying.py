"""`otpbridge notify` as a process, and hooks that a test can watch at work.

with Notify(daemon, "--exec", hook.program) as notify:
    lock(daemon, "alice")
    hook.event()["event"] == "user_locked"
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import threading
import time

from daemon_rig import CLI, SECONDS, plain_environment

from otpbridge.wire import messages


class Notify:
    """The command at work, from when it follows the daemon until the block ends."""

    def __init__(self, daemon, *options, prefix=(), place=None):
        self.place = place or daemon.folder / "place"
        self._command = [*prefix, *CLI, "--run-dir", daemon.run_dir, "notify", "--state", self.place, *options]

    def __enter__(self):
        self._news = threading.Condition()
        self._said = ""
        self._process = subprocess.Popen(
            list(map(os.fspath, self._command)),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=plain_environment(),
        )
        self._listener = threading.Thread(target=self._listen)
        self._listener.start()
        return self

    def __exit__(self, kind, *_):
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM if kind is None else signal.SIGKILL)
        status = self._process.wait(SECONDS)
        self._listener.join(SECONDS)
        self._process.stdout.close()
        if kind is None:
            assert status in {0, -signal.SIGKILL}, self._said

    def kill(self):
        """End it as a crash does."""
        self._process.kill()
        self._process.wait(SECONDS)

    def signal(self, number):
        self._process.send_signal(number)

    def event(self):
        """The next event on standard output."""
        return json.loads(self._process.stdout.readline())

    def heard(self, text):
        """Wait until it has said this on standard error."""
        with self._news:
            assert self._news.wait_for(lambda: text in self._said, SECONDS), self._said

    def came_to(self, sequence):
        """Wait until it has kept that all up to here was handed on."""
        deadline = time.monotonic() + SECONDS
        while not self.place.exists() or int(self.place.read_text()) < sequence:
            assert time.monotonic() < deadline, self._said
            assert self._process.poll() is None, self._said
            time.sleep(0.01)

    def _listen(self):
        for line in self._process.stderr:
            with self._news:
                self._said += line
                self._news.notify_all()
        self._process.stderr.close()


class HookScript:
    """A hook that writes what it gets, after its own process id, to a pipe that the test reads, then does `then`."""

    def __init__(self, folder, then=""):
        pipe, self.program = folder / "pipe", folder / "hook"
        os.mkfifo(pipe)
        self.program.write_text(f'#!/bin/sh\nread -r line\necho "$$ $(pwd) $line" > {pipe}\n{then}\n')
        self.program.chmod(0o755)
        self._read = os.open(pipe, os.O_RDWR | os.O_NONBLOCK)
        self._rest = b""
        self.pid = 0
        self.cwd = ""

    def event(self):
        """The event of the next call."""
        while b"\n" not in self._rest:
            assert select.select([self._read], [], [], SECONDS)[0], "the hook was not called"
            self._rest += os.read(self._read, 65_536)
        line, _, self._rest = self._rest.partition(b"\n")
        pid, self.cwd, text = line.decode().split(" ", 2)
        self.pid = int(pid)
        return json.loads(text)

    def close(self):
        os.close(self._read)


def lock(daemon, user, *, reason=None):
    """Something worth telling."""
    with daemon.admin() as admin:
        admin.call(messages.LockUser(user=user, reason=reason))


def unlock(daemon, user, client=None):
    with daemon.admin() as admin:
        admin.call(messages.UnlockUser(user=user, client=client))


def end(daemon):
    """The newest row of the audit log."""
    return daemon.audit()[-1].sequence
