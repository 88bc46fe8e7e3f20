"""The units of programs beside the daemon: systemd finds nothing wrong with them, and their users are made."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

SYSTEMD = Path(__file__).resolve().parents[2] / "systemd"
PROGRAMS = ("otpbridge-exporter", "otpbridge-notify", "otpbridge-portal")


@pytest.fixture
def analysed(tmp_path):
    """What `systemd-analyze verify` says of a unit, changed as a test wants."""
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed")

    def run(program, old="", new=""):
        unit = f"{program}.service"
        text = (SYSTEMD / unit).read_text().replace("/opt/otpbridge/bin/otpbridge", "/bin/true")
        (tmp_path / unit).write_text(text.replace(old, new) if old else text)
        command = ["systemd-analyze", "verify", "--man=no", tmp_path / unit]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        return done.stdout + done.stderr

    return run


@pytest.mark.parametrize("program", PROGRAMS)
def test_systemd_finds_nothing_wrong_with_the_unit(analysed, program):
    """No setting is misspelt; one that was would be found."""
    assert analysed(program) == ""
    assert "ProtectHom" in analysed(program, "ProtectHome=", "ProtectHom=")


@pytest.mark.parametrize("program", PROGRAMS)
def test_the_user_of_the_unit_is_made(tmp_path, program):
    """The daemon looks its callers up by name, so the user has to be there before the unit runs."""
    if shutil.which("systemd-sysusers") is None:
        pytest.skip("systemd-sysusers is not installed")
    (tmp_path / "etc").mkdir()
    subprocess.run(["systemd-sysusers", f"--root={tmp_path}", SYSTEMD / f"{program}.sysusers.conf"], check=True)
    assert f"{program}:" in (tmp_path / "etc/passwd").read_text()
    assert f"User={program}\n" in (SYSTEMD / f"{program}.service").read_text()


@pytest.mark.parametrize("program", ["otpbridge-exporter", "otpbridge-portal"])
def test_what_answers_the_network_is_exposed_to_little(program):
    """`systemd-analyze security` rates its sandbox at 1.5 or less, as the daemon's."""
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed")
    command = ["systemd-analyze", "security", "--offline=true", "--no-pager", SYSTEMD / f"{program}.service"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert float(re.search(r"exposure level for .*: ([\d.]+)", done.stdout)[1]) <= 1.5, done.stdout
