"""Upgrades and tunnels, byte by byte: what becomes one, what flows and when, how each ends, and that nothing stays."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from tests.e2e.proxy import Proxy
from tests.e2e.recorder import Answer as Answering
from tests.e2e.recorder import Exchange, Gone, Recorder, raw, respond
from tests.e2e.support import SLOW, until
from tests.e2e.wire import Closed, Wire, eventually, fetch

ASK = (
    b"GET /ws HTTP/1.1\r\nHost: site.test\r\nConnection: keep-alive, Upgrade\r\nUpgrade: WebSocket\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
GRANT = (
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
)


def frame(opcode: int, payload: bytes = b"") -> bytes:
    """A server's frame."""
    return (
        bytes([0x80 | opcode])
        + (bytes([len(payload)]) if len(payload) < 126 else b"\x7e" + struct.pack("!H", len(payload)))
        + payload
    )


def echoing(behind: bytes = b"", pause_s: float = 0.0) -> Answering:
    """Grants the upgrade, then sends everything back; ends when the gateway does."""

    def answer(exchange: Exchange) -> None:
        if pause_s:
            time.sleep(pause_s)
        exchange.send(GRANT + behind)
        data, exchange.data = exchange.data, b""
        exchange.request.body += data
        while data or (data := exchange.sock.recv(65536)):
            exchange.request.body += data
            exchange.send(data)
            data = b""
        exchange.close()

    return answer


def tunnel(port: int, ask: bytes = ASK, source: str | None = None) -> Wire:
    """An open one."""
    wire = Wire(port, source=source)
    wire.send(ask)
    head = wire.head()
    assert head.status == 101, head
    return wire


@pytest.fixture
def ws(site: Proxy) -> Iterator[Proxy]:
    site.origin.answers["/ws"] = echoing()
    yield site
    site.whole()
    until(lambda: site.gauge("tunnels") == 0)


def ended(proxy: Proxy, count: int = 1) -> list[object]:
    """How the tunnels so far ended."""
    return [line.get("scrubber.tunnel_end") for line in proxy.lines("/ws", count)]


def test_heads_are_written_anew_both_ways(ws: Proxy) -> None:
    with Wire(ws.port) as wire:
        wire.send(ASK)
        head = wire.head()
        assert (head.status, head.one("upgrade"), head.one("connection")) == (101, "websocket", "Upgrade")
        assert head.one("sec-websocket-accept") == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
        assert head.one("x-request-id")
        assert head.one("content-length") is None
        assert head.one("transfer-encoding") is None
        request = ws.origin.last("/ws")
        assert request.one("upgrade") == "websocket"
        assert request.one("connection") == "Upgrade"
        assert request.one("sec-websocket-key") == "dGhlIHNhbXBsZSBub25jZQ=="
        assert request.one("sec-websocket-version") == "13"
        wire.send(b"hello")
        assert wire.exactly(5) == b"hello"
        assert ws.gauge("tunnels") == 1
        wire.finish()
        assert wire.ends() == "closed"


def test_the_account_is_one_line_at_its_end(proxy: type[Proxy]) -> None:
    with proxy() as found:
        found.origin.answers["/ws"] = echoing(behind=b"first")
        with tunnel(found.port) as wire:
            assert wire.exactly(5) == b"first"
            wire.send(b"x" * 1000)
            wire.exactly(1000)
            assert not [line for line in found.running.log_lines() if line.get("url.path") == "/ws"]
            time.sleep(0.3)
            wire.finish()
            assert wire.ends() == "closed"
        (line,) = found.lines("/ws")
        assert line["http.response.status_code"] == 101
        assert (line["http.request.body.bytes"], line["http.response.body.bytes"]) == (1000, 1005)
        assert (line["scrubber.tunnel"], line["scrubber.tunnel_end"]) == ("websocket", "closed")
        assert int(str(line["event.duration"])) >= 300_000_000
        assert "event.outcome" not in line
        found.whole()


@pytest.mark.parametrize(
    ("ask", "answer"),
    [
        (ASK, raw(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nno")),
        (
            ASK,
            raw(
                b"HTTP/1.1 426 Upgrade Required\r\nUpgrade: websocket\r\nConnection: upgrade\r\n"
                b"Content-Length: 0\r\n\r\n"
            ),
        ),
    ],
    ids=["200", "426"],
)
def test_any_other_answer_is_an_ordinary_one(site: Proxy, ask: bytes, answer: Answering) -> None:
    """And the connection lives on: what came behind the head is the next request, not bytes for a tunnel."""
    site.origin.answers["/ws"] = answer
    with Wire(site.port) as wire:
        wire.send(ask + b"GET /next HTTP/1.1\r\nHost: site.test\r\n\r\n")
        assert wire.answer().status in (200, 426)
        assert wire.answer().body == b"ok"
        assert site.origin.last("/next").method == "GET"
    site.whole()


@pytest.mark.parametrize(
    "answer",
    [
        raw(GRANT.replace(b"Upgrade: websocket", b"Upgrade: chat")),
        raw(GRANT.replace(b"Upgrade: websocket\r\n", b"")),
        raw(GRANT.replace(b"Connection: Upgrade\r\n", b"")),
        raw(GRANT.replace(b"Upgrade: websocket", b"Upgrade: websocket, chat")),
    ],
    ids=["other", "none", "no connection", "several"],
)
def test_a_101_that_grants_something_else_is_a_bad_gateway(site: Proxy, answer: Answering) -> None:
    site.origin.answers["/ws"] = answer
    with Wire(site.port) as wire:
        wire.send(ASK)
        assert wire.answer().status == 502
    site.whole()


def test_a_101_that_nobody_asked_for_is_a_bad_gateway(site: Proxy) -> None:
    site.origin.answers["/ws"] = raw(GRANT)
    with Wire(site.port) as wire:
        assert wire.get("/ws").status == 502
    site.whole()


@pytest.mark.parametrize(
    "ask",
    [
        ASK.replace(b"Upgrade: WebSocket", b"Upgrade: h2c"),
        ASK.replace(b"Upgrade: WebSocket", b"Upgrade: websocket, h2c"),
        ASK.replace(b"Upgrade: WebSocket", b"Upgrade: websocket\r\nUpgrade: chat"),
        ASK.replace(b"Upgrade: WebSocket", b"Upgrade: websocket/13"),
        ASK.replace(b"keep-alive, Upgrade", b"keep-alive"),
        ASK.replace(b"HTTP/1.1", b"HTTP/1.0"),
        ASK.replace(b"GET", b"OPTIONS"),
        ASK.replace(b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n", b""),
        ASK.replace(b"dGhlIHNhbXBsZSBub25jZQ==", b"short"),
        ASK.replace(b"Sec-WebSocket-Version: 13\r\n", b""),
        ASK.replace(b"GET", b"POST").replace(b"\r\n\r\n", b"\r\nContent-Length: 3\r\n\r\nabc"),
    ],
    ids=[
        "not listed",
        "several",
        "twice",
        "a version",
        "no connection",
        "1.0",
        "method",
        "no key",
        "no real key",
        "no version",
        "with a body",
    ],
)
def test_what_is_not_let_through_is_dropped(site: Proxy, ask: bytes) -> None:
    site.origin.answers["/ws"] = respond()
    with Wire(site.port) as wire:
        wire.send(ask)
        assert wire.answer().status == 200
    request = site.origin.last("/ws")
    assert request.one("upgrade") is None
    assert request.one("connection") is None
    site.whole()


def test_an_area_may_let_nothing_through_or_something_else(proxy: type[Proxy]) -> None:
    with proxy(area="upgrade = []") as found:
        with Wire(found.port) as wire:
            wire.send(ASK)
            assert wire.answer().status == 200
        assert found.origin.last("/ws").one("upgrade") is None
    with proxy(area='upgrade = ["Chat/2"]') as found:
        found.origin.answers["/ws"] = raw(GRANT.replace(b"Upgrade: websocket", b"upgrade: CHAT/2") + b"any bytes")
        with tunnel(found.port, ASK.replace(b"Upgrade: WebSocket", b"Upgrade: chat/2")) as wire:
            assert wire.exactly(9) == b"any bytes"
        assert found.lines("/ws")[0]["scrubber.tunnel"] == "chat/2"
        found.whole()


def test_what_comes_before_the_101_is_held_back(ws: Proxy) -> None:
    seen: list[bytes] = []

    def late(exchange: Exchange) -> None:
        exchange.sock.settimeout(0.5)
        with contextlib.suppress(TimeoutError):
            seen.append(exchange.data or exchange.sock.recv(65536))
        exchange.sock.settimeout(None)
        echoing()(exchange)

    ws.origin.answers["/ws"] = late
    early = bytes(range(256)) * 4096  # more than the head's buffer: the rest waits in the socket
    with Wire(ws.port, timeout_s=20 * SLOW) as wire:
        sender = threading.Thread(target=wire.send, args=(ASK + early,), daemon=True)
        sender.start()
        assert wire.head().status == 101
        assert wire.exactly(len(early)) == early
        sender.join()
        wire.finish()
        assert wire.ends() == "closed"
    assert seen == []


def test_half_closed_by_the_client_the_origin_still_speaks(ws: Proxy) -> None:
    def last_word(exchange: Exchange) -> None:
        exchange.send(GRANT)
        while exchange.sock.recv(65536):
            pass
        exchange.send(b"and yet")
        exchange.close()

    ws.origin.answers["/ws"] = last_word
    with tunnel(ws.port) as wire:
        wire.send(b"said all")
        wire.finish()
        assert wire.rest() == b"and yet"


def test_half_closed_by_the_origin_the_client_still_speaks(ws: Proxy) -> None:
    heard: list[bytes] = []

    def listens(exchange: Exchange) -> None:
        exchange.send(GRANT + b"said all")
        exchange.sock.shutdown(socket.SHUT_WR)
        while data := exchange.sock.recv(65536):
            heard.append(data)
        raise Gone

    ws.origin.answers["/ws"] = listens
    with tunnel(ws.port) as wire:
        assert wire.rest() == b"said all"
        wire.send(b"and yet")
        wire.finish()
        eventually(lambda: b"".join(heard) == b"and yet")


@pytest.mark.parametrize("who", ["client", "origin"])
def test_an_abort_on_one_side_ends_the_other(ws: Proxy, who: str) -> None:
    gone = threading.Event()

    def answer(exchange: Exchange) -> None:
        exchange.send(GRANT)
        exchange.sock.recv(10)
        if who == "origin":
            exchange.reset()
        try:
            while exchange.sock.recv(65536):
                pass
        finally:
            gone.set()

    ws.origin.answers["/ws"] = answer
    with tunnel(ws.port) as wire:
        wire.send(b"go")
        if who == "client":
            time.sleep(0.1)
            wire.reset()
            assert gone.wait(5 * SLOW)
        else:
            assert wire.ends() != "open"


def in_flight(proxy: Proxy) -> int:
    return proxy.gauge("origin_in_flight")


def test_tunnels_take_no_place_of_a_request(proxy: type[Proxy]) -> None:
    """As many as the origin has places, however each ends: requests have all of them."""
    with proxy(limits='origin_connections_max = 2\norigin_wait = "500ms"') as found:
        found.origin.answers["/ws"] = echoing()
        found.origin.answers["/cut"] = lambda exchange: (exchange.send(GRANT), exchange.sock.recv(1), exchange.reset())
        for end in ("closed", "client resets", "origin resets"):
            ask = ASK.replace(b"/ws", b"/cut") if end == "origin resets" else ASK
            open_ones = [tunnel(found.port, ask) for _ in range(2)]
            assert (found.gauge("tunnels"), in_flight(found)) == (2, 0)
            for _ in range(3):
                assert fetch(found.port, "/plain").status == 200
            for wire in open_ones:
                if end == "closed":
                    wire.finish()
                    assert wire.ends() == "closed"
                elif end == "client resets":
                    wire.reset()
                else:
                    wire.send(b"x")
                    assert wire.ends() != "open"
                wire.sock.close()
            until(lambda: found.gauge("tunnels") == 0)
            assert in_flight(found) == 0
        # Two places, not more, not fewer.
        go = threading.Event()
        found.origin.answers["/held"] = lambda exchange: (go.wait(30), respond()(exchange))
        held = [Wire(found.port) for _ in range(2)]
        for wire in held:
            wire.send(b"GET /held HTTP/1.1\r\nHost: site.test\r\n\r\n")
        until(lambda: in_flight(found) == 2)
        assert fetch(found.port, "/plain").status == 503
        go.set()
        for wire in held:
            assert wire.answer().status == 200
            wire.sock.close()
        found.whole()
        assert in_flight(found) == 0


def test_who_waits_has_the_place_that_a_tunnel_leaves(proxy: type[Proxy]) -> None:
    with proxy(limits="origin_connections_max = 1") as found:
        found.origin.answers["/ws"] = echoing(pause_s=0.5)
        with Wire(found.port) as wire, Wire(found.port) as other:
            wire.send(ASK)
            until(lambda: in_flight(found) == 1)
            other.send(b"GET /plain HTTP/1.1\r\nHost: site.test\r\n\r\n")
            assert wire.head().status == 101
            assert other.answer().status == 200
            wire.send(b"still open")
            assert wire.exactly(10) == b"still open"
        found.whole()


def test_an_idle_tunnel_is_no_load(proxy: type[Proxy]) -> None:
    """Least connections is about requests: the origin with a tunnel has its turn as before."""
    with contextlib.closing(Recorder()) as other, proxy() as found:
        found.origin.answers["/ws"] = other.answers["/ws"] = echoing()
        file = found.directory / "gateway.toml"
        file.write_text(
            file.read_text().replace(f'["{found.origin.address}"]', f'["{found.origin.address}", "{other.address}"]')
        )
        found.reload("")
        with tunnel(found.port):
            for _ in range(10):
                assert fetch(found.port, "/plain").status == 200
        assert (len(found.origin.of("/plain")), len(other.of("/plain"))) == (5, 5)


LIMITS = """
[area.tunnel]
idle_timeout = "600ms"
message_timeout = "1500ms"
lifetime_max = "4s"
bytes_max = "100KiB"
client_max = 2
total_max = 3
"""


@pytest.fixture(scope="module")
def tight(proxy: type[Proxy]) -> Iterator[Proxy]:
    with proxy(extra=LIMITS, workers=2) as found:
        found.origin.answers["/ws"] = echoing()
        yield found


def end_of(proxy: Proxy, act: Callable[[Wire], object]) -> object:
    """How one tunnel ends after `act`."""
    before = len([line for line in proxy.running.log_lines() if line.get("scrubber.tunnel")])
    with tunnel(proxy.port) as wire:
        act(wire)
        assert wire.ends(10 * SLOW) != "open"
    how = ended(proxy, before + 1)[-1]
    proxy.whole()
    return how


def test_an_idle_tunnel_is_cut(tight: Proxy) -> None:
    assert end_of(tight, lambda wire: wire.send(frame(1, b"hi"))) == "idle"


def speak(wire: Wire, frame_bytes: bytes, seconds: float) -> None:
    """This frame every 100 ms, until the other side has enough."""
    end = time.monotonic() + seconds
    with contextlib.suppress(OSError):
        while time.monotonic() < end:
            wire.send(frame_bytes)
            time.sleep(0.1)


def test_pings_alone_are_no_messages(tight: Proxy) -> None:
    began = time.monotonic()
    assert end_of(tight, lambda wire: speak(wire, frame(9, b"ping"), 3.5 * SLOW)) == "no_message"
    assert time.monotonic() - began > 1.4


def test_messages_keep_it_until_its_lifetime(tight: Proxy) -> None:
    began = time.monotonic()
    assert end_of(tight, lambda wire: speak(wire, frame(2, b"word"), 8 * SLOW)) == "lifetime"
    assert time.monotonic() - began > 3.9


def test_bytes_each_way_have_a_limit(tight: Proxy) -> None:
    def send(wire: Wire) -> None:
        with contextlib.suppress(OSError):
            wire.send(b"x" * 102400)
            assert wire.exactly(102400) == b"x" * 102400, "just the limit passes"
            wire.send(b"x")

    assert end_of(tight, send) == "bytes"


def test_a_client_s_tunnels_and_all_of_them_are_counted(tight: Proxy) -> None:
    """Over all workers; the place is free again when one ends."""
    mine = [tunnel(tight.port, source="127.0.7.1") for _ in range(2)]
    with Wire(tight.port, source="127.0.7.1") as wire:
        wire.send(ASK)
        assert wire.answer().status == 429
    other = tunnel(tight.port, source="127.0.7.2")
    with Wire(tight.port, source="127.0.7.3") as wire:
        wire.send(ASK)
        assert wire.answer().status == 503
        assert wire.get("/plain", host="site.test").status == 200, "the connection lives on"
    for wire in (*mine, other):
        wire.finish()
        assert wire.ends() == "closed"
        wire.sock.close()
    tight.whole()
    with tunnel(tight.port, source="127.0.7.1"):
        pass
    tight.whole()


def test_a_refused_upgrade_gives_its_place_back(tight: Proxy) -> None:
    tight.origin.answers["/no"] = respond(status="403 Forbidden")
    with Wire(tight.port, source="127.0.7.9") as wire:
        for _ in range(6):
            wire.send(ASK.replace(b"/ws", b"/no"))
            assert wire.answer().status == 403


def test_a_blocked_client_s_tunnels_are_cut(proxy: type[Proxy]) -> None:
    with proxy() as found:
        found.origin.answers["/ws"] = echoing()
        with tunnel(found.port, source="127.0.8.1") as wire, tunnel(found.port, source="127.0.8.2") as other:
            wire.send(b"here")
            assert wire.exactly(4) == b"here"
            done = found.running.cli("block", "127.0.8.1", "--for", "1m", "--reason", "test")
            assert done.returncode == 0, done.stdout + done.stderr
            assert wire.ends(5 * SLOW) != "open"
            other.send(b"still")
            assert other.exactly(5) == b"still"
        assert sorted(str(how) for how in ended(found, 2))[0] == "blocked"
        found.whole()


def test_a_tunnel_goes_over_to_the_policy_in_force(proxy: type[Proxy]) -> None:
    """Many reloads do not pile up policies behind one tunnel, and today's limits hold for it."""
    with proxy(extra='[area.tunnel]\nidle_timeout = "1m"\n') as found:
        found.origin.answers["/ws"] = echoing()
        with tunnel(found.port) as wire:
            found.reload("")
            time.sleep(1.2)
            wire.send(b"here")
            assert wire.exactly(4) == b"here"
            file = found.directory / "gateway.toml"
            file.write_text(file.read_text().replace('"1m"', '"500ms"'))
            found.reload("")
            assert wire.ends(10 * SLOW) != "open"
        assert ended(found) == ["idle"]
        found.whole()


def test_an_area_that_revokes_the_protocol_ends_its_tunnels(proxy: type[Proxy]) -> None:
    with proxy(area='upgrade = ["websocket"]') as found:
        found.origin.answers["/ws"] = echoing()
        with tunnel(found.port) as wire:
            file = found.directory / "gateway.toml"
            file.write_text(file.read_text().replace('upgrade = ["websocket"]', "upgrade = []"))
            found.reload("")
            assert wire.ends(10 * SLOW) != "open"
        assert ended(found) == ["revoked"]
        found.whole()


def test_a_reader_that_does_not_read_holds_one_window(proxy: type[Proxy]) -> None:
    with proxy(limits='write_timeout = "2s"') as found:
        sent = [0]

        def pour(exchange: Exchange) -> None:
            exchange.send(GRANT)
            for _ in range(1000):
                exchange.send(b"z" * 65536)
                sent[0] += 65536

        found.origin.answers["/ws"] = pour
        before = found.rss_bytes()
        with Wire(found.port, receive_bytes=4096) as wire:
            wire.send(ASK)
            time.sleep(1.0)
            stopped = sent[0]
            assert stopped < 60 << 20, "the origin is not made to wait"
            assert found.rss_bytes() - before < 4 << 20
            assert wire.head().status == 101
            time.sleep(3 * SLOW)
            with pytest.raises(Closed):
                wire.exactly(65_536_000)
        assert ended(found) == ["not_read"]
        found.whole()


def test_a_gateway_that_stops_ends_tunnels_at_the_deadline(proxy: type[Proxy]) -> None:
    with proxy() as found:
        found.origin.answers["/ws"] = echoing()
        with tunnel(found.port) as wire:
            stopping = threading.Thread(target=found.running.stop, args=(25 * SLOW,), daemon=True)
            stopping.start()
            wire.send(b"until then")
            assert wire.exactly(10) == b"until then"
            assert wire.ends(20 * SLOW) != "open"
            stopping.join()
