"""One key of a PSKC file: what it is, how it computes its codes, and whether it may be used."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from otpbridge.enroll.lines import MOST_DRIFT
from otpbridge.enroll.otpauth import DIGITS, OtpauthKey, check_parameters
from otpbridge.enroll.pskc_cipher import Opener, Sealed
from otpbridge.enroll.pskc_tree import PSKC, Element
from otpbridge.enroll.pskc_values import (
    LONGEST_NAME,
    WHOLE,
    check_name,
    date_in,
    from_base64,
    name_in,
    number_of,
    unsealed,
    value_in,
)
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
_UID = re.compile(r"\s*uid\s*=\s*([^,+;\\\"<>#]+?)\s*(?:[,+;].*)?", re.IGNORECASE | re.DOTALL)


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
            raise EnrolError(
                "its UserId is a distinguished name that does not begin with a UID; say whose it is with --users"
            )
        return found[1]


@dataclass(frozen=True, slots=True)
class Found:
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
        """Empty where there is none."""
        return self.device[1]

    def encrypted(self) -> bool:
        """Whether any of its values is."""
        return any(isinstance(said, Sealed) for said in self.values.values())

    def opened(self, opener: Opener | None, now: datetime, digits: int | None, *, long_name: bool) -> PskcKey:
        """Open it, and check what it says. Raises EnrolError."""
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
        short = self.serial or self.id
        label = f"{short} {self.id}" if long_name and self.id else short
        secret = self._secret(opener)
        return PskcKey(
            self.line,
            self.device[0],
            self.serial,
            short,
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
        said = self.values["Secret"]
        seed = from_base64(said, "seed") if isinstance(said, str) else unsealed(said, opener)
        check_length(seed)
        return Secret(seed)

    def _number(self, what: str, default: int, opener: Opener | None) -> int:
        said = self.values.get(what)
        return default if said is None else number_of(said, what, opener)


def find(key: Element, info: Element | None, device: tuple[str, str]) -> Found:
    """Read a key, without opening it. `info` is of its device, of which `device` is maker and serial number.

    Raises EnrolError.
    """
    kind = _kind(key)
    key_id = key.attributes.get("Id", "").strip()
    check_name(key_id, "Id")
    if not (device[1] or key_id):
        raise EnrolError("it has neither a serial number nor an Id")
    policy = key.one("Policy")
    if policy is not None:
        _check_policy(policy)
    algorithm, digits = _parameters(key.one("AlgorithmParameters"))
    return Found(
        line=key.line,
        device=device,
        id=key_id,
        issuer=name_in(key, "Issuer"),
        user_id=name_in(key, "UserId", 2 * LONGEST_NAME) or name_in(info, "UserId", 2 * LONGEST_NAME),
        kind=kind,
        algorithm=algorithm,
        digits=digits,
        starts_at=max((at for at in (date_in(policy, "StartDate"), date_in(info, "StartDate")) if at), default=None),
        ends_at=min((at for at in (date_in(policy, "ExpiryDate"), date_in(info, "ExpiryDate")) if at), default=None),
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
    if not WHOLE.fullmatch(length) or int(length) not in DIGITS:
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
        values[child.name] = value_in(child)
    return values
