"""PROXY protocol on the wire: who may name a client, and what follows the client then instead of the peer."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from tests.e2e.proxy import Proxy
from tests.e2e.recorder import respond
from tests.e2e.wire import Answer, Closed, Wire, eventually
from tests.reference.proxy_header import binary, tlv

PEER = "127.0.9.1"  # listed
OTHER_PEER = "127.0.9.2"  # listed too
STRANGER = "127.0.9.99"
LISTED = 'proxy_protocol = ["127.0.9.1", "127.0.9.2"]'


def line(client: str = "203.0.113.7", port: int = 4711) -> bytes:
    family, to = ("TCP6", "2001:db8::80") if ":" in client else ("TCP4", "198.51.100.80")
    return f"PROXY {family} {client} {to} {port} 443\r\n".encode()


def v2(client: str = "203.0.113.7", port: int = 4711, tlvs: list[tuple[int, bytes]] | None = None) -> bytes:
    family = socket.AF_INET6 if ":" in client else socket.AF_INET
    to = "2001:db8::80" if ":" in client else "198.51.100.80"
    addresses = socket.inet_pton(family, client) + socket.inet_pton(family, to) + port.to_bytes(2) + (443).to_bytes(2)
    return binary(family=0x21 if ":" in client else 0x11, addresses=addresses, tlvs=tlvs, summed=True)


def asked(port: int, header: bytes, target: str = "/", headers: str = "", peer: str = PEER) -> Answer:
    with Wire(port, source=peer) as wire:
        wire.send(header)
        return wire.get(target, headers)


def outcome(port: int, header: bytes, target: str = "/", headers: str = "", peer: str = PEER) -> int | str:
    try:
        return asked(port, header, target, headers, peer).status
    except Closed as error:
        return "reset" if error.reset else "closed"
    except ConnectionError:
        return "reset"


@pytest.fixture(scope="module")
def behind() -> Iterator[Proxy]:
    with Proxy(listener=LISTED) as found:
        yield found
        found.whole()


class TestNamedClients:
    @pytest.mark.parametrize("header", [line, v2])
    @pytest.mark.parametrize("client", ["203.0.113.7", "2001:db8:7::7"])
    def test_the_client_is_the_one_that_the_header_names(self, behind: Proxy, header: object, client: str) -> None:
        assert callable(header)
        path = f"/named/{header.__name__}/{client.replace(':', '-')}"
        assert asked(behind.port, header(client), path).status == 200
        assert behind.origin.last(path).one("x-forwarded-for") == client
        (record,) = behind.lines(path)
        assert record["client.ip"] == record["source.ip"] == client
        assert record["source.port"] == 4711
        assert record["scrubber.proof"] == "proxy"
        assert record["scrubber.proxy.ip"] == PEER
        assert record["destination.ip"] == ("2001:db8::80" if ":" in client else "198.51.100.80")
        assert record["destination.port"] == 443

    def test_every_request_of_the_connection_is_the_client_s(self, behind: Proxy) -> None:
        with Wire(behind.port, source=PEER) as wire:
            wire.send(line("203.0.113.8"))
            for _ in range(3):
                assert wire.get("/kept").status == 200
        assert [r.one("x-forwarded-for") for r in behind.origin.of("/kept")] == ["203.0.113.8"] * 3

    @pytest.mark.parametrize("header", [line(), v2(tlvs=[(4, bytes(300))])])
    def test_a_header_in_pieces(self, behind: Proxy, header: bytes) -> None:
        request = b"GET /pieces HTTP/1.1\r\nHost: site.test\r\n\r\n"
        with Wire(behind.port, source=PEER) as wire:
            for at in range(0, 60):
                wire.send(header[at : at + 1], pause_s=0)
            wire.send(header[60:] + request[:5])
            wire.send(request[5:])
            assert wire.answer().status == 200
        assert behind.origin.last("/pieces").one("x-forwarded-for") == "203.0.113.7"

    def test_header_and_pipelined_requests_at_once(self, behind: Proxy) -> None:
        with Wire(behind.port, source=PEER) as wire:
            wire.send(v2() + b"GET /piped HTTP/1.1\r\nHost: site.test\r\n\r\n" * 3)
            assert [wire.answer().status for _ in range(3)] == [200] * 3

    def test_tlvs_are_in_the_log(self, behind: Proxy) -> None:
        ssl = b"\x03\0\0\0\x12" + tlv(0x21, b"TLSv1.3") + tlv(0x23, b"TLS_AES_256_GCM_SHA384") + tlv(0x22, b'cn "1"')
        ssl += tlv(0x24, b"SHA256") + tlv(0x25, b"EC256") + tlv(0x26, b"X25519")
        known = [(1, b"h2"), (2, b"www.example.org"), (5, b"id-\xff\n"), (0x20, ssl), (0xEA, b"\x01vpce-08d2")]
        more = [(0x30, b"blue"), (0xE0, bytes(range(33))), (0xEE, b""), (0xEA, b"\x02")]
        header = v2(tlvs=[*known, *more])
        assert asked(behind.port, header, "/tlvs").status == 200
        (record,) = behind.lines("/tlvs")
        assert record["tls.next_protocol"] == "h2"
        assert record["tls.client.server_name"] == "www.example.org"
        assert record["scrubber.proxy.unique_id"] == "id-\xff\n"
        assert record["tls.version"] == "1.3"
        assert record["tls.cipher"] == "TLS_AES_256_GCM_SHA384"
        assert record["tls.client.x509.subject.common_name"] == 'cn "1"'
        assert record["scrubber.proxy.vpc_endpoint"] == "vpce-08d2"
        assert record["tls.server.x509.signature_algorithm"] == "SHA256"
        assert record["tls.server.x509.public_key_algorithm"] == "EC256"
        assert (record["scrubber.proxy.tls_client"], record["scrubber.proxy.tls_verify"]) == (3, 0x12)
        assert record["scrubber.proxy.netns"] == "blue"
        assert record["scrubber.proxy.tlvs"] == [
            f"20.26:{b'X25519'.hex()}",
            f"e0:{bytes(range(32)).hex()}+",
            "ee:",
            "ea:02",
        ]
        assert "scrubber.proxy.tlvs_left_out" not in record

    def test_tlvs_without_a_name_are_bounded_in_the_log(self, behind: Proxy) -> None:
        many = [(0xE0 + n, bytes([n]) * 40) for n in range(8)] + [(0xF0, b"")] * 100
        assert asked(behind.port, v2(tlvs=many), "/others").status == 200
        (record,) = behind.lines("/others")
        assert record["scrubber.proxy.tlvs"] == [f"e{n}:{bytes([n] * 32).hex()}+" for n in range(8)]
        assert record["scrubber.proxy.tlvs_left_out"] == 100

    @pytest.mark.parametrize("name", [b"n" * 100, b'"' * 64, b"\x01" * 64])
    @pytest.mark.parametrize("count", [0, 1, 7, 8, 9])
    def test_tlvs_for_which_the_line_has_no_room_are_counted(self, behind: Proxy, name: bytes, count: int) -> None:
        """What comes before them fills the note to any degree."""
        path = f"/room-{name[0]}-{count}"
        before = [(2, name * 2), (0x30, name), (5, name), (0xEA, b"\x01" + name)]
        others = [(0xE0, bytes(40))] * count
        assert asked(behind.port, v2(tlvs=before + others), path).status == 200
        (record,) = behind.lines(path)
        shown = record.get("scrubber.proxy.tlvs", [])
        assert set(shown) <= {"e0:" + "00" * 32 + "+"}
        assert len(shown) + record.get("scrubber.proxy.tlvs_left_out", 0) == count
        assert record["http.response.status_code"] == 200

    def test_tlvs_of_any_size_and_content_leave_the_line_sound(self, behind: Proxy) -> None:
        header = v2(tlvs=[(1, b"\x00" * 255), (2, b'"\\' * 120), (5, b"\n" * 128), (0xEA, b"\x01" + b"\xff" * 255)])
        assert asked(behind.port, header, "/large").status == 200
        (record,) = behind.lines("/large")
        assert record["client.ip"] == "203.0.113.7"
        assert record["http.response.status_code"] == 200

    @pytest.mark.parametrize(
        "header",
        [b"PROXY UNKNOWN\r\n", b"PROXY UNKNOWN 1.2.3.4 5.6.7.8 1 2\r\n", binary(command=0x20),
         binary(command=0x20, family=0, addresses=b""), binary(family=0x31, addresses=bytes(216))],
    )  # fmt: skip
    def test_a_header_that_names_nobody_leaves_the_socket_s_address(self, behind: Proxy, header: bytes) -> None:
        before = len(behind.origin.of("/local"))
        assert asked(behind.port, header, "/local").status == 200
        assert behind.origin.last("/local").one("x-forwarded-for") == PEER
        record = behind.lines("/local", before + 1)[-1]
        assert record["client.ip"] == PEER
        assert record["scrubber.proof"] == "socket"
        assert "destination.ip" not in record


class TestWhoMay:
    @pytest.mark.parametrize("header", [line(), v2(), b"PROXY UNKNOWN\r\n"])
    def test_of_a_stranger_no_header_is_read(self, behind: Proxy, header: bytes) -> None:
        """What it sends is an HTTP request, and none that is sound."""
        before = len(behind.origin.requests)
        with Wire(behind.port, source=STRANGER) as wire:
            wire.send(header + b"GET /stranger HTTP/1.1\r\nHost: site.test\r\n\r\n")
            assert wire.answer().status == 400
            assert wire.ends() == "closed"
        assert len(behind.origin.requests) == before

    def test_a_stranger_s_plain_request_is_its_own(self, behind: Proxy) -> None:
        assert asked(behind.port, b"", "/plain", peer=STRANGER).status == 200
        assert behind.origin.last("/plain").one("x-forwarded-for") == STRANGER

    @pytest.mark.parametrize(
        "data",
        [
            b"GET / HTTP/1.1\r\nHost: site.test\r\n\r\n",
            b"PROXY TCP4 203.0.113.7 198.51.100.80 04711 443\r\n",
            b"PROXY TCP4 203.0.113.7 198.51.100.80 4711 443\n",
            v2()[:-1] + b"\x00",
            v2()[:12] + b"\x31" + v2()[13:],
            b"\r\n\r\n\0\r\nQUIT\n\x21\x11\xff\xff",
            b"\x16\x03\x01\x02\x00",
            b"P" * 4096,
        ],
    )
    def test_from_a_listed_peer_a_header_is_required(self, behind: Proxy, data: bytes) -> None:
        """Reset without an answer; the access line says why."""

        def refused() -> int:
            return sum(r.get("error.code") == "bad_proxy_header" for r in behind.running.log_lines())

        before, requests = refused(), len(behind.origin.requests)
        with Wire(behind.port, source=PEER) as wire:
            wire.send(data)
            assert wire.ends() in ("reset", "closed")
        eventually(lambda: refused() == before + 1, what="the refusal is recorded")
        assert len(behind.origin.requests) == requests

    def test_a_header_that_does_not_come_in_time(self, proxy: type[Proxy]) -> None:
        with proxy(listener=LISTED, limits='head_timeout = "500ms"') as found:
            for begun in (b"", b"PROXY TCP4 203.", v2()[:20]):
                with Wire(found.port, source=PEER) as wire:
                    wire.send(begun)
                    assert wire.ends() in ("closed", "reset")
            found.whole()

    def test_a_second_header_is_not_one(self, behind: Proxy) -> None:
        assert outcome(behind.port, line() + line("203.0.113.8")) == 400

    def test_the_peer_is_never_blocked(self, behind: Proxy) -> None:
        refused = behind.running.cli("block", PEER, "--reason", "a try")
        assert refused.returncode != 0
        assert asked(behind.port, line()).status == 200


class TestWhatFollowsTheClient:
    def test_a_blocked_client_is_reset_and_others_of_the_peer_are_served(self, proxy: type[Proxy]) -> None:
        with proxy(listener=LISTED) as found:
            done = found.running.cli("block", "203.0.113.7", "--for", "10m", "--reason", "a test")
            assert done.returncode == 0, done.stderr
            for header in (line(), v2()):
                with Wire(found.port, source=PEER) as wire:
                    wire.send(header)
                    assert wire.ends() == "reset", "right after the header, before any request"
            assert outcome(found.port, line("203.0.113.8")) == 200
            assert outcome(found.port, line("203.0.113.7"), peer=OTHER_PEER) == "reset"
            assert len(found.origin.requests) == 1
            assert found.metric("scrubber_connections_dropped_total", reason="blocked") >= 3
            found.whole()

    def test_connections_are_counted_for_the_client(self, proxy: type[Proxy]) -> None:
        with proxy(listener=LISTED, gateway="[limits]\nconnections_client_max = 2") as found:
            wires = [Wire(found.port, source=PEER) for _ in range(6)]
            try:
                for i, wire in enumerate(wires):
                    wire.send(line(f"203.0.113.{i // 2}"))
                    assert wire.get("/").status == 200, "two of each client, six of the peer"
                assert outcome(found.port, line("203.0.113.0")) == "reset"
                assert outcome(found.port, line("203.0.113.0"), peer=OTHER_PEER) == "reset"
                assert outcome(found.port, line("203.0.113.9")) == 200
                wires[0].sock.close()
                eventually(lambda: outcome(found.port, line("203.0.113.0")) == 200, what="a place came free")
            finally:
                for wire in wires:
                    wire.sock.close()
            found.whole()
            assert outcome(found.port, line("203.0.113.0")) == 200

    def test_ipv6_clients_are_counted_by_64(self, proxy: type[Proxy]) -> None:
        with proxy(listener=LISTED, gateway="[limits]\nconnections_client_max = 1") as found:
            with Wire(found.port, source=PEER) as wire:
                wire.send(v2("2001:db8:1:2::1"))
                assert wire.get("/").status == 200
                assert outcome(found.port, v2("2001:db8:1:2:ffff::2")) == "reset"
                assert outcome(found.port, v2("2001:db8:1:3::1")) == 200
            found.whole()

    def test_limits_are_the_client_s(self, proxy: type[Proxy]) -> None:
        rules = '[[rule]]\nname = "few"\nper = "client"\nlimit = "1/min burst 2"\nthen = ["throttle"]\n'
        with proxy(listener=LISTED, rules=rules) as found:
            assert [outcome(found.port, line("203.0.113.7")) for _ in range(3)] == [200, 200, 429]
            assert outcome(found.port, v2("203.0.113.7"), peer=OTHER_PEER) == 429
            assert [outcome(found.port, line("203.0.113.8")) for _ in range(2)] == [200, 200]

    def test_a_rule_that_blocks_names_the_client(self, proxy: type[Proxy]) -> None:
        rules = '[[rule]]\nname = "few"\nper = "client"\nlimit = "1/min burst 2"\nthen = ["block 10m"]\n'
        with proxy(listener=LISTED, rules=rules) as found:
            assert [outcome(found.port, line()) for _ in range(3)] == [200, 200, "reset"]
            (block,) = found.blocks()
            assert block["source"] == "203.0.113.7"
            assert outcome(found.port, line()) == "reset"
            assert outcome(found.port, line("203.0.113.8")) == 200

    def test_connection_rules_are_asked_once_the_client_is_named(self, proxy: type[Proxy]) -> None:
        rules = '[[rule]]\nname = "few"\nper = "client"\nlimit = "2 connections/min"\nthen = ["drop"]\n'
        with proxy(listener=LISTED, rules=rules) as found:
            assert [outcome(found.port, line()) for _ in range(3)] == [200, 200, "reset"]
            assert [outcome(found.port, line("203.0.113.8")) for _ in range(2)] == [200, 200]


class TestBeforeAChain:
    """A CDN in front of a balancer that speaks PROXY: the named address is the chain's first hop."""

    @pytest.fixture(scope="class")
    @classmethod
    def layered(cls) -> Iterator[Proxy]:
        with Proxy(listener=f'{LISTED}\ntrusted_proxies = ["198.51.100.0/24"]') as found:
            yield found
            found.whole()

    def test_the_named_address_is_the_first_hop(self, layered: Proxy) -> None:
        headers = "X-Forwarded-For: 192.0.2.66, 203.0.113.9\r\n"
        assert asked(layered.port, line("198.51.100.5"), "/chain", headers).status == 200
        assert layered.origin.last("/chain").one("x-forwarded-for") == "203.0.113.9, 198.51.100.5"
        (record,) = layered.lines("/chain")
        assert (record["client.ip"], record["source.ip"]) == ("203.0.113.9", "198.51.100.5")
        assert record["scrubber.proof"] == "chain"

    def test_who_is_not_trusted_names_nobody(self, layered: Proxy) -> None:
        assert asked(layered.port, line("203.0.113.50"), "/direct", "X-Forwarded-For: 192.0.2.66\r\n").status == 200
        assert layered.origin.last("/direct").one("x-forwarded-for") == "203.0.113.50"

    def test_the_peer_itself_is_no_hop(self, layered: Proxy) -> None:
        assert asked(layered.port, binary(command=0x20), "/peer", "X-Forwarded-For: 192.0.2.66\r\n").status == 200
        assert layered.origin.last("/peer").one("x-forwarded-for") == PEER


def test_ipv6_peers(proxy: type[Proxy]) -> None:
    with proxy(address="[::1]:0", listener='proxy_protocol = ["::1"]') as found, Wire(found.port, host="::1") as wire:
        wire.send(v2("2001:db8::5"))
        assert wire.get("/six").status == 200
        assert found.origin.last("/six").one("x-forwarded-for") == "2001:db8::5"


def test_a_reload_that_lists_a_peer_counts_for_the_next_connection(proxy: type[Proxy]) -> None:
    with proxy(listener='proxy_protocol = ["192.0.2.1"]') as found:
        assert outcome(found.port, b"") == 200
        file = found.directory / "gateway.toml"
        file.write_text(file.read_text().replace("192.0.2.1", PEER))
        assert found.running.cli("reload").returncode == 0
        eventually(lambda: outcome(found.port, line()) == 200, what="the header is read")
        assert found.origin.last("/").one("x-forwarded-for") == "203.0.113.7"


def test_on_two_workers_with_large_bodies(proxy: type[Proxy]) -> None:
    with proxy(listener=LISTED, workers=2) as found:
        body = bytes(range(256)) * 2048
        found.origin.answers["/large"] = respond(body)
        for i in range(20):
            assert asked(found.port, v2(f"203.0.113.{i}", tlvs=[(4, bytes(i * 37))]), "/large").body == body
        found.whole()
