"""A PSKC file for `otpbridge import`: opened here, so that the daemon sees no XML, and sent as lines."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import IO

from otpbridge.cli import ask, show
from otpbridge.cli.exits import Code, CommandError
from otpbridge.enroll import pskc_users
from otpbridge.enroll.lines import write_line
from otpbridge.enroll.pskc import Container, Fault, Protection, parse
from otpbridge.enroll.pskc_key import PskcKey
from otpbridge.enroll.pskc_tree import LONGEST
from otpbridge.errors import EnrolError
from otpbridge.model import Secret

_HEX = re.compile(rb"(?:[0-9A-Fa-f]{32}|[0-9A-Fa-f]{48}|[0-9A-Fa-f]{64})")
_LONGEST_SECRET = 4096
_STARTS = (b"<", b"\xff\xfe", b"\xfe\xff")
"""Of XML in UTF-8 and in UTF-16; no line of the other forms starts so."""


@dataclass(frozen=True, slots=True)
class Options:
    """What is said of a PSKC file on the command line."""

    users: IO[bytes] | None
    key_file: IO[bytes] | None
    passphrase_file: IO[bytes] | None
    digits: int | None
    only_listed: bool

    def given(self) -> bool:
        """Whether any of them is."""
        return self != Options(None, None, None, None, only_listed=False)


@dataclass(frozen=True, slots=True)
class Batch:
    """What to send: a line for each key, in the order of the file."""

    keys: tuple[PskcKey, ...]
    lines: tuple[str, ...]

    def fault(self, line: int, reason: str) -> Fault:
        """What the daemon says of a line, said of the key that it is; line 0 is none of them."""
        if not 1 <= line <= len(self.keys):
            return Fault(0, "", reason)
        key = self.keys[line - 1]
        return Fault(key.line, key.serial, reason)

    def __repr__(self) -> str:
        return f"Batch({len(self.keys)} keys)"


def is_pskc(first: bytes) -> bool:
    """Whether a file that begins so is one."""
    return first.removeprefix(b"\xef\xbb\xbf").lstrip().startswith(_STARTS)


def load(first: bytes, rest: IO[bytes], options: Options) -> tuple[Batch, list[Fault]]:
    """Read a file whose beginning was read already, and open it; with what is wrong in it.

    Raises CommandError where the options do not fit, or nothing of the file can be read.
    """
    try:
        return _load(first, rest, options)
    except EnrolError as error:
        raise CommandError(Code.REFUSED, f"nothing was imported: {error}", "BadFile") from None


def _load(first: bytes, rest: IO[bytes], options: Options) -> tuple[Batch, list[Fault]]:
    if options.only_listed and options.users is None:
        raise CommandError(Code.USAGE, "--only-listed goes with --users", "BadParameters")
    users = None if options.users is None else pskc_users.read(_text(options.users))
    container = parse(first + rest.read(LONGEST + 1 - min(len(first), LONGEST)))
    opened = container.open(_secret(container, options), now=datetime.now(UTC), digits=options.digits)
    given, faults = pskc_users.assign(opened, users, only_listed=options.only_listed)
    if not faults:
        _warn(container, [key for key, _user in given])
    lines = tuple(write_line(user, key.key, key.drift) for key, user in given)
    return Batch(tuple(key for key, _user in given), lines), faults


def _text(file: IO[bytes]) -> str:
    try:
        return file.read(LONGEST).decode("utf-8-sig")
    except UnicodeDecodeError:
        raise EnrolError("the list of users is not UTF-8 text") from None


def _secret(container: Container, options: Options) -> Secret | None:
    """What opens the file: from the option for it, else asked for."""
    protection, name = container.protection, container.key_name
    called = f" (the file calls it {show.visible(name)})" if name else ""
    for file, option, meant in (
        (options.key_file, "--key-file", Protection.KEY),
        (options.passphrase_file, "--passphrase-file", Protection.PASSPHRASE),
    ):
        if file is not None and protection is not meant:
            raise CommandError(Code.USAGE, f"{_PROTECTED[protection]}; leave out {option}", "BadParameters")
    if protection is Protection.NONE:
        return None
    if protection is Protection.PASSPHRASE:
        if options.passphrase_file is None:
            return _passphrase(ask.hidden(f"Passphrase of the file{called}: ").encode(errors="surrogateescape"))
        return _passphrase(options.passphrase_file.readline(_LONGEST_SECRET).rstrip(b"\r\n"))
    if options.key_file is None:
        return _key(ask.hidden(f"Key of the file, in hex{called}: ").encode(errors="surrogateescape"))
    return _key(options.key_file.read(_LONGEST_SECRET))


_PROTECTED = {
    Protection.NONE: "the seeds in this file are not encrypted",
    Protection.KEY: "this file is encrypted by a key, not by a passphrase",
    Protection.PASSPHRASE: "this file is encrypted by a passphrase, not by a key",
}


def _passphrase(text: bytes) -> Secret:
    if not text:
        raise CommandError(Code.USAGE, "there is no passphrase", "BadParameters")
    return Secret(text)


def _key(text: bytes) -> Secret:
    digits = b"".join(text.split())
    if not _HEX.fullmatch(digits):
        raise CommandError(
            Code.USAGE, "the key must be 32, 48 or 64 hex digits (AES with 128, 192 or 256 bits)", "BadParameters"
        )
    return Secret(bytes.fromhex(digits.decode()))


def _warn(container: Container, keys: Sequence[PskcKey]) -> None:
    """Say what the file asks for and nobody sees to."""
    if container.signed:
        show.note("warning: the file is signed, which is not checked here; pskctool --verify does")
    ends = [key.ends_at for key in keys if key.ends_at is not None]
    if ends:
        show.note(
            f"warning: by the file {len(ends)} of these may not be used after some date, the first after"
            f" {min(ends):%Y-%m-%d}; remove them by then"
        )
