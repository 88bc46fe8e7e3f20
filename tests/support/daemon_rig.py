"""A real daemon that a test can configure, kill, reload and start again, and tokens put into its store.

with Daemon(folder, config="[throttle]\\nlimit = 3\\n") as daemon:
    keys = provision(daemon, ["alice"], kind=Kind.YUBIOTP)
    daemon.client().verify("alice", keys["alice"].code())
"""

from __future__ import annotations

import base64
import contextlib
import functools
import os
import pwd
import secrets
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import mkdtemp
from typing import Any, Protocol

import pytest
from yubikey import YubiKey

from otpbridge.client import Client
from otpbridge.model import Enforcement, Kind, OtpParameters
from otpbridge.otp.hotp import hotp
from otpbridge.otp.totp import time_step
from otpbridge.wire import messages

SECONDS = 30.0
"""How long a test waits for something that must come."""

LONG = os.environ.get("OTPBRIDGE_LONG") == "1"
"""Whether campaigns run in full."""

OTPBRIDGED = Path(sys.executable).parent / "otpbridged"
CLI = [os.fspath(Path(sys.executable).parent / "otpbridge")]
_LINES_PER_CALL = 200

PERIOD = 900
"""Seconds of a time step of test tokens: so long that hardly any test sees the next one begin."""


@contextlib.contextmanager
def private_folder() -> Iterator[Path]:
    """A folder with a path short enough for a socket, that other users may enter."""
    path = Path(mkdtemp(prefix="otpb-"))
    path.chmod(0o755)
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def plain_environment(**extra: str) -> dict[str, str]:
    """The environment without what would lead a daemon or a command elsewhere."""
    ours = ("OTPBRIDGE_RUN_DIR", "XDG_STATE_HOME", "XDG_RUNTIME_DIR", "CREDENTIALS_DIRECTORY", "JOURNAL_STREAM")
    return {name: value for name, value in os.environ.items() if name not in ours} | extra


class Daemon:
    """`otpbridged` on `folder`/state and `folder`/run, started by `with` or `start`, ended in order by `stop`."""

    def __init__(
        self,
        folder: Path,
        *,
        config: str | None = None,
        prefix: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
        options: Sequence[str] | None = None,
    ) -> None:
        self.folder = folder
        self.state_dir = folder / "state"
        self.run_dir = folder / "run"
        self.config_file = folder / "otpbridge.toml"
        self._prefix = list(prefix)
        self.environment = dict(environment or plain_environment())
        if options is None:
            options = ["--state-dir", os.fspath(self.state_dir), "--run-dir", os.fspath(self.run_dir)]
            self.configure(config or "")
            options += ["--config", os.fspath(self.config_file)]
        self._options = list(options)
        self._news = threading.Condition()
        self._said: list[str] = []
        self._ended = False
        self._process: subprocess.Popen[str] | None = None
        self._listener: threading.Thread | None = None

    def __enter__(self) -> Daemon:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            if self.running:
                assert self.stop() == 0, self.log
        else:
            self.kill()

    def configure(self, text: str) -> None:
        """Write the configuration; a running daemon reads it when it is told to reload."""
        self.config_file.write_text(text)

    def launch(self) -> Daemon:
        """Start it without waiting."""
        assert not self.running
        self._said, self._ended = [], False
        self._process = subprocess.Popen(
            [*self._prefix, os.fspath(OTPBRIDGED), *self._options],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            env=self.environment,
        )
        self._listener = threading.Thread(target=self._listen, args=(self._process,))
        self._listener.start()
        return self

    def start(self) -> Daemon:
        """Start it and wait until it serves."""
        self.launch().wait_for("is ready")
        return self

    def refused(self) -> str:
        """Start it where it must not start, and return what it says."""
        self.launch()
        try:
            assert self.wait() != 0, self.log
        finally:
            self.kill()
        return self.log

    @property
    def process(self) -> subprocess.Popen[str]:
        assert self._process is not None
        return self._process

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def log(self) -> str:
        """All that it has said since it was started."""
        with self._news:
            return "".join(self._said)

    def wait_for(self, text: str, count: int = 1) -> None:
        """Wait until it has said this, so many times."""
        with self._news:
            there = self._news.wait_for(lambda: "".join(self._said).count(text) >= count or self._ended, SECONDS)
            assert there, f"{text!r} was not said: {''.join(self._said)}"
            assert "".join(self._said).count(text) >= count, f"it ended: {''.join(self._said)}"

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def wait(self) -> int:
        """Wait for its end; its exit status."""
        status = self.process.wait(SECONDS)
        assert self._listener is not None
        self._listener.join(SECONDS)
        return status

    def stop(self) -> int:
        """End it as a service manager does."""
        self.signal(signal.SIGTERM)
        return self.wait()

    def kill(self) -> None:
        """End it as a crash does."""
        if self._process is not None:
            self._process.kill()
            self.wait()

    def reload(self) -> None:
        """Have it read its configuration again, and wait until it has."""
        before = self.log.count("reload: done")
        self.signal(signal.SIGHUP)
        self.wait_for("reload: done", before + 1)

    @property
    def verify_socket(self) -> Path:
        return self.run_dir / "verify"

    def client(self, timeout: float = SECONDS) -> Client:
        return Client(run_dir=self.run_dir, timeout=timeout)

    def admin(self, timeout: float = SECONDS) -> Client:
        return Client(run_dir=self.run_dir, admin=True, timeout=timeout)

    def audit(self) -> list[messages.Entry]:
        """The whole audit log, oldest first."""
        with self.admin() as admin:
            replies = admin.stream(messages.AuditTail(count=100_000))
            return [entry for reply in replies for entry in reply.entries]

    def check_audit(self) -> None:
        """The chain of the audit log is whole."""
        with self.admin() as admin:
            found = admin.call(messages.AuditVerify())
        assert found.intact, found.fault

    def show(self, user: str) -> messages.UserFields:
        """A user as the admin sees them."""
        with self.admin() as admin:
            return admin.call(messages.ShowUser(user=user)).user

    def _listen(self, process: subprocess.Popen[str]) -> None:
        assert process.stderr is not None
        for line in process.stderr:
            with self._news:
                self._said.append(line)
                self._news.notify_all()
        process.stderr.close()
        with self._news:
            self._ended = True
            self._news.notify_all()


ONE_TIME = tuple(kind for kind in Kind if kind not in {Kind.PASSWORD, Kind.FIDO2})
"""The kinds of which a code is good once. (A security key has none: it answers a challenge.)"""
OATH = (Kind.TOTP, Kind.HOTP)


class Codes(Protocol):
    """What a person has their codes from."""

    kind: Kind

    def code(self, ahead: int = 0) -> str:
        """The next code, or one `ahead` of it."""

    def wrong(self, count: int = 1) -> list[str]:
        """Codes that look right and are not."""


@dataclass(slots=True)
class Paper:
    """Codes that were written down: a list of recovery codes, or the one of a registration."""

    kind: Kind
    codes: Sequence[str]

    def code(self, ahead: int = 0) -> str:
        return self.codes[ahead]

    def wrong(self, count: int = 1) -> list[str]:
        """Codes of the same form as those on the paper."""
        shape = self.codes[0]
        letters = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
        return ["".join(c if c == "-" else secrets.choice(letters) for c in shape) for _ in range(count)]


@dataclass(slots=True)
class Key:
    """What an authenticator holds. Codes come from the seed alone, as on a phone."""

    kind: Kind = Kind.TOTP
    digits: int = 6
    period: int = PERIOD
    seed: bytes = field(default_factory=lambda: secrets.token_bytes(20))

    @property
    def parameters(self) -> OtpParameters:
        return OtpParameters(digits=self.digits, period=self.period)

    @property
    def uri(self) -> str:
        secret = base64.b32encode(self.seed).decode()
        rest = f"period={self.period}" if self.kind is Kind.TOTP else "counter=0"
        return f"otpauth://{self.kind}/Example:someone?secret={secret}&issuer=Example&digits={self.digits}&{rest}"

    def code(self, ahead: int = 0) -> str:
        """TOTP: the code of the present time step or of one `ahead`. HOTP: the code of the counter `ahead`."""
        base = time_step(time.time(), self.parameters) if self.kind is Kind.TOTP else 0
        return hotp(self.seed, base + ahead, self.parameters)

    def wrong(self, count: int = 1) -> list[str]:
        """Codes that fit no counter or time step that could be tried soon."""
        base = time_step(time.time(), self.parameters) if self.kind is Kind.TOTP else 40
        right = {hotp(self.seed, max(0, base + near), self.parameters) for near in range(-40, 41)}
        texts = (f"{number:0{self.digits}d}" for number in range(10**self.digits))
        return [text for text, _ in zip((text for text in texts if text not in right), range(count), strict=False)]


def provision(
    daemon: Daemon, users: Iterable[str], client: str | None = None, *, kind: Kind = Kind.TOTP, **form: Any
) -> dict[str, Any]:
    """Give each user an active token of one kind, of which no code was used; what they have their codes from."""
    if kind not in OATH:
        return _made(daemon, list(users), client, kind)
    keys = {user: Key(kind, **form) for user in users}
    put(daemon, keys, client)
    return keys


def _made(daemon: Daemon, users: Sequence[str], client: str | None, kind: Kind) -> dict[str, Codes]:
    if kind is Kind.RECOVERY:
        # They stand in for an authenticator, so there has to be one.
        put(daemon, {user: Key() for user in users}, client)
    found: dict[str, Codes] = {}
    with daemon.admin() as admin:
        for user in users:
            _, found[user] = issued(admin, user, kind, client)
    return found


def issued(admin: Client, user: str, kind: Kind, client: str | None = None) -> tuple[str, Codes]:
    """Have a token of a kind made that cannot be imported; its id, and what its next codes come from."""
    if kind is Kind.YUBIOTP:
        started = admin.enrol(user, kind, client=client)
        key = programmed(started)
        assert admin.confirm(started.token, key.code()).confirmed
        key.touched += 1
        return started.token, key
    if kind is Kind.RECOVERY:
        made = admin.call(messages.NewRecoveryCodes(user=user, client=client))
        return made.token, Paper(kind, made.codes)
    admin.call(messages.AddUser(user=user, client=client))
    # Nobody is asked for anything who need not have an authenticator and has none.
    required = messages.SetEnforcement(user=user, enforcement=Enforcement.REQUIRED, client=client, force=True)
    admin.call(required)
    issue = admin.call(messages.IssueRegistrationCode(user=user, client=client))
    return issue.token, Paper(kind, [issue.code])


def programmed(started: messages.StartReply) -> YubiKey:
    """A YubiKey with what an enrolment shows."""
    assert started.public_id is not None
    assert started.private_id is not None
    return YubiKey(started.public_id, bytes.fromhex(started.private_id), bytes.fromhex(started.seed_hex))


def put(daemon: Daemon, keys: Mapping[str, Key], client: str | None = None) -> None:
    """Put keys into the store as active tokens."""
    lines = [f"{user}\t{key.uri}" for user, key in keys.items()]
    with daemon.admin() as admin:
        for start in range(0, len(lines), _LINES_PER_CALL):
            piece = tuple(lines[start : start + _LINES_PER_CALL])
            last = start + _LINES_PER_CALL >= len(lines)
            reply = admin.call(messages.Import(lines=piece, first_line=start + 1, last=last, client=client))
    assert (reply.imported, reply.errors) == (len(lines), ())


def enrolled(daemon: Daemon, user: str, kind: Kind = Kind.TOTP) -> tuple[str, Any]:
    """Enrol over the socket; the token's id, and what its codes come from.

    The first code of an authenticator app is used up by the proof, as it is in life.
    """
    if kind not in OATH:
        if kind is Kind.RECOVERY:
            put(daemon, {user: Key()})
        with daemon.admin() as admin:
            return issued(admin, user, kind)
    with daemon.client() as client:
        started = client.enrol(user, kind, period=None if kind is Kind.HOTP else PERIOD)
        key = Key(kind, seed=bytes.fromhex(started.seed_hex))
        assert client.confirm(started.token, key.code()).confirmed
    return started.token, key


def command(
    *arguments: object, run_dir: Path | None = None, stdin: str | bytes = "", prefix: Sequence[str] = ()
) -> subprocess.CompletedProcess[bytes]:
    """Run the command line, without the terminal and the environment of whoever runs the tests."""
    where = [] if run_dir is None else ["--run-dir", os.fspath(run_dir)]
    done = subprocess.run(
        [*prefix, *CLI, *where, *map(str, arguments)],
        input=stdin.encode() if isinstance(stdin, str) else stdin,
        capture_output=True,
        check=False,
        timeout=SECONDS,
        env=plain_environment(),
    )
    assert b"Traceback" not in done.stderr, done.stderr.decode()
    return done


def build_preload(name: str, folder: Path) -> Path:
    """Build `tests/support/NAME.c` as a library to preload."""
    source = Path(__file__).with_name(f"{name}.c")
    library = folder / f"{name}.so"
    subprocess.run(["gcc", "-shared", "-fPIC", "-O1", "-o", library, source], check=True, timeout=SECONDS)
    return library


# --- other users ---


def need_root() -> None:
    """Skip a test that has to act as several users."""
    if os.geteuid() != 0:
        pytest.skip("needs root: acts as other users")


def plain_user(place: int = 0) -> pwd.struct_passwd:
    """Some account of this system that is neither root nor ours; `place` tells several apart."""
    found = [entry for entry in pwd.getpwall() if entry.pw_uid not in {0, os.geteuid()}]
    if len(found) <= place:
        pytest.skip("this system has too few accounts")
    return found[place]


@functools.cache
def as_user(uid: int, gid: int) -> tuple[str, ...]:
    """What to put before a command so that it runs as this user, without groups. Skips where that cannot be done.

    Where the interpreter lies in a folder closed to others, the command may read and search all folders; it
    can still write only what is the user's.
    """
    plain = ("setpriv", f"--reuid={uid}", f"--regid={gid}", "--clear-groups")
    for prefix in (plain, (*plain, "--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search")):
        # By way of a shell: setpriv itself still has root's rights while it looks for the program.
        started = ["sh", "-c", 'exec "$0" -c "import otpbridge"', sys.executable]
        tried = subprocess.run([*prefix, *started], check=False, capture_output=True)
        if tried.returncode == 0:
            return prefix
    pytest.skip("cannot run the interpreter as another user here")
