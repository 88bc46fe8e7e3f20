"""The closed loop: the daemon makes a seed, keys get it, the keys prove it. A failure leaves nothing behind."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from otpbridge.cli import show
from otpbridge.cli.enrolling import required
from otpbridge.cli.exits import Code, CommandError, short_name
from otpbridge.cli.proof import call_with_proof
from otpbridge.cli.token import fault_of
from otpbridge.cli.yubikey_reach import Reach
from otpbridge.cli.yubikey_undo import remove_account, take_back
from otpbridge.devices.keys import Key, NewAccount, check_firmware, key_issuer
from otpbridge.errors import DeviceError, OtpBridgeError, RemoteError, UnavailableError
from otpbridge.model import State
from otpbridge.wire import messages

if TYPE_CHECKING:
    from otpbridge.client import Client
    from otpbridge.devices.oath import Oath
    from otpbridge.wire.messages import ConfirmReply, Start, StartReply

_SECOND_KEY_SECONDS = 120.0
_DAEMON_SECONDS = 10.0
_PAUSE = 0.5


@dataclass(frozen=True, slots=True)
class Enrolled:
    """A token in force, the keys that hold it, and what the account on them is called."""

    started: StartReply
    reply: ConfirmReply
    keys: tuple[Key, ...]
    account: str


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to be enrolled where. `backup` is the second key, or None to wait for one, where `twice`."""

    request: Start
    key: Key
    touch: bool = False
    twice: bool = False
    backup: int | None = None


def enrol(reach: Reach, daemon: Client, wanted: Wanted) -> Enrolled:
    """Put a new token on a key, or on two, and in force. Raises with nothing left, or says what is."""
    request, key = wanted.request, wanted.key
    check_firmware(key, request.algorithm, touch=wanted.touch)
    with reach.oath(key) as oath:
        oath.check_room()
    started = call_with_proof(daemon, request, request.user, request.client)
    account = account_of(started, touch=wanted.touch)
    undo = Undo(reach, daemon, started)
    with undo:

        def begun(_oath: Oath) -> None:
            undo.also(key, lambda: remove_account(reach, key, account), str(account))

        shown = place(reach, key, account, begun)
        keys = [key]
        if wanted.twice:
            second = reach.another(key, wanted.backup, _SECOND_KEY_SECONDS if sys.stdin.isatty() else 0)
            shown = _back_up(reach, second, account, undo, shown)
            keys.append(second)
        return Enrolled(started, confirm(reach, daemon, started, shown.code, keys), tuple(keys), str(account))


def account_of(started: StartReply, *, touch: bool) -> NewAccount:
    """What goes on a key."""
    from otpbridge.enroll import otpauth  # noqa: PLC0415 - not needed for --help

    read = otpauth.parse(required(started.uri))
    return NewAccount(
        read.kind, read.account, key_issuer(read.issuer), read.parameters, read.secret, read.counter, touch
    )


@dataclass(frozen=True, slots=True)
class Shown:
    """A code that a key computed, and for when (Unix time in seconds)."""

    code: str = field(repr=False)
    at: int


def place(reach: Reach, key: Key, account: NewAccount, begun: Callable[[Oath], None]) -> Shown:
    """Write the account; a code that the key then computes. `begun` is called before anything is written."""
    with reach.oath(key) as oath:
        oath.check(account)
        begun(oath)
        oath.put(account)
        reach.tell(f"{account} is on {key}.")
        at = int(time.time())
        return Shown(reach.code(oath, account.id, at, touch=account.touch).text, at)


def _back_up(reach: Reach, key: Key, account: NewAccount, undo: Undo, first: Shown) -> Shown:
    """Write the account on a second key, which must compute the code of the first; a code that counts now."""
    with reach.oath(key) as oath:
        oath.check(account)
        undo.also(key, lambda: remove_account(reach, key, account), str(account))
        oath.put(account)
        if reach.code(oath, account.id, first.at, touch=account.touch).text != first.code:
            raise DeviceError(f"{key} computes other codes than the first key; nothing was enrolled")
        reach.tell(f"{account} is on {key} too, and computes the same.")
        now = int(time.time())
        period = account.parameters.period
        if now // period == first.at // period:
            return first
        return Shown(reach.code(oath, account.id, now, touch=account.touch).text, now)


def confirm(reach: Reach, daemon: Client, started: StartReply, code: str, keys: list[Key]) -> ConfirmReply:
    """Have the daemon judge the code. Raises CommandError where it refuses, UndecidedError where nobody knows."""
    serials = tuple(str(key.serial) for key in keys if key.serial is not None)
    try:
        reply = daemon.call(messages.Confirm(token=started.token, code=code, serials=serials or None))
    except UnavailableError as error:
        if _state(daemon, started) is not State.ACTIVE:
            raise
        reach.tell(f"otpbridge: {error}. But the token is in force.")
        return messages.ConfirmReply(confirmed=True, state=State.ACTIVE, replaced=())
    if not reply.confirmed:
        clock = " Codes go by the clock of this machine: is it right?" if reply.fault == "clock" else ""
        raise CommandError(Code.REFUSED, f"{fault_of(reply)}{clock}", "NotConfirmed")
    return reply


def _state(daemon: Client, started: StartReply) -> State | None:
    """What became of a token while the daemon was away; None where it is gone. Raises UndecidedError."""
    deadline = time.monotonic() + _DAEMON_SECONDS
    while True:
        try:
            reply = daemon.call(messages.Tokens(user=started.user, client=started.client))
        except UnavailableError as error:
            if time.monotonic() > deadline:
                raise UndecidedError(started) from error
            time.sleep(_PAUSE)
            continue
        return {token.id: token.state for token in reply.tokens}.get(started.token)


class UndecidedError(CommandError):
    """The daemon went away while it confirmed, and did not come back."""

    def __init__(self, started: StartReply) -> None:
        super().__init__(
            Code.UNAVAILABLE,
            f"the daemon went away while it confirmed token {started.token}, so nobody knows whether it is in force,"
            " and the key was left as it is. When it is back: otpbridge yubikey audit",
            "Undecided",
        )


class Undo:
    """What takes back an enrolment that fails. Used with `with`: what fails inside is undone and told."""

    def __init__(self, reach: Reach, daemon: Client, started: StartReply) -> None:
        self._reach = reach
        self._daemon = daemon
        self._started = started
        self._steps: list[tuple[Key, Callable[[], None], str]] = []

    def also(self, key: Key, step: Callable[[], None], what: str) -> None:
        """From here on this has to be undone on this key too."""
        self._steps.append((key, step, what))

    def __enter__(self) -> Undo:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _trace: object) -> None:
        if error is None or isinstance(error, UndecidedError):
            return
        if self._steps:
            show.note("\nTaking back what was done.")
        # The token first: without it, what may be left on a key is worth nothing.
        left = [*self._discard(), *(text for step in reversed(self._steps) for text in self._take_back(*step))]
        for text in left:
            show.note(f"otpbridge: {text}")
        if not left:
            show.note("Nothing is left of it: no token, and nothing on a key.")

    def _discard(self) -> list[str]:
        token = self._started.token
        try:
            self._daemon.call(messages.Discard(token=token))
        except RemoteError as error:
            return [] if short_name(error) == "NoSuchToken" else [f"token {token} could not be discarded: {error}"]
        except OtpBridgeError as error:
            seconds = show.duration(self._started.expires_in)
            return [
                f"token {token} was never in force, but could not be discarded ({error}); it is gone in {seconds}"
            ]
        return []

    def _take_back(self, key: Key, step: Callable[[], None], what: str) -> list[str]:
        try:
            take_back(self._reach, key, step)
        except (OtpBridgeError, KeyboardInterrupt) as error:
            why = str(error) or "interrupted"
            return [f"{what} may be left on {key}, of no use to anyone ({why}); look with: otpbridge yubikey audit"]
        return []
