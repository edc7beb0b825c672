"""TLS in the gateway file: what listeners, areas and origins say about it, and the certificates that they name.

Owns how certificates, keys and authorities are read and what is asked of them. Invariants: a file is read once, when
the gateway file is; what it held then is used until the next reload. A key's text stands in no message.
"""

from __future__ import annotations

import datetime
import ipaddress
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec

from scrubber.config.network import HOST, parse_host, port_number
from scrubber.config.walk import Derived, Doc, OneOrMore, Prepared, Reads, Report, measured
from scrubber.errors import ValueRefused
from scrubber.units import NS_PER_S, format_duration, parse_duration_ns

if TYPE_CHECKING:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes

    from scrubber.config.gateway import Area

CHAINS_MAX = 4  # ext/tls_context.pxd; tests/unit/test_gateway_schema.py compares
PEM_BYTES_MAX = 1024 * 1024  # ext/policy.pyx
EXPIRY_WARNING = datetime.timedelta(days=14)
SYSTEM_AUTHORITIES = (  # Debian and Ubuntu; Fedora; Alpine
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/cert.pem",
)
PEM_EXPECTED = "a file in PEM"
KEY_TYPES = ("RSA (2048 bits or more)", "ECDSA (P-256, P-384)", "Ed25519")
_PEM = re.compile(rb"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", re.DOTALL)


def _parse_redirect(value: Any) -> str:
    """HOST:PORT; without a host the one that was asked for, without a port 443. Empty: no redirect."""
    if isinstance(value, bool):
        return ":443" if value else ""
    host, colon, port = (
        value.rpartition(":") if isinstance(value, str) and not value.endswith("]") else (value, "", "443")
    )
    if not colon:
        host, port = value, "443"
    try:
        if not isinstance(host, str) or not port_number(port):
            raise ValueRefused("no port", expected=REDIRECT_EXPECTED)
        host = parse_host(host) if host else ""
    except ValueRefused as e:
        raise ValueRefused(f"{value!r} is nowhere to send to", expected=REDIRECT_EXPECTED, hint=e.hint) from None
    if host.startswith("*"):
        raise ValueRefused(f"{value!r} is many hosts", expected=REDIRECT_EXPECTED)
    return f"{host}:{int(port)}"


REDIRECT_EXPECTED = 'true, ":8443", "www.example.org" or "www.example.org:8443"'
REDIRECT = Reads(_parse_redirect, "", '`true`, `":PORT"`, `"HOST"` or `"HOST:PORT"`', lambda text: f'"{text}"')


class Certificate(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A certificate and its key. Derived: what the files held, and what of it is asked again and again."""

    chain: Annotated[
        str, Doc("The certificate, then those above it, in PEM; relative to the gateway file.", '"tls/example.pem"')
    ]
    key: Annotated[
        str,
        Doc("Its private key in PEM, without a passphrase; whoever runs the supervisor reads it.", '"tls/example.key"'),
    ]
    ocsp: Annotated[
        str,
        Doc(
            "An OCSP response in DER that is stapled, as `openssl ocsp -respout` writes it.",
            '"tls/example.ocsp"',
            default="none",
        ),
    ] = ""
    chain_pem: Annotated[bytes, Derived()] = b""
    key_pem: Annotated[bytes, Derived()] = b""
    staple: Annotated[bytes, Derived()] = b""
    expires: Annotated[datetime.datetime | None, Derived()] = None
    names: Annotated[tuple[str, ...], Derived()] = ()


def _table(value: Any) -> Any:
    return {"on": value} if isinstance(value, bool) else value


LISTENER_TLS = Prepared(_table, 'true, false or a table, as { min_version = "1.3" }')
ORIGIN_TLS = Prepared(_table, 'true, false or a table, as { name = "app.internal", authorities = "ca.pem" }')


class ListenerTls(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """TLS at a listener; which certificate is shown, areas say."""

    on: Annotated[bool, Doc("Whether it is spoken; `tls = true` is short for a table with nothing else.")] = True
    min_version: Annotated[Literal["1.2", "1.3"], Doc("The oldest version that is spoken.", '"1.3"')] = "1.2"
    unknown_names: Annotated[
        Literal["default", "refuse"],
        Doc(
            "Clients that name a host that no area has, or none at all: shown the default area's certificate, or "
            "refused (alert `unrecognized_name`)."
        ),
    ] = "default"
    handshake_timeout_ns: Annotated[
        int,
        measured(parse_duration_ns, format_duration, parse_duration_ns("100ms"), parse_duration_ns("5m")),
        Doc("From the connection to the end of its handshake."),
    ] = msgspec.field(default=10 * NS_PER_S, name="handshake_timeout")


class AreaTls(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An area's certificates, and what it wants of its clients. Derived: `authorities_pem`."""

    certificates: Annotated[
        tuple[Certificate, ...],
        OneOrMore(),
        Doc(
            "One, or one of each kind (RSA, ECDSA): the client gets what it can use. They answer for the area's hosts.",
            '{ chain = "tls/example.pem", key = "tls/example.key" }',
        ),
    ]
    redirect: Annotated[
        str,
        REDIRECT,
        Doc(
            "Send requests in clear text to https (308), to the same path: `true`, on the host that was asked for; "
            '`":8443"`, there at another port; or a host, with a port or without.',
            '"www.example.org"',
            default="none",
        ),
    ] = ""
    client_certificate: Annotated[
        Literal["off", "asked", "required"],
        Doc(
            "Ask clients for a certificate. `asked`: one that does not verify ends the handshake, none does not. Its "
            'subject may be the account (`account = "certificate"`).'
        ),
    ] = "off"
    authorities: Annotated[
        str, Doc("Who may vouch for clients: certificates in PEM.", '"tls/clients-ca.pem"', default="none")
    ] = ""
    authorities_pem: Annotated[bytes, Derived()] = b""


class OriginTls(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """TLS towards an origin. Derived: `authorities_pem`."""

    on: Annotated[bool, Doc("Whether it is spoken; `tls = true` is short for a table with nothing else.")] = True
    name: Annotated[
        str,
        HOST,
        Doc(
            "Whom its certificate has to name, and what is asked for by SNI.",
            '"app.internal"',
            default="its `host`, else the name or address that it is reached by",
        ),
    ] = ""
    verify: Annotated[
        bool, Doc("`false`: believe whoever answers. Only where nobody else can (a socket of this machine).")
    ] = True
    authorities: Annotated[
        str, Doc("Who may vouch for it: certificates in PEM.", '"tls/ca.pem"', default="the system's")
    ] = ""
    certificate: Annotated[
        Certificate | None,
        Doc("A certificate of ours that it may ask for.", '{ chain = "tls/gateway.pem", key = "tls/gateway.key" }'),
    ] = None
    authorities_pem: Annotated[bytes, Derived()] = b""


# ── reading ──


class TlsReader:
    """Reads what one gateway file names, each file once; a problem at the key that named it."""

    def __init__(self, home: Path, report: Report) -> None:
        self.home, self.report = home, report
        self.read: dict[str, bytes | None] = {}

    def area(self, tls: AreaTls | None, path: str) -> AreaTls | None:
        """With the contents of its files."""
        if tls is None:
            return None
        if len(tls.certificates) > CHAINS_MAX:
            self.report.error(f"{path}.certificates", f"{len(tls.certificates)} certificates", f"at most {CHAINS_MAX}")
        single = len(tls.certificates) == 1
        certificates = tuple(
            self.certificate(each, f"{path}.certificates" if single else f"{path}.certificates[{i}]")
            for i, each in enumerate(tls.certificates)
        )
        pem = self._authorities(tls.authorities, f"{path}.authorities") if tls.authorities else b""
        asks = tls.client_certificate != "off"
        if asks and not tls.authorities and not self.report.spoiled(f"{path}.authorities"):
            self.report.error(f"{path}.authorities", "nobody may vouch for clients", "a file of certificates in PEM")
        if tls.authorities and not asks and not self.report.spoiled(f"{path}.client_certificate"):
            hint = 'client_certificate = "asked" or "required"'
            self.report.warning(f"{path}.authorities", "no client is asked for a certificate", "", hint)
        return msgspec.structs.replace(tls, certificates=certificates, authorities_pem=pem)

    def origin(self, tls: OriginTls | None, path: str) -> OriginTls | None:
        """With the contents of its files."""
        if tls is None or not tls.on:
            return None
        pem = b""
        if tls.authorities:
            pem = self._authorities(tls.authorities, f"{path}.authorities")
        elif tls.verify:
            pem = self._system_authorities(path)
        certificate = self.certificate(tls.certificate, f"{path}.certificate") if tls.certificate else None
        return msgspec.structs.replace(tls, authorities_pem=pem, certificate=certificate)

    def certificate(self, found: Certificate, path: str) -> Certificate:
        """With the contents of its files, looked at."""
        if self.report.spoiled(path):
            return found
        chain = self._file(found.chain, f"{path}.chain", PEM_EXPECTED)
        key = self._file(found.key, f"{path}.key", PEM_EXPECTED)
        staple = self._file(found.ocsp, f"{path}.ocsp", "an OCSP response in DER") if found.ocsp else b""
        if chain is None or key is None or staple is None:
            return found
        try:
            import cryptography.x509.ocsp  # noqa: PLC0415, F401 - of a reload, by another user than root
        except (ImportError, OSError) as e:
            hint = "scrubber upgrade takes it up: the process that reloads may not read what this program is made of"
            self.report.error(path, f"certificates cannot be looked at: {e}", "a package that can be read", hint)
            return found
        leaf = _leaf(chain, path, found.chain, self.report)
        if leaf is None or not _check_key(leaf, key, path, found.key, self.report):
            return found
        _check_staple(staple, path, found.ocsp, self.report)
        _check_times(leaf, path, found.chain, self.report)
        return msgspec.structs.replace(
            found,
            chain_pem=b"\n".join(_PEM.findall(chain)) + b"\n",
            key_pem=key,
            staple=staple,
            expires=leaf.not_valid_after_utc,
            names=tuple(_names(leaf)),
        )

    def _file(self, name: str, path: str, expected: str) -> bytes | None:
        if name not in self.read:
            self.read[name] = _content(self.home / name, name, path, expected, self.report)
        return self.read[name]

    def _authorities(self, name: str, path: str) -> bytes:
        pem = self._file(name, path, PEM_EXPECTED)
        if pem is None:
            return b""
        found = _PEM.findall(pem)
        if not found:
            self.report.error(path, f"{name} has no certificate in it", PEM_EXPECTED)
        return b"\n".join(found) + b"\n"

    def _system_authorities(self, path: str) -> bytes:
        name = next((each for each in SYSTEM_AUTHORITIES if os.path.isfile(each)), "")
        if not name:
            hint = "install the package ca-certificates, or name a file"
            self.report.error(f"{path}.authorities", "this machine has no list of authorities", PEM_EXPECTED, hint)
            return b""
        return self._authorities(name, f"{path}.authorities")


def _content(file: Path, name: str, path: str, expected: str, report: Report) -> bytes | None:
    try:
        with file.open("rb") as opened:
            content = opened.read(PEM_BYTES_MAX + 1)
    except (OSError, ValueError) as e:
        why = e.strerror if isinstance(e, OSError) and e.strerror else str(e)
        hint = "the supervisor's user has to be able to read it" if isinstance(e, PermissionError) else ""
        report.error(path, f"{name} cannot be read: {why}", expected, hint or f"looked for in {file.parent}")
        return None
    if len(content) > PEM_BYTES_MAX:
        report.error(path, f"{name} is larger than {PEM_BYTES_MAX} bytes", expected)
        return None
    return content


# ── looking at what was read (cryptography: it takes its time to import) ──


def _leaf(chain: bytes, path: str, name: str, report: Report) -> x509.Certificate | None:
    from cryptography import x509  # noqa: PLC0415

    found = _PEM.findall(chain)
    if not found:
        hint = "the certificate stands first, then those above it; the key is a file of its own"
        report.error(f"{path}.chain", f"{name} has no certificate in it", PEM_EXPECTED, hint)
        return None
    try:
        leaf, *_ = [x509.load_pem_x509_certificate(each) for each in found]  # those above it have to be sound, too
    except ValueError as e:
        report.error(f"{path}.chain", f"{name} has a certificate that cannot be read: {e}", PEM_EXPECTED)
        return None
    return leaf


def _check_key(leaf: x509.Certificate, key: bytes, path: str, name: str, report: Report) -> bool:
    from cryptography.exceptions import UnsupportedAlgorithm  # noqa: PLC0415
    from cryptography.hazmat.primitives.serialization import load_pem_private_key  # noqa: PLC0415

    here = f"{path}.key"
    try:
        secret = load_pem_private_key(key, password=None)
    except TypeError:
        hint = "openssl pkey -in KEY -out KEY-without"
        report.error(here, f"{name} has a passphrase, and nobody is there to type it", "a key without one", hint)
        return False
    except (ValueError, UnsupportedAlgorithm):
        report.error(here, f"{name} has no private key that can be read", "a private key in PEM")
        return False
    public = secret.public_key()
    if not _sound_key(public):
        report.error(here, f"{name} is of a kind that clients do not take", "one of: " + ", ".join(KEY_TYPES))
        return False
    if public != leaf.public_key():
        hint = "compare: openssl pkey -in KEY -pubout; openssl x509 -in CHAIN -pubkey -noout"
        report.error(here, f"{name} is not the key of {path}.chain's first certificate", "its key", hint)
        return False
    return True


def _sound_key(public: CertificatePublicKeyTypes | object) -> bool:
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa  # noqa: PLC0415

    if isinstance(public, rsa.RSAPublicKey):
        return public.key_size >= 2048
    if isinstance(public, ec.EllipticCurvePublicKey):
        return isinstance(public.curve, (ec.SECP256R1, ec.SECP384R1))
    return isinstance(public, ed25519.Ed25519PublicKey)


def _check_staple(staple: bytes, path: str, name: str, report: Report) -> None:
    from cryptography.x509 import ocsp  # noqa: PLC0415

    if not staple:
        return
    try:
        found = ocsp.load_der_ocsp_response(staple)
        good = found.response_status is ocsp.OCSPResponseStatus.SUCCESSFUL
        until = found.next_update_utc if good else None
    except ValueError as e:
        report.error(f"{path}.ocsp", f"{name} is no OCSP response: {e}", "an OCSP response in DER")
        return
    if not good:
        report.error(f"{path}.ocsp", f"{name} says no more than {found.response_status.name}", "a successful response")
    elif until is not None and until <= datetime.datetime.now(datetime.UTC):
        message = f"{name} is out of date since {until.isoformat()}"
        report.warning(f"{path}.ocsp", message, "a fresh one", "fetch it by a timer, then reload")


def _check_times(leaf: x509.Certificate, path: str, name: str, report: Report) -> None:
    now = datetime.datetime.now(datetime.UTC)
    if now < leaf.not_valid_before_utc:
        message = f"{name} is not valid before {leaf.not_valid_before_utc.isoformat()}"
        report.warning(f"{path}.chain", message, "a certificate that is valid")
    elif said := expiry_said(leaf.not_valid_after_utc, now):
        report.warning(f"{path}.chain", f"{name} {said}", "a certificate that is valid", "renew it, then reload")


def expiry_said(expires: datetime.datetime, now: datetime.datetime) -> str:
    """What is to be said of a certificate that has expired, or is about to; empty: nothing."""
    if expires <= now:
        return f"expired on {expires:%Y-%m-%d}: clients refuse it"
    left = expires - now
    return f"expires in {left.days} days, on {expires:%Y-%m-%d}" if left <= EXPIRY_WARNING else ""


def _names(leaf: x509.Certificate) -> Iterable[str]:
    """DNS names and addresses that it answers for, as hosts have them."""
    from cryptography import x509  # noqa: PLC0415

    try:
        found = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, ValueError):
        return
    for name in found.get_values_for_type(x509.DNSName):
        yield name.lower()
    for address in found.get_values_for_type(x509.IPAddress):
        yield f"[{address}]" if isinstance(address, ipaddress.IPv6Address) else str(address)


def covers(names: Iterable[str], host: str) -> bool:
    """Whether one of a certificate's names answers for a host, or for all hosts of a wildcard (RFC 6125 6.4)."""
    wanted = {host, "*." + host.partition(".")[2]} if not host.startswith("*.") else {host}
    return bool(wanted & set(names))


def check_tls(areas: tuple[Area, ...], listeners_tls: bool, report: Report) -> None:
    """What areas and listeners say together."""
    for i, area in enumerate(areas):
        here = f"area[{i}].tls"
        if area.tls is None or report.spoiled(here):
            continue
        names = [name for each in area.tls.certificates for name in each.names]
        for host in area.hosts:
            if names and not covers(names, host):
                hint = "clients that look at the name refuse it"
                report.warning(here, f"no certificate answers for {host}", "a certificate with that name", hint)
        if not listeners_tls:
            report.warning(here, "no listener speaks TLS", "tls = true at a [[listener]]", "it is of no use")
    if listeners_tls and not any(area.tls for area in areas) and not report.spoiled("area"):
        hint = "[area.tls] certificates = { chain = …, key = … }; scrubber dev-cert makes one to try with"
        report.error("area", "a listener speaks TLS, and no area has a certificate", "an [area.tls]", hint)
