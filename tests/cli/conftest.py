"""Run the command line in this process against a daemon that a test scripts."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass

import pytest
from fake_daemon import fake_daemon

from otpbridge.cli.main import run


@dataclass(frozen=True)
class Result:
    code: int
    out: str
    err: str

    @property
    def json(self):
        """The one JSON value on standard output."""
        return json.loads(self.out)


@pytest.fixture
def run_dir(tmp_path_factory):
    """A short path: that of a Unix socket has at most 107 bytes."""
    return tmp_path_factory.mktemp("r")


@pytest.fixture
def daemon(run_dir):
    with fake_daemon(run_dir) as daemon:
        yield daemon


@pytest.fixture
def user_daemon(run_dir):
    """A daemon whose admin socket this user does not have."""
    with fake_daemon(run_dir, sockets=("verify",)) as daemon:
        yield daemon


@pytest.fixture
def otpbridge(run_dir, capfd, monkeypatch):
    """The command, with --run-dir given."""

    def command(*arguments, stdin=""):
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(stdin.encode()), encoding="utf-8"))
        capfd.readouterr()
        code = run(["--run-dir", str(run_dir), *map(str, arguments)])
        captured = capfd.readouterr()
        return Result(int(code), captured.out, captured.err)

    return command
