"""Archives of the audit log, as admins check them: that none has a gap, and what the key says of each entry."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from otpbridge.store.archive import Archive, Row
from otpbridge.store.chain import BEGINNING, BrokenChainError, Mark, parse_anchor
from otpbridge.wire import messages

if TYPE_CHECKING:
    from otpbridge.client import Client

_ROOM = 56_000
_AROUND = 160


@dataclass(frozen=True, slots=True)
class Span:
    """Entries that archives hold without a gap. `joins`: the log in the store goes on where they end."""

    first: int
    last: int
    joins: bool


class Checker:
    """Reads archives in the order of their entries. Without a daemon, nothing of what entries say is checked."""

    def __init__(self, daemon: Client | None, anchor: str | None) -> None:
        self._daemon = daemon
        self._wanted = None if anchor is None else parse_anchor(anchor)
        self._begins = BEGINNING
        self._passed: set[Mark] = set()

    def check(self, files: Sequence[Path]) -> Span:
        """Check all of them. Raises BrokenChainError or ArchiveError."""
        if self._daemon is not None:
            self._ask(BEGINNING, ())
        order = sorted((_begins(file).sequence, file) for file in files)
        first = ends = _begins(order[0][1])
        for _, file in order:
            with closing(Archive(file)) as archive:
                ends = self._follow(archive, ends)
        if self._wanted is not None and self._wanted not in self._passed:
            if first.sequence <= self._wanted.sequence <= ends.sequence:
                raise BrokenChainError(f"entry {self._wanted.sequence} is not the one of the anchor")
            raise BrokenChainError(f"entry {self._wanted.sequence}, which the anchor is of, is in none of the files")
        return Span(first.sequence + 1, ends.sequence, self._daemon is not None and self._begins in self._passed)

    def _follow(self, archive: Archive, ends: Mark) -> Mark:
        """Check one more; the mark behind all so far."""
        mark = archive.begins
        if mark.sequence > ends.sequence:
            raise BrokenChainError(f"entries {ends.sequence + 1} to {mark.sequence} are in none of the files")
        self._pass(mark, ends)
        for rows in _batches(archive):
            if self._daemon is not None:
                self._ask(mark, rows)
            for row in rows:
                mark = Mark(row.sequence, row.mac)
                self._pass(mark, ends)
        return max(mark, ends, key=lambda each: each.sequence)

    def _ask(self, mark: Mark, rows: Sequence[Row]) -> None:
        """Have the daemon check rows that stand on a mark."""
        assert self._daemon is not None
        batch = tuple(
            messages.ArchivedRow(sequence=row.sequence, entry=row.entry.decode(), mac=row.mac.hex()) for row in rows
        )
        reply = self._daemon.call(messages.AuditCheckRows(anchor=mark.anchor, rows=batch))
        if reply.fault is not None:
            raise BrokenChainError(reply.fault)
        self._begins = parse_anchor(reply.begins)

    def _pass(self, mark: Mark, ends: Mark) -> None:
        if mark.sequence == ends.sequence and mark != ends:
            raise BrokenChainError(f"two files say different things of entry {mark.sequence}")
        if mark in {self._wanted, self._begins}:
            self._passed.add(mark)


def _begins(file: Path) -> Mark:
    with closing(Archive(file)) as archive:
        return archive.begins


def _batches(archive: Archive) -> Iterator[list[Row]]:
    """Rows, as many together as fit into a call."""
    batch: list[Row] = []
    used = 0
    for row in archive:
        # A text in JSON is at most twice as long: entries are JSON, which holds no control characters.
        size = 2 * len(row.entry) + _AROUND
        if batch and used + size > _ROOM:
            yield batch
            batch, used = [], 0
        batch.append(row)
        used += size
    if batch:
        yield batch
