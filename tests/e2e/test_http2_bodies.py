"""Bodies over HTTP/2, both ways: windows, who waits for whom, what is first, what breaks off; nothing stays behind."""

from __future__ import annotations

import hashlib
import random
import socket
import threading
from collections.abc import Iterator

import pytest

from tests.e2e.proxy import Proxy
from tests.e2e.recorder import Exchange, Gone, raw, respond
from tests.e2e.support import until
from tests.e2e.wire2 import Answer, Wire2, frame, window

KIB, MIB = 1024, 1024 * 1024
STREAM_WINDOW, CONNECTION_WINDOW = 128 * KIB, MIB  # the gateway's
NO_ERROR, CANCEL = 0, 8

ROUTES = '[[area.route]]\npath_prefix = "/small"\nbody_bytes_max = "1KiB"\n'


def noise(size: int, seed: int = 0) -> bytes:
    """Reproducible bytes in which nothing repeats."""
    return random.Random(size * 1000 + seed).randbytes(size)


def digest(data: bytes | bytearray) -> tuple[int, str]:
    """Compared instead of megabytes."""
    return len(data), hashlib.sha256(data).hexdigest()


def echo(exchange: Exchange) -> None:
    respond(exchange.request.body)(exchange)


def in_chunks(body: bytes, size: int = 5000) -> bytes:
    pieces = (body[at : at + size] for at in range(0, len(body), size))
    return b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"


@pytest.fixture(scope="module")
def site() -> Iterator[Proxy]:
    with Proxy(listener="http2 = true", extra=ROUTES) as found:
        found.origin.listener.setsockopt(
            socket.SOL_SOCKET, socket.SO_RCVBUF, 64 * KIB
        )  # who does not read takes little
        found.origin.answers["/echo"] = echo
        yield found


@pytest.fixture(autouse=True)
def whole(site: Proxy) -> Iterator[None]:
    yield
    site.whole()
    assert not site.gauge("http2_streams")
    assert not site.gauge("http2_session_bytes")
    assert not site.origin.malformed


@pytest.fixture
def wire(site: Proxy, whole: None) -> Iterator[Wire2]:
    with Wire2(site.port) as found:
        yield found


def served(answer: Answer) -> bool:
    return (answer.status, answer.ended, answer.reset) == (200, True, None)


# ── up ──


@pytest.mark.parametrize("size", [0, 1, STREAM_WINDOW - 1, STREAM_WINDOW, STREAM_WINDOW + 1, 2 * MIB])
@pytest.mark.parametrize("announced", [True, False])
def test_uploads(site: Proxy, wire: Wire2, size: int, announced: bool) -> None:
    body = noise(size)
    length = [("content-length", str(size))] if announced else []
    assert served(wire.answer(wire.request("/up", "POST", length, body=body)))
    request = site.origin.last("/up")
    assert digest(request.body) == digest(body)
    assert request.one("content-length") == (str(size) if announced else None)
    assert request.one("transfer-encoding") == (None if announced else "chunked")


def test_no_body_is_no_body(site: Proxy, wire: Wire2) -> None:
    """END_STREAM with the head: no framing is made up, but for the length that the client gave."""
    assert served(wire.answer(wire.request("/none", "POST")))
    assert served(wire.answer(wire.request("/zero", "POST", [("content-length", "0")])))
    assert (
        site.origin.last("/none").all("transfer-encoding") == site.origin.last("/zero").all("transfer-encoding") == []
    )
    assert site.origin.last("/none").all("content-length") in ([], ["0"])
    assert site.origin.last("/zero").all("content-length") == ["0"]


@pytest.mark.parametrize("announced", [True, False])
def test_a_byte_at_a_time(site: Proxy, wire: Wire2, announced: bool) -> None:
    body = noise(600)
    stream = wire.request("/bytes", "POST", [("content-length", "600")] if announced else [], end=False)
    for i in range(len(body)):
        wire.send(stream, body[i : i + 1], end=i == len(body) - 1)
    assert served(wire.answer(stream))
    assert site.origin.last("/bytes").body == body


def test_frames_byte_by_byte(site: Proxy) -> None:
    """However the bytes of frames come."""
    with Wire2(site.port, begin=False) as wire:
        wire.h2.initiate_connection()
        wire.h2.send_headers(1, [*wire.fields("/echo", "POST"), ("cookie", "a=1")])
        wire.h2.send_data(1, b"body", end_stream=True)
        data = wire.h2.data_to_send()
        wire.answers[1] = Answer()
        for i in range(len(data)):
            wire.raw(data[i : i + 1])
        assert bytes(wire.answer(1).body) == b"body"


def test_padding_is_given_back(site: Proxy, wire: Wire2) -> None:
    """It counts for the windows (RFC 9113 6.9.1), and nobody reads it."""
    body, length = noise(6000), 10
    stream = wire.request("/padded", "POST", end=False)
    for at in range(0, len(body), length):
        while wire.h2.local_flow_control_window(stream) < 300:
            wire.more()
        wire.h2.send_data(stream, body[at : at + length], pad_length=255, end_stream=at + length == len(body))
        wire.flush()
    assert served(wire.answer(stream))
    assert site.origin.last("/padded").body == body


def test_an_origin_that_does_not_read_holds_its_client_back(site: Proxy, wire: Wire2) -> None:
    """Windows close, so that what waits here is bounded; the other streams go on, and nothing is lost."""
    release = threading.Event()
    site.origin.on_head["/stalled"] = lambda _: release.wait(20) and None
    body = noise(10 * MIB)
    stream = wire.request("/stalled", "POST", [("content-length", str(len(body)))], end=False)
    sent = 0
    try:
        while (went := wire.send(stream, body[sent : sent + MIB], wait=False)) or wire.more(0.3):
            sent += went
        assert STREAM_WINDOW <= sent < 8 * MIB
        assert wire.h2.local_flow_control_window(stream) == 0
        assert served(wire.get("/beside"))
        assert site.metric("scrubber_pool_used", pool="buffers") <= STREAM_WINDOW / (24 * KIB) + 6
        assert site.gauge("http2_session_bytes") < 256 * KIB
    finally:
        release.set()
    wire.send(stream, body[sent:], end=True)
    assert served(wire.answer(stream))
    assert digest(site.origin.last("/stalled").body) == digest(body)


def test_all_that_waits_of_a_connection_is_bounded(site: Proxy, wire: Wire2) -> None:
    """Forty bodies that nobody reads, whose streams' windows are more than the connection's."""
    release = threading.Event()

    def wait(_: Exchange) -> None:
        release.wait(20)

    site.origin.on_head["/many"] = wait
    body = noise(MIB // 4)
    streams = [wire.request("/many", "POST", end=False) for _ in range(40)]
    sent = dict.fromkeys(streams, 0)
    try:
        moved = True
        while moved or wire.more(0.3):
            moved = False
            for stream in streams:
                went = wire.send(stream, body[sent[stream] : sent[stream] + 64 * KIB], wait=False)
                sent[stream] += went
                moved = moved or went > 0
        used = site.metric("scrubber_pool_used", pool="buffers")
        assert used <= (CONNECTION_WINDOW + 40 * STREAM_WINDOW) / (24 * KIB) + 40 * 3
        assert site.gauge("http2_session_bytes") < MIB
    finally:
        release.set()
    for stream in streams:
        wire.send(stream, body[sent[stream] :], end=True)
    answers = [wire.answer(stream) for stream in streams]
    assert [(a.status, a.ended, a.reset) for a in answers] == [(200, True, None)] * 40
    assert {digest(request.body) for request in site.origin.of("/many")} == {digest(body)}


# ── down ──


@pytest.mark.parametrize("size", [1, 16_383, 16_384, 16_385, 65_535, 65_536, 2 * MIB])
def test_downloads(site: Proxy, wire: Wire2, size: int) -> None:
    body = noise(size)
    site.origin.answers["/down"] = respond(body)
    site.origin.answers["/chunks"] = raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", in_chunks(body))
    for path in ("/down", "/chunks"):
        answer = wire.get(path)
        assert served(answer)
        assert digest(answer.body) == digest(body)


def test_a_client_that_opens_its_windows_in_small_steps(site: Proxy) -> None:
    body = noise(150_000)
    site.origin.answers["/steps"] = respond(body)
    with Wire2(site.port, settings=window(1000), opens=False) as wire:
        stream = wire.request("/steps")
        found = wire.answers[stream]
        given = 1000
        while not found.ended:
            wanted = min(given, len(body))
            wire.until(lambda n=wanted: found.ended or len(found.body) == n, f"{given} bytes")  # type: ignore[misc]
            assert len(found.body) <= given
            wire.open(700, stream)
            wire.open(700)
            given += 700
        assert digest(found.body) == digest(body)


def test_windows_that_settings_change_in_between(site: Proxy) -> None:
    """RFC 9113 6.9.2: also below nothing."""
    body = noise(60_000)
    site.origin.answers["/settings"] = respond(body)
    with Wire2(site.port, settings=window(20_000), opens=False) as wire:
        stream = wire.request("/settings")
        found = wire.answers[stream]
        wire.until(lambda: len(found.body) == 20_000)
        wire.h2.update_settings(window(5_000))
        wire.flush()
        assert wire.alive()
        wire.open(14_000, stream)  # still 1,000 below nothing
        assert wire.alive()
        wire.quiet(0.05)
        assert len(found.body) == 20_000
        wire.open(2_000, stream)
        wire.until(lambda: len(found.body) == 21_000)
        wire.open(60_000, stream)
        wire.until(lambda: found.ended)
        assert digest(found.body) == digest(body)


def test_sixty_four_at_once_each_its_own(site: Proxy, wire: Wire2) -> None:
    bodies = [noise(random.Random(i).randrange(1, 40_000), i) for i in range(64)]
    streams = []
    for i, body in enumerate(bodies):
        length = [("content-length", str(len(body)))] if i % 2 else []
        streams.append(wire.request("/echo", "POST", length, end=False))
    left = dict(zip(streams, bodies, strict=True))
    while left:  # a piece of each, in turn
        for stream, body in list(left.items()):
            went = wire.send(stream, body[:3000], end=len(body) <= 3000, wait=False)
            left[stream] = body[went:]
            if not left[stream]:
                del left[stream]
            elif not went:
                wire.more(1)
    for stream, body in zip(streams, bodies, strict=True):
        answer = wire.answer(stream)
        assert served(answer)
        assert digest(answer.body) == digest(body)


def test_small_requests_pass_a_large_download(site: Proxy, wire: Wire2) -> None:
    body = noise(3 * MIB)
    site.origin.answers["/large"] = respond(body)
    large = wire.request("/large")
    wire.until(lambda: wire.answers[large].body)
    small = [wire.request("/small-one") for _ in range(10)]
    assert all(served(wire.answer(stream)) for stream in small)
    assert not wire.answers[large].ended
    assert digest(wire.answer(large).body) == digest(body)


def test_a_download_that_nobody_takes_does_not_hold_up_the_others(site: Proxy) -> None:
    body = noise(2 * MIB)
    site.origin.answers["/held"] = respond(body)
    with Wire2(site.port, settings=window(30_000), opens=False) as wire:
        wire.open(16 * MIB)
        held = [wire.request("/held") for _ in range(3)]
        wire.until(lambda: all(len(wire.answers[stream].body) == 30_000 for stream in held))
        for _ in range(20):
            assert served(wire.get("/"))
        assert site.metric("scrubber_pool_used", pool="buffers") < 3 * 2 * STREAM_WINDOW / (24 * KIB)
        wire.open(3 * MIB, held[1])
        assert digest(wire.answer(held[1]).body) == digest(body)
        assert [len(wire.answers[stream].body) for stream in held] == [30_000, len(body), 30_000]


# ── priorities (RFC 9218) ──


def contended(wire: Wire2, *said: str) -> list[int]:
    """Downloads that wait for the connection's window, with these priorities."""
    filler = wire.answers[wire.request("/fill")]
    wire.until(lambda: len(filler.body) == 65_535, "a window that is used up")
    streams = [wire.request("/fill", headers=[("priority", each)] if each else []) for each in said]
    wire.until(lambda: all(wire.answers[stream].status for stream in streams), "heads")
    wire.quiet(0.1)
    return streams


def test_what_is_urgent_is_first(site: Proxy) -> None:
    site.origin.answers["/fill"] = respond(noise(70_000))
    for said, first in ((("u=7", "u=0"), 1), (("u=0", "u=7"), 0), (("u=5", ""), 1), (("u=7", "u=1, i"), 1)):
        with Wire2(site.port, settings=window(MIB), opens=False) as wire:
            streams = contended(wire, *said)
            while not any(wire.answers[stream].ended for stream in streams):
                wire.open(10_000)
                wire.quiet(0.01)
            assert wire.answers[streams[first]].ended, said
            assert len(wire.answers[streams[1 - first]].body) < 35_000


def test_what_is_urgent_may_change(site: Proxy) -> None:
    """PRIORITY_UPDATE (RFC 9218 7.1)."""
    site.origin.answers["/fill"] = respond(noise(70_000))
    with Wire2(site.port, settings=window(MIB), opens=False) as wire:
        streams = contended(wire, "u=4", "u=6")
        wire.raw(frame(16, 0, streams[1].to_bytes(4) + b"u=0"))
        assert wire.alive()
        while not any(wire.answers[stream].ended for stream in streams):
            wire.open(10_000)
            wire.quiet(0.01)
        assert wire.answers[streams[1]].ended


def test_equals_that_are_incremental_share(site: Proxy) -> None:
    site.origin.answers["/fill"] = respond(noise(70_000))
    with Wire2(site.port, settings=window(MIB), opens=False) as wire:
        streams = contended(wire, "u=2, i", "u=2, i")
        for _ in range(4):
            wire.open(20_000)
            wire.quiet(0.05)
        assert all(20_000 < len(wire.answers[stream].body) < 60_000 for stream in streams)


# ── answered before the body is whole ──


@pytest.mark.parametrize("announced", [True, False])
def test_a_body_that_is_too_large_is_413(site: Proxy, wire: Wire2, announced: bool) -> None:
    """The answer whole, then RST_STREAM with NO_ERROR (RFC 9113 8.1): the rest is not wanted."""
    before = len(site.origin.of("/small"))
    stream = wire.request("/small", "POST", [("content-length", "100000")] if announced else [], end=False)
    if not announced:
        wire.send(stream, noise(2000))
    wire.until(lambda: wire.answers[stream].reset is not None, "RST_STREAM")
    answer = wire.answers[stream]
    assert (answer.status, answer.ended, answer.reset) == (413, True, NO_ERROR)
    assert not any(request.complete for request in site.origin.of("/small")[before:])
    assert served(wire.answer(wire.request("/small", "POST", body=noise(1024))))


def test_an_origin_that_answers_early(site: Proxy, wire: Wire2) -> None:
    def early(exchange: Exchange) -> None:
        respond(b"early")(exchange)
        exchange.closed_by_gateway(10)
        raise Gone

    site.origin.on_head["/early"] = early
    stream = wire.request("/early", "POST", [("content-length", "1000000")], end=False)
    wire.send(stream, noise(1000))
    wire.until(lambda: wire.answers[stream].reset is not None, "RST_STREAM")
    answer = wire.answers[stream]
    assert (answer.status, bytes(answer.body), answer.ended, answer.reset) == (200, b"early", True, NO_ERROR)
    assert served(wire.get("/"))


def test_what_comes_behind_an_early_answer_is_given_back(site: Proxy, wire: Wire2) -> None:
    """More than the connection's window in all, on streams that were answered without it."""
    assert served(wire.get("/"))
    for _ in range(2):
        streams = [wire.request("/small", "POST", [("content-length", "1000000")], end=False) for _ in range(9)]
        for stream in streams:
            for _ in range(7):
                wire.raw(frame(0, stream, bytes(16_384)))
        assert [wire.answer(stream).status for stream in streams] == [413] * 9
        assert wire.alive()
    assert served(wire.answer(wire.request("/echo", "POST", body=noise(300_000))))


# ── broken off ──


def test_a_reset_in_the_middle_of_an_upload(site: Proxy, wire: Wire2) -> None:
    """The origin's connection ends, so that nobody takes the body for whole; the others go on."""
    other = wire.request("/echo", "POST", [("content-length", "8")], end=False)
    wire.send(other, b"half")
    for path, length in (("/cut-1", [("content-length", "1000000")]), ("/cut-2", [])):
        stream = wire.request(path, "POST", length, end=False)
        wire.send(stream, noise(100_000))
        until(lambda p=path: site.origin.of(p))  # type: ignore[misc]
        opened = site.origin.open
        wire.reset(stream, CANCEL)
        until(lambda: site.gauge("http2_streams") == 1)
        until(lambda n=opened: site.origin.open < n)  # type: ignore[misc]
        assert not site.origin.last(path).complete
    wire.send(other, b"half", end=True)
    assert bytes(wire.answer(other).body) == b"halfhalf"
    lines = [*site.lines("/cut-1"), *site.lines("/cut-2")]
    assert {(line["event.outcome"], line["scrubber.outcome"]) for line in lines} == {("failure", "aborted")}


def test_a_reset_in_the_middle_of_a_download(site: Proxy, wire: Wire2) -> None:
    told = threading.Event()

    def endless(exchange: Exchange) -> None:
        exchange.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n")
        try:
            while True:
                exchange.send(bytes(65536))
        finally:
            told.set()

    site.origin.answers["/endless"] = endless
    streams = [wire.request("/endless") for _ in range(2)]
    wire.until(lambda: all(len(wire.answers[stream].body) > 100_000 for stream in streams))
    wire.reset(streams[0])
    assert told.wait(10)
    size = len(wire.answers[streams[1]].body)
    wire.until(lambda: len(wire.answers[streams[1]].body) > size + 1_000_000)
    wire.reset(streams[1])
    assert served(wire.get("/"))
    until(lambda: site.gauge("http2_streams") == 0)


def test_a_reset_before_the_answer(site: Proxy, wire: Wire2) -> None:
    """While the origin thinks; and in the same breath as the request: that one goes no further."""
    ends = threading.Event()

    def think(exchange: Exchange) -> None:
        if exchange.closed_by_gateway(10):
            ends.set()
        raise Gone

    site.origin.answers["/think"] = think
    stream = wire.request("/think")
    until(lambda: site.origin.of("/think"))
    wire.reset(stream)
    assert ends.wait(10)
    stream = wire.h2.get_next_available_stream_id()
    wire.h2.send_headers(stream, wire.fields("/breath"), end_stream=True)
    wire.h2.reset_stream(stream)
    wire.flush()
    assert served(wire.get("/"))
    assert site.origin.of("/breath") == []
    assert site.lines("/breath")[0]["scrubber.outcome"] == "aborted"


@pytest.mark.parametrize("how", ["closed", "reset"])
def test_a_client_that_goes_in_the_middle(site: Proxy, how: str) -> None:
    site.origin.answers["/large"] = respond(noise(MIB))
    with Wire2(site.port, opens=False) as wire:
        down = [wire.request("/large") for _ in range(5)]
        up = [wire.request("/echo", "POST", end=False) for _ in range(5)]
        for stream in up:
            wire.send(stream, b"some")
        wire.until(lambda: sum(len(wire.answers[stream].body) for stream in down) >= 65_535)
        if how == "reset":
            wire.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    until(lambda: site.gauge("http2_connections") == 0)
