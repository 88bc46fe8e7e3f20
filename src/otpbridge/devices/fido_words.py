"""The words for what goes wrong with a security key."""

from __future__ import annotations

from collections.abc import Mapping

from fido2.client import ClientError
from fido2.ctap import CtapError
from fido2.hid import ConnectionFailure
from fido2.utils import websafe_encode

from otpbridge.errors import (
    AccountExistsError,
    CannotError,
    DeviceBusyError,
    DeviceError,
    DeviceGoneError,
    FullError,
    GivenUpError,
    NoAccountError,
    NoPinError,
    PinBlockedError,
    TouchTimeoutError,
    WrongPasswordError,
)

ERR = CtapError.ERR

BLOCKED = "{key}: too many wrong PINs, it takes none any more. Only a reset helps, which wipes it: ykman fido reset"
PULL = "{key}: too many wrong PINs at a time. Pull it out, plug it in again, and mind the PIN"

_REFUSALS: Mapping[int, tuple[type[DeviceError], str]] = {
    ERR.PIN_BLOCKED: (PinBlockedError, BLOCKED),
    ERR.PIN_AUTH_BLOCKED: (PinBlockedError, PULL),
    ERR.UV_BLOCKED: (PinBlockedError, "{key}: its fingerprint reader is blocked; its PIN, used once, frees it"),
    ERR.PIN_NOT_SET: (NoPinError, "{key} has no PIN, and must have one here: ykman fido access change-pin"),
    ERR.PIN_POLICY_VIOLATION: (NoPinError, "the PIN of {key} must be changed first: ykman fido access change-pin"),
    ERR.PIN_INVALID: (WrongPasswordError, "that is not the PIN of {key}"),
    ERR.PIN_AUTH_INVALID: (WrongPasswordError, "that is not the PIN of {key}"),
    ERR.UV_INVALID: (WrongPasswordError, "{key} did not know the finger"),
    ERR.CREDENTIAL_EXCLUDED: (AccountExistsError, "{key} is registered for this user already"),
    ERR.NO_CREDENTIALS: (NoAccountError, "{key} is not one of this user"),
    ERR.KEY_STORE_FULL: (FullError, "{key} is full"),
    ERR.OPERATION_DENIED: (GivenUpError, "it was refused at {key}"),
    ERR.NOT_ALLOWED: (GivenUpError, "it was refused at {key}"),
    ERR.USER_ACTION_TIMEOUT: (TouchTimeoutError, "nobody touched {key} in time"),
    ERR.ACTION_TIMEOUT: (TouchTimeoutError, "nobody touched {key} in time"),
    ERR.KEEPALIVE_CANCEL: (GivenUpError, "called off"),
    ERR.CHANNEL_BUSY: (DeviceBusyError, "{key} is in use by another program, a browser perhaps"),
    ERR.UNSUPPORTED_ALGORITHM: (CannotError, "{key} knows none of the kinds of signature that are wanted"),
    ERR.UNSUPPORTED_OPTION: (CannotError, "{key} cannot ask who uses it; another kind of key is needed here"),
}

_CLIENT: Mapping[int, tuple[type[DeviceError], str]] = {
    ClientError.ERR.DEVICE_INELIGIBLE: (NoAccountError, "{key} is not one of this user"),
    ClientError.ERR.TIMEOUT: (TouchTimeoutError, "nobody touched {key} in time"),
    ClientError.ERR.CONFIGURATION_UNSUPPORTED: (
        NoPinError,
        "{key} has no PIN, and must have one here: ykman fido access change-pin",
    ),
    ClientError.ERR.BAD_REQUEST: (CannotError, "{key} was asked for another host than the one whose page it is"),
}


def wrong_pin(error: ClientError) -> bool:
    """Whether the PIN was not the key's, and another may be tried."""
    return isinstance(error.cause, CtapError) and error.cause.code == ERR.PIN_INVALID


def of(error: BaseException, key: str) -> DeviceError:
    """What was raised about a key, as an error of ours."""
    if isinstance(error, DeviceError):
        return error
    if isinstance(error, ClientError):
        return _of_client(error, key)
    if isinstance(error, CtapError):
        return _of_status(error, key)
    if isinstance(error, OSError | ConnectionFailure):
        return _because(DeviceGoneError(f"{key} was pulled out or does not answer; plug it in again"), error)
    return _because(DeviceError(f"{key} answers what cannot be understood ({type(error).__name__})"), error)


def encoded(data: bytes) -> str:
    """Bytes as WebAuthn's JSON has them: base64url without padding."""
    return websafe_encode(data)


def _of_client(error: ClientError, key: str) -> DeviceError:
    if isinstance(error.cause, CtapError):
        return _of_status(error.cause, key)
    kind, text = _CLIENT.get(error.code, (DeviceError, "{key} fails (" + error.code.name + ")"))
    return _because(kind(text.format(key=key)), error)


def _of_status(error: CtapError, key: str) -> DeviceError:
    kind, text = _REFUSALS.get(error.code, (DeviceError, "{key} refuses with status {code:02X}"))
    return _because(kind(text.format(key=key, code=int(error.code))), error)


def _because(ours: DeviceError, error: BaseException) -> DeviceError:
    ours.__cause__ = error
    return ours
