"""org.otpbridge.Metrics: the daemon's numbers, as they are when somebody reads them.

Labels are of what is fixed here or in the configuration. What callers say is in none of them: whoever guesses names
makes no series, and learns of none.
"""

from __future__ import annotations

import asyncio
import logging
import os
import resource
import sys
import threading
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from otpbridge import __version__
from otpbridge.daemon import journal
from otpbridge.daemon.desk import Desk, denied
from otpbridge.daemon.followers import Board
from otpbridge.daemon.local_keys import LocalKeys
from otpbridge.daemon.outside import brief
from otpbridge.daemon.pages import send_but_last
from otpbridge.daemon.policy import Rights
from otpbridge.model import Caller, MetricKind
from otpbridge.store import census
from otpbridge.store.census import Census
from otpbridge.store.histogram import Histogram
from otpbridge.vault.keys import KeyPlace
from otpbridge.wire.messages import Family, Read, ReadReply, Series
from otpbridge.wire.service import Call

if TYPE_CHECKING:
    from otpbridge.wire.service import Server

log = logging.getLogger(__name__)

_SERIES = 100
"""Series of a family that stand together in a message."""
_LOOK_SECONDS = 3.0
"""How long a look at the store may take; one that takes longer is waited for by the next reader."""
_CONVERSATIONS = "conversations"
_COUNTER, _GAUGE = MetricKind.COUNTER, MetricKind.GAUGE
_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")

Values = Iterable[tuple[tuple[str, ...], float]]


class MetricsCounter:
    """The handler of org.otpbridge.Metrics for one socket. `rights` are those of now."""

    def __init__(
        self, rights: Callable[[], Rights], gather: Callable[[], Awaitable[list[Family]]], *, admin: bool
    ) -> None:
        self._rights = rights
        self._gather = gather
        self._admin = admin

    async def read(self, call: Call, _asked: Read) -> ReadReply:
        """All families, in as many replies as they need."""
        peer = call.peer
        if not self._rights().may_watch(Caller(peer.uid, peer.gid, peer.pid, admin_socket=self._admin)):
            raise denied()
        pieces = (piece for family in await self._gather() for piece in _pieces(family))
        return await send_but_last(call, pieces, lambda some: ReadReply(families=some))


def _pieces(family: Family) -> Iterator[Family]:
    for start in range(0, len(family.series) or 1, _SERIES):
        yield Family(
            name=family.name,
            kind=family.kind,
            help=family.help,
            labels=family.labels,
            bounds=family.bounds,
            series=family.series[start : start + _SERIES],
        )


def values(name: str, kind: MetricKind, said: str, labels: Sequence[str], found: Values) -> Family:
    """A family of numbers with labels."""
    series = tuple(Series(labels=names, value=float(value)) for names, value in found)
    return Family(name=f"otpbridge_{name}", kind=kind, help=said, labels=tuple(labels), series=series)


def one(name: str, kind: MetricKind, said: str, value: float) -> Family:
    """A family of one number."""
    return values(name, kind, said, (), [((), value)])


def spread(name: str, said: str, histogram: Histogram) -> Family:
    """A histogram."""
    return Family(
        name=f"otpbridge_{name}",
        kind=MetricKind.HISTOGRAM,
        help=said,
        labels=(),
        bounds=histogram.bounds,
        series=(Series(labels=(), counts=tuple(histogram.counts), sum=histogram.sum),),
    )


def _said(look: asyncio.Future[Census]) -> None:
    if not look.cancelled() and (error := look.exception()) is not None:
        log.warning("metrics: the store could not be read: %s", brief(error))


def _by(counts: Mapping[str, int]) -> Values:
    return (((name,), count) for name, count in counts.items())


# --- of each daemon, relay or not ---


def of_process(started_at: int) -> list[Family]:
    """The process: its version, and what it takes of the machine."""
    fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    version = ".".join(map(str, sys.version_info[:3]))
    return [
        values("build_info", _GAUGE, "Version of the daemon.", ("version", "python"), [((__version__, version), 1)]),
        one("start_time_seconds", _GAUGE, "When the daemon was started (Unix time).", started_at),
        one(
            "process_cpu_seconds_total",
            _COUNTER,
            "CPU time of the daemon, user and system.",
            (int(fields[11]) + int(fields[12])) / _TICKS,
        ),
        one("process_resident_memory_bytes", _GAUGE, "Memory of the daemon.", int(fields[21]) * _PAGE),
        # One of them is that of the folder which is being listed.
        one("process_open_fds", _GAUGE, "Descriptors open.", len([*Path("/proc/self/fd").iterdir()]) - 1),
        one("process_max_fds", _GAUGE, "Descriptors that may be open.", soft),
        one("process_threads", _GAUGE, "Threads.", threading.active_count()),
        values("journal_entries_total", _COUNTER, "Entries for the journal.", ("fate",), _by(journal.counts())),
    ]


def of_sockets(servers: Sequence[Server]) -> list[Family]:
    """Who connects and what is called."""
    named = [(server.name, server) for server in servers]
    talks = sum(len(state.get(_CONVERSATIONS, ())) for server in servers for state in server.states())
    return [
        values(
            "connections", _GAUGE, "Connections open now.", ("socket",), [((n,), s.connections) for n, s in named]
        ),
        values(
            "connections_opened_total",
            _COUNTER,
            "Connections that were let in.",
            ("socket",),
            [((n,), s.opened) for n, s in named],
        ),
        values(
            "connections_refused_total",
            _COUNTER,
            "Connections that were not let in: at the limit of their caller or of all, without descriptors, or by "
            "the TLS handshake.",
            ("socket", "reason"),
            [((n, why), count) for n, s in named for why, count in s.refused.items()],
        ),
        values(
            "calls_in_flight", _GAUGE, "Calls being answered now.", ("socket",), [((n,), s.calls) for n, s in named]
        ),
        values(
            "calls_total",
            _COUNTER,
            "Calls by method.",
            ("socket", "method"),
            [((n, method), count) for n, s in named for method, count in s.service.calls.items() if count],
        ),
        values(
            "call_errors_total",
            _COUNTER,
            "Calls that were answered with an error; a refusal is none.",
            ("socket", "method", "error"),
            [((n, *place), count) for n, s in named for place, count in sorted(s.service.errors.items())],
        ),
        one("sessions", _GAUGE, "Conversations that wait for a person.", talks),
    ]


# --- of a daemon with a store ---


class Sources:
    """Where the numbers of a daemon with a store come from."""

    def __init__(
        self, desk: Desk, keys: KeyPlace, board: Board, local_keys: LocalKeys, servers: Callable[[], Sequence[Server]]
    ) -> None:
        self._desk = desk
        self._keys = keys
        self._board = board
        self._local_keys = local_keys
        self._servers = servers
        self._look: asyncio.Future[Census] | None = None
        """A look at the store that is under way, or the last one."""

    async def gather(self) -> list[Family]:
        """All families."""
        return [
            *of_process(self._desk.started_at),
            *of_sockets(self._servers()),
            *self._verdicts(),
            *await self._store(),
            *self._key(),
            *self._beside(),
        ]

    def _verdicts(self) -> list[Family]:
        tally = self._desk.judge.tally
        return [
            values(
                "verifications_total",
                _COUNTER,
                "Verifications by stack, PAM service, kind of the token that was accepted, and verdict.",
                ("stack", "service", "kind", "verdict"),
                sorted(tally.verdicts.items()),
            ),
            values("verification_reasons_total", _COUNTER, "Why they came out so.", ("reason",), _by(tally.reasons)),
            spread("verification_seconds", "From the last answer to the verdict.", tally.seconds),
            values(
                "account_checks_total",
                _COUNTER,
                "PAM's account phases by service and verdict.",
                ("service", "verdict"),
                sorted(tally.accounts.items()),
            ),
        ]

    async def _store(self) -> list[Family]:
        store = self._desk.store
        tally = store.tally
        found = await self._census()
        backend = "postgresql" if store.is_shared else "sqlite"
        families = [
            values("store_info", _GAUGE, "What the store is.", ("backend",), [((backend,), 1)]),
            one("store_up", _GAUGE, "Whether the store could be read just now.", found is not None),
            spread("store_commit_seconds", "How long commits took: until they were on disk.", tally.commit_seconds),
            spread("store_batch_size", "Settlements and changes in one commit.", tally.batch_size),
            one(
                "store_last_commit_timestamp_seconds",
                _GAUGE,
                "When something was last committed (Unix time); 0 if nothing was yet.",
                tally.last_commit,
            ),
            one("store_queue_length", _GAUGE, "Settlements and changes that wait to be written.", store.waiting),
            one("store_failed_batches_total", _COUNTER, "Batches that could not be written.", tally.failed_batches),
            one("store_retries_total", _COUNTER, "Batches that were written again.", tally.retries),
        ]
        free = census.free_bytes(store.engine)
        if free is not None:
            families.append(one("store_free_bytes", _GAUGE, "Room on the disk of the store.", free))
        if found is not None:
            families += self._counted(found)
        return families

    def _counted(self, found: Census) -> list[Family]:
        lag = max((found.sequence - place for place in self._board.places()), default=0)
        return [
            one("store_size_bytes", _GAUGE, "Size of the store.", found.bytes),
            one("audit_sequence", _GAUGE, "Number of the newest row of the audit log.", found.sequence),
            one("follower_lag_rows", _GAUGE, "Rows that the slowest follower has yet to hear of.", max(lag, 0)),
            values(
                "backoff_held",
                _GAUGE,
                f"Users, sources and tokens that have to wait now, of the newest {census.MOST_COUNTED} with misses.",
                ("kind",),
                _by(found.held),
            ),
            values(
                "backoff_missed",
                _GAUGE,
                f"Users, sources and tokens with misses that are not forgotten, {census.MOST_COUNTED} at most.",
                ("kind",),
                _by(found.missed),
            ),
        ]

    async def _census(self) -> Census | None:
        """A look at the store; None where it cannot be read, or not soon."""
        store = self._desk.store
        look = self._look
        if look is None or look.done():
            looking = store.read_long(partial(census.take, engine=store.engine, now=self._desk.now_ms))
            look = self._look = asyncio.ensure_future(looking)
            look.add_done_callback(_said)
        await asyncio.wait((look,), timeout=_LOOK_SECONDS)
        return look.result() if look.done() and look.exception() is None else None

    def _key(self) -> list[Family]:
        ring = self._desk.store.vault.keyring
        about = (str(self._keys.source), ring.primary.id.hex())
        return [
            values("key_info", _GAUGE, "Where the master key is from, and its id.", ("source", "id"), [(about, 1)]),
            one("key_beside_store", _GAUGE, "Whether who steals the disk has key and store.", self._beside_store()),
            one("key_rotation_unfinished", _GAUGE, "Whether there are two master keys.", bool(ring.previous)),
        ]

    def _beside_store(self) -> bool:
        return self._keys.beside_store and not self._desk.store.is_shared

    def _beside(self) -> list[Family]:
        stacks = self._desk.judge.stacks
        return [
            one("followers", _GAUGE, "Connections that follow the audit log.", len(self._board.places())),
            one("verifier_threads", _GAUGE, "Threads in which verifiers work.", stacks.shelter.threads),
            one("verifiers_overdue", _GAUGE, "Calls of verifiers that were given up and go on.", stacks.shelter.lost),
            one("verifier_faults", _GAUGE, "Verifiers of the configuration that do not load.", len(stacks.faults)),
            one("local_key_busy", _GAUGE, "Whether a security key of this machine is asked.", self._local_keys.busy),
        ]
