"""The management applet: what a key is, and which of its applications are switched on.

https://docs.yubico.com/yesdk/users-manual/application-management/management-overview.html
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from virtualkey.apdu import Command, Reader, Refused, Status, tlv

OTP, U2F, OPENPGP, PIV, OATH, HSMAUTH, FIDO2 = 0x01, 0x02, 0x08, 0x10, 0x20, 0x100, 0x200

_USB_SUPPORTED, _SERIAL, _USB_ENABLED, _FORM_FACTOR, _VERSION = 0x01, 0x02, 0x03, 0x04, 0x05
_EJECT_TIMEOUT, _CHALLENGE_TIMEOUT, _FLAGS = 0x06, 0x07, 0x08
_LOCK, _UNLOCK, _REBOOT, _NFC_SUPPORTED, _NFC_ENABLED = 0x0A, 0x0B, 0x0C, 0x0D, 0x0E
_PART_NUMBER, _FIPS_CAPABLE, _FIPS_APPROVED, _PIN_COMPLEXITY = 0x13, 0x14, 0x15, 0x16
_NFC_RESTRICTED, _RESET_BLOCKED = 0x17, 0x18
_READ, _WRITE = 0x1D, 0x1C
_LOCK_SIZE = 16

FORM_FACTORS = {"usb-a": 1, "usb-a-nano": 2, "usb-c": 3, "usb-c-nano": 4, "lightning": 5}


@dataclass(slots=True)
class Management:
    """`serial` is None for a key that does not tell it."""

    NAMES: ClassVar[dict[int, str]] = {_READ: "READ CONFIG", _WRITE: "WRITE CONFIG"}
    SEND_REMAINING: ClassVar[int] = 0xC0

    serial: int | None
    version: tuple[int, int, int]
    form_factor: int
    has_nfc: bool
    usb_enabled: int
    reboots: bool = False
    """It was told to: it goes from the bus and comes back."""
    _nfc_enabled: int = 0
    _timeouts_and_flags: dict[int, bytes] = field(default_factory=dict)
    _lock: bytes = field(default=b"", repr=False)

    def __post_init__(self) -> None:
        self._nfc_enabled = self.supported

    @property
    def supported(self) -> int:
        """The applications that the key came with."""
        four = OTP | U2F | OPENPGP | PIV | OATH
        return four if self.version < (5,) else four | FIDO2 | HSMAUTH * (self.version >= (5, 4, 3))

    def name(self, command: Command) -> str | None:
        """What a log calls the command."""
        return self.NAMES.get(command.ins)

    def select(self) -> bytes:
        """What the applet says of itself."""
        return f"Virtual mgr - FW version {'.'.join(map(str, self.version))}".encode()

    async def process(self, command: Command) -> bytes:
        """The answer to a command; raises Refused."""
        match command.ins:
            case 0x1D:
                return self._read(page=command.p1)
            case 0x1C if self.version >= (5,):
                return self._write(command.data)
        raise Refused(Status.UNKNOWN_INSTRUCTION)

    def _read(self, page: int) -> bytes:
        if page:
            raise Refused(Status.WRONG_P1_P2)
        body = tlv(_USB_SUPPORTED, _two(self.supported))
        if self.serial is not None:
            body += tlv(_SERIAL, self.serial.to_bytes(4, "big"))
        if self.version >= (5,):
            body += self._details()
        return bytes([len(body)]) + body

    def _details(self) -> bytes:
        """What keys tell from version 5 on."""
        body = tlv(_USB_ENABLED, _two(self.usb_enabled))
        body += tlv(_FORM_FACTOR, bytes([self.form_factor]))
        body += tlv(_VERSION, bytes(self.version))
        for tag, default in ((_EJECT_TIMEOUT, _two(0)), (_CHALLENGE_TIMEOUT, b"\x0f"), (_FLAGS, b"\0")):
            body += tlv(tag, self._timeouts_and_flags.get(tag, default))
        body += tlv(_LOCK, bytes([bool(self._lock)]))
        if self.has_nfc:
            body += tlv(_NFC_SUPPORTED, _two(self.supported)) + tlv(_NFC_ENABLED, _two(self._nfc_enabled))
        if self.version >= (5, 7):
            body += tlv(_PART_NUMBER, b"") + tlv(_FIPS_CAPABLE, _two(0)) + tlv(_FIPS_APPROVED, _two(0))
            body += tlv(_PIN_COMPLEXITY, b"\0") + tlv(_NFC_RESTRICTED, b"\0") + tlv(_RESET_BLOCKED, _two(0))
        return body

    def _write(self, data: bytes) -> bytes:
        if not data or data[0] != len(data) - 1:
            raise Refused(Status.WRONG_DATA)
        fields = {}
        reader = Reader(data[1:])
        while reader:
            tag = reader.raw(1)[0]
            fields[tag] = reader.raw(reader.raw(1)[0])
        if self._lock and fields.get(_UNLOCK) != self._lock:
            raise Refused(Status.AUTHENTICATE_FIRST)
        if len(fields.get(_LOCK, bytes(_LOCK_SIZE))) != _LOCK_SIZE:
            raise Refused(Status.WRONG_DATA)
        self._store(fields)
        return b""

    def _store(self, fields: dict[int, bytes]) -> None:
        self.reboots = _REBOOT in fields
        if _USB_ENABLED in fields:
            self.usb_enabled = int.from_bytes(fields[_USB_ENABLED], "big") & self.supported
        if _NFC_ENABLED in fields:
            self._nfc_enabled = int.from_bytes(fields[_NFC_ENABLED], "big") & self.supported
        if _LOCK in fields:
            self._lock = b"" if fields[_LOCK] == bytes(_LOCK_SIZE) else fields[_LOCK]
        self._timeouts_and_flags |= {
            tag: fields[tag] for tag in (_EJECT_TIMEOUT, _CHALLENGE_TIMEOUT, _FLAGS) if tag in fields
        }


def _two(number: int) -> bytes:
    return number.to_bytes(2, "big")
