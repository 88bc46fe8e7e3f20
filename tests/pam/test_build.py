"""What the module is made of: symbols, hardening, unit tests, man page."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pammodule
import pytest

ENTRY_POINTS = {"pam_sm_authenticate", "pam_sm_acct_mgmt", "pam_sm_setcred"}

PAM_CALLS = {"pam_get_item", "pam_set_item", "pam_get_user", "pam_prompt", "pam_syslog"}
SYSTEM_CALLS = {
    *("socket", "connect", "getsockopt", "send", "recv", "poll", "close", "fcntl", "fcntl64"),
    *("stat", "stat64", "lstat", "lstat64", "geteuid", "getpwnam_r", "clock_gettime", "calloc", "free"),
}
STRING_CALLS = re.compile(r"(str|mem|explicit_bzero|__\w+_chk$|__stack_chk_fail|__errno_location)\w*")


def dynamic_symbols(module: Path, which: str) -> set[str]:
    """Names of dynamic symbols without their versions."""
    listing = subprocess.run(
        ["nm", "-D", "--format=posix", which, module], check=True, capture_output=True, text=True
    )
    return {line.split()[0].partition("@")[0] for line in listing.stdout.splitlines()}


def test_only_entry_points_are_exported():
    """No name of the module can meet a name of the host program."""
    assert dynamic_symbols(pammodule.build(), "--defined-only") == ENTRY_POINTS


def test_the_module_can_do_nothing_else():
    """It calls libpam, a socket and a clock: nothing that reads the environment, files or changes the process."""
    used = {
        name
        for name in dynamic_symbols(pammodule.build(), "--undefined-only")
        if not name.startswith(("_ITM_", "__gmon_start__", "__cxa_finalize"))
    }
    assert used >= PAM_CALLS
    assert {name for name in used - PAM_CALLS - SYSTEM_CALLS if not STRING_CALLS.fullmatch(name)} == set()


def test_the_module_is_hardened():
    """Relocations are read-only, the stack is not executable, nothing is linked but libpam and libc."""
    listing = subprocess.run(
        ["readelf", "-Wld", pammodule.build()], check=True, capture_output=True, text=True
    ).stdout
    assert "GNU_RELRO" in listing
    assert re.search(r"FLAGS.*\bNOW\b", listing)
    assert re.search(r"GNU_STACK.*\bRW\b", listing)
    assert set(re.findall(r"NEEDED.*\[(.*)\]", listing)) == {"libpam.so.0", "libc.so.6"}
    assert "__stack_chk_fail" in dynamic_symbols(pammodule.build(), "--undefined-only")


def run_unit_tests(folder: Path) -> None:
    """Run the unit tests in C of a build."""
    programs = sorted(
        path for path in (folder / "tests").glob("test_*") if os.access(path, os.X_OK) and path.is_file()
    )
    assert len(programs) >= 5
    for program in programs:
        done = subprocess.run([program], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


needs_cmocka = pytest.mark.skipif(
    not Path("/usr/include/cmocka.h").exists(), reason="cmocka (libcmocka-dev) is not installed"
)


@needs_cmocka
def test_unit_tests():
    """Every file of the module does what its header says."""
    run_unit_tests(pammodule.build().parent)


@needs_cmocka
@pytest.mark.campaign
def test_unit_tests_under_sanitizers():
    """None of that touches memory it must not, nor leaks any."""
    run_unit_tests(pammodule.build_sanitized().parent)


@pytest.mark.skipif(shutil.which("mandoc") is None, reason="mandoc is not installed")
def test_man_page():
    """The man page is well made and names every option."""
    page = pammodule.SOURCE / "pam_otpbridge.8"
    assert (
        subprocess.run(
            ["mandoc", "-T", "lint", "-W", "warning", page], capture_output=True, text=True, check=False
        ).stdout
        == ""
    )
    source = (pammodule.SOURCE / "options.c").read_text()
    options = re.findall(r'^    \{"([\w-]+)", (?:true|false), set_', source, re.MULTILINE)
    assert len(options) >= 13
    text = subprocess.run(["mandoc", "-T", "ascii", page], capture_output=True, text=True, check=True).stdout
    plain = re.sub(r".\x08", "", text)
    assert [option for option in options if option not in plain] == []
