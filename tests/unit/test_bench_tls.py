"""The bench's load over TLS, its held connections, and what it reads of h2load."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import socket
import ssl
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from bench.load.guard import Bounds
from bench.macro import native_tls, procs
from bench.macro.h2 import H2
from bench.macro.h2.tool import CIPHER, argv_of, h2load, parsed
from bench.macro.held import held
from bench.macro.load import Ask, Asking, Outcome
from bench.macro.scenario import Effort
from bench.macro.systems import BenchError, certify, free_port
from bench.macro.tls_clean import SEALED
from bench.macro.tls_handshake import FULL, HANDSHAKE_FULL, HANDSHAKE_RESUMED, RESUMED
from tests.unit.answering import Answering, reply
from tests.wanted import program


def server_context(
    folder: Path, newest: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3, protocols: tuple[str, ...] = ("h2", "http/1.1")
) -> ssl.SSLContext:
    if not (folder / "site.pem").exists():
        certify(folder, "ecdsa")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "site.pem", folder / "site.key")
    context.maximum_version = newest
    context.set_alpn_protocols(protocols)
    return context


class Sealed(Answering):
    """The same over TLS. `contexts`: for one connection after the other, the last one for all that follow."""

    def __init__(self, answers: list[bytes], *contexts: ssl.SSLContext) -> None:
        self.contexts = list(contexts)
        self.reused: list[bool] = []
        self.agreed: set[tuple[str | None, str | None]] = set()
        super().__init__(answers)

    def serve(self, sock: socket.socket) -> None:
        context = self.contexts.pop(0) if len(self.contexts) > 1 else self.contexts[0]
        with sock, contextlib.suppress(OSError):
            sealed = context.wrap_socket(sock, server_side=True)
            self.reused.append(bool(sealed.session_reused))
            self.agreed.add(((sealed.cipher() or ("",))[0], sealed.selected_alpn_protocol()))
            super().serve(sealed)


def handshakes(server: Sealed, count: int, *, resumed: bool, at_once: int = 3) -> Outcome:
    sources = ["127.0.66.1", "127.0.66.2"]
    return outcome(native_tls.load("127.0.0.1", server.port, sources, at_once, b"", resumed, count, 10.0))


def outcome(found: dict[str, float | str]) -> Outcome:
    return Outcome(**found)  # type: ignore[arg-type]


class TestHandshakes:
    def test_full_ones_are_full(self, tmp_path: Path) -> None:
        with Sealed([], server_context(tmp_path)) as server:
            found = handshakes(server, 30, resumed=False)
        assert (found.requests, found.good, found.handshakes, found.resumed, found.errors) == (30, 30, 30, 0, 0)
        assert server.reused == [False] * 30
        assert server.requests == []
        assert server.sources == {"127.0.66.1", "127.0.66.2"}
        assert server.agreed == {(CIPHER, "http/1.1")}
        assert 0 < found.latency_ms_p50 <= found.latency_ms_p99
        assert HANDSHAKE_FULL.complaint(found) == ""

    def test_resumed_ones_are_resumed_and_the_one_that_fetched_the_ticket_is_not_counted(self, tmp_path: Path) -> None:
        with Sealed([], server_context(tmp_path)) as server:
            found = handshakes(server, 30, resumed=True)
        assert (found.requests, found.good, found.handshakes, found.resumed) == (30, 30, 30, 30)
        assert server.reused == [False] + [True] * 30
        assert HANDSHAKE_RESUMED.complaint(found) == ""
        assert "30 handshakes were resumed" in HANDSHAKE_FULL.complaint(found)

    def test_a_server_that_knows_its_tickets_no_more_is_found_out(self, tmp_path: Path) -> None:
        first, another = server_context(tmp_path), server_context(tmp_path)  # each has ticket keys of its own
        with Sealed([], first, another) as server:
            found = handshakes(server, 10, resumed=True, at_once=1)
        assert server.reused == [False] * 11
        assert (found.good, found.handshakes, found.resumed) == (10, 10, 0)
        assert HANDSHAKE_RESUMED.complaint(found) == "10 of 10 handshakes were full"

    def test_a_failed_handshake_is_an_error_and_says_what_it_was(self, tmp_path: Path) -> None:
        with Sealed([], server_context(tmp_path, ssl.TLSVersion.TLSv1_2)) as server:
            found = handshakes(server, 9, resumed=False)
            again = handshakes(server, 9, resumed=True)
        assert (found.requests, found.good, found.errors, found.handshakes) == (9, 0, 9, 0)
        assert "version" in found.said
        assert HANDSHAKE_FULL.complaint(found)
        assert again.good == 0
        assert HANDSHAKE_RESUMED.complaint(again)

    def test_a_server_that_gives_no_tickets_is_told_of(self, tmp_path: Path) -> None:
        context = server_context(tmp_path)
        context.num_tickets = 0
        with Sealed([], context) as server:
            found = outcome(native_tls.load("127.0.0.1", server.port, ["127.0.66.1"], 2, b"", False, 2, 0.1))
        assert (found.handshakes, found.good, found.errors) == (2, 0, 2)
        assert found.said == "2 handshakes were done, and no session ticket came"

    def test_nobody_there(self) -> None:
        found = outcome(native_tls.load("127.0.0.1", free_port(), ["127.0.66.1"], 2, b"", False, 10, 2.0))
        assert (found.requests, found.errors, found.said) == (10, 10, "Connection refused")

    def test_it_ends_when_its_time_is_over(self, tmp_path: Path) -> None:
        with Sealed([], server_context(tmp_path)) as server:
            found = outcome(native_tls.load("127.0.0.1", server.port, ["127.0.66.1"], 2, b"", False, 10**6, 0.3))
        assert found.requests == found.good > 0
        assert found.seconds < 5

    @pytest.mark.parametrize("host", ["192.0.2.1", "localhost", "0.0.0.0", "127.0.0.1.1", "127.0.0.256", ""])
    def test_what_is_not_loopback_is_refused(self, host: str) -> None:
        for target, source in ((host, "127.0.0.1"), ("127.0.0.1", host)):
            with pytest.raises(ValueError, match="127"):
                native_tls.load(target, 443, [source], 1, b"", False, 1, 1.0)

    @pytest.mark.parametrize(("count", "seconds"), [(0, 1.0), (10**9, 1.0), (1, 0.0), (1, 1e9)])
    def test_a_load_without_an_end_is_refused(self, count: int, seconds: float) -> None:
        with pytest.raises(ValueError, match="end"):
            native_tls.load("127.0.0.1", 443, ["127.0.0.1"], 1, b"", False, count, seconds)


class TestRequests:
    def load(self, server: Sealed, connections: int, count: int) -> Outcome:
        request = Ask((), connections, True).request()
        return outcome(
            native_tls.load("127.0.0.1", server.port, ["127.0.66.1"], connections, request, False, count, 10.0)
        )

    def test_answers_are_counted_by_kind(self, tmp_path: Path) -> None:
        answers = [reply("200 OK", b"x" * 100_000), reply("302 Found"), reply("429 No", b"no"), reply("200 OK", b"ok")]
        with Sealed(answers, server_context(tmp_path)) as server:
            found = self.load(server, 2, 40)
        assert (found.requests, found.good, found.refused, found.errors) == (40, 30, 10, 0)
        assert (found.handshakes, found.resumed, server.connections) == (2, 0, 2)
        assert len(server.requests) == 40

    def test_a_server_that_closes_gets_a_new_connection(self, tmp_path: Path) -> None:
        with Sealed([reply("200 OK", b"ok", "Connection: close\r\n")], server_context(tmp_path)) as server:
            found = self.load(server, 3, 30)
        assert (found.requests, found.good, found.handshakes) == (30, 30, 30)

    @pytest.mark.parametrize(
        "broken",
        [
            b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\nX: close\r\n\r\nabc",
            b"nonsense\r\n\r\nclose",
            b"HTTP/1.1 200 OK\r\nX: close\r\n\r\n",
            b"",
        ],
    )
    def test_a_broken_answer_is_an_error(self, broken: bytes, tmp_path: Path) -> None:
        with Sealed([broken], server_context(tmp_path)) as server:
            found = self.load(server, 1, 5)
        assert (found.requests, found.errors) == (5, 5)


class TestProcesses:
    @pytest.mark.parametrize("what", [SEALED, FULL, RESUMED])
    def test_a_load_beside_us(self, what: Ask, tmp_path: Path) -> None:
        with Sealed([reply("200 OK", b"page")], server_context(tmp_path)) as server:
            asking = Asking(server.port, dataclasses.replace(what, connections=2), Bounds(50, 5), procs.cores()[1])
            found = asking.outcome()
        assert (found.requests, found.good) == (50, 50)
        assert found.resumed == (50 if what.tls == "resumed" else 0)
        assert len(server.requests) == (50 if what.kept else 0)
        assert found.cpu_s > 0

    def test_held_connections_stay_or_it_says_so(self, tmp_path: Path) -> None:
        what = dataclasses.replace(SEALED, connections=10)
        with Sealed([reply("200 OK", b"page")], server_context(tmp_path)) as server:
            with held(server.port, what, procs.cores()[1]):
                pass
            assert server.reused == [False] * 10
        closing = Sealed([reply("200 OK", b"", "Connection: close\r\n")], server_context(tmp_path))
        with closing as server:  # noqa: SIM117
            with pytest.raises(BenchError, match="did not stay"), held(server.port, what, procs.cores()[1]):
                pass
        old = server_context(tmp_path, ssl.TLSVersion.TLSv1_2)
        with Sealed([reply("200 OK")], old) as server:  # noqa: SIM117
            with pytest.raises(BenchError, match="not every"), held(server.port, what, procs.cores()[1]):
                pass


@pytest.mark.parametrize(("key", "kind"), [("ecdsa", ec.EllipticCurvePublicKey), ("rsa", rsa.RSAPublicKey)])
def test_a_certificate_is_made_for_a_run(key: str, kind: type, tmp_path: Path) -> None:
    certify(tmp_path, key)
    chain, secret, both = ((tmp_path / f"site.{end}").read_bytes() for end in ("pem", "key", "both"))
    found = x509.load_pem_x509_certificate(chain)
    names = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert isinstance(found.public_key(), kind)
    assert names.get_values_for_type(x509.DNSName) == ["site.test"]
    assert both == chain + secret
    certify(tmp_path, key)
    assert (tmp_path / "site.pem").read_bytes() == chain, "all systems have the same one"


SAID = """starting benchmark...
spawning thread #0: 8 total client(s). 300 total requests
TLS Protocol: TLSv1.3
Cipher: TLS_AES_128_GCM_SHA256
Server Temp Key: X25519 253 bits
Application protocol: h2
progress: 10% done

finished in 12.50ms, 24000.00 req/s, 24.05MB/s
requests: 300 total, 300 started, 300 done, 290 succeeded, 10 failed, 0 errored, 0 timeout
status codes: 289 2xx, 1 3xx, 7 4xx, 2 5xx
traffic: 300.62KB (307836) total, 3.94KB (4032) headers (space savings 90.77%), 292.38KB (299400) data
"""


class TestH2load:
    def test_what_it_says_is_counted(self) -> None:
        found = parsed(SAID, 0.25)
        assert found == Outcome(300, 0.0125, good=290, refused=9, cut=0, errors=1, cpu_s=0.25)
        assert H2.complaint(found) == "not every request was served"
        assert parsed(SAID.replace("12.50ms", "6.00s"), 0.0).seconds == 6.0

    @pytest.mark.parametrize(
        ("before", "after", "said"),
        [
            ("Application protocol: h2", "Application protocol: http/1.1", "no h2: .* http/1.1"),
            ("Application protocol: h2\n", "", "no h2"),
            ("Cipher: TLS_AES_128", "Cipher: TLS_AES_256", "cipher"),
            ("290 succeeded", "291 succeeded", "agree"),
            ("10 failed", "11 failed", "agree"),
            ("finished in", "begun in", "agree"),
            ("0 timeout", "", ""),
            ("status codes", "codes", "count"),
        ],
    )
    def test_what_does_not_hold_together_is_refused(self, before: str, after: str, said: str) -> None:
        assert before in SAID
        if not said:
            assert parsed(SAID.replace(before, after), 0.0).requests == 300
            return
        with pytest.raises(BenchError, match=said):
            parsed(SAID.replace(before, after), 0.0)

    def test_it_is_bounded_and_goes_to_loopback_alone(self) -> None:
        program("h2load")
        full = argv_of(4433, H2.asks, Effort.full().load)
        assert "--duration=6s" in full
        assert "--connect-to=127.0.0.1:4433" in full
        assert not any(word.startswith("--requests") for word in full)
        assert {"--clients=8", "--max-concurrent-streams=32"} < set(full)
        quick = argv_of(4433, H2.asks, Effort.quick().load)
        assert "--requests=300" in quick
        assert not any(word.startswith("--duration") for word in quick)

    def test_a_server_without_h2_is_told_of(self, tmp_path: Path) -> None:
        program("h2load")
        context = server_context(tmp_path, protocols=("http/1.1",))
        with Sealed([reply("200 OK", b"page")], context) as server:
            with pytest.raises(BenchError, match=r"no h2: the protocol was http/1\.1"):
                h2load(server.port, H2.asks, Bounds(16, 1), procs.cores()[1])
            assert server.agreed == {(CIPHER, "http/1.1")}


def test_a_spec_on_the_command_line_is_bounded_too() -> None:
    spec = {"target": "127.0.0.1", "port": 443, "ask": dataclasses.asdict(FULL), "requests_max": 0, "seconds_max": 1}
    argv = [sys.executable, "-m", "bench.macro.load", json.dumps(spec)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=30)
    assert done.returncode != 0
    assert "requests_max 0 is out of bounds" in done.stderr
