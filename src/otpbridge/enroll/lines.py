"""The formats of `otpbridge import`: a token per line.

`USER<TAB>otpauth://…`, `USER<TAB>otpauth-migration://…` with one account, or `USER<TAB>PUBLIC,PRIVATE,KEY`.
"""

from __future__ import annotations

import string
from dataclasses import dataclass

from otpbridge.enroll import migration
from otpbridge.enroll.names import check_text
from otpbridge.enroll.otpauth import OtpauthKey, parse
from otpbridge.errors import EnrolError
from otpbridge.model import Secret
from otpbridge.otp.yubiotp import KEY_SIZE, PRIVATE_ID_SIZE, PUBLIC_ID_LONGEST, YubiKey, from_modhex

_USER_LONGEST = 256
_YUBICO_FIELDS = 5
"""Fields of the file that Yubico's programming tools write: serial number, public id, private id, key, and more."""


@dataclass(frozen=True, slots=True)
class ImportLine:
    """One token to take over, and whose it is."""

    user: str
    key: OtpauthKey | YubiKey


def parse_line(line: str) -> ImportLine | None:
    """Read one line, without or with its line end; None for an empty line and a comment (`#`).

    Raises EnrolError saying what is wrong; the message holds nothing of the line but is meant to stand beside
    its number.
    """
    line = line.rstrip("\r\n")
    if not line.strip() or line.startswith("#"):
        return None
    user, tab, key = line.partition("\t")
    if not tab:
        raise EnrolError(_without_tab(line))
    if not user:
        raise EnrolError("there is no user before the tab")
    check_text(user, "user name")
    if len(user.encode()) > _USER_LONGEST:
        raise EnrolError(f"the user name is longer than {_USER_LONGEST} bytes")
    key = key.strip(" ")
    if "," in key and ":" not in key:
        return ImportLine(user, _yubikey(key))
    if key.lower().startswith(migration.SCHEME):
        return ImportLine(user, _exported(key))
    return ImportLine(user, parse(key))


def _exported(uri: str) -> OtpauthKey:
    """The only account of an export. Raises EnrolError."""
    accounts = migration.parse(uri).accounts
    if len(accounts) > 1:
        raise EnrolError(
            f"the export holds {len(accounts)} accounts, and a line is one token of one user: export them one by one"
        )
    key = accounts[0].key
    if isinstance(key, EnrolError):
        raise key
    return key


def _without_tab(line: str) -> str:
    if line.count(",") + 1 >= _YUBICO_FIELDS:
        return (
            "there is no tab; should this be a file of Yubico's programming tools, it names no users: write USER,"
            " one tab, then its second, third and fourth field with commas between them"
        )
    return "a line must be USER, one tab, otpauth://… or PUBLIC ID,PRIVATE ID,AES KEY; there is no tab"


def _yubikey(text: str) -> YubiKey:
    """Read what a slot of a YubiKey was programmed with. Raises EnrolError."""
    fields = [field.strip(" ") for field in text.split(",")]
    if len(fields) != 3:
        raise EnrolError(
            f"a Yubico OTP is PUBLIC ID,PRIVATE ID,AES KEY after the tab: three fields, not {len(fields)}"
        )
    public_id = from_modhex(fields[0])
    if not public_id or len(public_id) > PUBLIC_ID_LONGEST:
        raise EnrolError(
            f"the public id must be modhex, 1 to {PUBLIC_ID_LONGEST} bytes in letters of cbdefghijklnrtuv"
        )
    return YubiKey(public_id, _hex(fields[1], PRIVATE_ID_SIZE, "private id"), _hex(fields[2], KEY_SIZE, "AES key"))


def _hex(text: str, size: int, what: str) -> Secret:
    if len(text) != 2 * size or not set(text) <= set(string.hexdigits):
        raise EnrolError(f"the {what} must be {2 * size} hex digits ({size} bytes)")
    return Secret(bytes.fromhex(text))
