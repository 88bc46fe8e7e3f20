"""Which keys are plugged in, and a connection to one of them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager

from ykman.pcsc import ScardYubiKeyDevice, list_devices
from yubikit.core import TRANSPORT
from yubikit.core.smartcard import SmartCardConnection
from yubikit.management import CAPABILITY, DeviceInfo
from yubikit.support import get_name, read_info

from otpbridge.devices.connection import SERVICE_SECONDS, connect, spoken
from otpbridge.devices.deadline import within
from otpbridge.devices.keys import Found, Key, Unreadable
from otpbridge.errors import DeviceError, NoDeviceError, NotAllowedError, ReaderServiceError


def look() -> Found:
    """Every key that is plugged in.

    Raises ReaderServiceError or NotAllowedError; a key that cannot be read is among the unreadable.
    """
    keys: list[Key] = []
    unreadable: list[Unreadable] = []
    for device in _devices():
        try:
            with closing(connect(device.reader.name)) as connection:
                keys.append(_read(device, connection))
        except (ReaderServiceError, NotAllowedError):
            raise
        except DeviceError as error:
            unreadable.append(Unreadable(device.reader.name, error))
    return Found(tuple(keys), tuple(unreadable))


def at(reader: str) -> Key:
    """The key that is what pcscd calls this. Raises DeviceError."""
    for device in _devices():
        if device.reader.name == reader:
            with closing(connect(reader)) as connection:
                return _read(device, connection)
    raise NoDeviceError(f"{reader} is no longer plugged in")


@contextmanager
def opened(key: Key, *, elsewhere: bool = True) -> Iterator[SmartCardConnection]:
    """A connection to this very key, wherever it is plugged in now. Raises DeviceError.

    Not `elsewhere`: only where it was found, so that no other key is touched to look for it.
    """
    devices = sorted(_devices(), key=lambda device: device.reader.name != key.reader)
    if not elsewhere:
        devices = [device for device in devices if device.reader.name == key.reader]
    in_the_way: DeviceError | None = None
    for device in devices:
        try:
            connection = connect(device.reader.name)
        except DeviceError as error:
            in_the_way = in_the_way or error
            continue
        with closing(connection):
            try:
                read = _read(device, connection)
            except DeviceError as error:
                in_the_way = in_the_way or error
                continue
            if (read.serial, read.firmware) == (key.serial, key.firmware):
                yield connection
                return
    raise in_the_way or NoDeviceError(f"{key} is no longer plugged in")


def _devices() -> list[ScardYubiKeyDevice]:
    with spoken("pcscd"):
        return within(SERVICE_SECONDS, list_devices)


def _read(device: ScardYubiKeyDevice, connection: SmartCardConnection) -> Key:
    with spoken(device.reader.name):
        info = read_info(connection, device.pid)
        return Key(
            serial=info.serial,
            model=get_name(info, device.pid.yubikey_type if device.pid else None),
            firmware=(info.version.major, info.version.minor, info.version.patch),
            form_factor=str(info.form_factor),
            oath=_enabled(info, CAPABILITY.OATH),
            reader=device.reader.name,
        )


def _enabled(info: DeviceInfo, application: CAPABILITY) -> bool:
    return bool(info.config.enabled_capabilities.get(TRANSPORT.USB, CAPABILITY(0)) & application)
