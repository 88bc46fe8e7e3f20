"""The formats of `otpbridge import`: a token per line.

`USER<TAB>otpauth://…`, `USER<TAB>otpauth-migration://…` with one account, or `USER<TAB>PUBLIC,PRIVATE,KEY`.
After a URI there may be another tab and `drift=STEPS`: how many time steps the clock of a TOTP token is ahead.
"""

from __future__ import annotations

import re
import string
from dataclasses import dataclass

from otpbridge.enroll import migration, otpauth
from otpbridge.enroll.names import check_text
from otpbridge.enroll.otpauth import OtpauthKey, parse
from otpbridge.errors import EnrolError
from otpbridge.model import Kind, Secret
from otpbridge.otp.yubiotp import KEY_SIZE, PRIVATE_ID_SIZE, PUBLIC_ID_LONGEST, YubiKey, from_modhex

_USER_LONGEST = 256
_YUBICO_FIELDS = 5
"""Fields of the file that Yubico's programming tools write: serial number, public id, private id, key, and more."""
MOST_DRIFT = 1000
"""Time steps; as far as resynchronisation searches by default."""
_DRIFT = re.compile(r"drift=(-?[0-9]{1,4})", re.ASCII)


@dataclass(frozen=True, slots=True)
class ImportLine:
    """One token to take over, and whose it is."""

    user: str
    key: OtpauthKey | YubiKey
    drift: int = 0
    """Of the device's clock, in time steps."""


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
    check_user(user)
    key, second_tab, drift = key.partition("\t")
    key = key.strip(" ")
    if "," in key and ":" not in key:
        if second_tab:
            raise EnrolError("nothing may follow after the AES key")
        return ImportLine(user, _yubikey(key))
    read = _exported(key) if key.lower().startswith(migration.SCHEME) else parse(key)
    return ImportLine(user, read, _drift(drift, read.kind) if second_tab else 0)


def check_user(user: str) -> None:
    """Raise EnrolError unless this can be the name of a user."""
    check_text(user, "user name")
    if not user:
        raise EnrolError("the user has no name")
    if len(user.encode()) > _USER_LONGEST:
        raise EnrolError(f"the user name is longer than {_USER_LONGEST} bytes")


def write_line(user: str, key: OtpauthKey, drift: int = 0) -> str:
    """The line that is read as this. It holds the seed.

    Account and issuer may be any that are read: the device computes the codes, and no authenticator scans this.
    """
    # The colon ends an issuer that is none, so that one in the account begins nothing.
    line = f"{user}\t{otpauth.write(key, ':')}"
    return f"{line}\tdrift={drift}" if drift else line


def _drift(text: str, kind: Kind) -> int:
    found = _DRIFT.fullmatch(text)
    if found is None or abs(int(found[1])) > MOST_DRIFT:
        raise EnrolError(f"after the URI there may be a tab and drift=STEPS, {MOST_DRIFT} steps at most")
    if kind is not Kind.TOTP:
        raise EnrolError("only the clock of a totp token drifts")
    return int(found[1])


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
