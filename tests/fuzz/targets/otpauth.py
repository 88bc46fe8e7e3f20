"""otpauth URIs: a key, or an EnrolError that tells nothing of the URI."""

from __future__ import annotations

from fuzz_promises import silent, text_of

from otpbridge.enroll.otpauth import OtpauthKey, build, parse
from otpbridge.errors import EnrolError
from otpbridge.model import Kind


def check(data: bytes) -> None:
    """A URI that is read can be computed with; where all authenticators read it alike, it is written as it was."""
    try:
        key = parse(text_of(data))
    except EnrolError as error:
        silent(error)
        return
    assert 10 <= len(key.secret) <= 128
    assert key.parameters.digits in {6, 7, 8}
    assert 15 <= key.parameters.period <= 900
    assert 0 <= key.counter < 2**63
    assert key.account
    assert key.kind is Kind.HOTP or not key.counter
    assert f"{key.account}{key.issuer}".isprintable()
    try:
        again = parse(build(key))
    except EnrolError as error:
        silent(error)
        return
    assert plain(again) == plain(key)


def plain(key: OtpauthKey) -> tuple[object, ...]:
    """A key as what can be compared: a Secret is equal to itself alone."""
    return key.kind, key.secret.reveal(), key.parameters, key.account, key.issuer, key.counter
