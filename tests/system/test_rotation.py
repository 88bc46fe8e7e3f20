"""A new master key while logins go on, and whatever interrupts it."""

from __future__ import annotations

import contextlib
import random
import shutil
import threading
import time

import pytest
from daemon_rig import LONG, ONE_TIME, Daemon, command, private_folder, provision

from otpbridge.errors import UnavailableError
from otpbridge.model import Kind
from otpbridge.wire import messages

pytestmark = [pytest.mark.system, pytest.mark.timeout(1800)]

TOKENS = 20_000 if LONG else 2_000
INTERRUPTIONS = 30 if LONG else 3
SAMPLE = 500 if LONG else 100


@pytest.fixture
def daemon():
    with private_folder() as folder, Daemon(folder) as rig:
        yield rig


def users(count):
    return [f"user{number}" for number in range(count)]


def status(daemon):
    with daemon.admin() as admin:
        return admin.call(messages.Status())


def rotate(daemon):
    """Rotate, or go on with it; the last reply."""
    with daemon.admin() as admin:
        return list(admin.stream(messages.RotateKey()))[-1]


def all_open(daemon, keys, names, ahead=0):
    """Each of these users logs in, once."""
    with daemon.client() as client:
        for name in names:
            code = keys[name].code(ahead)
            assert client.verify(name, code).ok, name
            assert not client.verify(name, code).ok, name


def keys_in(path):
    return [line for line in path.read_text().splitlines() if line and not line.startswith("#")]


class Logins(threading.Thread):
    """Logs users in, one after the other, until it is told to stop."""

    def __init__(self, daemon, keys, names):
        super().__init__()
        self._daemon, self._keys, self._names = daemon, keys, names
        self._enough = threading.Event()
        self.refused = []
        self.times = []

    def run(self):
        with self._daemon.client() as client:
            for name in self._names:
                if self._enough.is_set():
                    return
                begun = time.monotonic()
                if not client.verify(name, self._keys[name].code()).ok:
                    self.refused.append(name)
                self.times.append((begun, time.monotonic()))

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self._enough.set()
        self.join()


def test_the_key_is_replaced_while_logins_go_on(daemon):
    """During a rotation nobody is refused; after it all tokens work and the old key opens nothing."""
    keys = provision(daemon, users(TOKENS))
    names = random.sample(list(keys), TOKENS)
    key_file = daemon.state_dir / "master.key"
    old = daemon.folder / "old.key"
    shutil.copy2(key_file, old)
    before = status(daemon)
    with Logins(daemon, keys, names[SAMPLE:]) as logins:
        begun = time.monotonic()
        last = rotate(daemon)
        ended = time.monotonic()
    assert logins.refused == []
    during = [end - start for start, end in logins.times if begun <= start and end <= ended]
    assert len(during) > 5, "logins went on meanwhile"
    assert max(during) < 2.0
    assert last.resealed == TOKENS
    after = status(daemon)
    assert (after.key_id, after.rotating) == (last.key_id, False)
    assert after.key_id != before.key_id
    assert len(keys_in(key_file)) == 1
    all_open(daemon, keys, names[:SAMPLE])
    assert daemon.stop() == 0
    new = key_file.rename(daemon.folder / "new.key")
    shutil.copy2(old, key_file)
    assert "not the store's master key" in daemon.refused()
    key_file.unlink()
    shutil.copy2(new, key_file)
    daemon.start()
    all_open(daemon, keys, names[:SAMPLE], ahead=1)
    daemon.check_audit()


def test_tokens_of_every_kind_work_after_a_rotation(daemon):
    """Half of each kind opens before it, half after it; passwords hold on; decoys are not left under the old key."""
    daemon.configure('[stacks.portal]\nrules = ["requisite password", "required totp"]\n')
    daemon.reload()
    keys = {kind: provision(daemon, [f"{kind}{number}" for number in range(6)], kind=kind) for kind in ONE_TIME}
    with daemon.client() as client:
        client.call(messages.SetPassword(user="totp5", password="wrenches rust"))
        for kind in ONE_TIME:
            all_open(daemon, keys[kind], [f"{kind}{number}" for number in range(2)])
        assert client.verify("nobody", "123456").verdict == "auth_err"
        rotate(daemon)
        for kind in ONE_TIME:
            all_open(daemon, keys[kind], [f"{kind}{number}" for number in range(2, 4)])
        assert client.verify("nobody", "123456").verdict == "auth_err"
    assert daemon.stop() == 0
    daemon.start()
    for kind in ONE_TIME:
        all_open(daemon, keys[kind], [f"{kind}4"])
    with daemon.client() as client:
        for password, verdict in (("wrenches rusty", "auth_err"), ("wrenches rust", "success")):
            answers = (password, keys[Kind.TOTP]["totp5"].code())
            assert client.call(messages.Check(user="totp5", stack="portal", responses=answers)).verdict == verdict
    daemon.check_audit()


def test_a_backup_from_before_the_rotation_needs_the_old_key(daemon):
    """The key of a backup is the one of its day: with the new one it is refused, with the old one it restores."""
    provision(daemon, ["alice"])
    backup, key_file, old = daemon.folder / "b", daemon.state_dir / "master.key", daemon.folder / "old.key"
    shutil.copy2(key_file, old)
    assert command("backup", backup, run_dir=daemon.run_dir).returncode == 0
    rotate(daemon)
    assert daemon.stop() == 0
    where = ["--state-dir", daemon.state_dir, "--config", daemon.config_file]
    assert command("restore", backup, *where).returncode == 1
    key_file.unlink()
    shutil.copy2(old, key_file)
    done = command("restore", backup, *where)
    assert done.returncode == 0, done.stderr
    daemon.start()
    assert daemon.show("alice").active_tokens == 1


def killed_after(daemon, pieces):
    """Rotate, and kill the daemon when so many pieces were sealed anew."""
    with daemon.admin() as admin, contextlib.suppress(UnavailableError):
        for done, _ in enumerate(admin.stream(messages.RotateKey())):
            if done == pieces:
                daemon.kill()


@pytest.mark.campaign
def test_a_rotation_that_is_cut_off_goes_on_where_it_was(daemon):
    """Killed anywhere within a rotation: all tokens work, and rotating again ends it; only the last key is left."""
    keys = provision(daemon, users(TOKENS))
    names = random.sample(list(keys), INTERRUPTIONS * 10)
    key_file = daemon.state_dir / "master.key"
    cut = 0
    for number in range(INTERRUPTIONS):
        old = keys_in(key_file)[0]
        pieces = random.randrange(TOKENS // 200)
        killed_after(daemon, pieces)
        daemon.start()
        if status(daemon).rotating:
            cut += 1
            assert len(keys_in(key_file)) == 2
            assert keys_in(key_file)[1] == old
        all_open(daemon, keys, names[number * 10 : number * 10 + 5])
        rotate(daemon)
        assert not status(daemon).rotating
        assert len(keys_in(key_file)) == 1
        assert keys_in(key_file)[0] != old
        all_open(daemon, keys, names[number * 10 + 5 : number * 10 + 10])
        daemon.check_audit()
    assert cut
    kept = key_file.read_text()
    assert daemon.stop() == 0
    key_file.chmod(0o600)
    key_file.write_text(old)
    assert "not the store's master key" in daemon.refused()
    key_file.write_text(kept)
    daemon.start()


@pytest.mark.campaign
def test_a_rotation_killed_at_any_moment_loses_nothing(daemon):
    """Also between the steps: before the key file is written, after, and while the old key is put away."""
    keys = provision(daemon, users(400))
    begun = time.monotonic()
    rotate(daemon)
    whole = time.monotonic() - begun
    for number in range(2 * INTERRUPTIONS):
        thread = threading.Thread(target=_rotate_until_cut_off, args=(daemon,))
        thread.start()
        until = time.monotonic() + random.uniform(0, 1.2 * whole)
        while time.monotonic() < until:
            pass
        daemon.kill()
        thread.join()
        daemon.start()
        all_open(daemon, keys, [f"user{number}"])
    rotate(daemon)
    assert not status(daemon).rotating
    all_open(daemon, keys, users(400)[2 * INTERRUPTIONS :])
    daemon.check_audit()


def _rotate_until_cut_off(daemon):
    with contextlib.suppress(UnavailableError):
        rotate(daemon)
