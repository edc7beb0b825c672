"""`scrubber dev-cert`: a self-signed certificate to try TLS with."""

from __future__ import annotations

import datetime
import ipaddress
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING

import click

from scrubber.cli import output
from scrubber.errors import OperatorError

if TYPE_CHECKING:
    from cryptography import x509

DAYS = 365
NAMES = ("localhost", "127.0.0.1", "::1")


@click.command("dev-cert")
@click.argument("directory", type=click.Path(path_type=Path, file_okay=False), default=Path("configs"))
@click.option("--name", "names", multiple=True, help="A host or an address that it answers for; again for more.")
@click.option("--rsa", is_flag=True, help="RSA with 2048 bits instead of ECDSA with P-256.")
@click.option("--force", is_flag=True, help="Replace what lies there.")
def dev_cert(directory: Path, names: tuple[str, ...], rsa: bool, force: bool) -> None:
    """Write a self-signed certificate, DIRECTORY/dev.pem, and its key, DIRECTORY/dev.key.

    To try things with: nobody has a reason to believe it. configs/tls.toml uses it.
    """
    chain, key = directory / "dev.pem", directory / "dev.key"
    for file in (chain, key):
        if file.exists() and not force:
            raise OperatorError(f"{file} is there already", hint="--force replaces both")
    names = names or NAMES
    chain_pem, key_pem = self_signed(names, rsa=rsa)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        _write(key, key_pem, stat.S_IRUSR | stat.S_IWUSR)
        _write(chain, chain_pem, 0o644)
    except OSError as e:
        raise OperatorError(f"cannot write to {directory}: {e.strerror}", hint="name a directory of your own") from None
    output.stdout().print(f"{chain}, {key}: for {', '.join(names)}, {DAYS} days", markup=False)


def self_signed(names: tuple[str, ...], *, rsa: bool = False) -> tuple[bytes, bytes]:
    """Certificate and key in PEM, for hosts and addresses."""
    from cryptography import x509  # noqa: PLC0415 - it takes its time to import
    from cryptography.hazmat.primitives import hashes, serialization  # noqa: PLC0415
    from cryptography.hazmat.primitives.asymmetric import ec  # noqa: PLC0415
    from cryptography.hazmat.primitives.asymmetric import rsa as rsa_keys  # noqa: PLC0415
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID  # noqa: PLC0415

    key = rsa_keys.generate_private_key(65537, 2048) if rsa else ec.generate_private_key(ec.SECP256R1())
    now = datetime.datetime.now(datetime.UTC)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0][:64])])
    built = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(minutes=5))
        .not_valid_after(now + datetime.timedelta(days=DAYS))
        .add_extension(x509.SubjectAlternativeName([_general_name(name) for name in names]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .sign(key, hashes.SHA256())
    )
    return built.public_bytes(serialization.Encoding.PEM), key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _general_name(name: str) -> x509.GeneralName:
    from cryptography import x509  # noqa: PLC0415

    try:
        return x509.IPAddress(ipaddress.ip_address(name.strip("[]")))
    except ValueError:
        return x509.DNSName(name)


def _write(file: Path, content: bytes, mode: int) -> None:
    """Never readable by others before it has its mode."""
    file.unlink(missing_ok=True)
    with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode), "wb") as opened:
        opened.write(content)
