"""Certificates for tests: an authority, and what it signs. Made once a session each: keys take their time."""

from __future__ import annotations

import datetime
import functools
import ipaddress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509 import ocsp
from cryptography.x509.oid import NameOID

Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


@dataclass(frozen=True)
class Signed:
    """A certificate with its key."""

    certificate: x509.Certificate
    key: Key

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    @property
    def key_pem(self) -> bytes:
        plain = serialization.NoEncryption()
        return self.key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)

    def write(self, directory: Path, name: str) -> str:
        """NAME.pem and NAME.key there; what a gateway file says of them."""
        (directory / f"{name}.pem").write_bytes(self.pem)
        (directory / f"{name}.key").write_bytes(self.key_pem)
        return f'{{ chain = "{name}.pem", key = "{name}.key" }}'


def new_key(kind: str) -> Key:
    return rsa.generate_private_key(65537, 2048) if kind == "rsa" else ec.generate_private_key(ec.SECP256R1())


def name_of(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


@functools.cache
def authority(name: str = "the tests' authority") -> Signed:
    """Signs itself."""
    key = new_key("ecdsa")
    now = datetime.datetime.now(datetime.UTC)
    built = (
        x509.CertificateBuilder()
        .subject_name(name_of(name))
        .issuer_name(name_of(name))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=3650))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    return Signed(built, key)


@functools.cache
def signed(*names: str, kind: str = "ecdsa", by: Signed | None = None, days: float = 365) -> Signed:
    """For hosts and addresses; the first name is the subject's."""
    issuer = by or authority()
    key = new_key(kind)
    now = datetime.datetime.now(datetime.UTC)
    built = (
        x509.CertificateBuilder()
        .subject_name(name_of(names[0]))
        .issuer_name(issuer.certificate.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=30))
        .not_valid_after(now + datetime.timedelta(days=days))
        .add_extension(x509.SubjectAlternativeName([general_name(name) for name in names]), critical=False)
        .sign(issuer.key, hashes.SHA256())
    )
    return Signed(built, key)


def general_name(name: str) -> Any:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def staple(of: Signed) -> bytes:
    """An OCSP response that says: good."""
    issuer = authority()
    now = datetime.datetime.now(datetime.UTC)
    built = (
        ocsp.OCSPResponseBuilder()
        .add_response(
            of.certificate,
            issuer.certificate,
            hashes.SHA1(),  # noqa: S303 - what the format names certificates by
            ocsp.OCSPCertStatus.GOOD,
            now,
            now + datetime.timedelta(days=1),
            None,
            None,
        )
        .responder_id(ocsp.OCSPResponderEncoding.HASH, issuer.certificate)
        .sign(issuer.key, hashes.SHA256())
    )
    return built.public_bytes(serialization.Encoding.DER)
