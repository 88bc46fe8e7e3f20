"""The two ceremonies of WebAuthn: registration (§7.1) and assertion (§7.2), from the relying party's side."""

from __future__ import annotations

import functools
import json
import struct
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import msgspec
from cryptography.exceptions import UnsupportedAlgorithm
from fido2.cose import UnsupportedKey
from fido2.server import Fido2Server
from fido2.webauthn import (
    AttestationConveyancePreference,
    AttestationObject,
    AuthenticationResponse,
    CollectedClientData,
    PublicKeyCredentialDescriptor,
    PublicKeyCredentialRpEntity,
    PublicKeyCredentialType,
    PublicKeyCredentialUserEntity,
    RegistrationResponse,
    ResidentKeyRequirement,
    UserVerificationRequirement,
)

from otpbridge.errors import WebauthnError
from otpbridge.model import RelyingParty, UserVerification
from otpbridge.webauthn import LONGEST_ANSWER
from otpbridge.webauthn.credential import Credential

if TYPE_CHECKING:
    from fido2.attestation.base import Attestation

J = TypeVar("J", bound=msgspec.Struct)

_TIMEOUT_MS = 60_000
_MOST_TRANSPORTS = 8
_LONGEST_TRANSPORT = 32

# What the library raises on messages that are not what they should be.
_MALFORMED = (
    ValueError,
    TypeError,
    KeyError,
    IndexError,
    AttributeError,
    AssertionError,
    RecursionError,
    OverflowError,
    NotImplementedError,
    struct.error,
    UnsupportedAlgorithm,
)


@dataclass(frozen=True, slots=True)
class Registered:
    """A credential that a key has made, with its signature counter."""

    credential: Credential
    counter: int


class Registration:
    """The registration of a key for a user: what is asked, and what comes of the answer."""

    def __init__(self, party: RelyingParty, challenge: bytes, user_handle: bytes) -> None:
        self._party = party
        self._challenge = challenge
        self._handle = user_handle

    def options(self, user: str, present: Sequence[Credential]) -> str:
        """PublicKeyCredentialCreationOptionsJSON: what the key is asked. `present` are keys the user has already."""
        return _json(self._begun(user, present)[0])

    def judge(self, answer: str) -> Registered:
        """Judge a RegistrationResponseJSON (§7.1). Raises WebauthnError, which says why."""
        given = _parsed(answer, _Registration)
        with _told():
            response = RegistrationResponse.from_dict(msgspec.to_builtins(given))
            data = _server(self._party).register_complete(self._begun("", ())[1], response)
            _check_frame(response.response.client_data)
            if data.credential_data is None or data.credential_data.credential_id != response.raw_id:
                raise WebauthnError("the answer names another credential than the one that was made")
            if isinstance(data.credential_data.public_key, UnsupportedKey):
                raise WebauthnError("the key signs in a way that is not known here")
            _check_attestation(response)
            return Registered(
                Credential(data.credential_data, self._handle, _transports(given.response)), int(data.counter)
            )

    def _begun(self, user: str, present: Sequence[Credential]) -> tuple[Any, Any]:
        """What the key is asked, and what the library keeps of it: challenge and user verification alone."""
        return _server(self._party).register_begin(
            PublicKeyCredentialUserEntity(id=self._handle, name=user, display_name=user),
            [_descriptor(credential) for credential in present],
            resident_key_requirement=ResidentKeyRequirement.DISCOURAGED,
            user_verification=_requirement(self._party.user_verification),
            challenge=self._challenge,
        )


@dataclass(frozen=True, slots=True)
class Asserted:
    """A credential that has answered: its place among those that were asked, and its signature counter."""

    place: int
    counter: int


class Assertion:
    """A question to the keys of a user, which one of them may answer once."""

    def __init__(
        self,
        party: RelyingParty,
        credentials: Sequence[Credential],
        challenge: bytes,
        user_verification: UserVerification | None = None,
    ) -> None:
        self._party = party
        self._credentials = credentials
        self._challenge = challenge
        self._verification = user_verification or party.user_verification

    @property
    def options(self) -> str:
        """PublicKeyCredentialRequestOptionsJSON: what the keys are asked."""
        return _json(self._begun()[0])

    def judge(self, answer: str) -> Asserted:
        """Judge an AuthenticationResponseJSON (§7.2). Raises WebauthnError, which says why."""
        given = _parsed(answer, _Authentication)
        with _told():
            response = AuthenticationResponse.from_dict(msgspec.to_builtins(given))
            _server(self._party).authenticate_complete(
                self._begun()[1],
                [credential.data for credential in self._credentials],
                response,
            )
            _check_frame(response.response.client_data)
            place = next(place for place, each in enumerate(self._credentials) if each.id == response.raw_id)
            handle = response.response.user_handle
            # Keys that keep no account send none (§7.2 step 6).
            if handle and handle != self._credentials[place].user_handle:
                raise WebauthnError("the user handle is another user's")
            return Asserted(place, int(response.response.authenticator_data.counter))

    def _begun(self) -> tuple[Any, Any]:
        """What the keys are asked, and what the library keeps of it: challenge and user verification alone."""
        return _server(self._party).authenticate_begin(
            [_descriptor(credential) for credential in self._credentials],
            user_verification=_requirement(self._verification),
            challenge=self._challenge,
        )


@contextmanager
def _told() -> Iterator[None]:
    """What the library raises, as our error. Its texts name checks, never contents."""
    try:
        yield
    except WebauthnError:
        raise
    except ValueError as error:
        raise WebauthnError(_REASONS.get(str(error), "the answer is malformed")) from error
    except _MALFORMED as error:
        raise WebauthnError("the answer is malformed") from error


_REASONS = {
    "Incorrect type in CollectedClientData.": "it answers another kind of question",
    "Invalid origin in CollectedClientData.": "it was given to a page that is not in `origins`",
    "Wrong challenge in response.": "it answers another challenge",
    "Wrong RP ID hash in response.": "it is for another relying party than `rp_id`",
    "User Present flag not set.": "nobody touched the key",
    "User verification required, but User Verified flag not set.": "the key did not ask who uses it (PIN)",
    "User verification required, but user verified flag not set.": "the key did not ask who uses it (PIN)",
    "Invalid signature.": "the signature is wrong",
    "Unknown credential ID.": "the key is not one of this user",
}


def _server(party: RelyingParty) -> Fido2Server:
    server = Fido2Server(
        PublicKeyCredentialRpEntity(id=party.id, name=party.name),
        attestation=AttestationConveyancePreference.NONE,
        verify_origin=lambda origin: origin in party.origins,
    )
    server.timeout = _TIMEOUT_MS  # type: ignore[assignment]  # the library gives it the type of its default, None
    return server


def _requirement(verification: UserVerification) -> UserVerificationRequirement:
    return UserVerificationRequirement(verification.value)


def _descriptor(credential: Credential) -> PublicKeyCredentialDescriptor:
    # Transports are left as the key told them: browsers pass over those that they do not know.
    return PublicKeyCredentialDescriptor.from_dict(
        {
            "type": PublicKeyCredentialType.PUBLIC_KEY.value,
            "id": credential.id,
            **({"transports": list(credential.transports)} if credential.transports else {}),
        }
    )


def _json(options: Any) -> str:
    return json.dumps(dict(options)["publicKey"], separators=(",", ":"))


class _Made(msgspec.Struct, frozen=True, rename="camel"):
    """AuthenticatorAttestationResponseJSON, as far as it counts."""

    client_data: str = msgspec.field(name="clientDataJSON")
    attestation_object: str
    transports: tuple[str, ...] = ()


class _Signed(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """AuthenticatorAssertionResponseJSON."""

    client_data: str = msgspec.field(name="clientDataJSON")
    authenticator_data: str
    signature: str
    user_handle: str | None = None


class _Registration(msgspec.Struct, frozen=True, rename="camel"):
    """RegistrationResponseJSON, as far as it counts."""

    id: str
    raw_id: str
    response: _Made
    type: Literal["public-key"]


class _Authentication(msgspec.Struct, frozen=True, rename="camel"):
    """AuthenticationResponseJSON, as far as it counts."""

    id: str
    raw_id: str
    response: _Signed
    type: Literal["public-key"]


def _parsed(answer: str, kind: type[J]) -> J:
    """A PublicKeyCredentialJSON. Raises WebauthnError.

    The library trusts the types of what it is given: for a number in place of bytes it makes so many of them.
    """
    if len(answer) > LONGEST_ANSWER:
        raise WebauthnError("the answer is too long")
    try:
        return msgspec.json.decode(answer, type=kind)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        raise WebauthnError("the answer is not that of a security key") from None


def _transports(made: _Made) -> tuple[str, ...]:
    fit = (each for each in made.transports if each.isascii() and len(each) <= _LONGEST_TRANSPORT)
    return tuple(fit)[:_MOST_TRANSPORTS]


def _check_frame(told: CollectedClientData) -> None:
    """A page that is shown inside a foreign one may be there to be clicked by mistake (§13.4.2)."""
    if told.cross_origin:
        raise WebauthnError("it was given to a page inside a foreign one")


def _check_attestation(response: RegistrationResponse) -> None:
    """An attestation need not be there; what is there must hold (§7.1 step 21). Whose it is, is not judged.

    Raises WebauthnError.
    """
    # Only registrations need these, and they take long to load.
    from fido2.attestation.base import InvalidAttestation  # noqa: PLC0415

    made: AttestationObject = response.response.attestation_object
    judge = _formats().get(made.fmt)
    if judge is None:
        raise WebauthnError("the attestation is of a form that is not known here")
    try:
        judge.verify(made.att_stmt, made.auth_data, response.response.client_data.hash)
    except InvalidAttestation as error:
        raise WebauthnError("its attestation does not hold") from error


@functools.cache
def _formats() -> Mapping[str, Attestation]:
    from fido2.attestation import Attestation  # type: ignore[attr-defined]  # noqa: PLC0415 - see above

    made = ((getattr(each, "FORMAT", None), each) for each in Attestation.__subclasses__())
    return {name: each() for name, each in made if isinstance(name, str)}
