"""The process behind a rig: pcscd's stand-in with its keys, and a socket over which the test pulls the strings.

    python -m virtualkey.service FOLDER

serves FOLDER/pcscd.comm and FOLDER/control until its standard input ends. A request on the control socket is a line
of JSON [name, {arguments}], the reply a line of JSON [result, error].
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Awaitable
from pathlib import Path

from virtualkey import otp
from virtualkey.key import VirtualKey
from virtualkey.management import FORM_FACTORS, OATH, OTP
from virtualkey.oath import ALGORITHMS, KINDS, MINIMUM_SECRET, Stored
from virtualkey.pcscd import Holder, Pcscd
from virtualkey.reader import Cut, Reader
from virtualkey.touch import Finger

_KIND_NAMES = {number: name for name, number in KINDS.items()}
_ALGORITHM_NAMES = {number: name for name, number in ALGORITHMS.items()}


class Strings:
    """What the test may do: a method for each request, with JSON in and out."""

    def __init__(self, pcscd: Pcscd):
        self._pcscd = pcscd
        self._keys: list[VirtualKey] = []
        self._holders: list[Holder | None] = []

    async def reset(self) -> None:
        """As in the beginning: no keys, nothing held or forbidden. What is still connected may go quietly."""
        for key in self._pcscd.plugged_in():
            self._pcscd.unplug(key, quietly=True)
        self._keys, self._holders = [], []
        self._pcscd.forbidden = None
        await self._pcscd.start()

    async def start(self) -> None:
        await self._pcscd.start()

    async def stop(self) -> None:
        await self._pcscd.stop()

    def forbid(self, what: str | None) -> None:
        self._pcscd.forbidden = what

    async def waits(self, count: int) -> None:
        await self._pcscd.waits(count)

    async def looked(self) -> None:
        await self._pcscd.looked()

    def make(
        self,
        *,
        serial: int | None,
        version: list[int],
        form_factor: str,
        nfc: bool,
        oath: bool,
        otp: bool,
        capacity: int | None,
    ) -> int:
        without = OATH * (not oath) | OTP * (not otp)
        major, minor, patch = version
        key = VirtualKey(
            serial,
            (major, minor, patch),
            form_factor=FORM_FACTORS[form_factor],
            has_nfc=nfc,
            without=without,
            capacity=capacity,
        )
        self._keys.append(key)
        return len(self._keys) - 1

    async def insert(self, key: int) -> None:
        await self._pcscd.plug(self._keys[key])

    def unplug(self, key: int) -> None:
        self._pcscd.unplug(self._keys[key])

    def pull(self, key: int, after: int, at: str | None, executed: bool) -> None:
        self._reader(key).cut = Cut(after, at, executed)

    def hold(self, key: int, how: str) -> int:
        self._holders.append(Holder(self._reader(key), how))
        self._pcscd.changed()
        return len(self._holders) - 1

    def release(self, holder: int) -> None:
        held, self._holders[holder] = self._holders[holder], None
        if held is not None:
            held.release()
            self._pcscd.changed()

    def _reader(self, key: int) -> Reader:
        return self._pcscd.reader_of(self._keys[key])

    def reader(self, key: int) -> str | None:
        return self._reader(key).name if self._keys[key] in self._pcscd.plugged_in() else None

    def credentials(self, key: int) -> list:
        return [
            {
                "id": name.hex(),
                "secret": stored.secret.hex(),
                "kind": _KIND_NAMES[stored.kind & 0xF0],
                "algorithm": _ALGORITHM_NAMES[stored.kind & 0x0F],
                "digits": stored.digits,
                "touch": stored.touch,
                "counter": stored.counter,
            }
            for name, stored in self._keys[key].oath.credentials.items()
        ]

    def add(
        self,
        key: int,
        *,
        id: str,  # noqa: A002
        secret: str,
        kind: str,
        algorithm: str,
        digits: int,
        touch: bool,
        counter: int,
    ) -> None:
        padded = bytes.fromhex(secret).ljust(MINIMUM_SECRET, b"\0")
        stored = Stored(
            KINDS[kind] | ALGORITHMS[algorithm], digits=digits, secret=padded, touch=touch, counter=counter
        )
        self._keys[key].oath.put(bytes.fromhex(id), stored)

    def fill(self, key: int, leave: int) -> None:
        oath = self._keys[key].oath
        sha1 = KINDS["totp"] | ALGORITHMS["sha1"]
        for number in range(oath.capacity - len(oath.credentials) - leave):
            name = f"Other:somebody{number}@example.org"
            stored = Stored(sha1, digits=6, secret=bytes([number] * 20), touch=False, counter=0)
            oath.put(name.encode(), stored)

    def password(self, key: int, text: str | None) -> None:
        self._keys[key].oath.set_password(text)

    def locked(self, key: int) -> bool:
        return self._keys[key].oath.locked

    def slots(self, key: int) -> dict:
        return {number: slot and _slot(slot) for number, slot in self._keys[key].otp.slots.items()}

    def program(
        self,
        key: int,
        slot: int,
        *,
        kind: str,
        fixed: str,
        private_id: str,
        secret: str,
        access_code: str,
        digits: int,
    ) -> None:
        public, private, seed, code = (bytes.fromhex(text) for text in (fixed, private_id, secret, access_code))
        if kind == "yubiotp":
            programmed = otp.yubico_otp(public, private, seed, code)
        else:
            programmed = otp.hotp(public, seed, code, digits)
        self._keys[key].otp.program(slot, programmed)

    def press(self, key: int, slot: int) -> str:
        programmed = self._keys[key].otp.slots[slot]
        return programmed.press() if programmed is not None else ""

    def touch(self, key: int, when: str) -> None:
        self._keys[key].contact.put(Finger(when))

    async def blinks(self, key: int) -> None:
        await self._keys[key].contact.blinks()

    def log(self, key: int) -> list:
        return [[entry.applet, entry.name, entry.length, entry.status] for entry in self._keys[key].log]


def _slot(slot: otp.Slot) -> dict:
    return {
        "kind": slot.kind,
        "fixed": slot.fixed.hex(),
        "private_id": slot.uid.hex(),
        "secret": slot.secret.hex(),
        "access_code": "" if slot.access_code == otp.NO_ACCESS_CODE else slot.access_code.hex(),
        "digits": slot.digits,
        "enter": slot.enters,
    }


async def _answer(strings: Strings, reading: asyncio.StreamReader, writing: asyncio.StreamWriter) -> None:
    try:
        name, arguments = json.loads(await reading.readline())
        try:
            result = getattr(strings, name)(**arguments)
            if isinstance(result, Awaitable):
                result = await result
            reply = [result, None]
        except Exception as error:  # noqa: BLE001  # whatever it is, it is the test that must see it
            reply = [None, f"{type(error).__name__}: {error}"]
        writing.write(json.dumps(reply).encode() + b"\n")
        await writing.drain()
    finally:
        writing.close()


async def serve(pcscd: Pcscd, folder: Path) -> None:
    """Serves what is behind this pcscd until standard input ends."""
    strings = Strings(pcscd)
    await pcscd.start()
    control = await asyncio.start_unix_server(
        lambda reading, writing: _answer(strings, reading, writing), folder / "control"
    )
    async with control:
        print("ready", flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
        await pcscd.stop()


if __name__ == "__main__":
    asyncio.run(serve(Pcscd(Path(sys.argv[1], "pcscd.comm")), Path(sys.argv[1])))
