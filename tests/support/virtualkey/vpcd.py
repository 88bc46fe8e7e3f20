"""Virtual keys behind a real pcscd, by the driver of vsmartcard: the process behind a `RealRig`.

    unshare --user --map-root-user --mount --net python -m virtualkey.vpcd FOLDER

serves as virtualkey.service does, with pcscd's socket at FOLDER/run/pcscd.comm. The driver listens on every address,
and pcscd keeps its files in /run/pcscd: hence the namespaces. It has two slots, and both are to be filled: an empty
one is a YubiKey that does not answer.

https://frankmorgner.github.io/vsmartcard/virtualsmartcard/api.html: a message is two bytes of length and an APDU, or
a single byte of control.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from virtualkey.key import VirtualKey
from virtualkey.service import serve

PCSCD = Path("/usr/sbin/pcscd")
DRIVER = Path("/usr/lib/pcsc/drivers/serial/libifdvpcd.so")

_PORT = 0x8C7B
_LENGTH = 2

_READERS = f"""
FRIENDLYNAME "Yubico YubiKey OTP+FIDO+CCID"
DEVICENAME /dev/null:{_PORT:#X}
LIBPATH {DRIVER}
CHANNELID {_PORT:#X}
"""


class RealPcscd:
    """The real daemon; it cannot be told to hold keys for others or to forbid them."""

    def __init__(self, folder: Path):
        self._folder = folder
        self._process: asyncio.subprocess.Process | None = None
        self._cards: dict[VirtualKey, asyncio.Task[None]] = {}
        self.forbidden: str | None = None

    async def start(self) -> None:
        """Starts it, with readers and no keys."""
        if self._process is not None:
            return
        readers = self._folder / "readers"
        readers.mkdir(exist_ok=True)
        (readers / "vpcd").write_text(_READERS)
        self._process = await asyncio.create_subprocess_exec(
            *(PCSCD, "--foreground", "--info", "--config", readers),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        said = b""
        while b"daemon ready" not in said:
            line = await self._process.stdout.readline()
            if not line:
                raise RuntimeError(f"pcscd does not start: {said.decode()}")
            said += line

    async def stop(self) -> None:
        """Ends it; the keys stay what they are, but are out."""
        for key in list(self._cards):
            self.unplug(key)
        if self._process is not None:
            process, self._process = self._process, None
            process.terminate()
            await process.communicate()

    async def plug(self, key: VirtualKey) -> None:
        """Returns when pcscd has the card under power."""
        key.plug_in()
        reading, writing = await asyncio.open_connection("127.0.0.1", _PORT + len(self._cards))
        powered = asyncio.Event()
        self._cards[key] = asyncio.ensure_future(_serve(key, reading, writing, powered))
        await powered.wait()

    def unplug(self, key: VirtualKey, *, quietly: bool = False) -> None:
        """The card is out; the reader stays, as readers of this driver do."""
        self._cards.pop(key).cancel()

    def plugged_in(self) -> list[VirtualKey]:
        """The keys that are plugged in."""
        return list(self._cards)


async def _serve(
    key: VirtualKey, reading: asyncio.StreamReader, writing: asyncio.StreamWriter, powered: asyncio.Event
) -> None:
    try:
        while True:
            message = await reading.readexactly(int.from_bytes(await reading.readexactly(_LENGTH), "big"))
            match message:
                case b"\0" | b"\2":  # power off, reset
                    key.reset()
                case b"\1":  # power on
                    key.reset()
                    powered.set()
                case b"\4":  # the answer to a reset is asked for
                    _send(writing, key.atr)
                case _:
                    _send(writing, await key.transmit(message))
    except asyncio.IncompleteReadError:
        return
    finally:
        writing.close()


def _send(writing: asyncio.StreamWriter, data: bytes) -> None:
    writing.write(len(data).to_bytes(_LENGTH, "big") + data)


async def _prepare(folder: Path) -> None:
    """What is this process's own: the loopback interface, and /run."""
    (folder / "run").mkdir(exist_ok=True)
    for command in (
        ("ip", "link", "set", "lo", "up"),
        ("mount", "-t", "tmpfs", "none", "/run"),
        ("mkdir", "/run/pcscd"),
        ("mount", "--bind", folder / "run", "/run/pcscd"),
    ):
        process = await asyncio.create_subprocess_exec(*command)
        if await process.wait():
            raise RuntimeError(f"{command[0]} failed")


async def _main(folder: Path) -> None:
    await _prepare(folder)
    await serve(RealPcscd(folder), folder)


if __name__ == "__main__":
    asyncio.run(_main(Path(sys.argv[1])))
