"""Who is watched while something happens to a gateway: people who ask without a pause, and one who is shut out and
knocks without a pause.

Owns their threads. What a blocked source meets is told apart: the kernel is silent; the gateway's host lets the
connection open and resets it (met); an answer (served) is what must never come.
"""

from __future__ import annotations

import contextlib
import errno
import socket
import threading
import time
from collections import deque
from types import TracebackType

from tests.e2e.support import until
from tests.net.site import HERE, Site

KNOCK_S = 0.005
SILENT_S = 0.5  # less than a SYN takes to be sent again: each knock is one packet
REQUEST = b"GET /bytes/5 HTTP/1.1\r\nHost: site.test\r\nConnection: close\r\n\r\n"


class Watched:
    """A thread that lives as long as the block."""

    def __init__(self) -> None:
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        raise NotImplementedError

    def _begun(self) -> bool:
        raise NotImplementedError

    def __enter__(self) -> None:
        self._thread.start()
        until(self._begun)

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._ended.set()
        self._thread.join()


class Person(Watched):
    """`good` requests answered, and whatever went wrong."""

    def __init__(self, site: Site) -> None:
        super().__init__()
        self.good, self.bad = 0, list[str]()
        self._site = site

    def _begun(self) -> bool:
        return self.good >= 5 or bool(self.bad)

    def _run(self) -> None:
        while not self._ended.is_set():
            try:
                status = self._site.get(timeout_s=20)
            except (OSError, IndexError) as error:
                self.bad.append(repr(error))
            else:
                if status == 200:
                    self.good += 1
                else:
                    self.bad.append(f"status {status}")


class Knocker(Watched):
    """One SYN every few milliseconds from that address. Times are of CLOCK_MONOTONIC."""

    def __init__(self, site: Site, source: str) -> None:
        super().__init__()
        self.knocks = self.silent = 0
        self.met: list[float] = []  # when a connection opened, or was refused
        self.served = 0
        self._site, self._source = site, source
        self._waiting: deque[tuple[float, socket.socket]] = deque()

    def _begun(self) -> bool:
        return bool(self.silent or self.met)

    def gap_s(self) -> float:
        """From the first knock that was not dropped to the last."""
        return self.met[-1] - self.met[0] if self.met else 0.0

    def _run(self) -> None:
        with self._site.there.inside():
            while not self._ended.wait(KNOCK_S):
                self._knock()
                self._look()
        for _, sock in self._waiting:
            sock.close()

    def _knock(self) -> None:
        sock = socket.socket()
        sock.setblocking(False)
        sock.bind((self._source, 0))
        sock.connect_ex((HERE, self._site.port))
        self._waiting.append((time.monotonic(), sock))
        self.knocks += 1

    def _look(self) -> None:
        now = time.monotonic()
        waiting: deque[tuple[float, socket.socket]] = deque()
        for begun, sock in self._waiting:
            if self._answered(sock):
                self.met.append(begun)
                sock.close()
            elif now - begun > SILENT_S:
                self.silent += 1
                sock.close()
            else:
                waiting.append((begun, sock))
        self._waiting = waiting

    def _answered(self, sock: socket.socket) -> bool:
        """Whether anything came back; if a connection opened, a request follows."""
        try:
            sock.getpeername()
        except OSError as error:
            if error.errno != errno.ENOTCONN:
                raise
            return sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) != 0
        sock.settimeout(SILENT_S)
        with contextlib.suppress(OSError):
            sock.sendall(REQUEST)
            self.served += bool(sock.recv(100))
        return True
