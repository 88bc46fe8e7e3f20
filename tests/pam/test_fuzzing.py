"""The module under libFuzzer: a daemon that says anything, and calls of libc and libpam of which any may fail."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import fuzzing
import pammodule
import pytest

FUZZ = pammodule.SOURCE / "fuzz"
TARGETS = [("json", 4096), ("login", 20_000)]

pytestmark = [
    pytest.mark.campaign,
    pytest.mark.skipif(shutil.which("clang") is None, reason="clang is not installed"),
]


def program(target: str) -> Path:
    """The program of a target, built."""
    return (
        pammodule.build_in("build-fuzz", "-Dfuzz=true", "-Dtests=disabled", compiler="clang")
        / "fuzz"
        / f"fuzz_{target}"
    )


@pytest.mark.parametrize("target", [target for target, _ in TARGETS])
def test_inputs_that_are_kept(target):
    """What broke a promise once breaks none now; nor does what reaches the branches of the code."""
    files = sorted((FUZZ / f"corpus_{target}").iterdir())
    done = subprocess.run([program(target), *files], capture_output=True, text=True, errors="replace", check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("Executed ") == len(files) > 0


@fuzzing.patient
@pytest.mark.parametrize(("target", "longest"), TARGETS)
def test_fuzzing(tmp_path, target, longest):
    """Who is let in was said to be by a daemon that may be believed, in time; nothing leaks and no secret is left."""
    fuzzing.fuzz(
        f"pam-{target}",
        (program(target),),
        (program(target),),
        FUZZ / f"corpus_{target}",
        tmp_path,
        short="-runs=10000",
        longest=longest,
        dictionary=FUZZ / "json.dict",
    )
