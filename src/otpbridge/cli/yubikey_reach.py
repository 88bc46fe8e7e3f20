"""The way of a command to a key: which one, taken over or not, unlocked, touched."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING

import click

from otpbridge.cli import ask, show
from otpbridge.cli.countdown import countdown
from otpbridge.cli.exits import Code, CommandError
from otpbridge.cli.options import F
from otpbridge.devices.keys import Account, Found, Key, choose
from otpbridge.errors import (
    DeviceBusyError,
    DeviceGoneError,
    LockedError,
    NoDeviceError,
    NoLibraryError,
    TouchTimeoutError,
    WrongPasswordError,
)

if TYPE_CHECKING:
    from otpbridge.devices.keys import Code as KeyCode
    from otpbridge.devices.oath import Oath

TOUCH_SECONDS = 15
"""How long a key waits for a touch."""
_TRIES = 3
_PAUSE = 0.5


@dataclass(slots=True)
class Reach:
    """How keys are reached in one run. `passwords` keeps what was typed, by key, until the run ends."""

    password_stdin: bool = False
    take_over: bool = False
    passwords: dict[int | None, str] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        """Raises NoLibraryError."""
        try:
            import_module("otpbridge.devices.oath")
        except ImportError as error:
            raise NoLibraryError(
                f"this needs the libraries for hardware keys: pip install 'otpbridge[hardware]' ({error})"
            ) from None

    def look(self) -> Found:
        """What is plugged in. Programs that hold keys are asked to let go where that was allowed, and named."""
        from otpbridge.devices import find  # noqa: PLC0415 - the libraries may be missing

        found = find.look()
        busy = [each for each in found.unreadable if isinstance(each.error, DeviceBusyError)]
        if not (busy and self.take_over):
            return found
        self.end_holders()
        return find.look()

    def end_holders(self) -> None:
        """Ask programs that hold keys to let go, and name them."""
        from otpbridge.devices import holders  # noqa: PLC0415 - the libraries may be missing

        for holder in holders.ask_to_let_go(holders.running()):
            self.tell(f"Told {holder} to let go of the key.")

    def key(self, serial: int | None) -> Key:
        """The key with this serial number, or the only one. Raises DeviceError."""
        return choose(self.look(), serial)

    def awaited(self, serial: int, seconds: float) -> Key:
        """The key with this serial number. Waits for it to be plugged in. Raises DeviceError."""
        deadline = time.monotonic() + seconds
        asked = False
        while True:
            found = self.look()
            if any(key.serial == serial for key in found.keys) or time.monotonic() > deadline:
                return choose(found, serial)
            if not asked:
                show.note(f"Plug in the key {serial}.")
                asked = True
            time.sleep(_PAUSE)

    def another(self, taken: Key, serial: int | None, seconds: float) -> Key:
        """A second key: the one with this serial number, or the only other one. Waits for it to be plugged in."""
        deadline = time.monotonic() + seconds
        asked = False
        while True:
            found = self.look()
            others = Found(tuple(key for key in found.keys if key.serial != taken.serial), found.unreadable)
            if others.keys or others.unreadable or time.monotonic() > deadline:
                return choose(others, serial)
            if not asked:
                show.note("Plug in the second key.")
                asked = True
            time.sleep(_PAUSE)

    def returned(self, key: Key, seconds: float) -> bool:
        """Whether a key that was pulled is plugged in, after waiting for it."""
        deadline = time.monotonic() + seconds
        asked = False
        while key.serial not in {each.serial for each in self.look().keys}:
            if time.monotonic() > deadline:
                return False
            if not asked:
                show.note(f"Plug {key} in again: what was begun on it is to be undone.")
                asked = True
            time.sleep(_PAUSE)
        return True

    @contextmanager
    def oath(self, key: Key) -> Iterator[Oath]:
        """The OATH application of a key, open. Raises DeviceError."""
        from otpbridge.devices.oath import open_oath  # noqa: PLC0415 - the libraries may be missing

        with open_oath(key) as oath:
            self.unlock(oath)
            yield oath

    def code(self, oath: Oath, account: bytes, at: int, *, touch: bool) -> KeyCode:
        """A code of an account, for which the person may have to touch the key. Raises DeviceError."""
        return read_code(oath, account, at, touch=touch)

    def tell(self, text: str) -> None:
        """Say something to the person."""
        show.note(text)

    def unlock(self, oath: Oath) -> None:
        """Open it with the password that is known, or ask for it. Raises LockedError."""
        if not oath.locked:
            return
        known = self.passwords.get(oath.key.serial)
        if known is not None:
            oath.unlock(known)
            return
        if not self.password_stdin and oath.unlock_remembered():
            return
        if not (self.password_stdin or sys.stdin.isatty()):
            raise LockedError(
                f"{oath.key} wants its OATH password: give it with --password-stdin, or have ykman remember it"
                " (ykman oath access remember)"
            )
        for last in (False, False, True):
            password = ask.hidden(f"OATH password of {oath.key}: ")
            try:
                oath.unlock(password)
            except WrongPasswordError:
                if last or self.password_stdin:
                    raise
                show.note("That was not it.")
                continue
            self.passwords[oath.key.serial] = password
            return


def read_code(oath: Oath, account: bytes, at: int, *, touch: bool) -> KeyCode:
    """A code of an account; where that takes a touch, the person is told, and told again. Raises DeviceError."""
    if not touch:
        return oath.code(account, at)
    for left in reversed(range(_TRIES if sys.stdin.isatty() else 1)):
        try:
            with countdown(f"Touch {oath.key} now", TOUCH_SECONDS):
                return oath.code(account, at)
        except KeyboardInterrupt:
            # It cannot be told to stop, and nothing else can be done with it before it does.
            show.note(
                f"Giving up. {oath.key} still waits for its touch: touch it, or wait {TOUCH_SECONDS} s at most."
                " Ctrl-C leaves it to itself."
            )
            raise
        except TouchTimeoutError:
            if not left:
                raise
            show.note("It was not touched. Once more:")
    raise AssertionError


def found_account(accounts: list[Account], name: str, key: Key) -> Account:
    """The account of this name, or the only one whose name holds these letters. Raises CommandError."""
    exact = [account for account in accounts if name in {str(account), account.name}]
    near = [account for account in accounts if name.lower() in str(account).lower()]
    fitting = exact if len(exact) == 1 else near
    if len(fitting) == 1:
        return fitting[0]
    if not fitting:
        raise CommandError(Code.REFUSED, f"{key} holds no account {name}; see: otpbridge yubikey code", "NoAccount")
    several = ", ".join(str(account) for account in fitting)
    raise CommandError(Code.USAGE, f"several accounts on {key} fit {name}: {several}", "ManyAccounts")


def key_options(function: F) -> F:
    """Which key, and how it is opened."""
    options: list[Callable[[F], F]] = [
        click.option("--serial", type=int, metavar="S", help="The key with this serial number; else the only one."),
        click.option(
            "--password-stdin",
            is_flag=True,
            help="Read the key's OATH password as a line from standard input; else ykman's memory is used, or you"
            " are asked.",
        ),
        click.option(
            "--take-over",
            is_flag=True,
            help="Where another program holds the key: end scdaemon (GnuPG starts it again when needed), and have"
            " yubikey-agent let go.",
        ),
    ]
    for option in reversed(options):
        function = option(function)
    return function


GONE = (DeviceGoneError, NoDeviceError)
"""What a key that was pulled leads to."""
