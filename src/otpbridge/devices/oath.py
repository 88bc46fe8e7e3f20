"""The OATH application of a key: accounts that compute TOTP and HOTP codes (developers.yubico.com/OATH)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ykman.oath import calculate_steam
from yubikit.core import BadResponseError
from yubikit.core.smartcard import SW, ApduError
from yubikit.oath import HASH_ALGORITHM, OATH_TYPE, Credential, CredentialData, OathSession

from otpbridge.devices import remembered
from otpbridge.devices.connection import spoken
from otpbridge.devices.find import opened
from otpbridge.devices.keys import Account, Code, Key, NewAccount, account_id, check_name, check_new, check_rename
from otpbridge.errors import (
    AccountExistsError,
    CannotError,
    DeviceError,
    FullError,
    LockedError,
    NoAccountError,
    TouchTimeoutError,
    WrongPasswordError,
)
from otpbridge.model import Algorithm, Kind

_TYPES = {Kind.TOTP: OATH_TYPE.TOTP, Kind.HOTP: OATH_TYPE.HOTP}
_KINDS = {OATH_TYPE.TOTP: Kind.TOTP, OATH_TYPE.HOTP: Kind.HOTP}
_HASHES = {
    Algorithm.SHA1: HASH_ALGORITHM.SHA1,
    Algorithm.SHA256: HASH_ALGORITHM.SHA256,
    Algorithm.SHA512: HASH_ALGORITHM.SHA512,
}
_STEAM = "Steam"


@contextmanager
def open_oath(key: Key, *, elsewhere: bool = True) -> Iterator[Oath]:
    """The OATH application of this key, for us alone; `elsewhere` as in `opened`. Raises DeviceError."""
    if not key.oath:
        raise CannotError(f"the OATH application of {key} is switched off: ykman config usb --enable OATH")
    with opened(key, elsewhere=elsewhere) as connection:
        with spoken(str(key)):
            session = OathSession(connection)
        yield Oath(key, session)


class Oath:
    """An open OATH application. Everything raises DeviceError; where it is locked, LockedError."""

    def __init__(self, key: Key, session: OathSession) -> None:
        self.key = key
        self._session = session

    @property
    def locked(self) -> bool:
        """Whether it wants its password before anything else."""
        return self._session.locked

    @property
    def protected(self) -> bool:
        """Whether it has a password."""
        return self._session.has_key

    def unlock(self, password: str) -> None:
        """Open it with its password. Raises WrongPasswordError."""
        self._unlock(self._session.derive_key(password))

    def unlock_remembered(self) -> bool:
        """Open it with what ykman remembers of it; False where that is nothing, or no longer right."""
        access_key = remembered.access_key(self._session.device_id)
        if access_key is None:
            return False
        try:
            self._unlock(access_key)
        except WrongPasswordError:
            return False
        return True

    def _unlock(self, access_key: bytes) -> None:
        try:
            with self._spoken():
                self._session.validate(access_key)
        except _StatusError as error:
            if error.status != SW.INCORRECT_PARAMETERS:
                raise
            # What it asked to be proven is spent; selecting it anew makes it ask again.
            with spoken(str(self.key)):
                self._session = OathSession(self._session.protocol.connection)
            raise WrongPasswordError(f"that is not the OATH password of {self.key}") from None

    def set_password(self, password: str) -> None:
        """Give it a password, in place of the one it has."""
        with self._spoken():
            self._session.set_key(self._session.derive_key(password))

    def clear_password(self) -> None:
        """Take its password away."""
        with self._spoken():
            self._session.unset_key()

    def accounts(self) -> list[Account]:
        """What it holds."""
        with self._spoken():
            return [_account(credential) for credential in self._session.list_credentials()]

    def check_room(self) -> None:
        """Raise FullError where it holds no more accounts."""
        capacity = self.key.capacity
        if capacity is not None and len(self.accounts()) >= capacity:
            raise self._full()

    def check(self, new: NewAccount) -> None:
        """Raise unless this account can be put here: the name, the firmware, the room."""
        check_new(self.key, new)
        held = self.accounts()
        if any(account.id == new.id for account in held):
            raise AccountExistsError(
                f"{self.key} holds an account {new} already. It is not overwritten: remove it first"
                " (otpbridge yubikey remove), or choose another name with --label"
            )
        capacity = self.key.capacity
        if capacity is not None and len(held) >= capacity:
            raise self._full()

    def put(self, new: NewAccount) -> None:
        """Write an account, after `check`. Where it raises DeviceGoneError, it may be there or not."""
        self.check(new)
        data = CredentialData(
            name=new.name,
            oath_type=_TYPES[new.kind],
            hash_algorithm=_HASHES[new.parameters.algorithm],
            secret=new.secret.reveal(),
            digits=new.parameters.digits,
            period=new.parameters.period,
            counter=new.counter,
            issuer=new.issuer or None,
        )
        try:
            with self._spoken():
                self._session.put_credential(data, new.touch)
        except _StatusError as error:
            if error.status != SW.NO_SPACE:
                raise
            raise self._full() from None

    def code(self, identifier: bytes, at: int, on_wait: Callable[[], None] | None = None) -> Code:
        """The code of an account, of the Unix time `at` (seconds) where it goes by time; with a counter the next.

        `on_wait` is called before the key is asked, as it may wait for a touch. Raises TouchTimeoutError.
        """
        credential = self._find(identifier)
        if on_wait is not None:
            on_wait()
        try:
            with self._spoken():
                if credential.issuer == _STEAM and credential.oath_type is OATH_TYPE.TOTP:
                    return Code(calculate_steam(self._session, credential, at), at // 30 * 30, at // 30 * 30 + 30)
                code = self._session.calculate_code(credential, at)
        except LockedError:
            # It is the same status for a touch that did not come; it answered the listing, so it is open.
            raise TouchTimeoutError(f"{self.key} was not touched in time") from None
        if credential.oath_type is OATH_TYPE.HOTP:
            return Code(code.value)
        return Code(code.value, code.valid_from, code.valid_to)

    def codes(self, at: int) -> list[tuple[Account, Code | None]]:
        """All accounts with the code of the time `at`; None where it takes a touch or a press."""
        with self._spoken():
            found = self._session.calculate_all(at)
        return [
            (_account(credential), None if code is None else Code(code.value, code.valid_from, code.valid_to))
            for credential, code in found.items()
        ]

    def remove(self, identifier: bytes) -> None:
        """Delete an account. Raises NoAccountError."""
        self._find(identifier)
        with self._spoken():
            self._session.delete_credential(identifier)

    def rename(self, account: Account, issuer: str, name: str) -> None:
        """Call an account something else. Raises AccountExistsError, CannotError."""
        check_rename(self.key)
        check_name(account.kind, issuer, name, account.period)
        wanted = account_id(account.kind, issuer, name, account.period)
        if any(other.id == wanted for other in self.accounts()):
            raise AccountExistsError(f"{self.key} holds an account of that name already")
        with self._spoken():
            self._session.rename_credential(account.id, name, issuer or None)

    def reset(self) -> None:
        """Delete all accounts and the password."""
        with self._spoken():
            self._session.reset()

    def _find(self, identifier: bytes) -> Credential:
        with self._spoken():
            for credential in self._session.list_credentials():
                if credential.id == identifier:
                    return credential
        raise NoAccountError(f"{self.key} holds no account {identifier.decode(errors='replace')}")

    def _full(self) -> FullError:
        capacity = self.key.capacity
        room = "all it has room for" if capacity is None else f"{capacity} accounts, all it has room for"
        return FullError(f"{self.key} holds {room}; remove one first: otpbridge yubikey remove")

    @contextmanager
    def _spoken(self) -> Iterator[None]:
        with spoken(str(self.key)):
            try:
                yield
            except ApduError as error:
                if error.sw == SW.SECURITY_CONDITION_NOT_SATISFIED:
                    raise LockedError(f"{self.key} wants its OATH password") from error
                if error.sw == SW.MEMORY_FAILURE:
                    raise DeviceError(
                        f"{self.key} holds a damaged account (written while it was pulled out): find it with"
                        " otpbridge yubikey code, and remove it"
                    ) from error
                raise _StatusError(self.key, error.sw) from error
            except BadResponseError as error:
                raise DeviceError(f"{self.key} does not prove that it knows its password") from error


class _StatusError(DeviceError):
    """The key refused with a status that may mean something to whoever asked."""

    def __init__(self, key: Key, status: int) -> None:
        self.status = status
        super().__init__(f"{key} refuses with status {status:04X}")


def _account(credential: Credential) -> Account:
    return Account(
        id=credential.id,
        kind=_KINDS[credential.oath_type],
        name=credential.name,
        issuer=credential.issuer or "",
        period=credential.period or 30,
        touch=credential.touch_required,
    )
