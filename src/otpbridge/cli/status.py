"""`otpbridge status`: how the daemon is."""

from __future__ import annotations

import time

import click

from otpbridge.cli import show
from otpbridge.cli.exits import short_name
from otpbridge.cli.options import everywhere, example
from otpbridge.cli.session import Session
from otpbridge.errors import RemoteError
from otpbridge.wire import messages


@click.command(epilog=example("otpbridge status", "otpbridge --json status"))
@everywhere
@click.pass_obj
def status(session: Session) -> None:
    """Show how the daemon is: version, store, key, numbers, warnings."""
    with session.admin() as daemon:
        try:
            reply = daemon.call(messages.Status())
        except RemoteError as error:
            if short_name(error) != "AtCentre":
                raise
            _show_relay(session, daemon.call(messages.RelayStatus()))
            return
    if session.json:
        session.answer(reply)
        return
    up = show.duration(max(0, int(time.time()) - reply.started_at))
    key = f"{reply.key_id}, {reply.key_source}"
    key += ", on the disk of the store" if reply.key_beside_store else ""
    key += ", being replaced" if reply.rotating else ""
    show.fields(
        [
            ("Daemon", f"otpbridge {reply.version}, {'ready' if reply.ready else 'not ready'}, up {up}"),
            ("Store", f"{reply.store}, schema {reply.schema}"),
            ("Master key", key),
            ("Users", reply.users),
            ("Active tokens", reply.active_tokens),
            ("Audit log", f"{reply.audit_entries} entries"),
            ("Audit anchor", reply.audit_anchor),
        ]
    )
    _warn(reply.warnings)


def _show_relay(session: Session, reply: messages.RelayStatusReply) -> None:
    """The same of a relay: which centres are there, and until when they let it in."""
    if session.json:
        session.answer(reply)
        return
    up = show.duration(max(0, int(time.time()) - reply.started_at))
    show.fields(
        [
            ("Daemon", f"otpbridge {reply.version}, a relay, up {up}"),
            ("Host", reply.host),
            ("Certificate", f"{reply.serial}, valid until {show.moment(reply.expires_at)}"),
            *(("Centre", _centre(each)) for each in reply.centres),
        ]
    )
    _warn(reply.warnings)


def _centre(centre: messages.Centre) -> str:
    if not centre.reachable:
        return f"{centre.address}, away: {centre.fault}"
    return f"{centre.address}, reachable, {centre.connections} connections"


def _warn(warnings: tuple[str, ...]) -> None:
    if warnings:
        show.line()
    for warning in warnings:
        show.line(f"Warning: {show.visible(warning)}")
