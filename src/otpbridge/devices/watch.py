"""Keys as they are plugged in and pulled out, without opening any of them."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from smartcard.pcsc.PCSCExceptions import BaseSCardException
from smartcard.scard import (
    SCARD_S_SUCCESS,
    SCARD_SCOPE_USER,
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

    def wait(self, seconds: float) -> None:
        """Return when a reader comes or goes, or after so many seconds: which, is for `readers` to say.

        What changed just before is seen only then.
        """
        with spoken("pcscd"):
            status, _states = within(
                SERVICE_SECONDS + seconds,
                lambda: SCardGetStatusChange(
                    self._context, int(seconds * 1000), [(_COMING_AND_GOING, SCARD_STATE_UNAWARE)]
                ),
            )
            if status & 0xFFFFFFFF != _NOTHING_CAME:
                _check(status)


def _check(status: int) -> None:
    if status != SCARD_S_SUCCESS:
        raise BaseSCardException(hresult=status)
