"""What both clients share: where the socket is, one call as frames, and the words for what goes wrong."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, Generic, cast

import msgspec

from otpbridge.config import find_run_dir
from otpbridge.errors import ProtocolError, RemoteError, UnavailableError
from otpbridge.wire.framing import (
    BAD_FRAME,
    FrameSplitter,
    FrameTooLongError,
    decode_reply,
    encode_call,
    parameters_of,
)
from otpbridge.wire.messages import Message, R, Request

READ_BYTES = 65_536
IDLE_CONNECTIONS = 8
"""Open connections that a client keeps for its next calls."""

CONNECT_RETRY_SECONDS = 0.005
"""Between attempts while the daemon's queue of new connections is full (EAGAIN, connect(2))."""

_decode_object = msgspec.json.Decoder(dict[str, Any]).decode


def socket_path(path: str | os.PathLike[str] | None, run_dir: str | os.PathLike[str] | None, *, admin: bool) -> Path:
    """The socket to connect to: `path`, else `verify` or `admin` in `run_dir`, else where the daemon is found."""
    if path is not None:
        return Path(path)
    folder = find_run_dir() if run_dir is None else Path(run_dir)
    return folder / ("admin" if admin else "verify")


class NothingSentError(Exception):
    """The connection took no byte of the call, so another one may be tried."""


def still_open(sock: socket.socket) -> bool:
    """Whether a kept connection can take a call: the daemon has not closed it, and nothing is left unread."""
    try:
        sock.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


class Exchange(Generic[R]):
    """One call and its replies, without I/O: the frame to send, then what each piece read means."""

    def __init__(self, request: Request[R], *, more: bool = False) -> None:
        self._method = type(request).METHOD
        self._decode = _decoder(type(request).REPLY)
        self._more = more
        self._splitter = FrameSplitter()
        self.finished = False
        try:
            self.frame = encode_call(self._method, request, more=more)
        except FrameTooLongError as error:
            raise ProtocolError(f"{self._method} cannot be called: {error}") from None

    def feed(self, data: bytes) -> None:
        """Take what was read. Raises UnavailableError when it is the end: a call that was sent is not repeated."""
        if not data:
            raise self.cut_off()
        self._splitter.feed(data)

    def cut_off(self) -> UnavailableError:
        """The error for a connection that ends after some of the call was sent."""
        return UnavailableError(
            f"otpbridged closed the connection before it answered {self._method}. The call is not repeated by"
            " itself, as a code in it may have been judged. See its log: journalctl -u otpbridged"
        )

    def take(self) -> R | None:
        """The next reply, or None until more is read. Raises RemoteError or ProtocolError."""
        try:
            frame = self._splitter.take()
            if frame is None:
                return None
            envelope = decode_reply(frame)
            self.finished = not envelope.continues
            parameters = parameters_of(envelope.parameters)
            if envelope.error is not None:
                self.finished = True
                raise RemoteError(envelope.error, _decode_object(parameters))
            reply = self._decode(parameters)
        except (FrameTooLongError, *BAD_FRAME) as error:
            # The text of the error may quote what came, a seed perhaps.
            self.finished = False
            raise ProtocolError(
                f"the answer to {self._method} is not one ({type(error).__name__}): is this the otpbridged socket,"
                " and of the same version?"
            ) from None
        if not self.finished and not self._more:
            raise ProtocolError(f"{self._method} was answered more than once")
        return cast("R", reply)

    @property
    def reusable(self) -> bool:
        """Whether the last reply was taken and nothing came after it: the connection can serve another call."""
        return self.finished and not len(self._splitter)

    def timed_out(self, seconds: float) -> UnavailableError:
        """The error for a daemon that does not answer."""
        return UnavailableError(
            f"otpbridged did not answer {self._method} within {seconds:g} s. See its log: journalctl -u otpbridged"
        )


@cache
def _decoder(reply: type[Message]) -> Callable[[bytes], Message]:
    return msgspec.json.Decoder(reply).decode


def cannot_connect(path: Path, error: OSError) -> UnavailableError:
    """What to tell someone who cannot reach the daemon, and what to do."""
    start = "Is it running? systemctl status otpbridged, or start `otpbridge serve`"
    match error.errno:
        case errno.ENOENT | errno.ENOTDIR:
            why = f"no such socket. {start}"
        case errno.ECONNREFUSED:
            why = f"nobody listens there. {start}"
        case errno.EACCES | errno.EPERM:
            why = "permission denied. The admin socket is for root and the group otpbridge-admin"
        case errno.EAGAIN | errno.ETIMEDOUT:
            why = "it does not take new connections in time. See its log: journalctl -u otpbridged"
        case errno.ENOTSOCK | errno.EPROTOTYPE:
            why = "that is not a stream socket. Check --run-dir and OTPBRIDGE_RUN_DIR"
        case _:
            why = error.strerror or str(error)
    return UnavailableError(f"cannot reach otpbridged at {path}: {why}")
