"""The examples for portals, run as they are printed against a real daemon; only the socket's place is another."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from daemon_rig import SECONDS, Daemon, plain_environment, private_folder, provision

DOCS = Path(__file__).resolve().parents[2] / "docs"
EXAMPLES = sorted((DOCS / "examples").glob("verify*"))

# What each needs, and how it is called.
CALLS = {
    "verify.py": ([sys.executable], []),
    "verify.php": (["php"], ["php"]),
    "verify.mjs": (["node"], ["node"]),
    "verify.go": (["go", "run"], ["go"]),
    "verify.sh": (["sh"], ["varlinkctl", "jq"]),
    "verify-socat.sh": (["sh"], ["socat"]),
}


@pytest.fixture(params=CALLS)
def example(request, tmp_path):
    """Calls one example in a folder of its own: `example(run_dir, user, code)` is the exit status."""
    name = request.param
    command, needs = CALLS[name]
    for tool in needs:
        if shutil.which(tool) is None:
            pytest.skip(f"{name}: {tool} is not installed")

    def call(run_dir, user, code):
        text = (DOCS / "examples" / name).read_text()
        copy = tmp_path / name
        copy.write_text(text.replace("/run/otpbridge/", f"{run_dir}/"))
        done = subprocess.run(
            [*command, copy, user],
            input=f"{code}\n",
            capture_output=True,
            text=True,
            check=False,
            timeout=4 * SECONDS,
            env=plain_environment(OTPBRIDGE_RUN_DIR=str(run_dir)),
        )
        assert done.stdout == ""
        return done.returncode

    return call


@pytest.fixture
def folder():
    with private_folder() as folder:
        yield folder


@pytest.mark.system
def test_an_example_lets_in_exactly_the_right_code_once(example, folder):
    """0 for the right code; 1 for it again, a wrong one, none, a strange user or code, and without a daemon."""
    with Daemon(folder) as daemon:
        key = provision(daemon, ["alice"], client="acme")["alice"]
        code = key.code()
        assert example(daemon.run_dir, "alice", key.wrong()[0]) == 1
        assert example(daemon.run_dir, "alice", code) == 0
        assert example(daemon.run_dir, "alice", code) == 1
        assert example(daemon.run_dir, "alice", "") == 1
        assert example(daemon.run_dir, "nobody", key.code(1)) == 1
        assert example(daemon.run_dir, 'al"ice', 'x"],"user":"alice","responses":["' + key.code(1)) == 1
        assert example(daemon.run_dir, "alice", key.code(1)) == 0
    assert example(folder / "run", "alice", key.code(2)) == 1


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_an_example_is_short_and_keeps_the_code_off_the_command_line(path):
    """Under 15 lines, and the only argument is the user."""
    text = path.read_text()
    assert len(text.splitlines()) < 15
    assert path.name in CALLS
    assert "standard input" in text


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_the_portal_page_shows_the_example_that_is_tested(path):
    """docs/portal.md has each example word for word."""
    assert f"```{path.suffix[1:]}\n{path.read_text()}```\n" in (DOCS / "portal.md").read_text()
