"""The folder of the store, the key beside it or elsewhere, the configuration, and room on the disk."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from otpbridge import config as configuration
from otpbridge.cli import soundness
from otpbridge.cli.doctor.findings import (
    SERVICE_USER,
    Finding,
    Places,
    fail,
    left_out,
    mode,
    ok,
    owner,
    trusted,
    warn,
)
from otpbridge.config import SYSTEM_CONFIG, SYSTEM_STATE, Config
from otpbridge.errors import ConfigError
from otpbridge.verify import loading

_MB = 1 << 20
_FEW, _TOO_FEW = 200 * _MB, 20 * _MB
"""Bytes that are left: below the first is a warning, below the second logins will fail soon."""


def settings(places: Places) -> list[Finding]:
    """The configuration is taken, and its stacks let in whom they should."""
    if closed := _closed_config(places):
        return closed
    try:
        source = configuration.read(places.config)
        parsed = source.parse()
        with source.told():
            stacks = loading.load(parsed)
    except ConfigError as error:
        return [fail(str(error), "put that line right; then: systemctl reload otpbridged")]
    found = soundness.look(parsed, stacks)
    named = places.config or (SYSTEM_CONFIG if SYSTEM_CONFIG.exists() else "no file, all defaults")
    return [*(warn(each, "otpbridge stack check") for each in found.warnings), ok(str(named))]


def _closed_config(places: Places) -> list[Finding]:
    path = places.config or SYSTEM_CONFIG
    closed = path.exists() and not os.access(path, os.R_OK)
    return [left_out(f"{path}: only root and the daemon may read it")] if closed else []


def _closed(path: Path) -> list[Finding]:
    closed = path.exists() and not os.access(path, os.R_OK | os.X_OK)
    return [left_out(f"{path}: only root and the daemon may look into it")] if closed else []


def folder(places: Places) -> list[Finding]:
    """Nobody else can read or swap the store."""
    path = places.state_dir
    if not path.exists():
        return [left_out(f"{path} is not there: no daemon has run with it yet, or it has another --state-dir")]
    if closed := _closed(path):
        return closed
    about = path.stat()
    found = []
    if not trusted(about.st_uid):
        found.append(fail(f"{path} belongs to {owner(about)}", f"chown {_whose(path)} {path}"))
    if about.st_mode & 0o022:
        found.append(fail(f"{path}: others can swap the store (mode {mode(about)})", f"chmod 0700 {path}"))
    elif about.st_mode & 0o077:
        found.append(warn(f"{path}: others can look into it (mode {mode(about)})", f"chmod 0700 {path}"))
    for each in sorted(path.glob("otpbridge.db*")):
        its = each.stat()
        if its.st_mode & 0o077:
            found.append(fail(f"{each}: others can read or write it (mode {mode(its)})", f"chmod 0600 {each}"))
        if its.st_uid != about.st_uid:
            found.append(
                fail(f"{each} belongs to {owner(its)}, its folder to {owner(about)}", f"chown {_whose(path)} {each}")
            )
    return found or [ok(f"{path}, {owner(about)}, mode {mode(about)}")]


def _whose(path: Path) -> str:
    return f"{SERVICE_USER}:{SERVICE_USER}" if path == SYSTEM_STATE else f"{os.geteuid()}:{os.getegid()}"


def key(places: Places) -> list[Finding]:
    """The master key: where it comes from, and who can read it."""
    if closed := _closed_config(places) or _closed(places.state_dir):
        return closed
    try:
        parsed = configuration.read(places.config).parse()
    except ConfigError:
        return [left_out("the configuration does not say where the key is, as it is not taken")]
    try:
        return _key(parsed, places)
    except PermissionError as error:
        return [left_out(f"{error.filename}: only root and the daemon may look there")]


def _key(parsed: Config, places: Places) -> list[Finding]:
    credential = places.credentials / parsed.key.credential
    path = parsed.key.file or places.state_dir / "master.key"
    if not path.exists():
        if credential.exists():
            return [ok(f"a systemd credential, {credential}")]
        if parsed.store.url is None and not (places.state_dir / "otpbridge.db").exists():
            return [left_out("there is no store yet, so no key")]
        return [
            fail(f"{path} is not there: no token of the store opens", "put the key back from where you keep a copy")
        ]
    return _key_file(path, places)


def _key_file(path: Path, places: Places) -> list[Finding]:
    about = path.lstat()
    if not stat.S_ISREG(about.st_mode):
        return [fail(f"{path} is no plain file, so the daemon does not start", f"put the key itself at {path}")]
    if about.st_mode & 0o077:
        return [fail(f"{path}: others can read or change it (mode {mode(about)})", f"chmod 0400 {path}")]
    if not trusted(about.st_uid):
        return [fail(f"{path} belongs to {owner(about)}", f"chown {_whose(places.state_dir)} {path}")]
    beside = ", beside the store" if path.parent.resolve() == places.state_dir.resolve() else ""
    return [ok(f"{path}, {owner(about)}, mode {mode(about)}{beside}")]


def room(places: Places) -> list[Finding]:
    """Bytes and files that the store can still grow by."""
    path = places.state_dir
    if not path.exists():
        return [left_out(f"{path} is not there")]
    about = os.statvfs(path)
    left = about.f_bavail * about.f_frsize
    said = f"{left // _MB} MB left for {path}"
    if about.f_files and about.f_favail < 100:
        return [fail(f"no room for files is left at {path}", f"df -i {path}")]
    if left < _TOO_FEW:
        return [fail(f"{said}; on a full disk nobody gets in", f"df -h {path}; du -xsh {path}")]
    if left < _FEW:
        return [warn(said, f"df -h {path}; du -xsh {path}")]
    return [ok(said)]
