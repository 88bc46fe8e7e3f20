"""Exports of Google Authenticator: accounts, or an EnrolError that tells nothing of the export.

An input that is no URI is taken for the message in one, as base64 keeps the fuzzer from what matters.
"""

from __future__ import annotations

import migration_export
from fuzz_promises import silent, text_of

from otpbridge.enroll.migration import SCHEME, Exported, parse
from otpbridge.enroll.otpauth import OtpauthKey
from otpbridge.errors import EnrolError
from otpbridge.model import Algorithm, Kind

_ALGORITHMS = {Algorithm.SHA1: 1, Algorithm.SHA256: 2, Algorithm.SHA512: 3}


def check(data: bytes) -> None:
    """What is read is what an encoder that follows the description alone writes for the same accounts."""
    uri = text_of(data) if data.startswith(SCHEME.encode()) else migration_export.uri(data)
    try:
        export = parse(uri)
    except EnrolError as error:
        silent(error)
        return
    assert 1 <= len(export.accounts) <= 100
    assert 0 <= export.index < export.size <= 1000
    for account in export.accounts:
        if isinstance(account.key, OtpauthKey):
            assert (account.account, account.issuer) == (account.key.account, account.key.issuer)
            _check_again(account, account.key)
        else:
            silent(account.key)


def _check_again(account: Exported, key: OtpauthKey) -> None:
    entry = migration_export.entry(
        secret=key.secret.reveal(),
        name=key.account,
        issuer=key.issuer or None,
        algorithm=_ALGORITHMS[key.parameters.algorithm],
        digits={6: 1, 8: 2}[key.parameters.digits],
        kind={Kind.HOTP: 1, Kind.TOTP: 2}[key.kind],
        counter=key.counter,
    )
    uri = migration_export.uri(migration_export.payload(entry))
    if len(uri) > 4096:
        return
    (again,) = parse(uri).accounts
    assert isinstance(again.key, OtpauthKey), again.key
    assert again.key.secret.reveal() == key.secret.reveal()
    assert (again.key.kind, again.key.parameters, again.key.counter) == (key.kind, key.parameters, key.counter)
    if ":" not in key.account:  # what stands before one may be the issuer
        assert (again.account, again.issuer) == (account.account, account.issuer)
