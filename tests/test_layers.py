"""The structure that the design asks for."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def test_layers_point_one_way():
    """Every import goes downward; the deciding code reaches no I/O; hardware libraries stay apart."""
    # In a process of its own: import-linter switches the loggers of its process off.
    linter = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([linter, "--no-cache"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
