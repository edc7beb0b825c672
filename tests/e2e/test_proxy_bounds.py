"""What a client may take: time for a head, a rate for a body, bytes, lines, connections. Beyond it, the end."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from tests.e2e.proxy import Proxy
from tests.e2e.recorder import respond
from tests.e2e.stream import Deaf
from tests.e2e.support import SLOW
from tests.e2e.wire import Closed, Wire, eventually, fetch
from tests.readable import readable

QUICK = """
head_timeout = "400ms"
idle_timeout = "400ms"
body_grace = "300ms"
body_rate_min = "1000B/s"
write_timeout = "500ms"
"""
LATE_S = 5.0  # far above every deadline here, far below the test's own


@pytest.fixture(scope="module")
def quick(proxy: type[Proxy]) -> Iterator[Proxy]:
    with proxy(limits=QUICK) as found:
        yield found


def ended_within(wire: Wire, least_s: float) -> None:
    """It ends, and not before its time."""
    began = time.monotonic()
    assert wire.ends(LATE_S) != "open"
    assert time.monotonic() - began >= least_s


def test_slowloris_is_cut_off(quick: Proxy) -> None:
    """A byte now and then does not buy more time: the whole head has one deadline."""
    with Wire(quick.port) as wire:
        wire.send(b"GET / HTTP/1.1\r\nHost: site.test\r\n")
        began = time.monotonic()
        try:
            while time.monotonic() - began < LATE_S:
                wire.send(b"X-a: b\r\n")
                time.sleep(0.1)
        except ConnectionError:
            pass
        assert 0.3 < time.monotonic() - began < LATE_S
    quick.whole()


def test_slowloris_is_cut_off_in_ten_seconds_by_default(proxy: type[Proxy]) -> None:
    """With no limit written anywhere: a head that dribbles has ten seconds from its first byte, however it dribbles."""
    with proxy() as found, Wire(found.port) as fields, Wire(found.port) as letters:
        began = time.monotonic()
        fields.send(b"GET / HTTP/1.1\r\nHost: site.test\r\n")
        letters.send(b"GET / HTTP/1.1\r\nHost: site.test\r\nX-A: ")
        ended: dict[Wire, float] = {}
        while len(ended) < 2 and time.monotonic() - began < 30:
            for wire, piece in ((fields, b"X-A: b\r\n"), (letters, b"a")):
                if wire in ended:
                    continue
                with contextlib.suppress(ConnectionError):
                    wire.send(piece)
                if readable([wire.sock], 0.1):  # an answer, or the end
                    ended[wire] = time.monotonic() - began
        assert len(ended) == 2
        assert all(9 <= after_s <= 10 + 3 * SLOW for after_s in ended.values()), list(ended.values())
        assert all(wire.ends() != "open" for wire in ended)
        found.whole()


def test_silent_connection_is_cut_off(quick: Proxy) -> None:
    with Wire(quick.port) as wire:
        ended_within(wire, 0.3)


def test_a_late_head_is_answered_408_or_closed(quick: Proxy) -> None:
    with Wire(quick.port) as wire:
        wire.send(b"GET / HTTP/1.1\r\nHost:")
        with contextlib.suppress(Closed):
            assert wire.answer().status == 408
        assert wire.ends() != "open"


def test_idle_keep_alive_is_closed(quick: Proxy) -> None:
    with Wire(quick.port) as wire:
        assert wire.get("/").status == 200
        ended_within(wire, 0.3)


def test_slow_body_is_cut_off(quick: Proxy) -> None:
    with Wire(quick.port) as wire:
        wire.send(b"POST /slow-body HTTP/1.1\r\nHost: site.test\r\nContent-Length: 100000\r\n\r\n")
        began = time.monotonic()
        try:
            while time.monotonic() - began < LATE_S:
                wire.send(b"x")
                time.sleep(0.05)
        except ConnectionError:
            pass
        assert time.monotonic() - began < LATE_S
    quick.whole()
    assert not any(request.complete for request in quick.origin.of("/slow-body"))


def test_a_body_above_the_minimum_rate_is_not(quick: Proxy) -> None:
    with Wire(quick.port) as wire:
        wire.send(b"POST /fast-enough HTTP/1.1\r\nHost: site.test\r\nContent-Length: 6000\r\n\r\n")
        for _ in range(12):  # 5000 B/s over more than the grace
            wire.send(b"x" * 500)
            time.sleep(0.1)
        assert wire.answer("POST").status == 200


def test_a_worker_that_was_held_up_blames_no_client_for_a_head(quick: Proxy) -> None:
    with Wire(quick.port) as wire:
        wire.send(b"GET /in-time HTTP/1.1\r\nHost: site.test\r\n")
        time.sleep(0.2)
        with quick.held_up():
            wire.send(b"\r\n")
        assert wire.answer().status == 200


@pytest.mark.parametrize("before", [0, 1], ids=["its first", "a later one"])
def test_a_worker_that_was_held_up_blames_no_client_for_a_request(quick: Proxy, before: int) -> None:
    with Wire(quick.port) as wire:
        for _ in range(before):
            assert wire.get("/in-time").status == 200
        time.sleep(0.2)
        with quick.held_up():
            wire.send(b"GET /in-time HTTP/1.1\r\nHost: site.test\r\n\r\n")
        assert wire.answer().status == 200


def test_a_worker_that_was_held_up_blames_none_of_very_many(quick: Proxy) -> None:
    """More than it looks at in one go."""
    many = [
        socket.create_connection(("127.0.0.1", quick.port), source_address=(f"127.0.3.{i % 6}", 0)) for i in range(600)
    ]
    try:
        for sock in many:
            sock.sendall(b"GET /in-time HTTP/1.1\r\nHost: site.test\r\n")
        time.sleep(0.1)
        with quick.held_up():
            for sock in many:
                sock.sendall(b"Connection: close\r\n\r\n")
        assert {sock.recv(12, socket.MSG_WAITALL) for sock in many} == {b"HTTP/1.1 200"}
    finally:
        for sock in many:
            sock.close()
    quick.whole()


def test_a_worker_that_was_held_up_blames_no_client_for_a_body(quick: Proxy) -> None:
    """The rate is looked at after 0.4 s, when it is enough, and a second later, while the worker is held up."""
    with Wire(quick.port) as wire:
        wire.send(b"POST /in-time HTTP/1.1\r\nHost: site.test\r\nContent-Length: 6000\r\n\r\n" + b"x" * 1000)
        time.sleep(1.2)
        with quick.held_up(0.4):
            wire.send(b"x" * 5000)
        assert wire.answer("POST").status == 200


def test_an_origin_slow_to_connect_is_no_fault_of_the_client(proxy: type[Proxy]) -> None:
    """All of the body has come; the client's own deadlines pass meanwhile."""
    deaf = Deaf()
    limits = QUICK + 'connect_timeout = "20s"'
    with contextlib.closing(deaf), proxy(origins=[f"127.0.0.1:{deaf.port}"], limits=limits) as found:
        with Wire(found.port) as wire:
            wire.send(b"POST / HTTP/1.1\r\nHost: site.test\r\nContent-Length: 4\r\n\r\nbody")
            assert wire.ends(1.6) == "open"
            with deaf.hear() as origin:
                origin.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
                assert wire.answer("POST").status == 200
        found.whole()


def test_a_client_that_does_not_read_is_cut_off(quick: Proxy) -> None:
    quick.origin.answers["/unread"] = respond(b"z" * (16 * 1024 * 1024))
    with Wire(quick.port, receive_bytes=4096) as wire:
        wire.send(b"GET /unread HTTP/1.1\r\nHost: site.test\r\n\r\n")
        eventually(lambda: quick.origin.of("/unread"))
        time.sleep(2.0)
        with pytest.raises(Closed):
            wire.answer()
    quick.whole()


@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
def test_body_too_large_is_413(proxy: type[Proxy], chunked: bool) -> None:
    with proxy(limits='body_bytes_max = "10KiB"') as found, Wire(found.port) as wire:
        if chunked:
            wire.send(b"POST /big HTTP/1.1\r\nHost: site.test\r\nTransfer-Encoding: chunked\r\n\r\n")
            try:
                for _ in range(5):
                    wire.send(b"1000\r\n" + b"x" * 4096 + b"\r\n")
                    time.sleep(0.02)
            except ConnectionError:
                pass
        else:
            wire.send(b"POST /big HTTP/1.1\r\nHost: site.test\r\nContent-Length: 10241\r\n\r\n")
        assert wire.answer("POST").status == 413
        assert wire.ends() != "open"
        assert not any(request.complete for request in found.origin.of("/big"))
        if not chunked:
            assert not found.origin.of("/big")
        found.whole()


def test_a_body_of_just_the_limit_passes(proxy: type[Proxy]) -> None:
    with proxy(limits='body_bytes_max = "10KiB"') as found, Wire(found.port) as wire:
        wire.send(b"POST /big HTTP/1.1\r\nHost: site.test\r\nContent-Length: 10240\r\n\r\n", b"x" * 10240)
        assert wire.answer("POST").status == 200


@pytest.mark.parametrize(
    ("request_bytes", "statuses"),
    [
        (b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\nHost: site.test\r\n\r\n", {414, 400}),
        (b"GET / HTTP/1.1\r\nHost: site.test\r\nX: " + b"a" * 9000 + b"\r\n\r\n", {431, 400}),
        (b"GET / HTTP/1.1\r\nHost: site.test\r\n" + b"X: a\r\n" * 101 + b"\r\n", {431, 400}),
        (b"GET / HTTP/1.1\r\nHost: site.test\r\n" + (b"X: " + b"a" * 4000 + b"\r\n") * 5 + b"\r\n", {431, 400}),
    ],
    ids=["line", "header", "count", "head"],
)
def test_heads_beyond_the_limits(site: Proxy, request_bytes: bytes, statuses: set[int]) -> None:
    before = len(site.origin.requests)
    with Wire(site.port) as wire:
        wire.send(request_bytes)
        assert wire.answer().status in statuses
        assert wire.ends() != "open"
    assert len(site.origin.requests) == before


def test_connections_per_client_are_capped(proxy: type[Proxy]) -> None:
    with proxy(gateway="[limits]\nconnections_client_max = 4\n") as found:
        held = [Wire(found.port, source="127.0.4.1") for _ in range(4)]
        for wire in held:
            assert wire.get("/").status == 200
        assert not _served(found.port, "127.0.4.1")
        assert fetch(found.port, "/", source="127.0.4.2").status == 200, "another client is not touched"
        held.pop().sock.close()
        eventually(lambda: _served(found.port, "127.0.4.1"), 5, "a place that came free is not given away")
        for wire in held:
            assert wire.get("/still").status == 200
            wire.sock.close()
        found.whole()


def _served(port: int, source: str) -> bool:
    try:
        return fetch(port, "/", source=source).status == 200
    except (Closed, ConnectionError):
        return False


def test_connections_in_all_are_capped_and_silent_ones_make_room(proxy: type[Proxy]) -> None:
    with proxy(gateway="[limits]\nconnections_max = 16\nconnections_client_max = 16\n", workers=1) as found:
        held = []
        for i in range(40):
            try:
                held.append(Wire(found.port, source=f"127.0.5.{i + 1}"))
            except ConnectionError:
                continue
        eventually(lambda: _served(found.port, "127.0.6.1"), 12, "silent connections keep others out")
        assert found.gauge("connections") <= 16
        for wire in held:
            wire.sock.close()
        found.whole()


def test_pools_say_what_is_in_use(proxy: type[Proxy]) -> None:
    """From outside, over all workers; and all of it comes back."""
    with proxy(workers=2, gateway="[limits]\nconnections_max = 64\n") as found:
        assert found.metric("scrubber_pool_size", pool="clients") == 64
        assert found.metric("scrubber_pool_size", pool="buffers") > 64
        go = threading.Event()
        found.origin.answers["/held"] = lambda exchange: (go.wait(30), respond()(exchange))
        wires = [Wire(found.port) for _ in range(6)]
        for wire in wires[:4]:
            wire.send(b"GET /held HTTP/1.1\r\nHost: site.test\r\n\r\n")
        wires[4].send(b"GET / HT")

        def used(pool: str) -> float:
            return found.metric("scrubber_pool_used", pool=pool)

        eventually(lambda: (used("clients"), used("exchanges"), used("origins")) == (6, 4, 4))
        # Heads kept for the one retry, and the head that is not whole.
        eventually(lambda: 1 <= used("buffers") <= 9)
        go.set()
        for wire in wires[:4]:
            assert wire.answer().status == 200
        eventually(lambda: (used("exchanges"), used("buffers")) == (0, 1))
        assert not found.running.pools_whole()
        for wire in wires:
            wire.sock.close()
        found.whole()
