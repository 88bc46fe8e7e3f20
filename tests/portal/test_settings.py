"""portal.toml: what is wrong is said with its key; what the pages show is right; what the command lacks it says."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from daemon_rig import CLI, plain_environment

from otpbridge.portal import settings
from otpbridge.portal.settings import SettingsError
from otpbridge.portal.source import browser_address

ROOT = Path(__file__).resolve().parents[2]
LEAST = '[clients.acme]\nhosts = ["portal.acme.example"]\ntitle = "Acme"\n'


@pytest.fixture
def load(tmp_path):
    """Reads a text as portal.toml."""

    def load(text):
        path = tmp_path / "portal.toml"
        path.write_text(text)
        return settings.load(path)

    return load


def test_a_client_is_all_that_is_needed(load):
    """The rest has defaults that are right behind a proxy on the same machine."""
    portal = load(LEAST)
    assert (portal.listen.host, portal.listen.port) == ("127.0.0.1", 8480)
    assert portal.brands["portal.acme.example"].name == "acme"
    assert not portal.brands["portal.acme.example"].is_admin("alice")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", r".*`clients`"),
        ("x = ", r"not TOML"),
        ("lissten = '127.0.0.1:1'\n" + LEAST, r"lissten: no such key; did you mean listen\?"),
        (LEAST + "titel = 'x'\n", r"clients\.acme\.titel: no such key; did you mean title\?"),
        ("[sessions]\nidel = 60\n" + LEAST, r"sessions\.idel: no such key; did you mean idle\?"),
        ("[sessions]\nidle = 1\n" + LEAST, r"sessions\.idle: .*>= 30"),
        ("[sessions]\nidle = 900\nabsolute = 600\n" + LEAST, r"sessions\.idle: is longer than sessions\.absolute"),
        ("listen = 'nowhere'\n" + LEAST, r"listen: 'nowhere' is neither"),
        ("listen = '127.0.0.1:99999'\n" + LEAST, r"listen: '127.0.0.1:99999' is neither"),
        ("trusted_proxies = ['proxy']\n" + LEAST, r"trusted_proxies: 'proxy'"),
        ("[clients.acme]\ntitle = 'x'\nhosts = []\n", r"clients\.acme\.hosts: "),
        (
            "[clients.acme]\ntitle = 'x'\nhosts = ['A.example']\n",
            r"clients\.acme\.hosts: 'A\.example' is no host name",
        ),
        (LEAST + LEAST.replace("acme]", "b]"), r"clients\.b\.hosts: portal\.acme\.example is acme's already"),
        (LEAST + "accent = 'red; } * { x: y'\n", r"clients\.acme\.accent: is no colour"),
        (LEAST + "logo = 'logo.exe'\n", r"clients\.acme\.logo: must be a file of"),
        (LEAST + "logo = 'logo.svg'\n", r"clients\.acme\.logo: logo\.svg cannot be read"),
        (LEAST + "login_link = 'javascript:x'\n", r"clients\.acme\.login_link: must be an address"),
        (LEAST + "admins = 'boss'\n", r"clients\.acme\.admins: Expected `array`"),
    ],
)
def test_what_is_wrong_is_said_with_file_and_key(load, text, said):
    """One line that says where, what and how it would be right."""
    with pytest.raises(SettingsError, match=rf"portal\.toml: {said}"):
        load(text)


def test_what_the_pages_show_is_accepted(load):
    """The configurations in the guide and in the man page."""
    guide = re.findall(r"```conf portal\.toml\n(.*?)```", (ROOT / "docs/portal-admin.md").read_text(), re.DOTALL)
    shown = [re.sub(r"^   ", "", text, flags=re.MULTILINE) for text in guide]
    page = (ROOT / "docs/man/otpbridge-portal.1").read_text()
    shown += re.findall(r"^\.Bd -literal.*?\n(.*?)^\.Ed", page, re.MULTILINE | re.DOTALL)
    assert len(shown) == 2
    for text in shown:
        assert load(re.sub(r"^logo .*\n", "", text, flags=re.MULTILINE)).listen.path == "/run/otpbridge-portal/http"


def test_the_guide_and_the_man_page_have_every_key():
    """Keys of all sections."""
    guide = (ROOT / "docs/portal-admin.md").read_text()
    page = (ROOT / "docs/man/otpbridge-portal.1").read_text()
    for kind in (settings.Settings, settings.Sessions, settings.Stacks, settings.Client):
        for key in kind.__struct_fields__:
            if key not in {"sessions", "stacks", "clients"}:
                assert re.search(rf"`(\w+\.)*(NAME\.)?{key}`", guide), key
                assert re.search(rf"^\.It Cm .*\b{key}\b", page, re.MULTILINE), key


@pytest.mark.parametrize(
    ("peer", "forwarded", "found"),
    [
        ("192.0.2.1", "", "192.0.2.1"),
        ("192.0.2.1", "203.0.113.7", "192.0.2.1"),
        ("10.0.0.1", "203.0.113.7", "203.0.113.7"),
        ("10.0.0.1", "198.51.100.1, 203.0.113.7", "203.0.113.7"),
        ("10.0.0.1", "203.0.113.7, 10.0.0.2", "203.0.113.7"),
        ("10.0.0.1", "nonsense", "10.0.0.1"),
        ("10.0.0.1", "203.0.113.7, nonsense", "10.0.0.1"),
        ("10.0.0.1", "::ffff:203.0.113.7", "203.0.113.7"),
        ("10.0.0.1", "", "10.0.0.1"),
        (None, "203.0.113.7", "203.0.113.7"),
        (None, "198.51.100.1, 203.0.113.7", "203.0.113.7"),
        (None, "", ""),
    ],
)
def test_the_browser_is_who_our_own_proxy_saw(load, peer, forwarded, found):
    """What stands before the last address that is no proxy of ours, anybody may have written."""
    proxies = load('trusted_proxies = ["10.0.0.0/24"]\n' + LEAST).proxies
    assert browser_address(peer, forwarded, proxies) == found


def run(*arguments, **environment):
    return subprocess.run(
        [*CLI, "portal", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env=plain_environment(**environment),
    )


def test_the_command_says_what_is_wrong(tmp_path):
    """A file that is not there, one that is wrong, a place that is taken: a line each, and no traceback."""
    file = tmp_path / "portal.toml"
    done = run("--config", file)
    assert (done.returncode, "cannot be read" in done.stderr) == (1, True)
    file.write_text(LEAST + "x = 1\n")
    done = run("--config", file)
    assert (done.returncode, "clients.acme.x: no such key" in done.stderr) == (1, True)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        file.write_text(f"listen = '127.0.0.1:{taken.getsockname()[1]}'\n{LEAST}")
        done = run("--config", file)
    assert (done.returncode, "cannot listen on" in done.stderr) == (1, True)
    assert "Traceback" not in done.stderr


def test_without_its_libraries_the_command_says_what_to_install(tmp_path):
    """Where starlette is not to be found."""
    hidden = (
        "import sys, importlib.util as u; found = u.find_spec;"
        " u.find_spec = lambda name, *a: None if name == 'starlette' else found(name, *a);"
        " from otpbridge.cli.main import run; sys.exit(run(['portal']))"
    )
    done = subprocess.run([sys.executable, "-c", hidden], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 2
    assert "pip install 'otpbridge[portal]'" in done.stderr
    assert os.fspath(tmp_path) not in done.stderr


def test_a_unix_socket_is_for_owner_and_group(tmp_path):
    """Mode 0660: who can connect is believed to be the proxy. One that was left behind does not hinder."""
    path = tmp_path / "http"
    file = tmp_path / "portal.toml"
    file.write_text(f"listen = 'unix:{path}'\nsocket = '{tmp_path}/none'\n{LEAST}")
    for _ in range(2):
        process = subprocess.Popen(
            [*CLI, "portal", "--config", file], stderr=subprocess.PIPE, text=True, env=plain_environment()
        )
        try:
            assert next(line for line in process.stderr if "is ready" in line)
            assert path.stat().st_mode & 0o777 == 0o660
            with socket.socket(socket.AF_UNIX) as proxy:
                proxy.settimeout(20)
                proxy.connect(os.fspath(path))
                proxy.sendall(b"GET /login HTTP/1.1\r\nHost: portal.acme.example\r\nConnection: close\r\n\r\n")
                answer = proxy.makefile("rb").read()
            assert answer.startswith(b"HTTP/1.1 200")
            assert b"strict-transport-security: max-age=" in answer.lower()
        finally:
            process.terminate()
            process.communicate(timeout=30)
