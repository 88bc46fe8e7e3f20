"""TLS 1.3 with a certificate on both sides, and the files that it needs."""

from __future__ import annotations

import os
import re
import ssl
import stat
from pathlib import Path

from otpbridge.errors import ConfigError

_LARGEST_FILE = 1 << 20
_CERTIFICATE = re.compile(rb"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----\n?", re.DOTALL)


def for_centre(chain: bytes, authority: bytes) -> ssl.SSLContext:
    """What a centre needs: its key and certificate (PEM), and who issues those of hosts. Raises ConfigError."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    # Without tickets there is no early data either, which could be played back (RFC 8446 §8).
    context.num_tickets = 0
    return _ready(context, chain, authority)


def for_host(chain: bytes, authority: bytes) -> ssl.SSLContext:
    """What a relay needs: its key and certificate (PEM), and who issues those of centres. Raises ConfigError."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = True
    return _ready(context, chain, authority)


def certificates(pem: bytes) -> list[bytes]:
    """The certificates in a file, each as PEM, in order."""
    return _CERTIFICATE.findall(pem)


def read(path: Path, *, secret: bool) -> bytes:
    """Read a file of ours; one that is secret may be read by its owner alone. Raises ConfigError."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be opened: {error.strerror}") from None
    try:
        about = os.fstat(handle)
        if not stat.S_ISREG(about.st_mode):
            raise ConfigError(f"{path}: is not a regular file")
        if secret and about.st_uid not in {0, os.geteuid()}:
            raise ConfigError(
                f"{path}: holds a private key and belongs to uid {about.st_uid}; chown it to the daemon"
            )
        if secret and about.st_mode & 0o077:
            raise ConfigError(
                f"{path}: holds a private key, and others can read it (mode {stat.S_IMODE(about.st_mode):04o}); "
                "chmod 0600 it, and have a new one issued if somebody may have read it"
            )
        return os.read(handle, _LARGEST_FILE)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    finally:
        os.close(handle)


def _ready(context: ssl.SSLContext, chain: bytes, authority: bytes) -> ssl.SSLContext:
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.verify_mode = ssl.CERT_REQUIRED
    try:
        context.load_verify_locations(cadata=authority.decode("ascii"))
    except (ssl.SSLError, ValueError):
        raise ConfigError("the authority's certificate is missing or cannot be read (PEM)") from None
    # Python takes a key from a file alone; this one is in memory.
    handle = os.memfd_create("otpbridge-tls", os.MFD_CLOEXEC)
    try:
        os.write(handle, chain)
        # With a password that is wrong: OpenSSL would ask for one at the terminal.
        context.load_cert_chain(f"/proc/self/fd/{handle}", password=lambda: b"")
    except (ssl.SSLError, ValueError):
        raise ConfigError(
            "private key and certificate are missing, do not fit each other or cannot be read (PEM, no password)"
        ) from None
    finally:
        os.close(handle)
    return context
