"""otpbridge.toml as types, and where the daemon's folders are.

Every key has a default that is right for one machine, so the file may be absent. A key that is not known is an
error with its file, its line and the nearest name, never ignored: a typo must not switch a rule off.
"""

from __future__ import annotations

import difflib
import ipaddress
import os
import re
import tomllib
import typing
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import msgspec

from otpbridge.errors import ConfigError
from otpbridge.model import LOCAL, Algorithm, Backoff, Enforcement, RelyingParty, UserVerification

SYSTEM_CONFIG = Path("/etc/otpbridge/otpbridge.toml")
SYSTEM_STATE = Path("/var/lib/otpbridge")
SYSTEM_RUN = Path("/run/otpbridge")
SYSTEM_RELAY_CERTIFICATE = Path("/etc/otpbridge/relay.pem")

CLIENT_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")

DEFAULT_STACK = "default"
DEFAULT_RULES = ("sufficient fido2", "sufficient totp", "sufficient hotp", "sufficient yubiotp", "required recovery")

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


class AccountRule(StrEnum):
    """What lets a user who must have a second factor through PAM's account phase."""

    ENROLLED = "enrolled"
    """To have an authenticator, wherever the login came from (a public key, say)."""
    VERIFIED = "verified"
    """To have shown it: a success of the same user, source and service just before."""


class Key(_Section, frozen=True):
    """The master key. `auto`: the systemd credential when there is one, else `file`, else embedded."""

    source: KeySource = KeySource.AUTO
    file: Path | None = None
    credential: str = "master-key"


class Store(_Section, frozen=True):
    """Where the store is. Without `url`: SQLite in the state folder."""

    url: str | None = None

    def __repr__(self) -> str:
        """Without the URL, which may hold a password."""
        return f"Store(url={None if self.url is None else '***'})"


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

    def per_user(self, policy: Policy) -> Backoff:
        """Back-off of a user where a policy holds, its times in milliseconds."""
        first_wait, longest_wait = policy.first_wait or self.first_wait, policy.longest_wait or self.longest_wait
        longest_wait = max(first_wait, longest_wait)
        return Backoff(policy.limit or self.limit, first_wait * 1000, longest_wait * 1000, self.forget * 1000)

    @property
    def per_source(self) -> Backoff:
        """Back-off of a source, its times in milliseconds."""
        return Backoff(self.source_limit, self.first_wait * 1000, self.longest_wait * 1000, self.forget * 1000)


Digits = Annotated[tuple[Annotated[int, msgspec.Meta(ge=6, le=8)], ...], msgspec.Meta(min_length=1)]
Algorithms = Annotated[tuple[Algorithm, ...], msgspec.Meta(min_length=1)]
Network = Annotated[str, msgspec.Meta(min_length=2, max_length=64)]


class Policy(_Section, frozen=True):
    """What is asked of whom. Whole for everyone; a client and a stack may each say otherwise (`PolicyChange`)."""

    enforcement: Enforcement = Enforcement.OPTIONAL
    """For users for whom nothing else was set."""
    trusted_networks: tuple[Network, ...] = ()
    """Addresses from which no second factor is asked. Names are never resolved."""
    grace: Annotated[int, msgspec.Meta(ge=0, le=604_800)] = 0
    """Seconds after a success in which the same user, source and service are not asked again."""
    exempt_groups: tuple[str, ...] = ()
    """System groups whose members are asked for no second factor (client `local`)."""
    limit: Annotated[int, msgspec.Meta(ge=1, le=1000)] | None = None
    """Wrong codes in a row that are judged at once; without it, what `[throttle]` says. So with the next two."""
    first_wait: Annotated[int, msgspec.Meta(ge=1, le=3600)] | None = None
    longest_wait: Annotated[int, msgspec.Meta(ge=1, le=86_400)] | None = None
    account: AccountRule = AccountRule.ENROLLED
    """What PAM's account phase asks of who must have a second factor."""
    algorithms: Algorithms = tuple(Algorithm)
    """What new tokens may use; the first that may be used is the default."""
    digits: Digits = (6, 7, 8)
    tokens_per_user: Annotated[int, msgspec.Meta(ge=1, le=100)] = 10
    """Authenticators that a user may have at a time."""
    password_length: Annotated[int, msgspec.Meta(ge=4, le=64)] = 8
    """Characters that a new password must have (NIST SP 800-63B §5.1.1.2)."""


class PolicyChange(_Section, frozen=True):
    """What a client or a stack says otherwise than `Policy`."""

    enforcement: Enforcement | None = None
    trusted_networks: tuple[Network, ...] | None = None
    grace: Annotated[int, msgspec.Meta(ge=0, le=604_800)] | None = None
    exempt_groups: tuple[str, ...] | None = None
    limit: Annotated[int, msgspec.Meta(ge=1, le=1000)] | None = None
    first_wait: Annotated[int, msgspec.Meta(ge=1, le=3600)] | None = None
    longest_wait: Annotated[int, msgspec.Meta(ge=1, le=86_400)] | None = None
    account: AccountRule | None = None

    def applied(self, policy: Policy) -> Policy:
        """The policy with these changes."""
        changes = {name: value for name in self.__struct_fields__ if (value := getattr(self, name)) is not None}
        known = {name: value for name, value in changes.items() if name in Policy.__struct_fields__}
        return msgspec.structs.replace(policy, **known)


class Webauthn(_Section, frozen=True):
    """For whom security keys sign (WebAuthn)."""

    rp_id: str | None = None
    """Host name that keys are bound to: that of the portal, or a domain that it is in."""
    origins: tuple[str, ...] = ()
    """Pages on which keys are used, as https://host or https://host:port; https:// and `rp_id` when left out."""
    user_verification: UserVerification = UserVerification.DISCOURAGED
    """Whether a key must ask who uses it (PIN, fingerprint); a touch is needed in any case."""


class LocalKeys(_Section, frozen=True):
    """Security keys on this machine's USB port, for logins at this machine."""

    enabled: bool = False
    services: tuple[str, ...] = ("login", "sudo", "su", "gdm-password", "sddm", "lightdm")
    """PAM services that may ask for one; at a login from elsewhere none does."""
    timeout: Annotated[int, msgspec.Meta(ge=5, le=120)] = 20
    """Seconds that a key waits to be touched."""


class ClientEntry(PolicyChange, frozen=True):
    """A client (tenant), and what holds for its users."""

    issuer: str | None = None
    """Name that authenticators show; the client's own name when left out."""
    algorithms: Algorithms | None = None
    digits: Digits | None = None
    tokens_per_user: Annotated[int, msgspec.Meta(ge=1, le=100)] | None = None
    password_length: Annotated[int, msgspec.Meta(ge=4, le=64)] | None = None
    webauthn: Webauthn = Webauthn()


class StackEntry(PolicyChange, frozen=True, kw_only=True):
    """A stack: its rules, and what holds where it is used."""

    rules: Annotated[tuple[str, ...], msgspec.Meta(min_length=1)]


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
    questions: Annotated[int, msgspec.Meta(ge=1, le=15)] = 10
    """What may be asked in one conversation."""
    verifier: Annotated[int, msgspec.Meta(ge=1, le=120)] = 10
    """Seconds that a verifier from outside may take, without the time that the person takes."""


class Audit(_Section, frozen=True):
    """How long entries of the audit log stay in the store."""

    keep_days: Annotated[int, msgspec.Meta(ge=1, le=36_500)] | None = None
    """Older ones are archived and cut off; for ever when left out."""
    archive: Path | None = None
    """Folder of the archives, absolute; `audit` in the state folder when left out."""


class Right(StrEnum):
    """What a configured caller may do."""

    VERIFY = "verify"
    ENROL = "enrol"
    MANAGE = "manage"
    """List, add, remove, reset and invite users."""
    NOTICES = "notices"
    """Hear of what happens to its users (org.otpbridge.Notices)."""
    METRICS = "metrics"
    """Read the daemon's numbers (org.otpbridge.Metrics). It needs no client."""


class CallerEntry(_Section, frozen=True):
    """A portal or another backend, known by the uid it runs as."""

    user: str | int
    """System user name or uid."""
    clients: tuple[str, ...] = ()
    may: tuple[Right, ...] = (Right.VERIFY,)


Endpoint = Annotated[str, msgspec.Meta(min_length=1, max_length=300)]


class RelayHost(_Section, frozen=True):
    """What a host may ask about. It may verify, and nothing else."""

    clients: tuple[str, ...] = (LOCAL,)
    users: tuple[str, ...] | None = None
    """The users by name. Without this and `groups`: all."""
    groups: tuple[str, ...] | None = None
    """Members of these system groups too (client `local`), as this machine knows them."""
    stacks: tuple[str, ...] | None = None
    """The stacks that it may use; all of them when left out."""
    enrol: bool = False
    """Whether users may set up their first authenticator while they log in there: the host sees its key."""


class Relays(_Section, frozen=True):
    """Hosts that ask this daemon over the network, each known by its certificate."""

    listen: Endpoint | None = None
    """Address and port, as in 0.0.0.0:6363 or [::]:6363. Not needed where systemd opens the socket."""
    names: tuple[Endpoint, ...] = ()
    """What this machine is called by hosts, for its certificate; its host name when left out."""
    authority: Path | None = None
    """Certificates (PEM) of an authority of your own, which issues those of hosts."""
    certificate: Path | None = None
    """With an authority of your own: this machine's certificate, with its chain (PEM)."""
    key: Path | None = None
    """Its private key; in the file of the certificate when left out."""
    connections_per_host: Count = 1024
    idle: Annotated[int, msgspec.Meta(ge=5, le=86_400)] = 300
    """Seconds after which a silent connection is closed."""
    hosts: dict[str, RelayHost] = {}
    """By the name in the certificate. A host without an entry is not let in."""


class Relay(_Section, frozen=True):
    """Makes this daemon a relay: it has no store and asks central daemons over the network."""

    centres: tuple[Endpoint, ...] = ()
    """Where they are, as in centre.example:6363, in the order in which they are tried."""
    certificate: Path | None = None
    """This host's certificate (PEM); the systemd credential relay.pem, else /etc/otpbridge/relay.pem."""
    key: Path | None = None
    """Its private key; in the file of the certificate when left out."""
    authority: Path | None = None
    """The authority that issued the certificates of the centres; in the file of the certificate when left out."""
    timeout: Annotated[int, msgspec.Meta(ge=1, le=300)] = 8
    """Seconds that a call may take. Less than the PAM module waits (10), so that it hears why."""
    connect: Annotated[int, msgspec.Meta(ge=1, le=60)] = 2
    """Seconds that a centre has to accept a connection, or to say that it lives."""
    idle: Annotated[int, msgspec.Meta(ge=1, le=3600)] = 60
    """Seconds that an unused connection is kept."""


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
    audit: Audit = Audit()
    policy: Policy = Policy()
    webauthn: Webauthn = Webauthn()
    """For Linux accounts, and what clients do not say for themselves."""
    local_keys: LocalKeys = LocalKeys()
    callers: tuple[CallerEntry, ...] = ()
    relays: Relays = Relays()
    relay: Relay = Relay()
    clients: dict[str, ClientEntry] = {}
    stacks: dict[str, StackEntry] = {}
    verifiers: dict[str, dict[str, str | int | float | bool]] = {}
    """Options of verifiers, by name, for every rule that does not give them itself."""

    def issuer_of(self, client: str, host: str) -> str:
        """The issuer for new tokens of a client; `host` is this machine's name."""
        entry = self.clients.get(client)
        if entry is not None and entry.issuer:
            return entry.issuer
        return (self.enrolment.issuer or host) if client == LOCAL else client

    def relying_party(self, client: str, host: str) -> RelyingParty | None:
        """For whom the security keys of a client's users sign; None where nothing says so.

        Linux accounts have `host`, this machine's name, without any configuration.
        """
        entry = self.clients.get(client)
        said = self.webauthn if entry is None or entry.webauthn.rp_id is None else entry.webauthn
        id_ = said.rp_id or (host.lower() if client == LOCAL else None)
        if id_ is None:
            return None
        origins = said.origins or (f"https://{id_}",)
        return RelyingParty(id_, self.issuer_of(client, host), origins, said.user_verification)

    def policy_of(self, client: str, stack: str | None = None) -> Policy:
        """What holds for the users of a client, at a stack: the stack's word before the client's before all."""
        policy = self.policy
        if client in self.clients:
            policy = self.clients[client].applied(policy)
        if stack is not None and stack in self.stacks:
            policy = self.stacks[stack].applied(policy)
        return policy

    @property
    def has_keys(self) -> bool:
        """Whether it says something of security keys: then people will come with some."""
        named = self.webauthn.rp_id is not None or any(each.webauthn.rp_id for each in self.clients.values())
        return named or self.local_keys.enabled

    @property
    def rules(self) -> Mapping[str, tuple[str, ...]]:
        """The rules of all stacks by name."""
        return {DEFAULT_STACK: DEFAULT_RULES} | {name: entry.rules for name, entry in self.stacks.items()}


Place = tuple[str | int, ...]
"""Where something stands in the file: keys, and numbers (from 0) in arrays."""


@dataclass(frozen=True, slots=True)
class Source:
    """The text of a configuration file; `name` stands in the errors."""

    name: str
    text: str

    def parse(self) -> Config:
        """The text as types. Raises ConfigError with file and line."""
        try:
            raw = tomllib.loads(self.text)
        except tomllib.TOMLDecodeError as error:
            raise ConfigError(f"{self.name}: not TOML: {error}") from error
        with self.told():
            _refuse_unknown(raw, Config, ())
            parsed: Config = _converted(raw, Config, ())
            _check_names(parsed)
            _check_networks(parsed)
            _check_archive(parsed)
            _check_relying_parties(parsed)
            _check_relays(parsed)
        return parsed

    @contextmanager
    def told(self) -> Iterator[None]:
        """Put file and line before the words of a ConfigError about a place in this file."""
        try:
            yield
        except ConfigError as error:
            if not error.place:
                raise
            raise ConfigError(f"{self.name}:{_line_of(self.text, error.place)}: {error}") from None


def read(path: Path | None) -> Source:
    """Read a configuration file; None means the system's file if it exists, else an empty one. Raises ConfigError."""
    if path is None:
        if not SYSTEM_CONFIG.exists():
            return Source(str(SYSTEM_CONFIG), "")
        path = SYSTEM_CONFIG
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}. Check --config and the file's mode.") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: is not UTF-8 text (byte {error.start}). Save it as UTF-8.") from error
    return Source(str(path), text)


def load(path: Path | None) -> Config:
    """Read a configuration file and turn it into types. Raises ConfigError with file and line."""
    return read(path).parse()


def parse(text: str, name: str = "otpbridge.toml") -> Config:
    """Turn the text of a configuration file into types. Raises ConfigError with file and line."""
    return Source(name, text).parse()


def _converted(value: Any, kind: Any, place: Place) -> Any:
    """A value of the file as its type."""
    try:
        return msgspec.convert(value, kind, dec_hook=_path)
    except msgspec.ValidationError as error:
        # msgspec does not name the key of a table by name, so the first of its entries that is wrong is looked for.
        for deeper, part, below in _parts(kind, value, place):
            _converted(part, deeper, below)
        what, _, inner = str(error).partition(" - at `$")
        at = (*place, *_inner_place(inner))
        raise ConfigError(f"{_said(at)}: {what}", at) from None


def _check_archive(parsed: Config) -> None:
    if parsed.audit.archive is not None and not parsed.audit.archive.is_absolute():
        raise ConfigError("audit.archive: give the whole path, from / on.", ("audit", "archive"))


def _inner_place(path: str) -> Place:
    """A place in the words of msgspec."""
    found = re.findall(r"\.(\w+)|\[(\d+)\]", path)
    return tuple(key or int(number) for key, number in found)


def _said(place: Place) -> str:
    return ".".join(key for key in place if isinstance(key, str))


def _check_names(parsed: Config) -> None:
    """Refuse what no client can be called: it would hold for nobody."""
    said: list[tuple[str, str, Place]] = [(f"[clients.{name}]", name, ("clients", name)) for name in parsed.clients]
    for number, entry in enumerate(parsed.callers):
        for at, name in enumerate(entry.clients):
            said.append(("[[callers]] clients", name, ("callers", number, "clients", at)))
    for host, about in parsed.relays.hosts.items():
        for at, name in enumerate(about.clients):
            place: Place = ("relays", "hosts", host, "clients", at)
            said.append((_said(place), name, place))
    for section, name, place in said:
        if not CLIENT_NAME.fullmatch(name):
            raise ConfigError(
                f"{section}: `{name}` cannot be the name of a client. Use lower-case letters, digits, `.`, `_`, `-`.",
                place,
            )


def _check_networks(parsed: Config) -> None:
    said: list[tuple[Place, tuple[str, ...] | None]] = [(("policy",), parsed.policy.trusted_networks)]
    said += [(("clients", key), entry.trusted_networks) for key, entry in parsed.clients.items()]
    said += [(("stacks", key), entry.trusted_networks) for key, entry in parsed.stacks.items()]
    for place, networks in said:
        for number, network in enumerate(networks or ()):
            try:
                ipaddress.ip_network(network)
            except ValueError as error:
                at = (*place, "trusted_networks", number)
                raise ConfigError(f"{_said(at)}: {error}. Write 192.0.2.0/24 or 2001:db8::/32.", at) from None


_HOST = re.compile(r"(?=.{1,253}$)[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*")
_ORIGIN = re.compile(r"(https|http)://([a-z0-9.-]+)(:[1-9][0-9]{0,4})?")


def _check_relying_parties(parsed: Config) -> None:
    """Refuse what no browser would accept (WebAuthn §5.1.3, §13.4.9): a key would be of no use there."""
    said: list[tuple[Place, Webauthn]] = [(("webauthn",), parsed.webauthn)]
    said += [(("clients", key, "webauthn"), entry.webauthn) for key, entry in parsed.clients.items()]
    for place, entry in said:
        id_ = entry.rp_id
        if id_ is None:
            if entry != Webauthn():
                raise ConfigError(
                    f"[{_said(place)}]: `rp_id` is missing: the host name that keys are bound to.", place
                )
            continue
        if not _HOST.fullmatch(id_):
            at = (*place, "rp_id")
            raise ConfigError(f"{_said(at)}: `{id_}` is not a host name in lower case, as in portal.example.org.", at)
        for number, origin in enumerate(entry.origins):
            at = (*place, "origins", number)
            read = _ORIGIN.fullmatch(origin)
            if read is None or (read[1] == "http" and not f".{read[2]}".endswith(".localhost")):
                raise ConfigError(
                    f"{_said(at)}: `{origin}` is not of the form https://host or https://host:port.", at
                )
            if read[2] != id_ and not read[2].endswith(f".{id_}"):
                raise ConfigError(f"{_said(at)}: {read[2]} is neither `{id_}` (rp_id) nor below it.", at)


def endpoint(text: str) -> tuple[str, int] | None:
    """Host and port of `host:port` or `[IPv6 address]:port`; None where it is not of that form."""
    read = re.fullmatch(r"(?:\[([0-9a-fA-F:.]+)\]|([A-Za-z0-9._-]+)):([0-9]{1,5})", text)
    return None if read is None or int(read[3]) > 65_535 else (read[1] or read[2], int(read[3]))


def host_name(name: str) -> bool:
    """Whether this can be the name of a host."""
    return _HOST.fullmatch(name) is not None


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _check_relays(parsed: Config) -> None:
    """Refuse endpoints that are none, and half a certificate."""
    relays = parsed.relays
    if parsed.relay.centres and relays != Relays():
        raise ConfigError("[relays]: a relay has no store, so no host can ask it. Leave out [relay]", ("relays",))
    for number, text in enumerate(parsed.relay.centres):
        if endpoint(text) is None:
            raise ConfigError(f"relay.centres: `{text}` is not of the form host:port.", ("relay", "centres", number))
    if relays.listen is not None and endpoint(relays.listen) is None:
        raise ConfigError(f"relays.listen: `{relays.listen}` is not of the form 0.0.0.0:6363.", ("relays", "listen"))
    for number, name in enumerate(relays.names):
        if not host_name(name) and not _is_address(name):
            at: Place = ("relays", "names", number)
            raise ConfigError(f"relays.names: `{name}` is neither a host name in lower case nor an address.", at)
    if relays.authority is None and (relays.certificate or relays.key) is not None:
        raise ConfigError(
            "[relays]: `certificate` and `key` go with an `authority` of your own; without one they are made here.",
            ("relays",),
        )
    if relays.authority is not None and relays.certificate is None:
        raise ConfigError("[relays]: with an `authority` of your own, give `certificate` and `key` too.", ("relays",))
    _check_hosts(parsed)


def _check_hosts(parsed: Config) -> None:
    """Refuse hosts that no certificate can name, and stacks that there are not."""
    for name in parsed.relays.hosts:
        if not host_name(name):
            raise ConfigError(f"relays.hosts: `{name}` is not a host name in lower case.", ("relays", "hosts", name))
    for name, host in parsed.relays.hosts.items():
        for number, stack in enumerate(host.stacks or ()):
            if stack not in parsed.rules:
                at: Place = ("relays", "hosts", name, "stacks", number)
                raise ConfigError(f"{_said(at)}: there is no stack `{stack}`.", at)


def _path(kind: type, value: Any) -> Any:
    if kind is not Path:
        raise NotImplementedError
    if not isinstance(value, str):
        raise TypeError("Expected `str`")
    return Path(value)


def _refuse_unknown(raw: Any, kind: Any, place: Place) -> None:
    """Refuse keys that no type has, however deep they stand."""
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct) and isinstance(raw, dict):
        fields = kind.__struct_fields__
        for key in raw:
            if key not in fields:
                near = difflib.get_close_matches(key, fields, n=1)
                hint = f" Did you mean `{near[0]}`?" if near else f" Known keys: {', '.join(sorted(fields))}."
                section = f"[{_said(place)}] " if place else ""
                raise ConfigError(f"{section}unknown key `{key}`.{hint}", (*place, key))
    for deeper, part, below in _parts(kind, raw, place):
        _refuse_unknown(part, deeper, below)


def _parts(kind: Any, value: Any, place: Place) -> Iterator[tuple[Any, Any, Place]]:
    """What a section, an array or a table by name is made of: type, value and place of each part."""
    of = typing.get_args(kind)
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct) and isinstance(value, dict):
        for field in msgspec.structs.fields(kind):
            if field.name in value:
                yield field.type, value[field.name], (*place, field.name)
    elif typing.get_origin(kind) is tuple and isinstance(value, list):
        for number, part in enumerate(value):
            yield of[0], part, (*place, number)
    elif typing.get_origin(kind) is dict and isinstance(value, dict):
        for key, part in value.items():
            yield of[1], part, (*place, key)


_KEY = r"""(?:"[^"\n]*"|'[^'\n]*'|[\w-]+)"""
_KEYS = rf"{_KEY}(?:\s*\.\s*{_KEY})*"
_HEADER = re.compile(rf"\s*(\[\[?)\s*({_KEYS})\s*\]")
_ASSIGNED = re.compile(rf"\s*({_KEYS})\s*=")
_TOKEN = re.compile(
    r"""#[^\n]*|\"{3}.*?\"{3}|'{3}.*?'{3}|"(?:\\.|[^"\\\n])*"|'[^'\n]*'|[][{},\n]|[^][{},#"'\s]+""", re.DOTALL
)


def _line_of(text: str, place: Place) -> int:
    """The line (from 1) on which something stands, as near as can be told; 1 if it is not found."""
    best, table = 1, Place()
    begun = 0
    arrays: dict[str, int] = {}
    for number, line in enumerate(text.splitlines(keepends=True), 1):
        if header := _HEADER.match(line):
            table = _keys(header[2])
            if header[1] == "[[":
                arrays[header[2]] = arrays.get(header[2], -1) + 1
                table = (*table, arrays[header[2]])
            if table == place[: len(table)]:
                best = number
        elif assigned := _ASSIGNED.match(line):
            full = (*table, *_keys(assigned[1]))
            if full == place[: len(full)]:
                return number + _lines_to(text[begun + assigned.end() :], place[len(full) :])
        begun += len(line)
    return best


def _keys(dotted: str) -> tuple[str, ...]:
    return tuple(key.strip("\"'") for key in re.findall(_KEY, dotted))


def _lines_to(text: str, place: Place) -> int:
    """How many lines down in a value that begins here an element of it stands, where it is an array."""
    if not place or not isinstance(place[0], int):
        return 0
    depth, elements, fresh = 0, 0, True
    for token in _TOKEN.finditer(text):
        if token[0][0] in "#\n":
            continue
        if depth == 1 and fresh and token[0] not in "],":
            if elements == place[0]:
                return text.count("\n", 0, token.start())
            elements, fresh = elements + 1, False
        depth += (token[0] in "[{") - (token[0] in "]}")
        fresh |= token[0] == "," and depth == 1
        if not depth:
            break
    return 0


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
