"""The command `otpbridge doctor`: the table of all checks, and what the admin sees."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from otpbridge.cli import show
from otpbridge.cli.exits import Code
from otpbridge.cli.options import config_option, everywhere, example, state_dir_option
from otpbridge.cli.session import Session

if TYPE_CHECKING:
    from otpbridge.cli.doctor.findings import Check, Finding, Places


@click.command(epilog=example("sudo otpbridge doctor", "otpbridge --json doctor"))
@state_dir_option
@config_option
@click.option("--anchor", metavar="ANCHOR", help="Check the audit log too, from this anchor on.")
@everywhere
@click.pass_obj
def doctor(session: Session, state_dir: Path | None, config: Path | None, anchor: str | None) -> Code:
    """Check the installation, and say how to mend what is wrong.

    Sockets, daemon, store, key, configuration, clock, PAM files, sshd, systemd. As root it looks at everything; else
    it says what it left out. It changes nothing. Exit code 0 where nothing fails (there may be warnings), else 1.
    """
    from otpbridge.cli.doctor.findings import Level, Places  # noqa: PLC0415 - not needed for --help

    run_dir = session.folder()
    places = Places(run_dir, state_dir or _state_dir(run_dir), config, anchor)
    found = list(_look(places, _table()))
    if session.json:
        session.answer([{"check": check.name, **asdict(finding)} for check, finding in found])
    else:
        for check, finding in found:
            _tell(check, finding)
        counts = Counter(finding.level for _, finding in found)
        show.line()
        show.line(", ".join(f"{counts[level]} {level}" for level in Level))
    return Code.REFUSED if any(finding.level is Level.FAIL for _, finding in found) else Code.DONE


def _table() -> tuple[Check, ...]:
    """All checks, in the order of the way from a login to the store."""
    from otpbridge.cli.doctor import daemon, logins, store, system  # noqa: PLC0415 - not needed for --help
    from otpbridge.cli.doctor.findings import Check  # noqa: PLC0415

    return (
        Check("run folder", daemon.run_folder),
        Check("sockets", daemon.sockets),
        Check("daemon", daemon.answers),
        Check("status", daemon.status),
        Check("units", system.units),
        Check("configuration", store.settings),
        Check("state folder", store.folder),
        Check("master key", store.key),
        Check("disk", store.room),
        Check("audit log", daemon.audit),
        Check("clock", system.clock),
        Check("pam.d", logins.pam_files),
        Check("module", logins.module),
        Check("sshd", logins.sshd_settings),
        Check("selinux", system.selinux),
        Check("apparmor", system.apparmor),
        Check("readers", system.readers),
    )


def _look(places: Places, checks: tuple[Check, ...]) -> Iterator[tuple[Check, Finding]]:
    from otpbridge.cli.doctor.findings import left_out  # noqa: PLC0415

    for check in checks:
        try:
            found = check.look(places)
        except OSError as error:
            found = [left_out(f"{error.filename or 'the system'}: {error.strerror or error}")]
        yield from ((check, finding) for finding in found)


def _tell(check: Check, finding: Finding) -> None:
    show.line(f"{finding.level:8}  {check.name:13}  {show.visible(finding.said)}")
    if finding.mend:
        show.line(f"{'':25}-> {show.visible(finding.mend)}")


def _state_dir(run_dir: Path) -> Path:
    """The store of the daemon whose sockets these are."""
    from otpbridge.config import SYSTEM_RUN, SYSTEM_STATE, default_state_dir  # noqa: PLC0415

    return SYSTEM_STATE if run_dir == SYSTEM_RUN else default_state_dir()
