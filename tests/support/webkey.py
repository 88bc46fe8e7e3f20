"""A browser with a security key: what navigator.credentials gives for the options of a page, in JSON."""

from __future__ import annotations

import json

from fido2.client import DefaultClientDataCollector, Fido2Client, UserInteraction
from fido2.ctap import CtapDevice
from fido2.webauthn import PublicKeyCredentialCreationOptions, PublicKeyCredentialRequestOptions


class Person(UserInteraction):
    """Types the PIN it was given."""

    def __init__(self, pin: str | None) -> None:
        self._pin = pin

    def request_pin(self, permissions, rp_id):
        return self._pin


def create(
    device: CtapDevice, options: str, origin: str, *, pin: str | None = None, attestation: str = "none"
) -> str:
    """RegistrationResponseJSON. `attestation`: what the page wants to see of the key's."""
    asked = PublicKeyCredentialCreationOptions.from_dict({**json.loads(options), "attestation": attestation})
    return json.dumps(dict(_client(device, origin, pin).make_credential(asked)))


def get(device: CtapDevice, options: str, origin: str, *, pin: str | None = None) -> str:
    """AuthenticationResponseJSON."""
    asked = PublicKeyCredentialRequestOptions.from_dict(json.loads(options))
    return json.dumps(dict(_client(device, origin, pin).get_assertion(asked).get_response(0)))


def _client(device: CtapDevice, origin: str, pin: str | None) -> Fido2Client:
    return Fido2Client(device, DefaultClientDataCollector(origin), user_interaction=Person(pin))
