"""Seal small secrets: AES-256-GCM under a key of its own for each record, bound to what the record is.

A sealed record is `version (1) | key id (4) | salt (16) | ciphertext and tag`. HKDF-SHA256 (RFC 5869) makes the
record's key and nonce from the master key and the random salt, so no pair is ever used twice. The identity (which
token, of whom, of what kind and parameters) is associated data: a record that was moved or edited does not open.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from otpbridge.errors import SealBrokenError
from otpbridge.model import Secret, Token
from otpbridge.vault.keys import Keyring

_VERSION = b"\x01"
_KEY_ID = slice(1, 5)
_SALT = slice(5, 21)
_BODY = slice(21, None)


class Vault:
    """Seals under the primary key of its keyring, opens under any of its keys."""

    def __init__(self, keyring: Keyring, random: Callable[[int], bytes]) -> None:
        self.keyring = keyring
        self._random = random

    def seal(self, secret: Secret, identity: bytes) -> bytes:
        """Seal a secret as belonging to `identity`."""
        master = self.keyring.primary
        salt = self._random(16)
        key, nonce = _derive(master.secret, salt)
        return _VERSION + master.id + salt + AESGCM(key).encrypt(nonce, secret.reveal(), identity)

    def open(self, sealed: bytes, identity: bytes) -> Secret:
        """The secret in a sealed record.

        Raises SealBrokenError where the key is another one, or the record was moved, edited or cut.
        """
        if len(sealed) < _BODY.start + 16 or sealed[:1] != _VERSION:
            raise SealBrokenError("a sealed record is damaged or of an unknown version; restore a backup")
        master = self.keyring.find(sealed[_KEY_ID])
        if master is None:
            raise SealBrokenError(
                f"a record is sealed under key {sealed[_KEY_ID].hex()}, but the key here is "
                f"{self.keyring.primary.id.hex()}: this is not the store's master key"
            )
        key, nonce = _derive(master.secret, sealed[_SALT])
        try:
            return Secret(AESGCM(key).decrypt(nonce, sealed[_BODY], identity))
        except InvalidTag:
            raise SealBrokenError(
                "a sealed record does not open: it was moved, edited or damaged; restore a backup"
            ) from None

    def is_current(self, sealed: bytes) -> bool:
        """Whether a record is sealed under the primary key."""
        return sealed[_KEY_ID] == self.keyring.primary.id


def derive(secret: Secret, purpose: str) -> Secret:
    """A key of 32 bytes for one purpose, from a secret of full entropy (RFC 5869)."""
    info = f"otpbridge {purpose}".encode()
    return Secret(HKDF(algorithm=SHA256(), length=32, salt=None, info=info).derive(secret.reveal()))


def token_identity(token: Token) -> bytes:
    """What a token's sealed seed is bound to: id, client, user, kind and parameters, each with its length."""
    parts = token.parameters
    settings = f"{parts.algorithm} {parts.digits} {parts.period} {parts.t0}"
    fields = [text.encode() for text in ("token", token.id, token.client, token.user, token.kind, settings)]
    return b"".join([part for raw in fields for part in (len(raw).to_bytes(4, "big"), raw)])


def authority_identity(certificate: bytes) -> bytes:
    """What the sealed key of the relay authority is bound to: the authority's certificate (DER)."""
    return b"otpbridge relay authority" + hashlib.sha256(certificate).digest()


def _derive(master: Secret, salt: bytes) -> tuple[bytes, bytes]:
    material = HKDF(algorithm=SHA256(), length=44, salt=salt, info=b"otpbridge record").derive(master.reveal())
    return material[:32], material[32:]
