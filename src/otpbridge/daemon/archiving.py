"""Old entries of the audit log go to archives, and then out of the store, while logins go on.

An archive is written beside its name, flushed, read back from its first line to its last and checked against the
key, and only then given its name. Then its rows are cut off in slices. Whatever interrupts that, nothing is lost:
what was not cut yet is there twice, and the next turn goes on with the archive that it finds.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import time
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import aclosing, closing
from dataclasses import dataclass
from functools import partial
from io import BufferedIOBase
from pathlib import Path

from otpbridge.daemon.desk import Desk
from otpbridge.errors import OtpBridgeError, StoreError
from otpbridge.model import AuditEvent
from otpbridge.store import archive, auditlog, retention
from otpbridge.store.archive import Archive
from otpbridge.store.chain import Chain, Mark
from otpbridge.store.store import prepare_folder
from otpbridge.store.writer import Transaction

log = logging.getLogger(__name__)

DAY = 86_400
_LOOK_SECONDS = 3600.0
_MOST_ROWS = 1_000_000
"""Rows of an archive, at most."""
_PAGE = 500
_SLICE = 250
"""Rows that are cut off in a transaction: a login that comes meanwhile waits for it."""
_REST = 3.0
"""How long is rested after a piece of work, in parts of the time that it took: logins come before."""

_LONGEST_REST = 0.05
_NAME = re.compile(r"audit-(\d+)-(\d+)-[0-9a-f]{8}\.jsonl\.gz", re.ASCII)

Cause = Callable[[str, dict[str, str | int | bool]], AuditEvent]
"""Makes the audit event of whoever wants this, from its name and what belongs to it."""


@dataclass(frozen=True, slots=True)
class _Checked:
    """An archive that was read to its end, and the marks behind each slice of it."""

    path: Path
    marks: tuple[Mark, ...]


@dataclass(frozen=True, slots=True)
class Cut:
    """Entries that were cut off, and the archive that they are in."""

    file: Path
    first: int
    last: int


class Archivist:
    """Reads old entries out, and cuts them off: one after the other, whoever asks."""

    def __init__(self, desk: Desk, state_dir: Path) -> None:
        self._desk = desk
        self._default = state_dir / "audit"
        self._busy = asyncio.Lock()
        self.failure: str | None = None
        """Why old entries could not be archived, the last time that was tried."""

    @property
    def _folder(self) -> Path:
        return self._desk.config.audit.archive or self._default

    async def keep_short(self) -> None:
        """Archive what is older than the configuration says, as soon as that is a day's worth. Until cancelled."""
        while True:
            try:
                await self._keep_short()
                self.failure = None
            except OtpBridgeError as error:
                self.failure = f"old audit entries cannot be archived: {error}"
                log.warning("%s", self.failure)
            await asyncio.sleep(_LOOK_SECONDS)

    async def _keep_short(self) -> None:
        days = self._desk.config.audit.keep_days
        if days is None:
            return
        before = self._desk.clock() - days * DAY
        oldest = await self._desk.store.read(retention.oldest)
        if oldest is not None and oldest < before - DAY:
            async with aclosing(self.cut(before, _by_itself)) as cuts:
                async for cut in cuts:
                    log.info("audit entries %d to %d are in %s now", cut.first, cut.last, cut.file)

    async def lines(self, before: float | None) -> AsyncGenerator[bytes, None]:
        """The entries older than `before` (Unix seconds), or all, as the lines of an archive.

        Raises BrokenChainError where the log is not whole.
        """
        async with self._busy:
            mark = await self._begins()
            yield archive.head(mark)
            async with aclosing(self._pages(mark, before)) as pages:
                async for page in pages:
                    for line in archive.body(page.rows):
                        yield line
                    mark = page.ends
            yield archive.tail(mark)

    async def cut(self, before: float, cause: Cause) -> AsyncGenerator[Cut, None]:
        """Archive the entries older than `before` (Unix seconds) and cut them off, a file after the other."""
        async with self._busy:
            await asyncio.to_thread(prepare_folder, self._folder)
            while True:
                begins = await self._begins()
                found = await self._found(begins) or await self._written(begins, before)
                if found is None:
                    return
                await self._cut(begins, found, cause)
                yield Cut(found.path, begins.sequence + 1, found.marks[-1].sequence)

    async def _begins(self) -> Mark:
        return await self._desk.store.read(partial(retention.begins, chain=self._desk.store.audit.chain))

    async def _pages(self, mark: Mark, before: float | None) -> AsyncGenerator[retention.Page, None]:
        """The rows behind a mark. The log grows meanwhile: what comes after the end of now is left out."""
        store = self._desk.store
        end, _ = await store.read(auditlog.anchor)
        work = partial(retention.page, chain=store.audit.chain, before=before, end=end, most=_PAGE)
        while True:
            begun = time.perf_counter()
            page = await store.read_long(partial(work, mark=mark))
            yield page
            if page.last:
                return
            mark = page.ends
            await rest(begun, _REST)

    # --- archives ---

    async def _found(self, begins: Mark) -> _Checked | None:
        """An archive from an earlier turn that holds the oldest entry that is left."""
        for path in sorted(await asyncio.to_thread(lambda: list(self._folder.glob("audit-*.jsonl.gz")))):
            first, last = _span(path)
            if first <= begins.sequence + 1 <= last:
                try:
                    checked = await self._check(path, begins)
                except StoreError as error:
                    log.warning("%s; its entries are archived anew", error)
                    continue
                # After a restore there are archives of what came after the backup, too.
                if await self._desk.store.read(partial(retention.holds, mark=checked.marks[-1])):
                    await self._keep(path)
                    return checked
        return None

    async def _written(self, begins: Mark, before: float) -> _Checked | None:
        """A new archive of entries older than `before`; None where there are none."""
        folder = self._folder
        draft = folder / ".draft.jsonl.gz"
        try:
            ends = await self._write(draft, begins, before)
            if ends == begins:
                return None
            checked = await self._check(draft, begins)
            if checked.marks[-1] != ends:
                raise StoreError(f"{draft}: is not what was written; is the disk sound?")
            name = f"audit-{begins.sequence + 1:012d}-{ends.sequence:012d}-{ends.mac[:4].hex()}.jsonl.gz"
            await asyncio.to_thread(draft.replace, folder / name)
        except OSError as error:
            raise StoreError(f"{folder}: cannot be written: {error.strerror}") from None
        finally:
            draft.unlink(missing_ok=True)
        await self._keep(folder / name)
        return _Checked(folder / name, checked.marks)

    async def _keep(self, path: Path) -> None:
        """See to it that an archive keeps its name when the power fails: also one from an earlier turn."""
        try:
            await asyncio.to_thread(_flush_folders, path)
        except OSError as error:
            raise StoreError(f"{path}: cannot be kept: {error.strerror}") from None

    async def _write(self, draft: Path, begins: Mark, before: float) -> Mark:
        """Write rows to a file and flush it; the mark behind the last of them."""
        mark = begins
        with await asyncio.to_thread(draft.open, "wb") as file, archive.writing(file, draft.name) as out:
            out.write(archive.head(mark))
            async with aclosing(self._pages(mark, before)) as pages:
                async for page in pages:
                    await asyncio.to_thread(out.write, b"".join(archive.body(page.rows)))
                    mark = page.ends
                    if mark.sequence - begins.sequence >= _MOST_ROWS:
                        break
            out.write(archive.tail(mark))
            await asyncio.to_thread(out.close)
            await asyncio.to_thread(_flush, file)
        return mark

    async def _check(self, path: Path, begins: Mark) -> _Checked:
        """Read an archive and check all of it. Raises StoreError where it is not whole, or not of this log."""
        marks: list[Mark] = []
        reading = _followed(path, self._desk.store.audit.chain, begins)
        try:
            while True:
                begun = time.perf_counter()
                mark = await asyncio.to_thread(next, reading, None)
                if mark is None:
                    break
                marks.append(mark)
                await rest(begun, _REST)
        finally:
            reading.close()
        return _Checked(path, tuple(marks))

    # --- the store ---

    async def _cut(self, begins: Mark, checked: _Checked, cause: Cause) -> None:
        """Cut off, slice by slice, the rows of an archive that is on disk; the first slice notes that in the log."""
        chain, last = self._desk.store.audit.chain, checked.marks[-1].sequence
        file = os.fspath(checked.path)
        detail: dict[str, str | int | bool] = {"first": begins.sequence + 1, "last": last, "file": file}
        event: AuditEvent | None = cause("audit log cut", detail)
        start = begins
        for mark in checked.marks:
            if mark.sequence <= start.sequence:
                continue
            begun = time.perf_counter()
            await self._desk.change(partial(_slice, chain=chain, start=start, to=mark, event=event))
            start, event = mark, None
            await rest(begun, _REST)


def _slice(transaction: Transaction, *, chain: Chain, start: Mark, to: Mark, event: AuditEvent | None) -> None:
    retention.cut(transaction.connection, chain, start, to)
    if event is not None:
        transaction.audit(event)


def _followed(path: Path, chain: Chain, begins: Mark) -> Generator[Mark, None, None]:
    """The marks of an archive behind each slice of it, once the rows up to there were checked.

    Raises StoreError where it is not whole, or `begins` is no place in it.
    """
    with closing(Archive(path)) as found:
        mark = last = found.begins
        passed = mark == begins
        for row in found:
            mark = chain.follow(mark, row.sequence, row.entry, row.mac)
            passed = passed or mark == begins
            if mark.sequence - last.sequence == _SLICE:
                yield mark
                last = mark
        if mark != last:
            yield mark
    if not passed:
        raise StoreError(f"{path}: is of another log")


def _by_itself(name: str, detail: dict[str, str | int | bool]) -> AuditEvent:
    return AuditEvent(name, uid=os.geteuid(), pid=os.getpid(), detail=detail)


def _span(path: Path) -> tuple[int, int]:
    """The first and the last entry of an archive, by its name."""
    read = _NAME.fullmatch(path.name)
    return (int(read[1]), int(read[2])) if read else (0, -1)


def _flush(file: BufferedIOBase) -> None:
    """Put a file on the disk, and see to it that it is read from there."""
    file.flush()
    os.fsync(file.fileno())
    os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _flush_folders(path: Path) -> None:
    """Put the name of a file on the disk, and that of its folder."""
    for folder in (path.parent, path.parent.parent):
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


async def rest(begun: float, parts: float) -> None:
    """Leave the machine to logins after a piece of work that was begun then, so many parts of the time it took."""
    await asyncio.sleep(min(_LONGEST_REST, (time.perf_counter() - begun) * parts))
