"""portal.toml as types. What is wrong is said with file and key, and a key that is not known is wrong."""

from __future__ import annotations

import difflib
import ipaddress
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

import msgspec

SYSTEM_CONFIG = Path("/etc/otpbridge/portal.toml")

UNIX = "unix:"
_HOST = re.compile(r"(?=.{1,253}$)[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*")
_ADDRESS = re.compile(r"(?:\[([0-9a-fA-F:.]+)\]|([^:/\[\]]+)):([0-9]{1,5})")
_COLOUR = re.compile(r"#[0-9a-fA-F]{6}")
LOGO_TYPES: Mapping[str, str] = {".png": "image/png", ".svg": "image/svg+xml", ".webp": "image/webp"}
_LARGEST_LOGO = 512 * 1024
"""Bytes."""

Seconds = Annotated[int, msgspec.Meta(ge=30, le=604_800)]
Name = Annotated[str, msgspec.Meta(min_length=1, max_length=200)]


class SettingsError(Exception):
    """portal.toml is wrong. The message says where and what to do."""


class _Section(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    pass


class Sessions(_Section, frozen=True):
    """How long people stay logged in, in seconds."""

    idle: Seconds = 900
    """Without a click."""
    absolute: Seconds = 28_800
    """In all."""
    fresh: Seconds = 600
    """After a code or password was shown, how long factors may be changed without showing one again."""
    most: Annotated[int, msgspec.Meta(ge=1, le=1_000_000)] = 20_000
    """At a time. The one that was idle longest makes room."""


class Stacks(_Section, frozen=True):
    """Names of stacks in otpbridge.toml."""

    login: Name = "portal"
    """Asks for a password, then a code."""
    proof: Name = "portal-proof"
    """Asks for a code alone, whatever is required of the user."""


class Client(_Section, frozen=True):
    """One client (customer) of the portal."""

    hosts: Annotated[tuple[str, ...], msgspec.Meta(min_length=1)]
    """Host names by which browsers reach it."""
    title: Name
    logo: Path | None = None
    accent: str = "#1d5fbf"
    """Colour of buttons and links on light pages, as #rrggbb."""
    accent_dark: str = "#7db1f7"
    """The same on dark pages."""
    admins: tuple[str, ...] = ()
    """Users who may see, reset and invite the users of this client."""
    login_link: str | None = None
    """Where LOGOUT leads, as https://…; the portal's own login page when left out."""
    security_keys: bool = False
    """Whether security keys and passkeys can be registered: the daemon needs `[clients.NAME.webauthn]` for it."""
    support: str | None = None
    """Whom to ask for help, as people read it: an address, a telephone number."""


class Settings(_Section, frozen=True):
    """All of portal.toml."""

    clients: Annotated[dict[str, Client], msgspec.Meta(min_length=1)]
    listen: Name = "127.0.0.1:8480"
    """ADDRESS:PORT, or unix:PATH."""
    socket: Path = Path("/run/otpbridge/verify")
    """The verify socket of otpbridged."""
    trusted_proxies: tuple[str, ...] = ()
    """Addresses whose X-Forwarded-For is believed. On a Unix socket, whoever may connect is."""
    sessions: Sessions = Sessions()
    stacks: Stacks = Stacks()
    qr_seconds: Annotated[int, msgspec.Meta(ge=30, le=3600)] = 300
    """How long the address of a QR code works at most."""


@dataclass(frozen=True, slots=True)
class Listen:
    """Where the portal listens: `path`, or `host` and `port`."""

    host: str = ""
    port: int = 0
    path: str = ""


@dataclass(frozen=True)
class Brand:
    """A client as its pages show it."""

    name: str
    client: Client
    logo: bytes | None = field(default=None, repr=False)

    @cached_property
    def logo_type(self) -> str:
        """Media type of the logo."""
        assert self.client.logo is not None
        return LOGO_TYPES[self.client.logo.suffix.lower()]

    def is_admin(self, user: str) -> bool:
        """Whether a user may act on the others."""
        return user in self.client.admins


@dataclass(frozen=True, slots=True)
class Portal:
    """Settings that were checked, with what they lead to."""

    settings: Settings
    listen: Listen
    brands: Mapping[str, Brand]
    """By host name."""
    proxies: tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...]


def load(path: Path) -> Portal:
    """Read portal.toml. Raises SettingsError."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise SettingsError(f"{path}: cannot be read: {error.strerror}. Check --config and the file's mode") from None
    except UnicodeDecodeError as error:
        raise SettingsError(f"{path}: is not UTF-8 text (byte {error.start}). Save it as UTF-8") from None
    try:
        return _checked(_parsed(text), path.parent)
    except SettingsError as error:
        raise SettingsError(f"{path}: {error}") from None


def _parsed(text: str) -> Settings:
    try:
        raw = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"not TOML: {error}") from None
    _known(raw, Settings, "")
    for section, kind in (("sessions", Sessions), ("stacks", Stacks)):
        _known(raw.get(section), kind, section)
    clients = raw.get("clients")
    for name, entry in clients.items() if isinstance(clients, dict) else ():
        _known(entry, Client, f"clients.{name}")
        _converted(entry, Client, f"clients.{name}")
    converted: Settings = _converted(raw, Settings, "")
    return converted


def _known(raw: Any, kind: type[msgspec.Struct], place: str) -> None:
    """Refuse keys that are not known, with the nearest that is."""
    for key in raw if isinstance(raw, dict) else ():
        if key not in kind.__struct_fields__:
            near = difflib.get_close_matches(key, kind.__struct_fields__, n=1)
            hint = f"did you mean {near[0]}?" if near else f"there are: {', '.join(kind.__struct_fields__)}"
            raise SettingsError(f"{_at(place, key)}: no such key; {hint}")


def _converted(raw: Any, kind: Any, place: str) -> Any:
    try:
        return msgspec.convert(raw, kind, dec_hook=_path)
    except msgspec.ValidationError as error:
        what, _, inner = str(error).partition(" - at `$")
        key = inner.rstrip("`").lstrip(".")
        raise SettingsError(f"{_at(place, key)}: {what}" if place or key else what) from None


def _at(place: str, key: str) -> str:
    return ".".join(part for part in (place, key) if part)


def _path(kind: type, value: Any) -> Any:
    if kind is Path and isinstance(value, str):
        return Path(value)
    raise NotImplementedError


def _checked(settings: Settings, folder: Path) -> Portal:
    if settings.sessions.idle > settings.sessions.absolute:
        raise SettingsError("sessions.idle: is longer than sessions.absolute")
    brands: dict[str, Brand] = {}
    for name, client in settings.clients.items():
        brand = _brand(name, client, folder)
        for host in client.hosts:
            if not _HOST.fullmatch(host):
                raise SettingsError(
                    f"clients.{name}.hosts: {host!r} is no host name; write it in lower case, no port"
                )
            if host in brands:
                raise SettingsError(f"clients.{name}.hosts: {host} is {brands[host].name}'s already")
            brands[host] = brand
    return Portal(settings, _listen(settings.listen), brands, _networks(settings.trusted_proxies))


def _brand(name: str, client: Client, folder: Path) -> Brand:
    for key in ("accent", "accent_dark"):
        if not _COLOUR.fullmatch(getattr(client, key)):
            raise SettingsError(f"clients.{name}.{key}: is no colour; write it as #1d5fbf")
    link = client.login_link
    if link is not None and not (link.startswith("https://") and link.isascii() and link.isprintable()):
        raise SettingsError(f"clients.{name}.login_link: must be an address that starts with https://")
    if client.logo is None:
        return Brand(name, client)
    if client.logo.suffix.lower() not in LOGO_TYPES:
        raise SettingsError(f"clients.{name}.logo: must be a file of {', '.join(LOGO_TYPES)}")
    try:
        logo = (folder / client.logo).read_bytes()
    except OSError as error:
        raise SettingsError(f"clients.{name}.logo: {client.logo} cannot be read: {error.strerror}") from None
    if len(logo) > _LARGEST_LOGO:
        raise SettingsError(f"clients.{name}.logo: {client.logo} is larger than {_LARGEST_LOGO // 1024} KiB")
    return Brand(name, client, logo)


def _listen(text: str) -> Listen:
    if text.startswith(UNIX) and len(text) > len(UNIX):
        return Listen(path=text[len(UNIX) :])
    found = _ADDRESS.fullmatch(text)
    if found is None or int(found[3]) > 65_535:
        raise SettingsError(f"listen: {text!r} is neither ADDRESS:PORT nor unix:PATH")
    return Listen(found[1] or found[2], int(found[3]))


def _networks(texts: tuple[str, ...]) -> tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...]:
    try:
        return tuple(ipaddress.ip_network(text) for text in texts)
    except ValueError as error:
        raise SettingsError(f"trusted_proxies: {error}. Write 192.0.2.7 or 192.0.2.0/24") from None
