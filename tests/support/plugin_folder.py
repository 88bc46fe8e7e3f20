"""Folders with packages of verifiers, as an installer leaves them, for daemons of tests."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from daemon_rig import plain_environment

PLUGINS = Path(__file__).with_name("plugins")


def declare(folder: Path, package: str, verifiers: Mapping[str, str], version: str = "1.0") -> None:
    """Say in `folder` that a package is installed there which has these verifiers: name and `module:Class`."""
    about = folder / f"{package.replace('-', '_')}-{version}.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: {version}\n")
    lines = [f"{name} = {target}" for name, target in verifiers.items()]
    (about / "entry_points.txt").write_text("\n".join(["[otpbridge.verifiers]", *lines, ""]))


def environment(*folders: Path) -> dict[str, str]:
    """The environment of a daemon or command that finds what is installed in these folders."""
    return plain_environment(PYTHONPATH=os.pathsep.join(map(os.fspath, folders)))
