"""Varlink clients that others wrote talk to our service."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import asyncvarlink_peer
import pytest
import varlink
from wire_rig import LOOPS, Rig, serving

from otpbridge.model import NoticeStyle, Verdict
from otpbridge.wire.calls import Call, VarlinkError
from otpbridge.wire.messages import (
    ADMIN,
    ENROLL,
    VERIFY,
    AuditTail,
    AuditTailReply,
    Begin,
    Check,
    CheckReply,
    Entry,
    NoticeFields,
    Step,
    StepReply,
)

CODE = "492039"


async def check(_call: Call, asked: Check) -> CheckReply:
    await asyncio.sleep(0)
    if asked.stack is not None:
        raise VarlinkError(f"{VERIFY}.UnknownStack", {"stack": asked.stack})
    right = asked.responses == (CODE,) and asked.context is not None and asked.context.rhost == "192.0.2.1"
    verdict = Verdict.SUCCESS if right else Verdict.AUTH_ERR
    return CheckReply(verdict=verdict, notices=(), token="t1" if right else None)


async def begin(call: Call, _asked: Begin) -> StepReply:
    for text in ("Touch your key", "Thank you"):
        notice = NoticeFields(style=NoticeStyle.TOUCH, text=text)
        await call.send(StepReply(session="s", step=Step(notices=(notice,), prompts=())))
    return StepReply(session="s", step=Step(notices=(), prompts=(), verdict=Verdict.SUCCESS))


async def tail(call: Call, asked: AuditTail) -> AuditTailReply:
    for number in range(asked.count or 0):
        await call.send(AuditTailReply(entries=(Entry(sequence=number, at=0.5, event="verify", detail={"a": 1}),)))
    return AuditTailReply(entries=())


@pytest.fixture(params=LOOPS)
def rig(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Rig]:
    handlers = {Check: check, Begin: begin, AuditTail: tail}
    with serving(tmp_path / "s", handlers, loop=request.param, streaming=[AuditTail]) as rig:
        yield rig


CONTEXT = {"rhost": "192.0.2.1", "service": "sshd"}


def test_the_reference_client_reads_every_interface(rig: Rig) -> None:
    """The `varlink` package parses each interface description that we serve."""
    with varlink.Client(f"unix:{rig.path}") as client:
        assert client.get_interfaces() is not None
        for name in ("org.varlink.service", VERIFY, ENROLL, ADMIN):
            connection = client.open_connection()
            with contextlib.closing(connection):
                assert client.get_interface(name, socket_connection=connection).name == name


def test_the_reference_client_calls(rig: Rig) -> None:
    """The `varlink` package checks a code, gets a verdict for a wrong one, and an error for a wrong stack."""
    with varlink.Client(f"unix:{rig.path}") as client, client.open(VERIFY) as verify:
        assert verify.Check("alice", None, [CODE], None, CONTEXT) == {
            "verdict": "success",
            "notices": [],
            "token": "t1",
        }
        assert verify.Check("alice", None, ["0"], None, CONTEXT)["verdict"] == "auth_err"
        with pytest.raises(varlink.VarlinkError) as caught:
            verify.Check("alice", None, [CODE], "x", None)
        assert caught.value.error() == f"{VERIFY}.UnknownStack"
        assert caught.value.parameters() == {"stack": "x"}


def test_the_reference_client_streams(rig: Rig) -> None:
    """The `varlink` package reads a reply per page."""
    with varlink.Client(f"unix:{rig.path}") as client, client.open(ADMIN) as admin:
        pages = list(admin.AuditTail(3, _more=True))
        assert [entry["sequence"] for page in pages for entry in page["entries"]] == [0, 1, 2]


def test_the_asyncio_client_calls_and_streams(rig: Rig) -> None:
    """`asyncvarlink` introspects, checks codes, sees typed errors, and gets each notice as its own reply."""
    asyncio.run(asyncvarlink_peer.talk(str(rig.path)))


def test_many_asyncio_clients_at_once(rig: Rig) -> None:
    """Fifty clients with twenty calls each all get their own verdict."""
    assert asyncio.run(asyncvarlink_peer.crowd(str(rig.path), clients=50, calls=20)) == 1000


@pytest.mark.skipif(shutil.which("varlinkctl") is None, reason="varlinkctl (systemd 255 or later) is not here")
def test_varlinkctl_introspects_and_calls(rig: Rig) -> None:
    """systemd's own tool lists, validates and calls the interfaces."""

    def run(*arguments: str) -> str:
        return subprocess.run(["varlinkctl", *arguments], check=True, capture_output=True, text=True).stdout

    assert VERIFY in run("list-interfaces", str(rig.path))
    for name in (VERIFY, ENROLL, ADMIN):
        assert f"interface {name}" in run("introspect", str(rig.path), name)
    asked = json.dumps({"user": "alice", "responses": [CODE], "context": CONTEXT})
    assert json.loads(run("call", "--json=short", str(rig.path), f"{VERIFY}.Check", asked))["verdict"] == "success"


@pytest.mark.skipif(shutil.which("socat") is None, reason="socat is not here")
def test_a_shell_with_socat_calls(rig: Rig) -> None:
    """printf, socat and a NUL are enough to check a code."""
    asked = json.dumps({"method": Check.METHOD, "parameters": {"user": "a", "responses": [CODE], "context": CONTEXT}})
    command = ["socat", "-", f"UNIX-CONNECT:{rig.path}"]
    done = subprocess.run(command, input=asked.encode() + b"\0", check=True, capture_output=True)
    assert json.loads(done.stdout.rstrip(b"\0"))["parameters"]["verdict"] == "success"
