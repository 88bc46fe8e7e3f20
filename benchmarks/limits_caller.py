"""One process that calls a daemon as some user: logs in, or does what it should not.

    limits_caller.py UID SOCKET login PAUSE < lines of "user code"     a connection per login; prints milliseconds
    limits_caller.py UID SOCKET ATTACK NUMBER                          says `on`, then goes on until it is ended

Only what the kernel needs to know of the caller is taken from the environment of who starts it: with a UID, that is
who the daemon sees.
"""

from __future__ import annotations

import json
import os
import resource
import select
import socket
import sys
import time
from collections.abc import Callable, Iterator

SECONDS = 30.0
CALL = b'{"method":"org.varlink.service.GetInfo"}\0'


def connected(path: str, *, patient: bool = True) -> socket.socket:
    """A connection; where not `patient`, one that never waits."""
    sock = socket.socket(socket.AF_UNIX)
    # A Unix socket that does not block is refused where too many wait to be accepted: unix(7).
    sock.setblocking(patient)
    sock.connect(path)
    sock.settimeout(SECONDS if patient else 0.0)
    return sock


def frame(method: str, **parameters: object) -> bytes:
    """A call of org.otpbridge.Verify."""
    return json.dumps({"method": f"org.otpbridge.Verify.{method}", "parameters": parameters}).encode() + b"\0"


def login(path: str, pause: float) -> None:
    """Log in with each line, a connection each; prints the milliseconds and the verdict of each."""
    for line in sys.stdin:
        user, code = line.split()
        call = frame("Check", user=user, responses=[code])
        begun = time.perf_counter()
        with connected(path) as sock:
            sock.sendall(call)
            reply = b""
            while not reply.endswith(b"\0"):
                piece = sock.recv(65_536)
                if not piece:
                    break
                reply += piece
        spent = (time.perf_counter() - begun) * 1000
        verdict = json.loads(reply[:-1])["parameters"].get("verdict", "error") if reply else "closed"
        print(spent, verdict)
        time.sleep(pause)


# --- attacks: each says that it is on by its first yield, and goes on with each further one ---


def idle(path: str, number: int) -> Iterator[None]:
    """So many connections that never say anything."""
    kept = [connected(path) for _ in range(number)]
    while kept:
        yield
        time.sleep(1)


def flood(path: str, _number: int) -> Iterator[None]:
    """Connections as fast as they come, closed at once."""
    yield
    while True:
        for _ in range(256):
            try:
                connected(path, patient=False).close()
            except BlockingIOError:
                time.sleep(0)
        yield


def silent_flood(path: str, number: int) -> Iterator[None]:
    """The same, but the newest `number` stay open."""
    kept: list[socket.socket] = []
    yield
    while True:
        for _ in range(256):
            try:
                kept.append(connected(path, patient=False))
            except BlockingIOError:
                time.sleep(0)
        for sock in kept[:-number]:
            sock.close()
        del kept[:-number]
        yield


def half(path: str, number: int) -> Iterator[None]:
    """So many calls of which the end never comes, a byte at a time."""
    kept = [connected(path) for _ in range(number)]
    yield
    while True:
        for place, sock in enumerate(kept):
            try:
                sock.send(b"{" if place % 2 else b'{"method":"' + b"x" * 60_000)
            except OSError:
                kept[place] = connected(path)
        time.sleep(0.1)
        yield


def endless(path: str, number: int) -> Iterator[None]:
    """So many messages without an end, as fast as they are taken."""
    kept = [connected(path, patient=False) for _ in range(number)]
    piece = b"x" * 65_536
    yield
    while True:
        for place, sock in enumerate(kept):
            try:
                sock.send(piece)
            except BlockingIOError:
                continue
            except OSError:
                kept[place] = connected(path, patient=False)
        yield


def deaf(path: str, number: int) -> Iterator[None]:
    """So many connections that call as fast as they can and read no reply."""
    return _calls(path, number, CALL * 64, hear=False)


def greedy(path: str, number: int) -> Iterator[None]:
    """So many connections that call as fast as they can, and read."""
    return _calls(path, number, CALL * 64, hear=True)


def guess(path: str, number: int) -> Iterator[None]:
    """So many connections that guess codes of the caller's own account as fast as they can."""
    call = frame("Check", user=os.environ["USER"], responses=["000000"])
    return _calls(path, number, call, hear=True)


def begin(path: str, number: int) -> Iterator[None]:
    """So many connections that begin conversations and leave them."""
    call = frame("Begin", user=os.environ["USER"])
    return _calls(path, number, call * 4, hear=True)


def _calls(path: str, number: int, calls: bytes, *, hear: bool) -> Iterator[None]:
    kept = {}
    poll = select.epoll()

    def one() -> None:
        sock = connected(path, patient=False)
        kept[sock.fileno()] = sock
        poll.register(sock, select.EPOLLOUT | (select.EPOLLIN if hear else 0) | select.EPOLLET)
        _send(sock, calls)

    for _ in range(number):
        one()
    yield
    while True:
        for fd, _ in poll.poll(1):
            sock = kept[fd]
            alive = _hears(sock) if hear else _open(sock)
            if not alive or not _send(sock, calls):
                del kept[fd]
                sock.close()
                one()
        yield


def _hears(sock: socket.socket) -> bool:
    try:
        return bool(sock.recv(1 << 20))
    except BlockingIOError:
        return True
    except OSError:
        return False


def _send(sock: socket.socket, calls: bytes) -> bool:
    try:
        sock.send(calls)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return True


def _open(sock: socket.socket) -> bool:
    poll = select.poll()
    poll.register(sock, 0)
    return not poll.poll(0)


ATTACKS: dict[str, Callable[[str, int], Iterator[None]]] = {
    function.__name__: function for function in (idle, flood, silent_flood, half, endless, deaf, greedy, guess, begin)
}


def main(uid: str, path: str, what: str, number: str) -> None:
    """Do it."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    if int(uid):
        os.setgroups([])
        os.setresgid(int(uid), int(uid), int(uid))
        os.setresuid(int(uid), int(uid), int(uid))
    if what == "login":
        login(path, float(number))
        return
    for place, _ in enumerate(ATTACKS[what](path, int(number))):
        if not place:
            print("on", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
