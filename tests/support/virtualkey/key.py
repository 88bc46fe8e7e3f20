"""A virtual YubiKey: its applets behind one stream of APDUs, its finger, and a log of what it was told."""

from __future__ import annotations

from dataclasses import dataclass

from virtualkey import management as applications
from virtualkey.apdu import Command, Refused, Status, answer, parse
from virtualkey.management import Management
from virtualkey.oath import Oath
from virtualkey.otp import Otp
from virtualkey.touch import Contact

Applet = Management | Oath | Otp

_SELECT, _CHAINED = 0xA4, 0x10
_MANAGEMENT = bytes.fromhex("a000000527471117")
_OATH = bytes.fromhex("a0000005272101")
_OTP = bytes.fromhex("a0000005272001")
_AT_ONCE = 256
"""Bytes of an answer that are sent before the rest must be asked for."""

_ATR_4 = bytes.fromhex("3bf81300008131fe15597562696b657934d4")
_ATR_5 = bytes.fromhex("3bfd1300008131fe158073c021c057597562694b657940")


@dataclass(frozen=True, slots=True)
class Entry:
    """A line of the log."""

    applet: str
    name: str
    length: int
    status: int
    """0 where the key did not do it."""


class VirtualKey:
    """`serial` is None for a key that does not tell it; `without` holds applications that are switched off."""

    def __init__(
        self,
        serial: int | None,
        version: tuple[int, int, int],
        *,
        form_factor: int,
        has_nfc: bool,
        without: int = 0,
        capacity: int | None = None,
    ):
        self.serial = serial
        self.version = version
        self.contact = Contact()
        self.management = Management(serial, version, form_factor, has_nfc, 0)
        self.management.usb_enabled = self.management.supported & ~without
        self.oath = Oath(version, capacity or (64 if version >= (5, 7) else 32), self.contact)
        self.otp = Otp(version, serial)
        self.log: list[Entry] = []
        self.reset()

    @property
    def atr(self) -> bytes:
        """How it answers to a reset, over USB."""
        return _ATR_4 if self.version < (5,) else _ATR_5

    @property
    def product(self) -> str:
        """What it calls itself on USB, and so what its reader is called."""
        has = self.management.usb_enabled
        fido = "U2F" if self.version < (5,) else "FIDO"
        parts = ["OTP"] * bool(has & applications.OTP)
        parts += [fido] * bool(has & (applications.U2F | applications.FIDO2))
        model = "Yubikey 4" if self.version < (5,) else "YubiKey"
        return f"Yubico {model} {'+'.join([*parts, 'CCID'])}"

    @property
    def reboots(self) -> bool:
        """Whether it is about to go from the bus and come back."""
        return self.management.reboots

    def plug_in(self) -> None:
        """Power comes on."""
        self.management.reboots = False
        self.otp.plugged_in()
        self.reset()

    def reset(self) -> None:
        """A reset of the card: no applet is selected."""
        self._applet: Applet | None = None
        self._chain = b""
        self._rest = b""

    def name(self, raw: bytes) -> str:
        """What the log calls a command."""
        try:
            command = parse(raw)
        except Refused:
            return "UNREADABLE"
        return self._name(command)

    def _name(self, command: Command) -> str:
        if command.ins == _SELECT and command.p1 == 0x04:
            return "SELECT"
        if self._applet is None:
            return "UNKNOWN"
        if command.ins == self._applet.SEND_REMAINING:
            return "SEND REMAINING"
        return self._applet.name(command) or "UNKNOWN"

    async def transmit(self, raw: bytes) -> bytes:
        """The answer to an APDU."""
        name = self.name(raw)
        response = b""
        try:
            response = await self._answer(raw)
        finally:
            self.note(name, raw, response)
        return response

    def note(self, name: str, raw: bytes, response: bytes) -> None:
        """Keeps what was asked for and what came of it."""
        applet = type(self._applet).__name__.lower() if self._applet else ""
        self.log.append(Entry(applet, name, len(raw), int.from_bytes(response[-2:], "big")))

    async def _answer(self, raw: bytes) -> bytes:
        try:
            return await self._dispatch(parse(raw))
        except Refused as refused:
            return answer(b"", refused.status)

    async def _dispatch(self, command: Command) -> bytes:
        if command.cla & ~_CHAINED:
            raise Refused(Status.UNKNOWN_CLASS)
        if command.cla & _CHAINED:
            self._chain += command.data
            return answer(b"")
        data, self._chain = self._chain + command.data, b""
        command = Command(command.cla, command.ins, command.p1, command.p2, data)
        if command.ins == _SELECT and command.p1 == 0x04:
            return self._send(self._select(command.data))
        if self._applet is None:
            raise Refused(Status.UNKNOWN_INSTRUCTION)
        if command.ins == self._applet.SEND_REMAINING and not command.data:
            if not self._rest:
                raise Refused(Status.CONDITIONS)
            return self._send(self._rest)
        self._rest = b""
        return self._send(await self._applet.process(command))

    def _send(self, data: bytes) -> bytes:
        now, self._rest = data[:_AT_ONCE], data[_AT_ONCE:]
        if self._rest:
            return answer(now, Status.MORE | (len(self._rest) if len(self._rest) < 0x100 else 0))
        return answer(now)

    def _select(self, name: bytes) -> bytes:
        enabled = self.management.usb_enabled
        applets: dict[bytes, Applet] = {_MANAGEMENT: self.management}
        if enabled & applications.OATH:
            applets[_OATH] = self.oath
        if enabled & applications.OTP and not (4,) <= self.version < (5, 3):
            # Between the NEO and 5.3 the slots are not to be had over the smart card.
            applets[_OTP] = self.otp
        self._rest = b""
        self._applet = applets.get(name)
        if self._applet is None:
            raise Refused(Status.NOT_FOUND)
        return self._applet.select()
