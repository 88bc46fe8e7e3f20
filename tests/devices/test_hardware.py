"""The tests for real keys (tests/hardware), on a virtual one: that they find, refuse and leave what they should."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from terminal import Program

ROOT = Path(__file__).parents[2]
COMMAND = [sys.executable, "-m", "pytest", "-v", "-s"]
COMMAND += [word for name in ("randomly", "xdist", "cacheprovider") for word in ("-p", f"no:{name}")]


def settings(rig, serial, **more):
    """The environment that the make target gives."""
    return {**os.environ, **rig.settings, "OTPBRIDGE_DEVICE_SERIAL": str(serial), **more}


def attempt(environment, *options):
    """A run that asks nobody for anything."""
    return subprocess.run(
        [*COMMAND, *options, "tests/hardware"],
        cwd=ROOT,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def written(key):
    """Whether a key was told to keep or to forget anything."""
    return any(entry.name in {"PUT", "DELETE", "SET CODE", "RESET", "CONFIG 1", "CONFIG 2"} for entry in key.log)


def test_all_of_them_pass_on_a_key_that_is_like_a_real_one(rig, monkeypatch):
    """With a person at the terminal who does what is asked; what was on the key before is all that is on it then."""
    monkeypatch.chdir(ROOT)
    key = rig.plug(serial=1111111)
    key.add("GitHub:somebody", bytes(20))
    key.program(1, secret=bytes(16))
    before = (key.credentials, key.slots)
    with Program(*COMMAND, "tests/hardware", environment=settings(rig, 1111111)) as terminal:
        for _test in range(9):
            terminal.wait_for("PASSED")
        terminal.wait_for("Do NOT touch the key")
        key.touch("never")
        terminal.wait_for("PASSED")
        key.touch("given")
        for _kind in ("yubiotp", "hotp"):
            terminal.wait_for("hold it for 3 seconds")
            terminal.press(key.press(2))
        assert terminal.finish() == 0
    assert "13 passed" in terminal.text
    assert "RESET=yes was not given" in terminal.text
    assert (key.credentials, key.slots) == before
    assert not key.locked


def test_they_find_a_key_that_is_not_as_it_should_be(rig):
    """A key that is never touched fails the test of touches, and is left as it was."""
    key = rig.plug(serial=1111111)
    key.touch("never")
    done = attempt(settings(rig, 1111111), "-k", "touch_is_waited_for")
    assert done.returncode == 1
    assert "1 failed" in done.stdout
    assert key.credentials == []


def test_no_other_key_is_touched(rig):
    """Another serial number, two keys at once, a key with a password: nothing is written, and the reason is said."""
    key = rig.plug(serial=1111111)
    cases = [
        (2222222, None, None, "no key with serial 2222222"),
        (1111111, 3333333, None, "unplug the others first"),
        (1111111, None, "tea", "OATH password"),
    ]
    for serial, another, password, words in cases:
        other = rig.plug(serial=another) if another else None
        key.password(password)
        done = attempt(settings(rig, serial, OTPBRIDGE_DEVICE_RESET="yes"))
        assert done.returncode == 2
        assert words in done.stdout + done.stderr
        assert not written(key)
        if other is not None:
            assert not written(other)
            rig.unplug(other)


@pytest.mark.parametrize(("word", "left"), [("yes", 0), ("y", 1), ("", 1)])
def test_a_reset_is_asked_for_by_its_word(rig, word, left):
    """Only RESET=yes takes what others put on the key."""
    key = rig.plug(serial=1111111)
    key.add("GitHub:somebody", bytes(20))
    assert attempt(settings(rig, 1111111, OTPBRIDGE_DEVICE_RESET=word), "-k", "reset").returncode == 0
    assert len(key.credentials) == left


def test_without_a_serial_number_none_runs(rig):
    """Whoever runs all tests does not write to the key that happens to be plugged in."""
    key = rig.plug()
    assert attempt(settings(rig, "")).returncode == pytest.ExitCode.NO_TESTS_COLLECTED
    assert not key.log
