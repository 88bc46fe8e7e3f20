"""Soft keys as files that speak CTAPHID packets (CTAP 2.1 §11.2), as /dev/hidraw of a real key does.

with HidKey(key) as hid:
    os.open(hid.path, os.O_RDWR)      # packets of 64 bytes, those to the key with a report number before them
"""

from __future__ import annotations

import os
import pty
import select
import struct
import threading
import tty
from typing import Self

from fido2.ctap import STATUS, CtapError
from fido2.hid import CAPABILITY, CTAPHID
from softkey import SoftKey

PACKET = 64
CHANNEL = 0x0A0B0C0D
_INIT = 0x80
_BROADCAST = 0xFFFFFFFF
_KEEPALIVE_SECONDS = 0.05


class HidKey:
    """One soft key behind a pseudo-terminal. `silent`: it takes packets and never answers; `busy`: so many times it
    says that another channel has it."""

    def __init__(self, key: SoftKey, *, silent: bool = False, busy: int = 0) -> None:
        self.key = key
        self.silent = silent
        self.busy = busy
        self._near, self._far = pty.openpty()
        tty.setraw(self._near)
        tty.setraw(self._far)
        self.path = os.ttyname(self._far)
        self._end, self._ending = os.pipe()
        self._sending = threading.Lock()
        self._stop = threading.Event()
        self._calls: list[threading.Thread] = []
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._ending)
        self._stop.set()
        self._thread.join()
        for call in self._calls:
            call.join()
        for end in (self._near, self._far, self._end):
            os.close(end)

    def _run(self) -> None:
        waiting = b""
        message = b""
        command, length = 0, 0
        while self._near in select.select([self._near, self._end], [], [])[0]:
            waiting += os.read(self._near, 4096)
            while len(waiting) > PACKET:
                packet, waiting = waiting[1 : PACKET + 1], waiting[PACKET + 1 :]
                if packet[4] & _INIT:
                    command, (length,) = packet[4] & ~_INIT, struct.unpack_from(">H", packet, 5)
                    message = packet[7:]
                else:
                    message += packet[5:]
                if len(message) >= length:
                    self._message(packet[:4], command, message[:length])

    def _message(self, channel: bytes, command: int, data: bytes) -> None:
        if self.silent:
            return
        if command == CTAPHID.INIT:
            capabilities = CAPABILITY.WINK | (0 if self.key.u2f_only else CAPABILITY.CBOR)
            self._send(channel, command, data + struct.pack(">IBBBBB", CHANNEL, 2, 5, 7, 1, capabilities))
        elif command == CTAPHID.CANCEL:
            self._stop.set()
        elif self.busy:
            self.busy -= 1
            self._send(channel, CTAPHID.ERROR, bytes([CtapError.ERR.CHANNEL_BUSY]))
        else:
            self._stop = threading.Event()
            self._calls.append(threading.Thread(target=self._call, args=(channel, command, data, self._stop)))
            self._calls[-1].start()

    def _call(self, channel: bytes, command: int, data: bytes, stop: threading.Event) -> None:
        done = threading.Event()
        alive = threading.Thread(target=self._keep_alive, args=(channel, done))
        try:
            try:
                answer = self.key.call(command, data, stop, lambda _status: alive.start())
            finally:
                done.set()
                if alive.ident is not None:
                    alive.join()
        except CtapError as error:
            command, answer = CTAPHID.ERROR, bytes([error.code])
        self._send(channel, command, answer)

    def _keep_alive(self, channel: bytes, done: threading.Event) -> None:
        while not done.is_set():
            self._send(channel, CTAPHID.KEEPALIVE, bytes([STATUS.UPNEEDED]))
            done.wait(_KEEPALIVE_SECONDS)

    def _send(self, channel: bytes, command: int, data: bytes) -> None:
        first = PACKET - 7
        packets = [channel + struct.pack(">BH", command | _INIT, len(data)) + data[:first]]
        rest = data[first:]
        size = PACKET - 5
        packets += [
            channel + bytes([number]) + rest[start : start + size]
            for number, start in enumerate(range(0, len(rest), size))
        ]
        with self._sending:
            for packet in packets:
                os.write(self._near, packet.ljust(PACKET, b"\0"))
