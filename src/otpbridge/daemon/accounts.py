"""Which groups a system account is in, told apart from not being able to find out.

Python's own `pwd` and `grp` say "no such account" for a directory that is down too; a policy must not.
"""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Iterable

from otpbridge.errors import OtpBridgeError


class LookupFailedError(OtpBridgeError):
    """The system's account database could not be asked."""


class _Passwd(ctypes.Structure):
    _fields_ = (
        ("pw_name", ctypes.c_char_p),
        ("pw_passwd", ctypes.c_char_p),
        ("pw_uid", ctypes.c_uint32),
        ("pw_gid", ctypes.c_uint32),
        ("pw_gecos", ctypes.c_char_p),
        ("pw_dir", ctypes.c_char_p),
        ("pw_shell", ctypes.c_char_p),
    )


class _Group(ctypes.Structure):
    _fields_ = (
        ("gr_name", ctypes.c_char_p),
        ("gr_passwd", ctypes.c_char_p),
        ("gr_gid", ctypes.c_uint32),
        ("gr_mem", ctypes.POINTER(ctypes.c_char_p)),
    )


_LARGEST = 1 << 22
"""Bytes: a group of a hundred thousand members."""
# What getpwnam_r(3) may say instead of 0 when there is no such name.
_ABSENT = frozenset({0, errno.ENOENT, errno.ESRCH})

_libc = ctypes.CDLL(None, use_errno=True)


def member_of(user: str, groups: Iterable[str]) -> str | None:
    """The first of some groups that an account is in; None where there is no such account or it is in none.

    May take long where accounts come from a directory. Raises LookupFailedError, also for a group that is not there:
    whoever names it in the configuration means something by it.
    """
    account = _Passwd()
    if not _find("getpwnam_r", user, account):
        return None
    try:
        ids = set(os.getgrouplist(user, account.pw_gid))
    except OSError as error:
        raise LookupFailedError(f"the groups of {user} cannot be found out: {error.strerror}") from None
    for name in groups:
        group = _Group()
        if not _find("getgrnam_r", name, group):
            raise LookupFailedError(f"there is no system group {name}; create it, or take it out of exempt_groups")
        if group.gr_gid in ids:
            return name
    return None


def _find(function: str, name: str, entry: ctypes.Structure) -> bool:
    """Look a name up; says whether it is there. Raises LookupFailedError."""
    size = 1 << 12
    while size <= _LARGEST:
        buffer = ctypes.create_string_buffer(size)
        found = ctypes.c_void_p()
        code = getattr(_libc, function)(
            name.encode(), ctypes.byref(entry), buffer, ctypes.c_size_t(size), ctypes.byref(found)
        )
        if found.value:
            return True
        if code in _ABSENT:
            return False
        if code != errno.ERANGE:
            break
        size *= 4
    raise LookupFailedError(f"the system's accounts cannot be asked for {name}: {os.strerror(code)}")
