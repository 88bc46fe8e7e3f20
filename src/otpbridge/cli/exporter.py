"""`otpbridge exporter`: the daemon's numbers over HTTP, for Prometheus. The daemon itself has no network."""

from __future__ import annotations

import asyncio
import importlib.util
import signal
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import click

from otpbridge.cli import exposition, show
from otpbridge.cli.exits import Code, CommandError, explain
from otpbridge.cli.options import example, run_dir_option
from otpbridge.cli.session import Session
from otpbridge.config import endpoint
from otpbridge.errors import OtpBridgeError
from otpbridge.model import MetricKind
from otpbridge.wire import messages
from otpbridge.wire.messages import Family

if TYPE_CHECKING:
    from prometheus_client import Metric

_LISTEN = "127.0.0.1:9842"
_PATH = "/metrics"
_CONNECTIONS = 32
_LONGEST_HEAD = 8192
_SECONDS = 10.0
"""For a whole request: to read it, to ask the daemon, and to have the answer read."""
_DAEMON_SECONDS = 5.0
_FRESH_SECONDS = 1.0
"""Scrapes within this time share one look at the daemon."""


@click.command(epilog=example("otpbridge exporter", "otpbridge exporter --listen '[::1]:9842'"))
@click.option(
    "--listen", default=_LISTEN, show_default=True, metavar="HOST:PORT", help="Where to listen; loopback is meant."
)
@click.option(
    "--socket",
    "path",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="PATH",
    help="Listen on this Unix socket instead.",
)
@run_dir_option
@click.pass_obj
def exporter(session: Session, listen: str, path: Path | None) -> None:
    """Serve the daemon's numbers to Prometheus.

    They are at /metrics. It runs as a user of its own, which otpbridge.toml names as a caller with the right
    `metrics`. With the daemon away it goes on and says otpbridge_up 0. SIGTERM ends it.
    """
    if importlib.util.find_spec("prometheus_client") is None:
        raise CommandError(
            Code.USAGE, "the exporter needs prometheus-client: pip install 'otpbridge[metrics]'", "NoLibrary"
        )
    where = endpoint(listen)
    if where is None:
        raise CommandError(Code.USAGE, f"--listen: {listen} is not of the form HOST:PORT", "BadParameters")
    try:
        asyncio.run(_serve(_Exporter(session), where, path))
    except OSError as error:
        raise CommandError(
            Code.REFUSED, f"cannot listen at {path or listen}: {error.strerror or error}", "CannotListen"
        ) from None


async def _serve(found: _Exporter, where: tuple[str, int], path: Path | None) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    if path is not None:
        server = await asyncio.start_unix_server(found.connected, path, limit=_LONGEST_HEAD)
        place = str(path)
    else:
        server = await asyncio.start_server(found.connected, *where, limit=_LONGEST_HEAD)
        host, port = server.sockets[0].getsockname()[:2]
        place = f"http://{f'[{host}]' if ':' in host else host}:{port}{_PATH}"
    show.note(f"otpbridge: metrics at {place}")
    async with server:
        await stop.wait()
        await found.hang_up()


class _Request(NamedTuple):
    method: str
    path: str
    accept: str


class _Exporter:
    """Answers scrapes: a bounded number, each in bounded time, whatever the other side does."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._tasks: set[asyncio.Task[None]] = set()
        self._looking = asyncio.Lock()
        self._seen: list[Family] = []
        self._seen_at = -_FRESH_SECONDS
        self._trouble = ""

    def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Take a connection, or close it where there are too many."""
        if len(self._tasks) >= _CONNECTIONS:
            writer.transport.abort()
            return
        task = asyncio.create_task(self._converse(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def hang_up(self) -> None:
        """End all connections."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(_SECONDS):
                head = await reader.readuntil(b"\r\n\r\n")
                writer.write(await self._answer(_request(head)))
                await writer.drain()
                writer.close()
                await writer.wait_closed()
        except (TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, ConnectionError):
            # Whoever asked was too slow, said too much, or has gone: there is nobody to tell.
            pass
        finally:
            writer.transport.abort()

    async def _answer(self, asked: _Request | None) -> bytes:
        if asked is None:
            return _response("400 Bad Request", b"This is no request.\n")
        if asked.method not in {"GET", "HEAD"}:
            return _response("405 Method Not Allowed", b"GET or HEAD.\n", allow="GET, HEAD")
        if asked.path != _PATH:
            return _response("404 Not Found", b"There is only /metrics.\n")
        from prometheus_client.exposition import choose_encoder  # noqa: PLC0415 - an extra

        encode, kind = choose_encoder(asked.accept)
        body = encode(_Collector(await self._families()))
        return _response("200 OK", body, kind=kind, bare=asked.method == "HEAD")

    async def _families(self) -> Sequence[Family]:
        """The daemon's numbers, a second old at most."""
        async with self._looking:
            if time.monotonic() - self._seen_at >= _FRESH_SECONDS:
                self._seen = await self._look()
                self._seen_at = time.monotonic()
            return self._seen

    async def _look(self) -> list[Family]:
        from otpbridge.client.aio import AsyncClient  # noqa: PLC0415 - not needed for --help

        try:
            _client, admin = self._session.nearest()
            async with (
                asyncio.timeout(_DAEMON_SECONDS),
                AsyncClient(run_dir=self._session.folder(), admin=admin, timeout=_DAEMON_SECONDS) as daemon,
            ):
                replies = [reply async for reply in daemon.stream(messages.Read())]
        except OtpBridgeError as error:
            self._say(str(explain(error)))
            return [exposition.up(reached=False)]
        except TimeoutError:
            self._say(f"the daemon did not answer in {_DAEMON_SECONDS:g} s")
            return [exposition.up(reached=False)]
        self._say("")
        return [exposition.up(reached=True), *exposition.whole(replies)]

    def _say(self, trouble: str) -> None:
        if trouble != self._trouble:
            show.note(f"otpbridge: {show.visible(trouble) or 'the daemon answers again'}")
        self._trouble = trouble


def _request(head: bytes) -> _Request | None:
    """The first line of a request and what it accepts (RFC 9112 §3); None where it is none."""
    first, *fields = head.decode("latin-1").split("\r\n")
    words = first.split(" ")
    if len(words) != 3 or not words[2].startswith("HTTP/1."):
        return None
    named = (field.partition(":") for field in fields)
    accepts = [value.strip() for name, _, value in named if name.strip().lower() == "accept"]
    return _Request(words[0], words[1].partition("?")[0], ",".join(accepts))


def _response(
    status: str, body: bytes, *, kind: str = exposition.CONTENT_TYPE, allow: str = "", bare: bool = False
) -> bytes:
    lines = [
        f"HTTP/1.1 {status}",
        f"Content-Type: {kind}",
        f"Content-Length: {len(body)}",
        "Connection: close",
        "X-Content-Type-Options: nosniff",
        *([f"Allow: {allow}"] if allow else ()),
    ]
    return "\r\n".join([*lines, "", ""]).encode() + (b"" if bare else body)


class _Collector:
    """Families as the library wants them."""

    def __init__(self, families: Iterable[Family]) -> None:
        self._families = families

    def collect(self) -> Iterator[Metric]:
        """All of them."""
        from prometheus_client import core  # noqa: PLC0415 - an extra

        made = {MetricKind.COUNTER: core.CounterMetricFamily, MetricKind.GAUGE: core.GaugeMetricFamily}
        for family in self._families:
            if family.kind is MetricKind.HISTOGRAM:
                histogram = core.HistogramMetricFamily(family.name, family.help, labels=family.labels)
                for series in family.series:
                    histogram.add_metric(series.labels, exposition.buckets(family, series), series.sum)
                yield histogram
                continue
            metric = made[family.kind](family.name, family.help, labels=family.labels)
            for series in family.series:
                metric.add_metric(series.labels, series.value)
            yield metric
