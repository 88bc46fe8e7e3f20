"""One connection of a relay to a centre: TLS, then a call at a time. Every wait has a deadline."""

from __future__ import annotations

import asyncio
import os
import ssl
import time
from collections.abc import Callable
from functools import cache
from typing import Any, cast

import msgspec

from otpbridge.errors import OtpBridgeError, RemoteError
from otpbridge.wire.framing import BAD_FRAME, FRAME_BYTES, decode_reply, encode_call, parameters_of
from otpbridge.wire.messages import Hello, Message, R, Request

_decode_object = msgspec.json.Decoder(dict[str, Any]).decode


class LostError(OtpBridgeError):
    """The centre cannot be reached, does not answer in time, or answers nonsense."""


class Line:
    """A connection that the centre has let in."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._asked = False
        self.silent_since = time.monotonic()
        """When the centre last gave a sign of life, in monotonic seconds."""

    @classmethod
    async def open(cls, host: str, port: int, context: ssl.SSLContext, seconds: float) -> Line:
        """Connect, and see that the centre lets us in. Raises LostError."""
        try:
            async with asyncio.timeout(seconds):
                reader, writer = await asyncio.open_connection(
                    host, port, ssl=context, server_hostname=host, limit=FRAME_BYTES
                )
        except TimeoutError:
            raise LostError(f"no connection within {seconds:g} s") from None
        except (OSError, UnicodeError) as error:
            raise LostError(_said(error)) from None
        line = cls(reader, writer)
        try:
            # With TLS 1.3 the centre judges our certificate after we are through: only an answer shows that it did.
            await line.greet(seconds)
        except BaseException:
            line.close()
            raise
        return line

    @property
    def ended(self) -> bool:
        """Whether the other side has closed it, as a daemon does that is restarted."""
        return self._reader.at_eof() or self._reader.exception() is not None

    @property
    def usable(self) -> bool:
        """Whether a call can be made: none waits, and nothing says that the centre has gone."""
        return not self._asked and not self.ended and not self._writer.is_closing()

    def close(self) -> None:
        """Hang up. The centre gives up what it still does for this connection."""
        self._writer.transport.abort()

    async def greet(self, seconds: float) -> None:
        """See that the centre lives. Raises LostError."""
        try:
            await self.ask(Hello())
            await self.reply(Hello, seconds)
        except RemoteError as error:
            raise LostError(f"it answers {error.name}") from None

    async def ask(self, request: Request[R], *, more: bool = False) -> None:
        """Send a call; from here on the centre may have judged it."""
        frame = encode_call(type(request).METHOD, request, more=more)
        self._asked = True
        # One call is on its way at a time, and never longer than a frame: nothing to wait for.
        self._writer.write(frame)

    async def reply(self, request: type[Request[R]], seconds: float) -> tuple[R, bool]:
        """The next reply, and whether more follow. Raises LostError, and RemoteError for an error reply."""
        try:
            async with asyncio.timeout(seconds):
                frame = await self._reader.readuntil(b"\0")
        except TimeoutError:
            raise LostError(f"no answer within {seconds:g} s") from None
        except asyncio.IncompleteReadError:
            raise LostError("it has closed the connection") from None
        except asyncio.LimitOverrunError:
            raise LostError("it answers at too great a length") from None
        except OSError as error:
            raise LostError(_said(error)) from None
        self.silent_since = time.monotonic()
        try:
            envelope = decode_reply(frame[:-1])
            self._asked = bool(envelope.continues)
            parameters = parameters_of(envelope.parameters)
            if envelope.error is not None:
                self._asked = False
                raise RemoteError(envelope.error, _decode_object(parameters))
            return cast("R", _decoder(request.REPLY)(parameters)), self._asked
        except BAD_FRAME:
            self._asked = True
            # The text of the error may quote what came.
            raise LostError("its answer is not one: is it of the same version?") from None


@cache
def _decoder(reply: type[Message]) -> Callable[[bytes], Message]:
    return msgspec.json.Decoder(reply).decode


def _said(error: Exception) -> str:
    """What went wrong, in few words."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not accepted: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        return f"TLS: {(error.reason or str(error)).lower().replace('_', ' ')}"
    if isinstance(error, OSError) and error.errno is not None and error.errno > 0:
        # asyncio has words of its own for some of them.
        return os.strerror(error.errno)
    return str(error) or type(error).__name__
