"""Attacks of connections: slowloris (heads that never end), silent connections, and opening only to close.

Invariants: none of them ever completes a request, so none can be served; how long the gateway let each connection be is
measured from its connect to its cut.
"""
import contextlib
import heapq
import random
import select
import socket
from typing import Any

from bench.load.browsers import BROWSERS
from bench.load.guard import Route
from bench.load.loop import READ, Loop
from bench.load.tally import ATTEMPTED, OPEN, OTHER, REFUSED, RESET, SENT


class Held:
    """One connection that is held open, dripping or silent."""

    __slots__ = ("answered", "hold", "opened_ns", "route", "sent", "sock")

    def __init__(self, hold: "Hold", route: Route) -> None:
        self.hold = hold
        self.route = route
        self.sock: socket.socket | None = None
        self.opened_ns = 0
        self.sent = 0
        self.answered = False

    def ready(self, events: int) -> None:
        """Bytes (a 408, say) or the end."""
        if self.sock is None:
            return
        try:
            piece = self.sock.recv(4096)
        except BlockingIOError:
            return
        except OSError as error:
            self.hold.cut(self, REFUSED if isinstance(error, ConnectionRefusedError) else RESET)
            return
        if piece:
            self.answered = True
        else:
            self.hold.cut(self, OTHER if self.answered else RESET)


class Hold:
    """Each source keeps so many connections; with `drip_s` each sends another piece of a head that never ends."""

    def __init__(self, loop: Loop, spec: dict[str, Any], rng: random.Random) -> None:
        self.loop = loop
        self.kind: str = spec["kind"]
        self.drip_ns = int(spec["drip_s"] * 1e9)
        self.reopen_ns = int(spec["reopen_s"] * 1e9)
        self.start_ns = loop.t0_ns + int(spec["start_s"] * 1e9)
        self.stop_ns = loop.t0_ns + int(spec["stop_s"] * 1e9)
        self.head = BROWSERS[0].head("GET", spec["host"], "/", page=True)[:-4]
        self.open = 0
        self.events: list[tuple[int, int, Held]] = []  # heap: (when, tie, connection to open or to drip on)
        spread_ns = int(spec["spread_s"] * 1e9)
        for number in range(len(spec["sources"]) * spec["connections"]):
            route = Route(spec["sources"][number % len(spec["sources"])], spec["target"], spec["port"])
            heapq.heappush(self.events, (self.start_ns + rng.randrange(spread_ns + 1), number, Held(self, route)))
        self.tie = len(self.events)

    def at(self, when_ns: int, held: Held) -> None:
        """Come back to this connection then."""
        self.tie += 1
        heapq.heappush(self.events, (when_ns, self.tie, held))

    def tick(self, now_ns: int) -> None:
        """Open and drip what is due."""
        if now_ns >= self.stop_ns:
            self.stop()
            return
        while self.events and self.events[0][0] <= now_ns:
            _, _, held = heapq.heappop(self.events)
            if held.sock is None:
                self.begin(held, now_ns)
            else:
                self.drip(held, now_ns)
        if now_ns >= self.start_ns:
            row = self.loop.tally.row(self.kind, self.loop.second())
            row[OPEN] = max(row[OPEN], self.open)

    def begin(self, held: Held, now_ns: int) -> None:
        """Connect."""
        if not self.loop.meter.take():
            return
        row = self.loop.tally.row(self.kind, self.loop.second())
        row[ATTEMPTED] += 1
        try:
            held.sock = held.route.open()
        except OSError:
            row[REFUSED] += 1
            self.at(now_ns + self.reopen_ns, held)
            return
        held.opened_ns, held.sent, held.answered = now_ns, 0, False
        self.open += 1
        self.loop.watch(held.sock, held)
        if self.drip_ns:
            self.drip(held, now_ns)

    def drip(self, held: Held, now_ns: int) -> None:
        """A few more bytes, never the last."""
        assert held.sock is not None
        piece = self.head[held.sent:held.sent + 3] if held.sent + 3 < len(self.head) else b"a"
        with contextlib.suppress(OSError):  # its end is read, not written
            held.sent += held.sock.send(piece)
            if held.sent <= 3:
                self.loop.tally.row(self.kind, self.loop.second())[SENT] += 1
        self.at(now_ns + self.drip_ns, held)

    def cut(self, held: Held, column: int) -> None:
        """The gateway ended it: note how long it lived, try again later."""
        assert held.sock is not None
        self.loop.tally.row(self.kind, self.loop.second())[column] += 1
        self.loop.tally.lifetimes.setdefault(self.kind, []).append(round((self.loop.now_ns - held.opened_ns) / 1e9, 3))
        self.loop.forget(held.sock)
        held.sock = None
        self.open -= 1
        if not self.drip_ns:
            self.at(self.loop.now_ns + self.reopen_ns, held)
        # a dripping connection is still in the heap: it opens again when its next drip is due

    def stop(self) -> None:
        """Close what is held."""
        for _, _, held in self.events:
            if held.sock is not None:
                self.loop.forget(held.sock)
                held.sock = None
        self.events.clear()
        self.open = 0


class Opened:
    """A connection of a churn, for as long as it lasts."""

    __slots__ = ("churn", "sock")

    def __init__(self, churn: "Churn", sock: socket.socket) -> None:
        self.churn = churn
        self.sock = sock

    def ready(self, events: int) -> None:
        """Cut by the gateway, before we closed it."""
        column = OTHER if events & select.EPOLLIN and not events & (select.EPOLLHUP | select.EPOLLERR) else RESET
        self.churn.loop.tally.row(self.churn.kind, self.churn.loop.second())[column] += 1
        self.churn.loop.forget(self.sock)


class Churn:
    """Each source opens connections at a rate and closes them, without a byte, a moment later."""

    def __init__(self, loop: Loop, spec: dict[str, Any], rng: random.Random) -> None:
        self.loop = loop
        self.kind: str = spec["kind"]
        self.start_ns = loop.t0_ns + int(spec["start_s"] * 1e9)
        self.stop_ns = loop.t0_ns + int(spec["stop_s"] * 1e9)
        self.keep_ns = int(spec["keep_s"] * 1e9)
        self.routes = [Route(source, spec["target"], spec["port"]) for source in spec["sources"]]
        self.interval_ns = int(1e9 / (spec["rate_per_s"] * len(self.routes)))
        self.due_ns = self.start_ns
        self.made = 0
        self.opened: list[tuple[int, Opened]] = []

    def tick(self, now_ns: int) -> None:
        """Open what is due, close what was kept long enough."""
        if now_ns < self.start_ns:
            return
        while self.opened and self.opened[0][0] <= now_ns:
            _, one = self.opened.pop(0)
            self.loop.forget(one.sock)
        self.due_ns = max(self.due_ns, now_ns - 100_000_000)  # never a burst for what could not be opened in time
        row = self.loop.tally.row(self.kind, self.loop.second())
        while self.due_ns <= now_ns < self.stop_ns and self.loop.meter.take():
            row[ATTEMPTED] += 1
            try:
                sock = self.routes[self.made % len(self.routes)].open()
            except OSError:
                row[REFUSED] += 1
            else:
                one = Opened(self, sock)
                self.loop.watch(sock, one, READ)
                self.opened.append((now_ns + self.keep_ns, one))
            self.made += 1
            self.due_ns += self.interval_ns

    def stop(self) -> None:
        """Close what is open."""
        for _, one in self.opened:
            self.loop.forget(one.sock)
        self.opened.clear()
