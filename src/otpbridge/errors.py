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
