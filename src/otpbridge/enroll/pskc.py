"""PSKC files (RFC 6030), in which makers of hardware tokens send seeds: plain, or under a key or passphrase.

A key is taken only if all that could change its codes is understood; otherwise there is a Fault for it, which names
its line and serial number, and nothing else of the file.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

from otpbridge.enroll.pskc_cipher import Authentication, Derivation, Opener
from otpbridge.enroll.pskc_key import Found, PskcKey, find
from otpbridge.enroll.pskc_tree import PSKC, Element, read
from otpbridge.enroll.pskc_values import from_base64, name_in, sealed_in, whole
from otpbridge.errors import EnrolError
from otpbridge.model import Secret


class Protection(enum.Enum):
    """What opens the seeds of a file."""

    NONE = "none"
    KEY = "key"
    PASSPHRASE = "passphrase"  # noqa: S105 - a word, not a passphrase


@dataclass(frozen=True, slots=True)
class Fault:
    """Why a key cannot be taken, and where it stands. `serial` is empty where the file does not say one."""

    line: int
    serial: str
    reason: str


@dataclass(frozen=True, slots=True)
class Opened:
    """The keys of a file, in its order, and what is wrong with others."""

    keys: tuple[PskcKey, ...]
    faults: tuple[Fault, ...]


@dataclass(frozen=True, slots=True)
class Container:
    """A file that was read, its seeds not opened yet."""

    protection: Protection
    key_name: str
    """What the file calls the key or passphrase, empty where it does not."""
    signed: bool
    """Whether there is a signature, which is not checked here."""
    _found: tuple[Found | Fault, ...] = field(repr=False)
    _derivation: Derivation | None = field(repr=False)
    _authentication: Authentication | None = field(repr=False)

    def open(self, secret: Secret | None, *, now: datetime, digits: int | None = None) -> Opened:
        """Open the seeds by the key or passphrase, None for a file that has no need of one.

        `digits` is for keys of which the file does not say how long their codes are. Raises EnrolError where
        `secret` cannot be the right one at all.
        """
        opener = None
        if secret is not None:
            secret = secret if self._derivation is None else self._derivation.key(secret)
            opener = Opener(secret, self._authentication)
        keys: list[PskcKey] = []
        faults: list[Fault] = []
        first: dict[bytes, PskcKey] = {}
        several = _several(self._found)
        for found in self._found:
            if isinstance(found, Fault):
                faults.append(found)
                continue
            try:
                key = found.opened(opener, now, digits, long_name=found.device in several)
                before = first.setdefault(key.key.secret.reveal(), key)
                if before is not key:
                    raise EnrolError(f"its seed stands in line {before.line} too; two tokens cannot share one")
                keys.append(key)
            except EnrolError as error:
                faults.append(Fault(found.line, found.serial, str(error)))
        return Opened(tuple(keys), tuple(sorted(faults, key=lambda fault: fault.line)))


def parse(data: bytes) -> Container:
    """Read a file. Raises EnrolError where it is no PSKC file, or what holds for all of its keys is wrong."""
    reader = _Reader()
    read(data, reader.root, reader.part)
    return reader.container()


class _Reader:
    """Takes the parts of a file as they come."""

    def __init__(self) -> None:
        self._found: list[Found | Fault] = []
        self._seen: dict[tuple[tuple[str, str], str], int] = {}
        self._header: dict[str, Element] = {}

    def root(self, element: Element) -> None:
        if element.name != "KeyContainer":
            raise EnrolError(
                f"line {element.line}: this is no PSKC file: it is no KeyContainer of the namespace {PSKC}"
            )
        if element.attributes.get("Version") != "1.0":
            raise EnrolError(f"line {element.line}: this PSKC file is not of version 1.0, the only one known here")

    def part(self, element: Element) -> None:
        if element.name == "KeyPackage":
            self._package(element)
        elif element.name in {"EncryptionKey", "MACMethod", "Signature"}:
            if element.name in self._header:
                raise EnrolError(f"line {element.line}: the file has <{element.name}> twice")
            self._header[element.name] = element
        elif element.name != "Extensions" and not element.name.startswith("{"):
            raise EnrolError(f"line {element.line}: there is something in the file that is not understood here")

    def container(self) -> Container:
        if not self._found:
            raise EnrolError("there is no key in the file")
        key_name, derivation = self._encryption()
        method = self._header.get("MACMethod")
        authentication = None
        # python-pskc writes one that says nothing where it wraps keys, as no value has a MAC then.
        if method is not None and "Algorithm" in method.attributes:
            try:
                key = method.one("MACKey")
                authentication = Authentication.of(
                    method.attributes["Algorithm"], None if key is None else sealed_in(key)
                )
            except EnrolError as error:
                raise EnrolError(f"line {method.line}: {error}") from None
        if not any(isinstance(found, Found) and found.encrypted() for found in self._found):
            protection = Protection.NONE
        else:
            protection = Protection.KEY if derivation is None else Protection.PASSPHRASE
        return Container(
            protection, key_name, "Signature" in self._header, tuple(self._found), derivation, authentication
        )

    def _encryption(self) -> tuple[str, Derivation | None]:
        element = self._header.get("EncryptionKey")
        if element is None:
            return "", None
        try:
            derived = element.one("DerivedKey")
            if derived is not None:
                return derived.said("MasterKeyName"), _derivation(derived)
            if any(child.name != "KeyName" for child in element.children):
                raise EnrolError("it is encrypted for a certificate, or in another way that is not known here")
            return element.said("KeyName"), None
        except EnrolError as error:
            raise EnrolError(f"line {element.line}: {error}") from None

    def _package(self, package: Element) -> None:
        """Take the keys of a device: one, by the schema."""
        for key in package.all("Key"):
            serial = ""
            try:
                package.check_children("DeviceInfo", "CryptoModuleInfo", "Key", "Extensions")
                info = package.one("DeviceInfo")
                serial = name_in(info, "SerialNo")
                found = find(key, info, (name_in(info, "Manufacturer"), serial))
                if (before := self._seen.get((found.device, found.id))) is not None:
                    raise EnrolError(f"a key of this device and Id stands in line {before} already")
                self._seen[found.device, found.id] = key.line
                self._found.append(found)
            except EnrolError as error:
                self._found.append(Fault(key.line, serial, str(error)))


def _several(found: Sequence[Found | Fault]) -> set[tuple[str, str]]:
    """The devices that have more than one key."""
    seen: set[tuple[str, str]] = set()
    several: set[tuple[str, str]] = set()
    for key in found:
        if isinstance(key, Found) and key.serial:
            (several if key.device in seen else seen).add(key.device)
    return several


def _derivation(derived: Element) -> Derivation:
    method = derived.one("KeyDerivationMethod")
    parameters = None if method is None else method.one("PBKDF2-params")
    salt = None if parameters is None else parameters.one("Salt")
    if method is None or parameters is None or salt is None:
        raise EnrolError("the file does not say how the key comes from the passphrase (PBKDF2-params)")
    prf = parameters.one("PRF")
    return Derivation.of(
        method.attributes.get("Algorithm", ""),
        from_base64(salt.said("Specified"), "Salt"),
        whole(parameters.said("IterationCount")),
        whole(parameters.said("KeyLength")),
        # An attribute in the schema; python-pskc writes it as text.
        "" if prf is None else prf.attributes.get("Algorithm") or prf.text.strip(),
    )
