"""What the tests of the PAM module share: the module, plain and sanitized, and stacks around it."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import mkdtemp

import pammodule
import pytest
from pamstack import Outcome, Stack

SANITIZER_ENVIRONMENT = {
    "ASAN_OPTIONS": "detect_leaks=0:halt_on_error=1:abort_on_error=1",  # Python itself leaks by design
    "UBSAN_OPTIONS": "halt_on_error=1:print_stacktrace=1",
}


@dataclass(frozen=True, slots=True)
class Module:
    """A build of the module and what a program that was built without sanitizers must set to load it."""

    path: Path
    preload: str | None
    environment: dict[str, str]


@pytest.fixture(params=["plain", pytest.param("sanitized", marks=pytest.mark.campaign)])
def module(request: pytest.FixtureRequest) -> Module:
    """Every scenario runs with the module as it is installed and with one that reports memory errors."""
    if request.param == "sanitized":
        return Module(pammodule.build_sanitized(), pammodule.sanitizer_library(), SANITIZER_ENVIRONMENT)
    return Module(pammodule.build(), None, {})


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder with a path short enough for a socket, that other users may enter."""
    path = Path(mkdtemp(prefix="otpb-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


@pytest.fixture
def socket_path(folder: Path) -> Path:
    """Where the daemon of a scenario listens."""
    return folder / "verify"


StackMaker = Callable[..., Stack]


@pytest.fixture
def make_stack(module: Module, folder: Path, socket_path: Path) -> StackMaker:
    """Makes a stack: the module with these options, and what stands before and after it."""

    def make(
        *options: str, control: str = "required", before: str = "", after: str = "", socket: Path | None = None
    ) -> Stack:
        line = f"{module.path} socket={socket or socket_path} {' '.join(options)}"
        text = f"{before}\nauth {control} {line}\n{after}\naccount required {line}"
        return Stack(folder / "pam.d", text, preload=module.preload, environment=module.environment)

    return make


@pytest.fixture
def log_is_clean() -> Callable[..., None]:
    """Checks that none of these texts is in what went to syslog."""

    def check(outcome: Outcome, *texts: str) -> None:
        for text in texts:
            assert text not in outcome.log

    return check
