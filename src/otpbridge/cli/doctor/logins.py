"""What logins find: the files of pam.d, the module that they name, and sshd before them."""

from __future__ import annotations

import os
from pathlib import Path, PurePath

from otpbridge.cli.doctor import pam, sshd
from otpbridge.cli.doctor.findings import Finding, Places, fail, left_out, mode, ok, owner, printed, trusted

_LARGEST_FILE = 1 << 20
_NO_SERVICES = ("~", ".bak", ".orig", ".rpmnew", ".rpmsave", ".rpmorig")
"""Ends of names of files that no program asks for."""


def pam_files(places: Places) -> list[Finding]:
    """Options, order, and ways past the code."""
    files, unread = _read(places.pam_dir)
    return [*pam.judge(files), *unread]


def _read(folder: Path) -> tuple[dict[str, str], list[Finding]]:
    files: dict[str, str] = {}
    unread = []
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if path.name.endswith(_NO_SERVICES) or ".dpkg-" in path.name or not path.is_file():
            continue
        try:
            with path.open(errors="replace") as file:
                files[path.name] = file.read(_LARGEST_FILE)
        except OSError as error:
            unread.append(left_out(f"{path}: {error.strerror}"))
    return files, unread


def module(places: Places) -> list[Finding]:
    """The file of the module, where libpam looks for it."""
    files, _ = _read(places.pam_dir)
    named = {rule.module for name, text in files.items() for rule in pam.parse(text, name) if rule.ours}
    if not named:
        return [left_out("no file in pam.d names the module")]
    return [found for each in sorted(named) for found in _module(each, places)]


def module_path(places: Places, named: str = pam.MODULE) -> Path | None:
    """The file that libpam loads for this name; None where there is none."""
    if named.startswith("/"):
        candidates = [Path(named)]
    else:
        candidates = [folder / PurePath(named).name for folder in places.module_dirs]
    return next((path.resolve() for path in candidates if path.exists()), None)


def _module(named: str, places: Places) -> list[Finding]:
    path = module_path(places, named)
    if path is None:
        beside = next((folder for folder in places.module_dirs if (folder / "pam_unix.so").exists()), None)
        target = named if named.startswith("/") else f"{beside or places.module_dirs[0]}/{named}"
        return [
            fail(
                f"{target} is not there, so every login that names it is refused",
                f"install -m 0644 pam/build/pam_otpbridge.so {target}",
            )
        ]
    about = path.stat()
    if not trusted(about.st_uid) or about.st_mode & 0o022:
        return [
            fail(
                f"{path}: others can change it (owner {owner(about)}, mode {mode(about)})",
                f"chown root:root {path} && chmod 0644 {path}",
            )
        ]
    return [ok(f"{path}")]


def sshd_settings(places: Places) -> list[Finding]:
    """Whether sshd asks PAM, for every way in."""
    files, _ = _read(places.pam_dir)
    rules = [rule for rule in pam.stack(files, "sshd", "auth") if rule.ours]
    if not rules:
        return [left_out("sshd's file in pam.d does not ask for a code")]
    if os.geteuid() != 0:
        return [left_out("only root can ask sshd for its settings")]
    said = printed(*places.sshd)
    if said.complaint:
        return [left_out(f"sshd does not say its settings: {said.complaint}")]
    one_answer = any({"forward_pass", "try_first_pass", "use_first_pass"} & set(rule.arguments) for rule in rules)
    return sshd.judge(sshd.parse(said.text), one_answer=one_answer)
