"""`make bench`, in the form that only shows that it works: what it measures is there and is what it says."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from tempfile import mkdtemp

import pammodule
import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"

pytestmark = pytest.mark.system


@pytest.fixture(scope="module")
def smoke():
    """A run with a few calls each: its results, its table and what it printed."""
    module = pammodule.build()
    folder = Path(mkdtemp(prefix="otpb-"))
    run = subprocess.run(
        [
            *(sys.executable, BENCHMARKS / "run.py", "--smoke", "--no-chart"),
            *("--module", module, "--folder", folder, "--results", folder / "results"),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    try:
        assert run.returncode in {0, 1}, run.stderr
        results = json.loads((folder / "results" / "results.json").read_text())
        left = [path.name for path in folder.iterdir()]
        yield results, (folder / "results" / "results.md").read_text(), run, left
    finally:
        shutil.rmtree(folder)


@pytest.fixture
def results(smoke):
    """The figures; what could not be measured here (no listener on /dev/log, no right to be it) may be left out."""
    results, _, run, _ = smoke
    for reason in results["invalid"].values():
        if "/dev/log" not in reason and "not installed" not in reason:
            pytest.fail(f"{reason}\n{run.stdout}{run.stderr}")
    return results


def samples(found):
    """All single runs below a part of the results."""
    if isinstance(found, list):
        return [sample for part in found for sample in samples(part)]
    if "calls" in found:
        return [found]
    return [sample for part in found.values() for sample in samples(part)]


def test_every_scenario_is_measured_in_every_form(results):
    """Each connection count, each mode and each store has as many samples as there were rounds."""
    plan = results["plan"]
    for scenario in ("socket", "bare", "slow"):
        for mode in ("kept", "each"):
            assert {n: len(found) for n, found in results[scenario][mode].items()} == dict.fromkeys(
                ("1", "4", "8", "16", "64"), plan["rounds"]
            )
    assert list(results["flat"]) == [str(size) for size in plan["sizes"]]
    assert all(len(found["few"]) == len(found["pam"]) == plan["rounds"] for found in results["flat"].values())
    assert len(results["start"]["ready_seconds"]) == len(results["start"]["rss_mib"]) == plan["starts"]
    if "slow_pam" not in results["invalid"]:
        for manner, calls in plan["slow_pam"].items():
            found = results["slow_pam"][manner]
            assert [sample["calls"] for system in found.values() for sample in system] == [calls] * 2 * plan["rounds"]


def test_otpbridge_accepted_every_code(results):
    """No figure rests on a login that was refused, and each run timed the calls that it was to time."""
    plan = results["plan"]
    ours = samples(results["socket"]) + samples(results["slow"]) + samples(results["flat"])
    if "pam" not in results["invalid"]:
        ours += samples(results["pam"]["otpbridge"])
        ours += [sample for manner in results["slow_pam"].values() for sample in manner["otpbridge"]]
    assert sum(sample["refused"] for sample in ours) == 0
    for mode in ("kept", "each"):
        for connections, found in results["socket"][mode].items():
            assert [sample["calls"] for sample in found] == [plan["wire"][connections]]


def test_the_audit_log_has_an_entry_for_each_verification(results):
    """The daemon that was measured did all that it does: its log is whole and names every login."""
    main = str(results["plan"]["sizes"][-1])
    calls = sum(
        sample["calls"]
        for part in (results["socket"], results["slow"], results["flat"][main])
        for sample in samples(part)
    )
    if "pam" not in results["invalid"]:
        calls += sum(sample["calls"] for sample in samples(results["pam"]["otpbridge"]))
        calls += sum(sample["calls"] for manner in results["slow_pam"].values() for sample in manner["otpbridge"])
    entries = int(results["audit"].split("intact: ")[1].split()[0].replace(",", ""))
    assert entries > calls


def test_figures_hang_together(results):
    """Times are in order, rates follow from counts and time, and slowed flushes did slow each commit."""
    everything = samples([results[name] for name in ("socket", "bare", "slow", "flat", "pam") if name in results])
    for sample in everything:
        assert 0 < sample["median"] <= sample["p95"] <= sample["p99"]
        assert sample["rate"] == pytest.approx((sample["calls"] - sample["refused"]) / sample["seconds"])
    assert all(sample["median"] >= results["plan"]["slow_ms"] for sample in samples(results["slow"]))
    assert results["help"]["cpu_ms"] > 0
    assert results["memory"]["rss_mib"] > 10


def test_what_must_hold_is_tried(results):
    """At once, after kill -9 and after a power cut: tried with every system there is, and ours keeps its word."""
    if {"replay", "guesses", "killed"} & set(results["invalid"]):
        pytest.skip("the peers cannot run here")
    replay, guesses, killed = (results[name]["otpbridge"] for name in ("replay", "guesses", "killed"))
    assert replay == {
        "codes": results["plan"]["race_codes"],
        "accepted": replay["codes"],
        "more_than_once": 0,
        "never": 0,
    }
    assert set(guesses["counted"]) == {guesses["of"]}
    assert killed["again"] == 0 < killed["let_in"] == killed["fresh"]
    if "cut" not in results["skipped"]:
        cut = results["cut"]["otpbridge"]
        assert cut["again"] == 0 < cut["let_in"] == cut["fresh"]
        # What the copy lacks is what was not flushed, and nothing else: where all was, nobody forgets a code.
        assert all(found["again"] == 0 for system, found in results["cut"].items() if system.endswith(" control"))


def test_targets_are_told_one_by_one(smoke):
    """Each promise stands in the table and on the terminal with what was reached, and met, MISSED or not judged."""
    results, table, run, _ = smoke
    assert "# What otpbridge costs" in table
    slow = f"flushes {results['plan']['slow_ms']} ms slower"
    for what in ("64 kept connections", "a connection per call", slow, "otpbridge --help", "otpbridge import"):
        assert any(
            what in line and line.endswith((" met |", " MISSED |", " not judged |")) for line in table.splitlines()
        )
        assert what in run.stdout


def test_a_broken_promise_is_told(results, tmp_path):
    """A code accepted twice, and a rate below half of the bare loop's, are called missed; one above half is met."""
    if "replay" in results["invalid"]:
        pytest.skip("the peers cannot run here")
    changed = json.loads(json.dumps(results))
    changed["replay"]["otpbridge"]["accepted"] += 1
    for mode, times in (("kept", 2.1), ("each", 1.9)):
        for ours, bare in zip(changed["socket"][mode]["64"], changed["bare"][mode]["64"], strict=True):
            bare["rate"] = times * ours["rate"]
    (tmp_path / "changed.json").write_text(json.dumps(changed))
    run = subprocess.run(
        [sys.executable, BENCHMARKS / "run.py", "--no-chart", "--report", tmp_path / "changed.json"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode in {0, 1}, run.stderr
    lines = (tmp_path / "changed.md").read_text().splitlines()
    for what, peer, answer in (
        ("one code from 8 processes", "google_authenticator", "MISSED"),
        ("64 kept connections", "bare loop", "MISSED"),
        ("a connection per call, 64 at once", "bare loop", "met"),
    ):
        told = [line for line in lines if line.startswith("| ") and what in line and f" {peer}" in line]
        assert [line.rpartition(" | ")[2] for line in told] == [f"{answer} |"]


def test_nothing_is_left_behind(smoke):
    """Stores, seeds and sockets of a run are gone when it ends."""
    _, _, run, left = smoke
    assert left == ["results"], run.stdout
