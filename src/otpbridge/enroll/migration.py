"""otpauth-migration:// URIs, the export of Google Authenticator: accounts in one QR code, or in a batch of them.

The data is a Protocol Buffers message in base64. Google publishes no description; this follows what others found
(alexbakker.me/post/parsing-google-auth-export-qr-code.html):

    MigrationPayload   1 repeated OtpParameters, 2 version, 3 batch_size, 4 batch_index, 5 batch_id
    OtpParameters      1 secret, 2 name, 3 issuer, 4 algorithm (1 SHA1, 2 SHA256, 3 SHA512, 4 MD5),
                       5 digits (1 six, 2 eight), 6 type (1 HOTP, 2 TOTP), 7 counter

There is no period: it is always 30 seconds. Fields with other numbers are passed over, as Protocol Buffers ask for.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator
from dataclasses import dataclass, field
from urllib.parse import unquote_to_bytes

from otpbridge.enroll.names import check_text
from otpbridge.enroll.otpauth import LONGEST, OtpauthKey
from otpbridge.enroll.seeds import check_length
from otpbridge.errors import EnrolError
from otpbridge.model import Algorithm, Kind, OtpParameters, Secret

SCHEME = "otpauth-migration://"
_START = "otpauth-migration://offline?data="
_VERSIONS = range(3)
_MOST = 100
"""Accounts in one QR code; the app puts ten into each."""
_LARGEST_BATCH = 1000
_NAMES_LONGEST = 256
_ALGORITHMS = {0: Algorithm.SHA1, 1: Algorithm.SHA1, 2: Algorithm.SHA256, 3: Algorithm.SHA512}
_MD5 = 4
_DIGITS = {0: 6, 1: 6, 2: 8}
_KINDS = {1: Kind.HOTP, 2: Kind.TOTP}
_VARINT, _LONG, _BYTES, _SHORT = 0, 1, 2, 5
_VARINT_LONGEST = 10


@dataclass(frozen=True, slots=True)
class Exported:
    """One account of an export, and its key or why that cannot be taken."""

    account: str
    issuer: str
    key: OtpauthKey | EnrolError


@dataclass(frozen=True, slots=True)
class Export:
    """What one QR code of an export holds: the number `index` (from 0) of `size` that belong together as `batch`."""

    accounts: tuple[Exported, ...]
    batch: int = 0
    index: int = 0
    size: int = 1


def parse(uri: str) -> Export:
    """Read a URI. Raises EnrolError saying what is wrong; the message holds nothing of the URI, which holds seeds."""
    if len(uri) > LONGEST:
        raise EnrolError(f"the export is longer than {LONGEST} characters")
    if uri[: len(_START)].lower() != _START:
        raise EnrolError(f"this is no export of Google Authenticator; it must start with {_START}")
    message = _Message.read(_decoded(uri[len(_START) :]), "the export")
    if message.number(2) not in _VERSIONS:
        raise EnrolError("the export is of a version that is not known here")
    entries = message.several(1)
    if not 1 <= len(entries) <= _MOST:
        raise EnrolError(f"the export holds {len(entries)} accounts; 1 to {_MOST} are read")
    size, index = message.number(3) or 1, message.number(4)
    if not (size <= _LARGEST_BATCH and index < size):
        raise EnrolError("the export does not say which of its QR codes this is")
    return Export(tuple(_exported(entry) for entry in entries), message.number(5), index, size)


def _decoded(data: str) -> bytes:
    """The bytes of the parameter: base64 of either alphabet, with or without padding, escaped or not."""
    raw = unquote_to_bytes(data).translate(bytes.maketrans(b"-_", b"+/")).rstrip(b"=")
    try:
        return base64.b64decode(raw + b"=" * (-len(raw) % 4), validate=True)
    except binascii.Error:
        raise EnrolError("the export is damaged: it is not base64") from None


def _exported(entry: bytes) -> Exported:
    message = _Message.read(entry, "an account of the export")
    account, issuer = "", ""
    try:
        account, issuer = _names(message.text(2), message.text(3))
        _check_names(account, issuer)
        return Exported(account, issuer, _key(message, account, issuer))
    except EnrolError as error:
        return Exported(account, issuer, error)


def _names(name: str, issuer: str) -> tuple[str, str]:
    """Account and issuer: the name may bring the issuer once more, or alone."""
    prefix, colon, rest = name.partition(":")
    if colon and rest.strip(" ") and (not issuer or prefix == issuer):
        name, issuer = rest, prefix
    return name.strip(" "), issuer.strip(" ")


def _check_names(account: str, issuer: str) -> None:
    if not account:
        raise EnrolError("it has no account name")
    if len(account) > _NAMES_LONGEST or len(issuer) > _NAMES_LONGEST:
        raise EnrolError(f"account name and issuer must not be longer than {_NAMES_LONGEST} characters")
    check_text(account, "account name")
    check_text(issuer, "issuer")


def _key(message: _Message, account: str, issuer: str) -> OtpauthKey:
    kind = _KINDS.get(message.number(6))
    if kind is None:
        raise EnrolError("it does not say whether it is totp or hotp")
    if message.number(4) == _MD5:
        raise EnrolError("it uses MD5, which no key computes")
    algorithm = _ALGORITHMS.get(message.number(4))
    if algorithm is None:
        raise EnrolError("it uses a hash that is not known: SHA1, SHA256 and SHA512 are")
    digits = _DIGITS.get(message.number(5))
    if digits is None:
        raise EnrolError("its number of digits is not known: 6 and 8 are")
    secret = message.data(1)
    check_length(secret)
    counter = message.number(7) if kind is Kind.HOTP else 0
    if counter >= 2**63:
        raise EnrolError("its counter is negative")
    return OtpauthKey(kind, Secret(secret), OtpParameters(algorithm, digits), account, issuer, counter)


@dataclass(frozen=True, slots=True)
class _Message:
    """One message: its fields in their order (protobuf.dev/programming-guides/encoding)."""

    what: str
    fields: tuple[tuple[int, int | bytes], ...] = field(repr=False)

    @classmethod
    def read(cls, data: bytes, what: str) -> _Message:
        """Read it to the last byte. Raises EnrolError."""
        return cls(what, tuple(_fields(data, what)))

    def several(self, number: int) -> list[bytes]:
        """The values of a repeated field of messages."""
        values = [value for tag, value in self.fields if tag == number]
        if not all(isinstance(value, bytes) for value in values):
            raise self._wrong()
        return [value for value in values if isinstance(value, bytes)]

    def number(self, number: int) -> int:
        """The value of a field that is a number, 0 where it is left out."""
        value = self._single(number, 0)
        if not isinstance(value, int):
            raise self._wrong()
        return value

    def data(self, number: int) -> bytes:
        """The value of a field of bytes, none where it is left out."""
        value = self._single(number, b"")
        if not isinstance(value, bytes):
            raise self._wrong()
        return value

    def text(self, number: int) -> str:
        """The value of a field that is text."""
        try:
            return self.data(number).decode()
        except UnicodeDecodeError:
            raise EnrolError(f"{self.what} holds a name that is not UTF-8") from None

    def _single(self, number: int, otherwise: int | bytes) -> int | bytes:
        values = [value for tag, value in self.fields if tag == number]
        if len(values) > 1:
            raise EnrolError(f"{self.what} holds a field twice")
        return values[0] if values else otherwise

    def _wrong(self) -> EnrolError:
        return EnrolError(f"{self.what} holds a field of the wrong type")


def _fields(data: bytes, what: str) -> Iterator[tuple[int, int | bytes]]:
    at = 0
    while at < len(data):
        tag, at = _varint(data, at, what)
        number, wire = tag >> 3, tag & 7
        if not number:
            raise EnrolError(f"{what} is damaged")
        if wire == _VARINT:
            value, at = _varint(data, at, what)
            yield number, value
            continue
        if wire == _BYTES:
            length, at = _varint(data, at, what)
        elif wire in {_LONG, _SHORT}:
            length = 8 if wire == _LONG else 4
        else:
            raise EnrolError(f"{what} is damaged")
        if length > len(data) - at:
            raise EnrolError(f"{what} is cut off")
        yield number, data[at : at + length]
        at += length


def _varint(data: bytes, at: int, what: str) -> tuple[int, int]:
    """A number of 64 bits at most, and where the next thing starts."""
    value = 0
    for place, byte in enumerate(data[at : at + _VARINT_LONGEST]):
        value |= (byte & 0x7F) << (7 * place)
        if not byte & 0x80:
            if value >= 2**64:
                raise EnrolError(f"{what} holds a number that is too large")
            return value, at + place + 1
    raise EnrolError(f"{what} is cut off" if len(data) - at < _VARINT_LONGEST else f"{what} is damaged")
