"""Floods of requests: many loopback addresses, a set rate each, connections kept for as long as the gateway lets them.

Invariants: a request is tried only while the meter allows it; what could not be tried in time is counted, never made up
for in a burst; an answer counts as served only when it is 2xx or 3xx and whole.
"""
import random
import select
from collections import deque
from typing import Any

from bench.load.guard import Route
from bench.load.loop import READ, READ_WRITE, Loop
from bench.load.shapes import SHAPES, Shape
from bench.load.tally import (
    ATTEMPTED,
    DENIED,
    HELD,
    OTHER,
    REFUSED,
    RESET,
    SENT,
    SERVED,
    THROTTLED,
    TIMEOUTS,
    UNSENT,
    Row,
)

TIMEOUT_NS = 8_000_000_000
LATE_NS = 200_000_000  # an attempt that could not be made in this time is not made


class Source:
    """One attacking address: when it is due again, and its connections."""

    __slots__ = ("connections", "due_ns", "idle", "name", "route")

    def __init__(self, kind: str, route: Route, due_ns: int) -> None:
        self.name = (kind, route.source)
        self.route = route
        self.due_ns = due_ns
        self.idle: list[Link] = []
        self.connections = 0


class Requests:
    """A flood of requests: each source at its own rate, over connections that are kept while the gateway lets it."""

    def __init__(self, loop: Loop, spec: dict[str, Any], rng: random.Random) -> None:
        self.loop = loop
        self.kind: str = spec["kind"]
        self.shape: Shape = SHAPES[spec["shape"]](spec["host"], rng)
        self.interval_ns = int(1e9 / spec["rate_per_s"])
        self.start_ns = loop.t0_ns + int(spec["start_s"] * 1e9)
        self.stop_ns = loop.t0_ns + int(spec["stop_s"] * 1e9)
        self.connections_max: int = spec["connections_max"]
        self.sources = [
            Source(self.kind, Route(address, spec["target"], spec["port"]), due_ns)
            for address in spec["sources"]
            for due_ns in [self.start_ns + rng.randrange(self.interval_ns)]
        ]
        self.connect_ns = int(spec["connect_s"] * 1e9)
        self.waiting: deque[tuple[int, Link, int]] = deque()  # (deadline, link, its request number)
        self.connecting: deque[tuple[int, Link, int]] = deque()

    def tick(self, now_ns: int) -> None:
        """Make every attempt that is due; give up on answers that are overdue."""
        for waiting in (self.connecting, self.waiting):
            while waiting and waiting[0][0] <= now_ns:
                _, link, number = waiting.popleft()
                if link.number == number and link.row is not None and (link.unsent or waiting is self.waiting):
                    link.give_up()
        if not self.start_ns <= now_ns < self.stop_ns:
            return
        row = self.loop.tally.row(self.kind, self.loop.second())
        interval_ns, late_ns = self.interval_ns, now_ns - LATE_NS
        for source in self.sources:
            while source.due_ns <= now_ns:
                if source.due_ns < late_ns:
                    row[UNSENT] += 1
                else:
                    self.attempt(source, row, now_ns)
                source.due_ns += interval_ns

    def attempt(self, source: Source, row: Row, now_ns: int) -> None:
        """One request, on an idle connection or a new one."""
        if not source.idle and source.connections >= self.connections_max:
            row[HELD] += 1
            return
        if not self.loop.meter.take():
            return
        row[ATTEMPTED] += 1
        if source.idle:
            link = source.idle.pop()
        else:
            try:
                link = Link(self, source)
            except OSError:
                row[REFUSED] += 1
                return
        link.ask(self.shape(), row)
        if link.row is not None:
            self.waiting.append((now_ns + TIMEOUT_NS, link, link.number))
            if link.unsent:
                self.connecting.append((now_ns + self.connect_ns, link, link.number))

    def stop(self) -> None:
        """Nothing to undo: sockets end with the process."""


class Link:
    """A connection of a flood, with at most one request on it."""

    __slots__ = ("data", "flood", "kept", "number", "row", "sock", "source", "unsent")

    def __init__(self, flood: Requests, source: Source) -> None:
        self.sock = source.route.open()
        self.flood = flood
        self.source = source
        self.row: Row | None = None  # where the request under way is counted; None: idle
        self.number = 0
        self.data = b""
        self.unsent = b""
        self.kept = False  # in the epoll set
        source.connections += 1

    def ask(self, data: bytes, row: Row) -> None:
        """Send; what the kernel does not take yet is sent when it does."""
        self.row = row
        self.number += 1
        self.data = b""
        self.unsent = data
        self.push()
        if self.row is not None and not self.kept:
            self.kept = True
            self.flood.loop.watch(self.sock, self, READ_WRITE if self.unsent else READ)

    def push(self) -> None:
        """Hand what is left of the request to the kernel."""
        try:
            done = self.sock.send(self.unsent)
        except BlockingIOError:
            return
        except OSError as error:
            self.end(REFUSED if isinstance(error, ConnectionRefusedError) else RESET)
            return
        self.unsent = self.unsent[done:]
        if not self.unsent and self.row is not None:
            self.row[SENT] += 1
            self.flood.loop.tally.sent_by[self.source.name] += 1

    def ready(self, events: int) -> None:
        """News: writable, an answer, or the end of the connection."""
        if self.unsent and events & select.EPOLLOUT:
            self.push()
            if not self.unsent and self.row is not None:
                self.flood.loop.epoll.modify(self.sock.fileno(), READ)
        if not events & ~select.EPOLLOUT or self.sock.fileno() < 0:
            return
        try:
            piece = self.sock.recv(65536)
        except BlockingIOError:
            return
        except OSError as error:
            self.end(REFUSED if isinstance(error, ConnectionRefusedError) else RESET)
            return
        if not piece:
            self.end(OTHER if self.data else RESET)
            return
        if self.row is None:  # bytes that nothing asked for
            self.close()
            return
        self.data = self.data + piece if self.data else piece
        self.parse()

    def parse(self) -> None:
        """Book the answer once it is whole."""
        head_end = self.data.find(b"\r\n\r\n")
        if head_end < 0:
            return
        head = self.data[:head_end].lower()
        at = head.find(b"\r\ncontent-length:")
        length = int(head[at + 17:].split(b"\r\n", 1)[0]) if at >= 0 else 0
        if len(self.data) < head_end + 4 + length:
            return
        status = head[9:12]
        good = status[:1] in b"23"
        column = SERVED if good else THROTTLED if status == b"429" else DENIED if status == b"403" else OTHER
        row = self.row
        if row is not None:
            self.row = None
            row[column] += 1
        if b"\r\nconnection: close" in head:
            self.close()
        else:
            self.data = b""
            self.source.idle.append(self)

    def give_up(self) -> None:
        """Nobody has answered. Its address has sent all the same, if only packets that asked for a connection."""
        if self.unsent:
            self.flood.loop.tally.sent_by[self.source.name] += 1
        self.end(TIMEOUTS)

    def end(self, column: int) -> None:
        """The connection is over; so is its request, if there was one."""
        if self.row is not None:
            self.row[column] += 1
            self.row = None
        self.close()

    def close(self) -> None:
        """Give the connection up."""
        self.source.connections -= 1
        if self in self.source.idle:
            self.source.idle.remove(self)
        self.flood.loop.forget(self.sock)
