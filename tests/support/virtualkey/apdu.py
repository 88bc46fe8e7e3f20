"""Commands to a smart card and its answers, as ISO/IEC 7816-4 writes them: APDUs, TLVs, status words."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum


class Status(IntEnum):
    """Status words of a YubiKey."""

    OK = 0x9000
    MORE = 0x6100
    """The low byte says how much more, 0 for a lot."""
    WRONG_LENGTH = 0x6700
    AUTHENTICATE_FIRST = 0x6982
    NO_SUCH_OBJECT = 0x6984
    CONDITIONS = 0x6985
    WRONG_DATA = 0x6A80
    NOT_FOUND = 0x6A82
    NO_SPACE = 0x6A84
    WRONG_P1_P2 = 0x6B00
    UNKNOWN_INSTRUCTION = 0x6D00
    UNKNOWN_CLASS = 0x6E00


class Refused(Exception):  # noqa: N818
    """The card answers with this status and no data."""

    def __init__(self, status: Status):
        super().__init__(status.name)
        self.status = status


@dataclass(frozen=True, slots=True)
class Command:
    """A command APDU."""

    cla: int
    ins: int
    p1: int
    p2: int
    data: bytes = b""


def parse(raw: bytes) -> Command:
    """A short or extended command of ISO/IEC 7816-3, section 12.1; raises Refused."""
    if len(raw) < 4:
        raise Refused(Status.WRONG_LENGTH)
    head, body = raw[:4], raw[4:]
    if len(body) <= 1:
        data = b""
    elif body[0]:
        data = _counted(body[1:], body[0], (0, 1))
    elif len(body) == 3:
        data = b""
    else:
        data = _counted(body[3:], int.from_bytes(body[1:3], "big"), (0, 2))
    return Command(*head, data)


def _counted(rest: bytes, length: int, sizes_of_le: tuple[int, ...]) -> bytes:
    if len(rest) - length not in sizes_of_le:
        raise Refused(Status.WRONG_LENGTH)
    return rest[:length]


def answer(data: bytes, status: int = Status.OK) -> bytes:
    """A response APDU."""
    return data + status.to_bytes(2, "big")


def tlv(tag: int, value: bytes) -> bytes:
    """A tag, a length and a value of up to 65535 bytes."""
    if len(value) < 0x80:
        length = bytes([len(value)])
    elif len(value) < 0x100:
        length = bytes([0x81, len(value)])
    else:
        length = b"\x82" + len(value).to_bytes(2, "big")
    return bytes([tag]) + length + value


class Reader:
    """Takes TLVs off the front of a command's data; raises Refused for what is not there."""

    def __init__(self, data: bytes):
        self._rest = data

    def __bool__(self) -> bool:
        return bool(self._rest)

    def next_is(self, tag: int) -> bool:
        """Whether the next TLV has this tag."""
        return self._rest[:1] == bytes([tag])

    def take(self, tag: int) -> bytes:
        """The value of the next TLV, which must have this tag."""
        if not self.next_is(tag):
            raise Refused(Status.WRONG_DATA)
        self.raw(1)
        length = self.raw(1)[0]
        if length > 0x80:
            length = int.from_bytes(self.raw(length - 0x80), "big")
        return self.raw(length)

    def raw(self, length: int) -> bytes:
        """So many bytes as they stand."""
        if len(self._rest) < length:
            raise Refused(Status.WRONG_DATA)
        taken, self._rest = self._rest[:length], self._rest[length:]
        return taken

    def end(self) -> None:
        """There must be nothing left."""
        if self._rest:
            raise Refused(Status.WRONG_DATA)
