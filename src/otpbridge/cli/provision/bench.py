"""One key at the station: what a broken attempt left on it is cleared, then it goes through the closed loop."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from otpbridge.cli import yubikey_slot
from otpbridge.cli.exits import Code, CommandError, explain, short_name
from otpbridge.cli.provision.board import Phase
from otpbridge.cli.provision.people import Person, Row
from otpbridge.cli.provision.records import Begun, Records
from otpbridge.cli.yubikey_loop import UndecidedError, account_of, confirm, place
from otpbridge.cli.yubikey_reach import GONE, Reach
from otpbridge.devices.keys import Key, account_id, check_firmware, key_issuer
from otpbridge.errors import (
    DeviceError,
    EnrolError,
    LockedError,
    OtpBridgeError,
    RemoteError,
    TouchTimeoutError,
    UnavailableError,
    WrongPasswordError,
)
from otpbridge.model import Secret, State
from otpbridge.wire import messages

if TYPE_CHECKING:
    from otpbridge.client import Client
    from otpbridge.devices.keys import Code as KeyCode
    from otpbridge.devices.oath import Oath
    from otpbridge.wire.messages import R, Request, StartReply, TokenFields

_TRIES = 3
_PAUSE = 1.0
"""Seconds until a daemon that is away is asked again."""
_ALPHABET = "abcdefghjkmnpqrstuvwxyz23456789"
"""Without what people mistake for something else."""
_GROUPS = 4
_GROUP = 5
_IN_FORCE = frozenset({State.ACTIVE, State.DISABLED})


class StoppedError(OtpBridgeError):
    """The station ends while something is open; the journal knows."""


@dataclass(frozen=True, slots=True)
class Done:
    """The person has the key. `replaced` are the tokens that this one took over from."""

    row: Row
    replaced: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class KeyFailed:
    """It failed for reasons of the key, or of what is between: the person waits for another one.

    `gone`: it did not answer any more. If it is plugged in all the same, it was pulled and put back quickly.
    """

    words: str
    gone: bool = False


@dataclass(frozen=True, slots=True)
class PersonFailed:
    """It failed for reasons of the person: the key is free."""

    words: str


@dataclass(frozen=True, slots=True)
class Cleared:
    """What was left on the key is gone, and nobody waits for it."""


Outcome = Done | KeyFailed | PersonFailed | Cleared


@dataclass(frozen=True, slots=True)
class Order:
    """What holds for all keys of a station."""

    touch: bool = False
    slot: int | None = None
    force: bool = False
    access_code: Secret | None = None


@dataclass(slots=True)
class BenchReach(Reach):
    """The way to a key without asking anybody: passwords are known, touches are called for on the screen."""

    records: Records = field(kw_only=True)
    report: Callable[[Phase, str], None] = field(kw_only=True)
    given: str | None = field(default=None, kw_only=True, repr=False)
    typed: Callable[[str], str] = field(kw_only=True)
    """What the key types when it is touched in this way. Raises DeviceError."""

    @contextmanager
    def oath(self, key: Key) -> Iterator[Oath]:
        """The OATH application of a key, where it was plugged in. Raises DeviceError."""
        from otpbridge.devices.oath import open_oath  # noqa: PLC0415 - the libraries may be missing

        with open_oath(key, elsewhere=False) as oath:
            self.unlock(oath)
            yield oath

    def unlock(self, oath: Oath) -> None:
        """Open it with what is known. Raises LockedError."""
        if not oath.locked:
            return
        chosen = None if oath.key.serial is None else self.records.password(oath.key.serial)
        for password in (None if chosen is None else chosen.reveal().decode(), self.given):
            if password is None:
                continue
            try:
                oath.unlock(password)
            except WrongPasswordError:
                continue
            return
        if not oath.unlock_remembered():
            raise LockedError(
                "it has an OATH password that is not known here: run this again with --password-stdin, or have ykman"
                " remember it; if it is forgotten: otpbridge yubikey reset"
            )

    def code(self, oath: Oath, account: bytes, at: int, *, touch: bool) -> KeyCode:
        """A code of an account; where that takes a touch, it is called for, and called for again."""
        if not touch:
            return oath.code(account, at)
        for left in reversed(range(_TRIES)):
            self.report(Phase.TOUCH, "touch it now")
            try:
                return oath.code(account, at)
            except TouchTimeoutError:
                if not left:
                    raise
        raise AssertionError

    def tell(self, text: str) -> None:
        """What is being done with it."""
        self.report(Phase.WORKING, text)


class Bench:
    """Where one key after the other is worked on, by one thread."""

    def __init__(
        self,
        reach: BenchReach,
        daemon: Client,
        order: Order,
        stopping: threading.Event,
        random: Callable[[int], bytes],
    ) -> None:
        self._reach = reach
        self._records = reach.records
        self._daemon = daemon
        self._order = order
        self._stopping = stopping
        self._random = random

    def serve(self, key: Key, person: Person | None) -> Outcome:
        """Clear the key of what was left, and put the person's token on it. Raises StoppedError."""
        try:
            for begun in self._records.begun:
                if begun.serial == key.serial:
                    self._reach.tell("taking off what was left on it")
                    row = self.settle(begun, key)
                    if row is not None:
                        return Done(row)
            if person is None:
                return Cleared()
            while (outcome := self._enrol(key, person)) is None:
                self._reach.tell("once more")
        except DeviceError as error:
            return _of_key(error)
        return outcome

    def settle(self, begun: Begun, key: Key | None) -> Row | None:
        """Find what was begun in force, or take it back; without the key, as far as the daemon goes.

        Raises DeviceError where the key is in the way, StoppedError.
        """
        while True:
            tokens = self._tokens(begun.user, begun.client)
            token = next((each for each in tokens if each.id == begun.token), None)
            if token is not None and token.state in _IN_FORCE:
                row = Row(begun.serial, begun.user, begun.client, begun.token, token.confirmed_at or token.created_at)
                self._records.done(row)
                return row
            if token is None or token.state is not State.PENDING or self._discarded(begun.token):
                break
        if key is not None:
            self._take_off(begun, key, tokens)
            self._records.undone(begun.token)
        return None

    # --- the loop ---

    def _enrol(self, key: Key, person: Person) -> Outcome | None:
        """One attempt; None where the daemon went away, and all is taken back: then it is worth another."""
        if self._order.slot is None:
            check_firmware(key, person.algorithm, touch=self._order.touch)
            with self._reach.oath(key) as oath:
                oath.check_room()
        else:
            self._check_slot(self._order.slot, key)
        self._reach.tell("the daemon makes a seed")
        try:
            started = self._patiently(_start_of(person))
        except RemoteError as error:
            return PersonFailed(str(explain(error)))
        assert key.serial is not None
        begun = Begun(started.token, started.user, started.client, key.serial)
        try:
            prove = self._prove if self._order.slot is None else self._prove_slot
            return Done(*prove(key, started, begun))
        except BaseException as error:
            self._reach.tell("taking it back")
            row = self._taken_back(begun, key)
            if row is not None:
                return Done(row)
            if isinstance(error, UndecidedError | UnavailableError):
                return None
            failed = _failed(error)
            if failed is None:
                raise
            return failed

    def _check_slot(self, slot: int, key: Key) -> None:
        from otpbridge.devices.otp import open_slots  # noqa: PLC0415 - the libraries may be missing

        with open_slots(key, elsewhere=False) as slots:
            slots.check(slot, force=self._order.force)

    def _prove(self, key: Key, started: StartReply, begun: Begun) -> tuple[Row, tuple[str, ...]]:
        account = account_of(started, touch=self._order.touch)

        def before(oath: Oath) -> None:
            protect = self._records.gives_passwords and not oath.protected
            self._records.begin(replace(begun, account=account.id.hex(), password=protect))
            if protect:
                chosen = self._records.choose(begun.serial, Secret(new_password(self._random).encode()))
                oath.set_password(chosen.reveal().decode())

        self._reach.tell("the key gets it")
        shown = place(self._reach, key, account, before)
        if self._records.gives_passwords:
            with self._reach.oath(key) as oath:
                oath.accounts()
        self._reach.tell("the daemon judges its code")
        reply = confirm(self._reach, self._daemon, started, shown.code, [key])
        return self._written(begun), reply.replaced

    def _prove_slot(self, key: Key, started: StartReply, begun: Begun) -> tuple[Row, tuple[str, ...]]:
        from otpbridge.devices.otp import open_slots  # noqa: PLC0415 - the libraries may be missing

        order = self._order
        assert order.slot is not None
        program = yubikey_slot.program_of(started)
        with open_slots(key, elsewhere=False) as slots:
            slots.check(order.slot, force=order.force)
            self._records.begin(replace(begun, slot=order.slot))
            slots.program(order.slot, program, force=order.force, access_code=order.access_code)
        how = f"slot {order.slot}: {yubikey_slot.HOW[order.slot]}"
        for left in reversed(range(_TRIES)):
            typed = self._reach.typed(how)
            try:
                reply = confirm(self._reach, self._daemon, started, typed.strip(), [key])
            except CommandError as error:
                if not left or error.name != "NotConfirmed":
                    raise
                how = f"that was not its code, once more; slot {order.slot}: {yubikey_slot.HOW[order.slot]}"
                continue
            return self._written(begun), reply.replaced
        raise AssertionError

    def _written(self, begun: Begun) -> Row:
        row = Row(begun.serial, begun.user, begun.client, begun.token, int(time.time()))
        self._records.done(row)
        return row

    def _taken_back(self, begun: Begun, key: Key) -> Row | None:
        """Take back an attempt that failed; a row where it turns out to be in force. Raises StoppedError."""
        open_ = next((each for each in self._records.begun if each.token == begun.token), begun)
        try:
            return self.settle(open_, key)
        except DeviceError:
            # It stays in the journal, which the station reads to say so.
            return None

    # --- taking back ---

    def _discarded(self, token: str) -> bool:
        """Whether it is gone; not where it came in force meanwhile."""
        try:
            self._patiently(messages.Discard(token=token))
        except RemoteError as error:
            if short_name(error) not in {"WrongState", "NoSuchToken"}:
                raise
            return short_name(error) == "NoSuchToken"
        return True

    def _take_off(self, begun: Begun, key: Key, tokens: list[TokenFields]) -> None:
        """Take what was begun off the key, unless it is another token by now."""
        if begun.slot is not None:
            self._clear(begun.slot, key)
        if not begun.account:
            return
        with self._reach.oath(key) as oath:
            there = {account.id.hex() for account in oath.accounts()}
            if begun.account in there and not any(_is_on(token, begun) for token in tokens):
                oath.remove(bytes.fromhex(begun.account))
            if begun.password and oath.protected:
                oath.clear_password()

    def _clear(self, slot: int, key: Key) -> None:
        from otpbridge.devices.otp import open_slots  # noqa: PLC0415 - the libraries may be missing

        with open_slots(key, elsewhere=False) as slots:
            if slots.programmed(slot):
                slots.clear(slot, self._order.access_code)

    # --- the daemon ---

    def _tokens(self, user: str, client: str) -> list[TokenFields]:
        try:
            return list(self._patiently(messages.Tokens(user=user, client=client)).tokens)
        except RemoteError as error:
            if short_name(error) == "NoSuchUser":
                return []
            raise

    def _patiently(self, request: Request[R]) -> R:
        """Call, and wait for a daemon that is away. Raises RemoteError, StoppedError."""
        while True:
            try:
                return self._daemon.call(request)
            except RemoteError as error:
                if explain(error).code is not Code.UNAVAILABLE:
                    raise
                words = str(explain(error))
            except UnavailableError as error:
                words = str(error)
            self._reach.tell(f"waiting for the daemon: {words}")
            if self._stopping.wait(_PAUSE):
                raise StoppedError(words)


def new_password(random: Callable[[int], bytes]) -> str:
    """A password that can be read out and typed: 20 letters and digits, 99 bits."""
    letters: list[str] = []
    while len(letters) < _GROUPS * _GROUP:
        byte = random(1)[0] & 0x1F
        if byte < len(_ALPHABET):
            letters.append(_ALPHABET[byte])
    return "-".join("".join(letters[at : at + _GROUP]) for at in range(0, len(letters), _GROUP))


def _of_key(error: DeviceError) -> KeyFailed:
    if isinstance(error, GONE):
        return KeyFailed("it was pulled out before it was done", gone=True)
    return KeyFailed(str(error))


def _failed(error: BaseException) -> KeyFailed | PersonFailed | None:
    """Whose fault it is; None where the station itself cannot go on."""
    if isinstance(error, DeviceError):
        return _of_key(error)
    if isinstance(error, CommandError) and error.name == "NotConfirmed":
        return KeyFailed(str(error))
    if isinstance(error, RemoteError | EnrolError):
        return PersonFailed(str(explain(error)))
    return None


def _start_of(person: Person) -> messages.Start:
    return messages.Start(
        user=person.user,
        kind=person.kind,
        client=person.client,
        label=person.label,
        issuer=person.issuer,
        algorithm=person.algorithm,
        digits=person.digits,
    )


def _is_on(token: TokenFields, begun: Begun) -> bool:
    """Whether a token in force is what the account that was begun is now."""
    if token.state not in _IN_FORCE or str(begun.serial) not in (token.serials or ()):
        return False
    return account_id(token.kind, key_issuer(token.issuer), token.label, token.period or 30).hex() == begun.account
