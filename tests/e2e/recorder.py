"""A recording origin: plain sockets and threads, so that what arrives is seen byte by byte and any answer can be given.

Owns its listening socket and one thread a connection. Invariants: a request is recorded before it is answered; bytes
that are not a well-formed request are recorded as `malformed`, never guessed at; `close` ends every thread.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tests.reference import proxy_header

HEAD_END = b"\r\n\r\n"


class Gone(Exception):
    """The gateway closed the connection."""


@dataclass
class Request:
    """One request as it arrived."""

    head: bytes  # the request line and headers, with the empty line
    connection: int  # number of the connection it came on, from 0
    body: bytes = b""
    trailers: list[tuple[str, str]] = field(default_factory=list)
    complete: bool = False
    chunks: int = 0

    @property
    def line(self) -> str:
        return self.head.split(b"\r\n", 1)[0].decode("latin-1")

    @property
    def method(self) -> str:
        return self.line.split(" ")[0]

    @property
    def target(self) -> str:
        return self.line.split(" ")[1]

    @property
    def headers(self) -> list[tuple[str, str]]:
        lines = self.head[: -len(HEAD_END)].decode("latin-1").split("\r\n")[1:]
        pairs = [line.partition(":") for line in lines]
        return [(name.lower(), value.strip()) for name, _, value in pairs]

    def all(self, name: str) -> list[str]:
        """Every value of a header."""
        return [value for each, value in self.headers if each == name.lower()]

    def one(self, name: str) -> str | None:
        """The only value of a header; None where there is none."""
        values = self.all(name)
        assert len(values) <= 1, f"{name} came {len(values)} times: {values}"
        return values[0] if values else None


class Exchange:
    """A connection of the gateway, with the request that is being answered."""

    def __init__(self, origin: Recorder, sock: socket.socket, number: int) -> None:
        self.origin = origin
        self.sock = sock
        self.number = number
        self.request = Request(b"", number)
        self.data = b""

    def send(self, data: bytes) -> None:
        try:
            self.sock.sendall(data)
        except OSError as error:
            raise Gone from error

    def close(self) -> None:
        """An orderly end (FIN)."""
        with contextlib.suppress(OSError):
            self.sock.shutdown(socket.SHUT_RDWR)
        raise Gone

    def reset(self) -> None:
        """An abrupt end (RST)."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()
        raise Gone

    def closed_by_gateway(self, timeout_s: float) -> bool:
        """Whether the gateway ends this connection within that time."""
        self.sock.settimeout(timeout_s)
        try:
            return self.sock.recv(65536) == b""
        except TimeoutError:
            return False
        except OSError:
            return True

    def more(self) -> None:
        piece = self.sock.recv(262144)
        if not piece:
            raise Gone
        self.data += piece
        if self.origin.received is not None:
            self.origin.received[self.number] = self.origin.received.get(self.number, b"") + piece

    def read_proxy_header(self) -> None:
        while (found := proxy_header.parse(self.data)) == "more":
            self.more()
        if isinstance(found, str):
            raise ValueError("no PROXY header")
        self.origin.named[self.number] = found
        self.data = self.data[found["length"] :]

    def read_line(self) -> bytes:
        while b"\r\n" not in self.data:
            self.more()
        line, self.data = self.data.split(b"\r\n", 1)
        return line

    def read_head(self) -> None:
        while HEAD_END not in self.data:
            if len(self.data) > 65536:
                raise ValueError("a head without an end")
            self.more()
        head, self.data = self.data.split(HEAD_END, 1)
        self.request = Request(head + HEAD_END, self.number)

    def read_body(self) -> None:
        """The body, framed as the head says; both framings at once are malformed."""
        request = self.request
        length, coding = request.one("content-length"), request.one("transfer-encoding")
        if length is not None and coding is not None:
            raise ValueError("both framings")
        if coding is not None:
            if coding != "chunked":
                raise ValueError(f"transfer coding {coding}")
            self.read_chunks()
        elif length is not None:
            self.read_exactly(int(length))
        request.complete = True

    def read_exactly(self, length: int) -> None:
        pieces, missing = [], length
        while missing:
            if not self.data:
                if self.origin.slow_read_bytes_s:
                    time.sleep(65536 / self.origin.slow_read_bytes_s)
                self.more()
            piece, self.data = self.data[:missing], self.data[missing:]
            missing -= len(piece)
            pieces.append(piece)
        self.request.body += b"".join(pieces)

    def read_chunks(self) -> None:
        request = self.request
        while True:
            size_text = self.read_line().split(b";")[0]
            if not size_text or size_text.strip(b"0123456789abcdefABCDEF"):
                raise ValueError(f"chunk size {size_text!r}")
            size = int(size_text, 16)
            if size == 0:
                break
            request.chunks += 1
            self.read_exactly(size)
            if self.read_line() != b"":
                raise ValueError("chunk without its line end")
        while line := self.read_line():
            name, _, value = line.decode("latin-1").partition(":")
            request.trailers.append((name.lower(), value.strip()))


Answer = Callable[[Exchange], None]


def respond(body: bytes = b"ok", status: str = "200 OK", headers: str = "Content-Type: text/plain\r\n") -> Answer:
    """A plain answer by Content-Length; nothing of the body for HEAD."""

    def answer(exchange: Exchange) -> None:
        head = f"HTTP/1.1 {status}\r\n{headers}Content-Length: {len(body)}\r\n\r\n".encode("latin-1")
        exchange.send(head if exchange.request.method == "HEAD" else head + body)

    return answer


def raw(*pieces: bytes, close: bool = False, pause_s: float = 0.0) -> Answer:
    """Exactly these bytes, a pause between them."""

    def answer(exchange: Exchange) -> None:
        for i, piece in enumerate(pieces):
            if i and pause_s:
                time.sleep(pause_s)
            exchange.send(piece)
        if close:
            exchange.close()

    return answer


class Recorder:
    """The origin, at a host's port or a Unix socket ("unix:/path"). `answers`: by path (without query), once the body
    is there; `on_head`: the same, before its body."""

    def __init__(self, host: str = "127.0.0.1", port: int = 0) -> None:
        unix = host.startswith("unix:")
        family = socket.AF_UNIX if unix else socket.AF_INET6 if ":" in host else socket.AF_INET
        self.listener = socket.socket(family, socket.SOCK_STREAM)
        self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.listener.bind(host.removeprefix("unix:") if unix else (host, port))
        if unix:
            os.chmod(host.removeprefix("unix:"), 0o666)  # workers are other users
        self.listener.listen(512)
        self.host = host
        self.port: int = 0 if unix else self.listener.getsockname()[1]
        self.answers: dict[str, Answer] = {}
        self.on_head: dict[str, Answer] = {}
        self.default: Answer = respond()
        self.requests: list[Request] = []
        self.malformed: list[bytes] = []
        self.connections = 0
        self.open = 0
        self.slow_read_bytes_s = 0  # how fast bodies are read; 0: at once
        self.keep_alive = True
        self.proxied = False  # each connection has to begin with a PROXY header
        self.named: dict[int, dict[str, Any]] = {}  # what it said, by number of the connection
        self.received: dict[int, bytes] | None = None  # every byte, by number of the connection, where a test wants it
        self.lock = threading.Lock()
        self.socks: set[socket.socket] = set()
        self.ended = False
        self.thread = threading.Thread(target=self.accept, daemon=True)
        self.thread.start()

    @property
    def address(self) -> str:
        if self.host.startswith("unix:"):
            return self.host
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def accept(self) -> None:
        while True:
            try:
                sock, _ = self.listener.accept()
            except OSError:
                return
            with self.lock:
                if self.ended:
                    sock.close()
                    return
                number = self.connections
                self.connections += 1
                self.open += 1
                self.socks.add(sock)
            threading.Thread(target=self.serve, args=(Exchange(self, sock, number),), daemon=True).start()

    def serve(self, exchange: Exchange) -> None:
        try:
            if self.proxied:
                exchange.read_proxy_header()
            while True:
                self.serve_one(exchange)
        except (Gone, OSError):
            pass
        except ValueError:
            self.malformed.append(exchange.request.head + exchange.data)
        finally:
            with self.lock:
                self.open -= 1
                self.socks.discard(exchange.sock)
            exchange.sock.close()

    def serve_one(self, exchange: Exchange) -> None:
        exchange.read_head()
        request = exchange.request
        with self.lock:
            self.requests.append(request)
        path = request.target.split("?")[0]
        early = self.on_head.get(path)
        if early is not None:
            early(exchange)
        exchange.read_body()
        self.answers.get(path, self.default)(exchange)
        if not self.keep_alive:
            exchange.close()

    def close_connections(self) -> None:
        """End every open connection, idle ones included."""
        with self.lock:
            socks = list(self.socks)
        for sock in socks:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    def stop_listening(self) -> None:
        """Further connects are refused."""
        with contextlib.suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()

    def close(self) -> None:
        with self.lock:
            self.ended = True
        self.stop_listening()
        self.close_connections()
        self.thread.join(5)

    def __enter__(self) -> Recorder:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def of(self, path: str) -> list[Request]:
        """Requests for a path, in order of arrival."""
        return [request for request in self.requests if request.target.split("?")[0] == path]

    def last(self, path: str) -> Request:
        found = self.of(path)
        assert found, f"nothing arrived for {path}"
        return found[-1]
