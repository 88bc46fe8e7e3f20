"""A power cut, as far as one can be had without pulling a plug.

A store lies on an ext4 of its own, on an image behind a loop device. The moment a login has returned, the image is
copied: what the file system had not written by then is not in the copy, as it would not be on a disk. The copy is
mounted, and the same code tried again on it. In the control everything is flushed before the copy is made.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from native import InvalidRunError, MissingError
from rig import Record, Rig
from safety import Ours, System, add, fresh, systems_in

_MIB = 1 << 20
_SIZE_MIB = 96
_USERS = 200


class Disk:
    """An image with an ext4, mounted at `place`. Needs root."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(mode=0o700)
        self._folder = folder
        self._image = folder / "image"
        self.place = folder / "disk"

    @contextlib.contextmanager
    def mounted(self) -> Iterator[Path]:
        """Make it and mount it."""
        if os.geteuid() != 0:
            raise MissingError("a file system of its own is mounted for this, which needs root")
        with self._image.open("wb") as file:
            file.truncate(_SIZE_MIB * _MIB)
        _run("mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=0,lazy_journal_init=0", self._image)
        with _mount(self._image, self.place):
            yield self.place

    def settle(self) -> None:
        """Flush all that was written to it."""
        _run("sync", "-f", self.place)

    @contextlib.contextmanager
    def cut(self) -> Iterator[Path]:
        """What would be found after a power cut now: where a copy of the image is mounted."""
        image = self._folder / "copy.image"
        _run("cp", "--sparse=always", self._image, image)
        try:
            with _mount(image, self._folder / "copy") as place:
                yield place
        finally:
            image.unlink()


@contextlib.contextmanager
def _mount(image: Path, place: Path) -> Iterator[Path]:
    place.mkdir(mode=0o700, exist_ok=True)
    _run("mount", "-o", "loop", image, place)
    try:
        yield place
    finally:
        # Lazily: a process that was killed may hold it for another moment.
        _run("umount", "--lazy", place)


def _run(program: str, *arguments: object) -> None:
    found = shutil.which(program, path=f"{os.environ['PATH']}:/usr/sbin:/sbin")
    if found is None:
        raise MissingError(f"{program} is not installed")
    done = subprocess.run([found, *map(str, arguments)], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise MissingError(f"{program}: {done.stderr.strip()}")


def cut(rig: Rig) -> Record:
    """For each system, how often a spent code was accepted after the cut, and whether others were let in."""
    rig.say("power cut")
    found: Record = {}
    disk = Disk(rig.folder / "cut")
    with disk.mounted() as place, systems_in(rig, place / "s", _USERS) as systems:
        for number in range(rig.plan.cuts + 1):
            # The last one is the control.
            control = number == rig.plan.cuts
            for system in systems:
                login = system.logins(1, 1)[0]
                disk.settle()
                if rig.native.codes(rig.services.confdir, system.service, [login]) != [0]:
                    raise InvalidRunError(f"{system.service} refused a right code before the cut")
                if control:
                    disk.settle()
                with disk.cut() as copy, _on_copy(rig, system, copy / "s") as service:
                    others = fresh(system, [login])
                    add(
                        found.setdefault(f"{system.service} control" if control else system.service, {}),
                        again=rig.native.codes(rig.services.confdir, service, [login]).count(0),
                        fresh=len(others),
                        let_in=rig.native.codes(rig.services.confdir, service, others).count(0),
                    )
    return found


@contextlib.contextmanager
def _on_copy(rig: Rig, system: System, copy: Path) -> Iterator[str]:
    """The same system on the copy of its store: the PAM service that asks it."""
    if not isinstance(system, Ours):
        folder = copy / system.folder.name
        yield system.at(rig.services, folder, f"{folder.name}copy")
        return
    survivor = system.on_copy(copy / "otpbridge")
    survivor.start()
    try:
        yield rig.services.add_otpbridge("otpbridgecopy", rig.module, survivor.socket)
    finally:
        survivor.kill()
