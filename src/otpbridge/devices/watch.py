"""Keys as they are plugged in and pulled out, without opening any of them."""

from __future__ import annotations

from collections.abc import Collection
from types import TracebackType
from typing import Self

from smartcard.pcsc.PCSCExceptions import BaseSCardException
from smartcard.scard import (
    SCARD_S_SUCCESS,
    SCARD_SCOPE_USER,
    SCARD_STATE_IGNORE,
    SCARD_STATE_UNAWARE,
    SCardEstablishContext,
    SCardGetStatusChange,
    SCardListReaders,
    SCardReleaseContext,
)
from ykman.pcsc import YK_READER_NAME

from otpbridge.devices.connection import SERVICE_SECONDS, spoken
from otpbridge.devices.deadline import within

_COMING_AND_GOING = "\\\\?PnP?\\Notification"
"""What pcsc-lite calls the change of the list of readers."""
_NOTHING_CAME = 0x8010000A
_NO_READERS = 0x8010002E
_UNKNOWN_READER = 0x80100009
_MOST_STATES = 16
"""What pcsc-lite takes in one call (PCSCLITE_MAX_READERS_CONTEXTS): no more than the readers it can have."""


class Watch:
    """Which readers are keys, from one moment to the next. Raises ReaderServiceError, NotAllowedError.

    For one thread. After an error it is of no more use: pcscd has forgotten it.
    """

    def __init__(self) -> None:
        with spoken("pcscd"):
            status, self._context = within(SERVICE_SECONDS, lambda: SCardEstablishContext(SCARD_SCOPE_USER))
            _check(status)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        within(SERVICE_SECONDS, lambda: SCardReleaseContext(self._context))

    def readers(self) -> frozenset[str]:
        """What pcscd calls the keys that are plugged in."""
        with spoken("pcscd"):
            status, names = within(SERVICE_SECONDS, lambda: SCardListReaders(self._context, []))
            if status & 0xFFFFFFFF == _NO_READERS:
                return frozenset()
            _check(status)
        return frozenset(name for name in names if YK_READER_NAME in name.lower())

    def wait(self, seconds: float, known: Collection[str]) -> None:
        """Return when a reader comes or goes, or after so many seconds: which, is for `readers` to say.

        Where one of the `known` is gone already it returns at once; what came just before is seen only then, and so
        is the going of the last one of sixteen.
        """
        states = [(_COMING_AND_GOING, SCARD_STATE_UNAWARE), *((name, SCARD_STATE_IGNORE) for name in sorted(known))]
        with spoken("pcscd"):
            status, _states = within(
                SERVICE_SECONDS + seconds,
                lambda: SCardGetStatusChange(self._context, int(seconds * 1000), states[:_MOST_STATES]),
            )
            if status & 0xFFFFFFFF not in {_NOTHING_CAME, _UNKNOWN_READER}:
                _check(status)


def _check(status: int) -> None:
    if status != SCARD_S_SUCCESS:
        raise BaseSCardException(hresult=status)
