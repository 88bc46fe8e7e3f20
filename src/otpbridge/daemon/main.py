"""Start, run, reload and stop the daemon."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import gc
import logging
import os
import resource
import signal
import socket
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from otpbridge import __version__, config, webauthn
from otpbridge.config import Config
from otpbridge.daemon import sockets, systemd
from otpbridge.daemon.activity import ActivityCounter
from otpbridge.daemon.admin_handlers import AdminCounter
from otpbridge.daemon.answers import guarded, said
from otpbridge.daemon.archiving import Archivist
from otpbridge.daemon.audit_handlers import AuditDesk
from otpbridge.daemon.backup_handlers import BackupDesk
from otpbridge.daemon.desk import Desk
from otpbridge.daemon.fido2_handlers import Fido2Counter
from otpbridge.daemon.followers import Board
from otpbridge.daemon.import_handlers import ImportDesk
from otpbridge.daemon.journal import AuditJournal, Journal, JournalHandler, listens
from otpbridge.daemon.judge import Judge
from otpbridge.daemon.key_handlers import KeyDesk
from otpbridge.daemon.local_keys import LocalKeys
from otpbridge.daemon.metrics import MetricsCounter, Sources
from otpbridge.daemon.notice_handlers import NoticesCounter
from otpbridge.daemon.outside import Shelter, brief
from otpbridge.daemon.people_handlers import PeopleCounter
from otpbridge.daemon.policy import Rights, uid_of
from otpbridge.daemon.relay import centre
from otpbridge.daemon.relay.centre import Centre
from otpbridge.daemon.relay.desk import RelayDesk
from otpbridge.daemon.stacks import Stacks
from otpbridge.daemon.tally import Tally
from otpbridge.daemon.verify_handlers import VerifyCounter
from otpbridge.errors import OtpBridgeError, StoreError
from otpbridge.model import AuditEvent
from otpbridge.store import tokens
from otpbridge.store.store import Store, open_store
from otpbridge.store.writer import Transaction
from otpbridge.vault.keys import KeyPlace
from otpbridge.wire import messages
from otpbridge.wire.messages import ADMIN, ENROLL, METRICS, NOTICES, VERIFY
from otpbridge.wire.service import Limits, Server, Service

log = logging.getLogger(__name__)

DRAIN_SECONDS = 10.0
SHARE = 0.1
"""Of the event loop, for each user who is neither root nor a configured caller."""
_TIDY_SECONDS = 60.0
_SWITCH_SECONDS = 0.001
_PR_SET_DUMPABLE = 4

_STREAMING = (
    messages.Activity,
    messages.ManagedUsers,
    messages.ListUsers,
    messages.ListTokens,
    messages.AuditTail,
    messages.AuditExport,
    messages.AuditPrune,
    messages.Watch,
    messages.RotateKey,
    messages.ListRelays,
    messages.Backup,
    messages.Read,
)


@dataclass(frozen=True, slots=True)
class Options:
    """Where a daemon lives."""

    state_dir: Path
    run_dir: Path
    config_file: Path | None


def harden() -> None:
    """No core dump, no ptrace by the same uid, nothing readable by others: this process holds keys.

    And as many descriptors as it may have: each connection is one.
    """
    os.umask(0o077)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)


def key_place(settings: Config, options: Options) -> KeyPlace:
    """Where the master key of this daemon is."""
    return KeyPlace(settings.key, options.state_dir, os.environ.get("CREDENTIALS_DIRECTORY"))


@dataclass(frozen=True, slots=True)
class Configured:
    """A configuration with what it describes."""

    config: Config
    rights: Rights
    stacks: Stacks


def configured(options: Options, shelter: Shelter | None = None) -> Configured:
    """Read the configuration and make what it describes. Raises ConfigError with file and line."""
    source = config.read(options.config_file)
    settings = source.parse()
    if settings.has_keys:
        # Now, and not while a login waits. Without it they are loaded for whoever is the first to have a key.
        webauthn.load()
    with source.told():
        return Configured(settings, Rights(settings, os.geteuid(), uid_of), Stacks(settings, shelter))


class Daemon:
    """One running daemon."""

    def __init__(self, options: Options, made: Configured, store: Store, keys: KeyPlace) -> None:
        self._options = options
        self._store = store
        self._notifier = systemd.Notifier()
        self._stop = asyncio.Event()
        clock = time.time
        host = socket.gethostname().partition(".")[0]
        judge = Judge(store, made.config, made.stacks, clock=clock, random=os.urandom, host=host, tally=Tally())
        self._desk = Desk(
            store=store,
            config=made.config,
            rights=made.rights,
            judge=judge,
            clock=clock,
            random=os.urandom,
            host=host,
            started_at=int(clock()),
        )
        self._board = Board(store)
        self._archivist = Archivist(self._desk, options.state_dir)
        self._local_keys = LocalKeys(made.config.local_keys)
        self._centre = Centre(self._desk)
        self._keys = keys
        self._servers: list[Server] = []
        self._sources = Sources(self._desk, keys, self._board, self._local_keys, lambda: self._servers)
        self._services: list[Service] = []

    async def run(self) -> None:
        """Serve until told to stop."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        loop.add_signal_handler(signal.SIGHUP, self._reload)
        handed = systemd.listening()
        relays = handed.pop("relays", None) or centre.listen(self._desk.config.relays)
        owned = {} if handed else sockets.bind(self._options.run_dir, self._desk.config.admin_group)
        servers = [
            Server(self._service(name), sock, name=name, share=1.0 if name == "admin" else SHARE)
            for name, sock in (handed or owned).items()
        ]
        self._store.start()
        audit_journal = self._for_journal(loop)
        self._servers = servers
        self._services = [server.service for server in servers]
        if relays is not None:
            servers.append(await self._centre.serve(relays))
        for server in servers:
            await server.start()
        chores = [
            asyncio.create_task(work) for work in (self._tidy(), self._watchdog(), self._archivist.keep_short())
        ]
        if relays is not None:
            chores.append(asyncio.create_task(self._centre.keep_up()))
        if self._store.is_shared:
            chores.append(asyncio.create_task(self._board.keep_up(self._store)))
        await self._note("daemon started")
        # Everything that was loaded stays: keep the collector from walking over it again and again.
        gc.collect()
        gc.freeze()
        log.info("otpbridged %s is ready: %s", __version__, self._where(handed), extra={"event": "started"})
        self._notifier.tell("READY=1", f"STATUS=Serving {self._store.url}")
        await self._stop.wait()
        log.info("stopping", extra={"event": "stopped"})
        self._notifier.tell("STOPPING=1")
        self._board.close()
        await asyncio.gather(*(server.drain(DRAIN_SECONDS) for server in servers))
        for chore in chores:
            chore.cancel()
        await asyncio.gather(*chores, return_exceptions=True)
        for name in owned:
            (self._options.run_dir / name).unlink(missing_ok=True)
        await self._note("daemon stopped")
        await self._store.close()
        if audit_journal is not None:
            audit_journal.flush()

    def _for_journal(self, loop: asyncio.AbstractEventLoop) -> AuditJournal | None:
        """What tells the journal of each row of the audit log; None where the daemon does not log there."""
        found = [each.journal for each in logging.getLogger().handlers if isinstance(each, JournalHandler)]
        if not found:
            return None
        audit_journal = AuditJournal(found[0], loop.call_later)
        self._store.watch(audit_journal.take)
        return audit_journal

    def _where(self, handed: dict[str, socket.socket]) -> str:
        return f"sockets {', '.join(handed)} from systemd" if handed else f"sockets in {self._options.run_dir}"

    def _service(self, name: str) -> Service:
        admin = name == "admin"
        desk = self._desk
        verify, enroll = VerifyCounter(desk, self._local_keys, admin=admin), Fido2Counter(desk, admin=admin)
        people = PeopleCounter(desk, admin=admin)
        handlers: dict[type[messages.Request[Any]], Callable[..., Awaitable[Any]]] = {
            messages.Check: verify.check,
            messages.Begin: verify.begin,
            messages.Continue: verify.proceed,
            messages.Cancel: verify.cancel,
            messages.Account: verify.account,
            messages.Start: enroll.start,
            messages.Confirm: enroll.confirm,
            messages.StartFido2: enroll.start_fido2,
            messages.FinishFido2: enroll.finish_fido2,
            messages.Discard: enroll.discard,
            messages.NewRecoveryCodes: enroll.new_recovery_codes,
            messages.SetPassword: enroll.set_password,
            messages.Tokens: enroll.list_tokens,
            messages.Remove: enroll.remove,
            messages.ChooseEnforcement: enroll.set_enforcement,
            messages.Activity: ActivityCounter(desk, admin=admin).activity,
            messages.ManagedUsers: people.list_users,
            messages.ShowManagedUser: people.show_user,
            messages.AddManagedUser: people.add_user,
            messages.RemoveManagedUser: people.remove_user,
            messages.Reset: people.reset,
            messages.Invite: people.invite,
            messages.Watch: NoticesCounter(desk, self._board, admin=admin).watch,
            messages.Read: MetricsCounter(lambda: desk.rights, self._sources.gather, admin=admin).read,
        }
        interfaces = [VERIFY, ENROLL, NOTICES, METRICS]
        if admin:
            interfaces.append(ADMIN)
            desk_of_admin = AdminCounter(desk, self._keys, self._archivist)
            audit = AuditDesk(desk, self._board, self._archivist)
            relays = RelayDesk(desk, self._centre)
            handlers |= {
                messages.AddUser: desk_of_admin.add_user,
                messages.ShowUser: desk_of_admin.show_user,
                messages.RemoveUser: desk_of_admin.remove_user,
                messages.ListUsers: desk_of_admin.list_users,
                messages.SetEnforcement: desk_of_admin.set_enforcement,
                messages.ResetUser: desk_of_admin.reset_user,
                messages.ExemptUser: desk_of_admin.exempt_user,
                messages.LockUser: desk_of_admin.lock_user,
                messages.UnlockUser: desk_of_admin.unlock_user,
                messages.IssueRegistrationCode: desk_of_admin.issue_registration_code,
                messages.ExplainStack: desk_of_admin.explain_stack,
                messages.ListTokens: desk_of_admin.list_tokens,
                messages.ShowToken: desk_of_admin.show_token,
                messages.DisableToken: desk_of_admin.disable_token,
                messages.EnableToken: desk_of_admin.enable_token,
                messages.RemoveToken: desk_of_admin.remove_token,
                messages.Resync: desk_of_admin.resync,
                messages.Import: ImportDesk(desk).take,
                messages.Status: desk_of_admin.status,
                messages.AuditTail: audit.tail,
                messages.AuditVerify: audit.verify,
                messages.AuditExport: audit.export,
                messages.AuditPrune: audit.prune,
                messages.AuditCheckRows: audit.check_rows,
                messages.RotateKey: KeyDesk(desk, self._keys).rotate,
                messages.IssueRelay: relays.issue,
                messages.RevokeRelay: relays.revoke,
                messages.ListRelays: relays.list,
                messages.RelayStatus: relays.no_relay,
                messages.Backup: BackupDesk(desk).backup,
            }
        return Service(
            vendor="otpbridge",
            product="otpbridged",
            version=__version__,
            url="",
            interfaces=interfaces,
            handlers={request: guarded(handler) for request, handler in handlers.items()},
            streaming=_STREAMING,
            failure=said,
            limits=self._limits(),
        )

    def _limits(self) -> Limits:
        return sockets.limits(self._desk.config, self._desk.rights.trusted)

    def _reload(self) -> None:
        """Read the configuration again; what cannot change while running is said and left as it is."""
        self._notifier.tell("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")
        desk = self._desk
        try:
            made = configured(self._options, desk.judge.stacks.shelter)
        except OtpBridgeError as error:
            log.error(  # noqa: TRY400 - an admin's error, not ours
                "reload: %s. Nothing was changed", error, extra={"event": "reload refused"}
            )
        else:
            fresh = made.config
            fixed = [
                name for name in ("key", "store", "admin_group") if getattr(fresh, name) != getattr(desk.config, name)
            ]
            if fresh.relays.listen != desk.config.relays.listen:
                fixed.append("relays (listen)")
            if fresh.throttle.per_source != desk.config.throttle.per_source:
                fixed.append("throttle (per source)")
            if fixed:
                log.warning("reload: changes in %s count only after a restart", ", ".join(fixed))
            desk.judge = Judge(
                desk.store,
                fresh,
                made.stacks,
                clock=desk.clock,
                random=desk.random,
                host=desk.host,
                tally=desk.judge.tally,
            )
            desk.config, desk.rights = fresh, made.rights
            self._local_keys.use(fresh.local_keys)
            self._centre.reload()
            for service in self._services:
                service.limits = self._limits()
            log.info("reload: done")
        self._notifier.tell("READY=1")

    async def _tidy(self) -> None:
        """Once a minute: pending tokens whose time is up, back-off that counts nothing any more."""
        while True:
            try:
                await self._desk.change(self._tidied)
            except OtpBridgeError as error:
                log.warning("tidying failed: %s", error)
            await asyncio.sleep(_TIDY_SECONDS)

    def _tidied(self, transaction: Transaction) -> None:
        for token, client, user in tokens.expire(transaction):
            transaction.audit(AuditEvent("token expired", client=client, user=user, token=token))
        self._store.tidy(transaction)

    async def _watchdog(self) -> None:
        """Tell the service manager that we live, each time after the store has answered."""
        if not self._notifier.watchdog_seconds:
            return
        while True:
            try:
                await self._store.candidate("", "")
            except StoreError as error:
                if not self._store.is_shared:
                    raise
                # A server that is away is none of our faults: it is looked for at each login.
                log.warning("%s", error)
            self._notifier.tell("WATCHDOG=1")
            await asyncio.sleep(self._notifier.watchdog_seconds / 3)

    async def _note(self, name: str) -> None:
        detail: dict[str, str | int | bool] = {"version": __version__}
        event = AuditEvent(name, uid=os.geteuid(), pid=os.getpid(), detail=detail)
        with contextlib.suppress(OtpBridgeError):
            await self._desk.change(lambda transaction: transaction.audit(event))


def serve(options: Options) -> None:
    """Run a daemon until SIGTERM. Raises OtpBridgeError when it cannot start."""
    harden()
    # The writer thread hands back its results through the interpreter lock; 5 ms would be most of a login.
    sys.setswitchinterval(_SWITCH_SECONDS)
    made = configured(options)
    settings = made.config
    keys = key_place(settings, options)
    store = open_store(settings.store.url, options.state_dir, keys, os.urandom, settings.throttle.per_source)

    async def run() -> None:
        await Daemon(options, made, store, keys).run()

    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(run())
    if threading.active_count() > 1:
        # All is closed. What is left are verifiers that hang, and the interpreter would wait for some of them.
        logging.shutdown()
        os._exit(0)


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """uvloop where it is installed (extra `speed`), else asyncio's own loop."""
    try:
        import uvloop  # noqa: PLC0415 - an extra
    except ImportError:
        return None
    return uvloop.new_event_loop


def start_logging() -> None:
    """Log to standard error, or to the journal itself where that listens there."""
    handler: logging.Handler
    if listens():
        handler = JournalHandler(Journal())
    else:
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(logging.Formatter("otpbridged: %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    logging.getLogger("alembic").setLevel(logging.WARNING)
    logging.raiseExceptions = False
    # Python's own hooks would write down the text of the error, which may hold what a person has typed.
    threading.excepthook = _unheeded
    sys.unraisablehook = _unheeded


def _unheeded(failed: threading.ExceptHookArgs | sys.UnraisableHookArgs) -> None:
    error = failed.exc_value
    log.error("an error reached nobody: %s", failed.exc_type.__name__ if error is None else brief(error))
