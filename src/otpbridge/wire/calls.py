"""What a handler sees of a call, and what a service allows its callers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from otpbridge.errors import ProtocolError
from otpbridge.wire.messages import Message

if TYPE_CHECKING:
    from otpbridge.wire.connection import Connection

SERVICE = "org.varlink.service"


@dataclass(frozen=True, slots=True)
class Peer:
    """Who connected: the kernel's word (SO_PEERCRED, unix(7)), read when the connection was accepted."""

    uid: int
    gid: int
    pid: int

    @property
    def key(self) -> int | str:
        """Under which its connections and calls are counted."""
        return self.uid


@dataclass(frozen=True, slots=True)
class Host:
    """A host that connected over TLS, as its certificate says: name, serial number (hex), end (Unix seconds)."""

    name: str
    serial: str
    expires_at: int

    @property
    def key(self) -> int | str:
        """Under which its connections and calls are counted."""
        return self.name


@dataclass(frozen=True, slots=True)
class Limits:
    """What callers may take. Bytes, seconds, counts. A host is counted like a uid that is not trusted.

    trusted_uids            beside root: portals, which call for many people
    connections_per_uid     of one other uid; more are closed when they come
    connections_root        of root (sshd, sudo and login are root), and of each trusted uid
    connections             of all: above it only root and trusted uids get in
    calls_in_flight_per_uid of one other uid, waiting for their handlers; more get `Busy`
    calls_in_flight_root    of root, and of each trusted uid
    idle_seconds            a connection without a call
    frame_seconds           from the first byte of a message to its last
    write_seconds           a peer that does not read its reply
    backlog                 for a socket that does not listen yet; a socket from systemd keeps its own
    """

    frame_bytes: int = 65_536
    trusted_uids: frozenset[int] = frozenset()
    connections_per_uid: int = 64
    connections_root: int = 8192
    connections: int = 1024
    calls_in_flight_per_uid: int = 64
    calls_in_flight_root: int = 8192
    idle_seconds: float = 900.0
    frame_seconds: float = 10.0
    write_seconds: float = 10.0
    backlog: int = 4096

    def trusts(self, key: int | str) -> bool:
        """Whether the larger limits hold for this uid."""
        return key == 0 or key in self.trusted_uids

    def connections_for(self, key: int | str) -> int:
        """How many connections this uid or host may have open."""
        return self.connections_root if self.trusts(key) else self.connections_per_uid

    def calls_for(self, key: int | str) -> int:
        """How many calls this uid or host may have in flight."""
        return self.calls_in_flight_root if self.trusts(key) else self.calls_in_flight_per_uid


class VarlinkError(ProtocolError):
    """Raised by a handler: becomes the error reply. `name` is qualified (`org.otpbridge.Verify.UnknownStack`)."""

    def __init__(self, name: str, parameters: Message | dict[str, Any] | None = None) -> None:
        self.name = name
        self.parameters: Message | dict[str, Any] = {} if parameters is None else parameters
        super().__init__(name)


class PeerGoneError(ProtocolError):
    """The peer closed its connection, so nobody waits for this reply."""


class Call:
    """One method call that waits for its reply."""

    __slots__ = ("connection", "method", "more", "oneway")

    def __init__(self, connection: Connection, method: str, *, more: bool, oneway: bool) -> None:
        self.connection = connection
        self.method = method
        self.more = more
        self.oneway = oneway

    @property
    def peer(self) -> Peer:
        """The process that calls, on a socket of this machine."""
        peer = self.connection.peer
        if not isinstance(peer, Peer):
            raise RuntimeError(f"{self.method} was called by a host, which has no uid here")  # noqa: TRY004
        return peer

    @property
    def host(self) -> Host:
        """The host that calls, on a socket for hosts."""
        peer = self.connection.peer
        if not isinstance(peer, Host):
            raise RuntimeError(f"{self.method} was called by a process, not by a host")  # noqa: TRY004
        return peer

    async def send(self, reply: Message) -> None:
        """Send one reply that continues; the handler's result is the last one. Waits while the peer does not read.

        Only for calls with `more`. Raises PeerGoneError, and FrameTooLongError for a reply over 64 KiB.
        """
        if not self.more:
            raise RuntimeError(f"{self.method} was called without `more`: it has one reply")
        await self.connection.send_continuing(self, reply)


Handler = Callable[[Call, Any], Message | Awaitable[Message]]
"""A plain function is answered at once. It may also return a future. A coroutine function runs as a task.

When the peer hangs up, the task or future is cancelled: who sets the result of a future later asks `done()` first.
"""

Failure = Callable[[Call, BaseException], VarlinkError]
"""What to answer when a handler raises something that is not a VarlinkError."""
