"""Two daemons on one PostgreSQL database, as on two hosts."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from daemon_rig import Daemon


def daemon_on(url: str, folder: Path, config: str = "") -> Daemon:
    """A daemon that is not started, in a folder that is new, with its store at `url`."""
    folder.mkdir()
    return Daemon(folder, config=f'{config}[store]\nurl = "{url}"\n')


@contextmanager
def pair_on(urls: Sequence[str], folder: Path, config: str = "") -> Iterator[list[Daemon]]:
    """Daemons that run, with one master key; `urls` are how each of the two reaches the database."""
    one, other = (daemon_on(url, folder / name, config) for name, url in zip(("one", "other"), urls, strict=True))
    with one:
        other.state_dir.mkdir(mode=0o700)
        shutil.copy2(one.state_dir / "master.key", other.state_dir)
        with other:
            yield [one, other]
