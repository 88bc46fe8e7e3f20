"""The format of `otpbridge import`: a token per line, `USER<TAB>otpauth://…`."""

from __future__ import annotations

from dataclasses import dataclass

from otpbridge.enroll.names import check_text
from otpbridge.enroll.otpauth import OtpauthKey, parse
from otpbridge.errors import EnrolError

_USER_LONGEST = 256


@dataclass(frozen=True, slots=True)
class ImportLine:
    """One token to take over, and whose it is."""

    user: str
    key: OtpauthKey


def parse_line(line: str) -> ImportLine | None:
    """Read one line, without or with its line end; None for an empty line and a comment (`#`).

    Raises EnrolError saying what is wrong; the message holds nothing of the line but is meant to stand beside
    its number.
    """
    line = line.rstrip("\r\n")
    if not line.strip() or line.startswith("#"):
        return None
    user, tab, uri = line.partition("\t")
    if not tab:
        raise EnrolError("a line must be USER, one tab, otpauth://…; there is no tab")
    if not user:
        raise EnrolError("there is no user before the tab")
    check_text(user, "user name")
    if len(user.encode()) > _USER_LONGEST:
        raise EnrolError(f"the user name is longer than {_USER_LONGEST} bytes")
    return ImportLine(user, parse(uri.strip(" ")))
