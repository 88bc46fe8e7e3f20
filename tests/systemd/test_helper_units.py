"""The unit files of the PAM helper: systemd's own tools find nothing wrong, and helper and daemon agree."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

SYSTEMD = Path(__file__).resolve().parents[2] / "systemd"
SOCKET = "otpbridge-pam-helper.socket"
SERVICE = "otpbridge-pam-helper@.service"


def run(*command):
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture
def units(tmp_path):
    """Copies of both whose program exists here."""
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed")
    for name in (SOCKET, SERVICE):
        text = (SYSTEMD / name).read_text()
        (tmp_path / name).write_text(text.replace("/opt/otpbridge/bin/python", "/bin/true"))
    return tmp_path


def settings(name):
    lines = (line.partition("=") for line in (SYSTEMD / name).read_text().splitlines() if not line.startswith("#"))
    return {key: value for key, separator, value in lines if separator}


def test_systemd_finds_nothing_wrong_with_the_units(units):
    """`systemd-analyze verify` says nothing; with a setting misspelt it does."""
    done = run("systemd-analyze", "verify", "--man=no", units / SOCKET, units / SERVICE)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
    (units / SERVICE).write_text((units / SERVICE).read_text().replace("ProtectSystem=", "ProtectSytem="))
    assert "ProtectSytem" in run("systemd-analyze", "verify", "--man=no", units / SOCKET, units / SERVICE).stderr


def test_the_helper_is_exposed_to_little(units):
    """`systemd-analyze security` rates a root process with this sandbox at 1.5 or less."""
    done = run("systemd-analyze", "security", "--offline=true", "--no-pager", units / SERVICE)
    assert float(re.search(r"exposure level for .*: ([\d.]+)", done.stdout)[1]) <= 1.5, done.stdout


def test_only_the_daemon_can_connect():
    """The socket is the daemon user's alone, and so is the helper's answer."""
    socket = settings(SOCKET)
    user = settings("otpbridged.service")["User"]
    assert (socket["SocketUser"], socket["SocketMode"]) == (user, "0600")
    assert settings(SERVICE)["ExecStart"].endswith(f"--service otpbridge-password --user {user}")


def test_each_password_has_a_process_of_its_own_that_ends():
    """Accept=yes, the connection as standard input, nothing else written into it, and a bounded time."""
    service = settings(SERVICE)
    assert settings(SOCKET)["Accept"] == "yes"
    assert (service["StandardInput"], service["StandardOutput"], service["StandardError"]) == (
        "socket",
        "journal",
        "journal",
    )
    assert int(service["RuntimeMaxSec"]) > 15
    assert service["LimitCORE"] == service["MemorySwapMax"] == "0"
