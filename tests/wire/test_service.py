"""What a caller of a service may rely on, on either event loop."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
from wire_rig import LOOPS, SECONDS, Rig, bound, serving

from otpbridge.model import Verdict
from otpbridge.wire.calls import Call, Limits, PeerGoneError, VarlinkError
from otpbridge.wire.framing import FrameTooLongError
from otpbridge.wire.messages import (
    VERIFY,
    Account,
    AccountReply,
    AuditTail,
    AuditTailReply,
    Backup,
    BackupReply,
    Cancel,
    Check,
    CheckReply,
    Empty,
    Entry,
    Start,
)
from otpbridge.wire.service import Service

Serve = Callable[..., AbstractContextManager[Rig]]
ACCOUNT, CHECK, TAIL = Account.METHOD, Check.METHOD, AuditTail.METHOD
WHO = {"user": "alice"}
CODE = {"user": "alice", "responses": ["492039"]}
SUCCESS = {"parameters": {"verdict": "success"}}
RIGHT = {"parameters": {"verdict": "success", "notices": []}}


@pytest.fixture(params=LOOPS)
def serve(request: pytest.FixtureRequest, tmp_path: Path) -> Serve:
    """Start a server on a private socket."""

    def start(handlers: dict[type, Any], **options: Any) -> AbstractContextManager[Rig]:
        return serving(tmp_path / "verify", handlers, loop=request.param, **options)

    return start


def account(_call: Call, _asked: Account) -> AccountReply:
    return AccountReply(verdict=Verdict.SUCCESS)


async def tail(call: Call, asked: AuditTail) -> AuditTailReply:
    for number in range(asked.count or 0):
        await call.send(AuditTailReply(entries=(Entry(sequence=number, at=0.5, event="x"),)))
    return AuditTailReply(entries=())


class Slow:
    """A handler that waits until the test lets it go on."""

    def __init__(self) -> None:
        self.began = threading.Semaphore(0)
        self.cancelled = threading.Event()
        self.go = asyncio.Event()

    async def __call__(self, _call: Call, _asked: Check) -> CheckReply:
        self.began.release()
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        return CheckReply(verdict=Verdict.SUCCESS, notices=())

    def has_begun(self) -> bool:
        return self.began.acquire(timeout=SECONDS)

    async def finish(self) -> None:
        self.go.set()


def test_a_plain_function_a_coroutine_and_a_future_all_answer(serve: Serve) -> None:
    """A handler may answer at once, wait for something, or hand back a future."""

    async def check(_call: Call, asked: Check) -> CheckReply:
        await asyncio.sleep(0)
        return CheckReply(verdict=Verdict.AUTH_ERR, notices=(), token="".join(asked.responses))

    def cancel(_call: Call, _asked: Cancel) -> asyncio.Future[Empty]:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Empty] = loop.create_future()
        loop.call_soon(future.set_result, Empty())
        return future

    with serve({Account: account, Check: check, Cancel: cancel}) as rig, rig.connect() as wire:
        assert wire.ask(ACCOUNT, WHO) == SUCCESS
        assert wire.ask(CHECK, CODE) == {"parameters": {"verdict": "auth_err", "notices": [], "token": "492039"}}
        assert wire.ask(Cancel.METHOD, {"session": "s"}) == {"parameters": {}}


def test_the_kernel_says_who_calls(serve: Serve) -> None:
    """A handler sees the uid, gid and pid that the kernel recorded, not anything that was sent."""
    seen = []

    def note(call: Call, asked: Account) -> AccountReply:
        seen.append(call.peer)
        return account(call, asked)

    with serve({Account: note}) as rig, rig.connect() as wire:
        wire.ask(ACCOUNT, WHO)
    (peer,) = seen
    assert (peer.uid, peer.gid, peer.pid) == (os.getuid(), os.getgid(), os.getpid())


@pytest.mark.parametrize(
    ("method", "parameters", "name", "detail"),
    [
        ("org.example.Other.Do", {}, "InterfaceNotFound", {"interface": "org.example.Other"}),
        ("", {}, "InterfaceNotFound", {"interface": ""}),
        (f"{VERIFY}.Fly", {}, "MethodNotFound", {"method": f"{VERIFY}.Fly"}),
        (Start.METHOD, WHO, "MethodNotImplemented", {"method": Start.METHOD}),
        (CHECK, {"user": "alice"}, "InvalidParameter", {"parameter": "responses"}),
        (CHECK, {**CODE, "user": 492039}, "InvalidParameter", {"parameter": "user"}),
        (CHECK, {**CODE, "responses": [492039]}, "InvalidParameter", {"parameter": "responses"}),
        (CHECK, {**CODE, "context": {"rhost": 492039}}, "InvalidParameter", {"parameter": "context"}),
        (CHECK, {**CODE, "context": {"x": "492039"}}, "InvalidParameter", {"parameter": "context"}),
        (CHECK, {**CODE, "colour": "492039"}, "InvalidParameter", {"parameter": "colour"}),
        (CHECK, ["492039"], "InvalidParameter", {"parameter": "parameters"}),
        (CHECK, "492039", "InvalidParameter", {"parameter": "parameters"}),
        (TAIL, {}, "ExpectedMore", {}),
    ],
)
def test_a_call_that_cannot_be_made_so_is_told_why(
    serve: Serve, method: str, parameters: Any, name: str, detail: dict[str, str]
) -> None:
    """The standard errors name the interface, method or parameter, never a value; the connection stays."""
    handlers = {Account: account, Check: Slow(), AuditTail: tail}
    with serve(handlers, streaming=[AuditTail]) as rig, rig.connect() as wire:
        assert wire.ask(method, parameters) == {"error": f"org.varlink.service.{name}", "parameters": detail}
        assert wire.ask(ACCOUNT, WHO) == SUCCESS


def test_null_means_left_out(serve: Serve) -> None:
    """Null parameters, null flags and unknown keys around a call do no harm."""
    with serve({Account: account}) as rig, rig.connect() as wire:
        wire.send(b'{"method":"org.varlink.service.GetInfo","parameters":null}\0')
        assert wire.reply()["parameters"]["vendor"] == "otpbridge"
        nulls = {"more": None, "oneway": None, "upgrade": None, "colour": 1}
        assert wire.ask(ACCOUNT, {**WHO, "client": None}, **nulls) == SUCCESS


def test_a_socket_offers_only_its_interfaces(serve: Serve) -> None:
    """Handlers of an interface that is not offered on this socket cannot be reached through it."""
    handlers = {Account: account, AuditTail: tail}
    with serve(handlers, interfaces=[VERIFY], streaming=[AuditTail]) as rig, rig.connect() as wire:
        assert wire.ask(TAIL, {}, more=True)["error"] == "org.varlink.service.InterfaceNotFound"
        info = wire.ask("org.varlink.service.GetInfo")["parameters"]
        assert info["interfaces"] == ["org.varlink.service", VERIFY]


def test_a_service_can_be_asked_what_it_offers(serve: Serve) -> None:
    """The text of each interface is served as it is written in its file."""
    with serve({Account: account}) as rig, rig.connect() as wire:
        asked = "org.varlink.service.GetInterfaceDescription"
        for name in wire.ask("org.varlink.service.GetInfo")["parameters"]["interfaces"]:
            assert f"interface {name}\n" in wire.ask(asked, {"interface": name})["parameters"]["description"]
        assert wire.ask(asked, {"interface": "a.b"})["error"] == "org.varlink.service.InterfaceNotFound"


def test_replies_stream_and_the_last_one_says_so(serve: Serve) -> None:
    """With `more`, every reply but the last continues."""
    with serve({AuditTail: tail}, streaming=[AuditTail]) as rig, rig.connect() as wire:
        wire.call(TAIL, {"count": 3}, more=True)
        replies = [wire.reply() for _ in range(4)]
        assert [reply.get("continues", False) for reply in replies] == [True, True, True, False]
        assert [entry["sequence"] for reply in replies for entry in reply["parameters"]["entries"]] == [0, 1, 2]


def test_replies_come_in_the_order_of_the_calls(serve: Serve) -> None:
    """Calls sent all at once are answered one by one in order, a slow one first if it came first."""
    slow = Slow()
    with serve({Account: account, Check: slow}) as rig, rig.connect() as wire:
        wire.call(CHECK, CODE)
        for _ in range(40):
            wire.call(ACCOUNT, WHO)
        wire.call("org.example.X.Y")
        assert slow.has_begun()
        rig.run(slow.finish())
        assert [wire.reply() for _ in range(41)] == [RIGHT] + [SUCCESS] * 40
        assert "error" in wire.reply()


def test_a_oneway_call_has_no_reply(serve: Serve) -> None:
    """Neither a result nor an error nor a stream is sent for a oneway call."""
    with serve({Account: account, AuditTail: tail}, streaming=[AuditTail]) as rig, rig.connect() as wire:
        wire.call(ACCOUNT, WHO, oneway=True)
        wire.call("org.example.X.Y", oneway=True)
        wire.call(TAIL, {"count": 3}, oneway=True, more=True)
        assert "vendor" in wire.ask("org.varlink.service.GetInfo")["parameters"]


def test_upgrade_is_refused(serve: Serve) -> None:
    """Nobody can turn the connection into another protocol."""
    with serve({Account: account}) as rig, rig.connect() as wire:
        refused = {"error": "org.varlink.service.InvalidParameter", "parameters": {"parameter": "upgrade"}}
        assert wire.ask(ACCOUNT, WHO, upgrade=True) == refused


def test_a_handlers_error_reaches_the_caller(serve: Serve) -> None:
    """A VarlinkError raised in a plain function or in a coroutine is the error reply."""

    def stack(_call: Call, _asked: Account) -> AccountReply:
        raise VarlinkError(f"{VERIFY}.UnknownStack", {"stack": "x"})

    async def session(_call: Call, _asked: Cancel) -> Empty:
        raise VarlinkError(f"{VERIFY}.NoSuchSession")

    with serve({Account: stack, Cancel: session}) as rig, rig.connect() as wire:
        assert wire.ask(ACCOUNT, WHO) == {"error": f"{VERIFY}.UnknownStack", "parameters": {"stack": "x"}}
        gone = {"error": f"{VERIFY}.NoSuchSession", "parameters": {}}
        assert wire.ask(Cancel.METHOD, {"session": "s"}) == gone


@pytest.mark.parametrize(
    ("name", "parameters", "lines"),
    [
        (f"{VERIFY}.UnknownStack", {"stack": "x"}, 0),
        (f"{VERIFY}.UnknownStack", {"stacks": "x"}, 1),
        (f"{VERIFY}.Unheard", {}, 1),
        ("org.example.Other.Error", {}, 1),
    ],
)
def test_an_error_that_is_not_declared_is_logged(
    serve: Serve, caplog: pytest.LogCaptureFixture, name: str, parameters: dict[str, str], lines: int
) -> None:
    """An error that callers cannot know of still reaches them, and the log says that it is a mistake."""

    def fail(_call: Call, _asked: Account) -> AccountReply:
        raise VarlinkError(name, parameters)

    with serve({Account: fail}) as rig, rig.connect() as wire:
        assert wire.ask(ACCOUNT, WHO) == {"error": name, "parameters": parameters}
    assert len(caplog.records) == lines


async def _raise_later(_call: Call, asked: Check) -> CheckReply:
    await asyncio.sleep(0)
    raise ValueError(asked.responses)


def _raise(_call: Call, asked: Check) -> CheckReply:
    raise ValueError(asked.responses)


def _not_a_reply(_call: Call, _asked: Check) -> CheckReply:
    return CheckReply(verdict=Verdict.SUCCESS, notices=(), token=object())  # type: ignore[arg-type]


@pytest.mark.parametrize("handler", [_raise, _raise_later])
def test_a_broken_handler_refuses_and_logs_no_code(
    serve: Serve, caplog: pytest.LogCaptureFixture, handler: Any
) -> None:
    """An exception becomes the daemon's own error; the log has its place, but not the code in its text."""

    def failure(_call: Call, error: BaseException) -> VarlinkError:
        return VarlinkError(f"{VERIFY}.Busy", {"retryAfter": 7})

    with serve({Account: account, Check: handler}, failure=failure) as rig, rig.connect() as wire:
        assert wire.ask(CHECK, CODE) == {"error": f"{VERIFY}.Busy", "parameters": {"retryAfter": 7}}
        assert wire.ask(ACCOUNT, WHO) == SUCCESS
    assert "ValueError" in caplog.text
    assert handler.__name__ in caplog.text
    assert "492039" not in caplog.text


@pytest.mark.parametrize("handler", [_raise, _raise_later, _not_a_reply])
def test_a_broken_handler_without_a_hook_ends_the_connection(serve: Serve, handler: Any) -> None:
    """Without a failure hook nothing is answered, so nothing can be taken for a yes."""
    with serve({Check: handler}) as rig, rig.connect() as wire:
        wire.call(CHECK, CODE)
        assert wire.at_end()


def test_a_failure_hook_that_fails_ends_the_connection(serve: Serve) -> None:
    """A second error while the first is handled does not leave the caller waiting."""

    def failure(_call: Call, _error: BaseException) -> VarlinkError:
        raise RuntimeError

    with serve({Check: _raise}, failure=failure) as rig, rig.connect() as wire:
        wire.call(CHECK, CODE)
        assert wire.at_end()


def test_a_reply_that_is_too_long_is_not_sent(serve: Serve) -> None:
    """A page over 64 KiB fails in the handler, which may send smaller ones."""
    caught = []

    async def backup(call: Call, _asked: Backup) -> BackupReply:
        try:
            await call.send(BackupReply(data="x" * 65_536))
        except FrameTooLongError as error:
            caught.append(error)
        await call.send(BackupReply(data="x" * 65_000))
        return BackupReply(data="")

    with serve({Backup: backup}, streaming=[Backup]) as rig, rig.connect() as wire:
        assert len(wire.ask(Backup.METHOD, more=True)["parameters"]["data"]) == 65_000
        assert wire.reply() == {"parameters": {"data": ""}}
    assert len(caught) == 1


def test_send_needs_more(serve: Serve) -> None:
    """A handler cannot send two replies to someone who expects one."""

    async def check(call: Call, _asked: Check) -> CheckReply:
        with pytest.raises(RuntimeError):
            await call.send(CheckReply(verdict=Verdict.SUCCESS, notices=()))
        return CheckReply(verdict=Verdict.AUTH_ERR, notices=())

    with serve({Check: check}) as rig, rig.connect() as wire:
        assert wire.ask(CHECK, CODE) == {"parameters": {"verdict": "auth_err", "notices": []}}


def test_what_handlers_keep_ends_with_the_connection(serve: Serve) -> None:
    """State lives from call to call on one connection, is not seen by another, and is given back at its end."""
    ended = threading.Event()

    def count(call: Call, _asked: Account) -> AccountReply:
        seen = call.connection.state.setdefault("seen", [])
        if not seen:
            call.connection.on_close(lambda: 1 / 0)
            call.connection.on_close(ended.set)
        seen.append(1)
        return AccountReply(verdict=Verdict.SUCCESS if len(seen) == 2 else Verdict.IGNORE)

    with serve({Account: count}) as rig:
        with rig.connect() as one, rig.connect() as other:
            verdicts = [wire.ask(ACCOUNT, WHO)["parameters"]["verdict"] for wire in (one, other, one)]
            assert verdicts == ["ignore", "ignore", "success"]
        assert ended.wait(SECONDS)


@pytest.mark.parametrize("waiting", [0, 3])
def test_hanging_up_cancels_what_runs(serve: Serve, waiting: int) -> None:
    """A handler is cancelled when its caller is gone, even with further calls unread behind it."""
    slow = Slow()
    limits = Limits(idle_seconds=1, frame_seconds=1, write_seconds=1)
    with serve({Check: slow}, limits=limits) as rig:
        with rig.connect() as wire:
            for _ in range(1 + waiting):
                wire.call(CHECK, CODE)
            assert slow.has_begun()
        assert slow.cancelled.wait(SECONDS)
    assert not slow.began.acquire(blocking=False)


def test_hanging_up_ends_a_stream(serve: Serve) -> None:
    """A handler that streams to nobody learns it, also when it holds on to its cancellation."""
    ended: list[type] = []
    over = threading.Event()

    async def endless(call: Call, _asked: AuditTail) -> AuditTailReply:
        try:
            while True:
                await call.send(AuditTailReply(entries=()))
                await asyncio.sleep(0)
        except (PeerGoneError, asyncio.CancelledError) as error:
            ended.append(type(error))
            with pytest.raises(PeerGoneError):
                await call.send(AuditTailReply(entries=()))
            raise
        finally:
            over.set()

    with serve({AuditTail: endless}, streaming=[AuditTail]) as rig:
        with rig.connect() as wire:
            assert wire.ask(TAIL, more=True)["continues"]
        assert over.wait(SECONDS)
    assert len(ended) == 1


def test_who_finishes_writing_still_gets_replies(serve: Serve) -> None:
    """A shell that pipes a call into socat shuts its side down at once; it has its answers all the same."""
    slow = Slow()
    with serve({Account: account, Check: slow}) as rig, rig.connect() as wire:
        wire.call(CHECK, CODE)
        wire.call(ACCOUNT, WHO)
        wire.sock.shutdown(socket.SHUT_WR)
        assert slow.has_begun()
        rig.run(slow.finish())
        assert [wire.reply(), wire.reply()] == [RIGHT, SUCCESS]
        assert wire.at_end()
    assert not slow.cancelled.is_set()


def test_who_finishes_writing_and_leaves_is_noticed(serve: Serve) -> None:
    """After its side is shut down, a caller that goes away still cancels its call."""
    slow = Slow()
    limits = Limits(idle_seconds=1, frame_seconds=1, write_seconds=1)
    with serve({Check: slow}, limits=limits) as rig:
        with rig.connect() as wire:
            wire.call(CHECK, CODE)
            wire.sock.shutdown(socket.SHUT_WR)
            assert slow.has_begun()
        assert slow.cancelled.wait(SECONDS)


def test_draining_lets_a_call_finish(serve: Serve) -> None:
    """A daemon that stops answers what it is judging, closes idle connections and takes no new ones."""
    slow = Slow()
    with serve({Account: account, Check: slow}) as rig, rig.connect() as idle, rig.connect() as busy:
        assert idle.ask(ACCOUNT, WHO) == SUCCESS
        busy.call(CHECK, CODE)
        assert slow.has_begun()
        draining = asyncio.run_coroutine_threadsafe(rig.server.drain(SECONDS), rig.loop)
        assert idle.at_end()
        with pytest.raises(ConnectionRefusedError):
            rig.connect()
        rig.run(slow.finish())
        assert busy.reply() == RIGHT
        assert busy.at_end()
        draining.result(SECONDS)
        assert rig.server.connections == 0


def test_draining_answers_a_call_that_has_just_arrived(serve: Serve) -> None:
    """A call that lies in the socket when the daemon stops is answered, not thrown away."""

    async def drain_with_a_call_waiting(rig: Rig, send: Callable[[], None]) -> None:
        send()  # the loop is busy here, so it has not read this yet
        await rig.server.drain(SECONDS)

    with serve({Account: account}) as rig, rig.connect() as wire:
        assert wire.ask(ACCOUNT, WHO) == SUCCESS
        rig.run(drain_with_a_call_waiting(rig, lambda: wire.call(ACCOUNT, WHO)))
        assert wire.reply() == SUCCESS
        assert wire.at_end()


def test_draining_gives_up_in_time(serve: Serve) -> None:
    """A call that does not end is cancelled when the time for draining is over."""
    slow = Slow()
    with serve({Check: slow}) as rig, rig.connect() as wire:
        wire.call(CHECK, CODE)
        assert slow.has_begun()
        rig.run(rig.server.drain(0.05))
        assert slow.cancelled.is_set()
        assert wire.at_end()


def test_a_socket_from_systemd_keeps_its_backlog(serve: Serve, tmp_path: Path) -> None:
    """A socket that listens already is not told to listen again: here its queue holds one, and still does."""
    sock = bound(tmp_path / "verify")
    sock.listen(0)
    blocked, release = threading.Event(), threading.Event()

    def block(_call: Call, _asked: Account) -> AccountReply:
        blocked.set()
        release.wait(SECONDS)
        return AccountReply(verdict=Verdict.SUCCESS)

    with serve({Account: block}, sock=sock) as rig, rig.connect() as wire:
        wire.call(ACCOUNT, WHO)
        assert blocked.wait(SECONDS)
        waiting = [socket.socket(socket.AF_UNIX) for _ in range(5)]
        refused = 0
        for one in waiting:
            one.settimeout(0)
            refused += one.connect_ex(os.fspath(rig.path)) != 0
            one.close()
        release.set()
        assert refused >= 3
        assert wire.reply() == SUCCESS


def test_a_handler_for_an_undeclared_method_is_a_mistake() -> None:
    """A service cannot offer what its interface file does not declare."""

    class Fly(Account):
        METHOD = f"{VERIFY}.Fly"

    with pytest.raises(ValueError, match="Fly"):
        Service(vendor="", product="", version="", url="", interfaces=[VERIFY], handlers={Fly: account})


def test_nothing_is_logged_about_what_is_normal(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    """Calls, errors of callers and hanging up leave no line in the log."""
    with caplog.at_level(logging.DEBUG, "otpbridge"), serve({Account: account}) as rig, rig.connect() as wire:
        assert wire.ask(ACCOUNT, WHO) == SUCCESS
        wire.ask("org.example.X.Y")
        wire.send(b"half")
    assert [record for record in caplog.records if record.name.startswith("otpbridge")] == []
