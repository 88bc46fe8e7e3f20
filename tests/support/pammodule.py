"""Builds the PAM module with meson, once however many test processes ask."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
from pathlib import Path

SOURCE = Path(__file__).resolve().parents[2] / "pam"


class ModuleBuildError(Exception):
    """The module does not build; the message is the compiler's."""


def build() -> Path:
    """Build the module as it is installed and return its path."""
    return build_in("build") / "pam_otpbridge.so"


def build_sanitized() -> Path:
    """Build the module with the address and undefined-behaviour sanitizers and return its path."""
    return build_in("build-sanitized", "-Db_sanitize=address,undefined") / "pam_otpbridge.so"


def build_in(name: str, *options: str, compiler: str | None = None) -> Path:
    """Configure `pam/NAME` with these meson options if that is still to be done, build, return the folder."""
    folder = SOURCE / name
    lock = os.open(SOURCE, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        environment = dict(os.environ, PATH=_search_path()) | ({"CC": compiler} if compiler else {})
        if not (folder / "build.ninja").exists():
            shutil.rmtree(folder, ignore_errors=True)
            _run([_tool("meson"), "setup", str(folder), str(SOURCE), *options], environment)
        _run([_tool("ninja"), "-C", str(folder)], environment)
    finally:
        os.close(lock)
    return folder


def sanitizer_library() -> str:
    """The path of the address sanitizer, which a program that was built without it must preload."""
    return subprocess.run(
        ["gcc", "-print-file-name=libasan.so"], check=True, capture_output=True, text=True
    ).stdout.strip()


def _search_path() -> str:
    return os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])


def _tool(name: str) -> str:
    found = shutil.which(name, path=_search_path())
    if found is None:
        raise ModuleBuildError(f"{name} is not installed; it belongs to the dependency group `build`")
    return found


def _run(command: list[str], environment: dict[str, str]) -> None:
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise ModuleBuildError(f"{' '.join(command)}:\n{done.stdout}{done.stderr}")


if __name__ == "__main__":
    print(build())
