"""What programs believe to be pcscd: the protocol that libpcsclite 1.9 speaks (version 4.4), over a Unix socket.

A message is a header (length, command) and a structure of the host's byte order; the answer is the structure with its
last field, the return code, filled in. What stands in them was found out from pcsc-lite's headers.
"""

from __future__ import annotations

import asyncio
import itertools
import struct
from collections.abc import Callable
from enum import IntEnum
from pathlib import Path

from virtualkey.key import VirtualKey
from virtualkey.reader import DIRECT, EXCLUSIVE, Failed, Handle, Reader, Result

MAJOR, MINOR = 4, 4
MAX_READERS = 16
MAX_APDU = 65548

_HEADER = struct.Struct("=II")
_READER_STATE = struct.Struct("=128sIIi33s3xII")
_NO_READER = bytes(_READER_STATE.size)
_PRESENT, _POWERED, _NEGOTIABLE = 0x04, 0x10, 0x20
_T1 = 2
_LEAVE = 0


class Message(IntEnum):
    """Commands of the protocol."""

    ESTABLISH_CONTEXT = 0x01
    RELEASE_CONTEXT = 0x02
    CONNECT = 0x04
    RECONNECT = 0x05
    DISCONNECT = 0x06
    BEGIN_TRANSACTION = 0x07
    END_TRANSACTION = 0x08
    TRANSMIT = 0x09
    CONTROL = 0x0A
    STATUS = 0x0B
    CANCEL = 0x0D
    GET_ATTRIB = 0x0F
    SET_ATTRIB = 0x10
    VERSION = 0x11
    GET_READERS_STATE = 0x12
    WAIT_READER_STATE_CHANGE = 0x13
    STOP_WAITING_READER_STATE_CHANGE = 0x14


_FIELDS = {
    Message.ESTABLISH_CONTEXT: struct.Struct("=III"),
    Message.RELEASE_CONTEXT: struct.Struct("=II"),
    Message.CONNECT: struct.Struct("=I128sIIiII"),
    Message.RECONNECT: struct.Struct("=iIIIII"),
    Message.DISCONNECT: struct.Struct("=iII"),
    Message.BEGIN_TRANSACTION: struct.Struct("=iI"),
    Message.END_TRANSACTION: struct.Struct("=iII"),
    Message.TRANSMIT: struct.Struct("=iIIIIIII"),
    Message.CONTROL: struct.Struct("=iIIIII"),
    Message.STATUS: struct.Struct("=iI"),
    Message.CANCEL: struct.Struct("=iI"),
    Message.GET_ATTRIB: struct.Struct("=iI264sII"),
    Message.SET_ATTRIB: struct.Struct("=iI264sII"),
    Message.VERSION: struct.Struct("=iiI"),
}
_SINCE = {Message.TRANSMIT: 3, Message.CONTROL: 2}
"""Which field says how many bytes follow the structure."""
_WAITED = struct.Struct("=II")


class Pcscd:
    """Serves at `path`; handles and contexts are numbered from `first` on and never repeat, over restarts too."""

    def __init__(self, path: Path, first: int = 0x1000):
        self._path = path
        self.numbers = itertools.count(first)
        self._places: list[Reader | None] = [None] * MAX_READERS
        self._clients: set[_Client] = set()
        self._server: asyncio.Server | None = None
        self._waiting_changed = asyncio.Event()
        self.forbidden: str | None = None
        """`service` or `card`: what polkit does not allow."""

    async def start(self) -> None:
        """Serves."""
        if self._server is None:
            loop = asyncio.get_running_loop()
            self._server = await loop.create_unix_server(lambda: _Client(self), self._path)

    async def stop(self) -> None:
        """Goes down, with its clients."""
        if self._server is None:
            return
        server, self._server = self._server, None
        server.close()
        for client in list(self._clients):
            client.cut_off()
        while self._clients:
            await asyncio.gather(*(client.ended.wait() for client in list(self._clients)))
        await server.wait_closed()
        self._path.unlink(missing_ok=True)

    async def plug(self, key: VirtualKey) -> None:
        """A key in the first place that is free."""
        self._place(key)

    def _place(self, key: VirtualKey) -> None:
        place = self._places.index(None)
        reader = Reader(key, f"{key.product} {place:02X} 00", self.numbers)
        self._places[place] = reader
        self._moved()
        watch = asyncio.ensure_future(reader.pulled())
        watch.add_done_callback(lambda _: self._remove(reader))
        self.changed()

    def _remove(self, reader: Reader) -> None:
        if reader not in self._places:
            return
        self._places[self._places.index(reader)] = None
        self._moved()
        self.changed()
        if reader.key.reboots:
            self._place(reader.key)

    def unplug(self, key: VirtualKey, *, quietly: bool = False) -> None:
        """Takes a key out."""
        reader = self.reader_of(key)
        reader.pull(quietly=quietly)
        self._remove(reader)

    def plugged_in(self) -> list[VirtualKey]:
        """The keys that are plugged in."""
        return [reader.key for reader in self._places if reader is not None]

    def reader_of(self, key: VirtualKey) -> Reader:
        """The reader that this key is; raises Failed."""
        for reader in filter(None, self._places):
            if reader.key is key:
                return reader
        raise Failed(Result.READER_UNAVAILABLE)

    def find(self, name: str) -> Reader:
        """The reader of that name; raises Failed."""
        for reader in filter(None, self._places):
            if reader.name == name:
                return reader
        raise Failed(Result.UNKNOWN_READER)

    def states(self) -> bytes:
        """All readers, as they are sent."""
        return b"".join(_NO_READER if reader is None else _state(reader) for reader in self._places)

    def changed(self) -> None:
        """Tells those who wait for changes of readers."""
        for client in self._clients:
            client.tell(Result.SUCCESS)

    def _moved(self) -> None:
        """There is another reader, or one less: nobody knows yet."""
        for client in self._clients:
            client.looks = 0

    def entered(self, client: _Client) -> None:
        """A client came."""
        self._clients.add(client)

    def left(self, client: _Client) -> None:
        """A client went."""
        self._clients.discard(client)

    def cancel(self, context: int) -> None:
        """Ends the waiting of a context; raises Failed."""
        for client in self._clients:
            if context in client.contexts:
                client.tell(Result.CANCELLED)
                return
        raise Failed(Result.INVALID_HANDLE)

    def waiting(self) -> None:
        """The number of clients that wait is another one."""
        self._waiting_changed.set()

    async def waits(self, count: int) -> None:
        """Returns when so many clients wait for changes."""
        while sum(client.waits for client in self._clients) < count:
            self._waiting_changed.clear()
            await self._waiting_changed.wait()

    async def looked(self) -> None:
        """Returns when a client has listed the readers since one came or went, and waits again.

        It has asked twice by then: of two times, one may be where its waiting begins or ends.
        """
        while not any(client.waits and client.looks >= 2 for client in self._clients):
            self._waiting_changed.clear()
            await self._waiting_changed.wait()


def _state(reader: Reader) -> bytes:
    atr = reader.key.atr
    powered = _PRESENT | _POWERED | _NEGOTIABLE
    return _READER_STATE.pack(reader.name.encode(), reader.events, powered, reader.sharing, atr, len(atr), _T1)


class _Client(asyncio.Protocol):
    """A connection of libpcsclite: a context each, in most cases."""

    def __init__(self, pcscd: Pcscd):
        self._pcscd = pcscd
        self._received = asyncio.StreamReader(limit=2 * MAX_APDU)
        self._task: asyncio.Task[None] | None = None
        self._handles: dict[int, tuple[Handle, Reader]] = {}
        self.contexts: set[int] = set()
        self.waits = False
        self.looks = 0
        self.ended = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A program is there."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._pcscd.entered(self)
        if self._pcscd.forbidden == "service":
            transport.close()
            return
        self._task = asyncio.ensure_future(self._serve())
        self._task.add_done_callback(lambda _: transport.close())

    def data_received(self, data: bytes) -> None:
        """Bytes came."""
        self._received.feed_data(data)

    def connection_lost(self, _error: Exception | None) -> None:
        """The program is gone, and with it all that it held."""
        if self._task is not None:
            self._task.cancel()
        held, self._handles = self._handles, {}
        for handle, reader in held.values():
            reader.drop(handle, reset=True)
        self._pcscd.left(self)
        self.ended.set()
        if held:
            self._pcscd.changed()

    def cut_off(self) -> None:
        """Ends the connection."""
        self._transport.abort()

    def tell(self, result: Result) -> None:
        """Wakes it up, if it waits for readers to change."""
        if self.waits:
            self._waits(yes=False)
            self._transport.write(_WAITED.pack(0, result))

    def _waits(self, *, yes: bool) -> None:
        self.waits = yes
        self._pcscd.waiting()

    async def _serve(self) -> None:
        while True:
            length, number = _HEADER.unpack(await self._received.readexactly(_HEADER.size))
            body = await self._received.readexactly(length)
            await self._handle(Message(number), body)

    async def _handle(self, message: Message, body: bytes) -> None:
        match message:
            case Message.GET_READERS_STATE:
                self.looks += 1
                self._transport.write(self._pcscd.states())
            case Message.WAIT_READER_STATE_CHANGE:
                self._transport.write(self._pcscd.states())
                self._waits(yes=True)
            case Message.STOP_WAITING_READER_STATE_CHANGE:
                self.tell(Result.SUCCESS)
            case _:
                await self._call(message, body)

    async def _call(self, message: Message, body: bytes) -> None:
        """A call with a structure; what was asked for comes back in it."""
        structure = _FIELDS[message]
        fields = list(structure.unpack(body))
        more = b""
        if message in _SINCE:
            more = await self._received.readexactly(fields[_SINCE[message]])
        data = b""
        try:
            data = await self._do(message, fields, more)
            fields[-1] = Result.SUCCESS
        except Failed as failed:
            fields[-1] = failed.result
        self._transport.write(structure.pack(*fields) + data)

    async def _do(self, message: Message, fields: list, more: bytes) -> bytes:
        if message is Message.TRANSMIT:
            handle, reader = self._held(fields[0])
            answer = await reader.transmit(handle, more)
            fields[6] = len(answer)
            return answer
        self._CALLS[message](self, fields)
        return b""

    def _held(self, number: int) -> tuple[Handle, Reader]:
        if number not in self._handles:
            raise Failed(Result.INVALID_HANDLE)
        return self._handles[number]

    def _version(self, fields: list) -> None:
        if fields[0] != MAJOR:
            raise Failed(Result.INTERNAL_ERROR)
        fields[:2] = MAJOR, MINOR

    def _establish(self, fields: list) -> None:
        fields[1] = next(self._pcscd.numbers)
        self.contexts.add(fields[1])

    def _release(self, fields: list) -> None:
        if fields[0] not in self.contexts:
            raise Failed(Result.INVALID_HANDLE)
        self.contexts.remove(fields[0])

    def _cancel(self, fields: list) -> None:
        self._pcscd.cancel(fields[0])

    def _connect(self, fields: list) -> None:
        if fields[0] not in self.contexts:
            raise Failed(Result.INVALID_HANDLE)
        if self._pcscd.forbidden == "card":
            raise Failed(Result.SECURITY_VIOLATION)
        reader = self._pcscd.find(fields[1].split(b"\0", 1)[0].decode())
        handle = reader.connect(fields[2])
        self._handles[handle.number] = handle, reader
        fields[4] = handle.number
        fields[5] = 0 if fields[2] == DIRECT else _T1
        self._pcscd.changed()

    def _reconnect(self, fields: list) -> None:
        handle, reader = self._held(fields[0])
        reader.reconnect(handle, fields[1], reset=fields[3] != _LEAVE)
        fields[4] = _T1
        self._pcscd.changed()

    def _disconnect(self, fields: list) -> None:
        handle, reader = self._held(fields[0])
        del self._handles[fields[0]]
        reader.disconnect(handle, reset=fields[1] != _LEAVE)
        self._pcscd.changed()

    def _begin(self, fields: list) -> None:
        handle, reader = self._held(fields[0])
        reader.begin(handle)

    def _end(self, fields: list) -> None:
        handle, reader = self._held(fields[0])
        reader.end(handle, reset=fields[1] != _LEAVE)

    def _status(self, fields: list) -> None:
        handle, reader = self._held(fields[0])
        reader.check(handle)

    def _unsupported(self, fields: list) -> None:
        self._held(fields[0])
        raise Failed(Result.UNSUPPORTED_FEATURE)

    _CALLS: dict[Message, Callable[[_Client, list], None]] = {  # noqa: RUF012
        Message.VERSION: _version,
        Message.ESTABLISH_CONTEXT: _establish,
        Message.RELEASE_CONTEXT: _release,
        Message.CANCEL: _cancel,
        Message.CONNECT: _connect,
        Message.RECONNECT: _reconnect,
        Message.DISCONNECT: _disconnect,
        Message.BEGIN_TRANSACTION: _begin,
        Message.END_TRANSACTION: _end,
        Message.STATUS: _status,
        Message.CONTROL: _unsupported,
        Message.GET_ATTRIB: _unsupported,
        Message.SET_ATTRIB: _unsupported,
    }


class Holder:
    """Another program that holds a card: `how` is exclusive, shared or transaction."""

    def __init__(self, reader: Reader, how: str):
        self._reader = reader
        self._handle = reader.connect(EXCLUSIVE if how == "exclusive" else 2)
        if how == "transaction":
            reader.begin(self._handle)

    def release(self) -> None:
        """Lets go, without a reset."""
        self._reader.drop(self._handle, reset=False)
