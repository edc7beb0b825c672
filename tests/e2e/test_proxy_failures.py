"""When one side fails: what the other is told, what is tried again, and that nothing stays behind in the pools."""

from __future__ import annotations

import contextlib
import os
import threading
import time

import pytest

from tests.e2e.proxy import Proxy
from tests.e2e.recorder import Exchange, Gone, Recorder, raw, respond
from tests.e2e.stream import Deaf
from tests.e2e.support import SLOW
from tests.e2e.wire import Closed, Wire, eventually, fetch

MIB = 1024 * 1024


def test_dead_origin_is_502(proxy: type[Proxy]) -> None:
    with proxy() as found:
        found.origin.stop_listening()
        with Wire(found.port) as wire:
            assert wire.get("/").status == 502
            assert wire.get("/").status == 502, "the client's connection lives on"
        found.whole()


def test_an_origin_that_comes_back_is_used_again(proxy: type[Proxy]) -> None:
    with proxy() as found:
        port = found.origin.port
        found.origin.close()
        assert fetch(found.port, "/").status == 502
        with Recorder(port=port):
            eventually(lambda: fetch(found.port, "/").status == 200, 10, "the origin is back and not used")


def test_hanging_origin_is_504(proxy: type[Proxy]) -> None:
    with proxy(limits='read_timeout = "300ms"') as found:
        released = threading.Event()

        def hang(_: Exchange) -> None:
            released.wait(20)

        found.origin.answers["/hang"] = hang
        with Wire(found.port) as wire:
            began = time.monotonic()
            assert wire.get("/hang").status == 504
            assert time.monotonic() - began < 5
        released.set()
        assert fetch(found.port, "/well").status == 200
        found.whole()


def test_origin_that_does_not_accept_is_504_or_502(proxy: type[Proxy]) -> None:
    """Its backlog is full: connects hang until the connect deadline."""
    deaf = Deaf()
    with (
        contextlib.closing(deaf),
        proxy(origins=[f"127.0.0.1:{deaf.port}"], limits='connect_timeout = "300ms"') as found,
    ):
        began = time.monotonic()
        assert fetch(found.port, "/").status in (502, 504)
        assert time.monotonic() - began < 5
        found.whole()


@pytest.mark.parametrize(
    "text",
    [
        b"nonsense\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nab",
        b"HTTP/1.1 200 OK\r\nBad Name: x\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 99 Odd\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"a" * 70000 + b"\r\n\r\n",
        b"",
    ],
    ids=["nonsense", "both-framings", "two-lengths", "bad-name", "bad-status", "huge-head", "silent-close"],
)
def test_bad_answers_are_502(site: Proxy, text: bytes) -> None:
    site.origin.answers["/bad"] = raw(text, close=True)
    answer = fetch(site.port, "/bad")
    assert answer.status == 502
    site.whole()


@pytest.mark.parametrize(
    "head",
    [b"Content-Length: 1000\r\n\r\n", b"Transfer-Encoding: chunked\r\n\r\n3e8\r\n"],
    ids=["length", "chunked"],
)
@pytest.mark.parametrize("how", ["fin", "rst"])
def test_origin_that_ends_in_mid_body_ends_the_client(site: Proxy, head: bytes, how: str) -> None:
    """A truncated answer must not look whole."""

    def answer(exchange: Exchange) -> None:
        exchange.send(b"HTTP/1.1 200 OK\r\n" + head + b"x" * 500)
        time.sleep(0.1)
        exchange.close() if how == "fin" else exchange.reset()

    site.origin.answers["/cut"] = answer
    with Wire(site.port) as wire:
        wire.send(b"GET /cut HTTP/1.1\r\nHost: site.test\r\n\r\n")
        try:
            got = wire.answer()
            pytest.fail(f"a truncated answer looked whole: {len(got.body)} bytes")
        except Closed as error:
            assert error.data.count(b"x") <= 500
    site.whole()


def test_a_hanging_body_ends_the_client(proxy: type[Proxy]) -> None:
    with proxy(limits='read_timeout = "300ms"') as found:

        def answer(exchange: Exchange) -> None:
            exchange.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nabc")
            exchange.closed_by_gateway(10)
            raise Gone

        found.origin.answers["/stall"] = answer
        with Wire(found.port) as wire, pytest.raises(Closed):
            wire.get("/stall")
        found.whole()


def stale(found: Proxy) -> None:
    """Leaves a pooled connection, which the origin then ends at the moment it is used again."""
    assert fetch(found.port, "/warm").status == 200
    assert found.origin.connections == 1


def test_a_get_on_a_stale_connection_is_tried_once_more(proxy: type[Proxy]) -> None:
    with proxy() as found:

        def once(exchange: Exchange) -> None:
            if exchange.number == 0:
                exchange.close()

        stale(found)
        found.origin.on_head["/stale"] = once
        assert fetch(found.port, "/stale").status == 200
        assert [r.connection for r in found.origin.of("/stale")] == [0, 1]


@pytest.mark.parametrize(
    ("method", "length"),
    [
        ("GET", "Content-Length: 0\r\n"),
        ("PUT", "Content-Length: 0\r\n"),
        ("PUT", ""),
        ("DELETE", "Content-Length: 0\r\n"),
    ],
)
def test_a_body_of_length_0_is_none(proxy: type[Proxy], method: str, length: str) -> None:
    with proxy() as found:

        def once(exchange: Exchange) -> None:
            if exchange.number == 0:
                exchange.close()

        stale(found)
        found.origin.on_head["/stale"] = once
        with Wire(found.port) as wire:
            wire.send(f"{method} /stale HTTP/1.1\r\nHost: site.test\r\n{length}\r\n".encode())
            assert wire.answer().status == 200
        first, second = found.origin.of("/stale")
        assert (first.connection, second.connection) == (0, 1)
        assert second.one("content-length") == ("0" if length else None), "as the client framed it"


def test_a_get_is_not_tried_a_third_time(proxy: type[Proxy]) -> None:
    with proxy() as found:
        stale(found)
        found.origin.on_head["/stale"] = lambda exchange: exchange.close()
        assert fetch(found.port, "/stale").status == 502
        assert len(found.origin.of("/stale")) == 2


def test_a_get_on_a_fresh_connection_is_not_tried_again(proxy: type[Proxy]) -> None:
    with proxy() as found:
        found.origin.on_head["/fresh"] = lambda exchange: exchange.close()
        assert fetch(found.port, "/fresh").status == 502
        assert len(found.origin.of("/fresh")) == 1


@pytest.mark.parametrize("method", ["POST", "PATCH", "PROPFIND"])
def test_what_may_have_effects_is_never_tried_again(proxy: type[Proxy], method: str) -> None:
    with proxy() as found:
        stale(found)
        found.origin.on_head["/stale"] = lambda exchange: exchange.close()
        with Wire(found.port) as wire:
            wire.send(f"{method} /stale HTTP/1.1\r\nHost: site.test\r\nContent-Length: 2\r\n\r\nok".encode())
            assert wire.answer(method).status == 502
        assert len(found.origin.of("/stale")) == 1


def test_connections_that_the_origin_closed_while_idle_cost_nobody(proxy: type[Proxy]) -> None:
    with proxy() as found:
        for _ in range(3):
            stale_before = found.origin.connections
            with Wire(found.port) as wire:
                wire.send(b"POST /idle HTTP/1.1\r\nHost: site.test\r\nContent-Length: 2\r\n\r\nok")
                assert wire.answer("POST").status == 200
            assert found.origin.connections >= stale_before
            found.origin.close_connections()
            eventually(lambda: found.origin.open == 0)
            time.sleep(0.1)  # the gateway sees the FIN
        assert len(found.origin.of("/idle")) == 3


ABORTS = {
    "after connect": [],
    "in the request line": [b"GET /ab"],
    "in the headers": [b"GET /abort HTTP/1.1\r\nHost: si"],
    "in a body by length": [b"POST /abort HTTP/1.1\r\nHost: site.test\r\nContent-Length: 100000\r\n\r\n", b"x" * 5000],
    "in a chunk": [
        b"POST /abort HTTP/1.1\r\nHost: site.test\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"1000\r\n",
        b"x" * 100,
    ],
    "while the origin thinks": [b"GET /abort-think HTTP/1.1\r\nHost: site.test\r\n\r\n"],
    "while the answer comes": [b"GET /abort-large HTTP/1.1\r\nHost: site.test\r\n\r\n"],
    "with requests in the pipeline": [b"GET /abort-think HTTP/1.1\r\nHost: site.test\r\n\r\n" * 5],
}


@pytest.mark.parametrize("how", ["fin", "rst"])
@pytest.mark.parametrize("stage", ABORTS)
def test_client_that_goes_away_leaves_the_pools_whole(site: Proxy, stage: str, how: str) -> None:
    def think(exchange: Exchange) -> None:
        time.sleep(0.2)
        respond()(exchange)

    site.origin.answers["/abort-think"] = think
    site.origin.answers["/abort-large"] = respond(b"x" * (8 * MIB))
    for _ in range(3):
        with Wire(site.port) as wire:
            wire.send(*ABORTS[stage], pause_s=0.02)
            if stage == "while the answer comes":
                wire.need()
            time.sleep(0.05)
            if how == "rst":
                wire.reset()
    assert fetch(site.port, "/alive").status == 200
    site.whole()


def test_half_closed_client_still_gets_its_answer(site: Proxy) -> None:
    def later(exchange: Exchange) -> None:
        time.sleep(0.2)
        respond(b"late")(exchange)

    site.origin.answers["/half"] = later
    with Wire(site.port) as wire:
        wire.send(b"GET /half HTTP/1.1\r\nHost: site.test\r\n\r\n")
        wire.finish()
        try:
            assert wire.answer().body == b"late"
        except Closed as error:
            assert error.data == b"", "either the whole answer or none"
    site.whole()


def test_slow_reader_costs_no_memory(proxy: type[Proxy]) -> None:
    """50 MiB for a client that reads slowly: the origin is made to wait, nothing piles up in the gateway."""
    size = 50 * MIB
    with proxy(limits='write_timeout = "30s"') as found:
        found.origin.answers["/large"] = respond(b"y" * size)
        assert fetch(found.port, "/warm").status == 200
        before = found.rss_bytes()
        with Wire(found.port, receive_bytes=65536) as wire:
            wire.send(b"GET /large HTTP/1.1\r\nHost: site.test\r\n\r\n")
            head = wire.head()
            got = len(wire.data)
            wire.data = b""
            peak = 0
            for _ in range(20):
                time.sleep(0.03)
                got += len(wire.sock.recv(65536))
                peak = max(peak, found.rss_bytes())
            assert peak - before < 8 * MIB, f"grew by {(peak - before) / MIB:.1f} MiB"
            while got < size:
                piece = wire.sock.recv(1 << 20)
                assert piece, f"ended after {got} bytes"
                got += len(piece)
            assert got == size == int(head.one("content-length") or 0)
        found.whole()


def test_slow_origin_costs_no_memory(proxy: type[Proxy]) -> None:
    """A large upload to an origin that reads slowly: the client is made to wait."""
    size = 32 * MIB
    body = os.urandom(1 * MIB) * 32
    with proxy() as found:
        assert fetch(found.port, "/warm").status == 200
        before = found.rss_bytes()
        found.origin.slow_read_bytes_s = 20 * MIB
        peaks = []
        ended = threading.Event()

        def watch() -> None:
            while not ended.wait(0.05):
                peaks.append(found.rss_bytes())

        watcher = threading.Thread(target=watch)
        watcher.start()
        try:
            with Wire(found.port, timeout_s=40) as wire:
                wire.send(b"POST /up HTTP/1.1\r\nHost: site.test\r\nContent-Length: %d\r\n\r\n" % size, body)
                assert wire.answer("POST").status == 200
        finally:
            ended.set()
            watcher.join()
        assert found.origin.last("/up").body == body
        assert max(peaks) - before < 8 * MIB, f"grew by {(max(peaks) - before) / MIB:.1f} MiB"
        found.whole()


def test_origin_pool_is_capped_and_the_rest_waits(proxy: type[Proxy]) -> None:
    with proxy(limits="origin_connections_max = 2") as found:

        def slow(exchange: Exchange) -> None:
            time.sleep(0.1)
            respond()(exchange)

        found.origin.answers["/slow"] = slow
        wires = [Wire(found.port) for _ in range(8)]
        for wire in wires:
            wire.send(b"GET /slow HTTP/1.1\r\nHost: site.test\r\n\r\n")
        assert [wire.answer().status for wire in wires] == [200] * 8
        assert found.origin.connections <= 2
        for wire in wires:
            wire.sock.close()
        found.whole()


def test_who_waits_too_long_for_the_origin_is_503(proxy: type[Proxy]) -> None:
    with proxy(limits='origin_connections_max = 1\norigin_wait = "200ms"') as found:
        released = threading.Event()

        def hold(exchange: Exchange) -> None:
            released.wait(10)
            respond()(exchange)

        found.origin.answers["/hold"] = hold
        with Wire(found.port) as first:
            first.send(b"GET /hold HTTP/1.1\r\nHost: site.test\r\n\r\n")
            eventually(lambda: found.origin.of("/hold"))
            began = time.monotonic()
            assert fetch(found.port, "/waits").status == 503
            assert time.monotonic() - began < 5
            released.set()
            assert first.answer().status == 200
        found.whole()


@pytest.mark.parametrize(("idle", "least_s", "most_s"), [("0s", 0.0, 0.3), ("500ms", 0.4, 1.2)])
def test_a_pooled_connection_is_kept_for_origin_idle(
    proxy: type[Proxy], idle: str, least_s: float, most_s: float
) -> None:
    with proxy(limits=f'origin_idle = "{idle}"') as found:
        for number in range(1, 3):
            assert fetch(found.port, "/").status == 200
            began = time.monotonic()
            eventually(lambda: found.origin.open == 0)
            assert least_s <= time.monotonic() - began <= most_s * SLOW
            assert found.origin.connections == number
        found.whole()


def test_a_connection_whose_time_is_over_is_not_used(proxy: type[Proxy]) -> None:
    """Also where nobody has looked at it since: its time has become shorter."""
    with proxy(limits='origin_idle = "30s"') as found:
        file = found.directory / "gateway.toml"
        assert [fetch(found.port, "/").status for _ in range(2)] == [200, 200]
        assert found.origin.connections == 1
        time.sleep(2.5)  # from now on it would be looked at when its 30 s are over
        file.write_text(file.read_text().replace('"30s"', '"100ms"'))
        assert found.running.cli("reload").returncode == 0
        time.sleep(0.2)
        assert fetch(found.port, "/").status == 200
        assert found.origin.connections == 2
        found.whole()


def test_a_connection_that_was_idle_for_long_is_timed_like_any_other(proxy: type[Proxy]) -> None:
    with proxy(limits='read_timeout = "500ms"') as found:
        released = threading.Event()

        def hold(exchange: Exchange) -> None:
            released.wait(10)
            respond()(exchange)

        found.origin.answers["/hold"] = hold
        assert fetch(found.port, "/").status == 200
        time.sleep(2.5)  # its deadline has become that of an idle one
        began = time.monotonic()
        assert fetch(found.port, "/hold").status == 504
        assert time.monotonic() - began < 2 * SLOW
        assert found.origin.connections == 1
        released.set()
        found.whole()
