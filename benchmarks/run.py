"""Measure otpbridge beside its peers: `make bench-peers`, or `make bench` without privacyIDEA and PostgreSQL.

BENCH_ARGS=--quick leaves the store of a million out. Needs a gcc with libpam's headers, libpam-google-authenticator,
libpam-oath, and a syslog daemon or root (the peers log each login; without a listener on /dev/log that goes to the
console and takes longer than the login). The power cut needs root, and is left out without.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

import plan as plans
import postgresql
import powercut
import privacyidea
import report
import safety
from native import InvalidRunError
from rig import Record, Rig
from scenarios import Bench

HERE = Path(__file__).resolve().parent
CHECKOUT = HERE.parent
SAFETY = {
    "replay": safety.replay,
    "guesses": safety.guesses,
    "killed": safety.killed,
    "cut": powercut.cut,
}
PEERS = {
    "postgresql": postgresql.measure,
    "privacyidea": privacyidea.speed,
    "privacyidea_safety": privacyidea.safety,
    "privacyidea_cut": privacyidea.cut,
}


def main() -> int:
    """Run it; 0 unless something could not be measured, be the figures good or bad."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peers", action="store_true", help="beside privacyIDEA and on PostgreSQL too")
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--quick", action="store_true", help="fewer rounds, and no store of a million users")
    how.add_argument("--smoke", action="store_true", help="a few calls each: shows that the harness works, not more")
    parser.add_argument("--module", type=Path, default=CHECKOUT / "pam" / "build" / "pam_otpbridge.so")
    parser.add_argument(
        "--folder",
        type=Path,
        default=os.environ.get("OTPBRIDGE_BENCH_DIR", CHECKOUT.parent),
        help="where the stores are made, on the disk to measure (default: beside the checkout)",
    )
    parser.add_argument("--results", type=Path, default=HERE / "results")
    parser.add_argument("--no-chart", action="store_true")
    parser.add_argument(
        "--report", type=Path, metavar="JSON", help="measure nothing: make the report of these figures"
    )
    options = parser.parse_args()
    if options.report:
        return _write(json.loads(options.report.read_text()), options.report.parent, options.report.stem, options)
    if not options.module.exists():
        parser.error(f"{options.module} does not exist: run `make pam` first")
    plan = plans.SMOKE if options.smoke else plans.QUICK if options.quick else plans.FULL

    # Ended by another, it still stops its daemons, unmounts and removes what it made.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    begun = time.monotonic()
    # Short, as a socket's path must be; others may not enter, as peers' secrets are in it.
    folder = Path(tempfile.mkdtemp(prefix="otpb-bench-", dir=options.folder))
    try:
        rig = Rig.make(folder, options.module.resolve(), plan, lambda text: print(text, flush=True))
        bench = Bench(rig, SAFETY | PEERS if options.peers else SAFETY)
        _warn(bench.results["machine"], plan)
        bench.run()
    except InvalidRunError as error:
        print(f"Nothing was measured: {error}", file=sys.stderr)
        return 1
    finally:
        shutil.rmtree(folder)
    results = bench.results
    results["minutes"] = (time.monotonic() - begun) / 60
    results["command"] = _command(options)
    return _write(results, options.results, "peers" if options.peers else "results", options)


def _write(results: Record, folder: Path, name: str, options: argparse.Namespace) -> int:
    written = report.write(results, folder, name)
    if not options.no_chart:
        import chart  # noqa: PLC0415 - matplotlib is a library of the bench alone

        chart.draw(results, folder / f"{name}.png")
        written.append(folder / f"{name}.png")
    print(f"\n{report.plain(results)}\n")
    for path in written:
        print(f"written: {os.path.relpath(path)}")
    return 1 if results["invalid"] else 0


def _warn(about: dict[str, str | int | float], plan: plans.Plan) -> None:
    if plan is plans.SMOKE:
        print("WARNING: a smoke run: its figures mean nothing")
    if float(about["load_before"]) > 0.5:
        print(
            f"WARNING: load average {about['load_before']:.2f}: others use this machine, absolute figures mean little"
        )
    if about["file_system"] in {"tmpfs", "ramfs"}:
        print("WARNING: the stores are in memory, so nothing here is durable: set OTPBRIDGE_BENCH_DIR")


def _command(options: argparse.Namespace) -> str:
    target = "make bench-peers" if options.peers else "make bench"
    how = "--quick" if options.quick else "--smoke" if options.smoke else ""
    return f"{target} BENCH_ARGS={how}" if how else target


if __name__ == "__main__":
    sys.exit(main())
