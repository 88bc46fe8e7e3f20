"""Copy a store out while it is used, and put a copy back without making spent codes good again.

A backup is text: a header line, a line per row, and an end line with the number of rows and an HMAC-SHA256 over all
lines before it, keyed from the store's own secret. Seeds stay sealed in it: it is useless without the master key.

What was spent after the backup was taken is not in it. So after a restore a TOTP code is accepted only for time steps
that had not come yet when the restore was made, and an HOTP token, whose counter knows no time, is put past what the
replaced store knows of it, or disabled where that store cannot be read (resynchronise it, then enable it). So with
Yubico OTP tokens, recovery and registration codes.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

import msgspec
from sqlalchemy import BigInteger, Connection, LargeBinary, Table, case, func, insert, literal, select, update

from otpbridge.errors import SealBrokenError, StoreError
from otpbridge.model import AuditEvent, Kind, Secret, State
from otpbridge.store import postgres, rekey, schema, tables
from otpbridge.store.auditlog import AuditLog
from otpbridge.store.engine import driver_of, is_shared, snapshot
from otpbridge.vault.seal import Vault, derive

_FORMAT = 1
_TABLES = (tables.meta, tables.user, tables.token, tables.throttle, tables.relay, tables.audit)
_PIECE = 24_000
_ROWS = 500
_LONGEST_LINE = 1 << 20

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode


class _Header(msgspec.Struct):
    otpbridge_backup: int
    schema: str
    at: int
    root: str
    columns: dict[str, list[str]]


class _End(msgspec.Struct):
    end: int
    mac: str


@dataclass(frozen=True, slots=True)
class Restored:
    """What a restore did."""

    taken_at: int
    rows: int
    merged: bool
    disabled: int
    ended: int
    """Exemptions that end, or end sooner than in the backup."""


def dump(connection: Connection, key: Secret, now: int) -> Generator[str, None, None]:
    """A backup in pieces of about 24 KB, all of one moment. `now` in Unix seconds."""
    connection.exec_driver_sql(snapshot(connection.engine))
    if is_shared(connection.engine):
        connection.exec_driver_sql(postgres.UNHURRIED)
    try:
        mac = hmac.new(key.reveal(), digestmod=hashlib.sha256)
        piece: list[str] = []
        size = count = 0
        for line in _lines(connection, now):
            mac.update(line)
            piece.append(line.decode())
            size += len(line)
            count += 1
            if size >= _PIECE:
                yield "".join(piece)
                piece, size = [], 0
        piece.append(_encode(_End(count - 1, mac.hexdigest())).decode() + "\n")
        yield "".join(piece)
    finally:
        connection.exec_driver_sql("COMMIT")


def _lines(connection: Connection, now: int) -> Iterator[bytes]:
    root = connection.execute(select(tables.meta.c.value).where(tables.meta.c.name == rekey.ROOT)).scalar_one()
    columns = {str(table.name): [str(column.name) for column in table.c] for table in _TABLES}
    yield _encode(_Header(_FORMAT, schema.HEAD, now, base64.b64encode(root).decode(), columns)) + b"\n"
    for table in _TABLES:
        query = select(table)
        if table is tables.token:
            query = query.where(table.c.state != State.PENDING)
        for row in connection.execute(query, execution_options={"yield_per": _ROWS}):
            # msgspec writes bytes as base64, which is what `_values` reads back.
            yield _encode([str(table.name), *row]) + b"\n"


def check(file: BinaryIO, vault: Vault) -> Secret:
    """Read a whole backup and check it; returns the store's own secret. Raises StoreError or SealBrokenError."""
    header = _header(file.readline(_LONGEST_LINE))
    try:
        sealed = base64.b64decode(header.root, validate=True)
    except ValueError:
        raise _damaged() from None
    root = vault.open(sealed, rekey.ROOT_IDENTITY)
    file.seek(0)
    mac = hmac.new(derive(root, "backup").reveal(), digestmod=hashlib.sha256)
    count = -1
    for line in iter(lambda: file.readline(_LONGEST_LINE), b""):
        if line.startswith(b'{"end"'):
            end = _parsed(line, _End)
            if end.end != count or not hmac.compare_digest(end.mac, mac.hexdigest()):
                break
            file.seek(0)
            return root
        mac.update(line)
        count += 1
    raise StoreError("the backup is cut short or was changed; use another copy")


def load(connection: Connection, file: BinaryIO) -> int:
    """Put the rows of a checked backup into empty tables, inside the caller's transaction; returns their number."""
    header = _header(file.readline(_LONGEST_LINE))
    by_name = {str(table.name): table for table in _TABLES}
    total = 0
    batch: list[dict[str, Any]] = []
    current: Table | None = None
    for line in iter(lambda: file.readline(_LONGEST_LINE), b""):
        if line.startswith(b"{"):
            break
        name, *values = _decode(line)
        table = by_name[name]
        if batch and (table is not current or len(batch) >= _ROWS):
            assert current is not None
            connection.execute(insert(current), batch)
            batch = []
        current = table
        batch.append(dict(zip(header.columns[name], _values(table, values), strict=True)))
        total += 1
    if batch and current is not None:
        connection.execute(insert(current), batch)
    return total


def taken_at(file: BinaryIO) -> int:
    """When a backup was taken, Unix seconds."""
    at = _header(file.readline(_LONGEST_LINE)).at
    file.seek(0)
    return at


def merge(connection: Connection, replaced: Connection) -> int:
    """Carry over what the replaced store knows better: what was spent, revocations, locks and ends of exemptions.

    Returns how many exemptions end by it, or end sooner.
    """
    token, user = tables.token, tables.user
    kept = select(token.c.id, token.c.kind, token.c.moving_factor, token.c.state).where(
        token.c.state != State.PENDING
    )
    for row in replaced.execute(kept, execution_options={"yield_per": _ROWS}):
        here = update(token).where(token.c.id == row.id)
        if row.kind == Kind.RECOVERY:
            spent = token.c.moving_factor.bitwise_or(row.moving_factor)
            connection.execute(here.values(moving_factor=spent))
        else:
            connection.execute(
                here.where(token.c.moving_factor < row.moving_factor).values(moving_factor=row.moving_factor)
            )
        if row.state == State.REVOKED:
            connection.execute(
                here.where(token.c.state != State.REVOKED).values(
                    state=State.REVOKED, sealed=None, fingerprint=None, expires_at=None
                )
            )
    for locked in replaced.execute(
        select(user.c.client, user.c.name, user.c.locked_at).where(user.c.locked_at.is_not(None))
    ):
        same = (user.c.client == locked.client) & (user.c.name == locked.name)
        connection.execute(update(user).where(same).values(locked_at=locked.locked_at))
    for gone in replaced.execute(select(tables.relay)).mappings():
        _carry_certificate(connection, dict(gone))
    return _end_exemptions(connection, replaced)


def _carry_certificate(connection: Connection, row: dict[str, Any]) -> None:
    """Keep a host's certificate known, and revoked where it was: it goes on to exist whatever is restored."""
    relay = tables.relay
    same = relay.c.serial == row["serial"]
    if connection.execute(select(relay.c.serial).where(same)).first() is None:
        connection.execute(insert(relay).values(row))
    elif row["revoked_at"] is not None:
        connection.execute(update(relay).where(same).values(revoked_at=row["revoked_at"]))


def _end_exemptions(connection: Connection, replaced: Connection) -> int:
    """End those exemptions of a backup that were ended, or shortened, after it was taken."""
    user = tables.user
    ended = 0
    here = select(user.c.client, user.c.name, user.c.exempt_until).where(user.c.exempt_until.is_not(None))
    for exempt in connection.execute(here).all():
        same = (user.c.client == exempt.client) & (user.c.name == exempt.name)
        now = replaced.execute(select(user.c.exempt_until).where(same)).one_or_none()
        if now is not None and (now.exempt_until is None or now.exempt_until < exempt.exempt_until):
            connection.execute(update(user).where(same).values(exempt_until=now.exempt_until))
            ended += 1
    return ended


def spend_past(connection: Connection, now: int, reach: int) -> None:
    """Put every TOTP token past all codes that may have been shown up to `now` (Unix seconds).

    `reach` is the number of time steps tolerated around the expected one.
    """
    token = tables.token
    floor = (literal(now, BigInteger) - token.c.t0) // token.c.period + func.abs(token.c.drift) + (reach + 1)
    connection.execute(
        update(token)
        .where(token.c.kind == Kind.TOTP)
        .values(moving_factor=case((token.c.moving_factor > floor, token.c.moving_factor), else_=floor))
    )


def disable_counters(connection: Connection) -> int:
    """Disable every active token of which only the replaced store knew what was spent; returns how many."""
    token = tables.token
    kinds = (Kind.HOTP, Kind.YUBIOTP, Kind.RECOVERY, Kind.REGISTRATION)
    return connection.execute(
        update(token).where(token.c.kind.in_(kinds), token.c.state == State.ACTIVE).values(state=State.DISABLED)
    ).rowcount


def note(connection: Connection, root: Secret, now: int, restored: Restored) -> None:
    """Write the restore into the audit log."""
    event = AuditEvent(
        "store restored",
        detail={
            "taken_at": restored.taken_at,
            "rows": restored.rows,
            "merged": restored.merged,
            "disabled": restored.disabled,
            "exemptions_ended": restored.ended,
        },
    )
    log = AuditLog(connection.dialect, derive(root, "audit"))
    log.append(driver_of(connection).cursor(), [(now * 1000, event)])


def _header(line: bytes) -> _Header:
    header: _Header = _parsed(line, _Header)
    if header.otpbridge_backup != _FORMAT or header.schema != schema.HEAD:
        raise StoreError(
            f"the backup has format {header.otpbridge_backup} and schema {header.schema}; this otpbridge reads "
            f"format {_FORMAT} and schema {schema.HEAD}. Restore it with the version that made it, then upgrade"
        )
    return header


def _parsed(line: bytes, kind: type[Any]) -> Any:
    try:
        return msgspec.json.decode(line, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        raise _damaged() from None


def _damaged() -> StoreError:
    return StoreError("this is not an otpbridge backup, or it is damaged")


def _values(table: Table, values: Iterable[Any]) -> list[Any]:
    return [
        base64.b64decode(value) if value is not None and isinstance(column.type, LargeBinary) else value
        for column, value in zip(table.c, values, strict=True)
    ]


def same_store(connection: Connection, vault: Vault, root: Secret) -> bool:
    """Whether a database is the store that a secret belongs to."""
    try:
        found = rekey.root(connection, vault)
    except SealBrokenError:
        return False
    return found is not None and hmac.compare_digest(found.reveal(), root.reveal())
