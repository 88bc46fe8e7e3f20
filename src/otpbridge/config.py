"""otpbridge.toml as types, and where the daemon's folders are.

Every key has a default that is right for one machine, so the file may be absent. A key that is not known is an
error with its file, its line and the nearest name, never ignored: a typo must not switch a rule off.
"""

from __future__ import annotations

import difflib
import os
import re
import tomllib
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import msgspec

from otpbridge.errors import ConfigError
from otpbridge.model import LOCAL

SYSTEM_CONFIG = Path("/etc/otpbridge/otpbridge.toml")
SYSTEM_STATE = Path("/var/lib/otpbridge")
SYSTEM_RUN = Path("/run/otpbridge")

Count = Annotated[int, msgspec.Meta(ge=1, le=100_000)]


class _Section(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    pass


class UnknownUsers(StrEnum):
    """What a login of a user who is not in the store meets."""

    REFUSE = "refuse"
    IGNORE = "ignore"


class KeySource(StrEnum):
    """Where the master key comes from."""

    AUTO = "auto"
    CREDENTIAL = "credential"
    FILE = "file"
    EMBEDDED = "embedded"


class Key(_Section, frozen=True):
    """The master key. `auto`: the systemd credential when there is one, else `file`, else embedded."""

    source: KeySource = KeySource.AUTO
    file: Path | None = None
    credential: str = "master-key"


class Store(_Section, frozen=True):
    """Where the store is. Without `url`: SQLite in the state folder."""

    url: str | None = None


class Users(_Section, frozen=True):
    """What holds for users as such."""

    unknown: UnknownUsers = UnknownUsers.REFUSE


class Window(_Section, frozen=True):
    """How far a code may be from where it is expected."""

    totp: Annotated[int, msgspec.Meta(ge=0, le=10)] = 1
    """Time steps tolerated before and after the expected one (RFC 6238 §5.2)."""
    hotp: Annotated[int, msgspec.Meta(ge=0, le=100)] = 10
    """Look-ahead window of HOTP counters (RFC 4226 §7.4)."""
    drift: Annotated[int, msgspec.Meta(ge=0, le=100)] = 10
    """The largest clock difference of an authenticator that is learnt, in time steps."""
    resync: Annotated[int, msgspec.Meta(ge=1, le=10_000)] = 1000
    """How far resynchronisation by two consecutive codes may search, in time steps or counters."""


class Throttle(_Section, frozen=True):
    """Back-off after wrong codes."""

    limit: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 4
    """Wrong codes in a row that are judged at once, per user; the first wait follows the last of them."""
    source_limit: Annotated[int, msgspec.Meta(ge=1, le=100_000)] = 50
    """The same per source (`rhost`), where many people may share one address."""
    first_wait: Annotated[int, msgspec.Meta(ge=1, le=3600)] = 1
    """Seconds of the first wait; each further miss doubles it."""
    longest_wait: Annotated[int, msgspec.Meta(ge=1, le=86_400)] = 300
    """Seconds of the longest wait."""
    forget: Annotated[int, msgspec.Meta(ge=1, le=604_800)] = 900
    """Seconds without a miss after which one miss is forgotten."""


class Enrolment(_Section, frozen=True):
    """What new tokens are like."""

    issuer: str = ""
    """Name that authenticators show for Linux accounts; the host name when empty."""
    pending: Annotated[int, msgspec.Meta(ge=30, le=604_800)] = 600
    """Seconds that a pending token waits for the code that proves it."""


class Limits(_Section, frozen=True):
    """Bounds for callers."""

    connections_per_uid: Count = 64
    connections_trusted: Count = 8192
    """The same for root, the daemon's own uid and configured callers."""
    calls_per_uid: Count = 64
    calls_trusted: Count = 8192
    idle: Annotated[int, msgspec.Meta(ge=1, le=86_400)] = 900
    """Seconds after which a silent connection is closed."""
    conversation: Annotated[int, msgspec.Meta(ge=5, le=3600)] = 180
    """Seconds that a conversation waits for the person."""


class Right(StrEnum):
    """What a configured caller may do."""

    VERIFY = "verify"
    ENROL = "enrol"


class CallerEntry(_Section, frozen=True):
    """A portal or another backend, known by the uid it runs as."""

    user: str | int
    """System user name or uid."""
    clients: tuple[str, ...] = ()
    may: tuple[Right, ...] = (Right.VERIFY,)


class Config(_Section, frozen=True):
    """All of otpbridge.toml."""

    admin_group: str = "otpbridge-admin"
    key: Key = Key()
    store: Store = Store()
    users: Users = Users()
    window: Window = Window()
    throttle: Throttle = Throttle()
    enrolment: Enrolment = Enrolment()
    limits: Limits = Limits()
    callers: tuple[CallerEntry, ...] = ()
    issuers: dict[str, str] = {}
    """Issuer shown by authenticators, by client."""

    def issuer_of(self, client: str, host: str) -> str:
        """The issuer for new tokens of a client; `host` is this machine's name."""
        named = self.issuers.get(client)
        if named:
            return named
        return (self.enrolment.issuer or host) if client == LOCAL else client


def load(path: Path | None) -> Config:
    """Read a configuration file; None means the system's file if it exists, else all defaults.

    Raises ConfigError with file and line.
    """
    if path is None:
        if not SYSTEM_CONFIG.exists():
            return Config()
        path = SYSTEM_CONFIG
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}. Check --config and the file's mode.") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: is not UTF-8 text (byte {error.start}). Save it as UTF-8.") from error
    return parse(text, str(path))


def parse(text: str, name: str = "otpbridge.toml") -> Config:
    """Turn the text of a configuration file into types; `name` stands in the errors. Raises ConfigError."""
    try:
        raw = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{name}: not TOML: {error}") from error
    _refuse_unknown(raw, Config, (), text, name)
    try:
        return msgspec.convert(raw, Config, dec_hook=_path)
    except msgspec.ValidationError as error:
        what, _, where = str(error).partition(" - at `$")
        keys = tuple(re.findall(r"[A-Za-z_]\w*", where))
        raise ConfigError(f"{name}:{_line_of(text, keys)}: {'.'.join(keys)}: {what}") from error


def _path(kind: type, value: Any) -> Any:
    if kind is Path and isinstance(value, str):
        return Path(value)
    raise NotImplementedError


def _refuse_unknown(raw: Any, kind: type[msgspec.Struct], at: tuple[str, ...], text: str, name: str) -> None:
    fields = {field.name: field for field in msgspec.structs.fields(kind)}
    for key, value in raw.items():
        if key not in fields:
            near = difflib.get_close_matches(key, fields, n=1)
            hint = f" Did you mean `{near[0]}`?" if near else f" Known keys: {', '.join(sorted(fields))}."
            place = "".join(f"[{part}] " for part in at)
            raise ConfigError(f"{name}:{_line_of(text, (*at, key))}: {place}unknown key `{key}`.{hint}")
        inner = fields[key].default if key != "callers" else CallerEntry(user=0)
        if isinstance(inner, msgspec.Struct):
            for part in value if isinstance(value, list) else [value]:
                if isinstance(part, dict):
                    _refuse_unknown(part, type(inner), (*at, key), text, name)


def _line_of(text: str, keys: tuple[str, ...]) -> int:
    """The line (from 1) on which a dotted key stands, as near as can be told; 1 if it is not found."""
    best = 1
    table: tuple[str, ...] = ()
    for number, line in enumerate(text.splitlines(), 1):
        header = re.match(r"\s*\[\[?\s*([^\]]+?)\s*\]", line)
        if header:
            table = tuple(part.strip().strip("\"'") for part in header[1].split("."))
            if table == keys[: len(table)]:
                best = number
            continue
        assigned = re.match(r"\s*([\w.\"'-]+)\s*=", line)
        if assigned:
            full = table + tuple(part.strip("\"'") for part in assigned[1].split("."))
            if full == keys or (full == keys[: len(full)] and len(full) > len(table)):
                return number
    return best


def default_state_dir() -> Path:
    """Where a daemon of this user keeps its store: the system's folder for root, else the XDG state folder."""
    if os.geteuid() == 0:
        return SYSTEM_STATE
    base = os.environ.get("XDG_STATE_HOME", "")
    return (Path(base) if base.startswith("/") else Path.home() / ".local" / "state") / "otpbridge"


def default_run_dir() -> Path:
    """Where a daemon of this user has its sockets: the system's folder for root, else the XDG runtime folder.

    Where the session has no runtime folder: `run` in the state folder, which is private too.
    """
    if os.geteuid() == 0:
        return SYSTEM_RUN
    base = os.environ.get("XDG_RUNTIME_DIR", "")
    return Path(base) / "otpbridge" if base.startswith("/") else default_state_dir() / "run"


def find_run_dir() -> Path:
    """Where a client looks for the sockets: $OTPBRIDGE_RUN_DIR, else a daemon of this user, else the system's."""
    named = os.environ.get("OTPBRIDGE_RUN_DIR", "")
    if named:
        return Path(named)
    own = default_run_dir()
    return own if (own / "verify").exists() else SYSTEM_RUN
