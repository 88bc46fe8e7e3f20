"""What the machine is, and what it is doing."""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import platform
import select
import shutil
import signal
import sqlite3
import statistics
import subprocess
import time
from pathlib import Path

_TICK = os.sysconf("SC_CLK_TCK")
_IDLE, _IOWAIT = 3, 4


def busy_seconds() -> float:
    """Processor time that anything has used since the machine started."""
    fields = Path("/proc/stat").read_text().splitlines()[0].split()[1:9]
    ticks = [int(field) for field in fields]
    return (sum(ticks) - ticks[_IDLE] - ticks[_IOWAIT]) / _TICK


def cpu_seconds(pid: int) -> float:
    """Processor time that a process and its children have used, those that ended among them."""
    total = sum(_ticks(pid, 4))
    for child in children(pid):
        try:
            total += sum(_ticks(child, 2))
        except (FileNotFoundError, ProcessLookupError):
            # It ended meanwhile.
            continue
    return total / _TICK


def _ticks(pid: int, count: int) -> list[int]:
    """utime and stime of a process, then those of its children that ended."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return [int(field) for field in fields[11 : 11 + count]]


def children(pid: int) -> list[int]:
    """The processes that a process has started and that run."""
    return [int(child) for path in Path(f"/proc/{pid}/task").glob("*/children") for child in path.read_text().split()]


def kill_and_wait(pid: int) -> None:
    """SIGKILL for a process that need not be our child, until it is gone."""
    with contextlib.suppress(ProcessLookupError):
        handle = os.pidfd_open(pid)
        try:
            signal.pidfd_send_signal(handle, signal.SIGKILL)
            select.select([handle], [], [], 10)
        finally:
            os.close(handle)


def resident_mib(pid: int) -> float:
    """Resident memory of a process."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise ProcessLookupError(pid)


def flush_ms(folder: Path, count: int = 200) -> float:
    """Median time of an fdatasync after 4 KiB were overwritten, in milliseconds."""
    path = folder / "flush.probe"
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        spent = []
        for _ in range(count):
            os.pwrite(handle, os.urandom(4096), 0)
            begun = time.perf_counter()
            os.fdatasync(handle)
            spent.append((time.perf_counter() - begun) * 1000)
    finally:
        os.close(handle)
        path.unlink()
    return statistics.median(spent)


def file_system(folder: Path) -> str:
    """The type of the file system that a folder is on."""
    best, found = "", "unknown"
    where = str(folder.resolve())
    for line in Path("/proc/mounts").read_text().splitlines():
        _, place, kind, *_ = line.split()
        inside = where == place or where.startswith(place.rstrip("/") + "/")
        if inside and len(place) >= len(best):
            best, found = place, kind
    return found


def versions() -> dict[str, str]:
    """What is compared, and what it stands on."""
    packages = {
        "Linux-PAM": "libpam0g",
        "pam_google_authenticator": "libpam-google-authenticator",
        "pam_oath": "libpam-oath",
    }
    found = {"otpbridge": importlib.metadata.version("otpbridge"), "SQLite": sqlite3.sqlite_version}
    for name, package in packages.items():
        found[name] = _debian_version(package)
    return found


def _debian_version(package: str) -> str:
    if shutil.which("dpkg-query") is None:
        return "unknown"
    asked = ["dpkg-query", "-W", "-f", "${Version}", package]
    return subprocess.run(asked, capture_output=True, text=True, check=False).stdout.strip() or "not installed"


def describe(folder: Path) -> dict[str, str | int | float]:
    """What the figures depend on. `folder` is where the stores are."""
    models = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    ]
    return {
        "date": time.strftime("%Y-%m-%d"),
        "processor": models[0] if models else platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "file_system": file_system(folder),
        "flush_ms": flush_ms(folder),
        "load_before": os.getloadavg()[0],
    }
