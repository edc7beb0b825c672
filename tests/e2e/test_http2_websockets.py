"""WebSockets over HTTP/2 (RFC 8441): a real server behind, streams before; what is no tunnel must not look like one."""

from __future__ import annotations

import contextlib
import random
import socket
import threading
from collections.abc import Iterator, Sequence

import pytest
from h2.settings import SettingCodes
from websockets.exceptions import ConnectionClosed
from websockets.frames import Frame, Opcode
from websockets.protocol import Protocol, Side
from websockets.sync.server import ServerConnection, serve
from websockets.typing import Subprotocol

from tests.e2e.proxy import Proxy
from tests.e2e.recorder import Exchange, Gone, Recorder, respond
from tests.e2e.support import until
from tests.e2e.test_tunnels import GRANT, echoing
from tests.e2e.wire import fetch
from tests.e2e.wire2 import Answer, Field, Wire2

MIB = 1024 * 1024
EXTRA = """
[[area]]
name = "real"
hosts = ["real.test"]
origins = ["127.0.0.1:{port}"]
[[area]]
name = "few"
hosts = ["few.test"]
origins = ["127.0.0.1:{port}"]
[area.tunnel]
client_max = 2
bytes_max = "100KiB"
idle_timeout = "500ms"
[[area]]
name = "none"
hosts = ["none.test"]
origins = ["{plain}"]
upgrade = []
"""


def echo(connection: ServerConnection) -> None:
    with contextlib.suppress(ConnectionClosed):
        for message in connection:
            if message == "bye":
                connection.close(4000, "grüß")
            connection.send(message)


def choose(_: ServerConnection, offered: Sequence[Subprotocol]) -> Subprotocol | None:
    return next((name for name in offered if name == "other"), None)


@pytest.fixture(scope="module")
def site() -> Iterator[Proxy]:
    """site.test: the recording origin; real.test and others: a server of package websockets."""
    with (
        Recorder() as plain,
        serve(echo, "127.0.0.1", 0, max_size=64 * MIB, ping_interval=None, select_subprotocol=choose) as server,
    ):
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        extra = "[area.cache]\nenabled = true\n" + EXTRA.format(
            port=server.socket.getsockname()[1], plain=plain.address
        )
        areas = ("site", "real", "few", "none")
        cache = '[memory]\ncache = "4MiB"\n'
        rules = '[[rule]]\nname = "any"\nper = "client"\nlimit = "10000/s"\nthen = ["block 1m"]\n'
        with Proxy(gateway=cache, listener="http2 = true", extra=extra, areas=areas, rules=rules) as found:
            found.origin.answers["/ws"] = echoing(b"first")
            yield found
        server.shutdown()
        thread.join()


@pytest.fixture
def wire(site: Proxy) -> Iterator[Wire2]:
    with Wire2(site.port) as found:
        yield found
    site.whole()
    assert not site.gauge("tunnels")
    assert not site.gauge("http2_streams")


def connect(host: str, path: str = "/", version: str = "13", more: Sequence[Field] = ()) -> list[Field]:
    return [
        (":method", "CONNECT"), (":protocol", "websocket"), (":scheme", "http"), (":authority", host), (":path", path),
        *([("sec-websocket-version", version)] if version else []), *more,
    ]  # fmt: skip


class Tunnel:
    """One stream with a WebSocket in it."""

    def __init__(self, wire: Wire2, host: str = "real.test", path: str = "/", more: Sequence[Field] = ()) -> None:
        self.wire = wire
        self.stream = wire.ask(connect(host, path, more=more), end=False)
        self.answer = wire.answers[self.stream]
        wire.until(lambda: self.answer.headers or self.answer.over, "an answer")
        self.protocol = Protocol(Side.CLIENT, max_size=None)
        self.fed = 0

    def flush(self) -> None:
        for data in self.protocol.data_to_send():
            self.wire.send(self.stream, data, end=not data)

    def send(self, message: str | bytes) -> None:
        if isinstance(message, str):
            self.protocol.send_text(message.encode())
        else:
            self.protocol.send_binary(message)
        self.flush()

    def receive(self) -> Frame:
        """The next frame."""
        while True:
            new = bytes(self.answer.body[self.fed :])
            self.fed += len(new)
            if new:
                self.protocol.receive_data(new)
            for event in self.protocol.events_received():
                assert isinstance(event, Frame)
                return event
            assert not self.answer.over, f"over: {self.answer.reset}"
            self.wire.more()

    def close(self, code: int = 1000) -> Frame:
        """Closed by us; the server's close."""
        self.protocol.send_close(code, "done")
        self.flush()
        return self.receive()


def seen(site: Proxy, path: str, count: int = 1) -> dict[str, object]:
    return site.lines(path, count)[-1]


def test_it_is_offered(wire: Wire2) -> None:
    assert wire.get("/").status == 200
    assert wire.server[SettingCodes.ENABLE_CONNECT_PROTOCOL] == 1


def test_heads_both_ways(site: Proxy, wire: Wire2) -> None:
    offered = [
        ("sec-websocket-protocol", "none, other"),
        ("origin", "http://site.test"),
        ("cookie", "a=1"),
        ("cookie", "b=2"),
    ]
    tunnel = Tunnel(wire, "site.test", "/ws?x=1", [*offered, ("sec-websocket-key", "bm90IGZvciB0aGUgb3JpZ2lu")])
    assert tunnel.answer.status == 200
    names = {name for name, _ in tunnel.answer.headers}
    assert not {"upgrade", "connection", "sec-websocket-accept", "content-length", "transfer-encoding"} & names
    wire.until(lambda: tunnel.answer.body == b"first")
    request = site.origin.last("/ws")
    assert request.line == "GET /ws?x=1 HTTP/1.1"
    assert (request.one("host"), request.one("upgrade"), request.one("connection")) == (
        "site.test",
        "websocket",
        "Upgrade",
    )
    assert len(request.one("sec-websocket-key") or "") == 24
    assert request.one("sec-websocket-key") != "bm90IGZvciB0aGUgb3JpZ2lu", "ours: its accept is not the client's to see"
    assert (request.one("sec-websocket-version"), request.one("cookie")) == ("13", "a=1; b=2")
    assert request.all("content-length") == request.all("transfer-encoding") == []
    wire.send(tunnel.stream, b"bytes", end=True)
    wire.until(lambda: tunnel.answer.ended)
    assert bytes(tunnel.answer.body) == b"firstbytes"
    line = seen(site, "/ws")
    assert (line["scrubber.tunnel"], line["scrubber.tunnel_end"], line["http.version"]) == ("websocket", "closed", "2")
    assert (line["http.request.body.bytes"], line["http.response.body.bytes"]) == (5, 10)


def test_the_server_chooses_a_protocol(wire: Wire2) -> None:
    tunnel = Tunnel(wire, more=[("sec-websocket-protocol", "none, other")])
    assert tunnel.answer.one("sec-websocket-protocol") == "other"
    assert tunnel.close().opcode is Opcode.CLOSE


@pytest.mark.parametrize("size", [0, 1, 125, 126, 65_535, 65_536, 400_001])
def test_messages_of_any_size(site: Proxy, wire: Wire2, size: int) -> None:
    noise = random.Random(size).randbytes(size)
    tunnel = Tunnel(wire)
    for _ in range(2):
        tunnel.send(noise)
        got = b""
        while True:
            found = tunnel.receive()
            got += bytes(found.data)
            if found.fin:
                break
        assert got == noise
    assert tunnel.close().opcode is Opcode.CLOSE
    wire.until(lambda: tunnel.answer.ended)


def test_many_beside_requests(wire: Wire2) -> None:
    tunnels = [Tunnel(wire) for _ in range(10)]
    for number in range(5):
        for i, tunnel in enumerate(tunnels):
            tunnel.send(f"{i}:{number}")
        assert wire.get("/").status == 200
        assert [tunnel.receive().data for tunnel in tunnels] == [f"{i}:{number}".encode() for i in range(10)]
    for tunnel in tunnels:
        tunnel.close()
        wire.until(lambda t=tunnel: t.answer.ended)  # type: ignore[misc]
    assert wire.get("/").status == 200


def test_a_close_by_the_client_reaches_the_server_and_comes_back(wire: Wire2) -> None:
    tunnel = Tunnel(wire)
    assert tunnel.close(1001).data[:2] == (1001).to_bytes(2)
    wire.until(lambda: tunnel.answer.ended)
    wire.send(tunnel.stream, b"", end=True)
    assert wire.alive()


def test_a_stream_that_is_left_open_behind_the_close(site: Proxy, wire: Wire2) -> None:
    """As some browsers leave it: no WebSocket is half closed."""
    tunnel = Tunnel(wire)
    tunnel.close()
    wire.until(lambda: tunnel.answer.ended)
    until(lambda: site.gauge("tunnels") == 0)
    wire.until(lambda: tunnel.answer.reset is not None)
    assert tunnel.answer.reset == 0
    assert wire.alive()


def test_a_close_by_the_server(wire: Wire2) -> None:
    tunnel = Tunnel(wire)
    tunnel.send("bye")
    found = tunnel.receive()
    assert (found.opcode, found.data) == (Opcode.CLOSE, (4000).to_bytes(2) + "grüß".encode())
    tunnel.flush()
    wire.until(lambda: tunnel.answer.over)
    assert tunnel.answer.reset in (None, 0)
    assert wire.alive()


@pytest.mark.parametrize("how", ["reset", "gone"])
def test_a_client_that_goes(site: Proxy, wire: Wire2, how: str) -> None:
    other, tunnel = Tunnel(wire), Tunnel(wire, "site.test", "/ws")
    until(lambda: site.gauge("tunnels") == 2)
    if how == "gone":
        wire.sock.close()
    else:
        wire.reset(tunnel.stream)
        until(lambda: site.gauge("tunnels") == 1)
        other.send("still")
        assert other.receive().data == b"still"
        other.close()
    until(lambda: site.origin.open == 0 or site.gauge("origin_connections") == site.origin.open)


def test_a_reset_behind_the_server_s_end(site: Proxy, wire: Wire2) -> None:
    """The server has closed its way, we have not: so nothing but the reset says that it is over."""
    left = threading.Event()

    def half(exchange: Exchange) -> None:
        exchange.send(GRANT)
        exchange.sock.shutdown(socket.SHUT_WR)
        while exchange.sock.recv(65536):
            pass
        left.set()
        raise Gone

    site.origin.answers["/half"] = half
    tunnel = Tunnel(wire, "site.test", "/half")
    wire.until(lambda: tunnel.answer.ended)
    wire.send(tunnel.stream, b"still up")
    assert site.gauge("tunnels") == 1
    wire.reset(tunnel.stream)
    assert left.wait(10)
    until(lambda: site.gauge("tunnels") == 0)


# ── refused ──


def refused(answer: Answer) -> bool:
    """Not to be taken for an open tunnel: any 2xx would be (RFC 8441 5)."""
    return not answer.headers or answer.status >= 400


@pytest.mark.parametrize(
    "fields", [connect("none.test"), connect("site.test", version="")], ids=["no upgrade", "no version"]
)
def test_what_the_area_does_not_allow(wire: Wire2, fields: list[Field]) -> None:
    answer = wire.answer(wire.ask(fields, end=False))
    assert refused(answer), answer
    assert wire.alive()


def test_a_version_that_the_server_does_not_speak(wire: Wire2) -> None:
    answer = wire.answer(wire.ask(connect("real.test", version="99"), end=False))
    assert answer.status in (400, 426)
    assert wire.alive()


@pytest.mark.parametrize("status", ["200 OK", "204 No Content", "302 Found", "403 Forbidden"])
def test_an_origin_that_does_not_switch(site: Proxy, wire: Wire2, status: str) -> None:
    """Its 200 says that this was an ordinary request, to us; to the client it would say that the tunnel is open."""
    site.origin.answers["/plain"] = respond(b"" if "204" in status else b"no", status=status)
    answer = wire.answer(wire.ask(connect("site.test", "/plain"), end=False))
    assert answer.status >= 300 or not answer.headers, answer
    assert "200" in status or "204" in status or answer.status == int(status[:3])
    assert wire.alive()


def test_a_kept_answer_is_no_tunnel(site: Proxy, wire: Wire2) -> None:
    site.origin.answers["/kept"] = respond(b"kept", headers="Cache-Control: max-age=60\r\n")
    assert fetch(site.port, "/kept").status == 200
    assert refused(wire.answer(wire.ask(connect("site.test", "/kept", version=""), end=False)))
    assert refused(wire.answer(wire.ask(connect("site.test", "/kept"), end=False)))
    assert wire.get("/kept").status == 200


def test_a_request_that_is_over_with_its_head(wire: Wire2) -> None:
    """END_STREAM with CONNECT: nothing can ever come up."""
    answer = wire.answer(wire.ask(connect("real.test"), end=True))
    assert answer.over
    assert wire.alive()


# ── limits ──


def test_tunnels_of_a_client_are_bounded(wire: Wire2) -> None:
    open_ = [Tunnel(wire, "few.test") for _ in range(2)]
    assert [tunnel.answer.status for tunnel in open_] == [200, 200]
    third = Tunnel(wire, "few.test")
    assert wire.answer(third.stream).status == 429
    for tunnel in open_:
        tunnel.close()
        wire.until(lambda t=tunnel: t.answer.ended)  # type: ignore[misc]


def test_bytes_of_a_tunnel_are_bounded(site: Proxy, wire: Wire2) -> None:
    tunnel = Tunnel(wire, "few.test", "/bytes")
    tunnel.send(bytes(90_000))
    assert len(tunnel.receive().data) == 90_000
    tunnel.send(bytes(30_000))
    wire.until(lambda: tunnel.answer.reset is not None)
    assert seen(site, "/bytes")["scrubber.tunnel_end"] == "bytes"
    assert wire.alive()


def test_an_idle_tunnel_is_cut(site: Proxy, wire: Wire2) -> None:
    tunnel = Tunnel(wire, "few.test", "/idle")
    wire.until(lambda: tunnel.answer.over)
    assert seen(site, "/idle")["scrubber.tunnel_end"] == "idle"
    assert wire.alive()


def test_a_block_ends_it(site: Proxy) -> None:
    with Wire2(site.port, source="127.0.77.1") as wire:
        tunnel = Tunnel(wire, path="/blocked")
        assert tunnel.answer.status == 200
        assert (
            site.running.admin("POST", "/v1/blocks", {"source": "127.0.77.1", "ttl_s": 60, "reason": "a test"})[0]
            == 201
        )
        wire.until(lambda: tunnel.answer.over or wire.closed)
    assert seen(site, "/blocked")["scrubber.tunnel_end"] == "blocked"
