"""Put accounts of other systems on a key and have it show that it computes their codes. No daemon takes part."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from otpbridge.cli import show
from otpbridge.cli.yubikey_reach import Reach, read_code
from otpbridge.cli.yubikey_undo import remove_account, take_back
from otpbridge.devices.keys import Key, NewAccount
from otpbridge.errors import AccountExistsError, DeviceError, FullError, OtpBridgeError
from otpbridge.model import Kind
from otpbridge.otp.hotp import hotp
from otpbridge.otp.totp import totp

if TYPE_CHECKING:
    from otpbridge.devices.keys import Code as KeyCode


def code_of(account: NewAccount, at: int) -> str:
    """The code of the Unix time `at` in seconds; with a counter, the next."""
    seed = account.secret.reveal()
    if account.kind is Kind.HOTP:
        return hotp(seed, account.counter, account.parameters)
    return totp(seed, at, account.parameters)


def check(reach: Reach, key: Key, accounts: Sequence[NewAccount]) -> None:
    """Raise DeviceError unless all of these can be put on the key."""
    names = [account.id for account in accounts]
    for account in accounts:
        if names.count(account.id) > 1:
            raise AccountExistsError(
                f"two of the accounts are called {account}; take one, and the other with another --label"
            )
    with reach.oath(key) as oath:
        for account in accounts:
            oath.check(account)
        held = len(oath.accounts())
        if key.capacity is not None and held + len(accounts) > key.capacity:
            raise FullError(
                f"{key} holds {held} of {key.capacity} accounts: there is no room for {len(accounts)} more"
            )


def put(reach: Reach, key: Key, account: NewAccount) -> KeyCode:
    """Write an account; the code that the key then computes, which is the right one.

    Raises with nothing left of it, or says what may be.
    """
    begun = False
    try:
        with reach.oath(key) as oath:
            oath.check(account)
            begun = True
            oath.put(account)
            show.note(f"{show.visible(str(account))} is on {key}.")
            at = int(time.time())
            code = read_code(oath, account.id, at, touch=account.touch)
            if code.text != code_of(account, at):
                raise DeviceError(f"{key} computes other codes than {account} has")
            return code
    except BaseException:
        if begun:
            _take_off(reach, key, account)
        raise


def _take_off(reach: Reach, key: Key, account: NewAccount) -> None:
    """Take an account that failed off the key, and tell what came of that."""
    name = show.visible(str(account))
    show.note(f"\nTaking {name} off {key} again.")
    try:
        take_back(reach, key, lambda: remove_account(reach, key, account))
    except (OtpBridgeError, KeyboardInterrupt) as error:
        why = str(error) or "interrupted"
        show.note(
            f"otpbridge: {name} may be left on {key} ({why}); look with: otpbridge yubikey code; to take it off:"
            " otpbridge yubikey remove"
        )
        return
    show.note(f"Nothing is left of it on {key}.")
