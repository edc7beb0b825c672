"""Bodies through the gateway in every combination, byte for byte, spliced and copied; afterwards every pool is whole.

HTTP version × framing of request and answer × size × direction × keep-alive × pace; aborts by either side at every
stage. The sizes of many GiB are in test_matrix_large.py.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator

import pytest

from tests.e2e.proxy import Proxy
from tests.e2e.stream import ORIGIN_STAGES, Ended, Pace, Plan, StreamClient, StreamOrigin, ends, eventually, reset
from tests.e2e.support import SLOW

MIB = 1 << 20
SIZES = (10, 65535, 65536, 65537, 10 * MIB)
ANSWERS = ("length", "chunked", "close")
PACE = Pace(65536, 0.002)


class Streams:
    """A gateway before a stream origin."""

    def __init__(self, proxy: Proxy, origin: StreamOrigin, *, splice: bool) -> None:
        self.proxy, self.origin, self.splice = proxy, origin, splice

    def plan(self, **what: object) -> Plan:
        self.origin.plan = Plan(**what)  # type: ignore[arg-type]
        return self.origin.plan

    def whole(self) -> None:
        """No connection and no request is left, every pool is whole; the origin read what was sent."""
        proxy = self.proxy
        # Both in one look: a client may be gone before its connection is accepted.
        gauges = ("connections", "requests_in_flight")
        eventually(lambda: not any(map(proxy.gauge, gauges)), 10 * SLOW, "connections that nobody closed")
        eventually(lambda: self.origin.open == proxy.gauge("origin_connections"), 10 * SLOW, "origin connections")
        eventually(proxy.pools_whole, 10 * SLOW, "a pool that is not whole")
        assert self.origin.faults == []


@pytest.fixture(scope="module", params=[True, False], ids=["splice", "copy"])
def streams(request: pytest.FixtureRequest) -> Iterator[Streams]:
    origin = StreamOrigin()
    area = f"splice = {'true' if request.param else 'false'}"
    with Proxy(area=area, origins=[origin.address], limits='body_bytes_max = "1GiB"') as proxy:
        found = Streams(proxy, origin, splice=request.param)
        yield found
        found.whole()
        spliced = proxy.metric("scrubber_spliced_bytes_total")
        assert (spliced > 0) == request.param, spliced
    origin.close()


def cases(minor: int) -> Iterator[tuple[str, int, str, int]]:
    """Framing and size of the request's body, and of the answer's."""
    ups = ("length", "chunked") if minor else ("length",)
    for size in SIZES:
        yield from (("none", 0, framing, size) for framing in ANSWERS)
        yield from ((framing, size, "length", 2) for framing in ups)
        yield from ((up, size, down, size) for up, down in itertools.product(ups, ANSWERS))


@pytest.mark.parametrize("keep_alive", [True, False], ids=["keep-alive", "close"])
@pytest.mark.parametrize("minor", [0, 1], ids=["1.0", "1.1"])
def test_every_combination_is_byte_exact(streams: Streams, minor: int, keep_alive: bool) -> None:
    client: StreamClient | None = None
    for up, up_size, down, down_size in cases(minor):
        plan = streams.plan(framing=down, size=down_size, keep_alive=keep_alive)
        client = client or StreamClient(streams.proxy.port)
        headers, count = client.exchange(minor, up, up_size, keep_alive=keep_alive)
        assert (count, plan.taken) == (down_size, [up_size]), (up, up_size, down)
        assert headers["x-taken"] == str(up_size)
        # Towards HTTP/1.0 only the close can end a body of unknown length.
        delimited = minor == 0 and down != "length"
        assert ("transfer-encoding" in headers) == (minor == 1 and down != "length")
        if not keep_alive or delimited:
            assert headers.get("connection") == "close"
            assert ends(client) == "closed"
            client.sock.close()
            client = None
    if client is not None:
        client.sock.close()
    streams.whole()


@pytest.mark.parametrize("who", ["client reads", "client writes", "origin reads", "origin writes"])
@pytest.mark.parametrize("framing", ["length", "chunked", "close"])
def test_slow_ones_get_every_byte(streams: Streams, who: str, framing: str) -> None:
    """4 MiB both ways, one side slow: the others wait, nothing is lost."""
    size = 4 * MIB
    up = "length" if framing == "close" else framing
    paces = {name: PACE if name == who else Pace() for name in ("client reads", "client writes")}
    plan = streams.plan(
        framing=framing,
        size=size,
        read=PACE if who == "origin reads" else Pace(),
        write=PACE if who == "origin writes" else Pace(),
    )
    with StreamClient(streams.proxy.port, read=paces["client reads"], write=paces["client writes"]) as client:
        _, count = client.exchange(1, up, size, keep_alive=True)
        assert (count, plan.taken) == (size, [size])
    streams.whole()


@pytest.mark.parametrize("framing", ["length", "chunked"])
@pytest.mark.parametrize("size", [65537, 10 * MIB])
@pytest.mark.parametrize(
    "stage", ["in the head", "after the head", "in the request", "before the answer", "in the answer", "not reading"]
)
def test_a_client_that_aborts_leaves_nothing(streams: Streams, stage: str, size: int, framing: str) -> None:
    wait = Pace(65536, 0.05) if stage == "before the answer" else Pace()
    streams.plan(framing=framing, size=size, read=wait)
    for quietly in (False, True):
        client = StreamClient(streams.proxy.port)
        if stage == "in the head":
            client.sock.sendall(b"POST /stream HTTP/1.1\r\nHost: si")
        elif stage == "after the head":
            client.send(1, framing, size, keep_alive=True, stop_at=0)
        elif stage == "in the request":
            client.send(1, framing, size, keep_alive=True, stop_at=size // 2)
        elif stage == "before the answer":
            client.send(1, framing, 1000, keep_alive=True)
        else:
            client.send(1, "none", 0, keep_alive=True)
            client.reader.head()
            if stage == "in the answer":
                if not client.reader.data:
                    client.reader.more()
            else:
                time.sleep(0.2)  # what it does not read waits in queue or pipe
        if quietly:
            client.sock.close()
        else:
            reset(client.sock)
    streams.whole()


@pytest.mark.parametrize("framing", ["length", "chunked", "close"])
@pytest.mark.parametrize("size", [65537, 10 * MIB])
@pytest.mark.parametrize("stage", ORIGIN_STAGES)
def test_an_origin_that_aborts_is_told_apart_from_an_end(streams: Streams, stage: str, size: int, framing: str) -> None:
    """A bad gateway while nothing was answered; else the client can see that the answer is not whole."""
    up = "length" if framing == "close" else framing
    streams.plan(framing=framing, size=size, abort=stage)
    with StreamClient(streams.proxy.port) as client:
        try:
            client.send(1, up, size, keep_alive=True)
        except OSError:
            assert stage in ("at once", "after the head", "in the request")
        try:
            line, headers = client.reader.head()
        except Ended:
            assert stage in ("at once", "after the head", "in the request"), "an answer was owed"
            line, headers = "", {}
        if stage in ("in the answer", "end in body"):
            assert " 200 " in line
            if stage == "end in body" and framing == "close":
                assert client.reader.body(headers, to_the_end=True) == size // 2, "that is how it ends"
            else:
                with pytest.raises(Ended):
                    client.reader.body(headers, to_the_end=True)
        elif line:
            assert " 502 " in line
    streams.whole()


def test_a_slow_reader_holds_one_window(streams: Streams) -> None:
    """Of a body of 256 MiB, far more than the kernel's buffers, the gateway holds next to nothing."""
    streams.plan(framing="length", size=256 * MIB)
    before = streams.proxy.rss_bytes()
    clients = [StreamClient(streams.proxy.port, read=Pace(65536, 0.001)) for _ in range(24)]  # more than pipes
    for client in clients:
        client.send(1, "none", 0, keep_alive=True)
        client.reader.head()
        client.reader.compare(0, MIB)
    time.sleep(0.5)
    assert SLOW > 1 or streams.proxy.rss_bytes() - before < 12 * MIB
    with StreamClient(streams.proxy.port) as other:
        assert other.exchange(1, "none", 0, keep_alive=True)[1] == 256 * MIB, "others are not held up"
    for client in clients:
        reset(client.sock)
    streams.whole()
