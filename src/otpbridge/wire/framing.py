"""Varlink frames: one JSON object ended by NUL, at most 64 KiB with it (varlink.org, "Method Call").

Server and clients share this: the splitter that finds frames in a stream, and the envelopes around parameters.
"""

from __future__ import annotations

from typing import Any

import msgspec

from otpbridge.errors import ProtocolError

FRAME_BYTES = 65_536
"""The longest frame in bytes, its NUL counted."""

BAD_FRAME = (msgspec.MsgspecError, RecursionError, UnicodeError)
"""What decoding a hostile frame may raise: bad JSON or wrong types, deep nesting, bad UTF-8."""


class FrameTooLongError(ProtocolError):
    """A frame is longer than both sides agreed on."""


class FrameSplitter:
    """Finds frames in a byte stream, whatever its chunks.

    Each byte is looked at once, so an endless message in tiny chunks costs linear time. What is buffered stays below
    `limit` plus one chunk, as `take` raises as soon as `limit` bytes hold no NUL.
    """

    __slots__ = ("_buffer", "_limit", "_scanned")

    def __init__(self, limit: int = FRAME_BYTES) -> None:
        self._buffer = bytearray()
        self._limit = limit
        self._scanned = 0

    def __len__(self) -> int:
        """Bytes that wait here, whole frames or not."""
        return len(self._buffer)

    def feed(self, chunk: bytes) -> None:
        """Add what was read."""
        self._buffer += chunk

    def take(self) -> bytes | None:
        """The next whole frame without its NUL, or None until more bytes come.

        Raises FrameTooLongError when the frame does not end within the limit.
        """
        end = self._buffer.find(0, self._scanned, self._limit)
        if end < 0:
            self._scanned = len(self._buffer)
            if self._scanned >= self._limit:
                raise FrameTooLongError(f"a message is longer than {self._limit} bytes")
            return None
        frame = bytes(self._buffer[:end])
        del self._buffer[: end + 1]
        self._scanned = 0
        return frame


class CallEnvelope(msgspec.Struct, gc=False):
    """A method call as it arrives. Unknown keys are passed over, null means left out (sd-varlink(3))."""

    method: str
    parameters: msgspec.Raw = msgspec.Raw(b"")
    oneway: bool | None = None
    more: bool | None = None
    upgrade: bool | None = None


class ReplyEnvelope(msgspec.Struct, gc=False):
    """A reply as it arrives."""

    parameters: msgspec.Raw = msgspec.Raw(b"")
    continues: bool | None = None
    error: str | None = None


decode_call = msgspec.json.Decoder(CallEnvelope).decode
decode_reply = msgspec.json.Decoder(ReplyEnvelope).decode
_encode = msgspec.json.Encoder().encode


def parameters_of(raw: msgspec.Raw) -> bytes:
    """The JSON text of parameters; left out and null mean `{}`."""
    text = bytes(raw)
    return text if text and text != b"null" else b"{}"


def encode_call(method: str, parameters: msgspec.Struct, *, more: bool = False) -> bytes:
    """A call as a whole frame. Raises FrameTooLongError if the peer would refuse its length."""
    flag = b',"more":true' if more else b""
    return _frame(b'{"method":%b,"parameters":%b%b}\0' % (_encode(method), _encode(parameters), flag))


def encode_reply(parameters: msgspec.Struct, *, continues: bool = False) -> bytes:
    """A reply as a whole frame. Raises FrameTooLongError if the peer would refuse its length."""
    if continues:
        return _frame(b'{"parameters":%b,"continues":true}\0' % _encode(parameters))
    return _frame(b'{"parameters":%b}\0' % _encode(parameters))


def encode_error(name: str, parameters: msgspec.Struct | dict[str, Any]) -> bytes:
    """An error reply as a whole frame. Raises FrameTooLongError if the peer would refuse its length."""
    return _frame(b'{"error":%b,"parameters":%b}\0' % (_encode(name), _encode(parameters)))


def _frame(frame: bytes) -> bytes:
    if len(frame) > FRAME_BYTES:
        raise FrameTooLongError(f"a message of {len(frame)} bytes is longer than {FRAME_BYTES} bytes")
    return frame
