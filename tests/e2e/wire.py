"""A client of plain sockets: sends exactly the bytes it is given, reads answers strictly.

Invariants: `answer` fails on anything that is not one well-formed HTTP/1.x message; what came after it stays in `data`;
nothing is retried or followed; all addresses are loopback.
"""

from __future__ import annotations

import ipaddress
import socket
import struct
import time
from dataclasses import dataclass, field

HEAD_END = b"\r\n\r\n"


class Closed(Exception):
    """The connection ended before a whole answer was there; `data`: what had come."""

    def __init__(self, data: bytes, reset: bool = False) -> None:
        super().__init__(f"{'reset' if reset else 'closed'} after {data[:200]!r}")
        self.data = data
        self.reset = reset


@dataclass
class Answer:
    """One final or interim answer."""

    status: int
    reason: str
    version: str
    headers: list[tuple[str, str]]
    body: bytes = b""
    trailers: list[tuple[str, str]] = field(default_factory=list)
    chunked: bool = False

    def all(self, name: str) -> list[str]:
        return [value for each, value in self.headers if each == name.lower()]

    def one(self, name: str) -> str | None:
        values = self.all(name)
        assert len(values) <= 1, f"{name} came {len(values)} times: {values}"
        return values[0] if values else None


class Wire:
    """One connection."""

    def __init__(
        self,
        port: int,
        *,
        host: str = "127.0.0.1",
        source: str | None = None,
        timeout_s: float = 15.0,
        receive_bytes: int = 0,
    ) -> None:
        assert ipaddress.ip_address(host).is_loopback
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.sock = socket.socket(family, socket.SOCK_STREAM)
        self.sock.settimeout(timeout_s)
        if receive_bytes:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        try:
            if source is not None:
                assert ipaddress.ip_address(source).is_loopback
                self.sock.bind((source, 0))
            self.sock.connect((host, port))
        except OSError:
            self.sock.close()
            raise
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.data = b""

    def __enter__(self) -> Wire:
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()

    def send(self, *pieces: bytes, pause_s: float = 0.0) -> None:
        for i, piece in enumerate(pieces):
            if i and pause_s:
                time.sleep(pause_s)
            self.sock.sendall(piece)

    def finish(self) -> None:
        """No more bytes from us (FIN)."""
        self.sock.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        """End abruptly (RST)."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()

    def more(self) -> bool:
        """False at the orderly end."""
        try:
            piece = self.sock.recv(262144)
        except ConnectionError as error:
            raise Closed(self.data, reset=True) from error
        self.data += piece
        return bool(piece)

    def need(self) -> None:
        if not self.more():
            raise Closed(self.data)

    def line(self) -> bytes:
        while b"\r\n" not in self.data:
            self.need()
        line, self.data = self.data.split(b"\r\n", 1)
        return line

    def exactly(self, length: int) -> bytes:
        pieces: list[bytes] = []
        missing = length
        while missing:
            if not self.data:
                try:
                    self.need()
                except Closed as error:
                    raise Closed(b"".join(pieces), error.reset) from error
            piece, self.data = self.data[:missing], self.data[missing:]
            missing -= len(piece)
            pieces.append(piece)
        return b"".join(pieces)

    def head(self) -> Answer:
        """The next head, interim (1xx) ones included."""
        while HEAD_END not in self.data:
            self.need()
        head, self.data = self.data.split(HEAD_END, 1)
        first, *lines = head.decode("latin-1").split("\r\n")
        version, status, *reason = first.split(" ", 2)
        assert version in ("HTTP/1.1", "HTTP/1.0"), first
        assert len(status) == 3, first
        pairs = []
        for line in lines:
            name, colon, value = line.partition(":")
            assert colon and name and name == name.strip(), f"bad header line {line!r}"
            pairs.append((name.lower(), value.strip()))
        return Answer(int(status), reason[0] if reason else "", version, pairs)

    def answer(self, method: str = "GET") -> Answer:
        """The next final answer with its body; interim ones are passed over."""
        found = self.head()
        while found.status < 200 and found.status != 101:
            found = self.head()
        self.body_of(found, method)
        return found

    def body_of(self, found: Answer, method: str = "GET") -> None:
        """Read the body of an answer whose head was read, by its framing (RFC 9112 6.3)."""
        length, coding = found.one("content-length"), found.one("transfer-encoding")
        assert length is None or coding is None, "both framings"
        if method == "HEAD" or found.status in (204, 304) or found.status < 200:
            return
        if coding is not None:
            assert coding == "chunked", coding
            found.chunked = True
            found.body = self.chunks(found)
        elif length is not None:
            found.body = self.exactly(int(length))
        else:
            found.body = self.rest()

    def chunks(self, found: Answer) -> bytes:
        pieces = []
        while True:
            try:
                text = self.line().split(b";")[0]
                assert text and not text.strip(b"0123456789abcdefABCDEF"), text
                size = int(text, 16)
                if size == 0:
                    break
                pieces.append(self.exactly(size))
                assert self.line() == b""
            except Closed as error:
                raise Closed(b"".join(pieces), error.reset) from error
        while line := self.line():
            name, _, value = line.decode("latin-1").partition(":")
            found.trailers.append((name.lower(), value.strip()))
        return b"".join(pieces)

    def rest(self) -> bytes:
        """Everything up to the orderly end."""
        while self.more():
            pass
        data, self.data = self.data, b""
        return data

    def get(self, target: str = "/", headers: str = "", host: str = "site.test") -> Answer:
        """One GET on this connection."""
        self.send(f"GET {target} HTTP/1.1\r\nHost: {host}\r\n{headers}\r\n".encode("latin-1"))
        return self.answer()

    def ends(self, timeout_s: float = 5.0) -> str:
        """How the connection ends, reading and dropping what still comes: "closed", "reset"; "open" after that time."""
        deadline = time.monotonic() + timeout_s
        while True:
            left = deadline - time.monotonic()
            if left <= 0:
                return "open"
            self.sock.settimeout(left)
            try:
                if not self.sock.recv(262144):
                    return "closed"
            except TimeoutError:
                return "open"
            except ConnectionError:
                return "reset"


def fetch(
    port: int, target: str = "/", headers: str = "", *, source: str | None = None, host: str = "site.test"
) -> Answer:
    """One GET on a connection of its own."""
    with Wire(port, source=source) as wire:
        return wire.get(target, headers, host)


def eventually(holds: object, timeout_s: float = 5.0, what: str = "") -> None:
    """Wait until `holds()` is true; fails with `what` after that time."""
    assert callable(holds)
    deadline = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < deadline, what or "it did not come to pass"
        time.sleep(0.02)
