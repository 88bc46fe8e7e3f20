"""One client's connection: frames in, replies out in order, one call at a time."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from otpbridge.wire.calls import Call, Host, Peer, PeerGoneError, VarlinkError
from otpbridge.wire.framing import (
    BAD_FRAME,
    FrameSplitter,
    FrameTooLongError,
    decode_call,
    encode_reply,
)
from otpbridge.wire.messages import Message
from otpbridge.wire.shares import CALL
from otpbridge.wire.stream import Stream

if TYPE_CHECKING:
    from otpbridge.wire.server import Server

log = logging.getLogger(__name__)

_FRAMES_PER_TURN = 16
"""How many pipelined calls of one connection are answered before the others get a turn."""


class Connection:
    """One client. `state` is the handlers' own: what they keep there ends with the connection.

    The peer is not read from while a frame of it waits behind a running call or an unread reply, so what a peer can
    make us hold is one read, one frame and one reply.
    """

    __slots__ = (
        "_active_at",
        "_call",
        "_callbacks",
        "_closed",
        "_fd",
        "_flushed",
        "_future",
        "_half_closed",
        "_held",
        "_limit",
        "_loop",
        "_next",
        "_out",
        "_partial_since",
        "_reading",
        "_server",
        "_shares",
        "_splitter",
        "_stream",
        "_winding_down",
        "_write_since",
        "peer",
        "state",
    )

    def __init__(self, server: Server, loop: asyncio.AbstractEventLoop, stream: Stream, peer: Peer | Host) -> None:
        self.peer = peer
        self.state: dict[str, Any] = {}
        self._server = server
        self._loop = loop
        self._stream = stream
        self._fd = stream.fileno()
        self._limit = server.service.limits.frame_bytes
        self._splitter = FrameSplitter(self._limit)
        self._next: bytes | None = None
        self._out = b""
        self._call: Call | None = None
        self._future: asyncio.Future[Any] | None = None
        self._flushed: asyncio.Future[None] | None = None
        self._callbacks: list[Callable[[], None]] = []
        self._reading = False
        self._half_closed = False
        self._shares = server.shares_of(peer)
        self._held = False
        self._winding_down = False
        self._closed = False
        self._active_at = self._partial_since = self._write_since = server.now

    def on_close(self, callback: Callable[[], None]) -> None:
        """Call this once when the connection has ended, whatever ended it."""
        self._callbacks.append(callback)

    # --- for the server ---

    def start(self) -> None:
        """Serve what the peer has sent already, then wait for more."""
        self._resume_reading()
        self._readable()

    def wind_down(self) -> None:
        """Answer what is being judged and what has arrived whole, then close."""
        if self._call is None and not self._out:
            self._readable()
        self._winding_down = True
        self._pump()

    def close(self) -> None:
        """End the connection now. A running call is cancelled."""
        if self._closed:
            return
        self._closed = True
        self._pause_reading()
        if self._out:
            self._loop.remove_writer(self._fd)
            self._out = b""
        self._stream.close()
        self._server.gone(self)
        if self._future is not None:
            self._future.cancel()
        if self._flushed is not None and not self._flushed.done():
            self._flushed.cancel()
        callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            try:
                callback()
            except Exception:
                log.exception("a callback at the end of a connection failed")

    def check_deadlines(self) -> None:
        """Close a connection that overstays: idle, half a frame, a reply that is not read, a peer that is gone."""
        now, limits = self._server.now, self._server.service.limits
        if self._out:
            overdue = now - self._write_since > limits.write_seconds
        elif self._call is not None:
            # Nobody reads now, so nobody has seen the end: ask the kernel.
            overdue = not self._reading and self._stream.is_gone()
        elif self._held:
            # It is us who do not read.
            overdue = False
        elif len(self._splitter) and now - self._partial_since > limits.frame_seconds:
            overdue = True
        else:
            overdue = now - self._active_at > limits.idle_seconds
        if overdue:
            self.close()

    # --- reading ---

    def _resume_reading(self) -> None:
        if not self._reading and not self._half_closed:
            self._reading = True
            self._loop.add_reader(self._fd, self._readable)

    def _pause_reading(self) -> None:
        if self._reading:
            self._reading = False
            self._loop.remove_reader(self._fd)

    def _readable(self) -> None:
        try:
            self._read()
        except MemoryError:
            # Without an end to it, it would be readable again and again. And what it has taken comes back.
            self.close()

    def _read(self) -> None:
        if self._closed or self._has_to_wait():
            return
        begun = time.thread_time() if self._shares is not None else 0.0
        try:
            data = self._stream.recv(self._limit)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            self.close()
            return
        if not data:
            self._end_of_input()
            return
        self._active_at = self._server.now
        if self._call is None and not len(self._splitter) and data.find(0) == len(data) - 1:
            self._handle(data[:-1])  # the usual case: one whole frame, nothing before it
            if self._out:
                self._pause_reading()
            return
        if not len(self._splitter):
            self._partial_since = self._server.now
        self._splitter.feed(data)
        if self._shares is not None:
            self._shares.charge(self.peer.key, time.thread_time() - begun, time.monotonic())
        self._pump()

    def _end_of_input(self) -> None:
        """The peer has closed, or has only finished writing (shutdown(2), as socat does) and waits for replies."""
        if self._stream.is_gone():
            self.close()
            return
        self._pause_reading()
        self._half_closed = True
        self._pump()

    def _pump(self) -> None:
        """Handle the frames that wait, as far as replies can be sent, and read on when none is left."""
        for _ in range(_FRAMES_PER_TURN):
            if self._closed:
                return
            if self._next is None:
                try:
                    self._next = self._splitter.take()
                except FrameTooLongError:
                    self.close()
                    return
                if self._next is None:
                    self._nothing_waits()
                    return
            if self._call is not None or self._out:
                self._pause_reading()
                return
            if self._has_to_wait():
                return
            frame, self._next = self._next, None
            self._partial_since = self._server.now
            self._handle(frame)
        if not self._closed:
            self._pause_reading()
            self._loop.call_soon(self._pump)

    def _nothing_waits(self) -> None:
        if self._out:
            self._pause_reading()
        elif self._call is None and (self._half_closed or self._winding_down):
            self.close()
        else:
            self._resume_reading()

    # --- taking turns ---

    def _has_to_wait(self) -> bool:
        """Whether the caller has had its share for now; then it is read from again when its turn comes."""
        if self._shares is None:
            return False
        if not self._held:
            wait = self._shares.wait(self.peer.key, time.monotonic())
            if not wait:
                return False
            self._held = True
            self._loop.call_later(wait, self._take_turn)
        self._pause_reading()
        return True

    def _take_turn(self) -> None:
        self._held = False
        self._pump()

    # --- calls ---

    def _handle(self, frame: bytes) -> None:
        """Answer one call, or begin it."""
        if self._shares is None:
            self._serve(frame)
            return
        # Not by the clock on the wall: what others use of the machine meanwhile is not the caller's.
        begun = time.thread_time()
        self._serve(frame)
        used = time.thread_time() - begun + (0.0 if self._call is None else CALL)
        self._shares.charge(self.peer.key, used, time.monotonic())

    def _serve(self, frame: bytes) -> None:
        server = self._server
        try:
            envelope = decode_call(frame)
        except BAD_FRAME:
            self.close()
            return
        call = self._call = Call(self, envelope.method, more=bool(envelope.more), oneway=bool(envelope.oneway))
        try:
            if not server.may_call(self.peer):
                self._answer_error(call, server.service.busy(envelope.method))
                return
            method, parameters = server.service.find(envelope)
        except VarlinkError as error:
            self._answer_error(call, error)
            return
        except BAD_FRAME:
            self.close()
            return
        try:
            result = method.handler(call, parameters)
        except VarlinkError as error:
            self._answer_error(call, error)
        except Exception as error:  # noqa: BLE001 — whatever a handler raises is logged and refused
            self._answer_failure(call, error)
        else:
            if isinstance(result, Message):
                self._answer(call, result)
            else:
                future = self._future = asyncio.ensure_future(result, loop=self._loop)
                server.call_waits(self.peer, future)
                future.add_done_callback(self._finished)

    def _finished(self, future: asyncio.Future[Message]) -> None:
        self._server.call_done(self.peer, future)
        try:
            self._conclude(future)
        except MemoryError:
            # Nobody would answer any more.
            self.close()

    def _conclude(self, future: asyncio.Future[Message]) -> None:
        call, self._future = self._call, None
        cancelled = future.cancelled()
        error = None if cancelled else future.exception()
        if self._closed or call is None:
            return
        if cancelled:
            self._answer_failure(call, asyncio.CancelledError())
        elif error is None:
            self._answer(call, future.result())
        elif isinstance(error, VarlinkError):
            self._answer_error(call, error)
        else:
            self._answer_failure(call, error)
        self._pump()

    async def send_continuing(self, call: Call, reply: Message) -> None:
        """Send a reply that is not the last one; waits until the kernel has taken it."""
        if self._closed or self._call is not call:
            raise PeerGoneError("the peer has closed its connection")
        if call.oneway:
            return
        self._write(encode_reply(reply, continues=True))
        if self._out:
            if self._flushed is None or self._flushed.done():
                self._flushed = self._loop.create_future()
            await asyncio.shield(self._flushed)
        if self._closed:
            raise PeerGoneError("the peer has closed its connection")

    def _answer(self, call: Call, reply: Message) -> None:
        try:
            frame = encode_reply(reply)
        except (FrameTooLongError, TypeError, ValueError) as error:
            self._answer_failure(call, error)
            return
        self._end_call(call, frame)

    def _answer_error(self, call: Call, error: VarlinkError) -> None:
        self._end_call(call, self._server.service.error_frame(call.method, error))

    def _answer_failure(self, call: Call, error: BaseException) -> None:
        answer = self._server.service.failed(call, error)
        if answer is None:
            self.close()
        else:
            self._answer_error(call, answer)

    def _end_call(self, call: Call, frame: bytes) -> None:
        self._call = None
        self._active_at = self._partial_since = self._server.now
        if not call.oneway:
            self._write(frame)

    # --- writing ---

    def _write(self, frame: bytes) -> None:
        if self._closed:
            return
        if not self._out:
            try:
                sent = self._stream.send(frame)
            except (BlockingIOError, InterruptedError):
                sent = 0
            except OSError:
                self.close()
                return
            if sent == len(frame):
                return
            frame = frame[sent:]
            self._write_since = self._server.now
            self._loop.add_writer(self._fd, self._writable)
        self._out += frame

    def _writable(self) -> None:
        try:
            sent = self._stream.send(self._out)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            self.close()
            return
        self._out = self._out[sent:]
        if self._out:
            return
        self._loop.remove_writer(self._fd)
        self._active_at = self._server.now
        if self._flushed is not None and not self._flushed.done():
            self._flushed.set_result(None)
        if self._call is None:
            self._pump()
