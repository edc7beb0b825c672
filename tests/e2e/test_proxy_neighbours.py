"""HAProxy and nginx beside the gateway: clients named by the PROXY protocol or a trusted chain, in and out."""

from __future__ import annotations

import concurrent.futures
import contextlib
import re
import socket
import ssl
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import wanted
from tests.e2e.conftest import GatewayFactory
from tests.e2e.neighbours import Haproxy, Nginx
from tests.e2e.proxy import Proxy
from tests.e2e.recorder import respond
from tests.e2e.support import ROOT, mandate_text
from tests.e2e.wire import Closed, Wire, eventually, fetch

NEIGHBOUR = "127.0.9.1"  # where the neighbour in front connects from
ONE, TWO = "127.0.8.1", "127.0.8.2"

HAPROXY = """
global
    maxconn 500
defaults
    mode {mode}
    timeout connect 5s
    timeout client 30s
    timeout server 30s
    {defaults}
frontend in
    bind {bind}
    {frontend}
    default_backend out
backend out
    {backend}
"""


def haproxy(
    backend: str, *, mode: str = "http", bind: str = "fd@{fd}", frontend: str = "", defaults: str = ""
) -> Haproxy:
    parts = {"mode": mode, "bind": bind, "frontend": frontend, "backend": backend, "defaults": defaults}
    text = HAPROXY
    for name, value in parts.items():
        text = text.replace("{" + name + "}", value)
    return Haproxy(text)


@pytest.fixture(scope="module")
def gate() -> Iterator[Proxy]:
    with Proxy(listener=f'proxy_protocol = ["{NEIGHBOUR}"]') as found:
        yield found
        found.whole()


class TestHaproxyInFront:
    @pytest.mark.parametrize("mode", ["http", "tcp"])
    @pytest.mark.parametrize(
        "option", ["send-proxy", "send-proxy-v2", "send-proxy-v2 proxy-v2-options crc32c,unique-id"]
    )
    def test_each_client_is_itself(self, gate: Proxy, mode: str, option: str) -> None:
        backend = f"server gate 127.0.0.1:{gate.port} source {NEIGHBOUR} {option}"
        unique = "unique-id-format %{+X}o%ci:%cp-%rt" if "unique-id" in option else ""
        path = "/" + re.sub(r"\W", "", mode + option)
        with haproxy(backend, mode=mode, frontend=unique) as front:

            def visit(number: int) -> None:
                with Wire(front.port, source=f"127.0.8.{1 + number % 5}") as wire:
                    for i in range(4):
                        answer = wire.get(f"{path}/{number}/{i}")
                        assert (answer.status, answer.body) == (200, b"ok")

            with concurrent.futures.ThreadPoolExecutor(10) as pool:
                list(pool.map(visit, range(20)))
        for number in range(20):
            for i in range(4):
                named = gate.origin.last(f"{path}/{number}/{i}").one("x-forwarded-for")
                assert named == f"127.0.8.{1 + number % 5}"
        record = gate.lines(f"{path}/3/0")[0]
        assert (record["scrubber.proof"], record["scrubber.proxy.ip"]) == ("proxy", NEIGHBOUR)
        assert (record["destination.ip"], record["destination.port"]) == ("127.0.0.1", front.port)
        assert ("scrubber.proxy.unique_id" in record) == ("unique-id" in option)

    def test_a_blocked_client_gets_nothing_and_others_everything(self, proxy: type[Proxy]) -> None:
        with proxy(listener=f'proxy_protocol = ["{NEIGHBOUR}"]') as found:
            backend = f"server gate 127.0.0.1:{found.port} source {NEIGHBOUR} send-proxy-v2"
            with haproxy(backend, mode="tcp") as front:
                assert fetch(front.port, "/", source=ONE).status == 200
                assert found.running.cli("block", ONE, "--reason", "a test").returncode == 0
                for _ in range(3):
                    with pytest.raises((Closed, ConnectionError)):
                        fetch(front.port, "/", source=ONE)
                    assert fetch(front.port, "/", source=TWO).status == 200

    def test_its_health_checks_are_let_through(self, gate: Proxy) -> None:
        backend = (
            "option httpchk GET /health HTTP/1.1\n    http-check send hdr Host site.test\n"
            f"    server gate 127.0.0.1:{gate.port} source {NEIGHBOUR} send-proxy-v2 check inter 100ms fall 1"
        )
        with haproxy(backend) as front:
            eventually(lambda: len(gate.origin.of("/health")) >= 3, 15, "checks arrive")
            assert fetch(front.port, "/", source=ONE).status == 200
            assert "DOWN" not in front.said
        assert gate.origin.last("/health").one("x-forwarded-for") == NEIGHBOUR

    def test_what_it_says_of_tls_is_logged(self, gate: Proxy, tmp_path: Path) -> None:
        certificate = tmp_path / "site.pem"
        made = subprocess.run(
            [
                wanted.program("openssl"),
                "req",
                "-x509",
                "-newkey",
                "rsa:2048",
                "-nodes",
                "-days",
                "2",
                "-subj",
                "/CN=site.test",
                "-keyout",
                str(certificate),
                "-out",
                str(tmp_path / "chain.pem"),
            ],
            capture_output=True,
            check=False,
        )
        assert made.returncode == 0, made.stderr
        certificate.write_text(certificate.read_text() + (tmp_path / "chain.pem").read_text())
        options = "send-proxy-v2-ssl-cn proxy-v2-options crc32c,authority,ssl-cipher,cert-sig,cert-key,unique-id"
        bind = f"fd@{{fd}} ssl crt {certificate} ca-file {tmp_path}/chain.pem verify optional alpn http/1.1"
        with haproxy(
            f"server gate 127.0.0.1:{gate.port} source {NEIGHBOUR} {options}",
            bind=bind,
            frontend="unique-id-format id-%ci-%cp",
        ) as front:
            context = ssl.create_default_context(cafile=str(tmp_path / "chain.pem"))
            context.load_cert_chain(certificate)
            context.set_alpn_protocols(["http/1.1"])
            plain = socket.create_connection(("127.0.0.1", front.port), timeout=15, source_address=(ONE, 0))
            with context.wrap_socket(plain, server_hostname="site.test") as secure:
                port = secure.getsockname()[1]
                secure.sendall(b"GET /tls HTTP/1.1\r\nHost: site.test\r\nConnection: close\r\n\r\n")
                answer = b"".join(iter(lambda: secure.recv(65536), b""))
                cipher, version = secure.cipher(), secure.version()
        assert answer.startswith(b"HTTP/1.1 200")
        (record,) = gate.lines("/tls")
        assert (record["client.ip"], record["source.port"]) == (ONE, port)
        assert record["tls.client.server_name"] == "site.test"
        assert record["tls.next_protocol"] == "http/1.1"
        assert record["tls.version"] == (version or "").removeprefix("TLSv")
        assert record["tls.cipher"] == (cipher or ("",))[0]
        assert record["tls.client.x509.subject.common_name"] == "site.test"
        assert record["tls.server.x509.signature_algorithm"] == "RSA-SHA256"
        assert record["tls.server.x509.public_key_algorithm"] == "RSA2048"
        assert (record["scrubber.proxy.tls_client"], record["scrubber.proxy.tls_verify"]) == (7, 0)
        assert record["scrubber.proxy.unique_id"] == f"id-{ONE}-{port}"

    @pytest.mark.parametrize("option", ["send-proxy", "send-proxy-v2"])
    def test_by_a_unix_socket(self, option: str) -> None:
        """Its peers have no address: "unix" lists them all."""
        with tempfile.TemporaryDirectory(prefix="un-") as directory:
            path = f"{directory}/gate.sock"
            listener = 'proxy_protocol = ["unix"]\n[[listener]]\naddress = "127.0.0.1:0"'
            with Proxy(address=f"unix:{path}", listener=listener) as found:
                with haproxy(f"server gate unix@{path} {option}") as front:
                    for source in (ONE, TWO):
                        assert fetch(front.port, "/unix", source=source).status == 200
                        assert found.origin.last("/unix").one("x-forwarded-for") == source
                    assert found.running.cli("block", ONE, "--reason", "a test").returncode == 0
                    assert fetch(front.port, "/unix", source=ONE).status == 502
                    assert fetch(front.port, "/unix", source=TWO).status == 200
                with socket.socket(socket.AF_UNIX) as bare:
                    bare.connect(path)
                    bare.sendall(b"GET / HTTP/1.1\r\nHost: site.test\r\n\r\n")
                    with contextlib.suppress(ConnectionError):
                        assert bare.recv(100) == b""
                found.whole()

    def test_without_the_option_it_is_refused(self, gate: Proxy) -> None:
        """The misconfiguration that everybody makes first: nobody is served, and the log says why."""
        with haproxy(f"server gate 127.0.0.1:{gate.port} source {NEIGHBOUR}") as front:
            assert fetch(front.port, "/unnamed", source=ONE).status == 502
        eventually(
            lambda: any(
                r.get("error.code") == "bad_proxy_header" and r["source.ip"] == NEIGHBOUR
                for r in gate.running.log_lines()
            )
        )
        assert not gate.origin.of("/unnamed")


NGINX_BEHIND = """
http { {common}
  server {
    listen 127.0.0.1:{port} proxy_protocol;
    set_real_ip_from 127.0.0.1; real_ip_header proxy_protocol; keepalive_timeout 60s;
    location / {
      return 200 "$remote_addr $proxy_protocol_addr $proxy_protocol_port $proxy_protocol_server_port $connection";
    }
  }
}
"""


class TestBehindTheGateway:
    """The origin is told who the client is by the protocol alone."""

    def ask(self, found: Proxy, source: str, times: int = 3) -> tuple[int, list[list[str]]]:
        with Wire(found.port, source=source) as wire:
            return wire.sock.getsockname()[1], [wire.get("/").body.decode().split() for _ in range(times)]

    @pytest.mark.parametrize("version", ["v1", "v2"])
    def test_nginx(self, version: str) -> None:
        with Nginx(NGINX_BEHIND) as behind, Proxy(proxy_out=version, proxy_port=behind.port) as found:
            for source in (ONE, TWO, ONE):
                port, answers = self.ask(found, source)
                assert len({a[-1] for a in answers}) == 1, "one client, one connection"
                assert [a[:4] for a in answers] == [[source, source, str(port), str(found.port)]] * 3

            with concurrent.futures.ThreadPoolExecutor(8) as pool:
                for source, (_, answers) in zip(
                    [f"127.0.8.{i}" for i in range(1, 9)] * 3,
                    pool.map(lambda i: self.ask(found, f"127.0.8.{1 + i % 8}", 5), range(24)),
                    strict=True,
                ):
                    assert {a[0] for a in answers} == {source}

    @pytest.mark.parametrize("version", ["v1", "v2"])
    def test_haproxy(self, version: str) -> None:
        returns = 'http-request return status 200 content-type text/plain lf-string "%[src] %[src_port] %[dst_port]"'
        with (
            haproxy("", bind="fd@{fd} accept-proxy", frontend=returns) as behind,
            Proxy(proxy_out=version, proxy_port=behind.port) as found,
        ):
            for source in (ONE, TWO, ONE):
                port, answers = self.ask(found, source)
                assert answers == [[source, str(port), str(found.port)]] * 3

    def test_without_the_protocol_nginx_refuses(self) -> None:
        with Nginx(NGINX_BEHIND) as behind, Proxy(origins=[f"127.0.0.1:{behind.port}"]) as found:
            assert fetch(found.port, "/").status == 502


def example(name: str, **instead: str) -> str:
    """A file of configs/ with addresses of this test's own."""
    text = (ROOT / "configs" / name).read_text()
    for old, new in {"127.0.0.1:8080": "127.0.0.1:0", "minimal-mandate.toml": "mandate.toml", **instead}.items():
        assert old in text, old
        text = text.replace(old, new)
    return f'state_dir = "state"\nworkers = 1\n{text}'


def test_the_example_behind_haproxy(gateway: GatewayFactory) -> None:
    """HAProxy, the gateway of configs/behind-haproxy.toml, nginx: the client is itself at the end."""
    with Nginx(NGINX_BEHIND) as origin:
        addresses = {"192.0.2.10": NEIGHBOUR, "192.0.2.11": "127.0.9.2", "127.0.0.1:8000": f"127.0.0.1:{origin.port}"}
        running = gateway(text=example("behind-haproxy.toml", **addresses), mandate=mandate_text())
        options = "send-proxy-v2-ssl-cn proxy-v2-options crc32c,unique-id,authority,ssl-cipher check"
        backend = f"server scrubber 127.0.0.1:{running.port} source {NEIGHBOUR} {options}"
        with haproxy(backend, frontend="unique-id-format id-%ci-%cp") as front:
            for source in (ONE, TWO):
                with Wire(front.port, source=source) as wire:
                    port = wire.sock.getsockname()[1]
                    said = wire.get("/").body.decode().split()
                assert said[:4] == [source, source, str(port), str(front.port)]


NGINX_CDN = """
http { {common}
  server {
    listen 127.0.0.1:{port};
    location / {
      proxy_pass http://127.0.0.1:GATE; proxy_bind 127.0.9.1; proxy_http_version 1.1; proxy_set_header Connection "";
      proxy_set_header Host $host; proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
      proxy_set_header X-Forwarded-Proto https; proxy_set_header X-Request-Id $request_id; proxy_hide_header X-None;
      add_header X-Cdn-Id $request_id;
    }
  }
}
"""


def test_the_example_behind_a_cdn(proxy: type[Proxy], gateway: GatewayFactory) -> None:
    """nginx as the CDN's edge: clients behind it are themselves, forged chains prove nothing, its id is taken over."""
    with Proxy() as plain:  # for its origin
        plain.origin.default = respond(headers="Server: secret/1.0\r\n")
        origin = f"127.0.0.1:{plain.origin.port}"
        text = example("behind-a-cdn.toml", **{"192.0.2.0/24": f"{NEIGHBOUR}/32", "127.0.0.1:8000": origin})
        running = gateway(text=text, mandate=mandate_text())
        with Nginx(NGINX_CDN.replace("GATE", str(running.port))) as cdn:
            answer = fetch(cdn.port, "/page", "X-Forwarded-For: 203.0.113.66\r\nX-Request-Id: forged\r\n", source=ONE)
            assert answer.status == 200
            request = plain.origin.last("/page")
            assert request.one("x-forwarded-for") == f"{ONE}, {NEIGHBOUR}"
            assert request.one("x-forwarded-proto") == "https"
            assert request.one("x-request-id") == answer.one("x-cdn-id") == answer.one("x-request-id")
            assert running.cli("block", ONE, "--reason", "a test").returncode == 0
            assert fetch(cdn.port, "/", source=ONE).status == 403
            assert fetch(cdn.port, "/", source=TWO).status == 200
        around = fetch(running.port, "/around", "X-Forwarded-For: 203.0.113.66\r\nX-Request-Id: forged\r\n", source=TWO)
        assert around.all("server") == []
        request = plain.origin.last("/around")
        assert request.one("x-forwarded-for") == TWO
        assert request.one("x-request-id") != "forged"
