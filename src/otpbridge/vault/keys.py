"""Master keys and where they come from: a systemd credential, a key file, or the embedded default.

A key file is text: one base64 key of 32 bytes a line (`openssl rand -base64 32`), `#` starts a comment. The first
key seals; further ones only open, and stand there while a rotation is under way.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import os
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from otpbridge.config import Key, KeySource
from otpbridge.errors import KeyMissingError, KeyUnsafeError, VaultError
from otpbridge.model import Secret

KEY_BYTES = 32
_LARGEST_FILE = 4096


@dataclass(frozen=True, slots=True)
class MasterKey:
    """A key of 32 bytes and its id (4 bytes, no secret)."""

    secret: Secret
    id: bytes

    @classmethod
    def of(cls, secret: Secret) -> MasterKey:
        """The key with its id."""
        return cls(secret, hmac.digest(secret.reveal(), b"otpbridge key id", hashlib.sha256)[:4])


@dataclass(frozen=True, slots=True)
class Keyring:
    """The key that seals, and those that still open."""

    primary: MasterKey
    previous: tuple[MasterKey, ...] = ()

    def find(self, key_id: bytes) -> MasterKey | None:
        """The key with this id."""
        for key in (self.primary, *self.previous):
            if key.id == key_id:
                return key
        return None


class KeyPlace:
    """Where the master key of one store is kept.

    `source` says it in words, `beside_store` whether one stolen disk gives both.
    """

    def __init__(self, config: Key, state_dir: Path, credentials_dir: str | None) -> None:
        self.credential = Path(credentials_dir) / config.credential if credentials_dir else None
        self.file = config.file
        self.embedded = state_dir / "master.key"
        wanted = config.source
        if wanted is KeySource.AUTO:
            if self.credential is not None and _exists(self.credential):
                wanted = KeySource.CREDENTIAL
            else:
                wanted = KeySource.FILE if self.file is not None else KeySource.EMBEDDED
        self.source = wanted
        if wanted is KeySource.CREDENTIAL and self.credential is None:
            raise KeyMissingError(
                f"[key] source is a systemd credential, but $CREDENTIALS_DIRECTORY is not set: start the daemon from "
                f"a unit with LoadCredentialEncrypted={config.credential}"
            )
        if wanted is KeySource.FILE and self.file is None:
            raise KeyMissingError("[key] source is `file`, but [key] file is not set in otpbridge.toml")
        self.path: Path = {
            KeySource.CREDENTIAL: self.credential,
            KeySource.FILE: self.file,
            KeySource.EMBEDDED: self.embedded,
        }[wanted] or self.embedded
        self.beside_store = self.path.parent.resolve() == state_dir.resolve()

    def load(self) -> Keyring:
        """Read the keys. Raises KeyMissingError, KeyUnsafeError or VaultError."""
        keys = _read(self.path, trust_mode=self.source is KeySource.CREDENTIAL)
        if self.source is KeySource.CREDENTIAL:
            following = self.path.with_name(self.path.name + "-next")
            if _exists(following):
                keys = _read(following, trust_mode=True) + keys
        return Keyring(keys[0], tuple(keys[1:]))

    def create(self, random: Callable[[int], bytes]) -> Keyring:
        """Make the first key of a new store. Raises KeyMissingError where this place cannot be written."""
        if self.source is KeySource.CREDENTIAL:
            raise KeyMissingError(
                f"no credential {self.path.name}: make one with\n"
                f"  openssl rand -base64 32 | systemd-creds encrypt --name={self.path.name} - "
                f"/etc/credstore.encrypted/{self.path.name}"
            )
        ring = Keyring(MasterKey.of(Secret(random(KEY_BYTES))))
        self.save(ring)
        return ring

    def exists(self) -> bool:
        """Whether there is a key here."""
        return _exists(self.path)

    @property
    def writable(self) -> bool:
        """Whether the daemon itself can put a new key here."""
        return self.source is not KeySource.CREDENTIAL

    def save(self, ring: Keyring) -> None:
        """Put these keys in place, so that a crash leaves either the old file or the new one. Mode 0400."""
        lines = ["# Master key of an otpbridge store. Without it the store is lost; keep a copy elsewhere."]
        lines += [base64.b64encode(key.secret.reveal()).decode() for key in (ring.primary, *ring.previous)]
        draft = self.path.with_name(f".{self.path.name}.{os.getpid()}")
        try:
            handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o400)
            try:
                os.write(handle, ("\n".join(lines) + "\n").encode())
                os.fsync(handle)
            finally:
                os.close(handle)
            draft.replace(self.path)
            folder = os.open(self.path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
        except OSError as error:
            draft.unlink(missing_ok=True)
            raise VaultError(f"{self.path}: the master key cannot be written: {error.strerror}") from error


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError as error:
        raise KeyUnsafeError(f"{path}: cannot be looked at: {error.strerror}. Mend its folders' modes") from None


def _read(path: Path, *, trust_mode: bool) -> list[MasterKey]:
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        raise KeyMissingError(
            f"{path}: the store's master key is not there. Put the key back (from your copy); "
            "without it the seeds in the store cannot be opened"
        ) from None
    except OSError as error:
        raise KeyUnsafeError(f"{path}: the master key cannot be opened: {error.strerror}") from error
    try:
        about = os.fstat(handle)
        if not stat.S_ISREG(about.st_mode):
            raise KeyUnsafeError(f"{path}: the master key must be a regular file")
        if about.st_uid not in (0, os.geteuid()):
            raise KeyUnsafeError(
                f"{path}: the master key belongs to uid {about.st_uid}; chown it to the daemon's user or root"
            )
        if not trust_mode and about.st_mode & 0o077:
            raise KeyUnsafeError(
                f"{path}: the master key has mode {stat.S_IMODE(about.st_mode):04o} and can be read by others; "
                f"chmod 0400 it, and rotate it (`otpbridge key rotate`) as it may have been read"
            )
        raw = os.read(handle, _LARGEST_FILE + 1)
    finally:
        os.close(handle)
    return _parse(raw, path)


def _parse(raw: bytes, path: Path) -> list[MasterKey]:
    keys = []
    for number, line in enumerate(raw[:_LARGEST_FILE].splitlines(), 1):
        text = line.strip()
        if not text or text.startswith(b"#"):
            continue
        try:
            key = base64.b64decode(text, validate=True)
        except binascii.Error:
            key = b""
        if len(key) != KEY_BYTES:
            raise VaultError(f"{path}:{number}: not a key: each line is the base64 form of {KEY_BYTES} bytes")
        keys.append(MasterKey.of(Secret(key)))
    if not keys or len(raw) > _LARGEST_FILE:
        raise VaultError(f"{path}: holds no key: it should have one base64 line of {KEY_BYTES} bytes")
    return keys
