"""The two slots of a key, which type a code when it is touched: Yubico OTP and OATH-HOTP.

Over the smart card interface, keys take that before firmware 4 and from 5.3 on (developers.yubico.com/OTP).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from yubikit.core.otp import CommandRejectedError
from yubikit.yubiotp import (
    SLOT,
    HotpSlotConfiguration,
    KeyboardSlotConfiguration,
    YubiOtpSession,
    YubiOtpSlotConfiguration,
)

from otpbridge.devices.connection import spoken
from otpbridge.devices.find import opened
from otpbridge.devices.keys import Key
from otpbridge.errors import CannotError, SlotTakenError, WrongPasswordError
from otpbridge.model import Secret

ACCESS_CODE_SIZE = 6
"""Bytes."""
_FIRST_WITHOUT = (4, 0, 0)
_FIRST_WITH_AGAIN = (5, 3, 0)


@dataclass(frozen=True, slots=True)
class YubiOtpSlot:
    """What makes a slot type Yubico OTPs."""

    public_id: bytes
    private_id: Secret = field(repr=False)
    aes_key: Secret = field(repr=False)


@dataclass(frozen=True, slots=True)
class HotpSlot:
    """What makes a slot type OATH-HOTP codes of 6 or 8 digits, from counter 0."""

    seed: Secret = field(repr=False)
    digits: int = 6


def check_slots(key: Key) -> None:
    """Raise CannotError unless the slots of this key can be programmed over the smart card interface."""
    if _FIRST_WITHOUT <= key.firmware < _FIRST_WITH_AGAIN:
        raise CannotError(
            f"{key} has firmware {key.version}: its slots are programmed as a keyboard, which is not supported here."
            " Use: otpbridge enroll yubiotp, with ykman"
        )


@contextmanager
def open_slots(key: Key, *, elsewhere: bool = True) -> Iterator[Slots]:
    """The slots of this key, for us alone; `elsewhere` as in `opened`. Raises DeviceError."""
    check_slots(key)
    with opened(key, elsewhere=elsewhere) as connection:
        with spoken(str(key)):
            session = YubiOtpSession(connection)
        yield Slots(key, session)


class Slots:
    """Open slots. Everything raises DeviceError."""

    def __init__(self, key: Key, session: YubiOtpSession) -> None:
        self.key = key
        self._session = session

    def programmed(self, slot: int) -> bool:
        """Whether slot 1 (a short touch) or 2 (a long one) holds something."""
        with spoken(str(self.key)):
            return self._session.get_config_state().is_configured(SLOT(slot))

    def check(self, slot: int, *, force: bool) -> None:
        """Raise SlotTakenError where a slot holds something that may not be overwritten."""
        if self.programmed(slot) and not force:
            raise SlotTakenError(
                f"slot {slot} of {self.key} is programmed (slot 1 by Yubico, in the factory). It is not overwritten"
                " without --force; what it held is lost then"
            )

    def program(
        self, slot: int, what: YubiOtpSlot | HotpSlot, *, force: bool = False, access_code: Secret | None = None
    ) -> None:
        """Program a slot; over one that holds something only with `force`.

        `access_code` protects it from now on, and opens it where it is protected by the same one already.
        Raises SlotTakenError, WrongPasswordError.
        """
        self.check(slot, force=force)
        code = None if access_code is None else access_code.reveal()
        with self._spoken(slot):
            self._session.put_configuration(SLOT(slot), _configuration(what), code, code)

    def clear(self, slot: int, access_code: Secret | None = None) -> None:
        """Delete what a slot holds."""
        with self._spoken(slot):
            self._session.delete_slot(SLOT(slot), None if access_code is None else access_code.reveal())

    @contextmanager
    def _spoken(self, slot: int) -> Iterator[None]:
        with spoken(str(self.key)):
            try:
                yield
            except CommandRejectedError as error:
                raise WrongPasswordError(
                    f"slot {slot} of {self.key} is protected by an access code, and this was not it"
                ) from error


def _configuration(what: YubiOtpSlot | HotpSlot) -> KeyboardSlotConfiguration:
    if isinstance(what, YubiOtpSlot):
        return YubiOtpSlotConfiguration(what.public_id, what.private_id.reveal(), what.aes_key.reveal()).append_cr(
            value=True
        )
    return HotpSlotConfiguration(what.seed.reveal()).digits8(value=what.digits == 8).append_cr(value=True)
