"""Opening a store: made at first start, refused where it must be, its schema what the program expects."""

from __future__ import annotations

import os
import re
import stat
import subprocess
import sys

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Engine, event, text
from sqlalchemy.dialects import postgresql
from storerig import RULE, SOURCE_RULE, only, opened, place, run, running

from otpbridge.errors import ConfigError, KeyMissingError, SealBrokenError, StoreBusyError, StoreError
from otpbridge.store import schema, statements, tables, tokens
from otpbridge.store.engine import open_engine
from otpbridge.store.statements import Prepared
from otpbridge.store.store import open_store


def closed(folder):
    """Open a store once."""
    run(opened(folder).close())


@only("sqlite")
def test_the_first_start_makes_everything_private(tmp_path):
    """Folder 0700, files 0600, key 0400, whatever the umask of the shell."""
    folder = tmp_path / "state"
    before = os.umask(0o077)
    try:
        closed(folder)
    finally:
        os.umask(before)
    modes = {entry.name: stat.S_IMODE(entry.stat().st_mode) for entry in folder.iterdir()}
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert modes == {"master.key": 0o400, "otpbridge.db": 0o600, "store.lock": 0o600}


def test_a_store_without_its_key_is_refused(tmp_path):
    """No new key is made over a store that has data under another."""
    closed(tmp_path)
    (tmp_path / "master.key").unlink()
    with pytest.raises(KeyMissingError, match="Put the key back"):
        opened(tmp_path)
    assert not (tmp_path / "master.key").exists()


def test_a_store_with_another_key_is_refused(tmp_path):
    """The wrong key is found at start, not at the first login."""
    closed(tmp_path)
    (tmp_path / "master.key").unlink()
    place(tmp_path).create(os.urandom)
    with pytest.raises(SealBrokenError, match="not the store's master key"):
        opened(tmp_path)


@only("sqlite")
def test_a_second_daemon_on_a_store_is_refused(tmp_path):
    """Two daemons would each believe that they write alone; the message names the first."""
    first = opened(tmp_path)
    with pytest.raises(StoreBusyError, match=f"pid {os.getpid()}"):
        opened(tmp_path)
    run(first.close())
    closed(tmp_path)


@only("sqlite")
def test_a_folder_that_others_can_write_is_refused(tmp_path):
    """Who can write the folder can swap the store."""
    tmp_path.chmod(0o777)
    with pytest.raises(StoreError, match="chmod 0700"):
        opened(tmp_path)


@only("sqlite")
def test_a_file_in_place_of_the_folder_is_refused(tmp_path):
    """A clear message, no traceback of mkdir."""
    (tmp_path / "state").touch()
    with pytest.raises(StoreError, match="cannot be made"):
        opened(tmp_path / "state")


@only("sqlite")
def test_a_damaged_database_is_refused(tmp_path):
    """Not a database: said so, with its place."""
    closed(tmp_path)
    (tmp_path / "otpbridge.db").write_bytes(b"not a database at all" * 500)
    with pytest.raises(StoreError, match=r"otpbridge.db: cannot be opened: file is not a database"):
        opened(tmp_path)


@only("sqlite")
def test_a_store_of_a_later_version_is_refused(tmp_path):
    """An old program does not touch what it does not know."""
    closed(tmp_path)
    engine = open_engine(None, tmp_path)
    with engine.connect() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    engine.dispose()
    with pytest.raises(StoreError, match="made by a later otpbridge"):
        opened(tmp_path)


@only("sqlite")
@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("nonsense", "not a database URL"),
        ("mysql://localhost/x", "mysql is not supported"),
        ("postgresql+nodriver://localhost/x", "write postgresql://"),
    ],
)
def test_a_store_url_that_cannot_be_used_is_told(tmp_path, url, said):
    """[store] url: what is wrong, and what would be right."""
    with pytest.raises(ConfigError, match=said):
        open_store(url, tmp_path, place(tmp_path), os.urandom, SOURCE_RULE)


@only("sqlite")
def test_a_password_in_a_url_is_not_shown(tmp_path):
    """A URL that cannot be used is not repeated in the error: it may hold a password."""
    for url in ("postgresql+psycopg2://user:hunter2@localhost/x", "mysql://user:hunter2@localhost/x"):
        with pytest.raises(ConfigError) as caught:
            open_engine(url, tmp_path)
        assert "hunter2" not in str(caught.value)


def test_migrations_make_the_tables_that_the_program_uses(tmp_path):
    """The newest migration and the table definitions are the same schema."""
    store = opened(tmp_path)
    with store.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, tables.metadata) == []
        assert schema.version(connection) == schema.HEAD
    run(store.close())


@only("sqlite")
def test_the_newest_migration_is_the_one_that_is_asked_for():
    """schema.HEAD follows migrations/versions."""
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", "src/otpbridge/store/migrations")
    config.set_main_option("path_separator", "os")
    assert ScriptDirectory.from_config(config).get_current_head() == schema.HEAD


@only("sqlite")
def test_sqlite_keeps_spent_codes_over_a_power_cut(tmp_path):
    """WAL with synchronous=FULL on every connection: weaker pairs were seen to bring spent codes back."""
    store = opened(tmp_path)
    with store.engine.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2
        assert connection.exec_driver_sql("PRAGMA secure_delete").scalar() == 1
        assert connection.exec_driver_sql("PRAGMA foreign_keys").scalar() == 1
    run(store.close())


@only("sqlite")
def test_neither_a_start_nor_what_is_done_each_minute_walks_over_all_users(tmp_path):
    """Nor over their tokens or the audit log: with a million users it would keep logins waiting."""
    closed(tmp_path)
    asked = []

    async def work():
        async with running(tmp_path) as rig:
            await rig.change(tokens.expire)
            await rig.change(rig.store.tidy)
            event.remove(Engine, "before_cursor_execute", note)
            return [
                (statement, row[-1])
                for statement, parameters in asked
                if statement.startswith(("SELECT", "DELETE", "UPDATE"))
                for row in rig.read(
                    lambda connection: connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters).all()  # noqa: B023
                )
            ]

    def note(_connection, _cursor, statement, parameters, *_):
        asked.append((statement, parameters))

    event.listen(Engine, "before_cursor_execute", note)
    plan = run(work())
    assert [statement for statement, step in plan if "SEARCH token USING INDEX ix_token_expires_at" in step]
    large = re.compile(r"SCAN (user|token|audit|about|seen)\b")
    assert not [(statement, step) for statement, step in plan if large.match(step)]


@only("sqlite")
def test_every_deciding_statement_is_postgresql_too():
    """The same Core statements compile for the other database."""
    dialect = postgresql.dialect(paramstyle="pyformat")
    built = [
        statements.candidate(),
        statements.spend(dialect),
        statements.strike(dialect),
        statements.remember(dialect),
        statements.forgive(dialect),
        statements.throttled(dialect),
        statements.miss(dialect, RULE),
        statements.miss(dialect, RULE, reserving=True),
        statements.hit(dialect),
        statements.refuse(dialect),
        statements.head(),
        statements.append_rows(dialect),
        statements.move_head(),
    ]
    texts = [Prepared(statement, dialect).sql for statement in built]
    assert "json_each" not in " ".join(texts)
    assert "FOR UPDATE" in " ".join(texts)


_LONG_CHANGE = """
import resource, sys
from pathlib import Path
from otpbridge.store.engine import open_engine

with open_engine(None, Path(sys.argv[1])).connect() as connection:
    run = connection.exec_driver_sql
    numbers = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 40000)"
    run("CREATE TABLE t (i INTEGER PRIMARY KEY, b BLOB)")
    run(f"{numbers} INSERT INTO t SELECT i, zeroblob(1500) FROM n")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for statement in ("BEGIN IMMEDIATE", "SAVEPOINT change", "UPDATE t SET b = randomblob(1500)"):
        run(statement)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
    for statement in ("RELEASE change", "COMMIT", "UPDATE t SET b = NULL WHERE i = 1"):
        run(statement)
    print(Path(sys.argv[1], "otpbridge.db-wal").stat().st_size)
"""


@only("sqlite")
def test_a_long_change_takes_neither_memory_nor_disk_for_good(tmp_path):
    """What is needed to undo 80 MB of changes is not held in memory, and the log that they filled is cut again."""
    done = subprocess.run(
        [sys.executable, "-c", _LONG_CHANGE, str(tmp_path)], capture_output=True, text=True, check=True
    )
    kib, log = map(int, done.stdout.split())
    assert kib < 20_000
    assert log < 65 << 20
