"""How HTTP/2 connections live and end: deadlines, idleness, reloads, drains, killed workers."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e.proxy import Proxy
from tests.e2e.recorder import Exchange, Recorder, respond
from tests.e2e.support import GENEROUS, SLOW, free_port, until
from tests.e2e.test_tunnels import GRANT
from tests.e2e.wire2 import Answer, Wire2, frame, window

MIB = 1024 * 1024
NO_ERROR, REFUSED_STREAM, CALM = 0, 7, 11
EVERY = 2**31 - 1
QUICK = """
[[listener]]
address = "127.0.0.1:0"
http2 = true
default = "quick"
[[area]]
name = "quick"
hosts = ["quick.test"]
origins = ["{origin}"]
[area.limits]
head_timeout = "300ms"
idle_timeout = "400ms"
body_grace = "300ms"
body_rate_min = "1000B/s"
write_timeout = "400ms"
"""


def slowly(exchange: Exchange) -> None:
    time.sleep(0.6)
    respond(b"late")(exchange)


class Held:
    """An origin's answer that waits until it is let go."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.there = threading.Semaphore(0)

    def __call__(self, exchange: Exchange) -> None:
        self.there.release()
        self.go.wait(20)
        respond(b"held")(exchange)


def served(answer: Answer) -> bool:
    return (answer.status, answer.ended, answer.reset) == (200, True, None)


@pytest.fixture(scope="module")
def behind() -> Iterator[Recorder]:
    """The origin of who is quick to lose patience."""
    with Recorder() as found:
        found.answers["/slow"] = slowly
        yield found


@pytest.fixture(scope="module")
def site(behind: Recorder) -> Iterator[Proxy]:
    """Ports: generous, and quick to lose patience."""
    with Proxy(listener="http2 = true", extra=QUICK.format(origin=behind.address), areas=("site", "quick")) as found:
        found.origin.answers["/slow"] = slowly
        yield found


@pytest.fixture(autouse=True)
def whole(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    if "site" in request.fixturenames:
        site: Proxy = request.getfixturevalue("site")
        for origin in (site.origin, request.getfixturevalue("behind")):
            origin.close_connections()
        site.whole()
        assert not site.gauge("http2_connections")
        assert not site.gauge("http2_session_bytes")


def impatient(site: Proxy, **how: Any) -> Wire2:
    return Wire2(site.running.ports[1], **how)


def get(wire: Wire2, path: str = "/") -> Answer:
    return wire.get(path, host="quick.test")


def ended_for(site: Proxy, wire: Wire2) -> object:
    """What the log says of a connection's end."""
    port = wire.sock.getsockname()[1]

    def found() -> list[object]:
        lines = [line for line in site.running.log_lines() if line.get("source.port") == port]
        return [line["error.code"] for line in lines if "error.code" in line]

    return until(found)[-1]


# ── deadlines ──


@pytest.mark.parametrize("said", [b"", b"PRI * HTTP", b"PRI * HTTP/2.0\r\n\r\nSM", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"])
def test_a_preface_that_does_not_come(site: Proxy, said: bytes) -> None:
    """Or its SETTINGS."""
    with impatient(site, begin=False) as wire:
        wire.raw(said)
        while wire.sock.recv(65536):
            pass
        if said.startswith(b"PRI * HTTP/2.0"):
            assert ended_for(site, wire) == "http2_late"


@pytest.mark.parametrize("how", ["nothing more", "a byte at a time", "a frame at a time"])
def test_a_field_section_that_trickles(site: Proxy, how: str) -> None:
    with impatient(site) as wire:
        assert served(get(wire))
        block = wire.h2.encoder.encode([*wire.fields("/", host="quick.test"), ("x", "y" * 100)])
        wire.raw(frame(1, 3, block[:5], 1))
        pieces = {
            "nothing more": [],
            "a byte at a time": [bytes([byte]) for byte in frame(9, 3, block[5:], 4)],
            "a frame at a time": [frame(9, 3, block[i : i + 1]) for i in range(5, 12)],
        }[how]
        for piece in pieces:
            if wire.more(0.08) and wire.goaways:
                break
            wire.raw(piece)
        wire.over()
        assert [code for _, code in wire.goaways] == [CALM]
        assert ended_for(site, wire) == "http2_late"


def test_a_trickle_beside_a_request(site: Proxy) -> None:
    """A stream that is open does not buy a field section more time."""
    with impatient(site) as wire:
        assert served(get(wire))
        slow = wire.request("/slow", host="quick.test")
        wire.raw(frame(1, 5, b"", 1))
        wire.over()
        assert [code for _, code in wire.goaways] == [CALM]
        assert not wire.answers[slow].ended


def test_idle_is_told_and_closed(site: Proxy) -> None:
    """Whatever is said meanwhile that is no request."""
    for pings in (False, True):
        with impatient(site) as wire:
            assert served(get(wire))
            for _ in range(20 if pings else 0):
                if not wire.alive():
                    break
                wire.more(0.04)
            assert wire.over() == "closed" or pings
            assert wire.goaways == [(1, NO_ERROR)]


def test_a_worker_that_was_held_up_calls_nobody_idle(site: Proxy) -> None:
    """What was asked in time is answered, though it is looked at after the deadline."""
    with impatient(site) as wire:
        assert served(get(wire))
        time.sleep(0.2)
        with site.held_up():
            stream = wire.request("/", host="quick.test")
        assert served(wire.answer(stream))
        assert not wire.goaways


def test_waiting_for_an_answer_is_not_idle(site: Proxy) -> None:
    with impatient(site) as wire:
        assert bytes(get(wire, "/slow").body) == b"late"
        assert served(get(wire))


def test_a_slow_upload_is_408(site: Proxy, behind: Recorder) -> None:
    """And the rest of the connection goes on."""
    with impatient(site) as wire:
        slow = wire.request("/up", "POST", [("content-length", "100000")], host="quick.test", end=False)
        chunked = wire.request("/up", "POST", host="quick.test", end=False)
        while not (wire.answers[slow].over and wire.answers[chunked].over):
            for stream in (slow, chunked):
                wire.send(stream, b"x", wait=False)
            wire.more(0.05)
        for stream in (slow, chunked):
            assert (wire.answers[stream].status, wire.answers[stream].ended) == (408, True)
        assert served(get(wire))
    assert not any(request.complete for request in behind.of("/up"))


def test_a_stream_that_is_not_read(site: Proxy, behind: Recorder) -> None:
    """Its window stays shut: it alone ends."""
    behind.answers["/large"] = respond(random.Random(1).randbytes(MIB))
    with impatient(site, settings=window(5000), opens=False) as wire:
        wire.open(16 * MIB)
        stream = wire.request("/large", host="quick.test")
        wire.until(lambda: wire.answers[stream].reset is not None, "RST_STREAM")
        assert len(wire.answers[stream].body) == 5000
        assert served(get(wire))


def test_a_connection_that_is_not_read(site: Proxy, behind: Recorder) -> None:
    """Windows are open, and nobody takes anything out of the socket."""
    behind.answers["/large"] = respond(random.Random(1).randbytes(8 * MIB))
    with impatient(site, settings=window(64 * MIB), opens=False, receive_bytes=4096) as wire:
        wire.open(64 * MIB)
        wire.request("/large", host="quick.test")
        until(lambda: site.gauge("http2_connections") == 1)
        until(lambda: site.gauge("http2_connections") == 0)
        assert wire.over() == "reset"


def test_a_client_that_half_closes(site: Proxy) -> None:
    """FIN behind its requests: HTTP/2 has END_STREAM for that; nothing stays."""
    with Wire2(site.port) as wire:
        wire.request("/slow")
        wire.sock.shutdown(socket.SHUT_WR)
        wire.over()


@pytest.mark.parametrize("busy", [False, True])
def test_a_client_that_says_goaway(site: Proxy, busy: bool) -> None:
    """Its requests end first; and to leave in good order is no abuse."""
    before = site.metric("scrubber_http2_refused_total")
    with Wire2(site.port) as wire:
        assert served(wire.get("/left"))
        stream = wire.request("/slow") if busy else 0
        wire.raw(frame(7, 0, bytes(8)))
        assert wire.over() == "closed"
        assert not busy or served(wire.answers[stream])
        port = wire.sock.getsockname()[1]
    until(lambda: site.gauge("http2_connections") == 0)
    assert site.metric("scrubber_http2_refused_total") == before
    lines = [line for line in site.running.log_lines() if line.get("source.port") == port]
    assert not any("error.code" in line for line in lines)


# ── slow, and not to blame ──


def test_who_waits_behind_another_stream_is_not_slow(site: Proxy, behind: Recorder) -> None:
    """What is less urgent gets nothing for longer than write_timeout, while its connection goes on."""
    behind.answers["/part"] = respond(random.Random(1).randbytes(90_000))
    with impatient(site, settings=window(MIB), opens=False) as wire:
        first = wire.request("/part", headers=[("priority", "u=0")], host="quick.test")
        second = wire.request("/part", headers=[("priority", "u=7")], host="quick.test")
        while not (wire.answers[first].over and wire.answers[second].over):
            wire.open(6000)
            wire.quiet(0.06)
        assert served(wire.answers[first])
        assert served(wire.answers[second])


def test_who_cannot_send_for_our_window_is_not_slow(site: Proxy, behind: Recorder) -> None:
    """The connection's window is full of what other origins have not read: no client can send through that."""
    held = threading.Event()
    behind.listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)

    def stall(_: Exchange) -> None:
        held.wait(20)

    behind.on_head["/stalled"] = stall
    body = bytes(4 * MIB)
    with impatient(site) as wire:
        stalled = [wire.request("/stalled", "POST", host="quick.test", end=False) for _ in range(12)]
        sent = dict.fromkeys(stalled, 0)
        moved = True
        while moved or wire.more(0.1):
            moved = False
            for stream in stalled:
                went = wire.send(stream, body[sent[stream] : sent[stream] + 65_536], wait=False)
                sent[stream] += went
                moved = moved or went > 0
        assert wire.h2.outbound_flow_control_window == 0
        late = wire.request("/late", "POST", [("content-length", "4")], host="quick.test", end=False)
        wire.quiet(1.2)
        assert not wire.answers[late].headers
        held.set()
        for stream in stalled:
            wire.send(stream, b"", end=True)
        wire.send(late, b"body", end=True)
        assert served(wire.answer(late))
        assert behind.last("/late").body == b"body"


def test_a_tunnel_that_is_read_slowly_goes_on(site: Proxy, behind: Recorder) -> None:
    """It takes longer than write_timeout until all that waits is taken, but there is progress."""
    body = random.Random(2).randbytes(28_000)

    def grant(exchange: Exchange) -> None:
        exchange.send(GRANT + body)
        exchange.close()

    behind.answers["/ws"] = grant
    with impatient(site, settings=window(1000), opens=False) as wire:
        wire.open(MIB)
        asked = [(":method", "CONNECT"), (":protocol", "websocket"), *wire.fields("/ws", host="quick.test")[1:]]
        stream = wire.ask([*asked, ("sec-websocket-version", "13")], end=False)
        while not wire.answers[stream].over:
            wire.open(1500, stream)
            wire.quiet(0.06)
        assert bytes(wire.answers[stream].body) == body


# ── bounds ──


def test_more_streams_than_allowed_are_refused(site: Proxy) -> None:
    """And may be tried again: the origin has not seen them (RFC 9113 8.7)."""
    held = Held()
    site.origin.answers["/held"] = held
    with Wire2(site.port) as wire:
        streams = [wire.request("/held") for _ in range(105)]  # before its SETTINGS are read
        for _ in range(100):
            assert held.there.acquire(timeout=10)
        wire.until(lambda: sum(wire.answers[stream].over for stream in streams) == 5)
        refused = [stream for stream in streams if wire.answers[stream].over]
        assert [wire.answers[stream].reset for stream in refused] == [REFUSED_STREAM] * 5
        held.go.set()
        assert sum(served(wire.answer(stream)) for stream in streams) == 100
        assert served(wire.get("/held"))
    assert len(site.origin.of("/held")) == 101


# ── reload, drain, crash ──


def test_a_reload_keeps_connections_and_what_is_new_counts_for_them(site: Proxy) -> None:
    held = Held()
    site.origin.answers["/over"] = held
    with Wire2(site.port, source="127.0.88.1") as wire:
        stream = wire.request("/over")
        up = wire.request("/up", "POST", end=False)
        wire.send(up, b"half")
        assert held.there.acquire(timeout=10)
        site.reload(GENEROUS + '[[rule]]\nname = "new"\nper = "client"\nwhen = { path = "/new" }\nthen = ["deny"]\n')
        held.go.set()
        assert served(wire.answer(stream))
        wire.send(up, b"half", end=True)
        assert served(wire.answer(up))
        assert wire.get("/new").status == 403
        assert served(wire.get("/"))
        assert wire.goaways == []
    assert site.origin.last("/up").body == b"halfhalf"


def test_a_removed_listener_and_a_drain(proxy: type[Proxy]) -> None:
    """GOAWAY twice (RFC 9113 6.8): what was sent before the second one came is served, and nothing is cut."""
    second = f'[[listener]]\naddress = "127.0.0.1:{free_port()}"\nhttp2 = true\n'
    with proxy(listener="http2 = true", extra=second) as found:
        held = Held()
        found.origin.answers["/held"] = held
        with Wire2(found.port) as first, Wire2(found.running.ports[1]) as gone, Wire2(found.running.ports[1]) as idle:
            streams = {wire: wire.request("/held") for wire in (first, gone)}
            assert served(idle.get("/"))
            for _ in streams:
                assert held.there.acquire(timeout=10)
            found.running.file.write_text(found.running.file.read_text().replace(second, ""))
            assert found.running.admin("POST", "/v1/reload")[0] == 200
            gone.until(lambda: gone.goaways, "GOAWAY")
            assert gone.goaways == [(EVERY, NO_ERROR)]
            late = gone.request("/late")
            assert served(gone.answer(late)), "it was on its way"
            gone.until(lambda: len(gone.goaways) == 2, "the second GOAWAY")
            assert gone.goaways[1] == (late, NO_ERROR)
            assert idle.over() == "closed"
            assert idle.goaways == [(EVERY, NO_ERROR), (1, NO_ERROR)]
            assert served(first.get("/"))
            assert first.goaways == []

            found.running.process.send_signal(signal.SIGTERM)
            first.until(lambda: first.goaways, "GOAWAY")
            late = first.request("/late")
            assert served(first.answer(late))
            first.until(lambda: len(first.goaways) == 2, "the second GOAWAY")
            assert first.goaways == [(EVERY, NO_ERROR), (late, NO_ERROR)]
            ignored = first.request("/ignored")
            held.go.set()
            for wire, stream in streams.items():
                assert served(wire.answer(stream)), "in flight"
                assert wire.over() == "closed"
            assert not first.answers[ignored].headers
        assert found.running.process.wait(15 * SLOW) == 0
        assert found.origin.of("/ignored") == []
        assert not found.origin.malformed


def test_a_killed_worker_takes_only_its_own(proxy: type[Proxy]) -> None:
    with proxy(listener="http2 = true", workers=2) as found, contextlib.ExitStack() as stack:
        wires = [stack.enter_context(Wire2(found.port)) for _ in range(8)]
        for wire in wires:
            assert served(wire.get("/"))
        until(lambda: sum(found.running.child("worker", slot)["connections"] for slot in range(2)) == 8)
        counts = [found.running.child("worker", slot)["connections"] for slot in range(2)]
        os.kill(found.running.worker_pid(0), signal.SIGKILL)
        left = 0
        for wire in wires:
            wire.quiet(0.05)
            left += not wire.closed and served(wire.get("/"))
        assert left == counts[1]
        with Wire2(found.port) as wire:
            assert served(wire.get("/"))
        until(lambda: found.running.child("worker", 0)["restarts"] == 1)
