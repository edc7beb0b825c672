"""People over HTTP/2 and TLS at a fixed rate (`python -m bench.load.h2_people`, spec on stdin, see child.py): each has
one connection that is kept, and asks again when it is due, answered or not.

Invariants: from and to loopback alone (Route); bounded in requests and seconds; latency counts from when a request was
due, but not of each one's first answer, which waited for a handshake; who lost the connection opens another one for
what comes next (and that handshake counts), and what was asked on the lost one is lost.
"""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import hpack

from bench.load.child import read_spec, report, told_to_stop
from bench.load.guard import Bounds, Meter, Route
from bench.load.h2_abuse import sealing
from bench.load.h2_shapes import (
    ACK,
    DATA,
    END_STREAM,
    GOAWAY,
    HEADERS,
    INITIAL_WINDOW_SIZE,
    PADDED,
    PING,
    RST_STREAM,
    SETTINGS,
    WINDOW_MAX,
    Site,
    begin,
    frame,
    window_update,
)

LATE_S = 3.0  # after the last request
READ_BYTES = 65_536
NOT_YET = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


@dataclass(slots=True)
class Tally:
    """Answers by kind, and how long the good ones took."""

    good: int = 0
    refused: int = 0
    cut: int = 0
    errors: int = 0
    good_s: list[float] = field(default_factory=list)

    @property
    def answered(self) -> int:
        return self.good + self.refused + self.cut + self.errors

    def latency_ms(self, share: float) -> float:
        ordered = sorted(self.good_s)
        return 1000 * ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0


class Person:
    """One client with at most one connection."""

    def __init__(self, route: Route, site: Site, tally: Tally, poll: select.epoll) -> None:
        self.route, self.site, self.tally, self.poll = route, site, tally, poll
        self.tls = sealing("h2")
        self.sock: ssl.SSLSocket | None = None
        self.waiting: deque[float] = deque()  # due, not sent
        self.asked: dict[int, float] = {}  # due, by stream
        self.status: dict[int, str] = {}
        self.ready = self.leaving = self.known = False
        self.next_stream = 1
        self.rest, self.out = bytearray(), bytearray()
        self.decoder = hpack.Decoder()

    def ask(self, due: float) -> int:
        """A request that is due. The descriptor of its connection; -1: there is none."""
        self.waiting.append(due)
        if self.sock is None or (self.leaving and not self.asked):
            self.lose()
            self.come()
        elif self.ready:
            self.attempt(self.send)
        return self.sock.fileno() if self.sock is not None else -1

    def come(self) -> None:
        try:
            with contextlib.ExitStack() as stack:
                raw = stack.enter_context(self.route.open())
                sealed = self.tls.wrap_socket(raw, server_hostname=self.site.host, do_handshake_on_connect=False)
                stack.pop_all()
        except OSError:
            self.fail()
            return
        self.sock = sealed
        self.ready = self.leaving = False
        self.next_stream, self.decoder = 1, hpack.Decoder()
        self.rest, self.out = bytearray(), bytearray()
        self.poll.register(self.sock, select.EPOLLIN | select.EPOLLOUT)

    def fail(self) -> None:
        """Nobody takes what is due."""
        self.tally.errors += len(self.waiting)
        self.waiting.clear()

    def lose(self) -> None:
        """The connection is over, and what was asked on it."""
        self.tally.cut += len(self.asked)
        self.asked.clear()
        if self.sock is not None:
            self.sock.close()  # epoll forgets it
            self.sock = None

    def step(self, events: int) -> None:
        """Something came, or may be sent."""
        self.attempt(lambda: self.exchange(events))

    def exchange(self, events: int) -> None:
        if not self.ready:
            self.shake(events)
        self.send()
        if events & ~select.EPOLLOUT:
            self.read()

    def attempt(self, act: Callable[[], None]) -> None:
        """What fails is the end of the connection."""
        try:
            act()
        except NOT_YET:
            pass
        except (OSError, ValueError, hpack.HPACKError):
            self.over()

    def over(self) -> None:
        begun = self.ready
        self.lose()
        if not begun:
            self.fail()
        elif self.waiting:
            self.come()

    def shake(self, events: int) -> None:
        assert self.sock is not None
        if events == select.EPOLLOUT:
            self.poll.modify(self.sock, select.EPOLLIN)
        if error := self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            raise OSError(error, "connect")
        self.sock.do_handshake()
        if self.sock.selected_alpn_protocol() != "h2":
            raise ValueError("no h2")
        self.ready = True
        self.out += begin((INITIAL_WINDOW_SIZE, WINDOW_MAX)) + window_update(0, WINDOW_MAX - 65_535)

    def send(self) -> None:
        while self.waiting and not self.leaving:
            self.asked[self.next_stream] = self.waiting.popleft()
            self.out += self.site.get(self.next_stream, self.site.page)
            self.next_stream += 2
        if self.out and self.sock is not None:
            del self.out[: self.sock.send(self.out)]
            self.poll.modify(self.sock, select.EPOLLIN | select.EPOLLOUT * bool(self.out))

    def read(self) -> None:
        while self.sock is not None:
            piece = self.sock.recv(READ_BYTES)
            if not piece:
                self.over()
                return
            self.take(piece)

    def take(self, piece: bytes) -> None:
        rest, at = self.rest, 0
        rest += piece
        while len(rest) - at >= 9 and len(rest) >= (end := at + 9 + int.from_bytes(rest[at : at + 3])):
            self.frame(rest[at + 3], rest[at + 4], int.from_bytes(rest[at + 5 : at + 9]), bytes(rest[at + 9 : end]))
            at = end
        del rest[:at]
        self.send()

    def frame(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if kind == HEADERS:
            if flags & PADDED:
                raise ValueError("padded")  # no server does
            fields: dict[Any, Any] = dict(self.decoder.decode(payload))
            self.status[stream] = str(fields.get(":status", ""))
        elif kind == SETTINGS and not flags & ACK:
            self.out += frame(SETTINGS, 0, flags=ACK)
        elif kind == PING and not flags & ACK:
            self.out += frame(PING, 0, payload, ACK)
        elif kind == GOAWAY:
            self.leaving = True
        elif kind == RST_STREAM and self.asked.pop(stream, None) is not None:
            self.status.pop(stream, None)
            self.tally.cut += 1
        if kind in (HEADERS, DATA) and flags & END_STREAM and stream in self.asked:
            self.answered(self.status.pop(stream, ""), self.asked.pop(stream))

    def answered(self, status: str, due: float) -> None:
        if status.startswith(("2", "3")):
            self.tally.good += 1
            if self.known:
                self.tally.good_s.append(time.monotonic() - due)
            self.known = True
        else:
            self.tally.refused += 1


def run(spec: dict[str, Any]) -> dict[str, Any]:
    """All of them, until the bounds are reached and every answer has come or is too late."""
    tally, poll, site = Tally(), select.epoll(), Site(**spec["site"])
    people = [Person(Route(each, spec["target"], spec["port"]), site, tally, poll) for each in spec["sources"]]
    by_number: dict[int, Person] = {}
    bounds = Bounds(spec["requests_max"], spec["seconds_max"])
    meter, began, rate = Meter(bounds), time.monotonic(), float(spec["rate_per_s"])
    due = asked_last = began
    while not told_to_stop():
        now = time.monotonic()
        while due <= now and now - began < bounds.seconds_max and meter.take():
            person = people[(meter.taken - 1) % len(people)]
            by_number[person.ask(due)] = person
            asked_last, due = now, began + meter.taken / rate
        asking = now - began < bounds.seconds_max and meter.taken < bounds.requests_max
        if not asking and (tally.answered >= meter.taken or now - asked_last > LATE_S):
            break
        for number, events in poll.poll(max(0.0, min(0.05, due - now)) if asking else 0.05):
            person = by_number[number]
            person.step(events)
            if person.sock is not None:
                by_number[person.sock.fileno()] = person
    return {
        "requests": meter.taken,
        "seconds": time.monotonic() - began,
        "good": tally.good,
        "refused": tally.refused,
        "cut": tally.cut,
        "errors": meter.taken - tally.good - tally.refused - tally.cut,  # with those that were never answered
        "latency_ms_p50": tally.latency_ms(0.5),
        "latency_ms_p99": tally.latency_ms(0.99),
    }


def main() -> None:
    """Run as a process of its own."""
    report({"type": "people", **run(read_spec())})


if __name__ == "__main__":
    main()
