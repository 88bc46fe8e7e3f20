"""PAM services and Linux accounts of their own, in a mount namespace: for programs that cannot be told a folder.

    system = System(folder, {"otpbridge-password": "auth required pam_unix.so"}, {"alice": "her password"})
    subprocess.run(system.inside("python", "-c", "…"))

/etc/pam.d, /etc/passwd, /etc/shadow and /etc/group are private there; nothing outside changes. It needs root and
the right to mount.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest
from sshdstack import FIRST_UID, _hashed

_INSIDE = """
set -e
cd "$1"; shift
for name in passwd shadow group; do mount --bind "$name" "/etc/$name"; done
mount --bind pam.d /etc/pam.d
cd /
exec "$@"
"""
OTHER = "auth required pam_deny.so\naccount required pam_deny.so\n"


class System:
    """Accounts by name with their passwords; services by name with their lines, and `other` that denies."""

    def __init__(self, folder: Path, services: Mapping[str, str], accounts: Mapping[str, str]) -> None:
        self._etc = folder / "etc"
        self._accounts = list(accounts)
        pam = self._etc / "pam.d"
        pam.mkdir(parents=True)
        for name, lines in {"other": OTHER, **services}.items():
            (pam / name).write_text(lines)
        passwd, shadow, group = ["root:x:0:0:root:/root:/bin/sh"], ["root:*:19000::::::"], ["root:x:0:"]
        for user, password in accounts.items():
            uid = self.uid(user)
            passwd.append(f"{user}:x:{uid}:{uid}::/nonexistent:/bin/sh")
            shadow.append(f"{user}:{_hashed(password)}:19000:0:99999:7:::")
            group.append(f"{user}:x:{uid}:")
        for name, lines, mode in (("passwd", passwd, 0o644), ("shadow", shadow, 0o640), ("group", group, 0o644)):
            (self._etc / name).write_text("\n".join(lines) + "\n")
            (self._etc / name).chmod(mode)

    def uid(self, user: str) -> int:
        return FIRST_UID + self._accounts.index(user)

    def expire(self, user: str) -> None:
        """The account has ended long ago."""
        path = self._etc / "shadow"
        lines = [
            line.replace(":7:::", ":7::19001:") if line.startswith(f"{user}:") else line
            for line in path.read_text().splitlines()
        ]
        path.write_text("\n".join(lines) + "\n")

    def inside(self, *words: object) -> list[str]:
        """The command that runs these words there."""
        return ["unshare", "--mount", "--propagation", "private", "sh", "-c", _INSIDE, "sh", str(self._etc)] + [
            os.fspath(word) if isinstance(word, Path) else str(word) for word in words
        ]


def need_system() -> None:
    """Skip where that cannot be made."""
    if os.geteuid() != 0:
        pytest.skip("needs root: mounts a private /etc")
    if shutil.which("unshare") is None:
        pytest.skip("unshare is not installed")
    if subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False).returncode != 0:
        pytest.skip("no private mounts here")
