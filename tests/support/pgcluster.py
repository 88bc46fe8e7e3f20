"""A private PostgreSQL server for tests: a cluster in a folder of its own, reached by a Unix socket alone.

Its data is flushed as on any server. PostgreSQL refuses to run as root, so root runs it as `postgres`.
"""

from __future__ import annotations

import atexit
import functools
import os
import pwd
import shutil
import signal
import subprocess
from pathlib import Path
from tempfile import mkdtemp

import psycopg
import pytest
from psycopg import sql
from sqlalchemy.engine import make_url

from otpbridge.store import schema
from otpbridge.store.engine import open_engine

OWNER = "tester"
_TEMPLATE = "prepared"
_SETTINGS = """
listen_addresses = ''
max_connections = 60
shared_buffers = 32MB
log_min_messages = fatal
"""


class Server:
    """One server. `url` names a database of it; `start` and `stop` do what they say, as often as you like."""

    def __init__(self) -> None:
        self.folder = Path(mkdtemp(prefix="otpb-pg-"))
        atexit.register(shutil.rmtree, self.folder, ignore_errors=True)
        self._data = self.folder / "data"
        self._account = "postgres" if os.geteuid() == 0 else pwd.getpwuid(os.geteuid()).pw_name
        if os.geteuid() == 0:
            account = pwd.getpwnam(self._account)
            os.chown(self.folder, account.pw_uid, account.pw_gid)
        self.folder.chmod(0o755)
        self._make()
        settings = self._data / "postgresql.conf"
        with settings.open("a") as file:
            file.write(f"{_SETTINGS}unix_socket_directories = '{self.folder}'\n")
        self.start()

    def _make(self) -> None:
        """Make the folder of its data."""
        self._run(
            "initdb", "-A", "trust", "-U", "postgres", "-E", "UTF8", "--locale=C", "--no-sync", "-D", self._data
        )

    def start(self) -> None:
        """Start the server and wait until it answers."""
        log = self.folder / "log"
        self._run("pg_ctl", "start", "-w", "-s", "-D", self._data, "-l", log)

    def stop(self, mode: str = "fast") -> None:
        """Stop it; `immediate` is what a crash is like."""
        self._run("pg_ctl", "stop", "-w", "-s", "-m", mode, "-D", self._data)

    def suspend(self) -> None:
        """Have all its processes stand still."""
        os.kill(self._processes()[0], signal.SIGSTOP)
        for pid in self._processes():
            os.kill(pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Have them go on."""
        for pid in self._processes():
            os.kill(pid, signal.SIGCONT)

    def _processes(self) -> list[int]:
        """The server's, that of the postmaster first: it makes no more once it stands still."""
        postmaster = (self._data / "postmaster.pid").read_text().split()[0]
        children = Path(f"/proc/{postmaster}/task/{postmaster}/children").read_text().split()
        return [int(pid) for pid in (postmaster, *children)]

    def close(self) -> None:
        """Stop it for good, if it runs."""
        if (self._data / "postmaster.pid").exists():
            self.stop("immediate")

    def url(self, database: str, role: str = OWNER, **options: str) -> str:
        """What [store] url is for a database."""
        return (
            make_url(f"postgresql://{role}@/{database}")
            .update_query_dict({"host": os.fspath(self.folder), **options})
            .render_as_string()
        )

    def remove(self, name: str) -> None:
        """Remove a database, whoever is connected to it."""
        self.sql(f"DROP DATABASE {name} WITH (FORCE)")

    def connect(self, database: str = "postgres", role: str = "postgres") -> psycopg.Connection:
        """A connection of the test's own, in autocommit mode."""
        return psycopg.connect(host=os.fspath(self.folder), dbname=database, user=role, autocommit=True)

    def sql(self, statement: str, database: str = "postgres", **values: object) -> list[tuple]:
        """Run one statement as the superuser; what it returns."""
        with self.connect(database) as connection:
            cursor = connection.execute(sql.SQL(statement), values or None)
            return cursor.fetchall() if cursor.description else []

    def cut(self, database: str) -> int:
        """End every connection to a database, as an administrator does; how many there were."""
        ended = self.sql(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %(name)s", name=database
        )
        return len(ended)

    def _run(self, program: str, *arguments: object) -> None:
        prefix = []
        if os.geteuid() == 0:
            prefix = ["setpriv", f"--reuid={self._account}", f"--regid={self._account}", "--clear-groups"]
        command = [*prefix, os.fspath(_folder() / program), *map(str, arguments)]
        # To a file: a server that it starts would keep a pipe open.
        with (self.folder / "said").open("w+") as said:
            done = subprocess.run(command, check=False, stdout=said, stderr=said, cwd="/", timeout=120)
            said.seek(0)
            assert done.returncode == 0, said.read()


class Cluster(Server):
    """A server with as many databases for stores as are wanted."""

    def __init__(self) -> None:
        super().__init__()
        self._number = 0
        self._spare: list[str] = []
        self.sql(f"CREATE ROLE {OWNER} LOGIN")
        self.sql(f"CREATE DATABASE {_TEMPLATE} OWNER {OWNER}")
        engine = open_engine(self.url(_TEMPLATE), self.folder)
        with engine.connect() as connection:
            schema.migrate(connection)
        engine.dispose()

    def create(self, *, empty: bool = False) -> str:
        """An empty database, with all tables unless it is to have none; its name."""
        if self._spare and not empty:
            return self._spare.pop()
        self._number += 1
        name = f"store{self._number}"
        template = "template1" if empty else _TEMPLATE
        self.sql(f"CREATE DATABASE {name} OWNER {OWNER} TEMPLATE {template}")
        return name

    def give_back(self, name: str) -> None:
        """Empty a database for the next test, whoever is connected to it: sooner done than a new one."""
        self.cut(name)
        self.sql('TRUNCATE "user", token, throttle, seen, relay, audit, about, meta, staged RESTART IDENTITY', name)
        self._spare.append(name)


class Standby(Server):
    """A server that follows another one, which waits for it at each commit."""

    def __init__(self, primary: Server) -> None:
        self._primary = primary
        super().__init__()
        primary.sql("ALTER SYSTEM SET synchronous_standby_names = '*'")
        primary.sql("SELECT pg_reload_conf()")

    def promote(self) -> None:
        """Have it follow nobody any more, and be written to."""
        self._run("pg_ctl", "promote", "-w", "-s", "-D", self._data)

    def _make(self) -> None:
        self._run("pg_basebackup", "-h", self._primary.folder, "-U", "postgres", "-R", "-c", "fast", "-D", self._data)


def _folder() -> Path:
    """Where the server's programs are, those of the newest version."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[4]))
    if not found:
        pytest.skip("the PostgreSQL server is not installed (scripts/system-packages test)")
    return found[-1].parent


@functools.cache
def cluster() -> Cluster:
    """The one server of this test process."""
    made = Cluster()
    atexit.register(made.close)
    return made
