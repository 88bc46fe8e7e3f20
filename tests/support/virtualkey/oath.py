"""The OATH applet: time-based and counted one-time codes.

https://developers.yubico.com/OATH/YKOATH_Protocol.html
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from dataclasses import dataclass, field
from typing import ClassVar

from virtualkey.apdu import Command, Reader, Refused, Status, tlv
from virtualkey.touch import Contact

_NAME, _NAME_LIST, _KEY, _CHALLENGE, _RESPONSE, _TRUNCATED = 0x71, 0x72, 0x73, 0x74, 0x75, 0x76
_HOTP_SKIPPED, _PROPERTY, _VERSION, _IMF, _ALGORITHM, _TOUCH_SKIPPED = 0x77, 0x78, 0x79, 0x7A, 0x7B, 0x7C
_REQUIRE_TOUCH = 0x02

KINDS = {"hotp": 0x10, "totp": 0x20}
ALGORITHMS = {"sha1": 1, "sha256": 2, "sha512": 3}
_HASHES = {number: name for name, number in ALGORITHMS.items()}
_ACCESS_KEY_KIND = KINDS["totp"] | ALGORITHMS["sha1"]

MINIMUM_SECRET = 14
_MAXIMUM_ID = 64
_MAXIMUM_SECRET = {1: 64, 2: 64, 3: 128}
"""The block of the hash: what is longer is hashed before it is sent."""
_TEXT = "utf-8"


@dataclass(slots=True)
class Stored:
    """A credential on the key."""

    kind: int
    """Kind in the upper four bits, algorithm in the lower four."""
    digits: int
    secret: bytes = field(repr=False)
    touch: bool
    counter: int

    @property
    def is_hotp(self) -> bool:
        """Counted, not timed."""
        return self.kind & 0xF0 == KINDS["hotp"]

    def calculate(self, challenge: bytes, *, truncated: bool) -> bytes:
        """Digits and the HMAC, or four bytes of it (RFC 4226, section 5.3); counts a counted credential on."""
        if self.is_hotp:
            challenge = self.counter.to_bytes(8, "big")
            self.counter += 1
        mac = hmac.new(self.secret, challenge, _HASHES[self.kind & 0x0F]).digest()
        if not truncated:
            return bytes([self.digits]) + mac
        start = mac[-1] & 0x0F
        return bytes([self.digits, mac[start] & 0x7F]) + mac[start + 1 : start + 4]


class Oath:
    """`capacity` credentials at most; `contact` is asked where a credential wants a touch."""

    NAMES: ClassVar[dict[int, str]] = {
        0x01: "PUT",
        0x02: "DELETE",
        0x03: "SET CODE",
        0x04: "RESET",
        0x05: "RENAME",
        0xA1: "LIST",
        0xA2: "CALCULATE",
        0xA3: "VALIDATE",
        0xA4: "CALCULATE ALL",
    }
    SEND_REMAINING: ClassVar[int] = 0xA5

    def __init__(self, version: tuple[int, int, int], capacity: int, contact: Contact):
        self._version = version
        self.capacity = capacity
        self._contact = contact
        self._reset()

    def _reset(self) -> None:
        self.credentials: dict[bytes, Stored] = {}
        self._salt = secrets.token_bytes(8)
        self._access_key = b""
        self._challenge = b""
        self._unlocked = True

    @property
    def locked(self) -> bool:
        """Whether there is an access password."""
        return bool(self._access_key)

    def set_password(self, password: str | None) -> None:
        """Sets it as the programs do that know the password, or takes it away."""
        self._access_key = b"" if password is None else self._key_of(password)

    def _key_of(self, password: str) -> bytes:
        return hashlib.pbkdf2_hmac("sha1", password.encode(_TEXT), self._salt, 1000, 16)

    def name(self, command: Command) -> str | None:
        """What a log calls the command."""
        return self.NAMES.get(command.ins)

    def select(self) -> bytes:
        """Version, salt, and a challenge if the applet is locked."""
        self._unlocked = not self._access_key
        body = tlv(_VERSION, bytes(self._version)) + tlv(_NAME, self._salt)
        if self._access_key:
            self._challenge = secrets.token_bytes(8)
            body += tlv(_CHALLENGE, self._challenge) + tlv(_ALGORITHM, bytes([ALGORITHMS["sha1"]]))
        return body

    async def process(self, command: Command) -> bytes:
        """The answer to a command; raises Refused."""
        reader = Reader(command.data)
        match command.ins, command.p1, command.p2:
            case 0x04, 0xDE, 0xAD:
                self._reset()
                return b""
            case 0xA3, 0, 0:
                return self._validate(reader)
        if command.ins not in self.NAMES or (command.ins == 0x05 and self._version < (5, 3, 1)):
            raise Refused(Status.UNKNOWN_INSTRUCTION)
        if not self._unlocked:
            raise Refused(Status.AUTHENTICATE_FIRST)
        match command.ins, command.p1, command.p2:
            case 0x01, 0, 0:
                self._put(reader)
            case 0x02, 0, 0:
                self._delete(reader)
            case 0x03, 0, 0:
                self._set_code(reader)
            case 0x05, 0, 0:
                self._rename(reader)
            case 0xA1, 0, 0:
                return self._list()
            case 0xA2, 0, 0 | 1 as shortened:
                return await self._calculate(reader, truncated=bool(shortened))
            case 0xA4, 0, 0 | 1 as shortened:
                return self._calculate_all(reader, truncated=bool(shortened))
            case _:
                raise Refused(Status.WRONG_P1_P2)
        return b""

    def _validate(self, reader: Reader) -> bytes:
        response, challenge = reader.take(_RESPONSE), reader.take(_CHALLENGE)
        reader.end()
        if not self._access_key or not self._challenge:
            raise Refused(Status.NO_SUCH_OBJECT)
        wanted, self._challenge = _sha1(self._access_key, self._challenge), b""
        if not hmac.compare_digest(response, wanted):
            raise Refused(Status.WRONG_DATA)
        self._unlocked = True
        return tlv(_RESPONSE, _sha1(self._access_key, challenge))

    def _set_code(self, reader: Reader) -> None:
        key = reader.take(_KEY)
        if not key:
            reader.end()
            self._access_key = b""
            return
        challenge, response = reader.take(_CHALLENGE), reader.take(_RESPONSE)
        reader.end()
        if key[0] != _ACCESS_KEY_KIND:
            raise Refused(Status.WRONG_DATA)
        if not hmac.compare_digest(response, _sha1(key[1:], challenge)):
            raise Refused(Status.NO_SUCH_OBJECT)
        self._access_key = key[1:]

    def _put(self, reader: Reader) -> None:
        name, key = reader.take(_NAME), reader.take(_KEY)
        touch, counter = False, 0
        if reader.next_is(_PROPERTY):
            # A tag and a byte of flags: this one has no length.
            touch = bool(reader.raw(2)[1] & _REQUIRE_TOUCH)
        if reader.next_is(_IMF):
            counter = int.from_bytes(reader.take(_IMF), "big")
        reader.end()
        if len(key) < 2:
            raise Refused(Status.WRONG_DATA)
        self.put(name, Stored(kind=key[0], digits=key[1], secret=key[2:], touch=touch, counter=counter))

    def put(self, name: bytes, stored: Stored) -> None:
        """Puts a credential on the key, in place of one of that name; raises Refused."""
        newest = ALGORITHMS["sha512" if self._version >= (4, 3, 1) else "sha256"]
        fits = (
            1 <= len(name) <= _MAXIMUM_ID
            and stored.kind & 0xF0 in KINDS.values()
            and 1 <= stored.kind & 0x0F <= newest
            and MINIMUM_SECRET <= len(stored.secret) <= _MAXIMUM_SECRET[stored.kind & 0x0F]
            and 6 <= stored.digits <= 8
        )
        if not fits:
            raise Refused(Status.WRONG_DATA)
        if name not in self.credentials and len(self.credentials) >= self.capacity:
            raise Refused(Status.NO_SPACE)
        self.credentials[name] = stored

    def _delete(self, reader: Reader) -> None:
        name = reader.take(_NAME)
        reader.end()
        self._find(name)
        del self.credentials[name]

    def _rename(self, reader: Reader) -> None:
        old, new = reader.take(_NAME), reader.take(_NAME)
        reader.end()
        self._find(old)
        if not 1 <= len(new) <= _MAXIMUM_ID:
            raise Refused(Status.WRONG_DATA)
        if new in self.credentials:
            raise Refused(Status.NO_SUCH_OBJECT)
        self.credentials = {new if name == old else name: stored for name, stored in self.credentials.items()}

    def _list(self) -> bytes:
        return b"".join(tlv(_NAME_LIST, bytes([stored.kind]) + name) for name, stored in self.credentials.items())

    async def _calculate(self, reader: Reader, *, truncated: bool) -> bytes:
        name, challenge = reader.take(_NAME), reader.take(_CHALLENGE)
        reader.end()
        stored = self._find(name)
        if stored.touch and not await self._contact.touched():
            raise Refused(Status.AUTHENTICATE_FIRST)
        return tlv(_TRUNCATED if truncated else _RESPONSE, stored.calculate(challenge, truncated=truncated))

    def _calculate_all(self, reader: Reader, *, truncated: bool) -> bytes:
        challenge = reader.take(_CHALLENGE)
        reader.end()
        body = b""
        for name, stored in self.credentials.items():
            body += tlv(_NAME, name)
            if stored.is_hotp:
                body += tlv(_HOTP_SKIPPED, bytes([stored.digits]))
            elif stored.touch:
                body += tlv(_TOUCH_SKIPPED, bytes([stored.digits]))
            else:
                code = stored.calculate(challenge, truncated=truncated)
                body += tlv(_TRUNCATED if truncated else _RESPONSE, code)
        return body

    def _find(self, name: bytes) -> Stored:
        if name not in self.credentials:
            raise Refused(Status.NO_SUCH_OBJECT)
        return self.credentials[name]


def _sha1(key: bytes, message: bytes) -> bytes:
    return hmac.digest(key, message, "sha1")
