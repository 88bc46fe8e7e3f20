"""A running daemon: it ends in order, takes a new configuration, and lets no secret out."""

from __future__ import annotations

import base64
import os
import signal
import sqlite3
import time
from contextlib import closing
from pathlib import Path

import act_as
import pytest
from daemon_rig import (
    OATH,
    ONE_TIME,
    Daemon,
    Key,
    command,
    enrolled,
    need_root,
    plain_user,
    private_folder,
    provision,
)
from wire_rig import Wire

from otpbridge.model import Kind
from otpbridge.wire import messages

pytestmark = pytest.mark.system


@pytest.fixture
def folder():
    with private_folder() as path:
        yield path


@pytest.fixture
def daemon(folder):
    with Daemon(folder) as rig:
        yield rig


def held(daemon):
    """The store, held by a writer that does not finish: what the daemon judges now waits for its commit."""
    store = sqlite3.connect(daemon.state_dir / "otpbridge.db", isolation_level=None)
    store.execute("BEGIN IMMEDIATE")
    return closing(store)


def has_arrived(daemon):
    """Wait until the daemon has read all that was sent before this."""
    with Wire(daemon.verify_socket) as other:
        assert "error" not in other.ask("org.varlink.service.GetInfo")


def check(user, code):
    return "org.otpbridge.Verify.Check", {"user": user, "responses": [code]}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_call_in_flight_is_answered_before_the_daemon_ends(daemon, number):
    """Who has typed a code when the daemon is stopped still gets in; who comes later is told at once."""
    keys = provision(daemon, ["alice"])
    with Wire(daemon.verify_socket) as wire, Wire(daemon.verify_socket) as idle:
        with held(daemon):
            wire.call(*check("alice", keys["alice"].code()))
            has_arrived(daemon)
            daemon.signal(number)
            daemon.wait_for("stopping")
            # Idle connections are closed at once, while the call is still waiting.
            assert idle.at_end()
            with pytest.raises(OSError, match="refused"):
                Wire(daemon.verify_socket)
        assert wire.reply()["parameters"]["verdict"] == "success"
        assert wire.at_end()
    assert daemon.wait() == 0
    assert not daemon.verify_socket.exists()
    daemon.start()
    with daemon.client() as client:
        assert not client.verify("alice", keys["alice"].code()).ok


def test_idle_clients_do_not_hold_up_the_end(daemon):
    """A hundred clients that say nothing cost no time when the daemon is stopped."""
    wires = [Wire(daemon.verify_socket) for _ in range(100)]
    has_arrived(daemon)
    begun = time.monotonic()
    assert daemon.stop() == 0
    assert time.monotonic() - begun < 5
    for wire in wires:
        assert wire.at_end()
        wire.sock.close()


def test_a_store_that_stays_locked_means_no_answer_rather_than_a_yes(daemon):
    """While the store cannot be written nobody gets in, and the code is still good afterwards."""
    keys = provision(daemon, ["alice"])
    with daemon.client() as client:
        with held(daemon):
            assert client.verify("alice", keys["alice"].code()).verdict == "authinfo_unavail"
        assert client.verify("alice", keys["alice"].code(1)).ok
    assert "Traceback" not in daemon.log
    daemon.check_audit()


def test_a_reload_applies_a_new_caller_and_keeps_connections(daemon):
    """A portal that is written into the configuration may ask as soon as the daemon was told; nobody is cut off."""
    need_root()
    portal = plain_user()
    key = provision(daemon, ["carol"], client="acme")["carol"]
    mine = provision(daemon, ["alice"])["alice"]
    method, parameters = check("carol", key.code())
    asked = [(method, {**parameters, "client": "acme"})]
    assert act_as.calls(daemon.verify_socket, portal, asked)[0].parameters["verdict"] == "perm_denied"
    with daemon.client() as client:
        assert client.verify("alice", mine.code()).ok
        daemon.configure(f'[[callers]]\nuser = "{portal.pw_name}"\nclients = ["acme"]\n')
        daemon.reload()
        assert client.verify("alice", mine.code(1)).ok
    assert act_as.calls(daemon.verify_socket, portal, asked)[0].parameters["verdict"] == "success"


def test_a_wrong_configuration_changes_nothing_while_it_runs(daemon):
    """A typo in a reload is said by line; the rules that were in force stay in force."""
    daemon.configure("[users]\nunknown = 'ignore'\n")
    daemon.reload()
    with daemon.client() as client:
        assert client.verify("ghost", "123456").verdict == "ignore"
        for wrong in ("[users]\nunknwn = 'refuse'\n", "[[callers]]\nuser = 'nobody-of-that-name'\n", "= ="):
            said = daemon.log.count("Nothing was changed")
            daemon.configure(wrong)
            daemon.signal(signal.SIGHUP)
            daemon.wait_for("Nothing was changed", said + 1)
            assert client.verify("ghost", "123456").verdict == "ignore"
        assert "`unknown`" in daemon.log
        daemon.config_file.unlink()
        said = daemon.log.count("Nothing was changed")
        daemon.signal(signal.SIGHUP)
        daemon.wait_for("Nothing was changed", said + 1)
        assert client.verify("ghost", "123456").verdict == "ignore"
        daemon.configure("")
        daemon.reload()
        assert client.verify("ghost", "123456").verdict == "auth_err"
    assert "Traceback" not in daemon.log


def test_a_limit_for_users_counts_from_the_reload_on(daemon):
    """An admin who lowers the limit while guesses come in need not restart anything."""
    key = provision(daemon, ["alice"])["alice"]
    daemon.configure("[throttle]\nlimit = 2\n[policy]\nfirst_wait = 300\n")
    daemon.reload()
    assert "restart" not in daemon.log
    with daemon.client() as client:
        verdicts = [client.verify("alice", code).verdict for code in key.wrong(3)]
    assert verdicts == ["auth_err", "auth_err", "maxtries"]


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("[throttle]\nsource_limit = 7\n", "throttle (per source)"),
        ("[throttle]\nforget = 60\n", "throttle (per source)"),
        ("[store]\nurl = 'sqlite:///elsewhere.db'\n", "store"),
        ("admin_group = 'daemon'\n", "admin_group"),
    ],
)
def test_what_needs_a_restart_is_said(daemon, text, named):
    """A change that a reload cannot make is named, so that nobody believes it was made; of others nothing is said."""
    daemon.configure("[throttle]\nlimit = 7\n")
    daemon.reload()
    assert "restart" not in daemon.log
    daemon.configure(text)
    daemon.reload()
    assert f"changes in {named} count only after a restart" in daemon.log


def forms(key):
    """All ways to write a seed."""
    base32 = base64.b32encode(key.seed).decode().rstrip("=")
    plain = [base32, base32.lower(), key.seed.hex(), key.seed.hex().upper(), base64.b64encode(key.seed).decode()]
    return [key.seed, *(text.encode() for text in plain)]


def test_no_secret_is_written_anywhere(folder):
    """After enrolments, logins and errors: no seed, key or password in log, argv, environment, audit or store."""
    stack = '[stacks.portal]\nrules = ["requisite password", "sufficient totp"]\n'
    with Daemon(folder, config=stack) as daemon:
        imported = provision(daemon, ["ann", "ben"])
        token, key = enrolled(daemon, "alice")
        _, counter = enrolled(daemon, "alice", Kind.HOTP)
        pending = Key()
        codes = [key.code(), key.code(1), counter.code(1), imported["ann"].code()]
        others = {kind: enrolled(daemon, kind, kind)[1] for kind in ONE_TIME if kind not in OATH}
        with daemon.client() as client:
            client.call(messages.SetPassword(user="ben", password="wrenches rust"))
            for password in ("wrenches rust", "wrenches rusty", "wrenches rust 654321"):
                client.call(messages.Check(user="ben", stack="portal", responses=(password, "98765431")))
            for kind, each in others.items():
                assert [client.verify(kind, code).ok for code in (each.code(), each.wrong()[0])] == [True, False]
            started = client.enrol("bob")
            pending.seed = bytes.fromhex(started.seed_hex)
            for user, code in zip(["alice", "alice", "alice", "ann"], codes, strict=True):
                client.verify(user, code)
            client.verify("alice", "987654321")
            client.verify("98765432", codes[0], client="acme")
            assert not client.confirm(started.token, "98765431").confirmed
        with Wire(daemon.verify_socket) as wire:
            wire.send(f'{{"method": "org.otpbridge.Verify.Check", "parameters": {{"x": "{codes[0]}"'.encode())
            wire.send(b"\0")
            assert wire.at_end()
        with Wire(daemon.verify_socket) as wire:
            wire.ask("org.otpbridge.Verify.Check", {"user": "alice", "responses": codes[0], "code": codes[1]})
        done = command("import", "-", run_dir=daemon.run_dir, stdin=f"x\t{key.uri}&bogus=1\nfoo {pending.uri}\n")
        assert done.returncode != 0
        command("backup", folder / "b", run_dir=daemon.run_dir)
        command("key", "rotate", run_dir=daemon.run_dir)
        tail = command("--json", "audit", "tail", "-n", 10_000, run_dir=daemon.run_dir)
        assert tail.returncode == 0, tail.stderr
        argv = Path(f"/proc/{daemon.pid}/cmdline").read_bytes()
        environ = Path(f"/proc/{daemon.pid}/environ").read_bytes() if os.geteuid() == 0 else b""
        master = (daemon.state_dir / "master.key").read_text().split()[-1].encode()
        running = b"".join(path.read_bytes() for path in daemon.state_dir.glob("otpbridge.db*"))
        log = daemon.log.encode()
    closed = b"".join(path.read_bytes() for path in daemon.state_dir.glob("otpbridge.db*"))
    seeds = [form for each in [*imported.values(), key, counter, pending] for form in forms(each)]
    yubikey = others.pop(Kind.YUBIOTP)
    seeds += [yubikey.code()[12:].encode(), yubikey.code(1)[12:].encode(), b"wrenches rust"]
    seeds += [yubikey.aes_key, yubikey.aes_key.hex().encode(), yubikey.private_id, yubikey.private_id.hex().encode()]
    for paper in others.values():
        seeds += [form.encode() for code in paper.codes for form in (code, code.lower(), code.replace("-", ""))]
    seeds += [master, base64.b64decode(master), base64.b64decode(master).hex().encode()]
    places = {"log": log, "argv": argv, "environment": environ, "audit": tail.stdout, "errors": done.stderr}
    for where, text in (places | {"store": running, "closed store": closed}).items():
        assert [form for form in seeds if form in text] == [], where
    # The audit names tokens and times, which may hold six digits by chance; codes of eight digits do not.
    for where, text in places.items():
        assert b"98765431" not in text, where
        assert b"987654321" not in text, where
    for code in codes:
        assert code.encode() not in log
    assert token.encode() in tail.stdout
