"""A server with two methods, run by wire_rig.Process: Account answers at once, Check never. Ends with its input."""

from __future__ import annotations

import asyncio
import logging
import os
import resource
import socket
import sys

from otpbridge.model import Verdict
from otpbridge.wire.messages import VERIFY, Account, AccountReply, Check, CheckReply
from otpbridge.wire.service import Call, Limits, Server, Service


def account(_call: Call, _asked: Account) -> AccountReply:
    return AccountReply(verdict=Verdict.SUCCESS)


async def check(_call: Call, _asked: Check) -> CheckReply:
    return await asyncio.get_running_loop().create_future()


async def main(path: str, descriptors: int) -> None:
    # That others use the machine is no fault of the server's.
    asyncio.get_running_loop().slow_callback_duration = 60.0
    sock = socket.socket(socket.AF_UNIX)
    sock.bind(path)
    trusted = Limits(trusted_uids=frozenset({os.getuid()}), frame_seconds=60, write_seconds=60)
    service = Service(
        vendor="otpbridge",
        product="otpbridge",
        version="1",
        url="https://example.org/",
        interfaces=[VERIFY],
        handlers={Account: account, Check: check},
        limits=trusted,
    )
    server = Server(service, sock, name="verify")
    await server.start()
    if descriptors:
        resource.setrlimit(resource.RLIMIT_NOFILE, (descriptors, descriptors))
    ended = asyncio.Event()
    asyncio.get_running_loop().add_reader(sys.stdin.fileno(), ended.set)
    print("ready", flush=True)
    await ended.wait()
    asyncio.get_running_loop().remove_reader(sys.stdin.fileno())
    await server.drain(0)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    coroutine = main(sys.argv[1], int(sys.argv[3]) if len(sys.argv) > 3 else 0)
    if sys.argv[2] == "uvloop":
        import uvloop

        uvloop.run(coroutine)
    else:
        asyncio.run(coroutine)
