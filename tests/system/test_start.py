"""Starting, or refusing to: everything that could be wrong is said in plain words, and nothing is served then."""

from __future__ import annotations

import base64
import os
import re
import secrets
import shutil
import stat
import subprocess

import pytest
from daemon_rig import (
    Daemon,
    as_user,
    command,
    need_root,
    plain_environment,
    plain_user,
    private_folder,
    provision,
)

pytestmark = pytest.mark.system


@pytest.fixture
def folder():
    with private_folder() as path:
        yield path


@pytest.fixture
def daemon(folder):
    rig = Daemon(folder)
    yield rig
    rig.kill()


def started_once(daemon):
    """A store with a user in it, stopped."""
    with daemon:
        provision(daemon, ["alice"])


def said_of(daemon, *words):
    """What a daemon says that must not start: one clear line with all of `words`, no traceback, no socket."""
    said = daemon.refused()
    assert daemon.process.returncode == 1
    assert "Traceback" not in said
    assert said.count("cannot start") == 1
    for word in words:
        assert word in said
    assert not daemon.verify_socket.exists()
    return said


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


# --- the first start ---


def test_nothing_needs_to_be_there(daemon):
    """The first start makes store, key and sockets, each open to those who need it and to nobody else."""
    daemon.config_file.unlink()
    rig = Daemon(daemon.folder, options=["--state-dir", str(daemon.state_dir), "--run-dir", str(daemon.run_dir)])
    with rig:
        assert mode(rig.state_dir) == 0o700
        assert mode(rig.run_dir) == 0o755
        assert mode(rig.run_dir / "verify") == 0o666
        assert mode(rig.run_dir / "admin") == 0o660
        assert mode(rig.state_dir / "master.key") == 0o400
        provision(rig, ["alice"])
        for path in rig.state_dir.iterdir():
            assert mode(path) & 0o077 == 0, path
            assert path.stat().st_uid == os.geteuid()
    assert not list(rig.run_dir.iterdir()), "no socket is left behind"


def test_the_umask_of_whoever_starts_it_does_not_matter(folder):
    """Sockets and files have the same modes under any umask."""
    for mask in ("0", "0077", "0777"):
        place = folder / mask
        place.mkdir()
        rig = Daemon(place, prefix=["sh", "-c", f'umask {mask}; exec "$@"', "sh"])
        with rig:
            assert mode(rig.run_dir) == 0o755
            assert (mode(rig.run_dir / "verify"), mode(rig.run_dir / "admin")) == (0o666, 0o660)
            assert mode(rig.state_dir / "master.key") == 0o400
            assert mode(rig.state_dir / "otpbridge.db") & 0o077 == 0


def test_an_ordinary_user_needs_no_configuration_and_no_rights(folder):
    """Whoever is not root has a daemon of their own in their XDG folders."""
    home, prefix = folder / "home", ()
    home.mkdir()
    runtime = folder / "runtime"
    runtime.mkdir(mode=0o700)
    if os.geteuid() == 0:
        user = plain_user()
        prefix = as_user(user.pw_uid, user.pw_gid)
        for path in (home, runtime):
            os.chown(path, user.pw_uid, user.pw_gid)
    environment = plain_environment(HOME=str(home), XDG_RUNTIME_DIR=str(runtime))
    rig = Daemon(folder, prefix=prefix, environment=environment, options=[])
    rig.state_dir, rig.run_dir = home / ".local/state/otpbridge", runtime / "otpbridge"
    with rig:
        key = provision(rig, ["alice"])["alice"]
        with rig.client() as client:
            assert client.verify("alice", key.code()).ok
        assert mode(rig.state_dir) == 0o700
        # The kernel gives what belongs to a process that must not be looked into to root.
        assert os.stat(f"/proc/{rig.pid}/environ").st_uid == 0
    rig.environment["XDG_STATE_HOME"] = str(home / "elsewhere")
    del rig.environment["XDG_RUNTIME_DIR"]
    rig.state_dir, rig.run_dir = home / "elsewhere/otpbridge", home / "elsewhere/otpbridge/run"
    with rig:
        assert (rig.state_dir / "otpbridge.db").exists()
        assert rig.verify_socket.is_socket()


# --- what is loaded ---


def loaded_at_start(folder, config=""):
    """The modules that are loaded when the daemon says that it is ready, by it and by the command that became it."""
    with Daemon(folder, config=config, environment=plain_environment(PYTHONPROFILEIMPORTTIME="1")) as rig:
        before, ready, _ = rig.log.partition("is ready")
    assert ready
    return set(re.findall(r"^import time: .*\| *(\S+)$", before, re.MULTILINE))


def test_what_only_some_need_is_not_loaded_at_every_start(daemon):
    """Libraries for other databases, relays and security keys, and what makes the tables, once there are some."""
    started_once(daemon)
    loaded = loaded_at_start(daemon.folder)
    assert {"sqlalchemy", "sqlalchemy.dialects.sqlite.base", "uvloop"} <= loaded
    seldom = {"alembic", "click", "cryptography.x509", "fido2", "otpbridge.daemon.relay.host", "psycopg"}
    assert not loaded & {*seldom, "sqlalchemy.dialects.postgresql.base"}


@pytest.mark.parametrize(
    ("config", "library"),
    [
        ('[webauthn]\nrp_id = "login.example"\n', "fido2.server"),
        ('[clients.shop.webauthn]\nrp_id = "login.example"\n', "fido2.server"),
        ('[relays]\nlisten = "127.0.0.1:0"\n', "cryptography.x509"),
    ],
)
def test_what_the_configuration_asks_for_is_loaded_before_the_first_login(folder, config, library):
    """No login waits for a library, or finds that there is no memory left for it."""
    assert library in loaded_at_start(folder, config)


# --- the key ---


def test_a_store_without_its_key_is_not_opened(daemon):
    """A lost key is said to be lost; no new one is made in its place."""
    started_once(daemon)
    key = daemon.state_dir / "master.key"
    key.rename(daemon.folder / "kept.key")
    said_of(daemon, str(key), "master key is not there")
    assert not key.exists()
    shutil.move(daemon.folder / "kept.key", key)
    with daemon:
        assert daemon.show("alice").active_tokens == 1


def test_another_key_does_not_open_the_store(daemon):
    """A key of another store is refused, by name of neither, and nothing is changed by trying."""
    started_once(daemon)
    key = daemon.state_dir / "master.key"
    kept = key.read_text()
    text = base64.b64encode(secrets.token_bytes(32)).decode()
    key.chmod(0o600)
    key.write_text(text)
    said = said_of(daemon, "not the store's master key")
    assert text not in said
    assert kept.split()[-1] not in said
    key.write_text(kept)
    with daemon:
        assert daemon.show("alice").active_tokens == 1


@pytest.mark.parametrize("bits", [0o440, 0o404, 0o420, 0o644])
def test_a_key_that_others_can_read_or_write_is_refused(daemon, bits):
    """A key with a mode for others is not used; the message says which command makes it good."""
    started_once(daemon)
    key = daemon.state_dir / "master.key"
    key.chmod(bits)
    said_of(daemon, str(key), f"{bits:04o}", "chmod 0400")
    key.chmod(0o400)
    with daemon:
        assert daemon.running


@pytest.mark.parametrize(
    "text",
    [b"", b"# nothing\n", b"short\n", b"A" * 5000, b"\xff\xfe\n", base64.b64encode(bytes(31)), b"!" * 44],
)
def test_a_key_file_that_holds_no_key_is_refused(daemon, text):
    """An empty, cut or foreign key file is said to hold no key, and not quoted."""
    started_once(daemon)
    key = daemon.state_dir / "master.key"
    key.chmod(0o600)
    key.write_bytes(text)
    said_of(daemon, str(key))


def test_a_key_of_another_user_is_refused(daemon):
    """Whoever owns the key file could change it: it must be the daemon's or root's."""
    need_root()
    started_once(daemon)
    user = plain_user()
    key = daemon.state_dir / "master.key"
    os.chown(key, user.pw_uid, -1)
    said_of(daemon, str(key), f"uid {user.pw_uid}", "chown")


def test_a_key_that_is_no_plain_file_is_refused(daemon):
    """Neither a link nor a pipe is taken for the key, and none makes the daemon wait."""
    started_once(daemon)
    key = daemon.state_dir / "master.key"
    kept = key.rename(daemon.folder / "kept.key")
    key.symlink_to(kept)
    said_of(daemon, str(key))
    key.unlink()
    os.mkfifo(key, 0o400)
    said_of(daemon, str(key), "regular file")


def test_a_folder_in_the_place_of_the_key_is_refused(daemon):
    """A folder is not taken for the key either."""
    started_once(daemon)
    key = daemon.state_dir / "master.key"
    key.unlink()
    key.mkdir(0o700)
    said_of(daemon, str(key), "regular file")


def test_a_configured_key_file_is_used(daemon):
    """With `[key] file` the key lies apart from the store, and the store says so."""
    daemon.configure(f'[key]\nfile = "{daemon.folder}/apart/master.key"\n')
    (daemon.folder / "apart").mkdir(mode=0o700)
    started_once(daemon)
    assert not (daemon.state_dir / "master.key").exists()
    with daemon:
        done = command("status", "--json", run_dir=daemon.run_dir)
        assert b'"key_beside_store": false' in done.stdout, done.stdout


# --- folders and files ---


def test_a_folder_that_cannot_be_written_is_refused(folder):
    """Whoever may not write the folder is told which folder, and whose daemon it is."""
    state = folder / "state"
    prefix, uid = (), os.geteuid()
    state.mkdir()
    if os.geteuid() == 0:
        user = plain_user()
        prefix, uid = as_user(user.pw_uid, user.pw_gid), user.pw_uid
        folder.chmod(0o777)
    else:
        state.chmod(0o500)
    rig = Daemon(folder, prefix=prefix)
    said_of(rig, str(state), f"uid {uid}")
    assert list(state.iterdir()) == []


def test_a_folder_that_cannot_be_made_is_refused(daemon):
    """A state folder or run folder below a file is named."""
    (daemon.folder / "file").write_text("")
    for option in ("--state-dir", "--run-dir"):
        options = {"--state-dir": f"{daemon.folder}/state", "--run-dir": f"{daemon.folder}/run"}
        options[option] = f"{daemon.folder}/file/below"
        rig = Daemon(daemon.folder, options=[word for pair in options.items() for word in pair])
        said_of(rig, f"{daemon.folder}/file/below", option)


@pytest.mark.parametrize("bits", [0o777, 0o770, 0o702])
def test_a_state_folder_that_others_can_write_is_refused(daemon, bits):
    """Others could put another store in place: said, with the command that helps."""
    daemon.state_dir.mkdir()
    daemon.state_dir.chmod(bits)
    said_of(daemon, str(daemon.state_dir), "chmod 0700")


def test_a_run_folder_that_all_can_write_is_refused(daemon):
    """Others could put a socket of their own in place: said, with the command that helps."""
    daemon.run_dir.mkdir()
    daemon.run_dir.chmod(0o777)
    said_of(daemon, str(daemon.run_dir), "chmod 0755")


def test_a_store_that_is_no_database_is_refused(daemon):
    """A store that was overwritten is not taken for a new one."""
    started_once(daemon)
    for path in daemon.state_dir.glob("otpbridge.db*"):
        path.unlink()
    store = daemon.state_dir / "otpbridge.db"
    store.write_bytes(b"not a database" * 1000)
    said_of(daemon, str(store))
    assert store.read_bytes() == b"not a database" * 1000


# --- one daemon at a time ---


def test_a_second_daemon_on_the_same_store_is_refused(daemon):
    """The second is told who has the store; the first does not notice."""
    with daemon:
        keys = provision(daemon, ["alice"])
        second = Daemon(
            daemon.folder, options=["--state-dir", str(daemon.state_dir), "--run-dir", f"{daemon.folder}/run2"]
        )
        said = second.refused()
        assert str(daemon.pid) in said
        assert str(daemon.state_dir) in said
        assert "Traceback" not in said
        assert not (daemon.folder / "run2" / "verify").exists()
        with daemon.client() as client:
            assert client.verify("alice", keys["alice"].code()).ok


def test_a_second_daemon_on_the_same_sockets_is_refused(daemon):
    """Another store cannot take the sockets of a daemon that answers."""
    with daemon:
        provision(daemon, ["alice"])
        second = Daemon(
            daemon.folder, options=["--state-dir", f"{daemon.folder}/state2", "--run-dir", str(daemon.run_dir)]
        )
        said = second.refused()
        assert "another otpbridged answers" in said
        assert "Traceback" not in said
        assert daemon.show("alice").active_tokens == 1


def test_sockets_left_by_a_crash_are_no_obstacle(daemon):
    """After kill -9 the next start takes over."""
    daemon.start()
    provision(daemon, ["alice"])
    daemon.kill()
    assert daemon.verify_socket.is_socket()
    with daemon:
        assert daemon.show("alice").active_tokens == 1


def test_a_file_in_the_place_of_a_socket_is_not_removed(daemon):
    """What is no socket is left alone and named."""
    daemon.run_dir.mkdir()
    daemon.verify_socket.write_text("mine")
    said = daemon.refused()
    assert str(daemon.verify_socket) in said
    assert "Traceback" not in said
    assert daemon.verify_socket.read_text() == "mine"


# --- configuration ---


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[throttle]\nlimt = 3\n", [":2:", "`limt`", "`limit`"]),
        ("\n\n[throtle]\nlimit = 3\n", [":3:", "`throtle`", "`throttle`"]),
        ("[[callers]]\nuser = 0\n\n[[callers]]\nuser = 0\nclient = []\n", ["client", "`clients`"]),
        ("[throttle]\nlimit = 0\n", [":2:", "throttle.limit"]),
        ("[throttle]\nlimit = 'three'\n", [":2:", "throttle.limit"]),
        ("limit = = 3\n", ["line 1"]),
        ("[users]\nunknown = 'allow'\n", [":2:", "users.unknown"]),
        ("[[callers]]\nuser = 'nobody-of-that-name'\n", ["nobody-of-that-name"]),
        ("[key]\nsource = 'file'\n", ["[key]", "file"]),
        ("[key]\nsource = 'credential'\n", ["CREDENTIALS_DIRECTORY"]),
        ("[store]\nurl = 'mysql://x/y'\n", ["[store] url", "mysql"]),
    ],
)
def test_a_wrong_configuration_is_refused_by_line(daemon, text, words):
    """What is wrong is said with file, line and the likely meaning; a rule that was written is never left out."""
    daemon.configure(text)
    said_of(daemon, *words)
    assert not (daemon.state_dir / "otpbridge.db").exists() or "callers" in text


def test_a_configuration_that_is_not_there_is_refused(daemon):
    """A file that was named must be there."""
    daemon.config_file.unlink()
    said_of(daemon, str(daemon.config_file))


def test_an_unknown_option_is_a_usage_error(folder):
    """A wrong option is named, with status 2."""
    done = command("serve", "--stat-dir", folder)
    assert done.returncode == 2
    assert b"--stat-dir" in done.stderr


def test_the_daemon_starts_in_a_folder_that_is_not_its_own(folder):
    """Modules in the folder it is started from are not its modules."""
    (folder / "otpbridge.py").write_text("raise SystemExit('hijacked')")
    (folder / "asyncio.py").write_text("raise SystemExit('hijacked')")
    rig = Daemon(folder, prefix=["sh", "-c", f'cd "{folder}"; exec "$@"', "sh"])
    with rig:
        assert "hijacked" not in rig.log


def test_no_core_is_dumped(daemon):
    """The kernel may write no core of the daemon, and gives nobody of its uid a look inside."""
    with daemon:
        limits = subprocess.run(["cat", f"/proc/{daemon.pid}/limits"], check=True, capture_output=True, text=True)
        (line,) = [line for line in limits.stdout.splitlines() if line.startswith("Max core file size")]
        assert line.split()[4:6] == ["0", "0"]
        assert os.stat(f"/proc/{daemon.pid}/environ").st_uid == 0
