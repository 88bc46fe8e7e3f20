"""Run the command line, or any program, on a terminal, as a person does: type, read, press Ctrl-C."""

from __future__ import annotations

import codecs
import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time

_TAKE_TERMINAL = (
    "import fcntl, os, signal, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); "
    # Who logs in on a terminal can interrupt, whatever the tests were started with (nohup ignores it).
    "signal.signal(signal.SIGINT, signal.default_int_handler); "
)
_SECONDS = 20.0


class Terminal:
    """A command of otpbridge on a terminal of its own. Used with `with`, it is ended at the end."""

    _START = "from otpbridge.cli.main import main; main()"

    def __init__(self, *arguments, lines=60, columns=120, term="xterm-256color", environment=None):
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
        self._process = subprocess.Popen(
            [sys.executable, "-c", _TAKE_TERMINAL + self._START, *map(str, arguments)],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
            env={**os.environ, "TERM": term, **(environment or {})},
        )
        os.close(slave)
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        self.text = ""
        self._seen = 0

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        os.close(self._master)

    def _read(self, deadline):
        """Read some more; False at the end."""
        ready, _, _ = select.select([self._master], [], [], max(0.0, deadline - time.monotonic()))
        assert ready, f"nothing came within {_SECONDS} s after {self.text[self._seen :]!r}"
        try:
            data = os.read(self._master, 65536)
        except OSError:
            return False
        self.text += self._decoder.decode(data)
        return bool(data)

    def wait_for(self, words):
        """Read until `words` come; return what came before them."""
        deadline = time.monotonic() + _SECONDS
        while (at := self.text.find(words, self._seen)) < 0:
            assert self._read(deadline), f"it ended before {words!r}: {self.text[self._seen :]!r}"
        before = self.text[self._seen : at]
        self._seen = at + len(words)
        return before

    def type(self, text):
        """Type, with the return key at the end."""
        os.write(self._master, f"{text}\n".encode())

    def press(self, key):
        """Press one key."""
        os.write(self._master, key.encode())

    def send_signal(self, number=signal.SIGTERM):
        """Signal the command."""
        self._process.send_signal(number)

    def finish(self, pressing=""):
        """Read to the end, pressing a key whenever nothing comes; return the exit code."""
        deadline = time.monotonic() + _SECONDS
        while True:
            if pressing and time.monotonic() < deadline and not select.select([self._master], [], [], 0.1)[0]:
                self.press(pressing)
            elif not self._read(deadline):
                break
        return self._process.wait(_SECONDS)


class Program(Terminal):
    """Any program on a terminal of its own."""

    _START = "os.execvp(sys.argv[1], sys.argv[1:])"


def left_over(text):
    """What can still be read on a terminal, its history included, after all of `text` was written to it."""
    main, alternate = "", False
    cleared = False
    for sequence, written in re.findall(r"(\x1b\[[?\d;]*[A-Za-z])|([^\x1b]+)", text):
        if sequence == "\x1b[?1049h":
            alternate = True
        elif sequence == "\x1b[?1049l":
            alternate = False
        elif sequence == "\x1b[2J":
            cleared = True
        elif sequence == "\x1b[3J" and cleared and not alternate:
            main = ""
        elif written and not alternate:
            main += written
            cleared = False
    assert not alternate, "the alternate screen was not left"
    return main
