"""Files of what comes from the daemon: what is there stays, unless a whole one takes its place."""

from __future__ import annotations

import os
import stat

import pytest

from otpbridge.cli.exits import CommandError
from otpbridge.cli.saving import save


def test_a_file_is_replaced_with_the_mode_that_is_asked_for(tmp_path):
    """Whatever the umask, and nothing else is left in its folder."""
    file = tmp_path / "numbers.prom"
    file.write_text("old")
    before = os.umask(0o077)
    try:
        assert save(file, [b"ne", b"w"], mode=0o644) == 3
    finally:
        os.umask(before)
    assert (file.read_text(), stat.S_IMODE(file.stat().st_mode)) == ("new", 0o644)
    assert list(tmp_path.iterdir()) == [file]


def test_what_comes_to_an_end_in_the_midst_changes_nothing(tmp_path):
    """The old file stays, and no draft does."""

    def pieces():
        yield b"half"
        raise OSError(28, "No space left on device")

    file = tmp_path / "store.backup"
    file.write_text("old")
    with pytest.raises(CommandError, match="No space left on device"):
        save(file, pieces())
    assert file.read_text() == "old"
    assert list(tmp_path.iterdir()) == [file]


def test_a_device_or_pipe_is_not_replaced(tmp_path):
    """Who names /dev/null as root still has it afterwards."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(CommandError, match="is not a file"):
        save(pipe, [b"x"])
    assert stat.S_ISFIFO(pipe.stat().st_mode)
