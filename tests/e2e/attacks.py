"""Attackers and people for end-to-end tests: many held connections from one thread, and people's requests in another.

Owns: those sockets. Invariants: all addresses are loopback, attackers' in 127.2.0.0/16 and people's in 127.3.0.0/16; an
attack ends by itself; nothing is retried.
"""

from __future__ import annotations

import contextlib
import hashlib
import select
import socket
import threading
import time
from dataclasses import dataclass, field

from tests.e2e.support import SLOW
from tests.e2e.wire import Closed, Wire

CLIENT_CONNECTIONS = 8  # of each attacking address
NEVER = 0
ALL = -1


@dataclass(frozen=True)
class Attack:
    """What each connection does: sends `opening`, then `drip` each `every_s`. `reads`: bytes that it takes each time,
    ALL or NEVER."""

    opening: bytes = b""
    drip: bytes = b""
    every_s: float = 0.2
    reads: int = ALL


@dataclass
class Ends:
    """Seconds that connections lived; how many outlived the attack, or were never taken."""

    lived_s: list[float] = field(default_factory=list)
    outlived: int = 0
    refused: int = 0


@dataclass
class Held:
    sock: socket.socket
    began: float
    out: bytes


def attack(port: int, how: Attack, count: int, seconds: float) -> Ends:
    """`count` connections at once, until the other side has ended all of them or the time is over."""
    ends, held = Ends(), {}
    poll = select.epoll()
    watched = select.EPOLLRDHUP | select.EPOLLHUP | select.EPOLLERR | (select.EPOLLIN if how.reads == ALL else 0)
    end = time.monotonic() + seconds
    try:
        for number in range(count):
            sock = _connected(port, number, how)
            if sock is None:
                ends.refused += 1
                continue
            held[sock.fileno()] = Held(sock, time.monotonic(), how.opening)
            poll.register(sock, watched)
        while held and time.monotonic() < end:
            tick = time.monotonic() + how.every_s
            for each in list(held.values()):
                _act(each, how)
            while (left := tick - time.monotonic()) > 0 and held:
                for number, events in poll.poll(left, 512):
                    if _ended(held[number], events, how):
                        each = held.pop(number)
                        ends.lived_s.append(time.monotonic() - each.began)
                        each.sock.close()
        ends.outlived = len(held)
    finally:
        for each in held.values():
            each.sock.close()
        poll.close()
    return ends


def _connected(port: int, number: int, how: Attack) -> socket.socket | None:
    address = number // CLIENT_CONNECTIONS
    sock = socket.socket()
    if how.reads != ALL:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    try:
        sock.bind((f"127.2.{address // 250}.{address % 250 + 1}", 0))
        sock.settimeout(2 * SLOW)
        sock.connect(("127.0.0.1", port))
    except OSError:
        sock.close()
        return None
    sock.setblocking(False)
    return sock


def _act(each: Held, how: Attack) -> None:
    with contextlib.suppress(OSError):
        each.out = each.out or how.drip
        if each.out:
            each.out = each.out[each.sock.send(each.out) :]
        if how.reads > 0:
            each.sock.recv(how.reads)


def _ended(each: Held, events: int, how: Attack) -> bool:
    """Reads what there is where the attack reads; whether that was the end."""
    if how.reads != ALL:
        return bool(events & (select.EPOLLRDHUP | select.EPOLLHUP | select.EPOLLERR))
    try:
        piece = each.sock.recv(65536)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return not piece


@dataclass(frozen=True)
class Failure:
    """A person's request that did not get its answer. `opened`, `ended`: of its connection and of hope, monotonic
    seconds; `status`: of a whole answer that was not 200."""

    opened: float
    ended: float
    why: str
    status: int = 0


BODY = bytes(range(256)) * 64
REQUESTS = (
    (b"GET /status/200 HTTP/1.1\r\nHost: site.test\r\n\r\n", b"as asked"),
    (b"GET /bytes/16384 HTTP/1.1\r\nHost: site.test\r\n\r\n", BODY),
    (b"GET /chunked/16384 HTTP/1.1\r\nHost: site.test\r\n\r\n", BODY),
    (
        b"POST /sink HTTP/1.1\r\nHost: site.test\r\nContent-Length: %d\r\n\r\n%b" % (len(BODY), BODY),
        f'{{"body_bytes": {len(BODY)}, "body_sha256": "{hashlib.sha256(BODY).hexdigest()}"}}'.encode(),
    ),
)
VISIT = 8  # requests on one connection
PAUSE_S = 0.02


class People:
    """`with People(port) as people`: so many people at once, each visit from another address, answers checked to the
    last byte. `served` and `failures` are whole after the end."""

    def __init__(self, port: int, count: int = 2) -> None:
        self._port = port
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._live, args=(number,)) for number in range(count)]
        self.served = 0
        self.failures: list[Failure] = []

    def __enter__(self) -> People:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """May be called again."""
        self._over.set()
        for thread in self._threads:
            thread.join()

    def _live(self, number: int) -> None:
        turn = 0
        while not self._over.is_set():
            turn += 1
            self._visit(f"127.3.{number}.{turn % 40 + 1}")

    def _visit(self, source: str) -> None:
        opened = time.monotonic()
        try:
            with Wire(self._port, source=source, timeout_s=10 * SLOW) as wire:
                for request, expected in REQUESTS * (VISIT // len(REQUESTS)):
                    if self._over.wait(PAUSE_S):
                        return
                    wire.send(request)
                    answer = wire.answer()
                    if answer.status != 200:
                        self._failed(opened, "status", answer.status)
                    elif answer.body != expected:
                        self._failed(opened, f"another body: {answer.body[:80]!r}")
                    else:
                        self.served += 1
        except (OSError, Closed) as error:
            self._failed(opened, repr(error))

    def _failed(self, opened: float, why: str, status: int = 0) -> None:
        self.failures.append(Failure(opened, time.monotonic(), why, status))


class Memory:
    """`with Memory(pid) as memory`: resident bytes of its own of a process, as it began and at its most."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look)
        self.began_bytes = self.most_bytes = anonymous_bytes(pid)

    def __enter__(self) -> Memory:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._over.wait(0.02):
            self.most_bytes = max(self.most_bytes, anonymous_bytes(self._pid))


def anonymous_bytes(pid: int) -> int:
    """Resident memory of a process that is its own (shared tables are touched as they fill); 0 where it is gone."""
    with contextlib.suppress(OSError), open(f"/proc/{pid}/status") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith("RssAnon:"))
    return 0
