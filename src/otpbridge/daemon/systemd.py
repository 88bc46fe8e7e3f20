"""The service manager's side: sockets it hands over, and what it is told (sd_listen_fds(3), sd_notify(3))."""

from __future__ import annotations

import os
import socket

_FIRST = 3


def listening() -> dict[str, socket.socket]:
    """The sockets that the service manager opened for this process, by FileDescriptorName=."""
    if os.environ.pop("LISTEN_PID", "") != str(os.getpid()):
        return {}
    count = int(os.environ.pop("LISTEN_FDS", "0"))
    names = os.environ.pop("LISTEN_FDNAMES", "").split(":")
    found = {}
    for place in range(count):
        sock = socket.socket(fileno=_FIRST + place)
        sock.set_inheritable(False)
        found[names[place] if place < len(names) else str(place)] = sock
    return found


class Notifier:
    """Tells the service manager how the daemon is; does nothing where none listens."""

    def __init__(self) -> None:
        self._address = os.environ.pop("NOTIFY_SOCKET", "")
        pid = os.environ.pop("WATCHDOG_PID", "")
        microseconds = int(os.environ.pop("WATCHDOG_USEC", "0"))
        mine = not pid or pid == str(os.getpid())
        self.watchdog_seconds = microseconds / 1e6 if mine else 0.0
        """How often at least the manager wants to hear of us; 0 if it does not."""

    def tell(self, *states: str) -> None:
        """Send states such as READY=1. A manager that cannot be told is not worth dying for."""
        if not self._address:
            return
        address = "\0" + self._address[1:] if self._address.startswith("@") else self._address
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
            sock.settimeout(1.0)
            try:
                sock.sendto("\n".join(states).encode(), address)
            except OSError:
                return
