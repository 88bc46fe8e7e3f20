"""The tests of this folder are for a real YubiKey: `make test-device SERIAL=12345678`. Without a serial, none runs.

The key must be the only one that is plugged in. What is on it stays: the tests write accounts of an issuer of their
own, and slots that are empty, and take both off again. Only with RESET=yes its OATH application is reset at the end.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import mkdtemp

import pytest
from real_daemon import MAIN, real_daemon

from otpbridge.devices import find
from otpbridge.devices.keys import Key, choose
from otpbridge.devices.oath import open_oath
from otpbridge.errors import DeviceError

SERIAL = os.environ.get("OTPBRIDGE_DEVICE_SERIAL", "")
RESET = os.environ.get("OTPBRIDGE_DEVICE_RESET", "") == "yes"

collect_ignore = [] if SERIAL else ["test_device.py"]


@dataclass(frozen=True)
class Device:
    """The key, a daemon, and the command line between them, which is never let near another key."""

    key: Key
    run_dir: Path
    reset: bool = RESET
    issuer: str = field(default_factory=lambda: f"otpbridge-test-{secrets.token_hex(4)}")

    def call(self, *arguments, code=0, text="", shown=False, typed=False):
        """A command about this key, which ends with `code`, or anyhow where that is None.

        `shown`: the person sees what it says; `typed`: and the key types into it.
        """
        done = subprocess.run(
            [*MAIN, "--run-dir", self.run_dir, *arguments, "--serial", str(self.key.serial)],
            input=None if typed else text,
            stdout=subprocess.PIPE,
            stderr=None if shown or typed else subprocess.PIPE,
            text=True,
            check=False,
        )
        assert code in {None, done.returncode}, (done.stdout, done.stderr)
        return done

    def answer(self, *arguments, **options):
        """The JSON value of a command."""
        return json.loads(self.call("--json", *arguments, **options).stdout)

    def enrol(self, *options, **how):
        """A token of a user of its own on the key; the user, and what the command says."""
        user = f"u{secrets.token_hex(4)}"
        return user, self.answer("yubikey", "enroll", user, "--issuer", self.issuer, *options, **how)

    def verdict(self, user, code):
        """What the daemon says of a code."""
        command = [*MAIN, "--run-dir", self.run_dir, "--json", "verify", user]
        done = subprocess.run(command, input=f"{code}\n", capture_output=True, text=True, check=False)
        return json.loads(done.stdout)["verdict"]

    def accounts(self):
        """What the key holds, read past the command line."""
        with open_oath(self.key) as oath:
            return oath.accounts()

    def code(self, user, at):
        """The code of a user's account for a Unix time in seconds."""
        with open_oath(self.key) as oath:
            return oath.code(f"{self.issuer}:{user}".encode(), at).text

    def clean(self):
        """Take off what the tests put on, and nothing else."""
        with open_oath(self.key) as oath:
            for account in oath.accounts():
                if account.issuer == self.issuer:
                    oath.remove(account.id)


def _chosen() -> Key:
    """The key with this serial number and no other, without a password. Raises DeviceError or ValueError."""
    found = find.look()
    key = choose(found, int(SERIAL))
    others = [str(other) for other in found.keys if other is not key] + [each.reader for each in found.unreadable]
    if others:
        raise ValueError(f"unplug the others first: {', '.join(others)}")
    with open_oath(key) as oath:
        if oath.protected:
            raise ValueError(f"{key} has an OATH password: clear it first (otpbridge yubikey access clear)")
    return key


@pytest.fixture(scope="session")
def _device():
    try:
        key = _chosen()
    except (DeviceError, ValueError) as error:
        pytest.exit(f"not tested: {error}", returncode=2)
    folder = Path(mkdtemp(prefix="otpb-"))
    try:
        with real_daemon(folder):
            yield Device(key, folder / "run")
    finally:
        shutil.rmtree(folder)


@pytest.fixture
def device(_device):
    """The key; afterwards it holds what it held before."""
    before = {account.id for account in _device.accounts()}
    yield _device
    _device.clean()
    after = {account.id for account in _device.accounts()}
    assert after == before or (_device.reset and not after), "the key does not hold what it held before"


@pytest.fixture
def tell():
    """Say something to the person, in time."""
    return lambda text: print(f"\n>>> {text}", flush=True)
