"""What arrives bit by bit stays so: server-sent events, long polls, requests; ranges and codings are the origin's."""

from __future__ import annotations

import gzip
import http.client
import socket
import subprocess
import time
from collections.abc import Callable, Iterator

import pytest

from tests import wanted
from tests.e2e.proxy import Proxy
from tests.e2e.recorder import Answer as Answering
from tests.e2e.recorder import Exchange, raw
from tests.e2e.stream import piece_at
from tests.e2e.support import SLOW, until
from tests.e2e.wire import Closed, Wire

EVENTS = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-cache\r\n"
FRAMINGS = {
    "chunked": b"Transfer-Encoding: chunked\r\n",
    "close": b"Connection: close\r\n",
    "length": b"Content-Length: 4096\r\n",
}


class Steps:
    """An origin's answer that goes on only when the test has seen what came before."""

    def __init__(self, framing: str, pieces: int, size: int) -> None:
        self.framing, self.pieces, self.size, self.seen = framing, pieces, size, 0

    def __call__(self, exchange: Exchange) -> None:
        exchange.send(EVENTS + FRAMINGS[self.framing] + b"\r\n")
        for i in range(self.pieces):
            until(lambda i=i: self.seen >= i, 10)
            piece = self.piece(i)
            exchange.send(b"%x\r\n%s\r\n" % (len(piece), piece) if self.framing == "chunked" else piece)
        if self.framing == "chunked":
            exchange.send(b"0\r\n\r\n")
        exchange.close()

    def piece(self, i: int) -> bytes:
        return b"data: " + (b"%d " % i).ljust(self.size - 8, b"x") + b"\n\n"


@pytest.mark.parametrize("minor", [0, 1])
@pytest.mark.parametrize("framing", sorted(FRAMINGS))
def test_every_event_arrives_before_the_next_is_made(site: Proxy, framing: str, minor: int) -> None:
    """Nothing waits for more: the origin makes an event only when the client has the one before."""
    steps = Steps(framing, 16, 256)
    site.origin.answers["/events"] = steps
    with Wire(site.port) as wire:
        wire.send(b"GET /events HTTP/1.%d\r\nHost: site.test\r\nAccept: text/event-stream\r\n\r\n" % minor)
        head = wire.head()
        assert head.one("content-type") == "text/event-stream"
        assert head.one("cache-control") == "no-cache"
        chunked = head.one("transfer-encoding") == "chunked"
        assert chunked == (minor == 1 and framing != "length")
        for i in range(16):
            wanted = steps.piece(i)
            got = b""
            while len(got) < len(wanted):
                got += wire.exactly(int(wire.line(), 16)) if chunked else wire.exactly(len(wanted) - len(got))
                assert not chunked or wire.line() == b""
            assert got == wanted
            steps.seen = i + 1
    site.whole()


def quiet(pause_s: float, says: bytes = b"late") -> Answering:
    def answer(exchange: Exchange) -> None:
        exchange.send(EVENTS + FRAMINGS["chunked"] + b"\r\n5\r\nfirst\r\n")
        time.sleep(pause_s)
        exchange.send(b"%x\r\n%s\r\n0\r\n\r\n" % (len(says), says))

    return answer


def test_a_stream_may_be_silent_for_read_timeout_and_no_longer(proxy: type[Proxy]) -> None:
    """And no other deadline ends it: not idle_timeout, not write_timeout, not the minimum rate."""
    limits = 'read_timeout = "3s"\nidle_timeout = "200ms"\nwrite_timeout = "200ms"\nbody_rate_min = "1MiB/s"\n'
    limits += 'body_grace = "0s"\n'
    with proxy(limits=limits) as found:
        found.origin.answers["/patient"] = quiet(1.5)
        found.origin.answers["/silent"] = quiet(12 * SLOW)
        with Wire(found.port) as wire:
            assert wire.get("/patient").body == b"firstlate"
        with Wire(found.port, timeout_s=10 * SLOW) as wire:
            began = time.monotonic()
            with pytest.raises(Closed) as cut:
                wire.get("/silent")
            assert time.monotonic() - began > 2.9
            assert cut.value.data == b"first"
        assert found.lines("/silent")[0]["scrubber.outcome"] == "origin_failed"


def test_comments_keep_a_stream_alive(proxy: type[Proxy]) -> None:
    def answer(exchange: Exchange) -> None:
        exchange.send(EVENTS + FRAMINGS["chunked"] + b"\r\n")
        for _ in range(12):
            time.sleep(0.3)
            exchange.send(b"3\r\n:\n\n\r\n")
        exchange.send(b"0\r\n\r\n")

    with proxy(limits='read_timeout = "2s"') as found:
        found.origin.answers["/events"] = answer
        with Wire(found.port) as wire:
            assert wire.get("/events").body == b":\n\n" * 12


def test_a_route_may_be_more_patient_than_its_area(proxy: type[Proxy]) -> None:
    route = '[[area.route]]\npath = "/events"\nread_timeout = "1h"\n'
    with proxy(limits='read_timeout = "500ms"', extra=route) as found:
        found.origin.answers["/events"] = quiet(1.5)
        found.origin.answers["/other"] = quiet(4 * SLOW)
        with Wire(found.port) as wire:
            assert wire.get("/events").body == b"firstlate"
        with Wire(found.port) as wire, pytest.raises(Closed):
            wire.get("/other")


def test_long_polls_are_held_and_answered_in_their_order_of_events(site: Proxy) -> None:
    """Many at once, each answered when its event comes, whatever came before it."""
    fired: set[str] = set()

    def poll(exchange: Exchange) -> None:
        name = exchange.request.target.split("=")[1]
        until(lambda: name in fired, 20)
        body = name.encode()
        exchange.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))

    site.origin.answers["/poll"] = poll
    wires = {str(i): Wire(site.port) for i in range(10)}
    for name, wire in wires.items():
        wire.send(f"GET /poll?event={name} HTTP/1.1\r\nHost: site.test\r\n\r\n".encode())
    until(lambda: len(site.origin.of("/poll")) == 10)
    for name in reversed(wires):
        fired.add(name)
        assert wires[name].answer().body == name.encode()
    for wire in wires.values():
        wire.sock.close()
    site.whole()


def test_a_poll_that_its_client_gives_up_ends_at_the_origin_too(site: Proxy) -> None:
    ended: list[bool] = []

    def poll(exchange: Exchange) -> None:
        ended.append(exchange.closed_by_gateway(5 * SLOW))
        exchange.close()

    site.origin.answers["/poll"] = poll
    wire = Wire(site.port)
    wire.send(b"GET /poll HTTP/1.1\r\nHost: site.test\r\n\r\n")
    until(lambda: site.origin.of("/poll"))
    wire.reset()
    until(lambda: ended == [True], 10)
    site.whole()


def test_a_request_is_streamed_too(site: Proxy) -> None:
    """The origin has each piece of a body before the client sends the next."""
    heard: list[bytes] = []

    def listen(exchange: Exchange) -> None:
        for _ in range(8):
            while len(exchange.data) < 100:
                exchange.more()
            heard.append(exchange.data[:100])
            exchange.data = exchange.data[100:]
        exchange.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")
        exchange.close()

    site.origin.on_head["/up"] = listen
    with Wire(site.port) as wire:
        wire.send(b"POST /up HTTP/1.1\r\nHost: site.test\r\nContent-Length: 800\r\n\r\n")
        for i in range(8):
            wire.send(b"%d" % i * 100)
            until(lambda i=i: len(heard) == i + 1)
        assert wire.answer("POST").body == b"ok"


# ── codings: the origin's ──


@pytest.mark.parametrize("coding", ["gzip", "br", "zstd", "gzip, br"])
def test_codings_are_the_origin_s(site: Proxy, coding: str) -> None:
    body = gzip.compress(b"x" * 10_000)
    head = f'HTTP/1.1 200 OK\r\nContent-Encoding: {coding}\r\nVary: Accept-Encoding\r\nVary: Origin\r\nETag: W/"1"\r\n'
    site.origin.answers["/coded"] = raw(head.encode() + b"Content-Length: %d\r\n\r\n" % len(body) + body)
    with Wire(site.port) as wire:
        found = wire.get("/coded", f"Accept-Encoding: {coding};q=0.5, *;q=0\r\n")
    assert found.body == body
    assert found.all("vary") == ["Accept-Encoding", "Origin"]
    assert (found.one("content-encoding"), found.one("etag")) == (coding, 'W/"1"')
    assert site.origin.last("/coded").one("accept-encoding") == f"{coding};q=0.5, *;q=0"


# ── ranges: through a real nginx ──

SIZE = 1_000_003


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[bool], int]]:
    """Port of a gateway before nginx (True), or of nginx itself (False); /f is SIZE bytes of the pattern."""
    nginx = wanted.program("nginx")
    home = tmp_path_factory.mktemp("nginx")
    (home / "www").mkdir()
    (home / "www" / "f").write_bytes(bytes(piece_at(0, SIZE)))
    sock = home / "s"
    (home / "nginx.conf").write_text(
        f"daemon off; master_process off; pid {home}/pid; error_log {home}/error.log; events {{}}\n"
        f"http {{ access_log off; gzip on; gzip_proxied any; gzip_types *; gzip_min_length 1;\n"
        f"types {{}} default_type text/plain;\n"
        + "".join(f"{name}_temp_path {home}/{name};\n" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
        + f"server {{ listen unix:{sock}; listen 127.0.0.1:{(port := free_port())}; root {home}/www; }} }}\n"
    )
    program = subprocess.Popen([nginx, "-p", str(home), "-e", str(home / "error.log"), "-c", str(home / "nginx.conf")])
    try:
        until(sock.exists)
        with Proxy(origins=[f"127.0.0.1:{port}"]) as found:
            yield lambda through: found.port if through else port
    finally:
        program.terminate()
        program.wait(10)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def ask(port: int, headers: dict[str, str]) -> tuple[int, dict[str, str], bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20 * SLOW)
    try:
        connection.request("GET", "/f", headers={"Host": "site.test", **headers})
        response = connection.getresponse()
        return response.status, {k.lower(): v for k, v in response.getheaders()}, response.read()
    finally:
        connection.close()


def test_single_suffix_and_open_ranges(files: Callable[[bool], int]) -> None:
    for asked, first, length in (
        ("bytes=0-0", 0, 1),
        ("bytes=100-65636", 100, 65537),
        (f"bytes={SIZE - 10}-", SIZE - 10, 10),
        ("bytes=-777", SIZE - 777, 777),
        ("bytes=5-99999999", 5, SIZE - 5),
    ):
        status, headers, body = ask(files(True), {"Range": asked})
        assert status == 206
        assert headers["content-range"] == f"bytes {first}-{first + length - 1}/{SIZE}"
        assert body == piece_at(first, length)


def test_a_range_that_cannot_be(files: Callable[[bool], int]) -> None:
    status, headers, _ = ask(files(True), {"Range": f"bytes={SIZE}-"})
    assert (status, headers["content-range"]) == (416, f"bytes */{SIZE}")


def test_several_ranges_at_once(files: Callable[[bool], int]) -> None:
    status, headers, body = ask(files(True), {"Range": "bytes=0-9,1000-1009,-10"})
    assert status == 206
    kind, _, boundary = headers["content-type"].partition("; boundary=")
    assert kind == "multipart/byteranges"
    parts = body.split(f"--{boundary}".encode())
    assert len(parts) == 5
    found = [part.split(b"\r\n\r\n", 1)[1].removesuffix(b"\r\n") for part in parts[1:4]]
    assert found == [piece_at(0, 10), piece_at(1000, 10), piece_at(SIZE - 10, 10)]


def test_if_range_and_conditions(files: Callable[[bool], int]) -> None:
    _, headers, _ = ask(files(True), {})
    etag, modified = headers["etag"], headers["last-modified"]
    assert headers["accept-ranges"] == "bytes"
    for validator, status in ((etag, 206), (modified, 206), ('"other"', 200)):
        found, _, body = ask(files(True), {"Range": "bytes=10-19", "If-Range": validator})
        assert found == status
        assert len(body) == (10 if status == 206 else SIZE)
    assert ask(files(True), {"If-None-Match": etag})[0] == 304
    assert ask(files(True), {"If-Match": '"other"'})[0] == 412


@pytest.mark.parametrize(
    "headers", [{}, {"Accept-Encoding": "gzip"}, {"Range": "bytes=3-5"}, {"Range": "bytes=-1,0-0"}]
)
def test_the_same_as_straight_from_nginx(files: Callable[[bool], int], headers: dict[str, str]) -> None:
    mine, theirs = ask(files(True), headers), ask(files(False), headers)
    assert mine[0] == theirs[0]
    for name in (
        "content-encoding",
        "content-range",
        "vary",
        "etag",
        "accept-ranges",
        "last-modified",
        "content-length",
    ):
        assert mine[1].get(name) == theirs[1].get(name), name
    if "boundary" not in theirs[1]["content-type"]:
        assert mine[2] == theirs[2]
    if "Accept-Encoding" in headers:
        assert gzip.decompress(mine[2]) == piece_at(0, SIZE)
