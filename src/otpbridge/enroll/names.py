"""Which accounts and issuers every authenticator reads as they were meant.

WinAuth decodes the whole URI before it parses it, so `& ? + % = #` break it. Yubico Authenticator splits at
`:` and keeps `["period/"]["issuer:"]name` in at most 64 bytes on the key.
"""

from __future__ import annotations

from otpbridge.errors import EnrolError
from otpbridge.model import Kind

MISREAD = "&?+%=#:"
"""Characters that some authenticator misreads in an account or issuer."""
LONGEST = 64
"""Bytes of UTF-8 that a YubiKey keeps for `["period/"]["issuer:"]name`."""
USUAL_PERIOD = 30
"""Seconds; the period that a YubiKey does not write before the name."""


def check_text(text: str, what: str) -> None:
    """Raise EnrolError unless `text` can be shown on one line: printable, without spaces around."""
    if not text.isprintable():
        raise EnrolError(f"the {what} holds a character that cannot be shown; use printable characters")
    if text != text.strip():
        raise EnrolError(f"the {what} starts or ends with a space; remove it")


def check_safe(text: str, what: str) -> None:
    """Raise EnrolError if an authenticator would misread `text`."""
    check_text(text, what)
    found = sorted(set(text) & set(MISREAD))
    if found:
        raise EnrolError(
            f"the {what} holds {' '.join(found)}, which some authenticators misread; choose one without {MISREAD}"
        )


def check_names(kind: Kind, account: str, issuer: str, period: int) -> None:
    """Raise EnrolError unless WinAuth and Yubico Authenticator both take this account and issuer.

    `period` is in seconds and means nothing to HOTP.
    """
    if not account:
        raise EnrolError("the account name is empty; choose a label")
    check_safe(account, "account name")
    check_safe(issuer, "issuer")
    prefix = f"{period}/" if kind is Kind.TOTP and period != USUAL_PERIOD else ""
    prefix += f"{issuer}:" if issuer else ""
    size = len(f"{prefix}{account}".encode())
    if size > LONGEST:
        raise EnrolError(
            f"issuer and account name take {size} bytes together, and a YubiKey keeps {LONGEST};"
            " choose a shorter label or issuer"
        )
