"""What the daemon and the helper say to each other: one packet each way on a Unix socket (SOCK_SEQPACKET).

request: user NUL password        reply: success | auth_err | authinfo_unavail
"""

from __future__ import annotations

import os
import socket
import struct

from otpbridge.errors import UnavailableError
from otpbridge.helper.service import LONGEST_PASSWORD, LONGEST_USER, is_plausible
from otpbridge.model import Verdict

LONGEST = LONGEST_USER + 1 + LONGEST_PASSWORD
"""Bytes of a request."""
SECONDS = 20.0
"""How long an answer is waited for; the helper gives up before."""

_REPLIES = {verdict.encode(): verdict for verdict in (Verdict.SUCCESS, Verdict.AUTH_ERR, Verdict.AUTHINFO_UNAVAIL)}
_UCRED = struct.Struct("3i")


def ask(path: str, user: str, password: str) -> Verdict:
    """Have the helper at `path` check a password. Raises UnavailableError where it does not answer."""
    if not is_plausible(user, password):
        return Verdict.AUTH_ERR
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC) as sock:
        sock.settimeout(SECONDS)
        try:
            sock.connect(path)
            owner = peer_uid(sock)
            if owner not in {0, os.geteuid()}:
                raise UnavailableError(f"{path}: belongs to uid {owner}, who is not to hear passwords; remove it")
            sock.send(user.encode() + b"\0" + password.encode())
            reply = sock.recv(64)
        except OSError as error:
            raise UnavailableError(
                f"{path}: the PAM helper does not answer: {error.strerror or error}. "
                "Is otpbridge-pam-helper.socket started?"
            ) from None
    if reply not in _REPLIES:
        raise UnavailableError(f"{path}: the PAM helper gave no verdict; its log says why")
    return _REPLIES[reply]


def read_request(sock: socket.socket) -> tuple[str, str] | None:
    """The user and the password of a request; None for what is not one."""
    raw = sock.recv(LONGEST + 1)
    user, separator, password = raw.partition(b"\0")
    if not separator or len(raw) > LONGEST:
        return None
    try:
        return user.decode(), password.decode()
    except UnicodeDecodeError:
        return None


def peer_uid(sock: socket.socket) -> int:
    """Who is at the other end: the kernel's word (unix(7))."""
    _, uid, _ = _UCRED.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
    return int(uid)
