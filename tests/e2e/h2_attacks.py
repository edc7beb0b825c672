"""Who comes over HTTP/2 in end-to-end tests: attackers (bench.load.h2_abuse) and people, also people of heavy habits.

Owns: their sockets and threads. Invariants: all addresses are loopback, attackers' in 127.2.0.0/16, people's in
127.4.0.0/16; every wait has a deadline; nothing is retried.
"""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import h2.config
import h2.connection
import h2.events
import h2.settings

from bench.load.guard import Route
from bench.load.h2_abuse import Ended, abuse, sealing
from bench.load.h2_shapes import ABUSES, PRIORITY_UPDATE, Site, frame
from tests.e2e.attacks import BODY, PAUSE_S, Failure
from tests.e2e.support import SLOW

AT_ONCE = 12  # attacks of one kind of pace; more would measure this process
WAIT_S = 10 * SLOW
WINDOW = 65_535


def attack(names: Sequence[str], port: int, site: Site, network: int, seconds: float) -> dict[str, Ended]:
    """Each attack once, several at once, each from an address of its own: 127.2.`network`.x. Those that take their
    time wait beside each other."""
    patient = [name for name in names if ABUSES[name].every_s or not ABUSES[name].reads or "held" in name]

    def one(name: str) -> Ended:
        return abuse(ABUSES[name], Route(address(name, network), "127.0.0.1", port), site, seconds)

    with ThreadPoolExecutor(AT_ONCE) as busy, ThreadPoolExecutor(len(patient) or 1) as waiting:
        doing = {name: (waiting if name in patient else busy).submit(one, name) for name in names}
        return {name: each.result() for name, each in doing.items()}


def address(name: str, network: int) -> str:
    return f"127.2.{network}.{1 + list(ABUSES).index(name)}"


class Visitor:
    """One connection of an honest client, by hyper-h2. `reads` gives each body's bytes back as they come, unless it is
    told otherwise."""

    def __init__(self, port: int, source: str, *, secure: bool = False, receive_bytes: int = 0) -> None:
        self.sock: socket.socket = socket.socket()
        if receive_bytes:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        self.sock.bind((source, 0))
        self.sock.settimeout(WAIT_S)
        self.sock.connect(("127.0.0.1", port))
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if secure:
            self.sock = sealing("h2").wrap_socket(self.sock, server_hostname="site.test")
        self.scheme = "https" if secure else "http"
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True, header_encoding="utf-8"))
        self.h2.initiate_connection()
        self.flush()
        self.status: dict[int, str] = {}
        self.bodies: dict[int, bytes] = {}
        self.over: set[int] = set()
        self.reset: dict[int, int] = {}
        self.goaway: int | None = None
        self.ended = False
        self.pongs = 0
        self.gives_back = True

    def __enter__(self) -> Visitor:
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()

    def flush(self) -> None:
        self.sock.sendall(self.h2.data_to_send())

    def ask(self, path: str, body: bytes | None = None, *, whole: bool = True) -> int:
        """A request, on its way; `body`: it is a POST, `whole`: and that is all of it."""
        stream = self.h2.get_next_available_stream_id()
        head = [(":method", "GET" if body is None else "POST"), (":scheme", self.scheme), (":path", path)]
        self.h2.send_headers(stream, [*head, (":authority", "site.test")], end_stream=body is None)
        self.bodies[stream] = b""
        if body is not None:
            self.say(stream, body, whole=whole)
        self.flush()
        return stream

    def say(self, stream: int, body: bytes, *, whole: bool) -> None:
        for at in range(0, len(body), 16_384):
            self.h2.send_data(stream, body[at : at + 16_384])
        if whole:
            self.h2.end_stream(stream)

    def read(self, timeout_s: float = 0.0) -> bool:
        """Takes what is there, or comes in time. False: nothing did, or it is the end."""
        ready = isinstance(self.sock, ssl.SSLSocket) and self.sock.pending()
        if not ready and not select.select([self.sock], [], [], timeout_s)[0]:
            return False
        try:
            piece = self.sock.recv(65_536)
        except ConnectionError:
            piece = b""
        if not piece:
            self.ended = True
            return False
        for event in self.h2.receive_data(piece):
            self.note(event)
        with contextlib.suppress(ConnectionError):
            self.flush()
        return True

    def note(self, event: h2.events.Event) -> None:
        if isinstance(event, h2.events.ResponseReceived):
            self.status[event.stream_id] = dict(event.headers)[":status"]
        elif isinstance(event, h2.events.DataReceived):
            self.bodies[event.stream_id] += event.data
            if self.gives_back and event.flow_controlled_length:
                self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        elif isinstance(event, h2.events.StreamEnded):
            self.over.add(event.stream_id)
        elif isinstance(event, h2.events.StreamReset):
            self.reset[event.stream_id] = event.error_code
            self.over.add(event.stream_id)
        elif isinstance(event, h2.events.ConnectionTerminated):
            self.goaway = event.error_code
        elif isinstance(event, h2.events.PingAckReceived):
            self.pongs += 1

    def until(self, condition: Callable[[], bool], what: str) -> None:
        end = time.monotonic() + WAIT_S
        while not condition():
            left = end - time.monotonic()
            assert not self.ended, f"ended (GOAWAY: {self.goaway}) before {what}"
            assert left > 0, f"not in time: {what}"
            self.read(left)

    def answers(self, *streams: int) -> list[tuple[str, bytes]]:
        """Whole answers to these, waited for."""
        self.until(lambda: self.over.issuperset(streams), f"answers to {streams}")
        return [(self.status.get(stream, "reset"), self.bodies[stream]) for stream in streams]

    def linger(self, seconds: float) -> None:
        """Reads what comes for that long."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0 and not self.ended:
            self.read(left)

    def well(self) -> None:
        """The connection answers still, and nobody has said goodbye."""
        assert self.answers(self.ask("/bytes/16384")) == [("200", BODY)]
        assert self.goaway is None


class PeopleOfHttp2:
    """`with PeopleOfHttp2(ports)`: one person a port, each visit from another address, four requests at once, answers
    checked to the last byte. The second port speaks TLS. `served` and `failures` are whole after the end."""

    def __init__(self, ports: Sequence[int]) -> None:
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._live, args=each) for each in enumerate(ports)]
        self.served = 0
        self.failures: list[Failure] = []

    def __enter__(self) -> PeopleOfHttp2:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def _live(self, number: int, port: int) -> None:
        turn = 0
        while not self._over.is_set():
            turn += 1
            opened = time.monotonic()
            try:
                with Visitor(port, f"127.4.{number}.{turn % 40 + 1}", secure=number == 1) as visitor:
                    self._visit(visitor)
            except (OSError, AssertionError, h2.exceptions.ProtocolError) as error:
                self.failures.append(Failure(opened, time.monotonic(), repr(error)))

    def _visit(self, visitor: Visitor) -> None:
        for _ in range(3):
            if self._over.wait(PAUSE_S):
                return
            asked = [visitor.ask("/status/200"), visitor.ask("/bytes/16384"), visitor.ask("/chunked/16384")]
            found = visitor.answers(*asked, visitor.ask("/sink", BODY))
            assert [status for status, _ in found] == ["200"] * 4
            assert [body for _, body in found[:3]] == [b"as asked", BODY, BODY]
            assert f'"body_bytes": {len(BODY)}'.encode() in found[3][1]
            self.served += 4


# ── heavy habits of honest clients: each has to end well ──


def leaves_pages(visitor: Visitor) -> None:
    """Three pages of a hundred pictures, each left while they come."""
    for _ in range(3):
        asked = [visitor.ask("/flow/200000") for _ in range(100)]
        visitor.until(lambda asked=asked: any(visitor.bodies[each] for each in asked), "a picture")  # type: ignore[misc]
        for stream in asked:
            if stream not in visitor.over:
                visitor.h2.reset_stream(stream, 8)
        visitor.flush()
        visitor.linger(1.2)


def pings(visitor: Visitor) -> None:
    for number in range(12):
        visitor.h2.ping(struct.pack(">Q", number))
        visitor.flush()
        visitor.linger(0.25)
    assert visitor.pongs == 12


def small_windows(visitor: Visitor) -> None:
    """Opens both windows by a kilobyte at a time as it reads."""
    visitor.gives_back = False
    stream, given = visitor.ask("/flow/600000"), 0
    while stream not in visitor.over:
        wanted = given + 1024
        visitor.until(
            lambda wanted=wanted: len(visitor.bodies[stream]) >= wanted or stream in visitor.over,  # type: ignore[misc]
            "more of it",
        )
        while given + 1024 <= len(visitor.bodies[stream]) and stream not in visitor.over:
            visitor.h2.increment_flow_control_window(1024, stream)
            visitor.h2.increment_flow_control_window(1024)
            given += 1024
        visitor.flush()
    assert len(visitor.bodies[stream]) == 600_000
    visitor.h2.increment_flow_control_window(WINDOW)
    visitor.gives_back = True


def many_messages(visitor: Visitor) -> None:
    """As gRPC: small DATA frames, thousands of them, both ways."""
    down, up = visitor.ask("/drip/300/0.005"), visitor.ask("/sink", b"", whole=False)
    for number in range(3000):
        visitor.say(up, b"%020d" % number, whole=number == 2999)
        if number % 20 == 0:
            visitor.flush()
            visitor.read()
    visitor.flush()
    found = visitor.answers(down, up)
    assert [status for status, _ in found] == ["200", "200"]
    assert b'"body_bytes": 60000' in found[1][1]


def scrolls(visitor: Visitor) -> None:
    """What is seen becomes urgent, five times a second."""
    asked = [visitor.ask("/drip/20/0.1") for _ in range(30)]
    for turn in range(12):
        for stream in asked:
            urgency = b"u=%d" % (1 + (stream + turn) % 5)
            visitor.sock.sendall(frame(PRIORITY_UPDATE, 0, struct.pack(">I", stream) + urgency))
        visitor.linger(0.2)
    assert {status for status, _ in visitor.answers(*asked)} == {"200"}


def stalls(visitor: Visitor) -> None:
    """A phone between two cells: ten downloads, none of which gets on for two seconds."""
    asked = [visitor.ask("/flow/300000") for _ in range(10)]
    visitor.until(lambda: all(visitor.bodies[each] for each in asked), "the beginning of each")
    time.sleep(2.0)
    assert [(status, len(body)) for status, body in visitor.answers(*asked)] == [("200", 300_000)] * 10, visitor.reset


def begins_slowly(visitor: Visitor) -> None:
    """Twenty downloads over a link of 24 KB a second: the first windows take their time to arrive and to be widened."""
    visitor.gives_back, begun = False, time.monotonic()
    asked = [visitor.ask("/flow/20000") for _ in range(20)]
    while time.monotonic() - begun < 2.0:
        time.sleep(0.05)
        for event in visitor.h2.receive_data(visitor.sock.recv(1200)):
            visitor.note(event)
    visitor.flush()
    visitor.gives_back = True
    for stream in asked:
        if visitor.bodies[stream]:
            visitor.h2.acknowledge_received_data(len(visitor.bodies[stream]), stream)
    visitor.flush()
    assert [(status, len(body)) for status, body in visitor.answers(*asked)] == [("200", 20_000)] * 20, visitor.reset


def says_goodbye(visitor: Visitor) -> None:
    """GOAWAY as one leaves, and the connection left for the server to close."""
    asked = visitor.ask("/slow/0.3")
    visitor.sock.sendall(frame(7, 0, bytes(8)))
    assert visitor.answers(asked)[0][0] == "200"
    visitor.until(lambda: visitor.ended or not visitor.read(0.05), "the end")


def asks_for_too_much(visitor: Visitor) -> None:
    """More bodies at once than may be, before it has heard so: those are refused, and asked for again."""
    block = Site(secure=visitor.scheme == "https")
    heads = b"".join(block.post(1 + 2 * i) + frame(0, 1 + 2 * i, b"abc", 1) for i in range(140))
    visitor.sock.sendall(heads)
    heard: dict[int, list[int]] = {1: [], 3: [], 7: []}
    end, rest = time.monotonic() + WAIT_S, b""
    while len(heard[1]) + len(heard[3]) < 140 and time.monotonic() < end:
        piece = visitor.sock.recv(65_536)
        assert piece, "ended"
        rest += piece
        while len(rest) >= 9 and len(rest) >= (size := 9 + int.from_bytes(rest[:3])):
            heard.setdefault(rest[3], []).append(int.from_bytes(rest[5:9]))
            rest = rest[size:]
    assert len(heard[1]) == 100
    assert len(heard[3]) == 40
    assert not heard[7], "GOAWAY"


HABITS: Mapping[str, Callable[[Visitor], None]] = {
    each.__name__: each
    for each in (
        leaves_pages,
        pings,
        small_windows,
        many_messages,
        scrolls,
        stalls,
        begins_slowly,
        says_goodbye,
        asks_for_too_much,
    )
}
RAW = {"says_goodbye", "asks_for_too_much"}  # leave the connection in no state for more


def habit(name: str, port: int, secure: bool) -> str:
    """What went wrong with it; empty: nothing."""
    source = f"127.4.{20 + secure}.{1 + list(HABITS).index(name)}"
    narrow = 4096 if name == "begins_slowly" else 0
    try:
        with Visitor(port, source, secure=secure, receive_bytes=narrow) as visitor:
            HABITS[name](visitor)
            if name not in RAW:
                visitor.well()
    except Exception as error:
        return f"{type(error).__name__}: {error}, GOAWAY: {visitor.goaway}"
    return ""
