"""Bodies through the gateway in every combination, byte for byte, spliced and copied; afterwards every pool is whole.

HTTP version × framing of request and answer × size × direction × keep-alive × pace; answers without a body; aborts by
either side at every stage. The sizes of many GiB are in test_matrix_large.py.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.e2e.proxy import Proxy
from tests.e2e.stream import (
    IN_CHUNKS,
    ORIGIN_STAGES,
    Deaf,
    Ended,
    Pace,
    Plan,
    StreamClient,
    StreamOrigin,
    ends,
    eventually,
    piece_at,
    request_head,
    reset,
)
from tests.e2e.support import SLOW

MIB = 1 << 20
SIZES = (10, 65535, 65536, 65537, 10 * MIB)
ANSWERS = ("length", "chunked", "close")
PACE = Pace(65536, 0.002)
VARIANTS = tuple(itertools.product((0, 1), (True, False)))  # HTTP/1.x, keep-alive
READ_OFF = MIB  # of a chunked body that is not wanted any more, so much is read off, that its answer be not lost
# A client that ends its side while an origin is connected to may still want the answer: nobody can tell before that.
LIMITS = 'body_bytes_max = "1GiB"\nconnect_timeout = "300ms"'
ROUTES = """
[[area.pool]]
name = "deaf"
origins = ["127.0.0.1:{deaf}"]
[[area.pool]]
name = "one"
origins = [{{ address = "{origin}", connections_max = 1 }}]
[[area.route]]
path = "/connecting"
pool = "deaf"
[[area.route]]
path = "/waiting"
pool = "one"
"""


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
        eventually(proxy.running.pools_whole, 10 * SLOW, "a pool that is not whole")
        assert self.origin.faults == []


@pytest.fixture(scope="module", params=[True, False], ids=["splice", "copy"])
def streams(request: pytest.FixtureRequest) -> Iterator[Streams]:
    origin, deaf = StreamOrigin(), Deaf()
    area = f"splice = {'true' if request.param else 'false'}"
    routes = ROUTES.format(deaf=deaf.port, origin=origin.address)
    with Proxy(area=area, origins=[origin.address], limits=LIMITS, extra=routes) as proxy:
        found = Streams(proxy, origin, splice=request.param)
        yield found
        found.whole()
        spliced = proxy.metric("scrubber_spliced_bytes_total")
        assert (spliced > 0) == request.param, spliced
    origin.close()
    deaf.close()


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


def test_answers_without_a_body_end_with_their_head(streams: Streams) -> None:
    """Whatever length they name: the next answer on the connection is where it should be."""
    for (minor, keep_alive), framing in itertools.product(VARIANTS, ANSWERS):
        client = StreamClient(streams.proxy.port)
        for method, status in (("HEAD", 200), ("GET", 204), ("GET", 304), ("HEAD", 304), ("POST", 204)):
            up = "length" if method == "POST" else "none"
            for said in (status, 200):  # an ordinary one right behind it
                streams.plan(framing=framing, size=65537, status=said, keep_alive=keep_alive)
                method = "GET" if said != status else method  # noqa: PLW2901
                bodiless = method == "HEAD" or said in (204, 304)
                headers, count = client.exchange(
                    minor, up if method == "POST" else "none", 10, keep_alive=keep_alive, method=method, status=said
                )
                assert count == (0 if bodiless else 65537)
                if framing == "length" and said != 204:
                    assert headers["content-length"] == "65537"
                if headers.get("connection") == "close":
                    assert ends(client) == "closed"
                    client.sock.close()
                    client = StreamClient(streams.proxy.port)
        client.sock.close()
    streams.whole()


def test_answers_that_end_where_the_budget_of_a_pass_does(streams: Streams) -> None:
    """More than a pass reads of one connection at once, and the connection ends with it."""
    for framing, size in itertools.product(ANSWERS, (540 << 10, 600 << 10, MIB)):
        for _ in range(10):
            streams.plan(framing=framing, size=size, keep_alive=False)
            with StreamClient(streams.proxy.port) as client:
                assert client.exchange(1, "none", 0, keep_alive=True)[1] == size
    streams.whole()


@pytest.mark.parametrize("who", ["client reads", "client writes", "origin reads", "origin writes"])
@pytest.mark.parametrize("framing", ANSWERS)
def test_slow_ones_get_every_byte(streams: Streams, who: str, framing: str) -> None:
    """4 MiB both ways, one side slow: the others wait, nothing is lost. All versions beside each other."""
    size = 4 * MIB
    plan = streams.plan(
        framing=framing,
        size=size,
        read=PACE if who == "origin reads" else Pace(),
        write=PACE if who == "origin writes" else Pace(),
    )

    def one(variant: tuple[int, bool]) -> int:
        minor, keep_alive = variant
        up = "chunked" if framing == "chunked" and minor else "length"
        paces = [PACE if name == who else Pace() for name in ("client reads", "client writes")]
        with StreamClient(streams.proxy.port, read=paces[0], write=paces[1]) as client:
            _, count = client.exchange(minor, up, size, keep_alive=keep_alive)
            if not keep_alive:
                assert ends(client) == "closed"
        return count

    with ThreadPoolExecutor(len(VARIANTS)) as pool:
        assert list(pool.map(one, VARIANTS)) == [size] * len(VARIANTS)
    assert plan.taken == [size] * len(VARIANTS)
    streams.whole()


# ── a client aborts ──

Begin = Callable[[Streams, StreamClient, int, str, int, bool], None]


def uploads(stop: Callable[[int], int | None], path: str = "/stream") -> Begin:
    """A request of which that much is sent."""

    def begin(_: Streams, client: StreamClient, minor: int, framing: str, size: int, keep_alive: bool) -> None:
        client.send(minor, framing, size, keep_alive=keep_alive, stop_at=stop(size), path=path)

    return begin


def says(tail: bytes, *, framed: bool = False) -> Begin:
    """These bytes; `framed`: behind a request's head."""

    def begin(_: Streams, client: StreamClient, minor: int, framing: str, size: int, keep_alive: bool) -> None:
        head = request_head(minor, framing, size, keep_alive=keep_alive)
        client.sock.sendall(head + tail if framed else tail)

    return begin


def whole_request(_: Streams, client: StreamClient, minor: int, framing: str, size: int, keep_alive: bool) -> None:
    client.send(minor, framing, 1000, keep_alive=keep_alive)


def reads(*, some: bool) -> Begin:
    """The answer's head, and something of its body."""

    def begin(_: Streams, client: StreamClient, minor: int, framing: str, size: int, keep_alive: bool) -> None:
        client.send(minor, "none", 0, keep_alive=keep_alive)
        client.reader.head()
        if some and not client.reader.data:
            client.reader.more()

    return begin


def one_exchange(_: Streams, client: StreamClient, minor: int, framing: str, size: int, keep_alive: bool) -> None:
    client.exchange(minor, framing, 1000, keep_alive=keep_alive)


CLIENT_STAGES: dict[str, Begin] = {
    "silent": says(b""),
    "in the head": says(b"POST /stream HTTP/1.1\r\nHost: si"),
    "after the head": uploads(lambda size: 0),
    "in a chunk line": says(b"1", framed=True),
    "in a chunk": says(b"1000\r\n" + piece_at(0, 100), framed=True),
    "in the request": uploads(lambda size: size // 2),
    "connecting": uploads(lambda size: 0, "/connecting"),
    "waiting": uploads(lambda size: 0, "/waiting"),
    "before the answer": whole_request,
    "in the answer": reads(some=True),
    "not reading": reads(some=False),
    "between requests": one_exchange,
}
BEFORE_BODIES = ("silent", "in the head", "in a chunk line", "in a chunk", "connecting", "waiting")


@pytest.mark.parametrize("stage", CLIENT_STAGES)
def test_a_client_that_aborts_leaves_nothing(streams: Streams, stage: str) -> None:
    """By an end and by a reset, several beside each other."""
    for size, framing in itertools.product((65537, 10 * MIB), ("length", "chunked")):
        if (size, framing) != (65537, "chunked") and stage in BEFORE_BODIES:
            continue
        hold = threading.Event()
        plan = streams.plan(framing=framing, size=size, hold=hold if stage == "before the answer" else None)
        clients = []
        for minor, keep_alive in VARIANTS * 2:
            up = framing if minor else "length"
            if stage in IN_CHUNKS and up != "chunked":
                continue
            clients.append(StreamClient(streams.proxy.port))
            CLIENT_STAGES[stage](streams, clients[-1], minor, up, size, keep_alive)
        if stage in ("connecting", "waiting"):
            count = len(clients)
            eventually(lambda count=count: streams.proxy.gauge("requests_in_flight") == count, 10 * SLOW, stage)
        elif stage == "before the answer":
            eventually(lambda plan=plan: len(plan.taken) == len(VARIANTS) * 2, 10 * SLOW, "requests that came whole")
        elif stage == "not reading":
            time.sleep(0.2)  # what it does not read waits in queue or pipe
        for i, client in enumerate(reversed(clients)):
            if i < len(clients) // 2:
                reset(client.sock)
            else:
                client.sock.close()
        hold.set()
        streams.whole()


# ── an origin aborts ──

UNANSWERED = ("at once", "after the head", "in the request", "before the answer", "in its head")


def outcomes(stage: str, framing: str, size: int) -> set[tuple[int, int | None]]:
    """What a client may come to see: the status, and how much of the body as a whole one (None: it is told apart)."""
    if stage in UNANSWERED:
        return {(502, None)}
    if stage == "early answer":
        return {(200, size)}
    if stage == "early answer, reset":  # as far as it came before the reset
        return {(200, size), (200, None), (502, None)}
    if stage == "end in body" and framing == "close":  # that is how it ends
        return {(200, size // 2)}
    return {(200, None)}


@pytest.mark.parametrize("stage", ORIGIN_STAGES)
def test_an_origin_that_aborts_is_told_apart_from_an_end(streams: Streams, stage: str) -> None:
    """A bad gateway while nothing was answered; else the client can see that the answer is not whole."""
    if stage == "at once":  # only a new connection meets that
        streams.origin.close_connections()
        eventually(lambda: not streams.proxy.gauge("origin_connections"), 10 * SLOW, "kept connections")
    for framing, size in itertools.product(ANSWERS, (65537, 10 * MIB)):
        if stage in IN_CHUNKS and framing != "chunked":
            continue
        for minor, keep_alive in VARIANTS:
            plan = streams.plan(framing=framing, size=size, abort=stage)
            up = "chunked" if framing == "chunked" and minor else "length"
            with StreamClient(streams.proxy.port) as client:
                status, count = client.attempt(minor, up, size, keep_alive=keep_alive)
            assert plan.aborted.wait(10 * SLOW), "nobody broke off"
            owed = outcomes(stage, framing, size)
            if up == "chunked" and size > READ_OFF and (stage in UNANSWERED or stage.startswith("early")):
                owed |= {(0, None), (200, None)} if stage.startswith("early") else {(0, None)}
            assert (status, count) in owed, (framing, size, minor, keep_alive)
        streams.whole()


@pytest.mark.parametrize("framing", ANSWERS)
def test_an_origin_that_aborts_while_the_client_does_not_read(streams: Streams, framing: str) -> None:
    for minor, keep_alive in ((0, False), (1, True)):
        plan = streams.plan(framing=framing, size=64 * MIB, abort="in the answer, stuck")  # more than all buffers hold
        with StreamClient(streams.proxy.port) as client:
            client.send(minor, "none", 0, keep_alive=keep_alive)
            assert plan.aborted.wait(10 * SLOW)
            _, headers = client.reader.head()
            with pytest.raises(Ended):
                client.reader.body(headers, to_the_end=True)
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
