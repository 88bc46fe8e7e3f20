"""The central side of relays: which hosts are let in, and what they are answered."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from otpbridge import __version__
from otpbridge.config import RelayHost, Relays, endpoint
from otpbridge.daemon.answers import guarded, said
from otpbridge.daemon.desk import Desk, invalid
from otpbridge.daemon.judge import Subject
from otpbridge.daemon.policy import Authority
from otpbridge.daemon.relay.hosts import refusal
from otpbridge.daemon.verify_handlers import VerifyCounter, subject_for
from otpbridge.errors import ConfigError, OtpBridgeError
from otpbridge.model import Caller, Outcome, Verdict
from otpbridge.store import relays
from otpbridge.wire import messages
from otpbridge.wire.calls import Host
from otpbridge.wire.messages import RELAY, Account, Begin, Check, Hello, HelloReply
from otpbridge.wire.service import Call, Limits, Server, Service
from otpbridge.wire.tls import Tls

if TYPE_CHECKING:
    from otpbridge.daemon.relay.issuing import OwnCertificate

log = logging.getLogger(__name__)

_LOOK_SECONDS = 2.0
_MOST_CONNECTIONS = 16_384
_LARGEST_ID = 1 << 32


class Centre:
    """Lets hosts in and serves them. `desk` is the daemon's."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._revoked: frozenset[str] = frozenset()
        self._met: set[str] = set()
        self._own: OwnCertificate | None = None
        self._tls: Tls | None = None
        self._server: Server | None = None

    # --- running ---

    async def serve(self, sock: socket.socket) -> Server:
        """Serve hosts on a TCP socket. Raises ConfigError, StoreError or VaultError."""
        # With the library that reads certificates, which takes long to load.
        from otpbridge.daemon.relay.authority import identify  # noqa: PLC0415
        from otpbridge.daemon.relay.issuing import OwnCertificate  # noqa: PLC0415

        await self._look()
        self._own = OwnCertificate(self._desk)
        self._tls = Tls(await self._own.context(), lambda certificate: self._let_in(identify(certificate)))
        self._server = Server(self._service(), sock, name="relays", tls=self._tls)
        return self._server

    async def keep_up(self) -> None:
        """See what other daemons have revoked, and renew this machine's certificate, until cancelled."""
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            try:
                if self._desk.store.is_shared:
                    await self._look()
                if self._tls is not None and self._own is not None and self._own.is_due:
                    self._tls.context = await self._own.context()
                    log.info("relays: this machine has a new certificate")
            except OtpBridgeError as error:
                log.warning("relays: %s", error)
            self.hang_up()

    def reload(self) -> None:
        """Let a new configuration count, for hosts that are connected too."""
        if self._own is not None:
            self._own.forget()
        if self._server is not None:
            self._server.service.limits = self._limits()
        self.hang_up()

    async def revoked(self) -> int:
        """Certificates were revoked: end the connections that they are in use for; how many there were."""
        await self._look()
        return self.hang_up()

    def hang_up(self) -> int:
        """End the connections of hosts that are not let in any more."""
        if self._server is None:
            return 0
        ended = self._server.hang_up(lambda peer: isinstance(peer, Host) and self.refusal(peer) is not None)
        if ended:
            log.warning("relays: ended %d connections of hosts that are not let in any more", ended)
        return ended

    def connections_of(self, host: str) -> int:
        """How many connections a host has open here."""
        return 0 if self._server is None else self._server.connections_of(host)

    def entry_of(self, host: str) -> RelayHost | None:
        """What a host may ask about; None where the configuration does not let it in."""
        return self._desk.config.relays.hosts.get(host)

    # --- who is let in ---

    def refusal(self, host: Host) -> str | None:
        """Why a host is not let in; None where it is."""
        if self.entry_of(host.name) is None:
            return f'the configuration has no [relays.hosts."{host.name}"]'
        if host.serial in self._revoked:
            return f"certificate {host.serial} of {host.name} is revoked"
        if host.expires_at <= self._desk.clock():
            return f"certificate {host.serial} of {host.name} has ended"
        return None

    def _let_in(self, host: Host) -> Host:
        refused = self.refusal(host)
        if refused is not None:
            raise ConfigError(refused)
        if host.serial not in self._met:
            self._met.add(host.serial)
            log.info("relays: host %s is there, with certificate %s", host.name, host.serial)
        return host

    async def _look(self) -> None:
        self._revoked = await self._desk.store.read(relays.revoked)

    # --- what they are answered ---

    def _service(self) -> Service:
        counter = RelayedCounter(self._desk, self)
        handlers: dict[type[messages.Request[Any]], Callable[..., Awaitable[Any]]] = {
            messages.Hello: counter.hello,
            messages.RelayedCheck: counter.check,
            messages.RelayedBegin: counter.begin,
            messages.RelayedContinue: counter.proceed,
            messages.RelayedCancel: counter.cancel,
            messages.RelayedAccount: counter.account,
        }
        return Service(
            vendor="otpbridge",
            product="otpbridged",
            version=__version__,
            url="",
            interfaces=[RELAY],
            handlers={request: guarded(handler) for request, handler in handlers.items()},
            failure=said,
            limits=self._limits(),
        )

    def _limits(self) -> Limits:
        settings = self._desk.config.relays
        return Limits(
            connections_per_uid=settings.connections_per_host,
            calls_in_flight_per_uid=settings.connections_per_host,
            connections=_MOST_CONNECTIONS,
            idle_seconds=float(max(settings.idle, self._desk.config.limits.conversation)),
        )


class RelayedCounter(VerifyCounter):
    """Handlers of org.otpbridge.Relay. No host is ever admin, and no uid on one is any here."""

    def __init__(self, desk: Desk, centre: Centre) -> None:
        super().__init__(desk, None, admin=False)
        self._centre = centre

    async def hello(self, call: Call, _asked: Hello) -> HelloReply:
        """Who asks."""
        return HelloReply(host=call.host.name, version=__version__)

    async def subject(self, call: Call, asked: Check | Begin | Account) -> Subject | None:
        """Who is to be verified; None, with a row in the audit log, where the host may not ask."""
        assert isinstance(asked, messages.RelayedCheck | messages.RelayedBegin | messages.RelayedAccount)
        origin, host = asked.origin, call.host
        if not (0 <= origin.uid < _LARGEST_ID and 0 <= origin.pid < _LARGEST_ID):
            raise invalid("origin")
        caller = Caller(origin.uid, -1, origin.pid, host=host.name)
        role = Authority.SELF if origin.own else Authority.CALLER
        subject = subject_for(caller, role, asked)
        entry = self._centre.entry_of(host.name)
        stack = asked.stack
        if stack is None:
            stack = self.desk.judge.stacks.choose(None, subject.context.service).name
        refused = self._centre.refusal(host)
        if refused is None and entry is not None:
            refused = await refusal(entry, subject.client, subject.user, stack)
        if refused is not None or entry is None:
            name = "account" if isinstance(asked, Account) else "verify"
            row = subject.event(name, Outcome(Verdict.PERM_DENIED, refused or "the host has no entry"))
            await self.desk.change(lambda transaction: transaction.audit(row))
            return None
        return replace(subject, enrols=entry.enrol)


def listen(settings: Relays) -> socket.socket | None:
    """The socket that hosts connect to; None where the configuration names none. Raises ConfigError."""
    if settings.listen is None:
        return None
    where = endpoint(settings.listen)
    assert where is not None
    family = socket.AF_INET6 if ":" in where[0] else socket.AF_INET
    both = where[0] == "::" and socket.has_dualstack_ipv6()
    try:
        return socket.create_server(where, family=family, backlog=1024, dualstack_ipv6=both)
    except OSError as error:
        raise ConfigError(f"[relays] listen: {settings.listen}: cannot listen: {error.strerror or error}") from None
