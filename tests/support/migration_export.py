"""Exports of Google Authenticator, encoded from the public description alone: nothing here comes from otpbridge."""

from __future__ import annotations

import base64
from urllib.parse import quote

SEED = b"12345678901234567890"


def number(value):
    """A varint."""
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes(out) + bytes([value])


def field(tag, value):
    """A field: a number, or bytes with their length."""
    if isinstance(value, int):
        return number(tag << 3) + number(value)
    data = value.encode() if isinstance(value, str) else value
    return number(tag << 3 | 2) + number(len(data)) + data


def entry(*, secret=SEED, name="alice", issuer="Example", algorithm=1, digits=1, kind=2, counter=None, more=b""):
    """An account of an export."""
    parts = [(1, secret), (2, name), (3, issuer), (4, algorithm), (5, digits), (6, kind), (7, counter)]
    return b"".join(field(tag, value) for tag, value in parts if value is not None) + more


def payload(*entries, version=1, size=1, index=0, batch=0):
    """An export."""
    ends = [(2, version), (3, size), (4, index), (5, batch)]
    return b"".join(field(1, each) for each in entries) + b"".join(
        field(tag, value) for tag, value in ends if value is not None
    )


def uri(data):
    """The URI that is in the QR code."""
    return f"otpauth-migration://offline?data={quote(base64.b64encode(data).decode(), safe='')}"
