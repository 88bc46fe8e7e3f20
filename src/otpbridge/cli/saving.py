"""Files of what comes from the daemon: whole or not at all."""

from __future__ import annotations

import os
import secrets
import sys
from collections.abc import Iterable
from pathlib import Path

from otpbridge.cli import show
from otpbridge.cli.exits import Code, CommandError


def write(piece: bytes) -> None:
    """Put a piece on standard output. Raises CommandError."""
    try:
        sys.stdout.buffer.write(piece)
        sys.stdout.buffer.flush()
    except OSError as error:
        raise show.cannot_write(error) from None


def save(file: Path, pieces: Iterable[bytes], *, mode: int = 0o600) -> int:
    """Write pieces beside a name, flush them to the disk, then give them the name; the bytes. Raises CommandError.

    Others may do with the file what `mode` says, whatever the umask.
    """
    if file.exists() and not file.is_file():
        # A device or pipe would be gone, with a file in its place.
        raise CommandError(Code.REFUSED, f"cannot write {file}: it is there, and is not a file", "CannotWrite")
    beside = file.with_name(f".{file.name}.{secrets.token_hex(6)}")
    size = 0
    try:
        fd = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            with os.fdopen(fd, "wb") as out:
                os.fchmod(fd, mode)
                for piece in pieces:
                    size += out.write(piece)
                out.flush()
                os.fsync(out.fileno())
            beside.replace(file)
            _flush_folder(file.parent)
        except BaseException:
            beside.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise CommandError(Code.REFUSED, f"cannot write {file}: {error.strerror}", "CannotWrite") from error
    return size


def _flush_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
