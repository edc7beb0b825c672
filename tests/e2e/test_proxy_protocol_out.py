"""The PROXY protocol towards origins: each connection names its client first, and serves nobody else."""

from __future__ import annotations

import contextlib
import ipaddress
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.proxy import Proxy
from tests.e2e.recorder import raw, respond
from tests.e2e.support import open_way
from tests.e2e.wire import Wire, eventually
from tests.reference.prefixes import normal_address, packed
from tests.reference.proxy_header import binary

ONE, TWO = "127.0.8.1", "127.0.8.2"


@pytest.fixture(params=["v1", "v2"])
def named(request: pytest.FixtureRequest) -> Iterator[Proxy]:
    with Proxy(proxy_out=request.param) as found:
        yield found
        found.whole()
        assert found.origin.malformed == []


def said(found: Proxy, path: str) -> dict[str, Any]:
    """What the header of the connection said on which the last request for a path came."""
    return found.origin.named[found.origin.last(path).connection]


def address(text: str) -> bytes:
    return packed(normal_address(text))


def test_the_client_and_where_it_connected_to(named: Proxy) -> None:
    with Wire(named.port, source=ONE) as wire:
        assert wire.get("/who").status == 200
        port = wire.sock.getsockname()[1]
    header = said(named, "/who")
    assert header["source"] == (address(ONE), port)
    assert header["destination"] == (address("127.0.0.1"), named.port)
    assert header["version"] == int(named.proxy_out[1])


def test_a_client_s_requests_share_its_connection(named: Proxy) -> None:
    with Wire(named.port, source=ONE) as wire:
        for _ in range(4):
            assert wire.get("/kept").status == 200
    assert len({r.connection for r in named.origin.of("/kept")}) == 1


def test_connections_are_never_shared_between_clients(named: Proxy) -> None:
    with (
        Wire(named.port, source=ONE) as one,
        Wire(named.port, source=TWO) as two,
        Wire(named.port, source=ONE) as again,
    ):
        for _ in range(3):
            for path, wire in (("/one", one), ("/two", two), ("/again", again)):
                assert wire.get(path).status == 200
        ports = {path: w.sock.getsockname()[1] for path, w in (("/one", one), ("/two", two), ("/again", again))}
    for path, port in ports.items():
        assert {named.origin.named[r.connection]["source"][1] for r in named.origin.of(path)} == {port}
    assert named.origin.connections == 3


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_over_a_unix_socket(proxy: type[Proxy], tmp_path: Path, version: str) -> None:
    open_way(tmp_path)
    with proxy(proxy_out=version, origin_host=f"unix:{tmp_path}/app.sock") as found:
        with Wire(found.port, source=ONE) as one, Wire(found.port, source=TWO) as two:
            for _ in range(2):
                for path, wire in (("/one", one), ("/two", two)):
                    assert wire.get(path).status == 200
            port = one.sock.getsockname()[1]
        assert found.origin.connections == 2
        assert said(found, "/one")["source"] == (address(ONE), port)
        assert said(found, "/one")["destination"] == (address("127.0.0.1"), found.port)
        assert said(found, "/two")["source"][0] == address(TWO)
        assert found.origin.malformed == []
        found.whole()


def test_it_goes_with_its_client(named: Proxy) -> None:
    with Wire(named.port, source=ONE) as wire:
        assert wire.get("/").status == 200
        assert named.origin.open == 1
    eventually(lambda: named.origin.open == 0, what="the origin's side ends as well")


def test_idle_connections_of_other_clients_count_and_give_way(proxy: type[Proxy]) -> None:
    with proxy(proxy_out="v2", limits="origin_connections_max = 2") as found, contextlib.ExitStack() as open_wires:
        wires = [open_wires.enter_context(Wire(found.port, source=f"127.0.8.{i}")) for i in range(1, 7)]
        for number, wire in enumerate(wires, 1):
            assert wire.get("/").status == 200
            assert found.gauge("origin_connections") == min(number, 2)
        eventually(lambda: found.origin.open == 2)
        for wire in wires[-2:]:  # the oldest gave way: these have theirs
            assert wire.get("/again").status == 200
        assert found.origin.connections == 6
        open_wires.close()
        found.whole()


def test_an_origin_that_closes_between_requests(named: Proxy) -> None:
    with Wire(named.port, source=ONE) as wire:
        for _ in range(3):
            assert wire.get("/").status == 200
            named.origin.close_connections()
            eventually(lambda: named.origin.open == 0)
    assert named.origin.connections == 3


def test_a_stale_connection_is_tried_once_more(named: Proxy) -> None:
    """The header stands before the request on the second connection too."""
    calls: list[int] = []

    def flaky(exchange: Any) -> None:
        calls.append(exchange.number)
        if len(calls) == 2:
            exchange.reset()
        respond()(exchange)

    named.origin.answers["/flaky"] = flaky
    with Wire(named.port, source=ONE) as wire:
        assert [wire.get("/flaky").status for _ in range(2)] == [200, 200]
        port = wire.sock.getsockname()[1]
    assert [named.origin.named[n]["source"][1] for n in calls] == [port] * 3


def test_bodies_both_ways(named: Proxy) -> None:
    body = bytes(range(256)) * 4096
    named.origin.answers["/up"] = respond(body)
    with Wire(named.port, source=ONE) as wire:
        wire.send(f"POST /up HTTP/1.1\r\nHost: site.test\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
        assert wire.answer().body == body
    assert named.origin.last("/up").body == body


def test_answers_with_bytes_left_over_end_the_connection(named: Proxy) -> None:
    named.origin.answers["/more"] = raw(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\n\r\n")
    with Wire(named.port, source=ONE) as wire:
        assert wire.get("/more").body == b"ok"
        assert wire.get("/next").status == 200
    assert named.origin.last("/next").connection != named.origin.last("/more").connection


def test_a_client_that_a_chain_proved_has_no_port(proxy: type[Proxy]) -> None:
    with proxy(proxy_out="v1", listener=f'trusted_proxies = ["{ONE}"]') as found:
        with Wire(found.port, source=ONE) as wire:
            for client in ("203.0.113.1", "203.0.113.1", "2001:db8::1"):
                assert wire.get("/chain", f"X-Forwarded-For: {client}\r\n").status == 200
        requests = found.origin.of("/chain")
        assert len({r.connection for r in requests}) == 2, "two clients on one connection of the trusted proxy"
        sources = [found.origin.named[r.connection]["source"] for r in requests]
        assert sources == [(address("203.0.113.1"), 0)] * 2 + [(address("2001:db8::1"), 0)]
        found.whole()


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_what_came_by_the_protocol_is_passed_on(proxy: type[Proxy], version: str) -> None:
    with proxy(proxy_out=version, listener=f'proxy_protocol = ["{ONE}"]') as found:
        to = ipaddress.ip_address("198.51.100.80").packed
        for path, header in (
            ("/in", binary(addresses=bytes([203, 0, 113, 7]) + to + (4711).to_bytes(2) + (443).to_bytes(2))),
            ("/local", binary(command=0x20, addresses=b"")),
        ):
            with Wire(found.port, source=ONE) as wire:
                wire.send(header)
                assert wire.get(path).status == 200
        assert said(found, "/in")["source"] == (address("203.0.113.7"), 4711)
        assert said(found, "/in")["destination"] == (address("198.51.100.80"), 443)
        assert said(found, "/local")["source"][0] == address(ONE)
        assert said(found, "/local")["destination"] == (address("127.0.0.1"), found.port)
        found.whole()


def test_the_switch_is_reloaded(proxy: type[Proxy]) -> None:
    """Connections from before keep to what they were opened for."""
    with proxy() as found:
        file = found.directory / "gateway.toml"
        plain = file.read_text()
        with Wire(found.port, source=ONE) as one, Wire(found.port, source=TWO) as two:
            assert one.get("/before").status == 200
            found.origin.proxied = True
            file.write_text(
                plain.replace(
                    f'["{found.origin.address}"]', f'[{{ address = "{found.origin.address}", proxy_protocol = "v2" }}]'
                )
            )
            assert found.running.cli("reload").returncode == 0
            eventually(lambda: one.get("/named").status == 200 and bool(found.origin.named))
            named = found.origin.last("/named").connection
            assert found.origin.named[named]["source"][0] == address(ONE)
            found.origin.proxied = False
            file.write_text(plain)
            assert found.running.cli("reload").returncode == 0
            for _ in range(3):
                assert two.get("/after").status == 200
                assert found.origin.last("/after").connection != named
        found.whole()
