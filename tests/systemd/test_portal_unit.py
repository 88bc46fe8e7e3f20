"""The unit of the portal: systemd finds nothing wrong with it, it is exposed to little, and its user is made."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

SYSTEMD = Path(__file__).resolve().parents[2] / "systemd"
UNIT = "otpbridge-portal.service"


@pytest.fixture
def analysed(tmp_path):
    """What `systemd-analyze verify` says of the unit, changed as a test wants."""
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed")

    def run(old="", new=""):
        text = (SYSTEMD / UNIT).read_text().replace("/opt/otpbridge/bin/otpbridge", "/bin/true")
        (tmp_path / UNIT).write_text(text.replace(old, new) if old else text)
        command = ["systemd-analyze", "verify", "--man=no", tmp_path / UNIT]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        return done.stdout + done.stderr

    return run


def test_systemd_finds_nothing_wrong_with_the_unit(analysed):
    """No setting is misspelt; one that was would be found."""
    assert analysed() == ""
    assert "ProtectHom" in analysed("ProtectHome=", "ProtectHom=")


def test_the_user_of_the_unit_is_made(tmp_path):
    """The daemon looks its callers up by name, so the user has to be there before the unit runs."""
    if shutil.which("systemd-sysusers") is None:
        pytest.skip("systemd-sysusers is not installed")
    (tmp_path / "etc").mkdir()
    subprocess.run(["systemd-sysusers", f"--root={tmp_path}", SYSTEMD / "otpbridge-portal.sysusers.conf"], check=True)
    assert "otpbridge-portal:" in (tmp_path / "etc/passwd").read_text()
    assert "User=otpbridge-portal\n" in (SYSTEMD / UNIT).read_text()


def test_the_portal_is_exposed_to_little():
    """`systemd-analyze security` rates its sandbox at 1.5 or less, as the daemon's."""
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed")
    command = ["systemd-analyze", "security", "--offline=true", "--no-pager", SYSTEMD / UNIT]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert float(re.search(r"exposure level for .*: ([\d.]+)", done.stdout)[1]) <= 1.5, done.stdout
