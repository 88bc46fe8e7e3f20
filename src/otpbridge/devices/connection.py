"""A connection to one key over PC/SC, and the words for what goes wrong on it.

ykman's own way to connect is not used: where another program holds the key it kills `scdaemon` and signals
`yubikey-agent` unasked, falls back to sharing the key, and writes all that is sent into its log.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from smartcard.Exceptions import CardConnectionException, NoCardException, SmartcardException
from smartcard.pcsc.PCSCCardConnection import PCSCCardConnection
from smartcard.pcsc.PCSCExceptions import BaseSCardException
from smartcard.scard import SCARD_SHARE_EXCLUSIVE
from yubikit.core import TRANSPORT, ApplicationNotAvailableError, CommandError, NotSupportedError
from yubikit.core.smartcard import ApduError, SmartCardConnection

from otpbridge.devices.deadline import within
from otpbridge.devices.holders import advice
from otpbridge.errors import (
    CannotError,
    DeviceBusyError,
    DeviceError,
    DeviceGoneError,
    NotAllowedError,
    ReaderServiceError,
)

SERVICE_SECONDS = 10.0
"""How long pcscd may take to say what is plugged in, or to connect."""
_ANSWER_SECONDS = 30.0
"""How long a key may take to answer: it waits up to 15 for a touch."""
_SETTLE_SECONDS = 3.0
"""How long a key takes to be a smart card again after it typed something."""
_BUSY_SECONDS = 2.0
"""How long another program may be at the key before we give up."""
_PAUSE = 0.1

_BUSY = 0x8010000B
_FORBIDDEN = 0x8010006A
_HUNG_UP = frozenset({0x80100013, 0x8010002F})
_NO_SERVICE = frozenset({0x8010001D, 0x8010001E})

_START = (
    "the smart card service pcscd is not running. Install and start it: apt install pcscd, or dnf install pcsc-lite;"
    " then systemctl enable --now pcscd.socket"
)
_FORBIDDEN_WORDS = (
    "pcscd does not let this user use smart cards. Where polkit guards it (Ubuntu 24.04, Fedora), only users at the"
    " machine's own screen may: run this as root, or allow org.debian.pcsc-lite.access_pcsc and access_card for this"
    " user (docs/yubikeys.md)"
)


class ExclusiveConnection(SmartCardConnection):
    """A key that nobody else can use until it is closed."""

    def __init__(self, reader: str) -> None:
        self._card = PCSCCardConnection(reader)
        try:
            self._card.connect(mode=SCARD_SHARE_EXCLUSIVE)
            atr = self._card.getATR()
        except BaseException:
            self._card.release()
            raise
        self._transport = TRANSPORT.USB if len(atr) > 1 and atr[1] & 0xF0 == 0xF0 else TRANSPORT.NFC

    @property
    def transport(self) -> TRANSPORT:
        """USB or NFC: they differ in how long a command may be."""
        return self._transport

    def send_and_receive(self, apdu: bytes) -> tuple[bytes, int]:
        """Send one command, and wait for the answer."""
        with spoken("the key"):
            data, first, second = within(_ANSWER_SECONDS, lambda: self._card.transmit(list(apdu)))
        return bytes(data), first << 8 | second

    def close(self) -> None:
        """Leave the key to others."""
        # A key that was pulled cannot be left, nor one whose pcscd hangs, and there is nothing to do about it.
        # One that waits for a touch is left when that has come, or 15 seconds are over: PC/SC has no way to call it
        # off. So Ctrl-C ends the wait here, and the thread leaves the key.
        with suppress(SmartcardException, ReaderServiceError):
            within(_ANSWER_SECONDS, self._card.release)


def connect(reader: str) -> ExclusiveConnection:
    """Connect to the key in a reader, waiting a little for one that is busy or not ready. Raises DeviceError."""
    started = time.monotonic()
    while True:
        try:
            with spoken(reader):
                return within(SERVICE_SECONDS, lambda: ExclusiveConnection(reader))
        except DeviceBusyError:
            if time.monotonic() - started > _BUSY_SECONDS:
                raise
        except DeviceGoneError:
            if time.monotonic() - started > _SETTLE_SECONDS:
                raise
        time.sleep(_PAUSE)


@contextmanager
def spoken(name: str) -> Iterator[None]:
    """Turn what the libraries raise about a key into DeviceErrors."""
    try:
        yield
    except (SmartcardException, BaseSCardException) as error:
        raise _of_reader(name, error) from error
    except ApplicationNotAvailableError as error:
        raise CannotError(
            f"{name} does not have this application, or it is switched off: ykman config usb --list"
        ) from error
    except ApduError as error:
        raise DeviceError(f"{name} refuses with status {error.sw:04X}") from error
    except NotSupportedError as error:
        raise CannotError(f"{name} cannot do that: {error}") from error
    except (CommandError, ValueError) as error:
        raise DeviceError(f"{name} answers what cannot be understood ({type(error).__name__})") from error


def _is_there() -> bool:
    """Whether pcscd takes connections, from whomever."""
    path = os.environ.get("PCSCLITE_CSOCK_NAME", "/run/pcscd/pcscd.comm")
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(SERVICE_SECONDS)
        try:
            sock.connect(path)
        except PermissionError:
            return True
        except OSError:
            return False
        return True


def _of_reader(name: str, error: SmartcardException | BaseSCardException) -> DeviceError:
    status = getattr(error, "hresult", -1) & 0xFFFFFFFF
    if status == _BUSY:
        return DeviceBusyError(f"{name} is in use by another program{advice()}")
    if status == _FORBIDDEN:
        return NotAllowedError(_FORBIDDEN_WORDS)
    if status in _NO_SERVICE | _HUNG_UP:
        # To those whom polkit refuses pcscd hangs up, which libpcsclite cannot tell from one that is not there.
        return NotAllowedError(_FORBIDDEN_WORDS) if _is_there() else ReaderServiceError(_START)
    if isinstance(error, CardConnectionException | NoCardException):
        return DeviceGoneError(f"{name} was pulled out or does not answer; plug it in again")
    return ReaderServiceError(f"pcscd fails ({error}). Restart it: systemctl restart pcscd")
