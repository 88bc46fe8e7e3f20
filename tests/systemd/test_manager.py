"""The daemon under a service manager: sockets handed over, Type=notify, the watchdog, reload and restart."""

from __future__ import annotations

import shutil
import signal
import subprocess
import threading
from pathlib import Path
from tempfile import mkdtemp

import pytest
from daemon_rig import Daemon
from relay_rig import issue
from service_manager import OTPBRIDGED, Manager

from otpbridge.client import Client
from otpbridge.wire import messages

pytestmark = pytest.mark.system


@pytest.fixture
def folder():
    """A folder with a path short enough for a socket."""
    path = Path(mkdtemp(prefix="otpb-"))
    yield path
    shutil.rmtree(path)


@pytest.fixture
def manager(folder):
    with Manager(folder) as manager:
        yield manager


def status(run_dir):
    with Client(run_dir=run_dir, admin=True) as admin:
        return admin.call(messages.Status())


def test_the_daemon_serves_the_sockets_it_is_given(manager):
    """It makes none of its own, knows which is which, and says that it is ready once it answers."""
    manager.start()
    assert manager.heard("READY=1")["STATUS"].startswith("Serving sqlite:///")
    assert status(manager.run_dir).ready
    with Client(run_dir=manager.run_dir) as client:
        assert client.verify("nobody-of-that-name", "000000").verdict == "auth_err"
        with pytest.raises(Exception, match="InterfaceNotFound"):
            client.call(messages.Status())
    assert not (manager.folder / "unused").exists()


def test_hosts_connect_to_the_socket_it_is_given(folder):
    """A centre serves relays on a socket of the service manager's, so it needs no network of its own."""
    with Manager(folder, relays=True) as manager:
        manager.config_file.write_text('[relays]\nnames = ["127.0.0.1"]\n[relays.hosts.web1]\n')
        manager.start()
        manager.heard("READY=1")
        home = folder / "web1"
        home.mkdir()
        centre = Daemon(folder, options=[])
        certificate = issue(centre, "web1", home / "relay.pem")
        text = f'[relay]\ncentres = ["127.0.0.1:{manager.port}"]\ncertificate = "{certificate}"\n'
        with Daemon(home, config=text) as relay, relay.client() as otp:
            assert otp.verify("nobody-of-that-name", "000000").verdict == "auth_err"
        assert centre.audit()[-1].host == "web1"


def test_it_says_when_it_stops(manager):
    """SIGTERM: STOPPING=1, then an orderly end."""
    manager.start()
    manager.heard("READY=1")
    manager.signal(signal.SIGTERM)
    manager.heard("STOPPING=1")
    assert manager.ended() == 0


def test_a_caller_waits_out_a_restart(manager):
    """The sockets stay when the daemon goes: whoever connects meanwhile is answered by the next daemon."""
    manager.start()
    manager.heard("READY=1")
    before = status(manager.run_dir)
    manager.signal(signal.SIGTERM)
    assert manager.ended() == 0
    answers = []
    waiting = threading.Thread(target=lambda: answers.append(status(manager.run_dir)))
    waiting.start()
    manager.start()
    waiting.join(30)
    assert answers[0].key_id == before.key_id
    assert answers[0].audit_entries > before.audit_entries


def test_reload_is_told_from_start_to_end(manager):
    """SIGHUP: RELOADING=1 with the time that systemd asks for, then READY=1; a bad file leaves the daemon running."""
    manager.start()
    manager.heard("READY=1")
    manager.config_file.write_text("[users]\nunknown = 'nonsense'\n")
    manager.signal(signal.SIGHUP)
    assert int(manager.heard("RELOADING=1")["MONOTONIC_USEC"]) > 0
    manager.heard("READY=1")
    assert status(manager.run_dir).ready


def test_the_watchdog_hears_of_a_living_daemon(folder):
    """WATCHDOG=1 comes three times in each interval, and again after that."""
    with Manager(folder, watchdog=0.6) as manager:
        manager.start()
        manager.heard("READY=1")
        for _ in range(4):
            manager.heard("WATCHDOG=1")


def test_no_watchdog_no_heartbeat(manager):
    """Where the manager sets no watchdog, nothing is told to it."""
    manager.start()
    manager.heard("READY=1")
    manager.signal(signal.SIGTERM)
    manager.heard("STOPPING=1")
    assert not manager.told("WATCHDOG=1")


def test_systemd_itself_hands_over_the_sockets(folder):
    """systemd-socket-activate, which is systemd's own code for it, starts the daemon on the first connection."""
    tool = shutil.which("systemd-socket-activate")
    if tool is None:
        pytest.skip("systemd-socket-activate is not installed")
    (folder / "run").mkdir()
    sockets = [word for name in ("verify", "admin") for word in ("-l", folder / "run" / name)]
    folders = ["--state-dir", folder / "state", "--run-dir", folder / "unused"]
    daemon = subprocess.Popen(
        [tool, *sockets, "--fdname=verify:admin", OTPBRIDGED, *folders],
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        for name in ("verify", "admin"):
            assert f"/{name}" in daemon.stderr.readline()
        assert status(folder / "run").ready
        daemon.send_signal(signal.SIGTERM)
        assert daemon.wait(30) == 0
    finally:
        daemon.kill()
        daemon.communicate()
    assert (folder / "run/verify").is_socket()
