"""PSKC files and lists of users: keys, faults that name them, or an EnrolError; neither tells a seed.

The first byte says by what a file is opened: `0` nothing, `k` a key, `p` a passphrase; `u` is a list of users.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime

from fuzz_promises import gives_away, silent, text_of

from otpbridge.enroll import pskc_users
from otpbridge.enroll.lines import parse_line, write_line
from otpbridge.enroll.otpauth import OtpauthKey
from otpbridge.enroll.pskc import Container, Opened, parse
from otpbridge.enroll.pskc_key import PskcKey
from otpbridge.errors import EnrolError
from otpbridge.model import Kind, Secret

SECRETS = {b"0": None, b"k": bytes.fromhex("12345678901234567890123456789012"), b"p": b"qwerty"}
WRONG = b"wrong key of 16."
NOW = datetime(2006, 4, 10, tzinfo=UTC)
_DEAR = re.compile(rb"IterationCount>\s*0*[0-9]{5}")
"""So many iterations of PBKDF2 take long and say nothing about the reader."""


def check(data: bytes) -> None:
    """What is read means the same to the daemon, and what is encrypted opens by its key alone."""
    kind, content = data[:1], data[1:]
    if kind == b"u":
        _check_users(text_of(content))
    if kind not in SECRETS or _DEAR.search(content):
        return
    try:
        container = parse(content)
    except EnrolError as error:
        silent(error)
        return
    plain = _opened(container, None)
    assert plain is not None
    opened, secret = plain, SECRETS[kind]
    if secret is not None:
        opened = _opened(container, secret) or plain
        wrong = _opened(container, WRONG)
        assert wrong is None or _seeds(wrong) <= _seeds(plain)
    _check(opened)


def _opened(container: Container, secret: bytes | None) -> Opened | None:
    try:
        return container.open(None if secret is None else Secret(secret), now=NOW)
    except EnrolError as error:
        silent(error)
        return None


def _seeds(opened: Opened) -> set[bytes]:
    return {key.key.secret.reveal() for key in opened.keys}


def _check(opened: Opened) -> None:
    assert opened.keys or opened.faults
    assert len(_seeds(opened)) == len(opened.keys)
    for fault in opened.faults:
        assert fault.line >= 1
        assert not gives_away(fault.reason)
    for key in opened.keys:
        _check_key(key)
    given, faults = pskc_users.assign(opened, None)
    assert len(given) + len(faults) == len(opened.keys) + len(opened.faults)
    for key, user in given:
        line = parse_line(write_line(user, key.key, key.drift))
        assert line is not None
        assert isinstance(line.key, OtpauthKey)
        assert (line.user, line.drift, _plain(line.key)) == (user, key.drift, _plain(key.key))


def _check_key(key: PskcKey) -> None:
    assert key.name
    assert f"{key.serial}{key.name}{key.key.account}{key.key.issuer}".isprintable()
    assert 10 <= len(key.key.secret) <= 128
    assert key.key.parameters.digits in {6, 7, 8}
    assert 15 <= key.key.parameters.period <= 900
    assert 0 <= key.key.counter < 2**63
    assert abs(key.drift) <= 1000
    assert key.key.kind is Kind.TOTP or not key.drift
    assert key.ends_at is None or key.ends_at >= NOW


def _plain(key: OtpauthKey) -> tuple[object, ...]:
    return key.kind, key.secret.reveal(), key.parameters, key.account, key.issuer, key.counter


def _check_users(text: str) -> None:
    try:
        users = pskc_users.read(text)
    except EnrolError:
        return
    assert users
    for serial, user in users.items():
        assert serial == serial.strip() != ""
        assert user.isprintable()
        assert 0 < len(user.encode()) <= 256
