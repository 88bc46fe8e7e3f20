"""Take back what was begun on a key, also on one that was pulled."""

from __future__ import annotations

import sys
from collections.abc import Callable

from otpbridge.cli.yubikey_reach import GONE, Reach
from otpbridge.devices.keys import Key, NewAccount

_RETURN_SECONDS = 60.0
"""How long a person may take to plug a key in again."""


def take_back(reach: Reach, key: Key, step: Callable[[], None]) -> None:
    """Do what takes something back; on a key that was pulled, once more when it is in again. Raises DeviceError."""
    try:
        step()
    except GONE:
        if not reach.returned(key, _RETURN_SECONDS if sys.stdin.isatty() else 0):
            raise
        step()


def remove_account(reach: Reach, key: Key, account: NewAccount) -> None:
    """Take the account off the key where it is there, which is read anew."""
    with reach.oath(key) as oath:
        if any(each.id == account.id for each in oath.accounts()):
            oath.remove(account.id)
