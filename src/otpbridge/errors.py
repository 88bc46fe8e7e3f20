"""Every error otpbridge raises on purpose.

    OtpBridgeError
      ConfigError            otpbridge.toml, the environment or an option is wrong
      StoreError             the store cannot be opened, read or written
        StoreBusyError       another daemon holds the store
        ConflictError        the change does not fit what the store holds
          NotFoundError      no such user, token or client
      VaultError             a key or a sealed record
        KeyMissingError      the master key is not where it should be
        KeyUnsafeError       the master key could be read or changed by others
        SealBrokenError      a sealed record does not open under this key and this identity
      EnrolError             an enrolment cannot be started or finished
      WebauthnError          the answer of a security key does not hold
      DeviceError            a hardware key, or the way to it
        NoLibraryError       the libraries for hardware keys are not installed
        ReaderServiceError   pcscd does not run or does not answer
        NotAllowedError      this user may not use smart card readers
        NoDeviceError        no such key is plugged in
        ManyDevicesError     several are, and none was named
        DeviceBusyError      another program holds the key
        DeviceGoneError      the key was pulled, or stopped answering
        LockedError          the key wants its access password or code
          WrongPasswordError that was not it
          PinBlockedError    too many wrong PINs: it takes none any more
        NoPinError           the key must ask who uses it, and has no PIN that it could ask for
        FullError            the key holds no more accounts
        AccountExistsError   the key holds an account of that name
        NoAccountError       the key holds none of that name
        SlotTakenError       the slot is programmed
        CannotError          keys of this model or firmware cannot do that
        TouchTimeoutError    nobody touched the key in time
        GivenUpError         whoever asked the key has called it off
      ProtocolError          the peer does not speak Varlink, or not our interfaces
        UnavailableError     the daemon cannot be reached or did not answer in time
        RemoteError          the daemon answered with a Varlink error

A message says what is wrong, where, and what to do. None ever holds a secret.
"""

from __future__ import annotations

from typing import Any


class OtpBridgeError(Exception):
    """Base of all errors raised by otpbridge."""


class ConfigError(OtpBridgeError):
    """The configuration is wrong.

    `place` says where in otpbridge.toml, where that is known: keys, and numbers (from 0) in arrays.
    """

    def __init__(self, message: str, place: tuple[str | int, ...] = ()) -> None:
        self.place = place
        super().__init__(message)


class StoreError(OtpBridgeError):
    """The store cannot be opened, read or written."""


class StoreBusyError(StoreError):
    """Another daemon holds the store."""


class ConflictError(StoreError):
    """The change does not fit what the store holds."""


class NotFoundError(ConflictError):
    """The store holds no such user, token or client."""


class VaultError(OtpBridgeError):
    """A key or a sealed record cannot be used."""


class KeyMissingError(VaultError):
    """The master key is not where it should be."""


class KeyUnsafeError(VaultError):
    """The master key could be read or changed by others."""


class SealBrokenError(VaultError):
    """A sealed record does not open under this key and this identity."""


class EnrolError(OtpBridgeError):
    """An enrolment cannot be started or finished."""


class WebauthnError(OtpBridgeError):
    """The answer of a security key does not hold. Says which check failed, for the audit log."""


class DeviceError(OtpBridgeError):
    """A hardware key, or the way to it, fails."""


class NoLibraryError(DeviceError):
    """The libraries for hardware keys are not installed."""


class ReaderServiceError(DeviceError):
    """The smart card service pcscd does not run, or does not answer."""


class NotAllowedError(DeviceError):
    """This user may not use smart card readers."""


class NoDeviceError(DeviceError):
    """No such key is plugged in."""


class ManyDevicesError(DeviceError):
    """Several keys are plugged in, and none was named."""


class DeviceBusyError(DeviceError):
    """Another program holds the key."""


class DeviceGoneError(DeviceError):
    """The key was pulled or stopped answering. What it was last told may have been done or not."""


class LockedError(DeviceError):
    """The key wants its access password or access code."""


class WrongPasswordError(LockedError):
    """The access password or code is not the key's."""


class PinBlockedError(LockedError):
    """Too many wrong PINs: the key takes none until it is plugged in anew, or reset."""


class NoPinError(DeviceError):
    """The key must ask who uses it, and has no PIN that it could ask for."""


class FullError(DeviceError):
    """The key holds no more accounts."""


class AccountExistsError(DeviceError):
    """The key holds an account of that name."""


class NoAccountError(DeviceError):
    """The key holds no account of that name."""


class SlotTakenError(DeviceError):
    """The slot is programmed."""


class CannotError(DeviceError):
    """Keys of this model or firmware cannot do that."""


class TouchTimeoutError(DeviceError):
    """Nobody touched the key in time."""


class GivenUpError(DeviceError):
    """Whoever asked the key has called it off."""


class ProtocolError(OtpBridgeError):
    """The peer does not speak Varlink, or not our interfaces."""


class UnavailableError(ProtocolError):
    """The daemon cannot be reached, or did not answer in time."""


class RemoteError(ProtocolError):
    """The daemon answered with a Varlink error.

    `name` is the qualified error name (`org.otpbridge.Enroll.NoSuchToken`), `parameters` what came with it.
    """

    def __init__(self, name: str, parameters: dict[str, Any]) -> None:
        self.name = name
        self.parameters = parameters
        detail = ", ".join(f"{key}: {value}" for key, value in parameters.items())
        super().__init__(f"{name} ({detail})" if detail else name)
