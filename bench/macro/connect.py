"""A load tool: a new connection for every request, from a few source addresses in turn, so many under way at once.

`python -m bench.macro.connect SPEC` (JSON); prints an Outcome as JSON. Invariants: sources and target are loopback or
it refuses; it ends when its requests or seconds are spent; every connection that was begun is counted once.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import select
import socket
import sys
import time
from typing import Any

from bench.load.guard import Bounds, Meter, Route

TIMEOUT_NS = 5_000_000_000
READ = select.EPOLLIN | select.EPOLLRDHUP


class Connections:
    """The connections under way and what became of those that ended."""

    def __init__(self, spec: dict[str, Any]) -> None:
        self.routes = itertools.cycle(Route(source, spec["target"], spec["port"]) for source in spec["sources"])
        self.meter = Meter(Bounds(spec["requests_max"], spec["seconds_max"]))
        self.at_once: int = spec["connections"]
        lines = "".join(f"{name}: {value}\r\n" for name, value in spec["headers"].items())
        self.request = f"GET /page?id=7 HTTP/1.1\r\n{lines}Connection: close\r\n\r\n".encode("latin-1")
        self.epoll = select.epoll()
        self.open: dict[int, tuple[socket.socket, int]] = {}
        self.status: dict[int, bytes] = {}
        self.good = self.refused = self.cut = self.errors = 0

    def run(self) -> dict[str, float]:
        began = time.monotonic_ns()
        while True:
            now = time.monotonic_ns()
            over = self.meter.spent(now)
            while not over and len(self.open) < self.at_once and self.meter.take():
                self.begin(now)
            if not self.open and self.meter.spent(now):
                break
            for fd, events in self.epoll.poll(0.05, 256):
                self.ready(fd, events)
            if over:
                self.give_up(time.monotonic_ns())
        seconds = (time.monotonic_ns() - began) / 1e9
        ended = self.good + self.refused + self.cut + self.errors
        return {
            "requests": ended,
            "seconds": seconds,
            "good": self.good,
            "refused": self.refused,
            "cut": self.cut,
            "errors": self.errors,
        }

    def begin(self, now_ns: int) -> None:
        try:
            sock = next(self.routes).open()
        except ConnectionError:
            self.cut += 1
            return
        except OSError:
            self.errors += 1
            return
        self.open[sock.fileno()] = (sock, now_ns)
        self.epoll.register(sock, select.EPOLLOUT)

    def ready(self, fd: int, events: int) -> None:
        sock, _ = self.open[fd]
        if events & select.EPOLLOUT:
            try:
                sock.send(self.request)
            except ConnectionError:
                self.end(fd)
                return
            self.epoll.modify(fd, READ)
            return
        try:
            piece = sock.recv(65536)
        except BlockingIOError:
            return
        except OSError:
            self.end(fd)
            return
        if piece:
            self.status.setdefault(fd, piece[9:12])
        else:
            self.end(fd)

    def end(self, fd: int) -> None:
        """By what came before the end: an answer, even where a reset followed it, or nothing."""
        sock, _ = self.open.pop(fd)
        status = self.status.pop(fd, b"")
        sock.close()
        if status:
            if status[:1] in b"23":
                self.good += 1
            else:
                self.refused += 1
        else:
            self.cut += 1

    def give_up(self, now_ns: int) -> None:
        """Time is over: what does not end soon counts as an error."""
        for fd, (sock, since_ns) in list(self.open.items()):
            if now_ns - since_ns > TIMEOUT_NS:
                self.open.pop(fd)
                with contextlib.suppress(OSError):
                    sock.close()
                self.errors += 1


if __name__ == "__main__":
    print(json.dumps(Connections(json.loads(sys.argv[1])).run()))
