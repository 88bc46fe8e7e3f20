"""A FIDO2 security key in software (CTAP 2.1, and U2F), for tests without hardware.

    key = SoftKey(pin="1234")
    device = key.plug()              # a CtapDevice of the library fido2: what CtapHidDevice is to a real key

    key.touch = "late"               # "given" (the default), "late": waits for press(), "never": gives up at once
    key.blinks()                     # returns when it waits for a touch
    key.press()                      # touches it, once
    key.pull()                       # out, now: all calls fail

It is written from the CTAP 2.1 text over `cryptography`; of the library it uses the CBOR codec and the numbers.
What can be wrong with a key is set on it: `counter` (put back: a cloned key), `counts = False` (always 0),
`user_handle` (told with each assertion), `attestation` ("self", "basic"), `tampered` (the attestation does not hold).
"""

from __future__ import annotations

import hashlib
import hmac
import os
import struct
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.x509.oid import NameOID
from fido2 import cbor
from fido2.ctap import STATUS, CtapDevice, CtapError
from fido2.hid import CAPABILITY, CTAPHID

SECONDS = 20.0
"""How long a key, or a test, waits for what must come."""

ERR = CtapError.ERR
AAGUID = bytes.fromhex("5f7b0c3d9a1e4c52b8d60f4e2a917c33")
ES256 = -7
_UP, _UV, _AT = 0x01, 0x04, 0x40
_MC, _GA = 0x01, 0x02
_MOST_PIN_TRIES = 8
_TRIES_PER_PLUG = 3

Keepalive = Callable[[STATUS], None] | None


class RefusalError(Exception):
    """What a command answers with instead of success."""

    def __init__(self, status: int) -> None:
        self.status = status
        super().__init__(hex(status))


@dataclass(slots=True)
class Credential:
    """A key pair for one user of one relying party."""

    id: bytes
    rp_id: str
    private: ec.EllipticCurvePrivateKey
    user: Mapping[str, Any]
    resident: bool


@dataclass(slots=True)
class Token:
    """A PIN/UV authentication token (CTAP 2.1 §6.5.2.1)."""

    value: bytes
    permissions: int
    rp_id: str | None


@dataclass(eq=False, slots=True)
class SoftKey:
    """A key, plugged in or not."""

    pin: str | None = None
    touch: str = "given"
    u2f_only: bool = False
    name: str = "Soft Key"
    always_uv: bool = False
    pinless_registration: bool = True
    """Whether it makes credentials without its PIN where none is asked for (makeCredUvNotRqd)."""
    has_pin: bool = True
    """Whether it can have a PIN at all."""
    full: bool = False
    counter: int = 0
    counts: bool = True
    user_handle: bytes | None = None
    attestation: str = "self"
    tampered: bool = False
    pin_tries: int = _MOST_PIN_TRIES
    must_change_pin: bool = False
    credentials: list[Credential] = field(default_factory=list)
    log: list[str] = field(default_factory=list)
    """The commands it got, oldest first."""
    cancelled: int = 0
    """How often it was told to stop waiting."""
    _news: threading.Condition = field(default_factory=threading.Condition)
    _waiting: int = 0
    _pressed: bool = False
    _plugged: bool = True
    _wrong_since_plug: int = 0
    _agreement: ec.EllipticCurvePrivateKey = field(default_factory=lambda: ec.generate_private_key(ec.SECP256R1()))
    _token: Token | None = None

    # --- for tests ---

    def plug(self) -> SoftDevice:
        """A connection to it, plugged in anew."""
        with self._news:
            self._plugged, self._wrong_since_plug, self._token = True, 0, None
        return self.connect()

    def connect(self) -> SoftDevice:
        """A connection to it as it is."""
        return SoftDevice(self)

    def pull(self) -> None:
        """Out, now."""
        with self._news:
            self._plugged = False
            self._news.notify_all()

    def press(self) -> None:
        """Touch it: now if it waits, else as soon as it does."""
        with self._news:
            self._pressed = True
            self._news.notify_all()

    def blinks(self) -> None:
        """Return when it waits for a touch. Raises TimeoutError."""
        with self._news:
            if not self._news.wait_for(lambda: self._waiting > 0, SECONDS):
                raise TimeoutError("the key does not wait for a touch")

    def rests(self) -> None:
        """Return when it waits for no touch. Raises TimeoutError."""
        with self._news:
            if not self._news.wait_for(lambda: self._waiting == 0, SECONDS):
                raise TimeoutError("the key still waits for a touch")

    # --- the transport ---

    @property
    def plugged(self) -> bool:
        """Whether it can be talked to."""
        return self._plugged

    def call(self, cmd: int, data: bytes, event: threading.Event | None, on_keepalive: Keepalive) -> bytes:
        """One CTAPHID command (CTAP 2.1 §11.2.9)."""
        if not self._plugged:
            raise OSError("the key is not plugged in")
        if cmd == CTAPHID.PING:
            return data
        if cmd == CTAPHID.MSG:
            return self._u2f(data)
        if cmd != CTAPHID.CBOR or self.u2f_only:
            raise CtapError(ERR.INVALID_COMMAND)
        person = _Person(self, event or threading.Event(), on_keepalive)
        try:
            return b"\0" + self._command(data[0], cbor.decode(data[1:]) if data[1:] else {}, person)
        except RefusalError as refusal:
            return bytes([refusal.status])

    def wait_for_touch(self, stop: threading.Event, on_keepalive: Keepalive) -> None:
        """Blink until it is touched. Raises RefusalError."""
        if on_keepalive is not None:
            on_keepalive(STATUS.UPNEEDED)
        if stop.is_set():
            self._stopped()
        if self.touch == "never":
            raise RefusalError(ERR.USER_ACTION_TIMEOUT)
        with self._news:
            self._waiting += 1
            self._news.notify_all()
            try:
                self._wait(stop)
            finally:
                self._waiting -= 1
                self._news.notify_all()

    def _wait(self, stop: threading.Event) -> None:
        for _ in range(int(SECONDS * 100)):
            if not self._plugged:
                raise OSError("the key was pulled")
            if stop.is_set():
                self._stopped()
            if self._pressed or self.touch == "given":
                self._pressed = False
                return
            self._news.wait(0.01)
        raise RefusalError(ERR.USER_ACTION_TIMEOUT)

    def _stopped(self) -> None:
        self.cancelled += 1
        raise RefusalError(ERR.KEEPALIVE_CANCEL)

    # --- CTAP2 ---

    def _command(self, command: int, asked: Mapping[int, Any], person: _Person) -> bytes:
        known: dict[int, tuple[str, Callable[..., Mapping[int, Any] | None]]] = {
            0x01: ("MAKE CREDENTIAL", self._make),
            0x02: ("GET ASSERTION", self._assert),
            0x04: ("GET INFO", self._info),
            0x06: ("CLIENT PIN", self._client_pin),
            0x0B: ("SELECTION", self._selection),
        }
        if command not in known:
            raise RefusalError(ERR.INVALID_COMMAND)
        name, handler = known[command]
        self.log.append(name)
        answer = handler(asked, person)
        return b"" if answer is None else cbor.encode(answer)

    def _info(self, _asked: Mapping[int, Any], _person: _Person) -> Mapping[int, Any]:
        options = {"rk": True, "up": True, "plat": False}
        if self.has_pin:
            options |= {
                "clientPin": self.pin is not None,
                "pinUvAuthToken": True,
                "makeCredUvNotRqd": self.pinless_registration,
                "alwaysUv": self.always_uv,
            }
        return {
            1: ["U2F_V2", "FIDO_2_0", "FIDO_2_1"],
            3: AAGUID,
            4: options,
            5: 1200,
            6: [2],
            7: 8,
            8: 128,
            9: ["usb"],
            10: [{"alg": ES256, "type": "public-key"}],
            12: self.must_change_pin,
        }

    def _selection(self, _asked: Mapping[int, Any], person: _Person) -> None:
        person.touches()

    def _make(self, asked: Mapping[int, Any], person: _Person) -> Mapping[int, Any]:
        """authenticatorMakeCredential (CTAP 2.1 §6.1.2)."""
        digest, rp_id, options = asked[1], asked[2]["id"], asked.get(7, {})
        if not any(each["alg"] == ES256 for each in asked[4]):
            raise RefusalError(ERR.UNSUPPORTED_ALGORITHM)
        verified = self._verified((asked.get(8), asked.get(9)), digest, _MC, rp_id, person)
        if not verified and self.pin is not None and (self.always_uv or not self.pinless_registration):
            raise RefusalError(ERR.PUAT_REQUIRED)
        if self._known(rp_id, asked.get(5)):
            person.touches()
            raise RefusalError(ERR.CREDENTIAL_EXCLUDED)
        person.touches()
        if self.full:
            raise RefusalError(ERR.KEY_STORE_FULL)
        made = Credential(
            os.urandom(48),
            rp_id,
            ec.generate_private_key(ec.SECP256R1()),
            asked[3],
            resident=options.get("rk", False),
        )
        self.credentials.append(made)
        flags = _UP | _AT | (_UV if verified else 0)
        attested = AAGUID + struct.pack(">H", len(made.id)) + made.id + cbor.encode(_cose(made.private))
        data = self._auth_data(rp_id, flags) + attested
        return {1: "packed", 2: data, 3: self._attest(made, data + digest)}

    def _attest(self, made: Credential, signed: bytes) -> Mapping[str, Any]:
        """A packed attestation statement (WebAuthn §8.2)."""
        if self.attestation == "self":
            return {"alg": ES256, "sig": self._tamper(_sign(made.private, signed))}
        maker = ec.generate_private_key(ec.SECP256R1())
        certificate = _certificate(maker).public_bytes(serialization.Encoding.DER)
        return {"alg": ES256, "sig": self._tamper(_sign(maker, signed)), "x5c": [certificate]}

    def _tamper(self, signature: bytes) -> bytes:
        return signature[:-1] + bytes([signature[-1] ^ 1]) if self.tampered else signature

    def _assert(self, asked: Mapping[int, Any], person: _Person) -> Mapping[int, Any]:
        """authenticatorGetAssertion (CTAP 2.1 §6.2.2)."""
        rp_id, digest = asked[1], asked[2]
        up = asked.get(5, {}).get("up", True)
        verified = self._verified((asked.get(6), asked.get(7)), digest, _GA, rp_id, person)
        if not verified and up and self.always_uv and self.pin is not None:
            raise RefusalError(ERR.PUAT_REQUIRED)
        found = self._known(rp_id, asked.get(3))
        if not found:
            raise RefusalError(ERR.NO_CREDENTIALS)
        if up:
            person.touches()
        used = found[-1]
        data = self._auth_data(rp_id, (_UP if up else 0) | (_UV if verified else 0))
        answer = {1: {"id": used.id, "type": "public-key"}, 2: data, 3: _sign(used.private, data + digest)}
        handle = self.user_handle or (used.user["id"] if used.resident else None)
        return answer if handle is None else {**answer, 4: {"id": handle}}

    def _known(self, rp_id: str, listed: list[Mapping[str, Any]] | None) -> list[Credential]:
        ids = None if listed is None else {each["id"] for each in listed}
        return [
            each
            for each in self.credentials
            if each.rp_id == rp_id and (each.id in ids if ids is not None else each.resident)
        ]

    def _auth_data(self, rp_id: str, flags: int) -> bytes:
        if self.counts and flags & _UP:
            self.counter += 1
        count = self.counter if self.counts else 0
        return hashlib.sha256(rp_id.encode()).digest() + struct.pack(">BI", flags, count)

    # --- PIN (CTAP 2.1 §6.5), PIN/UV auth protocol two ---

    def _verified(
        self, shown: tuple[bytes | None, int | None], digest: bytes, wanted: int, rp_id: str, person: _Person
    ) -> bool:
        """Whether a token was shown that may be used for this."""
        proof, protocol = shown
        if proof is None:
            return False
        if not proof:
            person.touches()
            raise RefusalError(ERR.PIN_NOT_SET if self.pin is None else ERR.PIN_INVALID)
        if protocol != 2 or self._token is None:
            raise RefusalError(ERR.PIN_AUTH_INVALID)
        right = hmac.compare_digest(proof, hmac.digest(self._token.value, digest, "sha256"))
        if not right or not self._token.permissions & wanted or self._token.rp_id not in {None, rp_id}:
            raise RefusalError(ERR.PIN_AUTH_INVALID)
        return True

    def _client_pin(self, asked: Mapping[int, Any], _person: _Person) -> Mapping[int, Any]:
        match asked[2]:
            case 0x01:
                return {3: self.pin_tries, 4: self._wrong_since_plug >= _TRIES_PER_PLUG}
            case 0x02:
                return {1: _cose(self._agreement) | {3: -25}}
            case 0x05 | 0x09:
                return {2: self._give_token(asked)}
            case _:
                raise RefusalError(ERR.INVALID_SUBCOMMAND)

    def _give_token(self, asked: Mapping[int, Any]) -> bytes:
        shared = self._shared(asked[3])
        if self.pin is None:
            raise RefusalError(ERR.PIN_NOT_SET)
        if self.pin_tries == 0:
            raise RefusalError(ERR.PIN_BLOCKED)
        if self._wrong_since_plug >= _TRIES_PER_PLUG:
            raise RefusalError(ERR.PIN_AUTH_BLOCKED)
        given = _decrypt(shared[32:], asked[6])
        if not hmac.compare_digest(given, hashlib.sha256(self.pin.encode()).digest()[:16]):
            self.pin_tries -= 1
            self._wrong_since_plug += 1
            self._agreement = ec.generate_private_key(ec.SECP256R1())
            if self.pin_tries == 0:
                raise RefusalError(ERR.PIN_BLOCKED)
            if self._wrong_since_plug >= _TRIES_PER_PLUG:
                raise RefusalError(ERR.PIN_AUTH_BLOCKED)
            raise RefusalError(ERR.PIN_INVALID)
        self.pin_tries, self._wrong_since_plug = _MOST_PIN_TRIES, 0
        if self.must_change_pin:
            raise RefusalError(ERR.PIN_POLICY_VIOLATION)
        self._token = Token(os.urandom(32), asked.get(9, _MC | _GA), asked.get(10))
        return _encrypt(shared[32:], self._token.value)

    def _shared(self, peer: Mapping[int, Any]) -> bytes:
        """The keys of protocol two: 32 bytes for MACs, 32 for AES."""
        numbers = ec.EllipticCurvePublicNumbers(
            int.from_bytes(peer[-2], "big"), int.from_bytes(peer[-3], "big"), ec.SECP256R1()
        )
        secret = self._agreement.exchange(ec.ECDH(), numbers.public_key())
        return b"".join(
            HKDF(hashes.SHA256(), 32, bytes(32), info).derive(secret)
            for info in (b"CTAP2 HMAC key", b"CTAP2 AES key")
        )

    # --- U2F (FIDO U2F Raw Message Formats 1.2): it answers at once, and is asked again and again ---

    def _u2f(self, apdu: bytes) -> bytes:
        ins, p1 = apdu[1], apdu[2]
        (length,) = struct.unpack(">H", apdu[5:7])
        data = apdu[7 : 7 + length]
        self.log.append({1: "U2F REGISTER", 2: "U2F AUTHENTICATE"}.get(ins, "U2F"))
        match ins:
            case 0x01:
                return self._u2f_register(data[:32], data[32:64])
            case 0x02:
                return self._u2f_authenticate(data[:32], data[32:64], data[65:], check=p1 == 0x07)
            case 0x03:
                return b"U2F_V2\x90\x00"
            case _:
                return b"\x6d\x00"

    def _u2f_touched(self) -> bool:
        with self._news:
            touched = self._pressed or self.touch == "given"
            self._pressed = False
            self._waiting = 0 if touched else 1
            self._news.notify_all()
            return touched

    def _u2f_register(self, challenge: bytes, application: bytes) -> bytes:
        if not self._u2f_touched():
            return b"\x69\x85"
        made = Credential(
            os.urandom(48), application.hex(), ec.generate_private_key(ec.SECP256R1()), {}, resident=False
        )
        self.credentials.append(made)
        maker = ec.generate_private_key(ec.SECP256R1())
        point = made.private.public_key().public_bytes(
            serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint
        )
        signed = b"\0" + application + challenge + made.id + point
        certificate = _certificate(maker).public_bytes(serialization.Encoding.DER)
        handle = bytes([len(made.id)]) + made.id
        return b"\x05" + point + handle + certificate + self._tamper(_sign(maker, signed)) + b"\x90\x00"

    def _u2f_authenticate(self, challenge: bytes, application: bytes, handle: bytes, *, check: bool) -> bytes:
        found = [
            each
            for each in self.credentials
            if each.id == handle
            and application in {bytes.fromhex(each.rp_id) if each.user == {} else _hash(each.rp_id)}
        ]
        if not found:
            return b"\x6a\x80"
        if check or not self._u2f_touched():
            return b"\x69\x85"
        self.counter += self.counts
        count = b"\x01" + struct.pack(">I", self.counter)
        return count + _sign(found[0].private, application + count + challenge) + b"\x90\x00"


@dataclass(frozen=True, slots=True)
class _Person:
    """Who may touch the key while a command waits."""

    key: SoftKey
    stop: threading.Event
    on_keepalive: Keepalive

    def touches(self) -> None:
        """Wait for the touch. Raises RefusalError."""
        self.key.wait_for_touch(self.stop, self.on_keepalive)


class SoftDevice(CtapDevice):
    """A connection to a soft key."""

    def __init__(self, key: SoftKey) -> None:
        self.key = key
        self.closed = False

    @property
    def capabilities(self) -> int:
        """See fido2.ctap."""
        return 0 if self.key.u2f_only else CAPABILITY.CBOR

    def call(
        self,
        cmd: int,
        data: bytes = b"",
        event: threading.Event | None = None,
        on_keepalive: Keepalive = None,
    ) -> bytes:
        """See fido2.ctap."""
        assert not self.closed
        return self.key.call(cmd, data, event, on_keepalive)

    def close(self) -> None:
        """See fido2.ctap."""
        self.closed = True

    @classmethod
    def list_devices(cls) -> Iterator[CtapDevice]:
        """None: a soft key is where a test puts it."""
        return iter(())


def _hash(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


def _cose(private: ec.EllipticCurvePrivateKey) -> dict[int, Any]:
    """A public key as COSE has it (RFC 9053 §7.1)."""
    numbers = private.public_key().public_numbers()
    return {1: 2, 3: ES256, -1: 1, -2: numbers.x.to_bytes(32, "big"), -3: numbers.y.to_bytes(32, "big")}


def _sign(private: ec.EllipticCurvePrivateKey, data: bytes) -> bytes:
    return private.sign(data, ec.ECDSA(hashes.SHA256()))


def _encrypt(key: bytes, text: bytes) -> bytes:
    start = os.urandom(16)
    encryptor = Cipher(algorithms.AES(key), modes.CBC(start)).encryptor()
    return start + encryptor.update(text) + encryptor.finalize()


def _decrypt(key: bytes, sealed: bytes) -> bytes:
    decryptor = Cipher(algorithms.AES(key), modes.CBC(sealed[:16])).decryptor()
    return decryptor.update(sealed[16:]) + decryptor.finalize()


def _certificate(private: ec.EllipticCurvePrivateKey) -> x509.Certificate:
    """A certificate of an attestation key (WebAuthn §8.2.1)."""
    name = x509.Name(
        [
            x509.NameAttribute(NameOID.COUNTRY_NAME, "SE"),
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Soft Keys"),
            x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, "Authenticator Attestation"),
            x509.NameAttribute(NameOID.COMMON_NAME, "Soft Key"),
        ]
    )
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(private.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=365))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .sign(private, hashes.SHA256())
    )
