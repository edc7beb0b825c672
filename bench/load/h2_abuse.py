"""One abuser of HTTP/2: sends an attack of h2_shapes on a connection until the other side ends it, and says when.

As a process (`python -m bench.load.h2_abuse`, spec on stdin, see child.py) it comes back as soon as it is thrown out.
Owns its socket. Invariants: from and to loopback alone (Route); bounded in connections and seconds; nobody asks who
signed the certificate.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import ssl
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

from bench.load.child import read_spec, report, told_to_stop
from bench.load.guard import Bounds, Meter, Route
from bench.load.h2_shapes import ABUSES, GOAWAY, HEADERS, RST_STREAM, Abuse, Site

CONNECT_S = 5.0
READ_BYTES = 262_144
NARROW_BYTES = 4096  # what the kernel may take for who does not read
END_S = 2.5  # from GOAWAY to the end of the connection
LATEST_S = 0.02  # between two looks at the time
AGAIN_S = 0.05  # before who was thrown out comes back


@dataclass(slots=True)
class Heard:
    """What a server's frames say, as far as it matters here."""

    goaway: int = -1  # code of the last one
    resets: int = 0
    answers: int = 0
    _rest: bytearray = field(default_factory=bytearray)

    def take(self, piece: bytes) -> None:
        rest, at = self._rest, 0
        rest += piece
        while len(rest) - at >= 9:
            end = at + 9 + int.from_bytes(rest[at : at + 3])
            if len(rest) < end:
                break
            kind = rest[at + 3]
            self.resets += kind == RST_STREAM
            self.answers += kind == HEADERS
            if kind == GOAWAY:
                self.goaway = int.from_bytes(rest[at + 13 : at + 17])
            at = end
        del rest[:at]


@dataclass(slots=True)
class Ended:
    """How one connection went. `after_s`: from its first byte to GOAWAY with an error, or to its end, whichever came
    first; `closed_s`: to its end; -1: that did not come. `goaway`: the code; -1: none came."""

    after_s: float = -1.0
    closed_s: float = -1.0
    goaway: int = -1
    resets: int = 0
    answers: int = 0
    sent_bytes: int = 0
    failed: str = ""  # never came to be
    began_s: float = 0.0  # from when its abuser came first

    @property
    def over(self) -> bool:
        return self.after_s >= 0


def sealing(speaks: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols([speaks])
    return context


def connected(route: Route, how: Abuse, site: Site) -> socket.socket:
    """Ready to be sent on, and not blocking. OSError: it is not."""
    sock = route.open()
    try:
        waiting = select.poll()
        waiting.register(sock, select.POLLOUT)
        waiting.poll(CONNECT_S * 1000)
        if error := sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            raise OSError(error, os.strerror(error))
        if not how.reads:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, NARROW_BYTES)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if site.secure:
            sock.settimeout(CONNECT_S)
            sealed = sealing(how.speaks).wrap_socket(sock, server_hostname=site.host)
            if sealed.selected_alpn_protocol() != how.speaks:
                sealed.close()
                raise OSError(f"{how.speaks} is not spoken")
            sock = sealed
        sock.setblocking(False)
    except BaseException:
        sock.close()
        raise
    return sock


class Abuser:
    """One connection. `run` comes back when the other side has ended it, or the time is over."""

    def __init__(self, sock: socket.socket, how: Abuse, pieces: Iterator[bytes]) -> None:
        self.sock, self.how, self.pieces = sock, how, pieces
        self.heard, self.ended = Heard(), Ended()
        self.out = memoryview(b"")
        self.began = self.due = time.monotonic()

    def run(self, seconds: float) -> Ended:
        end = self.began + seconds
        poll = select.poll()
        while not self.gone() and (now := time.monotonic()) < end:
            if not self.out and now >= self.due:
                self.out = memoryview(next(self.pieces, b""))
                self.due = now + self.how.every_s if self.out else end
            watched = select.POLLRDHUP | select.POLLIN * self.how.reads | select.POLLOUT * bool(self.out)
            poll.register(self.sock, watched)
            events = poll.poll(1000 * min(LATEST_S, max(0.0, end - now)))
            if events or self.waits():
                self.step(events[0][1] if events else select.POLLIN)
        self.ended.goaway, self.ended.resets, self.ended.answers = (
            self.heard.goaway,
            self.heard.resets,
            self.heard.answers,
        )
        return self.ended

    def gone(self) -> bool:
        """It is over; who was told so waits a little for the end itself."""
        return self.ended.closed_s >= 0 or (
            self.ended.over and time.monotonic() - self.began - self.ended.after_s > END_S
        )

    def waits(self) -> bool:
        """Bytes that TLS has read already."""
        return self.how.reads and isinstance(self.sock, ssl.SSLSocket) and self.sock.pending() > 0

    def step(self, events: int) -> None:
        hurt = select.POLLERR | select.POLLHUP | (0 if self.how.reads else select.POLLRDHUP)
        if self.how.reads and events & (select.POLLIN | select.POLLRDHUP | select.POLLERR | select.POLLHUP):
            self.read()
        elif events & hurt:
            self.closed()
        if events & select.POLLOUT and self.out and self.ended.closed_s < 0:
            self.write()

    def read(self) -> None:
        try:
            piece = self.sock.recv(READ_BYTES)
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return
        except OSError:
            piece = b""
        if not piece:
            self.closed()
            return
        self.heard.take(piece)
        if self.heard.goaway > 0 and not self.ended.over:
            self.ended.after_s = time.monotonic() - self.began

    def write(self) -> None:
        try:
            sent = self.sock.send(self.out)
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return
        except OSError:
            self.out, self.pieces = memoryview(b""), iter(())  # what came before the end is still to be read
            if not self.how.reads:
                self.closed()
            return
        self.ended.sent_bytes += sent
        self.out = self.out[sent:]

    def closed(self) -> None:
        self.ended.closed_s = time.monotonic() - self.began
        if not self.ended.over:
            self.ended.after_s = self.ended.closed_s


def abuse(how: Abuse, route: Route, site: Site, seconds: float) -> Ended:
    """One connection from its beginning to its end."""
    bounds = Bounds(1, seconds)
    try:
        sock = connected(route, how, site)
    except OSError as error:
        return Ended(failed=str(error) or type(error).__name__)
    with contextlib.closing(sock):
        return Abuser(sock, how, how.pieces(site)).run(bounds.seconds_max)


def again_and_again(spec: dict[str, Any]) -> list[Ended]:
    """Connections one after the other, while there is time."""
    how, site = ABUSES[spec["abuse"]], Site(**spec["site"])
    route = Route(spec["source"], spec["target"], spec["port"])
    meter = Meter(Bounds(spec["requests_max"], spec["seconds_max"]))
    found: list[Ended] = []
    while not told_to_stop() and meter.take():
        left = (meter.ends_ns - time.monotonic_ns()) / 1e9
        if left <= 0:
            break
        found.append(abuse(how, route, site, left))
        found[-1].began_s = spec["seconds_max"] - left
        time.sleep(min(AGAIN_S, max(0.0, (meter.ends_ns - time.monotonic_ns()) / 1e9)))
    return found


def main() -> None:
    """Run as a process of its own."""
    spec = read_spec()
    os.nice(int(spec["nice"]))
    report({"type": "ended", "connections": [asdict(ended) for ended in again_and_again(spec)]})


if __name__ == "__main__":
    main()
