"""Access passwords that ykman remembers (`ykman oath access remember`). They are read, never written."""

from __future__ import annotations

import keyring
from keyring.errors import KeyringError
from ykman.settings import KEYRING_KEY, KEYRING_SERVICE, AppData, UnwrapValueError


def access_key(device_id: str) -> bytes | None:
    """What opens the OATH application with this id; None where ykman does not know, or its keyring is closed."""
    kept = AppData("oath_keys")  # type: ignore[no-untyped-call]  # ykman leaves its types out
    if device_id not in kept:
        return None
    try:
        # Where the keyring has no key yet, ykman would make one.
        if keyring.get_password(KEYRING_SERVICE, KEYRING_KEY) is None:
            return None
        return bytes.fromhex(kept.get_secret(device_id))
    except (KeyringError, UnwrapValueError, ValueError):
        return None
