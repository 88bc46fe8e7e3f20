"""What the pages on security say is shown by a test is shown by one that exists."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
THREATS = ROOT / "docs/threat-model.md"
SECURITY = ROOT / "docs/security.md"
NAMED = re.compile(r"`([\w/]+\.py::test_\w+)`")
SECONDS = 300.0
"""For pytest to load the tests of all packages."""


def missing(names):
    """Which of these tests, `folder/test_file.py::test_name`, pytest does not find in tests/."""
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [*command, *sorted({name.partition("::")[0] for name in names})],
        cwd=ROOT / "tests",
        capture_output=True,
        text=True,
        check=False,
        timeout=SECONDS,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = {line.partition("[")[0].removeprefix("tests/") for line in done.stdout.splitlines() if "::" in line}
    return sorted(set(names) - found)


def test_every_test_of_the_threat_model_exists():
    """pytest collects each of them by its name; one that is not there would be told."""
    named = NAMED.findall(THREATS.read_text())
    assert len(set(named)) > 100
    wrong = "store/test_settle.py::test_a_moving_factor_is_spent_twice"
    assert missing([*named, wrong]) == [wrong]


def table_rows():
    for line in THREATS.read_text().splitlines():
        if line.startswith("| ") and not line.startswith(("| they try", "| it tries", "| advisory")):
            yield line


@pytest.mark.parametrize("row", [*table_rows()], ids=lambda row: row.split("|")[1].strip()[:40])
def test_every_row_names_a_test(row):
    """Nothing is said to be stopped without a test that shows it."""
    *_, tests = row.strip("| ").split(" | ")
    assert NAMED.sub("", tests).strip(" ,") == ""


def test_every_attacker_has_what_is_not_protected():
    """The page says as plainly what otpbridge does not do."""
    sections = re.findall(r"^## (.*?)\n(.*?)(?=^## )", THREATS.read_text(), re.MULTILINE | re.DOTALL)
    assert len(sections) >= 10
    assert [name for name, text in sections if "Not protected: " not in text] == []


def test_every_file_of_the_properties_exists():
    """What security.md names below tests/ is there."""
    named = re.findall(r"`(tests/[\w/.]+)`", SECURITY.read_text())
    assert len(named) > 20
    assert [path for path in named if not (ROOT / path).exists()] == []
