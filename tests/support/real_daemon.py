"""A real daemon, started by the command line in a folder of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import contextmanager

MAIN = [sys.executable, "-c", "from otpbridge.cli.main import main; main()"]


@contextmanager
def real_daemon(folder, *options):
    """`otpbridge serve` on `folder`/state and `folder`/run until the block ends, which it must do in order."""
    environment = {name: value for name, value in os.environ.items() if name != "OTPBRIDGE_RUN_DIR"}
    process = subprocess.Popen(
        [*MAIN, "serve", "--state-dir", folder / "state", "--run-dir", folder / "run", *options],
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )
    said = []
    try:
        for line in process.stderr:
            said.append(line)
            if "is ready" in line:
                break
        else:
            raise AssertionError(f"it did not start: {said}")
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        _, rest = process.communicate(timeout=30)
    assert process.returncode == 0, [*said, rest]
