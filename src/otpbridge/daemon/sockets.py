"""The two sockets of a daemon that no service manager opened: where they are and who may connect."""

from __future__ import annotations

import grp
import os
import socket
import stat
from pathlib import Path

from otpbridge.config import Config
from otpbridge.errors import ConfigError, StoreBusyError
from otpbridge.wire.calls import Limits

VERIFY_MODE = 0o666
ADMIN_MODE = 0o660
BACKLOG = 4096
"""Of both: a burst of logins waits in it. The kernel may hold it down (net.core.somaxconn)."""


def bind(run_dir: Path, admin_group: str) -> dict[str, socket.socket]:
    """Make the folder and both sockets, listening. Raises ConfigError or StoreBusyError.

    `verify` is open to all: the daemon asks the kernel who calls. `admin` is for its owner and, where the system has
    it, the admin group.
    """
    _prepare(run_dir)
    sockets: dict[str, socket.socket] = {}
    for name, mode in (("verify", VERIFY_MODE), ("admin", ADMIN_MODE)):
        sockets[name] = _listen(run_dir / name, mode)
    gid = _gid(admin_group)
    if gid is not None and (os.geteuid() == 0 or gid in os.getgroups()):
        os.chown(run_dir / "admin", -1, gid)
    return sockets


def limits(config: Config, trusted: frozenset[int]) -> Limits:
    """What callers may take on either. `trusted` are the uids that act for many people."""
    bounds = config.limits
    return Limits(
        trusted_uids=trusted,
        connections_per_uid=bounds.connections_per_uid,
        connections_root=bounds.connections_trusted,
        calls_in_flight_per_uid=bounds.calls_per_uid,
        calls_in_flight_root=bounds.calls_trusted,
        idle_seconds=float(bounds.idle),
    )


def _prepare(run_dir: Path) -> None:
    try:
        # 0755 whatever the umask: those who verify have to reach the socket.
        run_dir.mkdir(mode=0o755, parents=True)
        run_dir.chmod(0o755)
    except FileExistsError:
        pass
    except OSError as error:
        raise ConfigError(f"{run_dir}: cannot be made: {error.strerror}. Give another --run-dir") from None
    about = run_dir.stat()
    if not stat.S_ISDIR(about.st_mode) or not os.access(run_dir, os.W_OK | os.X_OK):
        raise ConfigError(
            f"{run_dir}: uid {os.geteuid()} cannot make sockets here. chown it, or give another --run-dir"
        )
    if about.st_mode & 0o002 and not about.st_mode & stat.S_ISVTX:
        raise ConfigError(
            f"{run_dir}: others can write here (mode {stat.S_IMODE(about.st_mode):04o}) and could put a socket of "
            "their own in place of the daemon's; chmod 0755 it"
        )


def _listen(path: Path, mode: int) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        if path.is_socket():
            # The store's lock is held by now: a socket that nobody answers is left over from a crash.
            if _answers(path):
                raise StoreBusyError(f"{path}: another otpbridged answers here. Stop it, or give another --run-dir")
            path.unlink()
        before = os.umask(0o777 & ~mode)
        try:
            sock.bind(str(path))
        finally:
            os.umask(before)
        sock.listen(BACKLOG)
    except OSError as error:
        sock.close()
        raise ConfigError(f"{path}: cannot listen: {error.strerror or error}. Give another --run-dir") from None
    except BaseException:
        sock.close()
        raise
    return sock


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(str(path))
        except OSError:
            return False
    return True


def _gid(group: str) -> int | None:
    try:
        return grp.getgrnam(group).gr_gid
    except KeyError:
        return None
