"""Which security keys (FIDO2, U2F) are plugged in, and a connection to one of them.

The library's own list leaves out in silence what may not be opened, and its connections wait for ever: for a key that
another program holds, and for one that says nothing.
"""

from __future__ import annotations

import os
import select
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fido2.ctap import CtapDevice
from fido2.hid import CtapHidDevice, get_descriptor
from fido2.hid.base import HidDescriptor, parse_report_descriptor
from fido2.hid.linux import LinuxCtapHidConnection

from otpbridge.errors import DeviceGoneError, NotAllowedError

_SYSTEM = Path("/sys/class/hidraw")
_DEVICES = Path("/dev")

_SILENCE_SECONDS = 5.0
"""A key that works on something says so every 0.1 s (CTAP 2.1 §11.2.9.1.5)."""
_STOPPING_SECONDS = 2.0
"""How long a key that was told to stop may take to say that it has."""
_LOOK_SECONDS = 0.1

_FORBIDDEN = (
    "this user may not use security keys ({names}). On a desktop the user at the screen may; for other users, and for"
    " otpbridged, a udev rule and a drop-in allow it (docs/fido2.md, section Security keys at sudo and login)"
)


@dataclass(frozen=True, slots=True)
class Node:
    """A security key that is plugged in."""

    path: Path
    name: str

    def __str__(self) -> str:
        return self.name or str(self.path)

    def open(self, stop: threading.Event) -> CtapDevice:
        """A connection, on which nothing takes long once `stop` is set. Raises DeviceGoneError, NotAllowedError."""
        try:
            descriptor = get_descriptor(os.fspath(self.path))  # type: ignore[no-untyped-call]  # the library says no types of it
            connection = BoundedConnection(descriptor, stop)
        except PermissionError as error:
            raise NotAllowedError(_FORBIDDEN.format(names=self)) from error
        except (OSError, ValueError) as error:
            raise DeviceGoneError(f"{self} was pulled out") from error
        try:
            return _Device(descriptor, connection, stop)
        except BaseException:
            connection.close()  # type: ignore[no-untyped-call]  # the library says no types of it
            raise


def plugged(system: Path = _SYSTEM, devices: Path = _DEVICES) -> tuple[Node, ...]:
    """The security keys that are plugged in and may be used. Raises NotAllowedError where there are only others."""
    found = [Node(devices / node.name, _name(node)) for node in sorted(system.glob("hidraw*")) if _is_key(node)]
    usable = tuple(node for node in found if os.access(node.path, os.R_OK | os.W_OK))
    if found and not usable:
        raise NotAllowedError(_FORBIDDEN.format(names=", ".join(map(str, found))))
    return usable


def _is_key(node: Path) -> bool:
    """What a device is for stands where everyone may read it, whoever may open the device."""
    try:
        parse_report_descriptor((node / "device/report_descriptor").read_bytes())
    except (OSError, ValueError, IndexError):
        return False
    return True


def _name(node: Path) -> str:
    try:
        lines = (node / "device/uevent").read_text(errors="replace").splitlines()
    except OSError:
        return ""
    names = (line.removeprefix("HID_NAME=") for line in lines if line.startswith("HID_NAME="))
    return "".join(each for each in next(names, "") if each.isprintable())


class BoundedConnection(LinuxCtapHidConnection):
    """Packets to and from a key; reading does not outlast a key that says nothing."""

    def __init__(
        self, descriptor: HidDescriptor, stop: threading.Event, clock: Callable[[], float] = time.monotonic
    ) -> None:
        super().__init__(descriptor)  # type: ignore[no-untyped-call]  # the library says no types of it
        self._stop = stop
        self._clock = clock

    def read_packet(self) -> bytes:
        """The next packet. Raises OSError."""
        since = self._clock()
        while not select.select([self.handle], [], [], _LOOK_SECONDS)[0]:
            patience = _STOPPING_SECONDS if self._stop.is_set() else _SILENCE_SECONDS
            if self._clock() - since > patience:
                raise TimeoutError("the key says nothing")
        packet: bytes = super().read_packet()  # type: ignore[no-untyped-call]  # the library says no types of it
        if not packet:
            raise OSError("the key was pulled out")
        return packet


class _Device(CtapHidDevice):
    """A key each command to which ends when `stop` is set, also those with which the library gives no event."""

    def __init__(self, descriptor: HidDescriptor, connection: BoundedConnection, stop: threading.Event) -> None:
        self._stop = stop
        super().__init__(descriptor, connection)

    def call(
        self, cmd: int, data: bytes = b"", event: threading.Event | None = None, on_keepalive: Any = None
    ) -> bytes:
        """See fido2.ctap."""
        return super().call(cmd, data, event or self._stop, on_keepalive)
