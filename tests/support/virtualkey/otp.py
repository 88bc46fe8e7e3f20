"""The OTP applet: two slots that type something when the key is touched.

https://docs.yubico.com/yesdk/users-manual/application-otp/slots.html and, for the layout of a configuration, the
documentation of yubikey-personalization.
"""

from __future__ import annotations

import hmac
import secrets
import struct
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import ClassVar

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from virtualkey.apdu import Command, Refused, Status

_MODHEX = "cbdefghijklnrtuv"
_CONFIGURATION = struct.Struct(">16s6s16s6sBBBB2sH")
_ACCESS_CODE, NO_ACCESS_CODE = 6, bytes(6)
_RESIDUE = 0xF0B8
"""The checksum over a block that ends in its own complemented checksum."""

_TKT_CR, _TKT_HOTP = 0x20, 0x40
_TKT_UPDATABLE = 0x3F
_CFG_STATIC, _CFG_HOTP8, _CFG_MODHEX1, _CFG_MODHEX = 0x20, 0x02, 0x10, 0x50
_CFG_CHALLENGE = 0x20
_CFG_UPDATABLE = 0x0C
_EXT_UPDATE = 0x20

_CONFIG, _STATUS = 0x01, 0x03
_COMMANDS = {0x01: "CONFIG 1", 0x03: "CONFIG 2", 0x04: "UPDATE 1", 0x05: "UPDATE 2", 0x06: "SWAP", 0x10: "SERIAL"}


@dataclass(slots=True)
class Slot:
    """What one slot is programmed with."""

    fixed: bytes
    uid: bytes = field(repr=False)
    key: bytes = field(repr=False)
    access_code: bytes = field(repr=False)
    ext: int
    tkt: int
    cfg: int
    counter: int = 0
    """HOTP: the next moving factor. Yubico OTP: how often the key was plugged in and used."""
    session: int = 0
    """How often it was touched since it was plugged in."""

    @property
    def kind(self) -> str:
        """What a touch does."""
        if self.tkt & _TKT_HOTP:
            return "challenge-response" if self.cfg & _CFG_CHALLENGE else "hotp"
        return "static" if self.cfg & _CFG_STATIC else "yubiotp"

    @property
    def digits(self) -> int:
        """Of an OATH-HOTP code."""
        return 8 if self.cfg & _CFG_HOTP8 else 6

    @property
    def enters(self) -> bool:
        """Whether Enter follows."""
        return bool(self.tkt & _TKT_CR)

    @property
    def secret(self) -> bytes:
        """The AES key, or the 20 bytes of an OATH-HOTP seed."""
        return self.key if self.kind == "yubiotp" else self.key + self.uid[:4]

    def start(self) -> None:
        """Newly programmed: the moving factor of a counted slot starts where it was told to."""
        if self.kind == "hotp":
            self.counter = int.from_bytes(self.uid[4:], "big") << 4

    def press(self) -> str:
        """What the touch types."""
        match self.kind:
            case "yubiotp":
                typed = self._yubico_otp()
            case "hotp":
                typed = self._token_id() + self._hotp()
            case "challenge-response":
                return ""
            case other:
                raise NotImplementedError(f"a {other} slot is not typed out here")
        return typed + "\n" * self.enters

    def _yubico_otp(self) -> str:
        if not self.session:
            self.counter += 1
        block = self.uid + struct.pack("<H", self.counter) + secrets.token_bytes(3) + bytes([self.session & 0xFF])
        block += secrets.token_bytes(2)
        self.session += 1
        block += struct.pack("<H", ~checksum(block) & 0xFFFF)
        return modhex(self.fixed) + modhex(Cipher(algorithms.AES(self.key), modes.ECB()).encryptor().update(block))

    def _hotp(self) -> str:
        mac = hmac.digest(self.secret, self.counter.to_bytes(8, "big"), "sha1")
        self.counter += 1
        start = mac[-1] & 0x0F
        number = int.from_bytes(mac[start : start + 4], "big") & 0x7FFFFFFF
        return str(number % 10**self.digits).rjust(self.digits, "0")

    def _token_id(self) -> str:
        """A whole token id in modhex, its first byte, its first two bytes, or none of it."""
        flags = self.cfg & _CFG_MODHEX
        letters = {0: 0, _CFG_MODHEX1: 1, _CFG_MODHEX: len(self.fixed)}.get(flags, 2)
        return modhex(self.fixed[:letters]) + self.fixed[letters:].hex()


class Otp:
    """Slots 1 and 2."""

    NAMES: ClassVar[dict[int, str]] = {_STATUS: "STATUS"}
    SEND_REMAINING: ClassVar[int] = 0xC0

    def __init__(self, version: tuple[int, int, int], serial: int | None):
        self._version = version
        self._serial = serial
        self._sequence = 0
        self.slots: dict[int, Slot | None] = {1: None, 2: None}

    def plugged_in(self) -> None:
        """Touches are counted anew."""
        for slot in filter(None, self.slots.values()):
            slot.session = 0

    def name(self, command: Command) -> str | None:
        """What a log calls the command."""
        return _COMMANDS.get(command.p1) if command.ins == _CONFIG else self.NAMES.get(command.ins)

    def select(self) -> bytes:
        """Version, how often it was programmed, and what the slots do."""
        state = 0
        for number, slot in self.slots.items():
            if slot is not None:
                state |= number | (number << 2 if slot.kind != "challenge-response" else 0)
        return bytes([*self._version, self._sequence]) + struct.pack("<H", state)

    async def process(self, command: Command) -> bytes:
        """The answer to a command; raises Refused. What is not allowed changes nothing: the sequence tells."""
        match command.ins, command.p1:
            case 0x03, _:
                pass
            case 0x01, 0x10:
                if self._serial is None:
                    raise Refused(Status.CONDITIONS)
                return self._serial.to_bytes(4, "big")
            case 0x01, 0x01 | 0x03:
                self._write(1 if command.p1 == 1 else 2, command.data, self._programmed)
            case 0x01, 0x04 | 0x05:
                self._write(command.p1 - 3, command.data, self._updated)
            case 0x01, 0x06:
                self.slots = {1: self.slots[2], 2: self.slots[1]}
                self._count()
            case 0x01, _:
                raise Refused(Status.WRONG_P1_P2)
            case _:
                raise Refused(Status.UNKNOWN_INSTRUCTION)
        return self.select()

    def _write(self, number: int, data: bytes, changed: Callable[[Slot | None, bytes], Slot | None]) -> None:
        if len(data) != _CONFIGURATION.size + _ACCESS_CODE:
            raise Refused(Status.WRONG_LENGTH)
        configuration, code = data[:-_ACCESS_CODE], data[-_ACCESS_CODE:]
        before = self.slots[number]
        if before is not None and not hmac.compare_digest(before.access_code, code):
            return
        if any(configuration) and checksum(configuration) != _RESIDUE:
            return
        after = changed(before, configuration)
        if after is not before:
            self.slots[number] = after
            self._count()

    def program(self, number: int, slot: Slot | None) -> None:
        """Puts this into a slot."""
        if slot is not None:
            slot.start()
        self.slots[number] = slot
        self._count()

    def _count(self) -> None:
        self._sequence = self._sequence % 255 + 1 if any(self.slots.values()) else 0

    @staticmethod
    def _programmed(_before: Slot | None, configuration: bytes) -> Slot | None:
        if not any(configuration):
            return None
        slot = _read(configuration)
        slot.start()
        return slot

    @staticmethod
    def _updated(before: Slot | None, configuration: bytes) -> Slot | None:
        """Flags that may be changed, and the access code, where the slot allows it."""
        if before is None or not before.ext & _EXT_UPDATE:
            return before
        new = _read(configuration)
        return replace(
            before,
            access_code=new.access_code,
            ext=new.ext,
            tkt=before.tkt & ~_TKT_UPDATABLE | new.tkt & _TKT_UPDATABLE,
            cfg=before.cfg & ~_CFG_UPDATABLE | new.cfg & _CFG_UPDATABLE,
        )


def yubico_otp(fixed: bytes, uid: bytes, key: bytes, access_code: bytes) -> Slot:
    """A slot with a Yubico OTP, as programs write it."""
    return Slot(fixed, uid, key, access_code or NO_ACCESS_CODE, _EXT_UPDATE, _TKT_CR, 0)


def hotp(fixed: bytes, secret: bytes, access_code: bytes, digits: int) -> Slot:
    """A slot with OATH-HOTP, counting from 0."""
    key = secret.ljust(20, b"\0")
    cfg = _CFG_HOTP8 if digits == 8 else 0
    return Slot(
        fixed, key[16:20] + bytes(2), key[:16], access_code or NO_ACCESS_CODE, _EXT_UPDATE, _TKT_HOTP | _TKT_CR, cfg
    )


def _read(configuration: bytes) -> Slot:
    fixed, uid, key, access_code, length, ext, tkt, cfg, _reserved, _checksum = _CONFIGURATION.unpack(configuration)
    return Slot(fixed[:length], uid, key, access_code, ext, tkt, cfg)


def modhex(data: bytes) -> str:
    """Letters that every keyboard types alike."""
    return "".join(_MODHEX[byte >> 4] + _MODHEX[byte & 15] for byte in data)


def checksum(data: bytes) -> int:
    """CRC-16 as in ISO 13239, before it is complemented."""
    value = 0xFFFF
    for bit in (byte >> place & 1 for byte in data for place in range(8)):
        value = value >> 1 ^ (0x8408 if (value ^ bit) & 1 else 0)
    return value
