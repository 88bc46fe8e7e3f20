"""The sockets, and what the daemon says of itself."""

from __future__ import annotations

import grp
import os
import stat
from collections.abc import Callable
from pathlib import Path

from otpbridge import __version__
from otpbridge import config as configuration
from otpbridge.cli.doctor.findings import Finding, Places, fail, left_out, mode, ok, owner, trusted, warn
from otpbridge.cli.exits import short_name
from otpbridge.client import Client
from otpbridge.config import SYSTEM_RUN
from otpbridge.errors import ConfigError, ProtocolError, RemoteError
from otpbridge.wire import messages
from otpbridge.wire.service import GetInfo

_SECONDS = 3.0
_CHAIN_SECONDS = 60.0
"""For the daemon to check the whole audit log, where that was asked for."""
_ADMIN_GROUP = "otpbridge-admin"


def _start(places: Places) -> str:
    if places.run_dir == SYSTEM_RUN:
        return "systemctl enable --now otpbridged.socket otpbridged-admin.socket"
    return f"otpbridge serve --run-dir {places.run_dir} --state-dir {places.state_dir}"


def _restart(places: Places) -> str:
    return "systemctl restart otpbridged" if places.run_dir == SYSTEM_RUN else f"end it, then: {_start(places)}"


def run_folder(places: Places) -> list[Finding]:
    """The folder of the sockets is as the PAM module demands it."""
    folder = places.run_dir
    try:
        about = folder.stat()
    except FileNotFoundError:
        return [fail(f"{folder} is not there", _start(places))]
    if not trusted(about.st_uid):
        return [fail(f"{folder} belongs to {owner(about)}, so no login believes it", f"chown root:root {folder}")]
    if about.st_mode & 0o002 and not about.st_mode & stat.S_ISVTX:
        return [fail(f"{folder}: all can put sockets there (mode {mode(about)})", f"chmod 0755 {folder}")]
    if about.st_mode & 0o005 != 0o005 and places.run_dir == SYSTEM_RUN:
        return [
            warn(f"{folder}: logins of ordinary users cannot enter it (mode {mode(about)})", f"chmod 0755 {folder}")
        ]
    return [ok(f"{folder}, {owner(about)}, mode {mode(about)}")]


def sockets(places: Places) -> list[Finding]:
    """Both sockets: whose they are, and who may open them."""
    group = _admin_group(places)
    return [
        *_socket(places, "verify", _verify),
        *_socket(places, "admin", lambda path, about: _admin(path, about, group)),
    ]


def _admin_group(places: Places) -> str:
    """The group that the configuration gives the admin socket to; the default where it cannot be read."""
    try:
        return configuration.read(places.config).parse().admin_group
    except ConfigError:
        return _ADMIN_GROUP


def _socket(places: Places, name: str, judge: Callable[[Path, os.stat_result], list[Finding]]) -> list[Finding]:
    path = places.run_dir / name
    try:
        about = path.lstat()
    except FileNotFoundError:
        return [fail(f"{path} is not there", _start(places))]
    if not stat.S_ISSOCK(about.st_mode):
        return [fail(f"{path} is no socket", f"rm {path}; {_restart(places)}")]
    if not trusted(about.st_uid):
        return [fail(f"{path} belongs to {owner(about)}, so no login believes it", f"rm {path}; {_restart(places)}")]
    return judge(path, about) or [ok(f"{path}, {owner(about)}, mode {mode(about)}")]


def _verify(path: Path, about: os.stat_result) -> list[Finding]:
    if about.st_mode & 0o006 == 0o006:
        return []
    said = f"{path}: ordinary users, and screen lockers that run as them, cannot verify (mode {mode(about)})"
    return [warn(said, f"chmod 0666 {path}")]


def _admin(path: Path, about: os.stat_result, group: str) -> list[Finding]:
    if about.st_mode & 0o007:
        return [fail(f"{path}: everybody is admin (mode {mode(about)})", f"chmod 0660 {path}")]
    if about.st_mode & 0o060 == 0 or about.st_gid in {0, os.getegid()}:
        return []
    try:
        name = grp.getgrgid(about.st_gid).gr_name
    except KeyError:
        name = str(about.st_gid)
    if name == group:
        return []
    return [
        warn(f"{path}: all members of the group {name} are admins, not those of {group}", f"chgrp {group} {path}")
    ]


def answers(places: Places) -> list[Finding]:
    """The daemon answers, and is of the version of this command."""
    try:
        with Client(run_dir=places.run_dir, timeout=_SECONDS) as client:
            version = client.call(GetInfo()).version
    except (ProtocolError, RemoteError) as error:
        system = places.run_dir == SYSTEM_RUN
        look = "journalctl -u otpbridged -n 20; systemctl restart otpbridged" if system else _restart(places)
        return [fail(str(error), look)]
    if version != __version__:
        said = f"the daemon is otpbridge {version}, this command {__version__}"
        return [warn(said, _restart(places))]
    return [ok(f"otpbridge {version} answers, as this command")]


def _closed(places: Places) -> list[Finding]:
    """Why the admin socket cannot be asked; nothing where it can."""
    path = places.run_dir / "admin"
    if not os.access(places.run_dir, os.X_OK) or (path.exists() and not os.access(path, os.R_OK | os.W_OK)):
        return [left_out(f"{path} is for root and the group {_ADMIN_GROUP}")]
    return [] if path.exists() else [left_out(f"{path} is not there")]


def status(places: Places) -> list[Finding]:
    """What only an admin may ask: store, key, warnings."""
    if closed := _closed(places):
        return closed
    try:
        with Client(run_dir=places.run_dir, admin=True, timeout=_SECONDS) as client:
            try:
                reply = client.call(messages.Status())
            except RemoteError as error:
                if short_name(error) == "AtCentre":
                    return _relay(client.call(messages.RelayStatus()))
                raise
    except (ProtocolError, RemoteError) as error:
        return [left_out(f"the daemon did not say: {error}")]
    found = [warn(each, _advice(each)) for each in reply.warnings]
    if not reply.ready:
        found.append(fail("the daemon is not ready", "journalctl -u otpbridged -n 20"))
    found += _schema(reply.schema, places)
    beside = ", beside the store" if reply.key_beside_store else ""
    return [*found, ok(f"store {reply.store}, schema {reply.schema}; master key from {reply.key_source}{beside}")]


def _relay(reply: messages.RelayStatusReply) -> list[Finding]:
    """A relay: its certificate, and which centres let it in."""
    found = [warn(each, "docs/relay.md, section When a certificate ends") for each in reply.warnings]
    away = [centre for centre in reply.centres if not centre.reachable]
    mend = "is it running there, does the firewall let us through, does it know this host? docs/relay.md"
    for centre in away:
        report = fail if len(away) == len(reply.centres) else warn
        found.append(report(f"centre {centre.address} is away: {centre.fault}", mend))
    there = ", ".join(centre.address for centre in reply.centres if centre.reachable)
    return [*found, ok(f"a relay of {there}")] if there else found


def _schema(present: str, places: Places) -> list[Finding]:
    from otpbridge.store.schema import HEAD  # noqa: PLC0415 - loads the database library

    if present == HEAD:
        return []
    return [warn(f"the store has schema {present}, this command knows {HEAD}", _restart(places))]


def _advice(warning: str) -> str:
    """What to do about a warning of the daemon, which says it itself where this does not."""
    if "beside the store" in warning:
        return "docs/admin.md, section Master key: move it to a systemd credential or to another disk"
    if "relay certificate" in warning:
        return "otpbridge relay issue HOST, and put the file in place there"
    if "rotat" in warning:
        return "otpbridge key rotate"
    return "otpbridge stack check"


def audit(places: Places) -> list[Finding]:
    """The audit log, against an anchor that was noted elsewhere."""
    if places.anchor is None:
        return [left_out("to check the audit log too: --anchor, with what `otpbridge status` said before")]
    if closed := _closed(places):
        return closed
    try:
        with Client(run_dir=places.run_dir, admin=True, timeout=_CHAIN_SECONDS) as client:
            reply = client.call(messages.AuditVerify(anchor=places.anchor))
    except (ProtocolError, RemoteError) as error:
        return [left_out(f"the daemon did not say: {error}")]
    if not reply.intact:
        return [fail(str(reply.fault), "otpbridge audit verify; keep the store as it is, and find out who wrote it")]
    return [ok(f"{reply.entries} entries, nothing edited, and nothing cut since the anchor")]
