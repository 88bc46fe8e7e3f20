"""An authority of one's own, as an admin may have: certificates of any name, purpose and time.

ca = Ca()
ca.issue(path, "web1", CLIENT)            # private key, certificate and authority in one file
"""

from __future__ import annotations

import datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

CLIENT = ExtendedKeyUsageOID.CLIENT_AUTH
SERVER = ExtendedKeyUsageOID.SERVER_AUTH
_DAY = datetime.timedelta(days=1)


class Ca:
    """An authority."""

    def __init__(self, name: str = "Example CA") -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        identifier = x509.SubjectKeyIdentifier.from_public_key(self._key.public_key())
        self.certificate = (
            self._builder(self._name, self._key.public_key(), -1, 30)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(identifier, critical=False)
            .sign(self._key, hashes.SHA256())
        )

    @property
    def pem(self) -> str:
        return self.certificate.public_bytes(serialization.Encoding.PEM).decode()

    def issue(
        self, path: Path, name: str, usage: x509.ObjectIdentifier, *, begins: int = -1, ends: int = 30, names: int = 1
    ) -> str:
        """Write a file with key, certificate and authority; its serial number in hex. `begins` and `ends` in days."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        others: list[x509.GeneralName] = [x509.DNSName(name)]
        others += [x509.DNSName(f"{number}.{name}") for number in range(1, names)]
        certificate = (
            self._builder(subject, key.public_key(), begins, ends)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
            .add_extension(x509.SubjectAlternativeName(others), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        private = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        path.touch(mode=0o600)
        path.write_text(private.decode() + certificate.public_bytes(serialization.Encoding.PEM).decode() + self.pem)
        return f"{certificate.serial_number:x}"

    def _builder(
        self, subject: x509.Name, key: ec.EllipticCurvePublicKey, begins: int, ends: int
    ) -> x509.CertificateBuilder:
        now = datetime.datetime.now(datetime.UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now + begins * _DAY)
            .not_valid_after(now + ends * _DAY)
        )
