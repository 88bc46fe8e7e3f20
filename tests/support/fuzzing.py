"""Runs programs of libFuzzer: for some seconds each in the suite, as long as it is told by `make fuzz`.

OTPBRIDGE_FUZZ_SECONDS   seconds of each target
OTPBRIDGE_FUZZ_FOLDER    folder to which what was found is written: NAME/ for inputs that reach more code, and
                         NAME-crash-… for those that break a promise; without it, a folder of the test
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

SECONDS = int(os.environ.get("OTPBRIDGE_FUZZ_SECONDS", "0"))
_FOLDER = os.environ.get("OTPBRIDGE_FUZZ_FOLDER")
_LONGEST_INPUT_SECONDS = 20
_MEMORY = 1024
"""MiB that an input may make the program take."""
_TOLD = 60

patient = pytest.mark.timeout(300 + SECONDS)


def fuzz(
    name: str,
    program: Sequence[str | Path],
    replay: Sequence[str | Path],
    corpus: Path,
    folder: Path,
    *,
    short: str,
    longest: int = 4096,
    dictionary: Path | None = None,
) -> None:
    """Fuzz a target. It fails when an input breaks a promise, and says how to run that input again.

    `short` is the option that ends it where nobody said for how long; `longest` is in bytes; `replay` is the command
    that takes inputs as files.
    """
    folder = Path(_FOLDER).absolute() if _FOLDER else folder
    found = folder / name
    found.mkdir(parents=True, exist_ok=True)
    options = [
        f"-max_total_time={SECONDS}" if SECONDS else short,
        f"-max_len={longest}",
        f"-timeout={_LONGEST_INPUT_SECONDS}",
        f"-rss_limit_mb={_MEMORY}",
        f"-artifact_prefix={folder}/{name}-",
        *([f"-dict={dictionary}"] if dictionary else []),
    ]
    done = subprocess.run(
        [*program, *options, found, corpus], capture_output=True, text=True, errors="replace", check=False
    )
    runs = re.search(r"^Done (\d+) runs", done.stderr, re.MULTILINE)
    if done.returncode or runs is None:
        pytest.fail(_crashed(done.stderr, replay), pytrace=False)
    assert int(runs[1]) > len(list(corpus.iterdir()))
    if SECONDS:
        print(f"{name}: {runs[1]} inputs, {len(list(found.iterdir()))} kept in {found}")


def _crashed(told: str, replay: Sequence[str | Path]) -> str:
    kept = re.findall(r"Test unit written to (.+)", told)
    again = [shlex.join(map(str, (*replay, file))) for file in kept]
    return "\n".join([*told.splitlines()[-_TOLD:], "", "To run it again:", *again])
