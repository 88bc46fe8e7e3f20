"""A small certificate authority for relays (X.509, RFC 5280), and what a certificate says of its host.

Certificates of hosts are for clients alone, that of a centre for servers alone (extended key usage), so who steals
the one of a host cannot play the centre with it.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from otpbridge.config import host_name
from otpbridge.errors import ConfigError, EnrolError
from otpbridge.model import Secret
from otpbridge.store.relays import SealedAuthority
from otpbridge.wire.calls import Host

_YEARS = 30
_SERVER_DAYS = 90
_BACK = timedelta(minutes=5)
"""For clocks that are slow."""
_SMALLEST_RSA = 2048

UNREADABLE = (ValueError, x509.DuplicateExtension, x509.InvalidVersion, x509.UnsupportedGeneralNameType)
"""What reading a certificate may raise."""

PublicKey = ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey | rsa.RSAPublicKey


def make(now: float, name: str) -> SealedAuthority:
    """A new authority. `now` in Unix seconds; `name` is that of this machine, for people."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"otpbridge relays of {name}"[:64])])
    begin = _moment(now) - _BACK
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after(begin + timedelta(days=365 * _YEARS))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    sealed = key.private_bytes(
        serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return SealedAuthority(certificate.public_bytes(serialization.Encoding.DER), Secret(sealed))


class Authority:
    """Issues certificates."""

    def __init__(self, opened: SealedAuthority) -> None:
        self._certificate = x509.load_der_x509_certificate(opened.certificate)
        key = serialization.load_der_private_key(opened.key.reveal(), None)
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        self._key = key
        self.pem = _pem(self._certificate)

    def for_host(self, request: str, host: str, now: float, days: int) -> x509.Certificate:
        """A certificate for a host, with the public key of a request (PEM). Raises EnrolError."""
        names = [x509.DNSName(host)]
        usage = ExtendedKeyUsageOID.CLIENT_AUTH
        return self._issue(_requested(request), host, names, usage=usage, now=now, days=days)

    def for_centre(self, names: Sequence[str], now: float) -> tuple[x509.Certificate, bytes]:
        """A certificate for this machine under some names, and its private key, both also as PEM."""
        key = ec.generate_private_key(ec.SECP256R1())
        said = [_general_name(name) for name in names]
        usage = ExtendedKeyUsageOID.SERVER_AUTH
        certificate = self._issue(key.public_key(), names[0], said, usage=usage, now=now, days=_SERVER_DAYS)
        pem = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        return certificate, pem + certificate.public_bytes(serialization.Encoding.PEM)

    def _issue(
        self,
        key: PublicKey,
        name: str,
        names: Sequence[x509.GeneralName],
        *,
        usage: x509.ObjectIdentifier,
        now: float,
        days: int,
    ) -> x509.Certificate:
        end = min(_moment(now) + timedelta(days=days), self._certificate.not_valid_after_utc)
        issuer = self._certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
        return (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name[:64])]))
            .issuer_name(self._certificate.subject)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(_moment(now) - _BACK)
            .not_valid_after(end)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(signs_certificates=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(issuer), critical=False)
            .sign(self._key, hashes.SHA256())
        )


def identify(der: bytes) -> Host:
    """The host that a certificate names. Raises ConfigError where it names none, or more than one.

    The only dNSName, or where there is none the only common name (RFC 6125 §6.4.4).
    """
    try:
        certificate = x509.load_der_x509_certificate(der)
        names = _names(certificate)
    except UNREADABLE:
        raise ConfigError("its certificate cannot be read") from None
    if len(names) != 1 or not host_name(names[0].lower()):
        raise ConfigError(f"its certificate has {len(names)} names; it must have one, the name of the host")
    return Host(names[0].lower(), serial_of(certificate), end_of(certificate))


def _names(certificate: x509.Certificate) -> list[str]:
    try:
        others = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        names = others.get_values_for_type(x509.DNSName)
    except x509.ExtensionNotFound:
        names = []
    return names or [str(found.value) for found in certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]


def serial_of(certificate: x509.Certificate) -> str:
    """The serial number in hex."""
    return f"{certificate.serial_number:x}"


def end_of(certificate: x509.Certificate) -> int:
    """When a certificate ends, in Unix seconds."""
    return int(certificate.not_valid_after_utc.timestamp())


def pem_of(certificate: x509.Certificate) -> str:
    """A certificate as text."""
    return _pem(certificate)


def _requested(pem: str) -> PublicKey:
    """The public key that a request is for; the request shows that who made it has the private one."""
    try:
        request = x509.load_pem_x509_csr(pem.encode())
        sound = request.is_signature_valid
        key = request.public_key()
    except (ValueError, InvalidSignature):
        raise EnrolError("this is not a certificate request (PKCS #10 in PEM, as `openssl req` makes)") from None
    if not sound:
        raise EnrolError("the certificate request is not signed by its own key")
    if isinstance(key, rsa.RSAPublicKey) and key.key_size < _SMALLEST_RSA:
        raise EnrolError(f"an RSA key of {key.key_size} bits is too short; use P-256, or RSA with 3072 bits")
    if not isinstance(key, PublicKey):
        raise EnrolError("keys of this kind are not known; use P-256, Ed25519 or RSA")
    return key


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(int(seconds), UTC)


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode()
