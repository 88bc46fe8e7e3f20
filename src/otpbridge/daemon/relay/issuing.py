"""The central side's certificates: those it issues to hosts, and its own. Loaded where there are relays."""

from __future__ import annotations

import logging
import socket
import ssl
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from cryptography import x509

from otpbridge.daemon.desk import Desk
from otpbridge.daemon.relay import authority, tls
from otpbridge.daemon.relay.authority import Authority, end_of
from otpbridge.daemon.relay.hosts import WARN_SECONDS
from otpbridge.errors import ConfigError
from otpbridge.store import relays

log = logging.getLogger(__name__)


async def issuer(desk: Desk) -> Authority:
    """The store's own authority, made where there is none."""
    store = desk.store
    found = await store.read(partial(relays.authority, vault=store.vault))
    if found is None:
        fresh = authority.make(desk.clock(), desk.host)
        found = await desk.change(partial(relays.keep_authority, vault=store.vault, fresh=fresh))
    return Authority(found)


@dataclass(slots=True)
class _Used:
    """The certificate in use: when it ends (Unix seconds), and the files that it is from, if it is."""

    end: int
    files: tuple[tuple[Path, int], ...] = ()


class OwnCertificate:
    """This machine's certificate, as its hosts see it."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._used = _Used(0)

    @property
    def is_due(self) -> bool:
        """Whether another one is to be used."""
        used = self._used
        if used.files:
            return used.end == 0 or used.files != _stamped(*(path for path, _ in used.files))
        return used.end - self._desk.clock() < WARN_SECONDS

    def forget(self) -> None:
        """Have it made or read anew when that is asked for next: names or files may be others."""
        self._used.end = 0

    async def context(self) -> ssl.SSLContext:
        """Make it or read it, for the connections from now on. Raises ConfigError, StoreError or VaultError."""
        settings = self._desk.config.relays
        if settings.authority is not None and settings.certificate is not None:
            key = settings.key or settings.certificate
            chain = tls.read(key, secret=True)
            if settings.key is not None:
                chain += b"\n" + tls.read(settings.certificate, secret=False)
            self._used = _Used(_end_of(chain, settings.certificate), _stamped(key, settings.certificate))
            if self._used.end - self._desk.clock() < WARN_SECONDS:
                log.warning("%s: this machine's certificate ends within 30 days: renew it", settings.certificate)
            return tls.for_centre(chain, tls.read(settings.authority, secret=False))
        own = await issuer(self._desk)
        names = settings.names or (socket.gethostname(),)
        certificate, chain = own.for_centre(names, self._desk.clock())
        self._used = _Used(end_of(certificate))
        return tls.for_centre(chain, own.pem.encode())


def _stamped(*paths: Path) -> tuple[tuple[Path, int], ...]:
    """Files with what tells whether they have changed."""
    try:
        return tuple((path, path.stat().st_mtime_ns) for path in paths)
    except OSError as error:
        raise ConfigError(f"{error.filename}: {error.strerror}") from None


def _end_of(chain: bytes, path: Path) -> int:
    found = tls.certificates(chain)
    if not found:
        raise ConfigError(f"{path}: holds no certificate (PEM)")
    try:
        return end_of(x509.load_pem_x509_certificate(found[0]))
    except authority.UNREADABLE:
        raise ConfigError(f"{path}: the certificate cannot be read") from None
