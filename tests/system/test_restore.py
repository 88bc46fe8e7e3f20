"""A backup brings the store back, and no code that was spent since."""

from __future__ import annotations

import base64
import json
import secrets
import shutil
import time

import pytest
from daemon_rig import ONE_TIME, Daemon, command, enrolled, private_folder, provision

from otpbridge.model import Kind
from otpbridge.wire import messages

pytestmark = pytest.mark.system

WIDE = "[window]\ntotp = 10\n"
"""A daemon with this accepts codes of the next ten time steps: a test sees new ones work without waiting."""


@pytest.fixture
def folder():
    with private_folder() as path:
        yield path


@pytest.fixture
def daemon(folder):
    rig = Daemon(folder)
    yield rig
    rig.kill()


def take(daemon, name="store.backup"):
    """A backup of the running daemon's store."""
    path = daemon.folder / name
    done = command("backup", path, run_dir=daemon.run_dir)
    assert done.returncode == 0, done.stderr
    return path


def restore(daemon, path):
    """Restore with the command line."""
    return command("restore", path, "--state-dir", daemon.state_dir, "--config", daemon.config_file)


def restored(daemon, path):
    """Restore, which must work; what the admin was told."""
    done = restore(daemon, path)
    assert done.returncode == 0, done.stderr
    return done.stdout.decode()


def lose(daemon):
    """Lose the store, but not the key."""
    for path in daemon.state_dir.glob("otpbridge.db*"):
        path.unlink()


def states(daemon, user):
    with daemon.admin() as admin:
        listed = admin.stream(messages.ListTokens(user=user, all=True))
        return {token.id: token.state for reply in listed for token in reply.tokens}


@pytest.mark.parametrize("with_old_store", [True, False])
def test_time_based_codes_spent_after_the_backup_stay_spent(daemon, with_old_store):
    """A code that opened between backup and restore opens no more, even where nothing remembers it; new ones do."""
    with daemon:
        keys = provision(daemon, ["alice", "bob"])
        path = take(daemon)
        with daemon.client() as client:
            spent = [keys["alice"].code(), keys["alice"].code(1)]
            for code in spent:
                assert client.verify("alice", code).ok
    if not with_old_store:
        lose(daemon)
    restored(daemon, path)
    daemon.configure(WIDE)
    with daemon, daemon.client() as client:
        assert [code for code in spent if client.verify("alice", code).ok] == []
        # Bob's code of the moment may have been shown to somebody as well: it does not count either.
        assert not client.verify("bob", keys["bob"].code()).ok
        for user, key in keys.items():
            assert client.verify(user, key.code(4)).ok
            assert not client.verify(user, key.code(4)).ok


@pytest.mark.parametrize("kind", [Kind.HOTP, Kind.YUBIOTP, Kind.RECOVERY])
def test_codes_spent_after_the_backup_stay_spent(daemon, kind):
    """Where the replaced store can be read, what was spent is carried over: tokens go on where they were."""
    with daemon, daemon.client() as client:
        key = provision(daemon, ["alice"], kind=kind)["alice"]
        assert client.verify("alice", key.code()).ok
        path = take(daemon)
        assert all(client.verify("alice", key.code(ahead)).ok for ahead in (1, 2))
    assert "carried over" in restored(daemon, path)
    with daemon, daemon.client() as client:
        assert not any(client.verify("alice", key.code(ahead)).ok for ahead in range(3))
        assert client.verify("alice", key.code(3)).ok
        assert not client.verify("alice", key.code(3)).ok


def test_exemptions_that_ended_after_the_backup_are_told(daemon):
    """Who is asked for a code again though the backup says otherwise is counted; where there is nobody, no word."""
    with daemon:
        provision(daemon, ["alice", "bob", "carol"])
        with daemon.admin() as admin:
            for name in ("alice", "bob", "carol"):
                admin.call(messages.ExemptUser(user=name, seconds=7200, reason="phone at home"))
            path = take(daemon)
            admin.call(messages.ExemptUser(user="alice"))
            admin.call(messages.ExemptUser(user="bob", seconds=60, reason="on the way"))
    assert "Exemptions that were ended or shortened since stay so: 2." in restored(daemon, path)
    with daemon:
        again = take(daemon, "again")
        (row,) = [entry for entry in daemon.audit() if entry.event == "store restored"]
        assert row.detail["exemptions_ended"] == 2
    assert "Exemptions" not in restored(daemon, again)


def test_recovery_codes_spent_before_and_after_the_backup_stay_spent(daemon):
    """Codes are struck out one by one, in any order: those of the backup and those of the replaced store are gone."""
    with daemon, daemon.client() as client:
        paper = provision(daemon, ["alice"], kind=Kind.RECOVERY)["alice"]
        assert client.verify("alice", paper.code(7)).ok
        path = take(daemon)
        assert client.verify("alice", paper.code(2)).ok
    restored(daemon, path)
    with daemon, daemon.client() as client:
        (left,) = [token.codes_left for token in client.tokens("alice").tokens if token.kind is Kind.RECOVERY]
        assert left == 8
        assert [place for place in range(10) if not client.verify("alice", paper.code(place)).ok] == [2, 7]


def test_a_registration_code_used_after_the_backup_opens_no_more(daemon):
    """The helpdesk's code was used once, and once is all, restored or not."""
    with daemon, daemon.client() as client:
        paper = provision(daemon, ["alice"], kind=Kind.REGISTRATION)["alice"]
        path = take(daemon)
        assert client.verify("alice", paper.code()).ok
    restored(daemon, path)
    with daemon, daemon.client() as client:
        assert not client.verify("alice", paper.code()).ok


@pytest.mark.parametrize("kind", [Kind.YUBIOTP, Kind.RECOVERY, Kind.REGISTRATION])
def test_tokens_are_disabled_where_nothing_remembers_what_was_spent(daemon, kind):
    """Without the replaced store nothing of them opens, used or not, until an admin is sure and enables them."""
    with daemon, daemon.client() as client:
        token, key = enrolled(daemon, "alice", kind)
        path = take(daemon)
        assert client.verify("alice", key.code()).ok
    lose(daemon)
    assert "disabled" in restored(daemon, path)
    with daemon, daemon.client() as client, daemon.admin() as admin:
        assert states(daemon, "alice")[token] == "disabled"
        unused = () if kind is Kind.REGISTRATION else (key.code(1),)
        assert not any(client.verify("alice", code).ok for code in (key.code(), *unused))
        admin.call(messages.EnableToken(token=token))
        assert all(client.verify("alice", code).ok for code in unused)


def test_counter_tokens_are_disabled_where_nothing_remembers_their_counter(daemon):
    """Without the replaced store a counter token is disabled until two codes in a row say where it is."""
    with daemon:
        token, key = enrolled(daemon, "alice", Kind.HOTP)
        path = take(daemon)
        with daemon.client() as client:
            assert client.verify("alice", key.code(1)).ok
    lose(daemon)
    assert "disabled" in restored(daemon, path)
    with daemon:
        assert states(daemon, "alice") == {token: "disabled"}
        with daemon.client() as client, daemon.admin() as admin:
            assert not any(client.verify("alice", key.code(counter)).ok for counter in (1, 2))
            assert admin.call(messages.Resync(token=token, first=key.code(2), second=key.code(3))).resynced
            assert admin.call(messages.EnableToken(token=token)).token.state == "active"
            assert not client.verify("alice", key.code(3)).ok
            assert client.verify("alice", key.code(4)).ok


@pytest.mark.parametrize("kind", ONE_TIME)
def test_a_token_revoked_after_the_backup_stays_revoked(daemon, kind):
    """A phone reported stolen does not open again because a backup knew it."""
    with daemon:
        token, key = enrolled(daemon, "alice", kind)
        path = take(daemon)
        with daemon.admin() as admin:
            admin.call(messages.RemoveToken(token=token))
    restored(daemon, path)
    daemon.configure(WIDE)
    with daemon, daemon.client() as client:
        assert states(daemon, "alice")[token] == "revoked"
        assert not client.verify("alice", key.code(0 if kind is Kind.REGISTRATION else 4)).ok


def test_what_came_after_the_backup_is_gone_and_said_to_be(daemon):
    """Users of the backup are there, later ones are not, and the log says that the store was restored."""
    with daemon:
        provision(daemon, ["alice"])
        path = take(daemon)
        provision(daemon, ["bob"])
    restored(daemon, path)
    with daemon:
        daemon.check_audit()
        with daemon.admin() as admin:
            users = [user.name for reply in admin.stream(messages.ListUsers()) for user in reply.users]
        assert users == ["alice"]
        (row,) = [entry for entry in daemon.audit() if entry.event == "store restored"]
        assert row.detail["merged"] is True
    assert list(daemon.state_dir.glob("otpbridge.db.before-*")), "the replaced store is kept"


def test_no_seed_is_in_a_backup_in_clear(daemon):
    """Who finds a backup without the key has no seed, in no form, nor a key."""
    with daemon:
        keys = provision(daemon, [f"user{number}" for number in range(50)])
        text = take(daemon).read_bytes()
        master = (daemon.state_dir / "master.key").read_text().split()[-1]
    assert daemon.folder.joinpath("store.backup").stat().st_mode & 0o077 == 0
    for key in keys.values():
        for form in (key.seed, base64.b32encode(key.seed), base64.b64encode(key.seed), key.seed.hex().encode()):
            assert form not in text
            assert form.lower() not in text
    assert master.encode() not in text


def without_a_row(lines, table):
    place = next(number for number, line in enumerate(lines) if line.startswith(f'["{table}"'.encode()))
    return lines[:place] + lines[place + 1 :]


def with_a_row_changed(lines, table, change):
    place = next(number for number, line in enumerate(lines) if line.startswith(f'["{table}"'.encode()))
    row = json.loads(lines[place])
    change(row)
    assert row != json.loads(lines[place])
    return [*lines[:place], json.dumps(row, separators=(",", ":")).encode() + b"\n", *lines[place + 1 :]]


def with_a_header_changed(lines, **changes):
    return [json.dumps(json.loads(lines[0]) | changes, separators=(",", ":")).encode() + b"\n", *lines[1:]]


def rewind(row):
    """Make a counter small again, so that spent codes would be good."""
    place = next(place for place, value in enumerate(row) if isinstance(value, int) and value > 10**6)
    row[place] = 0


def resealed(row):
    place = next(place for place, value in enumerate(row) if isinstance(value, str) and len(value) > 60)
    row[place] = base64.b64encode(secrets.token_bytes(57)).decode()


BROKEN = {
    "cut in the middle": lambda lines: lines[: len(lines) // 2],
    "cut within a line": lambda lines: [*lines[:-2], lines[-2][:20]],
    "without its end": lambda lines: lines[:-1],
    "only its header": lambda lines: lines[:1],
    "only its end": lambda lines: lines[-1:],
    "without a user": lambda lines: without_a_row(lines, "user"),
    "without an audit row": lambda lines: without_a_row(lines, "audit"),
    "a counter put back": lambda lines: with_a_row_changed(lines, "token", rewind),
    "another seed": lambda lines: with_a_row_changed(lines, "token", resealed),
    "a row twice": lambda lines: [*lines[:-1], lines[-2], lines[-1]],
    "rows swapped": lambda lines: [*lines[:-3], lines[-2], lines[-3], lines[-1]],
    "another time": lambda lines: with_a_header_changed(lines, at=1),
    "another schema": lambda lines: with_a_header_changed(lines, schema="9999"),
    "a secret that is none": lambda lines: with_a_header_changed(lines, root="AAAA"),
    "a secret that is not text": lambda lines: with_a_header_changed(lines, root="A"),
    "a secret with other letters": lambda lines: with_a_header_changed(lines, root="é"),
    "no lines": lambda lines: [],
    "something else": lambda lines: [b"\x1f\x8b\x08\x00" + bytes(100)],
    "empty objects": lambda lines: [b"{}\n"] * 3,
}


@pytest.fixture(scope="module")
def stored():
    """A stopped daemon's store and a backup of it."""
    with private_folder() as folder:
        daemon = Daemon(folder)
        with daemon:
            keys = provision(daemon, ["alice", "bob"])
            with daemon.client() as client:
                assert client.verify("alice", keys["alice"].code()).ok
            path = take(daemon)
        yield daemon, path, keys


@pytest.mark.parametrize("how", list(BROKEN))
def test_a_backup_that_was_cut_or_changed_is_refused(stored, how):
    """Nothing of a backup with one thing changed is taken, and the store stays as it was."""
    daemon, path, _ = stored
    broken = path.with_name("broken.backup")
    broken.write_bytes(b"".join(BROKEN[how](path.read_bytes().splitlines(keepends=True))))
    before = {each.name: each.read_bytes() for each in daemon.state_dir.glob("otpbridge.db*")}
    done = restore(daemon, broken)
    assert done.returncode == 1, done.stdout
    assert b"backup" in done.stderr
    after = {each.name: each.read_bytes() for each in daemon.state_dir.glob("otpbridge.db*")}
    assert after == before


@pytest.mark.parametrize("place", range(5))
def test_a_backup_with_one_byte_changed_is_refused(stored, place):
    """Wherever a byte differs, the backup is refused."""
    daemon, path, _ = stored
    whole = bytearray(path.read_bytes())
    at = len(whole) * (2 * place + 1) // 10
    whole[at] = ord("A") if whole[at] != ord("A") else ord("B")
    broken = path.with_name("byte.backup")
    broken.write_bytes(bytes(whole))
    assert restore(daemon, broken).returncode == 1


def test_the_same_backup_unchanged_is_taken(stored):
    """The refusals above are for what was changed: the whole backup restores beside them."""
    daemon, path, keys = stored
    with private_folder() as folder:
        twin = Daemon(folder)
        twin.state_dir.mkdir(mode=0o700)
        shutil.copy2(daemon.state_dir / "master.key", twin.state_dir)
        restored(twin, path)
        twin.configure(WIDE)
        with twin, twin.client() as client:
            assert client.verify("bob", keys["bob"].code(4)).ok


def test_a_backup_under_another_key_is_refused(stored, daemon):
    """With the key of another store nothing is restored, and the reason is said."""
    _, path, _ = stored
    with daemon:
        provision(daemon, ["carol"])
    done = restore(daemon, path)
    assert done.returncode == 1
    assert b"not the store's master key" in done.stderr
    with daemon:
        assert daemon.show("carol").active_tokens == 1


def test_without_a_key_nothing_is_restored(stored, daemon):
    """A new machine needs the key as well as the backup, and is told so."""
    _, path, _ = stored
    done = restore(daemon, path)
    assert done.returncode == 1
    assert b"master.key" in done.stderr
    assert list(daemon.state_dir.glob("otpbridge.db")) == []


def test_no_restore_while_a_daemon_runs(daemon):
    """The store of a running daemon is not replaced under it."""
    with daemon:
        keys = provision(daemon, ["alice"])
        path = take(daemon)
        done = restore(daemon, path)
        assert done.returncode == 1
        assert str(daemon.pid).encode() in done.stderr
        with daemon.client() as client:
            assert client.verify("alice", keys["alice"].code()).ok


def test_a_backup_that_is_not_there_is_named(daemon):
    """A wrong file name is an error about that name."""
    for wrong in (daemon.folder / "none", daemon.folder):
        done = restore(daemon, wrong)
        assert done.returncode == 2
        assert str(wrong).encode() in done.stderr


def test_a_backup_is_of_one_moment(daemon):
    """A backup taken while codes are spent and users added restores whole, with an unbroken log."""
    with daemon:
        keys = provision(daemon, [f"user{number}" for number in range(400)])
        with daemon.admin() as admin, daemon.client() as client:
            pieces = []
            users = iter(keys.items())
            for reply in admin.stream(messages.Backup()):
                pieces.append(reply.data)
                user, key = next(users)
                assert client.verify(user, key.code()).ok
        assert len(pieces) > 3
        path = daemon.folder / "live.backup"
        path.write_text("".join(pieces))
    lose(daemon)
    restored(daemon, path)
    with daemon:
        daemon.check_audit()
        assert daemon.show("user399").active_tokens == 1


def test_time_goes_on_while_the_backup_lies_about(daemon):
    """What counts is when the restore is made, not when the backup was taken."""
    with daemon:
        provision(daemon, ["alice"])
        path = take(daemon)
    before = int(time.time())
    restored(daemon, path)
    with daemon:
        (row,) = [entry for entry in daemon.audit() if entry.event == "store restored"]
        assert row.at >= before
        assert row.detail["taken_at"] <= before
