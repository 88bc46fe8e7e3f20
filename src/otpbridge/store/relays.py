"""The certificates of relays: which were issued, which were revoked, and the authority that issues them, sealed."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from sqlalchemy import Connection, insert, select, update

from otpbridge.errors import NotFoundError, SealBrokenError
from otpbridge.model import Secret
from otpbridge.store import tables
from otpbridge.store.writer import Transaction
from otpbridge.vault.seal import Vault, authority_identity

_CERTIFICATE = "relay authority certificate"
_KEY = "relay authority key"


class NoSuchCertificateError(NotFoundError):
    """No certificate of this host is in force."""

    def __init__(self, host: str) -> None:
        self.host = host
        super().__init__(f"no certificate of {host} is in force")


@dataclass(frozen=True, slots=True)
class Issued:
    """A certificate of a host. Times in Unix seconds, `serial` in hex.

    Of one that an authority elsewhere has issued, it is only known when it was revoked, not when it ends.
    """

    serial: str
    host: str
    issued_at: int
    expires_at: int | None
    revoked_at: int | None = None


@dataclass(frozen=True, slots=True)
class SealedAuthority:
    """The authority as it lies in the store: its certificate (DER), and its private key (PKCS #8, DER)."""

    certificate: bytes
    key: Secret


def authority(connection: Connection, vault: Vault) -> SealedAuthority | None:
    """The store's own authority; None where none was made. Raises SealBrokenError."""
    meta = tables.meta
    query = select(meta.c.name, meta.c.value).where(meta.c.name.in_((_CERTIFICATE, _KEY)))
    found = {row.name: bytes(row.value) for row in connection.execute(query)}
    if not found:
        return None
    if len(found) != 2:
        raise SealBrokenError("half of the relay authority is missing; restore a backup")
    certificate = found[_CERTIFICATE]
    return SealedAuthority(certificate, vault.open(found[_KEY], authority_identity(certificate)))


def keep_authority(transaction: Transaction, vault: Vault, fresh: SealedAuthority) -> SealedAuthority:
    """Keep a new authority, unless there is one by now; the one that is kept."""
    there = authority(transaction.connection, vault)
    if there is not None:
        return there
    sealed = vault.seal(fresh.key, authority_identity(fresh.certificate))
    rows = [
        {"name": _CERTIFICATE, "number": 1, "value": fresh.certificate},
        {"name": _KEY, "number": 1, "value": sealed},
    ]
    transaction.connection.execute(insert(tables.meta), rows)
    return fresh


def reseal_authority(transaction: Transaction, vault: Vault) -> None:
    """Seal the authority's key anew, where there is one."""
    there = authority(transaction.connection, vault)
    if there is not None:
        meta = tables.meta
        sealed = vault.seal(there.key, authority_identity(there.certificate))
        transaction.connection.execute(update(meta).values(value=sealed).where(meta.c.name == _KEY))


def record(transaction: Transaction, issued: Issued) -> None:
    """Note a certificate that is about to be given out."""
    relay = tables.relay
    transaction.connection.execute(
        insert(relay).values(
            serial=issued.serial,
            host=issued.host,
            issued_at=issued.issued_at,
            expires_at=issued.expires_at,
            revoked_at=issued.revoked_at,
        )
    )


def revoke(transaction: Transaction, host: str, serial: str | None) -> Collection[str]:
    """Revoke all certificates of a host, or the one of a serial number; the serial numbers.

    One that is not known is noted as revoked: an authority elsewhere may have issued it. Raises
    NoSuchCertificateError where nothing is left to revoke.
    """
    relay, connection, now = tables.relay, transaction.connection, transaction.now // 1000
    if serial is not None and not connection.execute(select(relay.c.host).where(relay.c.serial == serial)).first():
        record(transaction, Issued(serial, host, now, None, now))
        return (serial,)
    which = (relay.c.host == host) & relay.c.revoked_at.is_(None)
    if serial is not None:
        which &= relay.c.serial == serial
    found = [row.serial for row in connection.execute(select(relay.c.serial).where(which))]
    if not found:
        raise NoSuchCertificateError(host)
    connection.execute(update(relay).values(revoked_at=now).where(which))
    return found


def revoked(connection: Connection) -> frozenset[str]:
    """The serial numbers of all certificates that were revoked."""
    relay = tables.relay
    return frozenset(connection.execute(select(relay.c.serial).where(relay.c.revoked_at.is_not(None))).scalars())


def known(connection: Connection) -> list[Issued]:
    """All certificates, by host, the oldest first."""
    relay = tables.relay
    rows = connection.execute(select(relay).order_by(relay.c.host, relay.c.issued_at, relay.c.serial))
    return [Issued(row.serial, row.host, row.issued_at, row.expires_at, row.revoked_at) for row in rows]
