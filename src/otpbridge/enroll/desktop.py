"""A screenshot through the desktop portal, the way that Wayland leaves to programs.

org.freedesktop.portal.Screenshot (flatpak.github.io/xdg-desktop-portal/docs). The desktop may ask the user first. It
writes the picture into a file, often among the user's pictures: that file shows the code, so it is to be deleted once
it was read. What is no picture, or somebody else's, is not touched.
"""

from __future__ import annotations

import os
import secrets
import stat
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote_to_bytes, urlsplit

from otpbridge.enroll.picture import LONGEST, libraries
from otpbridge.errors import EnrolError

if TYPE_CHECKING:
    from jeepney import Message  # type: ignore[import-untyped]  # jeepney has no types
    from jeepney.io.blocking import DBusConnection  # type: ignore[import-untyped]

_NAME = "org.freedesktop.portal.Desktop"
_PATH = "/org/freedesktop/portal/desktop"
_REQUEST = "org.freedesktop.portal.Request"
_BUS_SECONDS = 5.0
_PORTAL_SECONDS = 30.0
_USER_SECONDS = 120.0
"""How long the user may look at the question of the desktop."""
_DONE, _CANCELLED = 0, 1
_OTHERWISE = "take a screenshot another way (for example: grim - | otpbridge yubikey scan -)"


def screenshot() -> tuple[bytes, Path]:
    """What is in the file that the desktop wrote, and where that is; it stays. Raises EnrolError, NoLibraryError."""
    with libraries():
        from jeepney import DBusErrorResponse  # noqa: PLC0415 - it may be missing
        from jeepney.io.blocking import open_dbus_connection  # noqa: PLC0415

    if "DBUS_SESSION_BUS_ADDRESS" not in os.environ:
        raise EnrolError(f"there is no D-Bus session here: run this as the user of the desktop, or {_OTHERWISE}")
    try:
        with open_dbus_connection("SESSION", auth_timeout=_BUS_SECONDS) as bus:
            path = _file(_answer(bus))
    except DBusErrorResponse as error:
        raise EnrolError(
            f"the desktop has no portal for screenshots ({error.name}): install xdg-desktop-portal and the part for"
            f" your desktop (for sway: xdg-desktop-portal-wlr and xdg-desktop-portal-gtk), or {_OTHERWISE}"
        ) from error
    except TimeoutError:
        raise EnrolError(f"the desktop did not answer in time; try again, or {_OTHERWISE}") from None
    except (OSError, ValueError, RuntimeError) as error:
        raise EnrolError(f"the D-Bus session does not answer as it should ({error}); {_OTHERWISE}") from error
    try:
        return _read(path), path
    except OSError as error:
        raise EnrolError(f"the desktop's screenshot {path} cannot be read: {error.strerror}") from error


def _answer(bus: DBusConnection) -> dict[str, Any]:
    """What the desktop answered to a request for a screenshot."""
    from jeepney import DBusAddress, MatchRule, message_bus, new_method_call  # noqa: PLC0415 - it may be missing
    from jeepney.io.blocking import Proxy  # noqa: PLC0415

    proxy = Proxy(message_bus, bus, timeout=_BUS_SECONDS)
    rule = MatchRule(type="signal", interface=_REQUEST, member="Response")
    proxy.AddMatch(rule)
    call = new_method_call(
        DBusAddress(_PATH, bus_name=_NAME, interface="org.freedesktop.portal.Screenshot"),
        "Screenshot",
        "sa{sv}",
        ("", {"handle_token": ("s", f"otpbridge_{secrets.token_hex(8)}"), "interactive": ("b", False)}),
    )
    with bus.filter(rule, bufsize=64) as signals:
        reply = bus.send_and_get_reply(call, timeout=_PORTAL_SECONDS)
        (handle,) = _body(reply, "o")
        portal = _sender(reply)
        deadline = time.monotonic() + _USER_SECONDS
        while True:
            signal = bus.recv_until_filtered(signals, timeout=max(0.0, deadline - time.monotonic()))
            if _sender(signal) == portal and _path(signal) == handle:
                break
    status, results = _body(signal, "ua{sv}")
    if status == _CANCELLED:
        raise EnrolError("the screenshot was not allowed")
    if status != _DONE:
        raise EnrolError(f"the desktop took no screenshot; {_OTHERWISE}")
    return {name: value for name, (_signature, value) in results.items()}


def _body(message: Message, signature: str) -> tuple[Any, ...]:
    from jeepney import DBusErrorResponse, HeaderFields, MessageType  # noqa: PLC0415 - it may be missing

    if message.header.message_type is MessageType.error:
        raise DBusErrorResponse(message)
    if message.header.fields.get(HeaderFields.signature) != signature:
        raise EnrolError(f"the desktop answers what cannot be understood; {_OTHERWISE}")
    return tuple(message.body)


def _sender(message: Message) -> str | None:
    from jeepney import HeaderFields  # noqa: PLC0415 - it may be missing

    return message.header.fields.get(HeaderFields.sender)  # type: ignore[no-any-return]  # jeepney has no types


def _path(message: Message) -> str | None:
    from jeepney import HeaderFields  # noqa: PLC0415 - it may be missing

    return message.header.fields.get(HeaderFields.path)  # type: ignore[no-any-return]  # jeepney has no types


def _file(results: dict[str, Any]) -> Path:
    uri = results.get("uri")
    parts = urlsplit(uri) if isinstance(uri, str) else None
    if parts is None or parts.scheme != "file" or parts.netloc not in {"", "localhost"}:
        raise EnrolError(f"the desktop does not say where its screenshot is; {_OTHERWISE}")
    name = unquote_to_bytes(parts.path)
    if b"\0" in name:
        raise EnrolError(f"the desktop does not say where its screenshot is; {_OTHERWISE}")
    return Path(os.fsdecode(name))


def _read(path: Path) -> bytes:
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise EnrolError(f"the desktop's screenshot {path} is no file")
        if status.st_uid != os.geteuid():
            raise EnrolError(f"the desktop's screenshot {path} belongs to somebody else: run this as that user")
        with os.fdopen(fd, "rb", closefd=False) as file:
            return file.read(LONGEST + 1)
    finally:
        os.close(fd)
