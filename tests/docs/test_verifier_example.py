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

from otpbridge.config import Limits
from otpbridge.daemon import attempt, port, room
from otpbridge.model import Verdict
from otpbridge.verify import registry

EXAMPLE = Path(__file__).resolve().parents[2] / "docs/examples/verifier-mailcode"

GUIDE = Path(__file__).resolve().parents[2] / "docs/verifiers.md"
FILES = {
    "pyproject.toml": "text",
    "otpbridge_verifier_word.py": "python",
    "test_word.py": "python",
    "otpbridge.toml": "toml",
}
"""What the guide has its reader write, with the language of the block."""

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


def cli(*words, site):
    """What the command line says as JSON, where the packages of `site` are installed."""
    done = subprocess.run(
        [*CLI, *words], env=environment(site), capture_output=True, text=True, check=True, timeout=SECONDS
    )
    return json.loads(done.stdout)


def install(package, folder):
    """Build a package's wheel, and unpack it in `folder`/site as an installer does."""
    tool("hatchling", "build", "-t", "wheel", "-d", folder / "dist", cwd=package)
    (wheel,) = (folder / "dist").iterdir()
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


@pytest.fixture(scope="module")
def site():
    """A folder in which the package is installed, from a wheel of its own."""
    with private_folder() as folder:
        yield install(EXAMPLE, folder)


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
    listed = cli("--json", "stack", "verifiers", site=site)
    (found,) = [each for each in listed if each["name"] == "mailcode"]
    assert (found["package"], found["version"], found["fault"]) == ("otpbridge-verifier-mailcode", "1.0", None)
    assert [(each["name"], each["default"]) for each in found["options"]] == [
        ("command", None),
        ("digits", "6"),
        ("lifetime", "300"),
        ("tries", "3"),
        ("timeout", "8"),
    ]


# --- the guide ---


@pytest.fixture
def written(folder):
    """The files that the guide has its reader write, in a folder."""
    page = GUIDE.read_text()
    package = folder / "word"
    package.mkdir()
    for name, language in FILES.items():
        block = re.search(rf"`{re.escape(name)}`.*?^```{language}\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
        assert block is not None, name
        (package / name).write_text(block[1])
    return package


def test_the_guide_leads_to_a_login_as_written(written, folder):
    """Its files make a package whose test passes, whose types are right, and through which people log in."""
    installed = install(written, folder)
    tool("pytest", "-q", "-p", "no:cacheprovider", "test_word.py", cwd=written, env=environment(installed))
    tool("mypy", "--strict", "--cache-dir", folder / "types", "otpbridge_verifier_word.py", cwd=written)
    config = (written / "otpbridge.toml").read_text()
    with Daemon(folder, config=config, environment=environment(installed)) as daemon, daemon.client() as client:
        assert client.verify("alice", "please", stack="word").verdict is Verdict.SUCCESS
        assert client.verify("alice", "pleas", stack="word").verdict is Verdict.AUTH_ERR
        assert client.verify("alice", "", stack="word").verdict is Verdict.AUTH_ERR
    said = cli("--json", "stack", "check", "--config", str(written / "otpbridge.toml"), site=installed)
    assert (said["warnings"], [each["name"] for each in said["stacks"]]) == ([], ["default", "word"])


def test_the_guide_says_the_limits_that_hold():
    """Numbers in the text are those of the program."""
    page = GUIDE.read_text()
    for text in (
        f"a prompt has at most {port._LONGEST_PROMPT} characters, a notice {port._LONGEST_NOTICE}",
        f"an attempt tells {attempt._MOST_TOLD} in all",
        f"`[limits] questions` times ({Limits().questions})",
        f"1 to {registry.MOST_AT_ONCE}; {registry.AT_ONCE} when left out",
        f"`[limits] verifier` seconds ({Limits().verifier})",
        f"With {room.MOST_LOST} that are overdue",
        f"may have {room.MOST_THREADS} threads",
    ):
        assert text in page.replace("\n", " "), text
