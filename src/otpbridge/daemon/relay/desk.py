"""Admin.IssueRelay, RevokeRelay and ListRelays: certificates of hosts."""

from __future__ import annotations

import re
from datetime import UTC, datetime

from sqlalchemy import Connection

from otpbridge.config import host_name
from otpbridge.daemon.desk import Desk, event, invalid
from otpbridge.daemon.pages import send_but_last
from otpbridge.daemon.relay.centre import Centre
from otpbridge.daemon.relay.hosts import WARN_SECONDS
from otpbridge.store import relays
from otpbridge.store.relays import Issued
from otpbridge.store.writer import Transaction
from otpbridge.wire.messages import (
    ADMIN,
    IssueRelay,
    IssueRelayReply,
    ListRelays,
    ListRelaysReply,
    RelayCertificate,
    RelayStatus,
    RelayStatusReply,
    RevokeRelay,
    RevokeRelayReply,
)
from otpbridge.wire.service import Call, VarlinkError

_DAYS = 365
_MOST_DAYS = 3650
_SERIAL = re.compile(r"[0-9a-f]{1,40}")


def ending(connection: Connection, now: int) -> list[str]:
    """Warnings for hosts whose newest certificate ends soon, or has ended not long ago. `now` in Unix seconds."""
    newest = {each.host: each for each in relays.known(connection) if each.revoked_at is None}
    found = []
    for each in newest.values():
        if each.expires_at is not None and abs(each.expires_at - now) < WARN_SECONDS:
            ends = "ended" if each.expires_at <= now else "ends"
            day = datetime.fromtimestamp(each.expires_at, UTC).date()
            found.append(f"the relay certificate of {each.host} {ends} on {day}: otpbridge relay issue {each.host}")
    return found


class RelayDesk:
    """The handlers."""

    def __init__(self, desk: Desk, centre: Centre) -> None:
        self._desk = desk
        self._centre = centre

    async def issue(self, call: Call, asked: IssueRelay) -> IssueRelayReply:
        """Issue a certificate. It is in the store before it goes out, so that it can be revoked."""
        # Few ask for one, and the library takes long to load.
        from otpbridge.daemon.relay import authority, issuing  # noqa: PLC0415

        if self._desk.config.relays.authority is not None:
            raise VarlinkError(f"{ADMIN}.ForeignAuthority")
        if not host_name(asked.host):
            raise invalid("host")
        days = _DAYS if asked.days is None else asked.days
        if not 1 <= days <= _MOST_DAYS:
            raise invalid("days")
        issuer = await issuing.issuer(self._desk)
        now = self._desk.clock()
        certificate = issuer.for_host(asked.request, asked.host, now, days)
        serial, end = authority.serial_of(certificate), authority.end_of(certificate)

        def work(transaction: Transaction) -> None:
            relays.record(transaction, Issued(serial, asked.host, int(now), end))
            detail: dict[str, str | int | bool] = {"relay": asked.host, "serial": serial, "days": days}
            transaction.audit(event(call, "relay certificate issued", detail=detail))

        await self._desk.change(work)
        return IssueRelayReply(
            certificate=authority.pem_of(certificate),
            authority=issuer.pem,
            serial=serial,
            expires_at=end,
            known=self._centre.entry_of(asked.host) is not None,
        )

    async def revoke(self, call: Call, asked: RevokeRelay) -> RevokeRelayReply:
        """Revoke certificates, then hang up on who uses them."""
        if not host_name(asked.host):
            raise invalid("host")
        serial = None if asked.serial is None else asked.serial.replace(":", "").lower().lstrip("0")
        if serial is not None and not _SERIAL.fullmatch(serial):
            raise invalid("serial")

        def work(transaction: Transaction) -> int:
            gone = relays.revoke(transaction, asked.host, serial)
            for each in gone:
                detail: dict[str, str | int | bool] = {"relay": asked.host, "serial": each}
                transaction.audit(event(call, "relay certificate revoked", detail=detail))
            return len(gone)

        revoked = await self._desk.change(work)
        return RevokeRelayReply(revoked=revoked, closed=await self._centre.revoked())

    async def list(self, call: Call, _asked: ListRelays) -> ListRelaysReply:
        """All certificates that are known here, a page at a time."""
        found = await self._desk.store.read_long(relays.known)
        fields = map(self._fields, found)
        return await send_but_last(call, fields, lambda page: ListRelaysReply(certificates=page))

    async def no_relay(self, _call: Call, _asked: RelayStatus) -> RelayStatusReply:
        """A daemon with a store is none."""
        raise VarlinkError(f"{ADMIN}.NoRelay")

    def _fields(self, issued: Issued) -> RelayCertificate:
        return RelayCertificate(
            host=issued.host,
            serial=issued.serial,
            issued_at=issued.issued_at,
            expires_at=issued.expires_at,
            revoked_at=issued.revoked_at,
            connections=self._centre.connections_of(issued.host),
        )
