"""HTTP/2 clients of an engine in this process: streams that end in every way, and what a connection may hold.

One thread drives all of it, pass by pass (tests/unit/http2_stage.py); after every test nothing is left behind.
"""

from __future__ import annotations

import contextlib
import json
import select
import socket
import threading
import time
from collections.abc import Callable, Iterator

import hpack
import pytest

from tests.conformance.http2_peer import (
    PREFACE,
    SETTINGS,
    data,
    frame,
    goaway,
    headers,
    priority,
    rst_stream,
    settings,
    window_update,
)
from tests.reference.http2_fingerprint import fingerprint
from tests.unit.http2_stage import OK, Answer, Peer, Stage

SWITCH = Answer(b"HTTP/1.1 101 Switching\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n", switches=True)
WEBSOCKET = (("sec-websocket-version", "13"),)
ENHANCE_YOUR_CALM, PROTOCOL_ERROR, REFUSED_STREAM = 11, 1, 7


@pytest.fixture
def stage() -> Iterator[Callable[..., Stage]]:
    made: list[Stage] = []

    def make(**settings: object) -> Stage:
        made.append(Stage(**settings))  # type: ignore[arg-type]
        return made[-1]

    yield make
    for each in made:
        each.whole()
        each.close()


@contextlib.contextmanager
def peer(stage: Stage) -> Iterator[Peer]:
    found = Peer(stage)
    try:
        found.start()
        found.settle()
        yield found
    finally:
        found.close()


def wait(found: Peer, seconds: float) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        found.settle()
        time.sleep(0.01)


def open_tunnel(found: Peer) -> None:
    fields = [
        (":method", "CONNECT"),
        (":scheme", "http"),
        (":path", "/"),
        (":authority", "a.example"),
        (":protocol", "websocket"),
        *WEBSOCKET,
    ]
    found.send(headers(1, found.block(fields), end_stream=False))
    found.settle()
    assert found.told(1).head is not None
    assert found.stage.gauges()["tunnels"] == 1


def test_settings_come_before_the_goaway_of_a_first_read(stage: Callable[..., Stage]) -> None:
    """RFC 9113 3.4: a client that saw GOAWAY first would have to call it an error of ours."""
    found = Peer(stage())
    found.send(PREFACE + settings() * 30)
    found.settle()
    assert found.answers.kinds[0] == SETTINGS
    assert found.answers.goaway == (0, ENHANCE_YOUR_CALM)
    found.close()


def test_a_malformed_request_leaves_no_deadline_behind(stage: Callable[..., Stage]) -> None:
    """Its field section has ended, though nghttp2 never said so; the connection goes on."""
    running = stage(area='[area.limits]\nhead_timeout = "200ms"\nidle_timeout = "1m"\n')
    with peer(running) as found:
        found.ask(1, "/", ("Upper", "case"))
        found.settle()
        assert found.told(1).code == PROTOCOL_ERROR
        wait(found, 0.5)
        found.ask(3)
        found.settle()
        assert found.told(3).body == b"ok"
        assert running.totals()["timeouts_head"] == 0


def test_a_field_section_that_does_not_end_is_late(stage: Callable[..., Stage]) -> None:
    running = stage(area='[area.limits]\nhead_timeout = "200ms"\nidle_timeout = "1m"\n')
    with peer(running) as found:
        found.ask(1)
        found.settle()
        found.send(headers(3, b"\x82", end_headers=False))
        wait(found, 0.5)
        assert found.answers.goaway is not None
        assert found.answers.goaway[1] == ENHANCE_YOUR_CALM
        assert running.totals()["timeouts_head"] == 1


def test_an_idle_connection_holds_no_buffer(stage: Callable[..., Stage]) -> None:
    """There are as many buffers as connections: held by idle ones, there would be none for anybody."""
    running = stage()
    with contextlib.ExitStack() as all_of_them:
        for number in range(20):
            found = all_of_them.enter_context(peer(running))
            if number % 2:
                found.ask(1)
            else:
                found.ask(1, "/", ("Upper", "case"))  # malformed: its section ends nowhere
            found.settle()
        assert running.engine.pools()["sessions"][0] == 20
        assert running.engine.pools()["buffers"][0] == 0


@pytest.mark.parametrize("code", [0, 2])
def test_who_says_goodbye_did_nothing_wrong(stage: Callable[..., Stage], code: int) -> None:
    running = stage()
    with peer(running) as found:
        found.ask(1)
        found.settle()
        found.send(goaway(code))
        found.settle()
        assert found.over
        assert running.totals()["http2_refused"] == 0


def test_who_says_goodbye_is_given_what_was_asked_for(stage: Callable[..., Stage]) -> None:
    running = stage()
    with peer(running) as found:
        found.ask(1)
        found.send(goaway(0))
        found.settle()
        assert found.told(1).body == b"ok"
        assert found.over
        assert running.totals()["http2_refused"] == 0


def test_what_nghttp2_refuses_is_counted(stage: Callable[..., Stage]) -> None:
    running = stage()
    with peer(running) as found:
        found.send(frame(SETTINGS, 0, b"123"))
        found.settle()
        assert found.over
        assert running.totals()["http2_refused"] == 1


def fingerprint_of(stage: Stage, pieces: list[bytes]) -> str:
    found = Peer(stage)
    for piece in pieces:
        found.send(piece)
        stage.passes(1)
    found.settle()
    found.close()
    stage.whole()
    lines = [json.loads(line) for line in stage.lines()]
    return str(lines[-1]["scrubber.http2"])


def test_a_fingerprint_is_the_same_however_the_bytes_come(stage: Callable[..., Stage]) -> None:
    running = stage()
    block = b"\x82\x86\x84\x41\x01a"
    whole = (
        PREFACE
        + settings((1, 65536), (4, 131072))
        + window_update(0, 12517377)
        + b"".join(priority(n, 0, 201) for n in (3, 5, 7, 9, 11))
        + headers(13, block)
        + window_update(0, 1)
        + priority(15)
    )
    expected = fingerprint_of(running, [whole])
    assert expected == f"{fingerprint(whole):016x}"
    for cut in range(14, len(whole)):
        assert fingerprint_of(running, [whole[:cut], whole[cut:]]) == expected, cut


def test_a_fingerprint_ends_with_the_first_request_though_that_was_malformed(stage: Callable[..., Stage]) -> None:
    running = stage()
    block = b"\x82\x86\x84\x41\x01a"
    whole = PREFACE + settings() + headers(1, block + b"\x00\x01A\x01a") + window_update(0, 9) + headers(3, block)
    assert fingerprint_of(running, [whole]) == f"{fingerprint(whole):016x}"


def test_a_drain_tells_the_client_and_ends_with_its_requests(stage: Callable[..., Stage]) -> None:
    running = stage()
    with peer(running) as found, peer(running) as other:
        found.ask(1)
        found.settle()
        running.answer = lambda request: Answer(b"")
        other.ask(1)
        other.settle()
        running.engine.drain(20.0)
        wait(found, 0.2)
        assert found.answers.goaway == (2**31 - 1, 0)
        found.ask(3)  # on its way meanwhile
        running.answer = lambda request: OK
        found.settle()
        assert found.told(3).body == b"ok"
        wait(found, 1.2)
        other.settle()
        assert found.answers.goaway == (3, 0)
        assert found.over
        assert other.answers.goaway == (1, 0)
        assert not other.over
        for end in running.ends:
            end.out += OK.data * (not end.over)
        wait(other, 0.2)
        assert other.told(1).body == b"ok"
        assert other.over
        assert running.totals()["http2_refused"] == 0


def test_a_pass_gives_one_connection_its_share_alone(stage: Callable[..., Stage]) -> None:
    """A fast client of kept answers: others wait no longer for it than for one of HTTP/1.1."""
    top = '[memory]\ncache = "64MiB"\n'
    running = stage(area='[area.cache]\nenabled = true\nobject_bytes_max = "1MiB"\n' + top, cache=1 << 26, buffers=1024)
    body = bytes(1_000_000)
    running.answer = lambda request: Answer(
        b"HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: %d\r\n\r\n" % len(body) + body
    )
    with peer(running) as found:
        found.send(settings((4, (1 << 31) - 1)) + window_update(0, 1 << 30))
        found.ask(1)
        found.settle(5000)
        assert found.told(1).body == body
        read = [0]
        reader = threading.Thread(target=count, args=(found.sock, read))
        streams = range(3, 43, 2)
        for stream in streams:
            found.ask(stream)
        reader.start()
        most = 0
        until = time.monotonic() + 10
        while read[0] < len(streams) * len(body) and time.monotonic() < until:
            before = read[0]
            running.engine.run_pass()
            most = max(most, read[0] - before)
        found.sock.shutdown(2)
        reader.join()
        assert read[0] > len(streams) * len(body)
        assert most < 4 << 20


def count(sock: socket.socket, read: list[int]) -> None:
    with contextlib.suppress(OSError):
        while select.select([sock], [], [], 5)[0]:
            data = sock.recv(1 << 20)
            if not data:
                return
            read[0] += len(data)


def test_what_waits_in_the_tarpit_holds_no_buffer(stage: Callable[..., Stage]) -> None:
    rule = '[[rule]]\nname = "r"\nper = "client"\nlimit = "1/min burst 1"\nthen = ["tarpit"]\n'
    running = stage(rules=rule, area='[area.limits]\ntarpit_time = "300ms"\n')
    with peer(running) as found:
        found.ask(1)
        for stream in range(3, 23, 2):
            found.ask(stream, method="POST", last=False)
            found.send(data(stream, b"early", end_stream=False))
        found.settle()
        for stream in range(3, 23, 2):
            found.send(data(stream, b"late", end_stream=False))
        found.settle()
        assert running.gauges()["tarpit"] == 10
        assert running.engine.pools()["buffers"][0] == 0
        wait(found, 0.5)
        assert {found.told(stream).head[b":status"] for stream in range(3, 23, 2)} == {b"429"}  # type: ignore[index]


def test_a_tunnel_whose_stream_is_reset_ends(stage: Callable[..., Stage]) -> None:
    running = stage()
    running.answer = lambda request: SWITCH
    with peer(running) as found:
        open_tunnel(found)
        found.send(rst_stream(1))
        found.settle()
        assert running.gauges()["tunnels"] == 0


def test_a_tunnels_other_way_goes_on_when_one_has_ended(stage: Callable[..., Stage]) -> None:
    """The origin's half-close is the end of the stream's way down, no reset."""
    running = stage()
    running.answer = lambda request: SWITCH
    with peer(running) as found:
        open_tunnel(found)
        found.send(data(1, b"one", end_stream=False))
        found.settle()
        assert found.told(1).body == b"one"
        end = running.ends[0]
        end.conn.shutdown(1)
        found.settle()
        assert found.told(1).ended
        assert found.told(1).code is None
        assert running.gauges()["tunnels"] == 1
        end.echo = False
        found.send(data(1, b"two", end_stream=False))
        found.settle()
        found.send(data(1, b"three"))
        found.settle()
        assert end.seen.endswith(b"onetwothree")
        assert running.gauges()["tunnels"] == 0


def test_a_slow_reader_of_a_tunnel_is_not_one_that_reads_nothing(stage: Callable[..., Stage]) -> None:
    running = stage(area='[area.limits]\nwrite_timeout = "400ms"\n')
    running.answer = lambda request: SWITCH
    with peer(running) as found:
        found.send(settings((4, 0)))
        found.settle()
        open_tunnel(found)
        running.ends[0].out += bytes(10000)
        for _ in range(12):
            found.send(window_update(1, 100))
            wait(found, 0.1)
        assert len(found.told(1).body) == 1200
        assert running.gauges()["tunnels"] == 1
        wait(found, 1.5)
        assert running.gauges()["tunnels"] == 0, "now it reads nothing"


def test_who_may_not_send_is_not_too_slow(stage: Callable[..., Stage]) -> None:
    """Bodies that wait for another origin fill the connection's window: who sends the next one waits for us."""
    limits = '[area.limits]\nbody_grace = "100ms"\norigin_connections_max = 1\norigin_wait = "1m"\n'
    running = stage(area=limits + '[[area]]\nname = "other"\nhosts = ["b.example"]\norigins = ["ORIGIN"]\n' + limits)
    running.answer = lambda request: Answer(b"")
    with peer(running) as found:
        found.ask(1)
        for stream in range(3, 19, 2):
            found.ask(stream, method="POST", last=False)
            for _ in range(8):
                found.send(data(stream, bytes(16384), end_stream=False))
                found.settle()
        running.answer = lambda request: OK
        found.encoder = hpack.Encoder()
        fields = [
            (":method", "POST"),
            (":scheme", "http"),
            (":path", "/"),
            (":authority", "b.example"),
            ("content-length", "4"),
        ]
        found.send(headers(21, found.block(fields), end_stream=False))
        wait(found, 1.5)
        assert found.told(21).head is None, "408"
        for stream in range(3, 19, 2):
            found.send(rst_stream(stream))
        found.settle()
        found.send(data(21, b"body"))
        found.settle()
        assert found.told(21).body == b"ok"


def test_who_finds_no_buffer_left_did_nothing_wrong(stage: Callable[..., Stage]) -> None:
    """Heads that we have no room for are refused for another try; they are no bombs."""
    running = stage(buffers=40, area="[area.limits]\norigin_connections_max = 1\n")
    running.answer = lambda request: Answer(b"")
    with peer(running) as found:
        streams = range(1, 41, 2)
        for stream in streams:
            found.ask(stream, method="POST", last=False)
        found.settle()
        bodies = b"".join(data(stream, b"x", end_stream=False) for stream in streams)
        fields = [(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "a.example")]
        found.send(bodies + b"".join(headers(stream, found.block(fields)) for stream in range(41, 61, 2)))
        found.settle()
        assert {found.told(stream).code for stream in range(41, 61, 2)} == {REFUSED_STREAM}
        assert running.totals()["http2_refused"] == 0


def test_requests_that_cannot_be_are_no_cheaper_than_resets(stage: Callable[..., Stage]) -> None:
    """They are answered without a judgement, as those of HTTP/1.1 are, whose connection ends there."""
    running = stage()
    with peer(running) as found:
        stream = 1
        while stream < 600 and not found.over:
            for _ in range(25):
                found.ask(stream, "/", ("host", "b.example"))
                stream += 2
            found.settle()
        assert found.told(1).head[b":status"] == b"400"  # type: ignore[index]
        assert found.answers.goaway is not None
        assert found.answers.goaway[1] == ENHANCE_YOUR_CALM
        assert 200 < running.totals()["bad_requests"] < 250


def test_a_tunnel_that_is_cut_half_closed_leaves_no_stream_open(stage: Callable[..., Stage]) -> None:
    running = stage(area='[area.tunnel]\nidle_timeout = "200ms"\n')
    running.answer = lambda request: SWITCH
    with peer(running) as found:
        open_tunnel(found)
        running.ends[0].conn.shutdown(1)
        found.settle()
        assert found.told(1).ended
        wait(found, 0.5)
        assert running.gauges()["tunnels"] == 0
        assert found.told(1).code is not None
