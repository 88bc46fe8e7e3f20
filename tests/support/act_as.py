"""Calls of another user, who opens the socket with nothing but that user's rights.

    said = calls(daemon.verify_socket, user, [("org.otpbridge.Verify.Check", {"user": "alice", "responses": ["1"]})])
    said[0].parameters["verdict"]

All calls of one list go over one connection. Nothing of the caller comes from the code under test.
"""

from __future__ import annotations

import errno
import json
import os
import pwd
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Said:
    """A reply: parameters, and the short name of the error if it is one."""

    parameters: Mapping[str, Any] = field(default_factory=dict)
    error: str | None = None


class CannotConnectError(Exception):
    """The socket is closed to this user; the message is the errno's name."""


def calls(
    path: Path, user: pwd.struct_passwd, asked: Sequence[tuple[str, Mapping[str, Any]]], *, more: bool = False
) -> list[Said]:
    """Make these calls as `user` and return the replies; with `more`, all of each call. Raises CannotConnectError."""
    request = {"uid": user.pw_uid, "gid": user.pw_gid, "path": os.fspath(path), "calls": asked, "more": more}
    done = subprocess.run(
        [sys.executable, "-I", "-S", __file__],
        input=json.dumps(request),
        capture_output=True,
        text=True,
        check=False,
        timeout=SECONDS,
    )
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    if isinstance(said, str):
        raise CannotConnectError(said)
    return [
        Said(reply.get("parameters") or {}, reply["error"].rpartition(".")[2] if "error" in reply else None)
        for reply in said
    ]


def _main(request: Mapping[str, Any]) -> None:
    # Before this everything was loaded that is needed: the interpreter may lie where the user cannot read.
    os.setgroups([])
    os.setresgid(request["gid"], request["gid"], request["gid"])
    os.setresuid(request["uid"], request["uid"], request["uid"])
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(SECONDS)
    try:
        sock.connect(request["path"])
    except OSError as error:
        print(json.dumps(errno.errorcode[error.errno or 0]))
        return
    replies = []
    for method, parameters in request["calls"]:
        call = {"method": method, "parameters": parameters, "more": request["more"]}
        sock.sendall(json.dumps(call).encode() + b"\0")
        text = b""
        while not text.endswith(b"\0") or b'"continues":true' in text[:-1].rpartition(b"\0")[2]:
            piece = sock.recv(65_536)
            if not piece:
                raise EOFError(method)
            text += piece
        replies += map(json.loads, text[:-1].split(b"\0"))
    print(json.dumps(replies))


if __name__ == "__main__":
    _main(json.load(sys.stdin))
