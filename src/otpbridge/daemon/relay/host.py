"""A relay: the sockets of a daemon without its store. What is asked on them is asked on at a centre."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import time
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from otpbridge import __version__, config
from otpbridge.config import Config, Relay, Relays, endpoint
from otpbridge.daemon import sockets, systemd
from otpbridge.daemon.answers import guarded, said
from otpbridge.daemon.main import DRAIN_SECONDS, Options, harden, loop_factory
from otpbridge.daemon.metrics import MetricsCounter, of_process, of_sockets, one, values
from otpbridge.daemon.policy import Rights, uid_of
from otpbridge.daemon.relay.centres import Centres
from otpbridge.daemon.relay.forward import ForwardCounter, House, elsewhere
from otpbridge.daemon.relay.hosts import WARN_SECONDS
from otpbridge.daemon.relay.identity import Identity
from otpbridge.errors import ConfigError, OtpBridgeError
from otpbridge.model import MetricKind
from otpbridge.wire import messages
from otpbridge.wire.messages import (
    ADMIN,
    ENROLL,
    METRICS,
    NOTICES,
    VERIFY,
    Centre,
    Family,
    RelayStatus,
    RelayStatusReply,
)
from otpbridge.wire.service import Call, Server, Service

log = logging.getLogger(__name__)

_DAY = 86_400


class RelayDaemon:
    """One running relay."""

    def __init__(self, options: Options, named: str | None) -> None:
        self._options = options
        self._named = named
        self._notifier = systemd.Notifier()
        self._stop = asyncio.Event()
        self._started_at = int(time.time())
        self._config, settings = read(options, named)
        self._identity = Identity(settings)
        self._centres = Centres(settings, self._identity)
        self._house = House(_rights(self._config), self._centres)
        self._servers: list[Server] = []
        self._services: list[Service] = []

    async def run(self) -> None:
        """Serve until told to stop."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        loop.add_signal_handler(signal.SIGHUP, self._reload)
        handed = systemd.listening()
        if "relays" in handed:
            raise ConfigError("a relay serves no other hosts: systemctl disable --now otpbridged-relays.socket")
        owned = {} if handed else sockets.bind(self._options.run_dir, self._config.admin_group)
        servers = [Server(self._service(name), sock, name=name) for name, sock in (handed or owned).items()]
        self._servers = servers
        self._services = [server.service for server in servers]
        for server in servers:
            await server.start()
        chores = [
            asyncio.create_task(chore) for chore in (self._centres.look_after(), self._watchdog(), self._warn())
        ]
        gc.collect()
        gc.freeze()
        where = ", ".join(central.address for central in self._centres.all)
        log.info("otpbridged %s is ready: a relay of %s", __version__, where)
        self._notifier.tell("READY=1", f"STATUS=Relay of {where}")
        await self._stop.wait()
        log.info("stopping")
        self._notifier.tell("STOPPING=1")
        await asyncio.gather(*(server.drain(DRAIN_SECONDS) for server in servers))
        for chore in chores:
            chore.cancel()
        await asyncio.gather(*chores, return_exceptions=True)
        self._centres.close()
        for name in owned:
            (self._options.run_dir / name).unlink(missing_ok=True)

    def _service(self, name: str) -> Service:
        admin = name == "admin"
        verify = ForwardCounter(self._house, admin=admin)
        handlers: dict[type[messages.Request[Any]], Callable[[Call, Any], Awaitable[Any]]] = {
            kind: elsewhere(self._centres, interface)
            for interface in (ENROLL, NOTICES, ADMIN)
            for kind in messages.of(interface)
        }
        handlers |= {
            messages.Check: verify.check,
            messages.Begin: verify.begin,
            messages.Continue: verify.proceed,
            messages.Cancel: verify.cancel,
            messages.Account: verify.account,
            messages.RelayStatus: self._status,
            messages.Read: MetricsCounter(lambda: self._house.rights, self._numbers, admin=admin).read,
        }
        return Service(
            vendor="otpbridge",
            product="otpbridged",
            version=__version__,
            url="",
            interfaces=[VERIFY, ENROLL, NOTICES, METRICS, *([ADMIN] if admin else [])],
            handlers={request: guarded(handler) for request, handler in handlers.items()},
            streaming=(messages.Read,),
            failure=said,
            limits=sockets.limits(self._config, self._house.rights.trusted),
        )

    async def _status(self, _call: Call, _asked: RelayStatus) -> RelayStatusReply:
        warnings = self._warnings()
        host = self._identity.host
        centres = tuple(
            Centre(
                address=central.address,
                reachable=central.fault is None,
                connections=central.busy + len(central.idle),
                fault=central.fault,
            )
            for central in self._centres.all
        )
        return RelayStatusReply(
            version=__version__,
            started_at=self._started_at,
            host=host.name,
            serial=host.serial,
            expires_at=host.expires_at,
            centres=centres,
            warnings=warnings,
        )

    async def _numbers(self) -> list[Family]:
        """What a relay knows of itself; verdicts are counted at the centres."""
        centrals = [((central.address,), central) for central in self._centres.all]
        ends = self._identity.host.expires_at
        return [
            *of_process(self._started_at),
            *of_sockets(self._servers),
            values(
                "centre_up",
                MetricKind.GAUGE,
                "Whether a centre was reached when it was last tried.",
                ("centre",),
                [(name, central.fault is None) for name, central in centrals],
            ),
            values(
                "centre_connections",
                MetricKind.GAUGE,
                "Connections to a centre.",
                ("centre",),
                [(name, central.busy + len(central.idle)) for name, central in centrals],
            ),
            one(
                "relay_certificate_expires_timestamp_seconds",
                MetricKind.GAUGE,
                "When no centre lets this host in any more (Unix time).",
                ends,
            ),
        ]

    def _warnings(self) -> tuple[str, ...]:
        found = []
        self._identity.look()
        host = self._identity.host
        left = host.expires_at - time.time()
        if left < WARN_SECONDS:
            ends = "has ended" if left <= 0 else f"ends in {int(left // _DAY)} days"
            found.append(
                f"the certificate of {host.name} {ends}: then no centre lets this host in. Have a new one issued at "
                f"the centre: otpbridge relay issue {host.name}"
            )
        if all(central.fault is not None for central in self._centres.all):
            found.append("no centre is reachable: nobody who needs a code gets in")
        return tuple(found)

    def _reload(self) -> None:
        """Read the configuration and the certificate again; where one is wrong, nothing is changed."""
        self._notifier.tell("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")
        try:
            fresh, settings = read(self._options, self._named)
            identity, rights = Identity(settings), _rights(fresh)
        except OtpBridgeError as error:
            log.error("reload: %s. Nothing was changed", error)  # noqa: TRY400 - an admin's error, not ours
        else:
            self._config, self._identity, self._house.rights = fresh, identity, rights
            self._centres.use(settings, identity)
            for service in self._services:
                service.limits = sockets.limits(fresh, rights.trusted)
            log.info("reload: done")
        self._notifier.tell("READY=1")

    async def _watchdog(self) -> None:
        """Tell the service manager that we live. A centre that does not is none of our faults."""
        while self._notifier.watchdog_seconds:
            self._notifier.tell("WATCHDOG=1")
            await asyncio.sleep(self._notifier.watchdog_seconds / 3)

    async def _warn(self) -> None:
        """Once a day, into the log."""
        while True:
            await asyncio.sleep(_DAY / 24)
            for warning in self._warnings():
                log.warning("%s", warning)


def read(options: Options, named: str | None) -> tuple[Config, Relay]:
    """The configuration of a relay; `named` are centres from the command line. Raises ConfigError."""
    settings = config.load(options.config_file)
    relay = settings.relay
    if named is not None:
        if settings.relays != Relays():
            raise ConfigError("--relay: this configuration is a centre's: it has [relays]")
        relay = msgspec.structs.replace(relay, centres=tuple(each.strip() for each in named.split(",")))
        for each in relay.centres:
            if endpoint(each) is None:
                raise ConfigError(f"--relay: `{each}` is not of the form host:port")
    if not relay.centres:
        raise ConfigError('[relay]: `centres` is missing: where to ask, as in centres = ["centre.example:6363"]')
    return settings, relay


def serve(options: Options, named: str | None) -> None:
    """Run a relay until SIGTERM. Raises OtpBridgeError when it cannot start."""
    harden()

    async def run() -> None:
        await RelayDaemon(options, named).run()

    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(run())


def _rights(settings: Config) -> Rights:
    return Rights(settings, os.geteuid(), uid_of)
