"""Bring the schema of a store to the version that this program needs."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import Connection, inspect, text

from otpbridge.errors import StoreError

HEAD = "0001"
"""The newest revision in migrations/versions."""


def migrate(connection: Connection) -> None:
    """Create or upgrade the tables. Raises StoreError where the store is of a later version than the program."""
    present = version(connection)
    if present == HEAD:
        return
    # Only here: loading alembic takes longer than all the rest of a start.
    from alembic import command  # noqa: PLC0415
    from alembic.config import Config  # noqa: PLC0415
    from alembic.script import ScriptDirectory  # noqa: PLC0415

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    if present is not None and present not in known:
        raise StoreError(
            f"the store has schema {present}, made by a later otpbridge; this one knows up to {HEAD}. "
            "Install that version, or restore a backup from before the upgrade"
        )
    config.attributes["connection"] = connection
    command.upgrade(config, HEAD)


def version(connection: Connection) -> str | None:
    """The schema's revision; None in an empty database."""
    if not inspect(connection).has_table("alembic_version"):
        return None
    return connection.execute(text("SELECT version_num FROM alembic_version")).scalar_one_or_none()
