"""The example of a verifier: built, checked and installed as a package, and logged in through."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pammodule
import pytest
from daemon_rig import CLI, SECONDS, Daemon, plain_environment, private_folder, provision
from pamstack import PAM_AUTH_ERR, PAM_AUTHINFO_UNAVAIL, PAM_SUCCESS, FromFile, Stack
from plugin_folder import environment

from otpbridge.model import Verdict

EXAMPLE = Path(__file__).resolve().parents[2] / "docs/examples/verifier-mailcode"

pytestmark = pytest.mark.system


def tool(*words, cwd=EXAMPLE, env=None):
    """Run a tool of Python's, which must succeed; what it says."""
    done = subprocess.run(
        [sys.executable, "-m", *map(str, words)],
        cwd=cwd,
        env=env or plain_environment(),
        capture_output=True,
        text=True,
        check=False,
        timeout=4 * SECONDS,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def site():
    """A folder in which the package is installed, from a wheel of its own."""
    with private_folder() as folder:
        tool("hatchling", "build", "-t", "wheel", "-d", folder / "dist")
        (wheel,) = (folder / "dist").iterdir()
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(folder / "site")
        yield folder / "site"


@pytest.fixture
def folder():
    with private_folder() as path:
        yield path


@pytest.fixture
def daemon(folder, site):
    """A daemon that delivers mail into a file; `fail` beside it makes delivery fail."""
    command = folder / "deliver"
    body = f"[ ! -e {folder}/fail ] || exit 3\ncat > {folder}/part\nmv {folder}/part {folder}/mail"
    command.write_text(f"#!/bin/sh\n{body}\n")
    command.chmod(0o755)
    config = f"""
        [verifiers.mailcode]
        command = "{command}"

        [stacks.mail]
        enforcement = "required"
        rules = ["sufficient totp", "required mailcode tries=2"]
    """
    with Daemon(folder, config=config, environment=environment(site)) as rig:
        yield rig


def delivered(folder):
    """User, client and code of the last mail."""
    return (folder / "mail").read_text().splitlines()


def test_the_example_passes_its_own_tests_and_strict_types(tmp_path):
    """A stranger who copies it begins with something that is right."""
    tool("pytest", "-q", "-p", "no:cacheprovider", "tests")
    tool("mypy", "--cache-dir", tmp_path, "src", "tests")


def test_people_log_in_with_the_code_of_their_mail(daemon, folder):
    """A wrong code for the authenticator leads to a mail; its code lets in, and never again."""
    key = provision(daemon, ["alice"])["alice"]
    with daemon.client() as client, client.begin("alice", stack="mail") as talk:
        assert [prompt.text for prompt in talk.prompts] == ["Verification code: "]
        talk.answer(key.wrong()[0])
        assert [prompt.text for prompt in talk.prompts] == ["Code from your mail: "]
        user, tenant, code = delivered(folder)
        assert (user, tenant) == ("alice", "local")
        assert re.fullmatch(r"\d{6}", code)
        talk.answer("x")
        assert [notice.text for notice in talk.notices] == ["That code does not match."]
        assert talk.answer(code).verdict is Verdict.SUCCESS
    with daemon.client() as client, client.begin("alice", stack="mail") as talk:
        for answer in (key.wrong()[0], code, code):
            talk.answer(answer)
        assert talk.verdict is Verdict.AUTH_ERR
    assert code not in daemon.log


def test_where_no_mail_can_be_sent_only_the_authenticator_lets_in(daemon, folder):
    """A command that fails refuses by itself; the code of the app goes on to work."""
    key = provision(daemon, ["alice"])["alice"]
    (folder / "fail").touch()
    with daemon.client() as client:
        assert client.verify("alice", key.wrong()[0], stack="mail").verdict is Verdict.AUTHINFO_UNAVAIL
        assert client.verify("alice", key.code(), stack="mail").verdict is Verdict.SUCCESS
    assert "verifier mailcode failed: FailedError: CalledProcessError in subprocess.py" in daemon.log


def test_people_log_in_by_pam_with_the_code_of_their_mail(daemon, folder):
    """The module asks for it as for any other code; a wrong one, and a mail that was not sent, refuse."""
    key = provision(daemon, ["alice"])["alice"]
    stack = Stack(folder / "pam", f"auth required {pammodule.build()} socket={daemon.verify_socket} stack=mail")
    login = stack.login("alice", [key.wrong()[0], FromFile(folder / "mail")])
    assert login.prompts == ["Verification code: ", "Code from your mail: "]
    assert login.code == PAM_SUCCESS
    assert stack.login("alice", [key.wrong()[0], "x", "y"]).code == PAM_AUTH_ERR
    (folder / "fail").touch()
    assert stack.login("alice", [key.wrong()[0]]).code == PAM_AUTHINFO_UNAVAIL


def test_it_is_listed_with_its_package_and_options(site, daemon):
    """`otpbridge stack verifiers` says where it is from and what can be set."""
    done = subprocess.run(
        [*CLI, "--json", "stack", "verifiers"],
        env=environment(site),
        capture_output=True,
        text=True,
        check=True,
        timeout=SECONDS,
    )
    (found,) = [each for each in json.loads(done.stdout) if each["name"] == "mailcode"]
    assert (found["package"], found["version"], found["fault"]) == ("otpbridge-verifier-mailcode", "1.0", None)
    assert [(each["name"], each["default"]) for each in found["options"]] == [
        ("command", None),
        ("digits", "6"),
        ("lifetime", "300"),
        ("tries", "3"),
        ("timeout", "8"),
    ]
