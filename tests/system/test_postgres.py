"""Two daemons on one PostgreSQL database: one store, whoever is asked, and whoever dies."""

from __future__ import annotations

import base64
import os
import subprocess
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import psycopg
import pytest
from daemon_rig import CLI, LONG, Daemon, private_folder, programmed, provision
from pgcluster import cluster
from pgpair import daemon_on, pair_on

from otpbridge.errors import RemoteError
from otpbridge.model import Kind
from otpbridge.wire import messages

pytestmark = [pytest.mark.system, pytest.mark.timeout(900)]

ROUNDS = 30 if LONG else 5
LIMIT = 3


def touched(key):
    """The next code of a YubiKey."""
    code = key.code()
    key.touched += 1
    return code


CONFIG = f"[throttle]\nlimit = {LIMIT}\nfirst_wait = 300\n"
PATIENT = "[throttle]\nlimit = 1000\nsource_limit = 100000\n"


@pytest.fixture
def database():
    """A database without tables: the first daemon makes them."""
    server = cluster()
    name = server.create(empty=True)
    yield name
    server.remove(name)


@pytest.fixture
def folder():
    with private_folder() as path:
        yield path


def daemon_in(folder, name, database, config=CONFIG):
    """A daemon that is not started."""
    return daemon_on(cluster().url(database), folder / name, config)


def pair(folder, database, config=CONFIG):
    """Two daemons with the same master key, as on two hosts."""
    return pair_on([cluster().url(database)] * 2, folder, config)


def asked(daemons, answers):
    """The verdicts of daemons that are all asked at once; answers are (user, code)."""

    def ask(number):
        with daemons[number % len(daemons)].client() as client:
            return client.verify(*answers[number]).verdict

    with ThreadPoolExecutor(len(answers)) as pool:
        return list(pool.map(ask, range(len(answers))))


def test_one_code_at_two_daemons_is_accepted_once(folder, database):
    """Sixteen at once, half of them at each: one gets in, in each round; one log knows of all."""
    with pair(folder, database, PATIENT) as daemons:
        keys = provision(daemons[0], [f"user{number}" for number in range(ROUNDS)])
        for user, key in keys.items():
            verdicts = asked(daemons, [(user, key.code())] * 16)
            assert Counter(verdicts) == {"success": 1, "auth_err": 15}
        for daemon in daemons:
            daemon.check_audit()
        entries = [entry for entry in daemons[1].audit() if entry.event == "verify"]
        assert len(entries) == 16 * ROUNDS
        assert Counter(entry.verdict for entry in entries)["success"] == ROUNDS


def test_a_limit_holds_over_two_daemons(folder, database):
    """Who guesses at both has no more guesses: three of sixteen are judged, all are counted."""
    with pair(folder, database) as daemons:
        keys = provision(daemons[0], [f"user{number}" for number in range(ROUNDS)])
        for user, key in keys.items():
            verdicts = asked(daemons, [(user, code) for code in key.wrong(16)])
            assert Counter(verdicts) == {"auth_err": LIMIT, "maxtries": 16 - LIMIT}
            for daemon in daemons:
                shown = daemon.show(user)
                assert (shown.misses, shown.refused) == (LIMIT, 16 - LIMIT)


def test_what_is_done_at_one_daemon_holds_at_the_other(folder, database):
    """Enrolled here and confirmed there, disabled here and refused there, seen by who follows the log there."""
    with (
        pair(folder, database, PATIENT) as (one, other),
        one.client() as here,
        other.client() as there,
        one.admin() as admin,
        other.admin() as follower,
        closing(follower.stream(messages.AuditTail(count=1, follow=True))) as replies,
    ):
        next(replies)
        started = here.enrol("alice", Kind.YUBIOTP)
        key = programmed(started)
        assert there.confirm(started.token, touched(key)).confirmed
        assert here.verify("alice", touched(key)).ok
        assert there.verify("alice", touched(key)).ok
        admin.call(messages.DisableToken(token=started.token))
        assert not there.verify("alice", touched(key)).ok
        heard = []
        while "token disabled" not in heard:
            heard += [entry.event for entry in next(replies).entries]
        changes = [event for event in heard if event in {"token started", "token confirmed", "token disabled"}]
        assert changes == ["token started", "token confirmed", "token disabled"]


def test_a_daemon_without_the_key_does_not_start(folder, database):
    """A second host needs the master key of the first; it makes none of its own."""
    with daemon_in(folder, "one", database):
        refused = daemon_in(folder, "other", database)
        assert "Put the key back" in refused.refused()
        assert not (refused.state_dir / "master.key").exists()


def restart(daemon, *keys):
    """Start a daemon again with these master keys."""
    assert daemon.stop() == 0
    place = daemon.state_dir / "master.key"
    place.unlink()
    place.write_text("\n".join(keys) + "\n")
    place.chmod(0o400)
    daemon.start()


def test_the_key_is_not_rotated_before_all_have_it(folder, database):
    """The new key goes to every daemon first, then becomes the one that seals; logins go on at both all the time."""
    with pair(folder, database, PATIENT) as (one, other):
        with one.client() as client:
            started = client.enrol("alice", Kind.YUBIOTP)
            key = programmed(started)
            assert client.confirm(started.token, touched(key)).confirmed
        with one.admin() as admin, pytest.raises(RemoteError, match="every daemon's key file"):
            list(admin.stream(messages.RotateKey()))
        old = (one.state_dir / "master.key").read_text().splitlines()[-1]
        new = base64.b64encode(os.urandom(32)).decode()
        for lines in ([old, new], [new, old]):
            for daemon in (one, other):
                restart(daemon, *lines)
                for each in (one, other):
                    with each.client() as client:
                        assert client.verify("alice", touched(key)).ok
        with other.admin() as admin:
            assert list(admin.stream(messages.RotateKey()))[-1].resealed == 1
        for daemon in (one, other):
            restart(daemon, new)
            with daemon.client() as client:
                assert client.verify("alice", touched(key)).ok
            daemon.check_audit()


def test_a_name_that_a_database_cannot_keep_harms_nobody(folder, database):
    """A NUL in a name is refused where it comes in, and not by the commit that others share."""
    with daemon_in(folder, "one", database) as daemon, daemon.client() as client:
        keys = provision(daemon, ["alice"])
        with pytest.raises(RemoteError, match="user"):
            client.call(messages.Check(user="al\0ice", responses=("123456",)))
        said = messages.ContextFields(service="ss\0hd", rhost="192.0.2.1\0")
        code = keys["alice"].code()
        assert client.call(messages.Check(user="alice", responses=(code,), context=said)).verdict == "success"


def test_a_password_in_the_url_is_shown_nowhere(folder, database):
    """Not in the log, the status, nor in what is said when the server cannot be reached."""
    config = f'[store]\nurl = "{cluster().url(database)}&password=hunter2"\n'
    daemon = Daemon(folder, config=config.replace("tester@", "tester:hunter3@"))
    with daemon, daemon.admin() as admin:
        status = admin.call(messages.Status())
        assert database in status.store
        assert "hunter" not in status.store + daemon.log
    away = config.replace(str(cluster().folder).replace("/", "%2F"), "%2Fnonexistent")
    daemon.configure(away)
    said = daemon.refused()
    assert "cannot be opened" in said
    assert "hunter" not in said


def sql_of(document):
    """The statements of each block of SQL in a document."""
    blocks = document.read_text().split("```sql\n")[1:]
    return [[each.strip() for each in block.partition("```")[0].split(";") if each.strip()] for block in blocks]


@pytest.fixture
def documented():
    """A database and its roles as the documentation makes them; the grants, and what lets old entries be deleted."""
    first, grants, limited = sql_of(Path(__file__).parents[2] / "docs" / "postgresql.md")
    server = cluster()
    for statement in first:
        server.sql(statement)
    yield grants, limited
    server.remove("otpbridge")
    server.sql("DROP ROLE otpbridge")
    server.sql("DROP ROLE otpbridge_owner")


def test_the_roles_of_the_documentation_can_do_what_they_must_and_no_more(folder, documented):
    """A daemon as a role that cannot change what was logged, nor make tables; the owner makes them."""
    server = cluster()
    daemon = Daemon(folder, config=f'[store]\nurl = "{server.url("otpbridge", "otpbridge")}"\n')
    assert "otpbridge store upgrade" in daemon.refused()
    arguments = ["store", "upgrade", "--role", "otpbridge_owner", "--config", str(daemon.config_file)]
    for said in ("has schema 0001 now", "already"):
        done = subprocess.run([*CLI, *arguments], check=True, capture_output=True, text=True)
        assert said in done.stdout
    grants, limited = documented
    for statement in grants:
        server.sql(statement, "otpbridge")
    with daemon:
        keys = provision(daemon, ["alice", "bob"], kind=Kind.YUBIOTP)
        codes = provision(daemon, ["carol"], kind=Kind.RECOVERY)
        with daemon.client() as client, daemon.admin() as admin:
            for user, key in (keys | codes).items():
                assert client.verify(user, key.code()).ok
                assert not client.verify(user, key.code()).ok
            admin.call(messages.ResetUser(user="bob"))
            admin.call(messages.RemoveUser(user="carol"))
            assert list(admin.stream(messages.Backup()))
        daemon.check_audit()
    with server.connect("otpbridge", "otpbridge") as connection:
        for statement in (
            "UPDATE audit SET entry = ''",
            "DELETE FROM audit",
            "TRUNCATE audit",
            "DELETE FROM meta",
            "CREATE TABLE other (x int)",
            "ALTER TABLE audit ADD x int",
        ):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute(statement)
    for statement in limited:
        server.sql(statement, "otpbridge")
    with daemon, daemon.client() as client:
        assert not client.verify("alice", "nothing").ok
        daemon.check_audit()
    entries = server.sql("SELECT count(*) FROM audit", "otpbridge")[0][0]
    for sequence, days in ((900, 89), (901, 91)):
        server.sql(
            f"INSERT INTO audit (sequence, entry, mac) SELECT {sequence}, "
            f"json_build_object('at', extract(epoch FROM now()) - {days} * 86400)::text, ''",
            "otpbridge",
        )
    with server.connect("otpbridge", "otpbridge") as connection:
        assert connection.execute("DELETE FROM audit").rowcount == 1
        assert connection.execute("SELECT count(*) FROM audit").fetchone() == (entries + 1,)
