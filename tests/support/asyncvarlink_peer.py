# ruff: noqa: I002, N802 — asyncvarlink reads real types, and its method names are those on the wire
"""Our Verify interface as the asyncvarlink package wants it, and clients that use it."""

import asyncio
import enum
from collections.abc import AsyncIterator
from typing import TypedDict

import pytest
from asyncvarlink import (
    TypedVarlinkErrorReply,
    VarlinkClientProtocol,
    VarlinkInterface,
    connect_unix_varlink,
    varlinkmethod,
)
from asyncvarlink.serviceinterface import InterfaceNotFound, VarlinkServiceInterface


class Verdict(enum.Enum):
    success = "success"
    auth_err = "auth_err"


class Style(enum.Enum):
    info = "info"
    touch = "touch"
    hidden = "hidden"


class Context(TypedDict):
    service: str | None
    rhost: str | None


class Notice(TypedDict):
    style: Style
    text: str


class Prompt(TypedDict):
    style: Style
    text: str


class Span(TypedDict):
    start: int
    length: int


class Step(TypedDict):
    notices: list[Notice]
    prompts: list[Prompt]
    verdict: Verdict | None
    retryAfter: int | None
    code: Span | None


class CheckReply(TypedDict):
    verdict: Verdict
    token: str | None
    retryAfter: int | None
    code: Span | None
    notices: list[Notice]


class StepReply(TypedDict):
    session: str
    step: Step


class UnknownStack(TypedVarlinkErrorReply, interface="org.otpbridge.Verify"):
    class Parameters:
        stack: str


class Verify(VarlinkInterface, name="org.otpbridge.Verify"):
    errors = (UnknownStack,)

    @varlinkmethod
    async def Check(  # type: ignore[empty-body]
        self,
        *,
        user: str,
        responses: list[str],
        stack: str | None = None,
        context: Context | None = None,
    ) -> CheckReply: ...

    @varlinkmethod
    async def Begin(self, *, user: str) -> AsyncIterator[StepReply]:
        yield {}  # type: ignore[typeddict-item]


CONTEXT: Context = {"service": "sshd", "rhost": "192.0.2.1"}


async def talk(path: str) -> None:
    """One client, every kind of call."""
    transport, protocol = await connect_unix_varlink(VarlinkClientProtocol, path)
    try:
        service = protocol.make_proxy(VarlinkServiceInterface)
        info = await service.GetInfo()
        assert "org.otpbridge.Verify" in info["interfaces"]
        text = await service.GetInterfaceDescription(interface="org.otpbridge.Verify")
        assert "interface org.otpbridge.Verify" in text["description"]

        verify = protocol.make_proxy(Verify)
        reply = await verify.Check(user="alice", responses=["492039"], context=CONTEXT)
        assert reply == {"verdict": Verdict.success, "notices": [], "token": "t1"}
        reply = await verify.Check(user="alice", responses=["0"], context=CONTEXT)
        assert reply["verdict"] is Verdict.auth_err
        with pytest.raises(UnknownStack):
            await verify.Check(user="alice", responses=["492039"], stack="x")
        with pytest.raises(InterfaceNotFound):
            await service.GetInterfaceDescription(interface="org.example.Other")

        steps = [reply["step"] async for reply in verify.Begin(user="alice")]
        assert [notice["text"] for step in steps for notice in step["notices"]] == ["Touch your key", "Thank you"]
        assert [step.get("verdict") for step in steps] == [None, None, Verdict.success]
    finally:
        transport.close()
        await asyncio.sleep(0)


async def crowd(path: str, *, clients: int, calls: int) -> int:
    """Many clients at once; how many calls got the verdict they should."""

    async def one(number: int) -> int:
        transport, protocol = await connect_unix_varlink(VarlinkClientProtocol, path)
        try:
            verify = protocol.make_proxy(Verify)
            right = number % 2 == 0
            code = "492039" if right else "0"
            wanted = Verdict.success if right else Verdict.auth_err
            replies = [await verify.Check(user="a", responses=[code], context=CONTEXT) for _ in range(calls)]
            return sum(reply["verdict"] is wanted for reply in replies)
        finally:
            transport.close()
            await asyncio.sleep(0)

    return sum(await asyncio.gather(*(one(number) for number in range(clients))))
