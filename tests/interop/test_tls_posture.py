"""What scanners of TLS look for (testssl.sh, SSL Labs), by hellos made of bytes where no library offers such things any
more, by Python's ssl and by `openssl`. What tests/e2e/test_tls.py shows is not shown again.
"""

from __future__ import annotations

import contextlib
import http.client
import re
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h2.connection
import h2.events
import httpx
import pytest

from tests.e2e.certificates import authority, signed
from tests.e2e.proxy import Proxy
from tests.e2e.recorder import raw, respond
from tests.e2e.support import SLOW, open_way, until
from tests.interop.conftest import Secure
from tests.reference.clienthello import (
    Hello,
    Rest,
    alpn,
    groups,
    point_formats,
    server_name,
    signatures,
    vector,
    versions,
    words,
)
from tests.wanted import program

SITE = "site.test"
TLS12 = ssl.TLSVersion.TLSv1_2
TLS13 = ssl.TLSVersion.TLSv1_3
both = pytest.mark.parametrize("version", [TLS12, TLS13], ids=["1.2", "1.3"])

# ECDHE with AES-GCM or ChaCha20-Poly1305, by ECDSA and RSA; and those of TLS 1.3.
GOOD_12 = (0xC02B, 0xC02F, 0xC02C, 0xC030, 0xCCA9, 0xCCA8)
GOOD_13 = (0x1301, 0x1302, 0x1303)
X25519, P256, P384, P521, ML_KEM = 0x1D, 0x17, 0x18, 0x19, 0x11EC
ALERT, HANDSHAKE, SERVER_HELLO, CERTIFICATE = 21, 22, 2, 11
# Alerts (RFC 8446 6).
UNEXPECTED_MESSAGE, RECORD_OVERFLOW, HANDSHAKE_FAILURE, ILLEGAL_PARAMETER, DECODE_ERROR = 10, 22, 40, 47, 50
PROTOCOL_VERSION, INAPPROPRIATE_FALLBACK, NO_APPLICATION_PROTOCOL = 70, 86, 120


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    """Two workers; certificates of both kinds; inner.test, which wants a certificate of its clients."""
    home = tmp_path_factory.mktemp("guarded")
    for kind in "rsa", "ecdsa":
        signed(SITE, "inner.test", "127.0.0.1", kind=kind).write(home, kind)
    (home / "authority.pem").write_bytes(authority().pem)
    open_way(home)
    pairs = ", ".join(f'{{ chain = "{home}/{kind}.pem", key = "{home}/{kind}.key" }}' for kind in ("rsa", "ecdsa"))
    with Proxy(
        workers=2,
        listener="tls = true",
        gateway="[limits]\nconnections_client_max = 4096\nhandshakes_client_per_s = 100000\n",
        limits='idle_timeout = "1s"',
        extra=f"""
[area.tls]
certificates = [{pairs}]
[[area]]
name = "inner"
hosts = ["inner.test"]
origins = ["127.0.0.1:9"]
[area.tls]
certificates = [{pairs}]
client_certificate = "required"
authorities = "{home}/authority.pem"
""",
        areas=("site", "inner"),
    ) as found:
        yield found
        found.whole()


# ── bytes ──


@dataclass
class Reply:
    """What came of a hello in clear text."""

    alert: int | None = None
    messages: list[int] = field(default_factory=list)  # types of handshake messages
    server_hello: bytes = b""
    records: list[tuple[int, int]] = field(default_factory=list)  # types and lengths

    def read(self) -> tuple[bytes, int, int, dict[int, bytes]]:
        """Random, cipher, compression, extensions of the ServerHello."""
        assert self.server_hello, f"no ServerHello, alert {self.alert}"
        rest = Rest(self.server_hello)
        assert rest.number(2) == 0x0303
        random, _, cipher, compression = rest.take(32), rest.vector(1), rest.number(2), rest.number(1)
        extensions, every = {}, rest.whole_vector(2) if rest.data else Rest(b"")
        while every.data:
            kind = every.number(2)
            extensions[kind] = every.vector(2)
        return random, cipher, compression, extensions

    @property
    def cipher(self) -> int:
        return self.read()[1]

    @property
    def extensions(self) -> dict[int, bytes]:
        return self.read()[3]


def say(front: Proxy, data: bytes, *, to_the_end: bool = False) -> Reply:
    """Bytes on a connection; what comes back, up to the end of the first flight (or until the gateway ends it)."""
    found, got, hand = Reply(), b"", b""
    with socket.create_connection(("127.0.0.1", front.port), 10 * SLOW) as sock:
        sock.sendall(data)
        while found.alert is None:
            while len(got) < 5 or len(got) < 5 + int.from_bytes(got[3:5]):
                try:
                    part = sock.recv(65536)
                except ConnectionResetError:
                    part = b""
                if not part:
                    return found
                got += part
            kind, length = got[0], int.from_bytes(got[3:5])
            body, got = got[5 : 5 + length], got[5 + length :]
            found.records.append((kind, length))
            if kind == ALERT:
                found.alert = body[1] if length == 2 else -1
            elif kind == HANDSHAKE:
                hand += body
            while len(hand) >= 4 and len(hand) >= 4 + int.from_bytes(hand[1:4]):
                length = 4 + int.from_bytes(hand[1:4])
                found.messages.append(hand[0])
                if hand[0] == SERVER_HELLO:
                    found.server_hello = hand[4:length]
                hand = hand[length:]
            # ServerHelloDone; what follows in TLS 1.3 is sealed.
            over = found.messages and (found.messages[-1] == 14 or kind == 20 or 43 in found.extensions)
            if over and not to_the_end:
                return found
    return found


SIGNATURES = signatures(0x0403, 0x0503, 0x0804, 0x0805, 0x0401, 0x0501)


def hello12(*ciphers: int, more: tuple[tuple[int, bytes], ...] = (), **how: object) -> Hello:
    """Of TLS 1.2; `more` replaces extensions of the same type."""
    own = {kind for kind, _ in more}
    usual = [server_name(SITE.encode()), groups(X25519, P256, P384), point_formats(0), SIGNATURES]
    usual += [(23, b""), (35, b""), (0xFF01, b"\x00")]
    extensions = [each for each in usual if each[0] not in own] + list(more)
    return Hello(ciphers=list(ciphers or GOOD_12), extensions=extensions, **how)  # type: ignore[arg-type]


def share(group: int, size: int = 32) -> bytes:
    return group.to_bytes(2) + vector(2, bytes([group & 0xFF]) * size)


def hello13(*ciphers: int, shares: bytes = share(X25519), more: tuple[tuple[int, bytes], ...] = ()) -> Hello:
    extra = ((43, vector(1, words([0x0304]))), (45, b"\x01\x01"), (51, vector(2, shares)))
    own = {kind for kind, _ in more}
    return hello12(*(ciphers or GOOD_13), more=(*(each for each in extra if each[0] not in own), *more))


def chosen(reply: Reply) -> int:
    """The group of a ServerHello of TLS 1.3, or the one that a HelloRetryRequest asks for."""
    return int.from_bytes(reply.extensions[51][:2])


# ── versions ──


@pytest.mark.parametrize("extensions", [True, False])
def test_old_versions(guarded: Proxy, extensions: bool) -> None:
    for version in (0x0300, 0x0301, 0x0302):
        hello = hello12(0xC013, 0xC009, 0x002F, 0x000A, 0x0005, version=version)
        hello.extensions = hello.extensions if extensions else []
        data = hello.records()
        for record_version in (b"\x03\x00", b"\x03\x01"):
            reply = say(guarded, data[:1] + record_version + data[3:])
            alert = HANDSHAKE_FAILURE if version == 0x0300 else PROTOCOL_VERSION  # SSLv3 had no such alert
            assert (reply.alert, reply.messages) == (alert, []), hex(version)


def test_sslv2(guarded: Proxy) -> None:
    ciphers = b"\x01\x00\x80\x02\x00\x80\x03\x00\x80\x07\x00\xc0\x00\x00\x2f\x00\xc0\x2f"
    for version in (b"\x00\x02", b"\x03\x01", b"\x03\x03"):  # SSLv2, and later ones in its form
        body = b"\x01" + version + words([len(ciphers), 0, 16]) + ciphers + bytes(16)
        reply = say(guarded, (0x8000 | len(body)).to_bytes(2) + body)
        assert reply.messages == [] and reply.records in ([], [(ALERT, 2)]), version


def test_versions_that_are_announced(guarded: Proxy) -> None:
    for offered in ([0x0302, 0x0301], [0x0300], [0x7F1C, 0x0305], [0xFEFD]):
        assert say(guarded, hello13(more=(versions(*offered),)).records()).alert == PROTOCOL_VERSION, offered
    assert say(guarded, hello13(*GOOD_13, *GOOD_12, more=(versions(0x0303),)).records()).cipher in GOOD_12
    assert say(guarded, hello13(more=(versions(0x0A0A, 0x0305, 0x0304),)).records()).cipher in GOOD_13
    # One that is to come, without supported_versions: the newest that we know by this means (RFC 8446 D).
    assert say(guarded, hello12(version=0x03FF).records()).cipher in GOOD_12


def test_a_downgrade_shows(guarded: Proxy) -> None:
    """RFC 8446 4.1.3, RFC 7507."""
    assert say(guarded, hello12().records()).read()[0].endswith(b"DOWNGRD\x01")
    assert say(guarded, hello12(*GOOD_12, 0x5600).records()).alert == INAPPROPRIATE_FALLBACK
    assert say(guarded, hello13(*GOOD_13, 0x5600).records()).cipher in GOOD_13


# ── ciphers, groups, signatures ──

WEAK = {
    "RSA key exchange": (0x002F, 0x0035, 0x003C, 0x009C, 0x009D, 0xC09C),
    "CBC": (0xC009, 0xC00A, 0xC013, 0xC014, 0xC023, 0xC024, 0xC027, 0xC028),
    "3DES": (0x000A, 0x0016, 0xC008, 0xC012),
    "RC4": (0x0004, 0x0005, 0xC007, 0xC011),
    "NULL": (0x0000, 0x0001, 0x0002, 0x003B, 0xC006, 0xC010),
    "export": (0x0003, 0x0006, 0x0008, 0x0014, 0x0017, 0x0062, 0x0064),
    "anonymous": (0x0018, 0x001B, 0x0034, 0x003A, 0x00A6, 0x00A7, 0xC015, 0xC017, 0xC018, 0xC019),
    "DHE": (0x0033, 0x0039, 0x0067, 0x006B, 0x009E, 0x009F, 0xCCAA),
    "static ECDH": (0xC004, 0xC005, 0xC00E, 0xC00F, 0xC02D, 0xC02E, 0xC031, 0xC032),
    "PSK, SRP": (0x008C, 0x00A8, 0xC035, 0xCCAB, 0xC01D, 0xC020),
    "IDEA, SEED, Camellia, ARIA": (0x0007, 0x0096, 0x0041, 0xC072, 0xC086, 0xC05C, 0xC060),
    "CCM": (0xC0AC, 0xC0AD, 0xC0AE, 0xC0AF),
}


@pytest.mark.parametrize("kind", WEAK)
def test_weak_ciphers(guarded: Proxy, kind: str) -> None:
    for cipher in WEAK[kind]:
        reply = say(guarded, hello12(cipher, 0x00FF, more=((0xFF01, b"\x00"),)).records())
        assert (reply.alert, reply.messages) == (HANDSHAKE_FAILURE, []), hex(cipher)


def test_no_other_number_is_a_cipher(guarded: Proxy) -> None:
    for make, good in (hello12, GOOD_12), (hello13, GOOD_13):
        others = [each for each in range(0x10000) if each not in (*good, 0x5600)]
        for at in range(0, len(others), 512):  # as many as a hello may have
            reply = say(guarded, make(*others[at : at + 512]).records())
            assert (reply.alert, reply.messages) == (HANDSHAKE_FAILURE, []), hex(others[at])


def test_good_ciphers(guarded: Proxy) -> None:
    for cipher in GOOD_12:
        reply = say(guarded, hello12(cipher).records())
        assert reply.cipher == cipher
        assert 12 in reply.messages  # ServerKeyExchange: an ephemeral key
    for cipher in GOOD_13:
        assert say(guarded, hello13(cipher).records()).cipher == cipher


def test_groups(guarded: Proxy) -> None:
    weak = [P521, 0x16, 0x15, 0x13, 0x01, 0x0100, 0x0101]  # P-521, secp256k1, P-224, P-192, sect163k1, ffdhe
    assert say(guarded, hello12(more=(groups(*weak),)).records()).alert == HANDSHAKE_FAILURE
    assert say(guarded, hello13(shares=share(P521, 133), more=(groups(*weak),)).records()).alert == HANDSHAKE_FAILURE
    for group in (X25519, P256, P384):
        assert say(guarded, hello12(more=(groups(group),)).records()).cipher in GOOD_12
        reply = say(guarded, hello13(shares=b"", more=(groups(group),)).records())
        assert chosen(reply) == group  # by a HelloRetryRequest


def test_a_hello_with_a_post_quantum_share(guarded: Proxy) -> None:
    """1.2 KB more: what browsers send; where OpenSSL has no ML-KEM it is X25519."""
    both_of_them = share(ML_KEM, 1216) + share(X25519)
    hello = hello13(shares=both_of_them, more=(groups(ML_KEM, X25519, P256),))
    assert len(hello.message()) > 1300
    for fragment in (16384, 512):
        assert chosen(say(guarded, hello.records(fragment))) in (X25519, ML_KEM)
    alone = hello13(shares=share(ML_KEM, 1216), more=(groups(ML_KEM, X25519),))
    assert chosen(say(guarded, alone.records())) in (X25519, ML_KEM)


def test_signatures_with_sha1_are_not_made(guarded: Proxy) -> None:
    assert say(guarded, hello12(more=(signatures(0x0201, 0x0203, 0x0101),)).records()).alert == HANDSHAKE_FAILURE
    hello = hello12()
    hello.extensions = [each for each in hello.extensions if each[0] != 13]
    assert (
        say(guarded, hello.records()).alert == HANDSHAKE_FAILURE
    )  # SHA-1 is what that would mean (RFC 5246 7.4.1.4.1)


# ── extensions, compression, and what broke others ──


def test_extensions_of_the_answer(guarded: Proxy) -> None:
    offered = ((15, b"\x01"), (22, b""), (0xABCD, b"unknown"), alpn(b"h2", b"http/1.1"))
    found = say(guarded, hello12(more=offered).records()).extensions
    assert found[0xFF01] == b"\x00"  # secure renegotiation (RFC 5746)
    assert 23 in found  # extended master secret (RFC 7627)
    assert 35 in found  # a ticket will come
    assert found[16] == b"\x00\x03\x02h2"
    assert not {15, 22, 0xABCD} & found.keys()  # heartbeat, encrypt-then-MAC (all ciphers are AEAD), what nobody knows
    # An older client asks by a number in place of the extension.
    hello = hello12(*GOOD_12, 0x00FF)
    hello.extensions = [each for each in hello.extensions if each[0] != 0xFF01]
    assert say(guarded, hello.records()).extensions[0xFF01] == b"\x00"


def test_no_compression(guarded: Proxy) -> None:
    assert say(guarded, hello12(compressions=b"\x01\x40\x00").records()).read()[2] == 0
    for methods in (b"\x01", b""):
        reply = say(guarded, hello12(compressions=methods).records())
        assert reply.alert in (HANDSHAKE_FAILURE, ILLEGAL_PARAMETER, DECODE_ERROR) and not reply.messages


def test_records_out_of_turn(guarded: Proxy) -> None:
    """Heartbleed (CVE-2014-0160), early ChangeCipherSpec (CVE-2014-0224), floods of it in TLS 1.3."""
    heartbeat = b"\x18\x03\x03\x00\x03\x01\x40\x00"
    change = b"\x14\x03\x03\x00\x01\x01"
    for data in (
        hello12(more=((15, b"\x01"),)).records() + heartbeat,
        hello12().records() + change,
        hello13().records() + change * 64,
        hello12().records() + b"\x17\x03\x03\x00\x02hi",
        hello12().records() * 2,
    ):
        reply = say(guarded, data, to_the_end=True)
        assert reply.alert is not None or len(reply.records) > 2  # an alert, in TLS 1.3 a sealed one
        assert 24 not in [kind for kind, _ in reply.records]
        if reply.alert is not None and 43 not in reply.extensions:
            assert reply.alert in (UNEXPECTED_MESSAGE, PROTOCOL_VERSION)  # of a hello after the hello: by its record


def test_names_that_are_none(guarded: Proxy) -> None:
    for body in (b"\x00\x00", b"\x00\x03\x00\x00\x00", b"\x00\x05\x00\x00\x05si", b"\x00"):
        reply = say(guarded, hello13(more=((0, body),)).records())
        assert reply.alert == DECODE_ERROR and not reply.messages, body


# ── connections ──


def trusting(version: ssl.TLSVersion | None = None, *protocols: str) -> ssl.SSLContext:
    context = ssl.create_default_context(cadata=authority().pem.decode())
    if version is not None:
        context.minimum_version = context.maximum_version = version
    if protocols:
        context.set_alpn_protocols(list(protocols))
    return context


@contextlib.contextmanager
def connected(
    port: int, context: ssl.SSLContext, name: str = SITE, session: ssl.SSLSession | None = None
) -> Iterator[ssl.SSLSocket]:
    with (
        socket.create_connection(("127.0.0.1", port), 20 * SLOW) as sock,
        context.wrap_socket(sock, server_hostname=name, session=session, suppress_ragged_eofs=False) as found,
    ):
        yield found


def get(sock: ssl.SSLSocket, path: str = "/", host: str = SITE) -> tuple[int, bytes]:
    sock.sendall(f"GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
    answer = http.client.HTTPResponse(sock)
    answer.begin()
    return answer.status, answer.read()


@both
def test_alpn(guarded: Proxy, version: ssl.TLSVersion) -> None:
    for offered, agreed in (
        (["h2", "http/1.1"], "h2"),
        (["http/1.1", "h2"], "h2"),
        (["h2"], "h2"),
        (["http/1.0", "spdy/3", "http/1.1"], "http/1.1"),
    ):
        with connected(guarded.port, trusting(version, *offered)) as sock:
            assert sock.selected_alpn_protocol() == agreed
    for offered in (["h2c"], ["http/0.9", "acme-tls/1"], ["H2"], ["x" * 255]):
        with (
            pytest.raises(ssl.SSLError, match=r"(?i)no.application.protocol"),
            connected(guarded.port, trusting(version, *offered)),
        ):
            pass
    make = hello12 if version is TLS12 else hello13
    assert say(guarded, make(more=(alpn(b"spdy/1"),)).records()).alert == NO_APPLICATION_PROTOCOL
    for body in (b"\x00\x00", b"\x00\x01\x00", b"\x00\x03\x05h2", b""):
        assert say(guarded, make(more=((16, body),)).records()).alert == DECODE_ERROR, body


class Half:
    """A client whose records are sent by hand."""

    def __init__(self, front: Proxy, context: ssl.SSLContext) -> None:
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.incoming, self.outgoing, server_hostname=SITE)
        self.sock = socket.create_connection(("127.0.0.1", front.port), 10 * SLOW)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with contextlib.suppress(ssl.SSLWantReadError):
            self.tls.do_handshake()
        self.hello = self.outgoing.read()

    def __enter__(self) -> Half:
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()

    def more(self) -> None:
        """What is to be sent, then what comes."""
        self.sock.sendall(self.outgoing.read())
        data = self.sock.recv(65536)
        if data:
            self.incoming.write(data)
        else:
            self.incoming.write_eof()

    def greet(self, records: bytes, pieces: int = 1) -> None:
        """The handshake, with these bytes for the hello, in so many segments."""
        size = -(-len(records) // pieces)
        for at in range(0, len(records), size):
            self.sock.sendall(records[at : at + size])
            if pieces > 1:
                time.sleep(0.001)
        while True:
            try:
                self.tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                self.more()
        self.sock.sendall(self.outgoing.read())

    def read(self) -> bytes:
        """The next bytes; none: the gateway said close_notify."""
        while True:
            try:
                return self.tls.read(65536)
            except ssl.SSLWantReadError:
                self.more()
            except ssl.SSLZeroReturnError:
                return b""

    def send(self, data: bytes) -> None:
        self.tls.write(data)
        self.sock.sendall(self.outgoing.read())

    def sealed(self, data: bytes) -> bytes:
        self.tls.write(data)
        return self.outgoing.read()


def in_fragments(records: bytes, size: int) -> bytes:
    """A message of one record, in records of so many bytes."""
    assert len(records) == 5 + int.from_bytes(records[3:5])
    parts = [records[at : at + size] for at in range(5, len(records), size)]
    return b"".join(records[:3] + vector(2, part) for part in parts)


@both
def test_hellos_in_fragments(guarded: Proxy, version: ssl.TLSVersion) -> None:
    """Over records and over segments, large and small, as the standards allow."""
    for many in (0, 1300):  # of other protocols: 15 KB
        for fragment, pieces in ((16384, 1), (100, 1), (1, 1), (16384, 40), (7, 40)):
            if many and fragment < 100:
                continue
            context = trusting(version, "http/1.1", *(f"other/{number:05}" for number in range(many)))
            with Half(guarded, context) as client:
                assert (len(client.hello) > 14_000) == bool(many)
                client.greet(in_fragments(client.hello, fragment), pieces)
                client.send(b"GET /fragments HTTP/1.1\r\nHost: site.test\r\n\r\n")
                assert client.read().startswith(b"HTTP/1.1 200")
    with Half(guarded, trusting(version, *(f"other/{number:05}" for number in range(1500)))) as client:
        client.sock.sendall(client.hello)  # beyond 16 KiB
        assert client.sock.recv(100)[:1] == b"\x15"


@both
def test_a_record_that_was_changed(guarded: Proxy, version: ssl.TLSVersion) -> None:
    """Nothing of it gets through, and the connection is over."""
    with Half(guarded, trusting(version)) as client:
        client.greet(client.hello)
        data = bytearray(client.sealed(b"GET /changed HTTP/1.1\r\nHost: site.test\r\n\r\n"))
        data[-20] ^= 1
        client.sock.sendall(data)
        with pytest.raises((ssl.SSLError, ConnectionError), match=r"(?i)bad.record.mac|reset"):
            client.read()
    assert not guarded.origin.of("/changed")


@both
def test_records_that_are_too_long(guarded: Proxy, version: ssl.TLSVersion) -> None:
    length = 16384 + (2048 if version is TLS12 else 256) + 1
    with Half(guarded, trusting(version)) as client:
        client.greet(client.hello)
        client.sock.sendall(b"\x17\x03\x03" + vector(2, bytes(length)))
        with pytest.raises((ssl.SSLError, ConnectionError), match=r"(?i)record.overflow|reset"):
            client.read()
    reply = say(guarded, b"\x16\x03\x01" + vector(2, b"\x01" + bytes(16384)))
    assert reply.alert in (RECORD_OVERFLOW, DECODE_ERROR)


def test_smaller_records_for_who_asks(guarded: Proxy) -> None:
    """max_fragment_length (RFC 6066 4), which small devices need."""
    reply = say(guarded, hello12(more=((1, b"\x01"),)).records())
    assert reply.extensions[1] == b"\x01"
    assert max(length for _, length in reply.records) <= 512


# ── the end ──


@both
def test_both_say_goodbye(guarded: Proxy, version: ssl.TLSVersion) -> None:
    with connected(guarded.port, trusting(version)) as sock:
        assert get(sock)[0] == 200
        assert sock.unwrap().recv(1) == b""  # theirs came, then the end
    with connected(guarded.port, trusting(version)) as sock:
        assert get(sock)[0] == 200
        assert sock.recv(1) == b""  # idle for a second: without close_notify this would raise


def test_an_idle_connection_of_http2(guarded: Proxy) -> None:
    """GOAWAY without an error, then close_notify, in the time of idle_timeout."""
    began = time.monotonic()
    with connected(guarded.port, trusting(None, "h2")) as sock:
        client = h2.connection.H2Connection()
        client.initiate_connection()
        fields = [(":method", "GET"), (":scheme", "https"), (":authority", SITE), (":path", "/")]
        client.send_headers(1, fields, end_stream=True)
        sock.sendall(client.data_to_send())
        events: list[h2.events.Event] = []
        while part := sock.recv(65536):
            events += client.receive_data(part)
    assert [event.error_code for event in events if isinstance(event, h2.events.ConnectionTerminated)] == [0]
    assert any(isinstance(event, h2.events.StreamEnded) for event in events)
    assert 0.9 < time.monotonic() - began < 4 * SLOW


@both
def test_a_goodbye_before_the_answer(guarded: Proxy, version: ssl.TLSVersion) -> None:
    """The client will send no more (TLS 1.3 allows that): it ends in good order, answered or not."""
    with Half(guarded, trusting(version)) as client:
        client.greet(client.hello)
        client.tls.write(b"GET /goodbye HTTP/1.1\r\nHost: site.test\r\n\r\n")
        with contextlib.suppress(ssl.SSLWantReadError):
            client.tls.unwrap()
        client.sock.sendall(client.outgoing.read())
        got = b""
        with contextlib.suppress(ConnectionResetError):
            while part := client.sock.recv(65536):
                got += part
    guarded.whole()


@both
@pytest.mark.parametrize("polite", [True, False])
def test_a_request_that_is_cut_off(guarded: Proxy, version: ssl.TLSVersion, polite: bool) -> None:
    """Half a body, then the end of the connection, with close_notify or without: no request."""
    path = f"/cut/{version.name}/{polite}"
    for framing, part in (
        ("Content-Length: 100", b"a" * 50),
        ("Transfer-Encoding: chunked", b"32\r\n" + b"a" * 50 + b"\r\n"),
    ):
        with Half(guarded, trusting(version)) as client:
            client.greet(client.hello)
            client.send(f"POST {path} HTTP/1.1\r\nHost: site.test\r\n{framing}\r\n\r\n".encode() + part)
            if polite:
                with contextlib.suppress(ssl.SSLWantReadError):
                    client.tls.unwrap()
                client.sock.sendall(client.outgoing.read())
            client.sock.shutdown(socket.SHUT_WR)
            with contextlib.suppress(ConnectionResetError):
                while client.sock.recv(65536):
                    pass
    guarded.whole()
    assert not [request for request in guarded.origin.of(path) if request.complete]


@both
def test_an_answer_that_is_cut_off_looks_so(guarded: Proxy, version: ssl.TLSVersion) -> None:
    """Where only the end of the connection ends a body, close_notify says that it is whole (RFC 9112 9.8)."""
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"
    guarded.origin.answers["/whole"] = raw(head + b"0\r\n\r\n")
    guarded.origin.answers["/broken"] = raw(head, close=True)
    for path in "/whole", "/broken":
        with connected(guarded.port, trusting(version)) as sock:
            sock.sendall(f"GET {path} HTTP/1.0\r\nHost: site.test\r\n\r\n".encode())
            got = b""
            try:
                while part := sock.recv(65536):
                    got += part
                clean = True
            except (ssl.SSLEOFError, ConnectionResetError):
                clean = False
            assert clean == (path == "/whole")
            assert got.endswith(b"\r\n\r\nhello")
    with httpx.Client(http2=True, verify=trusting(version, "h2"), trust_env=False) as client:
        url = f"https://127.0.0.1:{guarded.port}"
        assert client.get(f"{url}/whole").content == b"hello"
        with pytest.raises(httpx.RemoteProtocolError):
            client.get(f"{url}/broken")


# ── sessions ──


@both
def test_tickets_of_another_gateway(guarded: Proxy, secure: Secure, version: ssl.TLSVersion) -> None:
    """They cannot be read: a full handshake, and nothing is wrong."""
    context = trusting(version)
    with connected(secure.port, context) as sock:
        assert get(sock, "/small")[0] == 200
        foreign = sock.session
    with connected(guarded.port, context, session=foreign) as sock:
        assert get(sock)[0] == 200
        assert not sock.session_reused
        own = sock.session
    with connected(guarded.port, context, session=own) as sock:
        assert sock.session_reused
        assert get(sock)[0] == 200
    if version is TLS12:
        reply = say(guarded, hello12(more=((35, bytes(range(192))),)).records())
        assert CERTIFICATE in reply.messages


def test_sessions_are_kept_by_tickets_alone(guarded: Proxy) -> None:
    context = trusting(TLS12)
    context.options |= ssl.OP_NO_TICKET
    with connected(guarded.port, context) as sock:
        assert get(sock)[0] == 200
        session = sock.session
    with connected(guarded.port, context, session=session) as sock:
        assert not sock.session_reused
        assert get(sock)[0] == 200


@both
def test_a_session_opens_no_door_that_wants_a_certificate(
    guarded: Proxy, version: ssl.TLSVersion, tmp_path: Path
) -> None:
    """Neither one that was made without, nor one that an area without such a wish made of a certificate's."""
    context = trusting(version)
    with connected(guarded.port, context) as sock:
        assert get(sock)[0] == 200
        session = sock.session
    with (
        contextlib.suppress(ssl.SSLError, ConnectionError),
        connected(guarded.port, context, "inner.test", session) as sock,
    ):
        assert get(sock, host="inner.test")[0] == 421
    # And who has one gets in, again by a ticket too.
    of = signed("alice")
    of.write(tmp_path, "alice")
    context.load_cert_chain(tmp_path / "alice.pem", tmp_path / "alice.key")
    for _ in range(2):
        with connected(guarded.port, context, "inner.test", session) as sock:
            assert get(sock, host="inner.test")[0] == 502  # nobody there: but let in
            session = sock.session


def test_no_early_data(guarded: Proxy, tmp_path: Path) -> None:
    """Tickets allow none; who sends it all the same is not heard, and gets no longer than any other."""
    words_of = [program("openssl"), "s_client", "-connect", f"127.0.0.1:{guarded.port}", "-servername", SITE]
    request = b"GET /early HTTP/1.1\r\nHost: site.test\r\nConnection: close\r\n\r\n"
    kept = tmp_path / "session"
    how: dict[str, Any] = {"capture_output": True, "timeout": 20 * SLOW}
    subprocess.run([*words_of, "-tls1_3", "-sess_out", str(kept), "-ign_eof"], input=request, check=True, **how)
    shown = subprocess.run([program("openssl"), "sess_id", "-in", str(kept), "-text", "-noout"], check=True, **how)
    assert b"Max Early Data: 0" in shown.stdout
    early = tmp_path / "early"
    early.write_bytes(request.replace(b"/early", b"/too-early"))
    again = [*words_of, "-tls1_3", "-sess_in", str(kept), "-early_data", str(early), "-ign_eof"]
    done = subprocess.run(again, input=request, check=True, **how)
    assert b"Reused, TLSv1.3" in done.stdout
    assert b"Early data was not sent" in done.stdout
    assert b"HTTP/1.1 200" in done.stdout
    assert not guarded.origin.of("/too-early")
    # More of what would be early data than anybody overlooks (RFC 8446 4.2.10): the end, not a wait for the rest.
    junk = b"\x17\x03\x03" + vector(2, bytes(range(250)) * 17)
    reply = say(guarded, hello13(more=((42, b""),)).records() + junk * 8, to_the_end=True)
    assert reply.server_hello


def test_keys_are_renewed_when_asked(guarded: Proxy) -> None:
    """KeyUpdate (RFC 8446 4.6.3), in the middle of a connection."""
    where = ["-connect", f"127.0.0.1:{guarded.port}", "-servername", SITE]
    words_of = [program("openssl"), "s_client", *where, "-tls1_3", "-msg"]
    with subprocess.Popen(words_of, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as running:
        assert running.stdin is not None and running.stdout is not None
        try:
            said = b""

            def heard(what: bytes) -> None:
                nonlocal said
                while what not in said:
                    part = running.stdout.read1(65536)  # type: ignore[union-attr]
                    assert part, said
                    said += part

            heard(b"read R BLOCK")  # the tickets are there
            for _ in range(3):
                said = b""
                running.stdin.write(b"K\n")  # it goes out with what is said next
                running.stdin.flush()
                time.sleep(0.1)
                running.stdin.write(b"GET /keys HTTP/1.1\r\nHost: site.test\r\n\r\n")
                running.stdin.flush()
                heard(b"<<< TLS 1.3, Handshake [length 0005], KeyUpdate")
                heard(b"HTTP/1.1 200")
        finally:
            running.kill()
    assert len(guarded.origin.of("/keys")) == 3


def test_what_openssl_says_at_the_end(guarded: Proxy) -> None:
    """The words that scanners read."""
    for flag, cipher in ("-tls1_2", rb"ECDHE-\w+-(AES|CHACHA)"), ("-tls1_3", rb"TLS_AES_256_GCM_SHA384"):
        done = subprocess.run(
            [program("openssl"), "s_client", "-connect", f"127.0.0.1:{guarded.port}", "-servername", SITE, flag],
            input=b"",
            capture_output=True,
            timeout=20 * SLOW,
        )
        assert re.search(rb"Cipher is " + cipher, done.stdout), done.stdout
        assert b"Compression: NONE" in done.stdout and b"Expansion: NONE" in done.stdout
        assert b"Peer signing digest: SHA256" in done.stdout
        if flag == "-tls1_2":
            assert b"Extended master secret: yes" in done.stdout


def test_nothing_stays(guarded: Proxy) -> None:
    """After all of the above: every worker is the one that began, and nothing is held."""
    until(lambda: guarded.gauge("connections") == 0, 10, "connections that stay")
    guarded.origin.answers["/after"] = respond(b"still here")
    with connected(guarded.port, trusting()) as sock:
        assert get(sock, "/after") == (200, b"still here")
    assert all(child["restarts"] == 0 for child in guarded.running.status()["children"])
