"""`otpbridge status`: how the daemon is."""

from __future__ import annotations

import time

import click

from otpbridge.cli import show
from otpbridge.cli.options import everywhere, example
from otpbridge.cli.session import Session
from otpbridge.wire import messages


@click.command(epilog=example("otpbridge status", "otpbridge --json status"))
@everywhere
@click.pass_obj
def status(session: Session) -> None:
    """Show how the daemon is: version, store, key, numbers, warnings."""
    with session.admin() as daemon:
        reply = daemon.call(messages.Status())
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
    if reply.warnings:
        show.line()
    for warning in reply.warnings:
        show.line(f"Warning: {show.visible(warning)}")
