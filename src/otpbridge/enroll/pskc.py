"""PSKC files (RFC 6030), in which makers of hardware tokens send seeds: plain, or under a key or passphrase.

A key is taken only if all that could change its codes is understood; otherwise there is a Fault for it, which names
its line and serial number, and nothing else of the file.
"""

from __future__ import annotations

import base64
import binascii
import enum
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from otpbridge.enroll.lines import MOST_DRIFT
from otpbridge.enroll.names import check_text
from otpbridge.enroll.otpauth import DIGITS, OtpauthKey, check_parameters
from otpbridge.enroll.pskc_cipher import Authentication, Derivation, Opener, Sealed
from otpbridge.enroll.pskc_tree import PSKC, Element, read
from otpbridge.enroll.seeds import check_length
from otpbridge.errors import EnrolError
from otpbridge.model import Algorithm, Kind, OtpParameters, Secret

_KINDS = {f"{PSKC}:hotp": Kind.HOTP, f"{PSKC}:totp": Kind.TOTP}
_PIN = f"{PSKC}:pin"
_SUITES = {
    spelling: algorithm
    for algorithm in Algorithm
    for number in (algorithm.value.removeprefix("SHA"),)
    for spelling in (f"SHA{number}", f"SHA-{number}", f"HMAC-SHA{number}", f"HMAC-SHA-{number}", f"HMACSHA{number}")
}
"""The standard leaves open what a suite of these two algorithms looks like; these are found in files."""
_LONGEST_NAME = 128
_WHOLE = re.compile(r"[+-]?[0-9]{1,19}", re.ASCII)
_UID = re.compile(r"\s*uid\s*=\s*([^,+;\\\"<>#]+?)\s*(?:[,+;].*)?", re.IGNORECASE | re.DOTALL)
_BYTES_OF_A_NUMBER = range(1, 9)


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
class PskcKey:
    """A key that can be taken. `drift` is of the device's clock, in time steps; `ends_at` when its maker ends it."""

    line: int
    maker: str
    serial: str
    name: str
    """The serial number; the key's own Id where there is none."""
    user_id: str
    """As it stands in the file, empty where nobody is named."""
    key: OtpauthKey
    drift: int = 0
    ends_at: datetime | None = None

    def user(self) -> str:
        """Who it is for: the UserId, or the UID of one that is a distinguished name. Raises EnrolError."""
        if not self.user_id:
            raise EnrolError("the file names no user for it; say whose it is with --users")
        if "=" not in self.user_id:
            return self.user_id
        found = _UID.fullmatch(self.user_id)
        if found is None:
            raise EnrolError("its UserId is a distinguished name without UID; say whose it is with --users")
        return found[1]


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
    _found: tuple[_Found | Fault, ...] = field(repr=False)
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


@dataclass(frozen=True, slots=True)
class _Found:
    """A key as it stands in the file."""

    line: int
    device: tuple[str, str]
    """Maker and serial number, which is empty where there is none."""
    id: str
    issuer: str
    user_id: str
    kind: Kind
    algorithm: Algorithm
    digits: int | None
    starts_at: datetime | None
    ends_at: datetime | None
    values: Mapping[str, str | Sealed] = field(repr=False)

    @property
    def serial(self) -> str:
        return self.device[1]

    def opened(self, opener: Opener | None, now: datetime, digits: int | None, *, long_name: bool) -> PskcKey:
        """Raises EnrolError."""
        self._check_time(now)
        length = self.digits or digits
        if length is None:
            raise EnrolError(
                "the file does not say how many digits its codes have; if you know, say so with --digits"
            )
        kind = self.kind
        parameters = OtpParameters(
            self.algorithm, length, self._number("TimeInterval", 30, opener) if kind is Kind.TOTP else 30
        )
        check_parameters(parameters)
        if kind is Kind.TOTP and self._number("Time", 0, opener):
            raise EnrolError("its time does not begin at 0 (Time), which is not done here")
        counter = self._number("Counter", 0, opener) if kind is Kind.HOTP else 0
        if not 0 <= counter < 2**63:
            raise EnrolError("its counter is negative")
        drift = self._number("TimeDrift", 0, opener) if kind is Kind.TOTP else 0
        if abs(drift) > MOST_DRIFT:
            raise EnrolError(f"its clock is more than {MOST_DRIFT} time steps wrong (TimeDrift)")
        name = self.serial or self.id
        label = f"{name} {self.id}" if long_name else name
        secret = self._secret(opener)
        return PskcKey(
            self.line,
            self.device[0],
            self.serial,
            name,
            self.user_id,
            OtpauthKey(kind, secret, parameters, label, self.issuer, counter),
            drift,
            self.ends_at,
        )

    def _check_time(self, now: datetime) -> None:
        if self.starts_at is not None and now < self.starts_at:
            raise EnrolError("it may not be used yet (StartDate)")
        if self.ends_at is not None and now > self.ends_at:
            raise EnrolError("it may not be used any more (ExpiryDate)")

    def _secret(self, opener: Opener | None) -> Secret:
        value = self.values["Secret"]
        seed = _base64(value, "seed") if isinstance(value, str) else _unsealed(value, opener)
        check_length(seed)
        return Secret(seed)

    def _number(self, name: str, default: int, opener: Opener | None) -> int:
        """A number; an encrypted one is big-endian (RFC 6030 §4.3.3)."""
        value = self.values.get(name)
        if value is None:
            return default
        if isinstance(value, str):
            if not _WHOLE.fullmatch(value):
                raise EnrolError(f"its {name} is no whole number")
            return int(value)
        raw = _unsealed(value, opener)
        if len(raw) not in _BYTES_OF_A_NUMBER or raw.isdigit():
            # Some programs encrypt the digits: which of the two it is cannot be told.
            raise EnrolError(f"its {name} is encrypted, and no number as RFC 6030 asks for: 4 or 8 bytes, big-endian")
        return int.from_bytes(raw, "big")


class _Reader:
    """Takes the parts of a file as they come."""

    def __init__(self) -> None:
        self._found: list[_Found | Fault] = []
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
        name, derivation = self._encryption()
        method = self._header.get("MACMethod")
        authentication = None
        # python-pskc writes one that says nothing where it wraps keys, as no value has a MAC then.
        if method is not None and "Algorithm" in method.attributes:
            try:
                key = method.one("MACKey")
                authentication = Authentication.of(
                    method.attributes["Algorithm"], None if key is None else _sealed(key)
                )
            except EnrolError as error:
                raise EnrolError(f"line {method.line}: {error}") from None
        sealed = any(
            isinstance(value, Sealed)
            for found in self._found
            if isinstance(found, _Found)
            for value in found.values.values()
        )
        if not sealed:
            protection = Protection.NONE
        else:
            protection = Protection.KEY if derivation is None else Protection.PASSPHRASE
        return Container(
            protection, name, "Signature" in self._header, tuple(self._found), derivation, authentication
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
                serial = _name(info, "SerialNo")
                found = _found(key, info, (_name(info, "Manufacturer"), serial))
                before = self._seen.setdefault((found.device, found.id), key.line)
                if before != key.line:
                    raise EnrolError(f"a key of this device and Id stands in line {before} already")
                self._found.append(found)
            except EnrolError as error:
                self._found.append(Fault(key.line, serial, str(error)))


def _several(found: Sequence[_Found | Fault]) -> set[tuple[str, str]]:
    """The devices that have more than one key."""
    seen: set[tuple[str, str]] = set()
    several: set[tuple[str, str]] = set()
    for key in found:
        if isinstance(key, _Found) and key.serial:
            (several if key.device in seen else seen).add(key.device)
    return several


def _found(key: Element, info: Element | None, device: tuple[str, str]) -> _Found:
    kind = _kind(key)
    key_id = key.attributes.get("Id", "").strip()
    _check_name(key_id, "Id")
    if not (device[1] or key_id):
        raise EnrolError("it has neither a serial number nor an Id")
    policy = key.one("Policy")
    if policy is not None:
        _check_policy(policy)
    algorithm, digits = _parameters(key.one("AlgorithmParameters"))
    return _Found(
        line=key.line,
        device=device,
        id=key_id,
        issuer=_name(key, "Issuer"),
        user_id=_name(key, "UserId", 2 * _LONGEST_NAME) or _name(info, "UserId", 2 * _LONGEST_NAME),
        kind=kind,
        algorithm=algorithm,
        digits=digits,
        starts_at=max((at for at in (_date(policy, "StartDate"), _date(info, "StartDate")) if at), default=None),
        ends_at=min((at for at in (_date(policy, "ExpiryDate"), _date(info, "ExpiryDate")) if at), default=None),
        values=_values(key),
    )


def _kind(key: Element) -> Kind:
    algorithm = key.attributes.get("Algorithm")
    if algorithm is None:
        raise EnrolError("the file does not say its algorithm")
    if algorithm == _PIN:
        raise EnrolError("it is the PIN of another key and no token; remove its KeyPackage")
    kind = _KINDS.get(algorithm)
    if kind is None:
        raise EnrolError(f"its algorithm is not known; there are {' and '.join(_KINDS)}")
    return kind


def _parameters(element: Element | None) -> tuple[Algorithm, int | None]:
    """The hash and, where it is said, the number of digits."""
    if element is None:
        return Algorithm.SHA1, None
    element.check_children("Suite", "ResponseFormat", "ChallengeFormat")
    if element.one("ChallengeFormat") is not None:
        raise EnrolError("it answers challenges (ChallengeFormat), which is not done here")
    response = element.one("ResponseFormat")
    return _hash(element.one("Suite")), None if response is None else _length(response)


def _hash(suite: Element | None) -> Algorithm:
    """The hash of a suite: its text, or the attribute `hashalgo`, as privacyIDEA writes it."""
    if suite is None:
        return Algorithm.SHA1
    said = {text.strip().upper() for text in (suite.text, suite.attributes.get("hashalgo", ""))} - {""}
    algorithm = _SUITES.get(said.pop()) if len(said) == 1 else None
    if algorithm is None or set(suite.attributes) - {"hashalgo"}:
        raise EnrolError("its Suite is not known; HMAC-SHA1, HMAC-SHA256 and HMAC-SHA512 are")
    return algorithm


def _length(response: Element) -> int | None:
    attributes = response.attributes
    if set(attributes) - {"Encoding", "Length", "CheckDigits"}:
        raise EnrolError("there is something in its ResponseFormat that is not understood here")
    if attributes.get("Encoding", "DECIMAL") != "DECIMAL":
        raise EnrolError("its codes are not decimal numbers (ResponseFormat)")
    if attributes.get("CheckDigits", "false") not in {"false", "0"}:
        raise EnrolError("its codes have a check digit (ResponseFormat), which is not done here")
    length = attributes.get("Length")
    if length is None:
        return None
    if not _WHOLE.fullmatch(length) or int(length) not in DIGITS:
        raise EnrolError("its codes must have 6, 7 or 8 digits (ResponseFormat)")
    return int(length)


def _check_policy(policy: Element) -> None:
    """Raise EnrolError where a policy asks for what is not done here, as RFC 6030 §5 asks for."""
    policy.check_children("StartDate", "ExpiryDate", "PINPolicy", "KeyUsage", "NumberOfTransactions")
    if policy.one("NumberOfTransactions") is not None:
        raise EnrolError("it may be used so many times only (NumberOfTransactions), which is not counted here")
    usages = {usage.text.strip() for usage in policy.all("KeyUsage")}
    if usages and "OTP" not in usages:
        raise EnrolError("it may not be used for one-time passwords (KeyUsage)")
    pin = policy.one("PINPolicy")
    if pin is not None and (pin.children or pin.attributes.get("PINUsageMode", "Local") != "Local"):
        raise EnrolError("its PIN is to be asked for with the code (PINPolicy), which is not done here")


def _values(key: Element) -> Mapping[str, str | Sealed]:
    data = key.one("Data")
    if data is None or data.one("Secret") is None:
        raise EnrolError("its seed is not in the file")
    data.check_children("Secret", "Counter", "Time", "TimeInterval", "TimeDrift")
    values: dict[str, str | Sealed] = {}
    for child in data.children:
        if child.name in values:
            raise EnrolError(f"it has <{child.name}> twice")
        values[child.name] = _value(child)
    return values


def _value(element: Element) -> str | Sealed:
    element.check_children("PlainValue", "EncryptedValue", "ValueMAC")
    plain, encrypted = element.one("PlainValue"), element.one("EncryptedValue")
    mac = element.one("ValueMAC")
    if (plain is None) == (encrypted is None):
        raise EnrolError(f"its {element.name} must have either a PlainValue or an EncryptedValue")
    if encrypted is not None:
        return _sealed(encrypted, None if mac is None else _base64(mac.text, "ValueMAC"))
    assert plain is not None
    if mac is not None:
        raise EnrolError(f"its {element.name} has a MAC and is not encrypted")
    return plain.text.strip()


def _sealed(element: Element, mac: bytes | None = None) -> Sealed:
    method, data = element.one("EncryptionMethod"), element.one("CipherData")
    value = None if data is None else data.one("CipherValue")
    if method is None or value is None:
        raise EnrolError(
            "an encrypted value is not whole: it has an EncryptionMethod, and CipherData with a CipherValue"
        )
    sealed = Sealed(method.attributes.get("Algorithm", ""), _base64(value.text, "CipherValue"), mac)
    sealed.check()
    return sealed


def _unsealed(value: Sealed, opener: Opener | None) -> bytes:
    if opener is None:
        raise EnrolError("it is encrypted")
    return opener.open(value)


def _derivation(derived: Element) -> Derivation:
    method = derived.one("KeyDerivationMethod")
    parameters = None if method is None else method.one("PBKDF2-params")
    salt = None if parameters is None else parameters.one("Salt")
    if method is None or parameters is None or salt is None:
        raise EnrolError("the file does not say how the key comes from the passphrase (PBKDF2-params)")
    prf = parameters.one("PRF")
    return Derivation.of(
        method.attributes.get("Algorithm", ""),
        _base64(salt.said("Specified"), "Salt"),
        _whole(parameters.said("IterationCount")),
        _whole(parameters.said("KeyLength")),
        None if prf is None else prf.attributes.get("Algorithm"),
    )


def _whole(text: str) -> int:
    return int(text) if _WHOLE.fullmatch(text) else 0


def _base64(text: str, what: str) -> bytes:
    """The bytes; blanks and line ends may stand anywhere (XML Schema, base64Binary)."""
    try:
        return base64.b64decode("".join(text.split()).encode(), validate=True)
    except binascii.Error:
        raise EnrolError(f"its {what} is not base64") from None


def _name(element: Element | None, name: str, longest: int = _LONGEST_NAME) -> str:
    """A text that people read, empty where there is none. Raises EnrolError where it cannot stand on a line."""
    text = "" if element is None else element.said(name)
    _check_name(text, name, longest)
    return text


def _check_name(text: str, what: str, longest: int = _LONGEST_NAME) -> None:
    check_text(text, what)
    if len(text) > longest:
        raise EnrolError(f"its {what} is longer than {longest} characters")


def _date(element: Element | None, name: str) -> datetime | None:
    """A date (XML Schema, dateTime), in UTC where it says no zone."""
    text = "" if element is None else element.said(name)
    if not text:
        return None
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise EnrolError(f"its {name} is no date") from None
    return at if at.tzinfo is not None else at.replace(tzinfo=UTC)
