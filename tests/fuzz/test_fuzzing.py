"""Any input: what comes from outside is read or refused as documented, and no error tells a seed."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import fuzzing
import pytest

RUN = Path(__file__).with_name("run.py")
TARGETS = sorted(path.stem for path in (RUN.parent / "targets").glob("*.py"))
REPLAY = (sys.executable, RUN)
SHORT = "-max_total_time=2"


def kept(target: str) -> list[Path]:
    """The inputs that are kept for a target: seeds, and what once broke a promise."""
    return sorted((RUN.parent / "corpus" / target).iterdir())


@pytest.fixture(scope="module")
def run():
    specification = importlib.util.spec_from_file_location("fuzz_run", RUN)
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


@pytest.mark.parametrize("target", TARGETS)
def test_inputs_that_are_kept(run, target):
    """What broke a promise once breaks none now; nor does what reaches the branches of the code."""
    check = run.load(target)
    files = kept(target)
    assert files
    for file in files:
        check(file.read_bytes())


@pytest.mark.campaign
@fuzzing.patient
@pytest.mark.skipif(importlib.util.find_spec("atheris") is None, reason="atheris is not installed")
@pytest.mark.parametrize("target", TARGETS)
def test_fuzzing(tmp_path, target):
    """Nor does anything that a fuzzer comes upon."""
    dictionary = RUN.parent / "dictionaries" / f"{target}.dict"
    fuzzing.fuzz(
        target,
        (*REPLAY, "--fuzz", target),
        (*REPLAY, target),
        RUN.parent / "corpus" / target,
        tmp_path,
        short=SHORT,
        dictionary=dictionary if dictionary.exists() else None,
    )
