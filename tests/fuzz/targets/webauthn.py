"""Answers of security keys: what holds by checks of our own, or a WebauthnError that tells nothing of the answer.

The first byte says what is judged: `R` and `A` are JSON for a registration and an assertion; `r` and `a` are the
parts of one with a separator between them, as base64 keeps the fuzzer from what matters.
"""

from __future__ import annotations

import base64
import hashlib
import json

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from fido2.cose import ES256
from fido2.webauthn import Aaguid, AttestedCredentialData
from fuzz_promises import SEED, silent, text_of

from otpbridge.errors import WebauthnError
from otpbridge.model import RelyingParty
from otpbridge.webauthn.ceremony import Assertion, Registration
from otpbridge.webauthn.credential import Credential

SEPARATOR = b"\xff\xfe\xfd\xfc"
ORIGIN = "https://portal.example.org"
PARTY = RelyingParty("example.org", "Example", (ORIGIN,))
CHALLENGE = b"c" * 32
HANDLE = b"h" * 32
PRIVATE = ec.derive_private_key(int.from_bytes(SEED), ec.SECP256R1())
CREDENTIAL = Credential(
    AttestedCredentialData.create(
        Aaguid(bytes(16)), b"credential id", ES256.from_cryptography_key(PRIVATE.public_key())
    ),
    HANDLE,
)


def check(data: bytes) -> None:
    """What is accepted answers our challenge, on our page, for our name, by a touch; an assertion is signed too."""
    kind, rest = data[:1], data[1:]
    registration = kind in {b"R", b"r"}
    text = text_of(rest) if kind in {b"R", b"A"} else _joined(rest, registration=registration)
    try:
        if registration:
            judged = Registration(PARTY, CHALLENGE, HANDLE).judge(text)
            assert judged.credential.user_handle == HANDLE
            assert Credential.unpack(judged.credential.pack()) == judged.credential
        else:
            assert Assertion(PARTY, [CREDENTIAL], CHALLENGE).judge(text).place == 0
    except WebauthnError as error:
        silent(WebauthnError(*error.args))  # what the library said, its cause, is logged nowhere
        return
    response = json.loads(text)["response"]
    told_bytes = _bytes(response["clientDataJSON"])
    told = json.loads(told_bytes)
    assert told["type"] == ("webauthn.create" if registration else "webauthn.get")
    assert told["origin"] == ORIGIN
    assert _bytes(told["challenge"]) == CHALLENGE
    if registration:
        return
    signed = _bytes(response["authenticatorData"])
    assert signed[:32] == hashlib.sha256(PARTY.id.encode()).digest()
    assert signed[32] & 1
    signature = _bytes(response["signature"])
    PRIVATE.public_key().verify(signature, signed + hashlib.sha256(told_bytes).digest(), ec.ECDSA(hashes.SHA256()))


def _joined(data: bytes, *, registration: bool) -> str:
    names = (
        ("clientDataJSON", "attestationObject")
        if registration
        else ("clientDataJSON", "authenticatorData", "signature")
    )
    id_, *parts = data.split(SEPARATOR)
    response = {name: base64.urlsafe_b64encode(part).decode() for name, part in zip(names, parts, strict=False)}
    id_text = base64.urlsafe_b64encode(id_).rstrip(b"=").decode()
    return json.dumps({"id": id_text, "rawId": id_text, "type": "public-key", "response": response})


def _bytes(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
