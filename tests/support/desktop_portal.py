"""A desktop for tests: a private D-Bus session, and what takes screenshots there in place of xdg-desktop-portal."""

from __future__ import annotations

import shutil
import subprocess
import threading
from contextlib import contextmanager
from pathlib import Path

from jeepney import (
    DBusAddress,
    HeaderFields,
    MessageFlag,
    MessageType,
    message_bus,
    new_error,
    new_method_call,
    new_method_return,
    new_signal,
)
from jeepney.io.blocking import Proxy, open_dbus_connection

_SECONDS = 60.0
_CONFIG = """<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <type>session</type>
  <listen>unix:path={path}</listen>
  <auth>EXTERNAL</auth>
  <policy context="default">
    <allow send_destination="*" eavesdrop="true"/><allow eavesdrop="true"/><allow own="*"/>
  </policy>
</busconfig>
"""


@contextmanager
def session_bus(folder):
    """A D-Bus session of its own; the environment that leads to it."""
    assert shutil.which("dbus-daemon"), "dbus-daemon is missing: apt-get install dbus-daemon"
    config = Path(folder) / "bus.conf"
    config.write_text(_CONFIG.format(path=Path(folder) / "bus"))
    command = ["dbus-daemon", f"--config-file={config}", "--nofork", "--print-address=1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        limit = threading.Timer(_SECONDS, process.kill)
        limit.start()
        try:
            address = process.stdout.readline().strip()
            assert address, "dbus-daemon does not start"
            yield {"DBUS_SESSION_BUS_ADDRESS": address, "WAYLAND_DISPLAY": "wayland-of-the-test"}
        finally:
            limit.cancel()
            process.terminate()


@contextmanager
def portal(bus, uri, *, status=0, error=None, early=False, old=False, noise=None, mute=False):
    """Answer one request for a screenshot with `uri`; the list that is yielded gets the options of the request.

    status: 0 done, 1 the user said no, 2 anything else. error: answer the call with this D-Bus error. early: the
    result comes before the answer to the call. old: the request has a path of the portal's own choice. noise: others
    send results with this URI first, as any program of the session can. mute: there is no result.
    """
    address = bus["DBUS_SESSION_BUS_ADDRESS"]
    asked = []
    with open_dbus_connection(address) as connection, open_dbus_connection(address) as stranger:
        Proxy(message_bus, connection, timeout=_SECONDS).RequestName("org.freedesktop.portal.Desktop")

        def serve():
            while True:
                call = connection.receive(timeout=_SECONDS)
                if call.header.message_type is not MessageType.method_call:
                    continue
                if call.header.fields.get(HeaderFields.member) == "Stop":
                    return
                answer(call)

        def answer(call):
            options = {name: value for name, (_type, value) in call.body[1].items()}
            asked.append(options)
            if error is not None:
                connection.send(new_error(call, error, "s", ("no",)))
                return
            sender = call.header.fields[HeaderFields.sender].lstrip(":").replace(".", "_")
            token = "t0" if old else options["handle_token"]
            handle = f"/org/freedesktop/portal/desktop/request/{sender}/{token}"
            if noise is not None:
                stranger.send(_response(handle, 0, noise))
                connection.send(_response(f"{handle}x", 0, noise))
            steps = [lambda: connection.send(new_method_return(call, "o", (handle,)))]
            if not mute:
                steps.append(lambda: connection.send(_response(handle, status, uri)))
            for step in reversed(steps) if early else steps:
                step()

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield asked
        finally:
            name = DBusAddress("/", bus_name=connection.unique_name, interface="test.Portal")
            stranger.send(_stop(name))
            thread.join()


def _response(handle, status, uri):
    emitter = DBusAddress(handle, interface="org.freedesktop.portal.Request")
    results = {} if uri is None else {"uri": ("s", uri)}
    return new_signal(emitter, "Response", "ua{sv}", (status, results))


def _stop(name):
    message = new_method_call(name, "Stop")
    message.header.flags = MessageFlag.no_reply_expected
    return message
