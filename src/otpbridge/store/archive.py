"""Archives: files of audit rows, as JSON lines, compressed where the name ends in `.gz`.

A file begins with a line that says what its first row stands on, has a line per row, and ends with the number of the
last. The text of an entry is exactly what its mac covers.

    {"otpbridge_audit":1,"after":0,"mac":"0000…"}
    {"sequence":1,"mac":"5f3e…","entry":{"at":1800000000.0,"event":"daemon started", …}}
    {"end":1}
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from io import BufferedIOBase
from pathlib import Path

import msgspec

from otpbridge.errors import StoreError
from otpbridge.store.chain import Mark

_FORMAT = 1
_LONGEST_LINE = 1 << 20
_LEVEL = 6
_MAC = 32


class ArchiveError(StoreError):
    """A file of audit rows that cannot be read to its end."""


@dataclass(frozen=True, slots=True)
class Row:
    """A row of the log; `entry` is JSON text."""

    sequence: int
    entry: bytes
    mac: bytes


class _Header(msgspec.Struct):
    otpbridge_audit: int
    after: int
    mac: str


class _Row(msgspec.Struct):
    sequence: int
    mac: str
    entry: msgspec.Raw


class _End(msgspec.Struct):
    end: int


_header = msgspec.json.Decoder(_Header).decode
_row = msgspec.json.Decoder(_Row).decode
_end = msgspec.json.Decoder(_End).decode


def head(begins: Mark) -> bytes:
    """The first line of a file whose first row stands on a mark."""
    return b'{"otpbridge_audit":%d,"after":%d,"mac":"%b"}\n' % (_FORMAT, begins.sequence, begins.mac.hex().encode())


def body(rows: Iterable[Row]) -> Iterator[bytes]:
    """A line per row."""
    for row in rows:
        yield b'{"sequence":%d,"mac":"%b","entry":%b}\n' % (row.sequence, row.mac.hex().encode(), row.entry)


def tail(ends: Mark) -> bytes:
    """The last line."""
    return b'{"end":%d}\n' % ends.sequence


def writing(file: BufferedIOBase, name: str) -> BufferedIOBase:
    """What lines are written to so that `file` becomes one of this name. Close it before the file."""
    if not name.endswith(".gz"):
        return file
    return gzip.GzipFile(filename="", mode="wb", compresslevel=_LEVEL, fileobj=file, mtime=0)


class Archive:
    """A file that is read once, row by row. Raises ArchiveError where it is damaged, cut short, or none."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._file: BufferedIOBase = gzip.GzipFile(path) if path.name.endswith(".gz") else path.open("rb")
        except OSError as error:
            raise ArchiveError(f"{path}: cannot be read: {error.strerror}") from None
        try:
            header = _header(self._line())
            if header.otpbridge_audit != _FORMAT:
                raise self._damaged()
            self.begins = Mark(header.after, self._mac(header.mac))
        except msgspec.MsgspecError:
            self._file.close()
            raise self._damaged() from None
        except BaseException:
            self._file.close()
            raise

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()

    def __iter__(self) -> Iterator[Row]:
        """Its rows, of which each has the number after that of the one before."""
        sequence = self.begins.sequence
        while True:
            line = self._line()
            try:
                found = _row(line)
            except msgspec.MsgspecError:
                break
            sequence += 1
            if found.sequence != sequence:
                raise ArchiveError(f"{self._path}: entry {sequence} is missing")
            yield Row(sequence, bytes(found.entry), self._mac(found.mac))
        try:
            whole = _end(line).end == sequence and not self._line()
        except msgspec.MsgspecError:
            whole = False
        if not whole:
            raise ArchiveError(f"{self._path}: is damaged or cut short behind entry {sequence}")

    def _line(self) -> bytes:
        try:
            return self._file.readline(_LONGEST_LINE)
        except (OSError, EOFError, zlib.error):
            raise self._damaged() from None

    def _mac(self, text: str) -> bytes:
        try:
            mac = bytes.fromhex(text)
        except ValueError:
            mac = b""
        if len(mac) != _MAC:
            raise self._damaged()
        return mac

    def _damaged(self) -> ArchiveError:
        return ArchiveError(f"{self._path}: is no file of audit entries, or is damaged")
