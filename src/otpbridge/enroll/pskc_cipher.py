"""How values of a PSKC file are encrypted and authenticated (RFC 6030 §6): AES and HMAC, in tables by their URIs."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.keywrap import (
    InvalidUnwrap,
    aes_key_unwrap,
    aes_key_unwrap_with_padding,
)

from otpbridge.errors import EnrolError
from otpbridge.model import Secret

_WRONG = "its encryption does not open: the key or passphrase is not that of this file, or the file was changed"
_BLOCK = 16
_NONCE = 12
_MOST_ITERATIONS = 10_000_000
_KEY_SIZES = (16, 24, 32)


def _open_cbc(key: bytes, data: bytes) -> bytes:
    """AES-CBC with its initialisation vector before it; the last byte says how much is padding (xmlenc-core §5.2)."""
    if len(data) < 2 * _BLOCK or len(data) % _BLOCK:
        raise EnrolError("an encrypted value is cut off")
    decryptor = Cipher(algorithms.AES(key), modes.CBC(data[:_BLOCK])).decryptor()
    padded = decryptor.update(data[_BLOCK:]) + decryptor.finalize()
    if not 1 <= padded[-1] <= _BLOCK:
        raise EnrolError(_WRONG)
    return padded[: -padded[-1]]


def _open_gcm(key: bytes, data: bytes) -> bytes:
    if len(data) < _NONCE + _BLOCK:
        raise EnrolError("an encrypted value is cut off")
    try:
        return AESGCM(key).decrypt(data[:_NONCE], data[_NONCE:], None)
    except InvalidTag:
        raise EnrolError(_WRONG) from None


def _unwrap(key: bytes, data: bytes) -> bytes:
    try:
        return aes_key_unwrap(key, data)
    except InvalidUnwrap:
        raise EnrolError(_WRONG) from None


def _unwrap_padded(key: bytes, data: bytes) -> bytes:
    try:
        return aes_key_unwrap_with_padding(key, data)
    except InvalidUnwrap:
        raise EnrolError(_WRONG) from None


class _Row(NamedTuple):
    size: int
    """Bytes of the key."""
    open: Callable[[bytes, bytes], bytes]
    authentic: bool
    """Whether what opens was not changed; if not, a MAC has to say so."""


_CIPHERS = {
    pattern.format(8 * size): _Row(size, opener, authentic)
    for size in _KEY_SIZES
    for pattern, opener, authentic in (
        ("http://www.w3.org/2001/04/xmlenc#aes{}-cbc", _open_cbc, False),
        ("http://www.w3.org/2009/xmlenc11#aes{}-gcm", _open_gcm, True),
        ("http://www.w3.org/2001/04/xmlenc#kw-aes{}", _unwrap, True),
        ("http://www.w3.org/2009/xmlenc11#kw-aes-{}-pad", _unwrap_padded, True),
    )
}
_MACS = {
    "http://www.w3.org/2000/09/xmldsig#hmac-sha1": "sha1",
    "http://www.w3.org/2001/04/xmldsig-more#hmac-sha224": "sha224",
    "http://www.w3.org/2001/04/xmldsig-more#hmac-sha256": "sha256",
    "http://www.w3.org/2001/04/xmldsig-more#hmac-sha384": "sha384",
    "http://www.w3.org/2001/04/xmldsig-more#hmac-sha512": "sha512",
}
_DERIVATIONS = (
    "http://www.rsasecurity.com/rsalabs/pkcs/schemas/pkcs-5v2-0#pbkdf2",
    "http://www.w3.org/2009/xmlenc11#pbkdf2",
)


@dataclass(frozen=True, slots=True)
class Sealed:
    """An encrypted value, and its MAC; None where it has none."""

    algorithm: str = field(repr=False)
    data: bytes = field(repr=False)
    mac: bytes | None = field(default=None, repr=False)

    def check(self) -> None:
        """Raise EnrolError where its algorithm is not known."""
        if self.algorithm not in _CIPHERS:
            raise EnrolError("it is encrypted in a way that is not known; AES in CBC, GCM and key wrap are")


@dataclass(frozen=True, slots=True)
class Derivation:
    """How the key comes from a passphrase: PBKDF2 (RFC 8018 §5.2). `size` is in bytes."""

    salt: bytes
    iterations: int
    size: int
    hash: str

    @classmethod
    def of(cls, algorithm: str, salt: bytes, iterations: int, size: int, prf: str) -> Derivation:
        """Check what a file says; HMAC-SHA1 where `prf` is empty. Raises EnrolError."""
        if algorithm not in _DERIVATIONS:
            raise EnrolError("the key comes from a passphrase in a way that is not known; PBKDF2 is")
        name = _MACS.get(prf) if prf else "sha1"
        if name is None:
            raise EnrolError("PBKDF2 uses a function that is not known; HMAC with SHA1 and SHA2 are")
        if not salt:
            raise EnrolError("PBKDF2 has no salt")
        if not 1 <= iterations <= _MOST_ITERATIONS:
            raise EnrolError(f"PBKDF2 must have 1 to {_MOST_ITERATIONS} iterations")
        if size not in _KEY_SIZES:
            raise EnrolError("PBKDF2 must make a key of 16, 24 or 32 bytes")
        return cls(salt, iterations, size, name)

    def key(self, passphrase: Secret) -> Secret:
        """The key that a passphrase gives."""
        made = hashlib.pbkdf2_hmac(self.hash, passphrase.reveal(), self.salt, self.iterations, self.size)
        return Secret(made)


@dataclass(frozen=True, slots=True)
class Authentication:
    """How values are authenticated. Without `key`, by the key that they are encrypted with (RFC 6030 §6.1.1)."""

    hash: str
    key: Sealed | None

    @classmethod
    def of(cls, algorithm: str, key: Sealed | None) -> Authentication:
        """Check what a file says. Raises EnrolError."""
        name = _MACS.get(algorithm)
        if name is None:
            raise EnrolError("the MAC algorithm is not known; HMAC with SHA1 and SHA2 are")
        if key is not None:
            key.check()
        return cls(name, key)


class Opener:
    """Opens the values of one file."""

    def __init__(self, key: Secret, authentication: Authentication | None) -> None:
        """Open the MAC key too. Raises EnrolError where that does not go."""
        self._key = key
        self._authentication = authentication
        self._mac_key = key
        if authentication is not None and authentication.key is not None:
            self._mac_key = Secret(self._decrypt(authentication.key))
            if not len(self._mac_key):
                raise EnrolError("the MAC key is empty")

    def open(self, sealed: Sealed) -> bytes:
        """The value, if it is authentic. Raises EnrolError."""
        sealed.check()
        if sealed.mac is None and not _CIPHERS[sealed.algorithm].authentic:
            raise EnrolError("an encrypted value has no MAC, so nobody can tell whether it was changed")
        if sealed.mac is None:
            return self._decrypt(sealed)
        if self._authentication is None:
            raise EnrolError("a value has a MAC, and the file does not say of which algorithm (MACMethod)")
        value = self._decrypt(sealed)
        # Of the encrypted value; drafts of RFC 6030 had it of the value itself, and so have files of today.
        if not any(hmac.compare_digest(self._mac(over), sealed.mac) for over in (sealed.data, value)):
            raise EnrolError(_WRONG)
        return value

    def _mac(self, data: bytes) -> bytes:
        assert self._authentication is not None
        return hmac.digest(self._mac_key.reveal(), data, self._authentication.hash)

    def _decrypt(self, sealed: Sealed) -> bytes:
        row = _CIPHERS[sealed.algorithm]
        if len(self._key) != row.size:
            raise EnrolError(f"the key has {len(self._key)} bytes, and the file is encrypted with one of {row.size}")
        return row.open(self._key.reveal(), sealed.data)
