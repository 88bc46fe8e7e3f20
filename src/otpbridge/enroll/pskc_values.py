"""What stands in the elements of a PSKC file: names, dates, and values that are plain or encrypted."""

from __future__ import annotations

import base64
import binascii
import re
from datetime import UTC, datetime

from otpbridge.enroll.names import check_text
from otpbridge.enroll.pskc_cipher import Opener, Sealed
from otpbridge.enroll.pskc_tree import Element
from otpbridge.errors import EnrolError

LONGEST_NAME = 128
"""Characters."""
WHOLE = re.compile(r"[+-]?[0-9]{1,19}", re.ASCII)
_BYTES_OF_A_NUMBER = range(1, 9)


def name_in(element: Element | None, name: str, longest: int = LONGEST_NAME) -> str:
    """A text that people read, empty where there is none. Raises EnrolError where it cannot stand on a line."""
    text = "" if element is None else element.said(name)
    check_name(text, name, longest)
    return text


def check_name(text: str, what: str, longest: int = LONGEST_NAME) -> None:
    """Raise EnrolError unless it can stand on a line."""
    check_text(text, what)
    if len(text) > longest:
        raise EnrolError(f"its {what} is longer than {longest} characters")


def date_in(element: Element | None, name: str) -> datetime | None:
    """A date (XML Schema, dateTime), in UTC where it says no zone; None where there is none. Raises EnrolError."""
    text = "" if element is None else element.said(name)
    if not text:
        return None
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise EnrolError(f"its {name} is no date") from None
    return at if at.tzinfo is not None else at.replace(tzinfo=UTC)


def value_in(element: Element) -> str | Sealed:
    """A value, plain or encrypted (RFC 6030 §4.3.3). Raises EnrolError where it is not one of the two."""
    element.check_children("PlainValue", "EncryptedValue", "ValueMAC")
    plain, encrypted = element.one("PlainValue"), element.one("EncryptedValue")
    mac = element.one("ValueMAC")
    if (plain is None) == (encrypted is None):
        raise EnrolError(f"its {element.name} must have either a PlainValue or an EncryptedValue")
    if encrypted is not None:
        return sealed_in(encrypted, None if mac is None else from_base64(mac.text, "ValueMAC"))
    assert plain is not None
    if mac is not None:
        raise EnrolError(f"its {element.name} has a MAC and is not encrypted")
    return plain.text.strip()


def sealed_in(element: Element, mac: bytes | None = None) -> Sealed:
    """An encrypted value (xmlenc, EncryptedDataType) and the MAC beside it. Raises EnrolError."""
    method, data = element.one("EncryptionMethod"), element.one("CipherData")
    value = None if data is None else data.one("CipherValue")
    if method is None or value is None:
        raise EnrolError(
            "an encrypted value is not whole: it has an EncryptionMethod, and CipherData with a CipherValue"
        )
    sealed = Sealed(method.attributes.get("Algorithm", ""), from_base64(value.text, "CipherValue"), mac)
    sealed.check()
    return sealed


def unsealed(value: Sealed, opener: Opener | None) -> bytes:
    """What an encrypted value holds. Raises EnrolError where it does not open, or nothing was given to open it."""
    if opener is None:
        raise EnrolError("it is encrypted")
    return opener.open(value)


def from_base64(text: str, what: str) -> bytes:
    """The bytes; blanks and line ends may stand anywhere (XML Schema, base64Binary). Raises EnrolError."""
    try:
        return base64.b64decode("".join(text.split()).encode(), validate=True)
    except binascii.Error:
        raise EnrolError(f"its {what} is not base64") from None


def number_of(value: str | Sealed, what: str, opener: Opener | None) -> int:
    """A number; an encrypted one is big-endian (RFC 6030 §4.3.3). Raises EnrolError."""
    if isinstance(value, str):
        if not WHOLE.fullmatch(value):
            raise EnrolError(f"its {what} is no whole number")
        return int(value)
    raw = unsealed(value, opener)
    if len(raw) not in _BYTES_OF_A_NUMBER or raw.isdigit():
        # Some programs encrypt the digits: which of the two it is cannot be told.
        raise EnrolError(f"its {what} is encrypted, and no number as RFC 6030 asks for: 4 or 8 bytes, big-endian")
    return int.from_bytes(raw, "big")


def whole(text: str) -> int:
    """A whole number, 0 for what is none."""
    return int(text) if WHOLE.fullmatch(text) else 0
