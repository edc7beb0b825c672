"""The loop under every flood: an epoll set without any framework, so that the tool costs little beside the attack.

Owns: the epoll set, the clock, the tally of one attacking process. Invariant: it ends when the meter is spent or the
parent says stop, whatever the attacks do.
"""
import select
import socket
import time
from typing import Protocol

from bench.load.child import REPORT_NS, report, told_to_stop
from bench.load.guard import Meter
from bench.load.tally import Tally

TICK_S = 0.004
SETTLED_S = 10  # a row is final after this: longer than any request may take
READ = select.EPOLLIN | select.EPOLLRDHUP
READ_WRITE = READ | select.EPOLLOUT


class Handler(Protocol):
    """What the loop calls when a socket has news."""

    def ready(self, events: int) -> None: ...


class Attack(Protocol):
    """One kind of attack in this process."""

    def tick(self, now_ns: int) -> None: ...

    def stop(self) -> None: ...


class Loop:
    """The epoll set, the clock and the tally that all attacks of this process share."""

    def __init__(self, t0_ns: int, meter: Meter) -> None:
        self.t0_ns = t0_ns
        self.meter = meter
        self.epoll = select.epoll()
        self.handlers: dict[int, Handler] = {}
        self.tally = Tally()
        self.now_ns = time.monotonic_ns()

    def second(self) -> int:
        """Whole seconds since t0."""
        return (self.now_ns - self.t0_ns) // 1_000_000_000

    def watch(self, sock: socket.socket, handler: Handler, events: int = READ) -> None:
        """Call the handler on news of the socket."""
        fd = sock.fileno()
        self.handlers[fd] = handler
        self.epoll.register(fd, events)

    def forget(self, sock: socket.socket) -> None:
        """Close the socket; closing takes it out of the epoll set."""
        self.handlers.pop(sock.fileno(), None)
        sock.close()

    def run(self, attacks: list[Attack]) -> None:
        """Until the meter is spent or the parent says stop."""
        reported_ns = 0
        while True:
            self.now_ns = time.monotonic_ns()
            if self.meter.spent(self.now_ns):
                break
            for attack in attacks:
                attack.tick(self.now_ns)
            for fd, events in self.epoll.poll(TICK_S, 1024):
                handler = self.handlers.get(fd)
                if handler is not None:
                    handler.ready(events)
            if self.now_ns - reported_ns > REPORT_NS:
                reported_ns = self.now_ns
                self.report(self.second() - SETTLED_S)
                if told_to_stop():
                    break
        for attack in attacks:
            attack.stop()
        self.report(0)
        report({"type": "senders", "rows": self.tally.senders()})

    def report(self, since: int) -> None:
        """The rows that may still have changed."""
        report({"type": "attack", "rows": self.tally.since(since), "lifetimes": self.tally.take_lifetimes()})
