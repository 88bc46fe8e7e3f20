"""Lines of `otpbridge import`: a token and whose it is, or an EnrolError that tells nothing of the line."""

from __future__ import annotations

from fuzz_promises import silent, text_of

from otpbridge.enroll import otpauth
from otpbridge.enroll.lines import ImportLine, parse_line, write_line
from otpbridge.errors import EnrolError
from otpbridge.otp.yubiotp import YubiKey, modhex


def check(data: bytes) -> None:
    """What is read can be written as a line again, and means the same."""
    text = text_of(data)
    try:
        line = parse_line(text)
    except EnrolError as error:
        silent(error)
        return
    if line is None:
        assert not text.strip() or text.startswith("#")
        return
    assert line.user
    assert line.user.isprintable()
    assert len(line.user.encode()) <= 256
    if isinstance(line.key, otpauth.OtpauthKey):
        whole = parse_line(write_line(line.user, line.key, line.drift))
        assert whole is not None
        assert _plain(whole) == _plain(line)
    try:
        again = parse_line(_written(line))
    except EnrolError as error:
        assert isinstance(line.key, otpauth.OtpauthKey)
        silent(error)
        return
    assert again is not None
    assert _plain(again) == _plain(line)


def _written(line: ImportLine) -> str:
    if isinstance(line.key, otpauth.OtpauthKey):
        return f"{line.user}\t{otpauth.build(line.key)}" + (f"\tdrift={line.drift}" if line.drift else "")
    fields = (modhex(line.key.public_id), line.key.private_id.reveal().hex(), line.key.aes_key.reveal().hex())
    return f"{line.user}\t{','.join(fields)}"


def _plain(line: ImportLine) -> tuple[object, ...]:
    key = line.key
    if isinstance(key, YubiKey):
        return line.user, key.public_id, key.private_id.reveal(), key.aes_key.reveal()
    return line.user, line.drift, key.kind, key.secret.reveal(), key.parameters, key.account, key.issuer, key.counter
