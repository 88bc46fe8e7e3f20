"""Who a relay is to its centres: its certificate and key, and whom it takes for a centre."""

from __future__ import annotations

import logging
import os
import ssl
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from otpbridge.config import SYSTEM_RELAY_CERTIFICATE, Relay
from otpbridge.daemon.relay import authority, tls
from otpbridge.errors import ConfigError, OtpBridgeError
from otpbridge.wire.calls import Host

log = logging.getLogger(__name__)

_CREDENTIAL = "relay.pem"


class Identity:
    """Read from its files, and read again when they have changed. Raises ConfigError."""

    def __init__(self, settings: Relay) -> None:
        self._settings = settings
        self._files = self._named()
        self._stamps = self._stamped()
        self.host, self._context = self._read()

    @property
    def context(self) -> ssl.SSLContext:
        """For the next connection."""
        self.look()
        return self._context

    def look(self) -> None:
        """See whether the files have changed: a certificate that was renewed counts without a restart."""
        try:
            stamps = self._stamped()
            if stamps != self._stamps:
                self.host, self._context = self._read()
                self._stamps = stamps
                log.info("the certificate is now %s", self.host.serial)
        except OtpBridgeError as error:
            log.warning("the certificate before stays in use: %s", error)

    def _named(self) -> tuple[Path, ...]:
        settings = self._settings
        certificate = settings.certificate or _credential() or SYSTEM_RELAY_CERTIFICATE
        return certificate, settings.key or certificate, settings.authority or certificate

    def _stamped(self) -> tuple[int, ...]:
        try:
            return tuple(path.stat().st_mtime_ns for path in self._files)
        except OSError as error:
            raise ConfigError(
                f"{error.filename}: {error.strerror}. Have it issued at the centre: otpbridge relay issue HOST"
            ) from None

    def _read(self) -> tuple[Host, ssl.SSLContext]:
        certificate, key, issuer = self._files
        # systemd sees to who may read a credential, by means that its mode does not show.
        chain = tls.read(key, secret=key != _credential())
        if certificate != key:
            chain += b"\n" + tls.read(certificate, secret=False)
        own = tls.certificates(chain)
        if not own:
            raise ConfigError(f"{certificate}: holds no certificate (PEM)")
        trusted = b"".join(own[1:]) if issuer == certificate else tls.read(issuer, secret=False)
        if not trusted:
            raise ConfigError(f"{issuer}: lacks the certificate of the authority, which follows the host's own")
        try:
            host = authority.identify(x509.load_pem_x509_certificate(own[0]).public_bytes(Encoding.DER))
            return host, tls.for_host(chain, trusted)
        except ConfigError as error:
            raise ConfigError(f"{certificate}: {error}") from None
        except authority.UNREADABLE:
            raise ConfigError(f"{certificate}: the certificate cannot be read") from None


def _credential() -> Path | None:
    """The systemd credential, where there is one."""
    folder = os.environ.get("CREDENTIALS_DIRECTORY")
    path = None if not folder else Path(folder) / _CREDENTIAL
    return path if path is not None and path.exists() else None
