"""TLS at the gateway: certificates, versions, tickets, what is refused before it costs anything."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import http.client
import http.server
import json
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import connect

from tests.e2e.certificates import Signed, authority, signed, staple
from tests.e2e.conftest import GatewayFactory
from tests.e2e.support import SLOW, Gateway, until
from tests.reference.clienthello import Hello, alpn, groups, ja3, ja4, server_name, signatures, versions
from tests.wanted import program

SITE = "site.test"
PLAIN = '[[listener]]\naddress = "127.0.0.1:0"\n'
BODY_BYTES = 3_000_000
OWN = signed(SITE, "127.0.0.1")
SOMEBODY = ("127.7.7.7", 0)  # 127.0.0.1 is ours, and never limited


@pytest.fixture
def secure(gateway: GatewayFactory, tmp_path: Path) -> Callable[..., Gateway]:
    """Starts a gateway whose first listener speaks TLS. `tls`: lines of [area.tls]; `certificates`: its own, else one
    for site.test and the address; `files`: further certificates that lie beside the gateway file, by name."""

    def start(
        *,
        tls: str = "",
        listener: str = "tls = true",
        certificates: str = "",
        files: dict[str, Signed] | None = None,
        area: str = "",
        **how: Any,
    ) -> Gateway:
        home = tmp_path / f"tls{len(list(tmp_path.glob('tls*')))}"
        home.mkdir()
        said = certificates or OWN.write(home, "site")
        (home / "authority.pem").write_bytes(authority().pem)
        for name, each in (files or {}).items():
            each.write(home, name)
        text = f"{area}\n[area.tls]\ncertificates = {said}\n{tls}\n"
        return gateway(directory=home, listener=listener, area=text, **how)

    return start


def trusting(**how: Any) -> ssl.SSLContext:
    """A client's context that believes the tests' authority."""
    context = ssl.create_default_context(cadata=authority().pem.decode())
    for name, value in how.items():
        setattr(context, name, value)
    return context


@contextlib.contextmanager
def connected(
    running: Gateway, context: ssl.SSLContext | None = None, name: str = SITE, session: ssl.SSLSession | None = None
) -> Iterator[ssl.SSLSocket]:
    with (
        socket.create_connection(("127.0.0.1", running.port), 20 * SLOW, SOMEBODY) as raw,
        (context or trusting()).wrap_socket(
            raw, server_hostname=name, session=session, suppress_ragged_eofs=False
        ) as found,
    ):
        yield found


def exchange(sock: ssl.SSLSocket, path: str = "/", host: str = SITE, body: bytes = b"") -> http.client.HTTPResponse:
    """One request on a connection; its answer, read whole (in `answer.content`)."""
    length = f"Content-Length: {len(body)}\r\n" if body else ""
    sock.sendall(f"{'POST' if body else 'GET'} {path} HTTP/1.1\r\nHost: {host}\r\n{length}\r\n".encode() + body)
    answer = http.client.HTTPResponse(sock)
    answer.begin()
    answer.content = answer.read()  # type: ignore[attr-defined]
    return answer


def fetched(running: Gateway, path: str = "/", name: str = SITE, **how: Any) -> tuple[int, bytes]:
    with connected(running, name=name, **how) as sock:
        answer = exchange(sock, path, name)
        return answer.status, answer.content  # type: ignore[attr-defined]


def lines_with(running: Gateway, key: str, count: int = 1) -> list[dict[str, Any]]:
    """Access lines that have a field, once there are so many."""
    return until(
        lambda: (found := [each for each in running.log_lines() if key in each]) and len(found) >= count and found
    )


# ── requests ──


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_requests_of_every_size(secure: Callable[..., Gateway], version: ssl.TLSVersion) -> None:
    running = secure()
    context = trusting(minimum_version=version, maximum_version=version)
    sent = bytes(range(256)) * (BODY_BYTES // 256)
    with connected(running, context) as sock:
        assert sock.version() == version.name.replace("_", ".")
        echoed = json.loads(exchange(sock, "/x?y=1").content)  # type: ignore[attr-defined]
        assert echoed["target"] == "/x?y=1"
        assert ["X-Forwarded-Proto", "https"] in echoed["headers"]
        for count in (0, 1, 16_384, 16_385, BODY_BYTES):
            answer = exchange(sock, f"/bytes/{count}")
            assert len(answer.content) == count  # type: ignore[attr-defined]
        assert len(exchange(sock, f"/chunked/{BODY_BYTES}").content) == BODY_BYTES  # type: ignore[attr-defined]
        said = json.loads(exchange(sock, "/sink", body=sent).content)  # type: ignore[attr-defined]
        assert said == {"body_bytes": len(sent), "body_sha256": hashlib.sha256(sent).hexdigest()}
    (line, *_) = lines_with(running, "tls.version")
    assert line["tls.version"] == {ssl.TLSVersion.TLSv1_2: "1.2", ssl.TLSVersion.TLSv1_3: "1.3"}[version]
    assert line["tls.client.server_name"] == SITE
    assert line["tls.cipher"].startswith("TLS_")
    assert len(line["tls.client.ja3"]) == 32
    assert line["tls.client.ja4"].startswith("t1")


def test_a_slow_reader_gets_all_of_it_and_memory_stays_small(secure: Callable[..., Gateway]) -> None:
    running = secure(workers=1)
    with connected(running) as sock:
        sock.sendall(f"GET /bytes/{8 * BODY_BYTES} HTTP/1.1\r\nHost: {SITE}\r\n\r\n".encode())
        time.sleep(0.5)
        used = running.metric("scrubber_pool_used", pool="buffers")
        assert used < 64  # a window and what is sealed of it, not the whole body
        answer = http.client.HTTPResponse(sock)
        answer.begin()
        assert len(answer.read()) == 8 * BODY_BYTES
    until(running.pools_whole)


def test_pipelined_requests_in_one_record(secure: Callable[..., Gateway]) -> None:
    running = secure()
    with connected(running) as sock:
        sock.sendall(f"GET /bytes/10 HTTP/1.1\r\nHost: {SITE}\r\n\r\n".encode() * 20)
        got = b""
        while got.count(b"HTTP/1.1 200") < 20 or len(got.rpartition(b"\r\n\r\n")[2]) < 10:
            got += sock.recv(65536)
    assert got.count(b"HTTP/1.1 200") == 20


def test_a_client_that_says_goodbye_or_just_goes(secure: Callable[..., Gateway]) -> None:
    running = secure()
    for polite in (True, False):
        with connected(running) as sock:
            assert exchange(sock).status == 200
            if polite:
                sock.unwrap()
    until(lambda: running.metric("scrubber_connections") == 0)
    until(running.pools_whole)


def test_connection_close_is_announced(secure: Callable[..., Gateway]) -> None:
    running = secure()
    with connected(running) as sock:
        sock.sendall(f"GET /bytes/5 HTTP/1.1\r\nHost: {SITE}\r\nConnection: close\r\n\r\n".encode())
        got = b""
        while part := sock.recv(65536):  # an end without close_notify would raise
            got += part
    assert got.endswith(b"\r\n\r\n\x00\x01\x02\x03\x04")


def test_a_websocket(secure: Callable[..., Gateway]) -> None:
    running = secure()
    raw = socket.create_connection(("127.0.0.1", running.port), 20 * SLOW, SOMEBODY)
    raw.setblocking(False)

    async def talk() -> None:  # in one thread: two that share an SSLSocket break its records (python/cpython#143756)
        about = {"sock": raw, "ssl": trusting(), "server_hostname": SITE, "max_size": None}
        async with connect(f"wss://{SITE}/ws", **about) as found, asyncio.timeout(20 * SLOW):
            for count in (0, 1, 125, 70_000, 1_000_000):
                await found.send("a" * count)
                assert await found.recv() == "a" * count

    asyncio.run(talk())
    (line,) = lines_with(running, "scrubber.tunnel")
    assert (line["scrubber.tunnel"], line["scrubber.tunnel_end"]) == ("websocket", "closed")
    assert line["tls.version"] == "1.3"
    until(running.pools_whole)


# ── certificates ──


def serial_of(running: Gateway, name: str, **how: Any) -> int:
    context = trusting(check_hostname=False, **how)
    with connected(running, context, name) as sock:
        return int(sock.getpeercert()["serialNumber"], 16)  # type: ignore[index]


def test_certificates_by_name(secure: Callable[..., Gateway]) -> None:
    other = signed("other.test", "*.wild.test")
    running = secure(
        area='hosts = ["site.test"]',
        files={"other": other},
        more="""
[[area]]
name = "other"
hosts = ["other.test", "*.wild.test"]
origins = ["127.0.0.1:9"]
[area.tls]
certificates = { chain = "other.pem", key = "other.key" }
[[area]]
name = "clear"
hosts = ["clear.test"]
origins = ["127.0.0.1:9"]
""",
    )
    assert serial_of(running, SITE) == OWN.certificate.serial_number
    assert serial_of(running, "OTHER.test") == other.certificate.serial_number
    assert serial_of(running, "a.wild.test") == other.certificate.serial_number
    assert serial_of(running, "unknown.test") == OWN.certificate.serial_number  # nobody's name: the default area's
    with pytest.raises(ssl.SSLError, match=r"(?i)unrecognized.name"):
        serial_of(running, "clear.test")  # an area in clear text only


def test_names_that_nobody_has_are_refused(secure: Callable[..., Gateway]) -> None:
    running = secure(listener='tls = { unknown_names = "refuse" }', area='hosts = ["site.test"]')
    assert fetched(running)[0] == 200
    with pytest.raises(ssl.SSLError, match=r"(?i)unrecognized.name"):
        serial_of(running, "unknown.test")
    (line,) = lines_with(running, "error.code")
    assert (line["error.code"], line["tls.client.server_name"]) == ("unknown_server_name", "unknown.test")
    assert line["tls.client.ja4"].startswith("t13d")


def test_rsa_and_ecdsa_side_by_side(secure: Callable[..., Gateway]) -> None:
    both = {"one": signed(SITE, kind="rsa"), "two": signed(SITE)}
    said = '[{ chain = "one.pem", key = "one.key" }, { chain = "two.pem", key = "two.key" }]'
    running = secure(certificates=said, files=both)
    old = {"minimum_version": ssl.TLSVersion.TLSv1_2, "maximum_version": ssl.TLSVersion.TLSv1_2}
    for kind, name in (("RSA", "one"), ("ECDSA", "two")):
        context = trusting(**old)
        context.set_ciphers(f"ECDHE-{kind}-AES128-GCM-SHA256")
        with connected(running, context) as sock:
            assert int(sock.getpeercert()["serialNumber"], 16) == both[name].certificate.serial_number  # type: ignore[index]


def test_a_reload_changes_certificates_and_breaks_no_connection(secure: Callable[..., Gateway]) -> None:
    running = secure()
    renewed = signed(SITE, "127.0.0.1", days=400)
    with connected(running) as before:
        assert exchange(before).status == 200
        renewed.write(running.directory, "site")
        done = running.cli("reload")
        assert done.returncode == 0, done.stderr
        assert exchange(before).status == 200
        assert serial_of(running, SITE) == renewed.certificate.serial_number
        (running.directory / "site.key").write_bytes(OWN.key_pem)  # not its key: nothing changes
        refused = running.cli("reload")
        assert refused.returncode == 1
        assert "is not the key of" in refused.stderr
        assert serial_of(running, SITE) == renewed.certificate.serial_number
        assert exchange(before).status == 200


def test_an_expiry_is_told_before_it_comes(secure: Callable[..., Gateway]) -> None:
    soon = signed(SITE, "127.0.0.1", days=5.5)
    running = secure(certificates='{ chain = "soon.pem", key = "soon.key" }', files={"soon": soon})
    said = "certificate soon.pem of area site expires in 5 days"
    until(lambda: said in running.stderr)
    assert any(said in notice for notice in running.status()["notices"])
    assert running.metric("scrubber_certificate_expires_seconds", area="site") == pytest.approx(
        soon.certificate.not_valid_after_utc.timestamp()
    )
    checked = running.cli("check", str(running.file))
    assert checked.returncode == 0
    assert "soon.pem expires in 5 days" in checked.stdout


def openssl(running: Gateway, *words: str, sent: bytes = b"") -> str:
    """What `openssl s_client` says."""
    where = [
        "-connect",
        f"127.0.0.1:{running.port}",
        "-servername",
        SITE,
        "-CAfile",
        str(running.directory / "authority.pem"),
    ]
    done = subprocess.run(
        [program("openssl"), "s_client", *where, *words],
        input=sent,
        capture_output=True,
        timeout=20 * SLOW,
        check=False,
    )
    return (done.stdout + done.stderr).decode("utf-8", "replace")


def test_a_staple_is_given(secure: Callable[..., Gateway], tmp_path: Path) -> None:
    (tmp_path / "site.ocsp").write_bytes(staple(OWN))
    said = f'{{ chain = "own.pem", key = "own.key", ocsp = "{tmp_path}/site.ocsp" }}'
    running = secure(certificates=said, files={"own": OWN})
    assert "OCSP Response Status: successful (0x0)" in openssl(running, "-status")
    assert "OCSP response: no response sent" in openssl(secure(), "-status")


# ── versions and what is no longer spoken ──


def test_only_modern_versions_and_ciphers(secure: Callable[..., Gateway]) -> None:
    running = secure()
    for flag in ("-tls1", "-tls1_1"):
        assert "Cipher is (NONE)" in openssl(running, flag, "-cipher", "ALL:@SECLEVEL=0")
    for weak in ("AES128-SHA", "ECDHE-RSA-AES128-SHA", "AES128-GCM-SHA256", "NULL"):
        assert "Cipher is (NONE)" in openssl(running, "-tls1_2", "-cipher", f"{weak}:@SECLEVEL=0"), weak
    said = openssl(running, "-tls1_2")
    assert "Compression: NONE" in said
    assert "Secure Renegotiation IS supported" in said
    assert "New, TLSv1.3" in openssl(running)
    only = secure(listener='tls = { min_version = "1.3" }')
    assert "Cipher is (NONE)" in openssl(only, "-tls1_2")
    assert "New, TLSv1.3" in openssl(only)


def test_no_renegotiation(secure: Callable[..., Gateway]) -> None:
    running = secure()
    assert "no renegotiation" in openssl(running, "-tls1_2", sent=b"R\n")


def test_alpn(secure: Callable[..., Gateway]) -> None:
    running = secure()
    for offered, agreed in ((["http/1.1"], "http/1.1"), (["spdy/3", "http/1.1"], "http/1.1"), ([], None)):
        context = trusting()
        if offered:
            context.set_alpn_protocols(offered)
        with connected(running, context) as sock:
            assert sock.selected_alpn_protocol() == agreed
            assert exchange(sock).status == 200
    context = trusting()
    context.set_alpn_protocols(["spdy/3"])
    with pytest.raises(ssl.SSLError, match=r"(?i)no.application.protocol"), connected(running, context):
        pass


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_sessions_are_resumed_by_any_worker(secure: Callable[..., Gateway], version: ssl.TLSVersion) -> None:
    running = secure(workers=2)
    context = trusting(minimum_version=version, maximum_version=version)
    with connected(running, context) as sock:
        exchange(sock)
        session = sock.session
    old = [running.worker_pid(0), running.worker_pid(1)]
    for _ in range(12):
        with connected(running, context, session=session) as sock:
            exchange(sock)
            assert sock.session_reused
    assert running.metric("scrubber_tls_handshakes_resumed_total") == 12
    if version is ssl.TLSVersion.TLSv1_3:  # a ticket is used once (RFC 8446 C.4): the next one comes with the answer
        for _ in range(3):
            with connected(running, context, session=session) as sock:
                exchange(sock)
                assert sock.session_reused
                assert sock.session.id != session.id
                session = sock.session
    assert running.cli("reload").returncode == 0
    for pid in old:
        subprocess.run(["kill", "-KILL", str(pid)], check=True)
    until(lambda: not set(old) & {child["pid"] for child in running.status()["children"]})
    until(lambda: running.status()["generation"] == 2)
    with connected(running, context, session=session) as sock:
        assert sock.session_reused  # by a worker that was not there when it began
    assert len([each for each in lines_with(running, "tls.resumed", 12) if each["tls.resumed"]]) >= 12


def test_plain_http_is_told_so(secure: Callable[..., Gateway]) -> None:
    running = secure()
    status, body = running.get("/")
    assert status == 400
    assert b"https" in body
    with socket.create_connection(("127.0.0.1", running.port), timeout=5 * SLOW) as raw:
        raw.sendall(b"\x00\x01\x02 no hello")
        with contextlib.suppress(ConnectionResetError):
            assert raw.recv(100) == b""
    codes = [line["error.code"] for line in lines_with(running, "error.code", 2)]
    assert sorted(codes) == ["bad_client_hello", "plain_http_to_tls_port"]


def test_http_is_sent_to_https(secure: Callable[..., Gateway]) -> None:
    for said, where in (("true", "https://site.test/a?b=c"), ('":8443"', "https://site.test:8443/a?b=c"),
                        ('"www.site.test"', "https://www.site.test/a?b=c")):  # fmt: skip
        running = secure(tls=f"redirect = {said}", more=PLAIN)
        connection = http.client.HTTPConnection("127.0.0.1", running.ports[1], timeout=10 * SLOW)
        connection.request("GET", "/a?b=c", headers={"Host": "site.test:80"})
        answer = connection.getresponse()
        assert (answer.status, answer.headers["Location"]) == (308, where)
        connection.close()
        assert fetched(running)[0] == 200


# ── who knocks ──


def knock(running: Gateway, data: bytes, pieces: int = 1) -> bytes:
    """Bytes to the port, in pieces; what comes back until the end."""
    got = b""
    with socket.create_connection(("127.0.0.1", running.port), 10 * SLOW, SOMEBODY) as raw:
        size = -(-len(data) // pieces)
        for at in range(0, len(data), size):
            raw.sendall(data[at : at + size])
            if pieces > 1:
                time.sleep(0.005)
        with contextlib.suppress(ConnectionError):
            while part := raw.recv(65536):
                got += part
    return got


STRANGE = Hello(
    version=0x0303,
    ciphers=[0x1301, 0xC02B],
    extensions=[server_name(SITE.encode()), groups(29), signatures(0x0403), alpn(b"http/1.1"), versions(0x0304)],
)  # no key share: the handshake cannot go on


@pytest.mark.parametrize(("pieces", "fragment"), [(1, 16384), (20, 16384), (1, 7), (20, 7)])
def test_fingerprints_are_logged_though_the_handshake_fails(
    secure: Callable[..., Gateway], pieces: int, fragment: int
) -> None:
    running = secure()
    got = knock(running, STRANGE.records(fragment), pieces)
    assert got[:1] in (b"\x15", b"\x16")  # an alert, or a request for a key share that we do not answer
    (line,) = lines_with(running, "error.code")
    assert line["error.code"] == "handshake_failed"
    assert (line["tls.client.ja3"], line["tls.client.ja4"]) == (ja3(STRANGE), ja4(STRANGE))
    assert running.metric("scrubber_tls_handshakes_failed_total") == 1


def test_a_hello_that_is_none(secure: Callable[..., Gateway]) -> None:
    running = secure()
    assert knock(running, b"\x16\x03\x01\x00\x00") == b"\x15\x03\x03\x00\x02\x02\x32"  # decode_error
    assert knock(running, b"\x16\x03\x01\x3f\xff\x01\x00\x3f\xfc" + bytes(40_000))[:1] == b"\x15"
    until(running.pools_whole)


def test_a_handshake_has_a_deadline(secure: Callable[..., Gateway]) -> None:
    running = secure(listener='tls = { handshake_timeout = "500ms" }')
    context = ssl.create_default_context()
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    half = context.wrap_bio(incoming, outgoing, server_hostname=SITE)
    with contextlib.suppress(ssl.SSLWantReadError):
        half.do_handshake()
    began = time.monotonic()
    knock(running, outgoing.read())  # a whole hello, then silence
    assert 0.3 < time.monotonic() - began < 3 * SLOW
    (line,) = lines_with(running, "error.code")
    assert line["error.code"] == "handshake_late"
    assert running.metric("scrubber_timeouts_total", phase="handshake") == 1
    until(running.pools_whole)


def test_a_rule_about_a_fingerprint_closes_before_the_handshake(secure: Callable[..., Gateway]) -> None:
    wanted = ja4(STRANGE)
    rules = f"""
[[rule]]
name = "strange"
when = {{ ja4 = ["{wanted[:10]}_{wanted[11:14]}*_*", "t10*"] }}
per = "client"
then = ["drop"]
"""
    running = secure(rules=rules)
    assert knock(running, STRANGE.records()) == b""  # not even an alert
    (line,) = lines_with(running, "scrubber.verdict")
    assert (line["scrubber.verdict"], line["rule.name"]) == ("DROP", "test/strange")
    assert line["tls.client.ja4"] == wanted
    assert fetched(running)[0] == 200
    assert running.metric("scrubber_tls_handshakes_refused_total") == 1
    assert running.metric("scrubber_tls_handshakes_failed_total") == 0


def test_a_rule_about_handshakes(secure: Callable[..., Gateway]) -> None:
    rules = """
[[rule]]
name = "handshakes"
per = "client"
limit = "5 handshakes/min"
then = ["throttle"]
"""
    running = secure(rules=rules, workers=2)
    with connected(running) as kept:
        outcomes = []
        for _ in range(12):
            try:
                outcomes.append(fetched(running)[0])
            except (ConnectionError, ssl.SSLError):
                outcomes.append(0)
        assert outcomes == [200] * 4 + [0] * 8
        assert exchange(kept).status == 200
    assert running.metric("scrubber_tls_handshakes_total") == 5
    assert running.metric("scrubber_tls_handshakes_refused_total") == 8


def test_a_client_s_share_of_handshakes(secure: Callable[..., Gateway]) -> None:
    running = secure(top="[limits]\nhandshakes_client_per_s = 2\n", workers=1)
    outcomes = []
    for _ in range(24):
        try:
            outcomes.append(fetched(running)[0])
        except (ConnectionError, ssl.SSLError):
            outcomes.append(0)
    assert 16 <= outcomes.count(200) <= 21
    assert "too_many_handshakes" in {line["error.code"] for line in lines_with(running, "error.code")}


def test_a_limit_by_fingerprint(secure: Callable[..., Gateway]) -> None:
    rules = """
[[rule]]
name = "by-print"
per = "ja4"
limit = "3/min"
then = ["throttle"]
"""
    running = secure(rules=rules, more=PLAIN)
    first, second = trusting(), trusting(maximum_version=ssl.TLSVersion.TLSv1_2)
    for context in (first, second):
        with connected(running, context) as sock:
            assert [exchange(sock).status for _ in range(5)] == [200] * 3 + [429] * 2
    connection = http.client.HTTPConnection("127.0.0.1", running.ports[1], timeout=10 * SLOW)
    for _ in range(5):  # in clear text there is no such key
        connection.request("GET", "/")
        answer = connection.getresponse()
        answer.read()
        assert answer.status == 200
    connection.close()


def test_behind_a_proxy_header(secure: Callable[..., Gateway]) -> None:
    running = secure(listener='tls = true\nproxy_protocol = ["127.0.0.1"]')
    with socket.create_connection(("127.0.0.1", running.port), timeout=10 * SLOW) as raw:
        raw.sendall(b"PROXY TCP4 203.0.113.9 127.0.0.1 4242 443\r\n")
        with trusting().wrap_socket(raw, server_hostname=SITE) as sock:
            echoed = json.loads(exchange(sock).content)  # type: ignore[attr-defined]
    assert ["X-Forwarded-For", "203.0.113.9"] in echoed["headers"]


# ── clients with certificates ──


def with_certificate(home: Path, of: Signed) -> ssl.SSLContext:
    context = trusting()
    of.write(home, "client")
    context.load_cert_chain(home / "client.pem", home / "client.key")
    return context


def test_client_certificates(secure: Callable[..., Gateway], tmp_path: Path) -> None:
    rules = """
[[rule]]
name = "by-account"
per = "account+client"
limit = "3/min"
then = ["throttle"]
"""
    lines = 'client_certificate = "{}"\nauthorities = "authority.pem"'
    good = with_certificate(tmp_path, signed("alice"))
    stranger = with_certificate(tmp_path, signed("mallory", by=authority("somebody else")))
    running = secure(tls=lines.format("required"), area='account = "certificate"', rules=rules)
    with connected(running, good) as sock:
        assert [exchange(sock).status for _ in range(5)] == [200] * 3 + [429] * 2
    assert lines_with(running, "tls.client.subject")[0]["tls.client.subject"] == "CN=alice"
    for context in (stranger, trusting()):
        with pytest.raises((ssl.SSLError, ConnectionError)):
            fetched(running, context=context)
    asked = secure(tls=lines.format("asked"), area='account = "certificate"', rules=rules)
    with connected(asked) as sock:
        assert [exchange(sock).status for _ in range(5)] == [200] * 5  # no account, no limit
    with pytest.raises((ssl.SSLError, ConnectionError)):
        fetched(asked, context=stranger)


def test_a_host_that_wants_a_certificate_is_not_reached_by_another_name(
    secure: Callable[..., Gateway], tmp_path: Path
) -> None:
    running = secure(
        files={"inner": signed("inner.test")},
        more="""
[[area]]
name = "inner"
hosts = ["inner.test"]
origins = ["127.0.0.1:9"]
[area.tls]
certificates = { chain = "inner.pem", key = "inner.key" }
client_certificate = "required"
authorities = "authority.pem"
"""
        + PLAIN,
    )
    with connected(running) as sock:
        assert exchange(sock).status == 200
        assert exchange(sock, host="inner.test").status == 421
    connection = http.client.HTTPConnection("127.0.0.1", running.ports[1], timeout=10 * SLOW)
    connection.request("GET", "/", headers={"Host": "inner.test"})
    assert connection.getresponse().status == 421
    connection.close()


# ── under load ──


def test_a_flood_of_handshakes_leaves_people_their_requests(secure: Callable[..., Gateway]) -> None:
    """Hellos that are never answered, from many addresses, while somebody on a kept connection asks on."""
    running = secure(workers=1, rules="")
    stop = threading.Event()

    def flood(number: int) -> None:
        data = STRANGE.records()
        while not stop.is_set():
            with contextlib.suppress(OSError), socket.socket() as raw:
                raw.settimeout(2)
                raw.bind((f"127.0.9.{number}", 0))
                raw.connect(("127.0.0.1", running.port))
                raw.sendall(data)
                raw.recv(10)

    threads = [threading.Thread(target=flood, args=(1 + i,)) for i in range(8)]
    with connected(running) as sock:
        for thread in threads:
            thread.start()
        try:
            assert [exchange(sock).status for _ in range(100)] == [200] * 100
            assert fetched(running)[0] == 200
        finally:
            stop.set()
            for thread in threads:
                thread.join()
    until(running.pools_whole)


# ── to origins ──


class SecureOrigin:
    """Answers every request over TLS; keeps the server name and the client's subject of each connection."""

    def __init__(self, of: Signed, home: Path, *, ask: bool = False) -> None:
        self.names: list[str | None] = []
        self.subjects: list[Any] = []
        of.write(home, "origin")
        (home / "origin-authority.pem").write_bytes(authority().pem)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(home / "origin.pem", home / "origin.key")
        context.sni_callback = lambda _sock, name, _context: self.names.append(name)
        if ask:
            context.verify_mode = ssl.CERT_REQUIRED
            context.load_verify_locations(home / "origin-authority.pem")
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                outer.subjects.append(self.connection.getpeercert())  # type: ignore[attr-defined]
                count = int(self.path.rpartition("/")[2] or 0)
                self.send_response(200)
                self.send_header("Content-Length", str(count))
                self.end_headers()
                self.wfile.write(bytes(count))

            def do_POST(self) -> None:
                got = len(self.rfile.read(int(self.headers["Content-Length"])))
                self.send_response(200)
                self.send_header("Content-Length", str(len(str(got))))
                self.end_headers()
                self.wfile.write(str(got).encode())

            def log_message(self, *_: object) -> None:
                pass

        class Server(http.server.ThreadingHTTPServer):
            def handle_error(self, *_: object) -> None:
                pass

        self.server = Server(("127.0.0.1", 0), Handler)
        self.server.socket = context.wrap_socket(self.server.socket, server_side=True, do_handshake_on_connect=False)
        self.port = self.server.server_address[1]
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        self.thread.start()

    def stop(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


@pytest.fixture
def secure_origin(tmp_path: Path) -> Iterator[Callable[..., SecureOrigin]]:
    running: list[SecureOrigin] = []

    def start(of: Signed, **how: Any) -> SecureOrigin:
        running.append(SecureOrigin(of, tmp_path, **how))
        return running[-1]

    yield start
    for each in running:
        each.stop()


def behind(gateway: GatewayFactory, origin: SecureOrigin, tls: str, home: Path) -> Gateway:
    made = home / f"to{len(list(home.glob('to*')))}"
    made.mkdir()
    (made / "authority.pem").write_bytes(authority().pem)
    signed("gateway").write(made, "gateway")
    text = f"""
workers = 1
state_dir = "state"
mandates = ["mandate.toml"]
allow_unsigned = true
[[listener]]
address = "127.0.0.1:0"
[[area]]
name = "site"
default = true
origins = [{{ address = "127.0.0.1:{origin.port}", tls = {tls} }}]
"""
    return gateway(text=text, directory=made)


def test_an_origin_is_verified(
    gateway: GatewayFactory, secure_origin: Callable[..., SecureOrigin], tmp_path: Path
) -> None:
    origin = secure_origin(signed("app.internal"))
    right = behind(gateway, origin, '{ name = "app.internal", authorities = "authority.pem" }', tmp_path)
    assert right.get("/bytes/10") == (200, bytes(10))
    assert right.get(f"/bytes/{BODY_BYTES}") == (200, bytes(BODY_BYTES))
    assert set(origin.names) == {"app.internal"}
    assert right.metric("scrubber_origin_connects_total") == 1  # kept and used again
    for wrong in ('{ name = "other.internal", authorities = "authority.pem" }', "true"):
        assert behind(gateway, origin, wrong, tmp_path).get("/bytes/1")[0] == 502, wrong
    assert behind(gateway, origin, "{ verify = false }", tmp_path).get("/bytes/1")[0] == 200


def test_an_origin_gets_bodies_and_our_certificate(
    gateway: GatewayFactory, secure_origin: Callable[..., SecureOrigin], tmp_path: Path
) -> None:
    origin = secure_origin(signed("127.0.0.1"), ask=True)
    said = '{ authorities = "authority.pem", certificate = { chain = "gateway.pem", key = "gateway.key" } }'
    running = behind(gateway, origin, said, tmp_path)
    connection = http.client.HTTPConnection("127.0.0.1", running.port, timeout=20 * SLOW)
    connection.request("POST", "/", body=bytes(BODY_BYTES))
    assert connection.getresponse().read() == str(BODY_BYTES).encode()
    connection.close()
    assert running.get("/bytes/1")[0] == 200
    assert origin.subjects[-1]["subject"] == ((("commonName", "gateway"),),)
    assert behind(gateway, origin, '{ authorities = "authority.pem" }', tmp_path).get("/bytes/1")[0] == 502
