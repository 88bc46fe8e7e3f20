"""A credential of a security key, and a registration that waits for one, as they are sealed in the store."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeVar

import msgspec
from fido2.webauthn import AttestedCredentialData

from otpbridge.errors import VaultError
from otpbridge.model import Secret

R = TypeVar("R", bound=msgspec.Struct)


@dataclass(frozen=True, slots=True)
class Credential:
    """What is known of a key after its registration.

    `data` holds AAGUID, credential id and public key; `user_handle` is what the key was told the user is (WebAuthn
    §14.6.1: 32 random bytes); `transports` are how it said it can be reached, a hint for browsers.
    """

    data: AttestedCredentialData
    user_handle: bytes
    transports: tuple[str, ...] = ()

    @property
    def id(self) -> bytes:
        """The credential id: what names the key at this relying party."""
        return self.data.credential_id

    def pack(self) -> Secret:
        """The bytes that are sealed."""
        return _packed(_Credential(bytes(self.data), self.user_handle, self.transports))

    @classmethod
    def unpack(cls, sealed: Secret) -> Credential:
        """What was packed. Raises VaultError."""
        record = _unpacked(sealed, _Credential)
        return cls(AttestedCredentialData(record.data), record.user_handle, record.transports)


@dataclass(frozen=True, slots=True)
class Waiting:
    """A registration that waits for its key: `challenge` may be answered once."""

    challenge: bytes
    user_handle: bytes

    def pack(self) -> Secret:
        """The bytes that are sealed."""
        return _packed(_Waiting(self.challenge, self.user_handle))

    @classmethod
    def unpack(cls, sealed: Secret) -> Waiting:
        """What was packed. Raises VaultError."""
        record = _unpacked(sealed, _Waiting)
        return cls(record.challenge, record.user_handle)


class _Credential(msgspec.Struct, array_like=True, tag=1):
    data: bytes
    user_handle: bytes
    transports: tuple[str, ...]


class _Waiting(msgspec.Struct, array_like=True, tag=2):
    challenge: bytes
    user_handle: bytes


def _packed(record: Any) -> Secret:
    return Secret(msgspec.msgpack.encode(record))


def _unpacked(sealed: Secret, kind: type[R]) -> R:
    try:
        return msgspec.msgpack.decode(sealed.reveal(), type=kind)
    except msgspec.MsgspecError:
        raise VaultError("the record of a security key is not what its token's state says") from None
