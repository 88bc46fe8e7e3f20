"""Many processes that all do the same thing at the same moment, round after round.

    verdicts = over_socket(path, 8, [Round(["alice"], ["123456"])])      # [["success", "auth_err", …]]
    codes = through_pam(stack_folder, "otp", 8, [Round(["alice"], ["123456"])])   # [[0, 7, …]]

Each process opens its connection (or brings its login to the prompt) first; a barrier then lets all go at once.
Member `i` of a round sends answer `i` of the round, over again from the first when there are fewer.
"""

from __future__ import annotations

import ctypes
import enum
import json
import multiprocessing
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

BARRIER_SECONDS = 60.0
PAM_CONV_ERR = 19


@dataclass(frozen=True, slots=True)
class Round:
    """What is sent in one round. `users` and `answers` are taken in turn."""

    users: Sequence[str]
    answers: Sequence[str]
    rhost: str | None = None
    stack: str | None = None


class Way(enum.StrEnum):
    """How an attempt is made over the socket."""

    CHECK = "check"
    """In one call."""
    TALK = "talk"
    """In a conversation: all have been asked before any of them answers."""
    CANCEL = "cancel"
    """In a conversation that is cancelled where a second question comes; then `left` is what became of it."""
    HANG_UP = "hang up"
    """The same, but the connection is closed."""


LEFT = "left"


def over_socket(path: Path, size: int, rounds: Sequence[Round], way: Way = Way.CHECK) -> list[list[str]]:
    """Verify over the socket, each member on a connection that was open before."""
    return _run({"kind": "socket", "path": os.fspath(path), "size": size, "way": way}, rounds)


def through_pam(folder: Path, service: str, size: int, rounds: Sequence[Round]) -> list[list[int]]:
    """Log in through `folder`/`service`; every login waits at its prompt for the others."""
    return _run({"kind": "pam", "folder": os.fspath(folder), "service": service, "size": size}, rounds)


def _run(request: Mapping[str, Any], rounds: Sequence[Round]) -> list[list[Any]]:
    done = subprocess.run(
        [sys.executable, "-I", "-S", __file__],
        input=json.dumps({**request, "rounds": [asdict(each) for each in rounds]}),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    by_member = json.loads(done.stdout)
    assert len(by_member) == request["size"], done.stderr
    return [list(outcomes) for outcomes in zip(*by_member, strict=True)]


# --- the processes ---


class _Line:
    """A connection to the verify socket."""

    def __init__(self, path: str, way: str) -> None:
        self._path = path
        self._way = Way(way)
        self._connect()

    def check(self, each: Mapping[str, Any], user: str, answer: str, wait: Callable[[], object]) -> str:
        about: dict[str, Any] = {"user": user}
        if each["rhost"] is not None:
            about["context"] = {"rhost": each["rhost"]}
        if each["stack"] is not None:
            about["stack"] = each["stack"]
        if self._way is Way.CHECK:
            wait()
            return self._call("Check", **about, responses=[answer])["verdict"]
        begun = self._call("Begin", **about)
        assert len(begun["step"]["prompts"]) == 1
        wait()
        step = self._call("Continue", session=begun["session"], responses=[answer])["step"]
        if not step["prompts"]:
            return step["verdict"]
        if self._way is Way.CANCEL:
            self._call("Cancel", session=begun["session"])
        else:
            assert self._way is Way.HANG_UP
            self._sock.close()
            self._connect()
        return LEFT

    def _connect(self) -> None:
        self._sock = socket.socket(socket.AF_UNIX)
        self._sock.settimeout(BARRIER_SECONDS)
        self._sock.connect(self._path)
        # The first call opens what the daemon opens lazily.
        self._ask({"method": "org.varlink.service.GetInfo"})

    def _call(self, method: str, **parameters: Any) -> dict[str, Any]:
        reply = self._ask({"method": f"org.otpbridge.Verify.{method}", "parameters": parameters})
        assert "error" not in reply, reply
        return reply["parameters"]

    def _ask(self, call: Mapping[str, Any]) -> dict[str, Any]:
        self._sock.sendall(json.dumps(call).encode() + b"\0")
        reply = b""
        while not reply.endswith(b"\0"):
            piece = self._sock.recv(65_536)
            if not piece:
                raise EOFError
            reply += piece
        return json.loads(reply[:-1])


class _Message(ctypes.Structure):
    _fields_ = (("style", ctypes.c_int), ("text", ctypes.c_char_p))


class _Response(ctypes.Structure):
    _fields_ = (("text", ctypes.c_void_p), ("retcode", ctypes.c_int))


_CONVERSE = ctypes.CFUNCTYPE(
    ctypes.c_int,
    ctypes.c_int,
    ctypes.POINTER(ctypes.POINTER(_Message)),
    ctypes.POINTER(ctypes.POINTER(_Response)),
    ctypes.c_void_p,
)


class _Conversation(ctypes.Structure):
    _fields_ = (("function", _CONVERSE), ("data", ctypes.c_void_p))


class _Pam:
    """Logins through one PAM service of a private folder."""

    def __init__(self, folder: str, service: str) -> None:
        self._folder, self._service = folder.encode(), service.encode()
        self._pam = ctypes.CDLL("libpam.so.0")
        self._libc = ctypes.CDLL(None)
        self._libc.calloc.restype = ctypes.c_void_p
        self._libc.calloc.argtypes = (ctypes.c_size_t, ctypes.c_size_t)
        self._libc.strdup.restype = ctypes.c_void_p
        for name in ("pam_authenticate", "pam_end"):
            getattr(self._pam, name).argtypes = (ctypes.c_void_p, ctypes.c_int)
        self._pam.pam_set_item.argtypes = (ctypes.c_void_p, ctypes.c_int, ctypes.c_char_p)

    def check(self, each: Mapping[str, Any], user: str, answer: str, wait: Callable[[], object]) -> int:
        rhost: str | None = each["rhost"]
        waited = False

        def converse(count: int, messages: Any, responses: Any, _data: Any) -> int:
            nonlocal waited
            array = self._libc.calloc(count, ctypes.sizeof(_Response))
            items = ctypes.cast(array, ctypes.POINTER(_Response))
            for index in range(count):
                if messages[index].contents.style not in {1, 2}:
                    continue
                if not waited:
                    waited = True
                    wait()
                items[index].text = self._libc.strdup(answer.encode())
            responses[0] = items
            return 0

        function = _CONVERSE(converse)
        conversation = _Conversation(function, None)
        handle = ctypes.c_void_p()
        code = self._pam.pam_start_confdir(
            self._service, user.encode(), ctypes.byref(conversation), self._folder, ctypes.byref(handle)
        )
        if code == 0:
            if rhost is not None:
                self._pam.pam_set_item(handle, 4, rhost.encode())
            code = self._pam.pam_authenticate(handle, 0)
            self._pam.pam_end(handle, code)
        if not waited:
            wait()
        return code


def _member(place: int, request: Mapping[str, Any], barrier: Any, result: Any) -> None:
    over_socket = request["kind"] == "socket"
    line = _Line(request["path"], request["way"]) if over_socket else _Pam(request["folder"], request["service"])
    outcomes = []
    for each in request["rounds"]:
        user = each["users"][place % len(each["users"])]
        answer = each["answers"][place % len(each["answers"])]
        outcomes.append(line.check(each, user, answer, lambda: barrier.wait(BARRIER_SECONDS)))
        # Nobody begins the next round while this one goes on.
        barrier.wait(BARRIER_SECONDS)
    result.send(outcomes)


def _main(request: Mapping[str, Any]) -> None:
    context = multiprocessing.get_context("fork")
    barrier = context.Barrier(request["size"])
    members, results = [], []
    for place in range(request["size"]):
        result, far_end = context.Pipe(duplex=False)
        members.append(context.Process(target=_member, args=(place, request, barrier, far_end)))
        members[-1].start()
        far_end.close()
        results.append(result)
    # A member that died has closed its end: then this fails, and so does the test.
    print(json.dumps([result.recv() for result in results]))
    for member in members:
        member.join()


if __name__ == "__main__":
    _main(json.load(sys.stdin))
