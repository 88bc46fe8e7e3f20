"""What a hostile or broken local client cannot do, on either event loop."""

from __future__ import annotations

import asyncio
import contextlib
import select
import socket
import statistics
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from wire_rig import LOOPS, SECONDS, Process, Rig, Wire, serving

from otpbridge.model import Verdict
from otpbridge.wire.calls import Call, Limits
from otpbridge.wire.messages import Account, AccountReply, Backup, BackupReply, Check, CheckReply

Serve = Callable[..., AbstractContextManager[Rig]]
ACCOUNT, CHECK = Account.METHOD, Check.METHOD
WHO = {"user": "alice"}
CODE = {"user": "alice", "responses": ["492039"]}
SUCCESS = {"parameters": {"verdict": "success"}}
ONE_CALL = msgspec.json.encode({"method": ACCOUNT, "parameters": WHO}) + b"\0"
QUICK = Limits(idle_seconds=SECONDS, frame_seconds=0.1, write_seconds=0.1)


@pytest.fixture(params=LOOPS)
def serve(request: pytest.FixtureRequest, tmp_path: Path) -> Serve:
    """Start a server on a private socket."""

    def start(handlers: dict[type, Any], **options: Any) -> AbstractContextManager[Rig]:
        return serving(tmp_path / "verify", handlers, loop=request.param, **options)

    return start


@pytest.fixture(params=LOOPS)
def process(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[..., Process]:
    """Start a server in a process of its own."""
    return lambda *arguments: Process(tmp_path / "verify", request.param, *arguments)


def account(_call: Call, _asked: Account) -> AccountReply:
    return AccountReply(verdict=Verdict.SUCCESS)


class Forever:
    """A handler that never answers."""

    def __init__(self) -> None:
        self.began = threading.Semaphore(0)
        self.cancelled = threading.Event()

    async def __call__(self, _call: Call, _asked: Check) -> CheckReply:
        self.began.release()
        try:
            return await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise


NESTED = b"[" * 30_000 + b"]" * 30_000
NONSENSE = {
    "nothing": b"\0",
    "text": b"GET / HTTP/1.1\r\n\r\n\0",
    "binary": bytes(range(255, -1, -1)),
    "half JSON": b'{"method":"x"\0',
    "two values": b'{"method":"a.B"}{"method":"a.B"}\0',
    "array": b"[]\0",
    "number": b"1e400\0",
    "no method": b'{"parameters":{}}\0',
    "method is a number": b'{"method":1}\0',
    "flag is a text": b'{"method":"a.B","more":"yes"}\0',
    "bad UTF-8 in the method": b'{"method":"\xff\xfe"}\0',
    "bad UTF-8 in a parameter": b'{"method":"%b","parameters":{"user":"\xff"}}\0' % ACCOUNT.encode(),
    "half a surrogate": b'{"method":"%b","parameters":{"user":"\\ud800"}}\0' % ACCOUNT.encode(),
    "NaN": b'{"method":"%b","parameters":{"user":NaN}}\0' % ACCOUNT.encode(),
    "nested": NESTED + b"\0",
    "nested parameters": b'{"method":"%b","parameters":%b}\0' % (ACCOUNT.encode(), NESTED),
    "nested in a parameter": b'{"method":"%b","parameters":{"user":%b}}\0' % (ACCOUNT.encode(), NESTED),
    "nested in an unknown key": b'{"x":%b,"method":"a.B"}\0' % NESTED,
    "endless": b"x" * 65_537,
    "endless string": b'{"method":"' + b"x" * 65_536,
}


@pytest.mark.parametrize("data", NONSENSE.values(), ids=NONSENSE.keys())
def test_nonsense_ends_its_connection_and_no_other(
    serve: Serve, caplog: pytest.LogCaptureFixture, data: bytes
) -> None:
    """What is not a call closes the connection at once, leaves nothing behind and disturbs nobody."""
    with serve({Account: account}) as rig, rig.connect() as other:
        assert other.ask(ACCOUNT, WHO) == SUCCESS
        for _ in range(3):
            with rig.connect() as wire:
                with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                    wire.send(data)
                assert wire.at_end()
        assert other.ask(ACCOUNT, WHO) == SUCCESS
        assert rig.connections() == 1
    assert caplog.records == []


def test_nonsense_behind_a_running_call_cancels_it(serve: Serve) -> None:
    """An endless message behind a call that runs closes the connection, and the call with it."""
    forever = Forever()
    with serve({Check: forever}) as rig, rig.connect() as wire:
        wire.call(CHECK, CODE)
        assert forever.began.acquire(timeout=SECONDS)
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            wire.send(b"x" * 200_000)
        assert forever.cancelled.wait(SECONDS)
        assert wire.at_end()


def test_half_a_message_must_be_finished_in_time(serve: Serve) -> None:
    """Half a message is given up after its time, even while the peer trickles bytes; whole ones are answered."""
    with serve({Account: account}, limits=QUICK) as rig, rig.connect() as other, rig.connect() as wire:
        wire.send(ONE_CALL + ONE_CALL[:5])
        assert wire.reply() == SUCCESS
        ended, trickled = False, 0
        while not ended and trickled < 1000:
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                wire.send(b" ")
                trickled += 1
            ended = bool(select.select([wire.sock], [], [], 0.02)[0])
        assert ended
        assert wire.at_end()
        assert other.ask(ACCOUNT, WHO) == SUCCESS


def test_a_silent_peer_is_closed(serve: Serve) -> None:
    """A connection on which nothing happens is given up; one with a call that runs is not."""
    forever = Forever()
    limits = Limits(idle_seconds=0.1)
    with serve({Check: forever}, limits=limits) as rig, rig.connect() as busy, rig.connect() as silent:
        busy.call(CHECK, CODE)
        assert forever.began.acquire(timeout=SECONDS)
        assert silent.at_end()
        with rig.connect() as second:
            assert second.at_end()
        assert rig.connections() == 1
        assert not forever.cancelled.is_set()


def test_who_does_not_read_is_closed(serve: Serve) -> None:
    """A stream that its caller does not read stops being produced, and is then given up."""
    pages = []
    ended = threading.Event()

    async def backup(call: Call, _asked: Backup) -> BackupReply:
        try:
            while True:
                pages.append(1)
                await call.send(BackupReply(data="x" * 60_000))
        finally:
            ended.set()

    handlers = {Account: account, Backup: backup}
    with (
        serve(handlers, limits=QUICK, streaming=[Backup]) as rig,
        rig.connect() as other,
        rig.connect() as wire,
    ):
        wire.call(Backup.METHOD, more=True)
        assert ended.wait(SECONDS)
        assert len(pages) < 20
        assert other.ask(ACCOUNT, WHO) == SUCCESS


def test_a_slow_reader_gets_everything(serve: Serve) -> None:
    """Replies larger than the socket's buffer arrive whole, however small the sips they are read in."""

    def backup(_call: Call, _asked: Backup) -> BackupReply:
        return BackupReply(data="x" * 65_000)

    async def stream(call: Call, asked: Backup) -> BackupReply:
        for _ in range(10):
            await call.send(backup(call, asked))
        return backup(call, asked)

    with serve({Backup: stream}) as rig, rig.connect() as wire:
        wire.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        wire.call(Backup.METHOD, more=True)
        wire.call(Backup.METHOD, more=True)
        received = b""
        while received.count(b"\0") < 22:
            received += wire.sock.recv(1000)
        assert [len(msgspec.json.decode(frame)["parameters"]["data"]) for frame in received.split(b"\0")[:-1]] == [
            65_000
        ] * 22


def test_one_uid_has_so_many_connections(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    """Over its cap a uid is turned away, in the log once, and let in again when it has closed one."""
    limits = Limits(connections_per_uid=2, connections_root=2)
    with serve({Account: account}, limits=limits) as rig, rig.connect() as kept:
        with rig.connect() as wire:
            assert wire.ask(ACCOUNT, WHO) == SUCCESS
            for _ in range(5):
                with rig.connect() as refused:
                    assert refused.at_end()
            assert kept.ask(ACCOUNT, WHO) == SUCCESS
            ended = wire
        while True:  # the server learns of the end by itself
            with rig.connect() as wire, contextlib.suppress(EOFError, OSError):
                assert wire.ask(ACCOUNT, WHO) == SUCCESS
                break
        assert ended.sock.fileno() == -1
    assert len(caplog.records) == 1


def test_root_and_trusted_callers_have_more() -> None:
    """The larger caps hold for root and for the uids named, and for nobody else."""
    limits = Limits(
        trusted_uids=frozenset({33}),
        connections_per_uid=1,
        connections_root=2,
        calls_in_flight_per_uid=3,
        calls_in_flight_root=4,
    )
    assert [limits.connections_for(uid) for uid in (0, 33, 1000)] == [2, 2, 1]
    assert [limits.calls_for(uid) for uid in (0, 33, 1000)] == [4, 4, 3]
    assert [limits.trusts(uid) for uid in (0, 33, 1000)] == [True, True, False]


def test_one_uid_has_so_many_calls_in_flight(serve: Serve) -> None:
    """Over its cap a uid hears that it is busy; when a call ends, the next one is taken."""
    forever = Forever()
    limits = Limits(calls_in_flight_per_uid=1, calls_in_flight_root=1)
    with serve({Account: account, Check: forever}, limits=limits) as rig, rig.connect() as other:
        with rig.connect() as wire:
            wire.call(CHECK, CODE)
            assert forever.began.acquire(timeout=SECONDS)
            busy = {"error": "org.otpbridge.Verify.Busy", "parameters": {"retryAfter": 1}}
            assert other.ask(CHECK, CODE) == busy
        assert forever.cancelled.wait(SECONDS)
        while (reply := other.ask(ACCOUNT, WHO)) == busy:  # until the cancelled call is gone
            pass
        assert reply == SUCCESS


def test_who_pipelines_does_not_starve_others(serve: Serve) -> None:
    """With hundreds of calls of one client waiting, another client's call is answered after a few of them."""
    order: list[str] = []
    blocked, release = threading.Event(), threading.Event()

    def note(_call: Call, asked: Account) -> AccountReply:
        if asked.user == "block":
            blocked.set()
            release.wait(SECONDS)
        order.append(asked.user)
        return AccountReply(verdict=Verdict.SUCCESS)

    with serve({Account: note}) as rig, rig.connect() as blocker, rig.connect() as many, rig.connect() as one:
        assert many.ask(ACCOUNT, WHO) == one.ask(ACCOUNT, WHO) == SUCCESS
        blocker.call(ACCOUNT, {"user": "block"})
        assert blocked.wait(SECONDS)
        many.send(msgspec.json.encode({"method": ACCOUNT, "parameters": {"user": "many"}}).join([b"", b"\0"]) * 500)
        one.call(ACCOUNT, {"user": "one"})
        release.set()
        assert one.reply() == SUCCESS
        for _ in range(500):
            assert many.reply() == SUCCESS
    assert order.count("many") == 500
    assert order.index("one") < 100


def median_round_trip(wire: Wire, rounds: int = 50) -> float:
    """Seconds for one call and its reply."""
    times = []
    for _ in range(rounds):
        begin = time.perf_counter()
        assert wire.ask(ACCOUNT, WHO) == SUCCESS
        times.append(time.perf_counter() - begin)
    return statistics.median(times)


def taken_from(sock: socket.socket, chunk: bytes, *, at_most: int = 50_000_000) -> int:
    """How many bytes can be sent until nothing more is taken for half a second."""
    sock.settimeout(0.5)
    sent = 0
    with contextlib.suppress(TimeoutError):
        while sent < at_most:
            sent += sock.send(chunk)
    return sent


def takes_nothing(sock: socket.socket, *, watched: float = 0.5) -> bool:
    """Whether a socket takes no byte for so many seconds."""
    return select.select([], [sock], [], watched)[1] == []


@pytest.mark.parametrize("call", [{"method": ACCOUNT, "parameters": WHO}, {"method": CHECK, "parameters": CODE}])
def test_a_flood_with_unread_replies_stops_itself(process: Callable[..., Process], call: dict[str, Any]) -> None:
    """Who does not read its replies is not read from: memory stays, the processor rests, others are served."""
    with process() as server, Wire(server.path) as other:
        usual = median_round_trip(other)
        before = server.memory()
        floods = [Wire(server.path) for _ in range(4)]
        chunk = (msgspec.json.encode(call) + b"\0") * 500
        for flood in floods:
            assert taken_from(flood.sock, chunk) < 2_000_000
        used = server.processor_seconds()
        assert takes_nothing(floods[0].sock)
        assert server.processor_seconds() - used < 0.2
        assert median_round_trip(other) < 20 * usual + 0.01
        assert server.memory() - before < 8_192
        for flood in floods:
            flood.sock.close()
        assert other.ask(ACCOUNT, WHO) == SUCCESS
        assert server.stop() in {"", "WARNING:otpbridge.wire.server:verify: 4 connections cut off\n"}


def test_hostile_connections_leave_no_memory_behind(process: Callable[..., Process]) -> None:
    """Hundreds of nested, endless and broken messages later the server is as small as after the first ones."""
    with process() as server, Wire(server.path) as other:
        usual = median_round_trip(other)

        def attack() -> None:
            for data in NONSENSE.values():
                with Wire(server.path) as wire:
                    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                        wire.send(data)
                    assert wire.at_end()

        attack()
        before = server.memory()
        for _ in range(20):
            attack()
        assert server.memory() - before < 4_096
        assert median_round_trip(other) < 20 * usual + 0.01
        assert server.stop() == ""


def test_running_out_of_descriptors_is_survived(process: Callable[..., Process]) -> None:
    """With no descriptor left the server rests, says so once, serves those it has, and accepts again afterwards."""
    with process("40") as server, Wire(server.path) as other:
        assert other.ask(ACCOUNT, WHO) == SUCCESS
        crowd = [Wire(server.path) for _ in range(60)]
        assert crowd[0].ask(ACCOUNT, WHO) == SUCCESS
        crowd[-1].sock.settimeout(0.7)
        used = server.processor_seconds()
        with pytest.raises(TimeoutError):
            crowd[-1].ask(ACCOUNT, WHO)
        assert server.processor_seconds() - used < 0.2
        assert other.ask(ACCOUNT, WHO) == SUCCESS
        for wire in crowd:
            wire.sock.close()
        with Wire(server.path) as late:
            assert late.ask(ACCOUNT, WHO) == SUCCESS
        log = server.stop()
        assert log.count("\n") == 1
        assert "cannot accept connections: Too many open files" in log
        assert "LimitNOFILE" in log
