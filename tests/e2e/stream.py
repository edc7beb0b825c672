"""Bodies of any size that nobody holds: made and compared by position.

Owns the pattern (pseudo-random, of a prime length, repeated, so that a byte says where it stands), framing both ways,
an origin that takes and gives such bodies, and a client's side. Invariants: every byte received is compared; nothing
grows with the size of a body.
"""

from __future__ import annotations

import contextlib
import random
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

PERIOD = 1_048_573  # prime
PIECE = 262_144
BLOCK = memoryview(random.Random(20260122).randbytes(PERIOD) * 2)
HEAD_END = b"\r\n\r\n"


class Ended(Exception):
    """The other side ended before all had come."""


@dataclass(frozen=True)
class Pace:
    """At most `piece` bytes at once, a pause after each."""

    piece: int = PIECE
    pause_s: float = 0.0


FAST = Pace()


def piece_at(position: int, length: int) -> memoryview:
    """The pattern's bytes from a position on; at most PERIOD of them."""
    at = position % PERIOD
    return BLOCK[at : at + length]


def pieces(size: int, pace: Pace) -> Iterator[memoryview]:
    position = 0
    while position < size:
        length = min(pace.piece, size - position)
        yield piece_at(position, length)
        position += length
        if pace.pause_s:
            time.sleep(pace.pause_s)


def send_body(sock: socket.socket, framing: str, size: int, pace: Pace = FAST, stop_at: int | None = None) -> None:
    """A body by its framing: "length" and "close" as it is, "chunked" in chunks. `stop_at`: no further than that."""
    for piece in pieces(size if stop_at is None else stop_at, pace):
        if framing == "chunked":
            sock.sendall(b"%x\r\n" % len(piece))
            sock.sendall(piece)
            sock.sendall(b"\r\n")
        else:
            sock.sendall(piece)
    if framing == "chunked" and stop_at is None:
        sock.sendall(b"0\r\n\r\n")


class Reader:
    """One side's incoming bytes: heads, and bodies that are compared and dropped."""

    def __init__(self, sock: socket.socket, pace: Pace = FAST) -> None:
        self.sock, self.pace = sock, pace
        self.buffer = bytearray(PIECE)
        self.data = memoryview(b"")

    def more(self) -> None:
        if self.pace.pause_s:
            time.sleep(self.pace.pause_s)
        try:
            got = self.sock.recv_into(self.buffer, self.pace.piece)
        except ConnectionError as error:
            raise Ended("reset") from error
        if not got:
            raise Ended("closed")
        self.data = memoryview(self.buffer)[:got]

    def until(self, mark: bytes) -> bytes:
        found = b""
        while mark not in found:
            if not self.data:
                self.more()
            found += bytes(self.data)
            self.data = memoryview(b"")
        head, rest = found.split(mark, 1)
        self.data = memoryview(rest)
        return head

    def head(self) -> tuple[str, dict[str, str]]:
        first, *lines = self.until(HEAD_END).decode("latin-1").split("\r\n")
        return first, {n.lower(): v.strip() for n, _, v in (line.partition(":") for line in lines)}

    def compare(self, position: int, length: int | None) -> int:
        """Take `length` bytes (None: all until the end) of the pattern from `position` on; how many came."""
        start = position
        while length is None or position - start < length:
            if not self.data:
                try:
                    self.more()
                except Ended as error:
                    if length is None and str(error) == "closed":
                        break
                    raise
            take = self.data if length is None else self.data[: length - (position - start)]
            assert take == piece_at(position, len(take)), f"other bytes between {position} and {position + len(take)}"
            position += len(take)
            self.data = self.data[len(take) :]
        return position - start

    def body(self, headers: dict[str, str], *, to_the_end: bool) -> int:
        """A whole body by its headers; `to_the_end`: without a framing it lasts until the close."""
        if headers.get("transfer-encoding") == "chunked":
            total = 0
            while size := int(self.until(b"\r\n").split(b";")[0], 16):
                total += self.compare(total, size)
                assert self.until(b"\r\n") == b""
            assert self.until(b"\r\n") == b""
            return total
        if "content-length" in headers:
            return self.compare(0, int(headers["content-length"]))
        return self.compare(0, None) if to_the_end else 0


@dataclass
class Plan:
    """What the origin does with the next requests: how it answers, and where it breaks off (a stage, see STAGES)."""

    framing: str = "length"
    size: int = 2
    keep_alive: bool = True
    read: Pace = FAST
    write: Pace = FAST
    abort: str = ""
    taken: list[int] = field(default_factory=list)  # bytes of each request's body that came, all of them compared


# Where an origin breaks off. It resets the connection, but for "end in body": an orderly end.
ORIGIN_STAGES = (
    "at once",
    "after the head",
    "in the request",
    "before the answer",
    "in its head",
    "in the answer",
    "end in body",
)


class StreamOrigin:
    """Plain sockets and threads; one `plan` at a time."""

    def __init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.port: int = self.listener.getsockname()[1]
        self.plan = Plan()
        self.faults: list[str] = []
        self.open = 0
        self.lock = threading.Lock()
        threading.Thread(target=self.accept, daemon=True).start()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                sock, _ = self.listener.accept()
                with self.lock:
                    self.open += 1
                threading.Thread(target=self.serve, args=(sock,), daemon=True).start()

    def serve(self, sock: socket.socket) -> None:
        try:
            with sock:
                reader = Reader(sock)
                while self.exchange(sock, reader):
                    pass
        except (Ended, OSError):
            pass
        except (AssertionError, ValueError) as error:
            self.faults.append(str(error))
        finally:
            with self.lock:
                self.open -= 1

    def exchange(self, sock: socket.socket, reader: Reader) -> bool:
        """One request and its answer. False: the connection ends here."""
        line, headers = reader.head()
        plan = self.plan
        reader.pace = plan.read
        if plan.abort in ("at once", "after the head"):
            return reset(sock)
        if plan.abort == "in the request":
            if not reader.data:
                reader.more()
            return reset(sock)
        assert line.endswith(" HTTP/1.1"), line
        plan.taken.append(reader.body(headers, to_the_end=False))
        if plan.abort == "before the answer":
            return reset(sock)
        head = "HTTP/1.1 200 OK\r\n"
        if plan.framing == "length":
            head += f"Content-Length: {plan.size}\r\n"
        elif plan.framing == "chunked":
            head += "Transfer-Encoding: chunked\r\n"
        head += f"X-Taken: {plan.taken[-1]}\r\n" + ("" if plan.keep_alive else "Connection: close\r\n")
        if plan.abort == "in its head":
            sock.sendall(head.encode())
            return reset(sock)
        sock.sendall(head.encode() + b"\r\n")
        if plan.abort in ("in the answer", "end in body"):
            send_body(sock, plan.framing, plan.size, plan.write, stop_at=plan.size // 2)
            return reset(sock) if plan.abort == "in the answer" else False
        send_body(sock, plan.framing, plan.size, plan.write)
        return plan.keep_alive and plan.framing != "close"

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()


def reset(sock: socket.socket) -> bool:
    """End abruptly (RST)."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()
    return False


def request_head(minor: int, framing: str, size: int, *, keep_alive: bool) -> bytes:
    method = "GET" if framing == "none" else "POST"
    head = f"{method} /stream HTTP/1.{minor}\r\nHost: site.test\r\n"
    if framing == "length":
        head += f"Content-Length: {size}\r\n"
    elif framing == "chunked":
        head += "Transfer-Encoding: chunked\r\n"
    if minor == 0 and keep_alive:
        head += "Connection: keep-alive\r\n"
    elif minor == 1 and not keep_alive:
        head += "Connection: close\r\n"
    return head.encode() + b"\r\n"


class StreamClient:
    """One connection to the gateway."""

    def __init__(self, port: int, *, read: Pace = FAST, write: Pace = FAST, timeout_s: float = 30.0) -> None:
        self.sock = socket.create_connection(("127.0.0.1", port), timeout=timeout_s)
        if read.pause_s:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        self.reader = Reader(self.sock, read)
        self.write = write

    def __enter__(self) -> StreamClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()

    def send(self, minor: int, framing: str, size: int, *, keep_alive: bool, stop_at: int | None = None) -> None:
        self.sock.sendall(request_head(minor, framing, size, keep_alive=keep_alive))
        if framing != "none":
            send_body(self.sock, framing, size, self.write, stop_at)

    def exchange(self, minor: int, framing: str, size: int, *, keep_alive: bool) -> tuple[dict[str, str], int]:
        """One request with a body of that size, sent while the answer is read: the answer's headers and body size."""
        failed: list[BaseException] = []

        def send() -> None:
            try:
                self.send(minor, framing, size, keep_alive=keep_alive)
            except OSError as error:
                failed.append(error)

        sender = threading.Thread(target=send, daemon=True)
        sender.start()
        line, headers = self.reader.head()
        assert line.split(" ")[1] == "200", line
        count = self.reader.body(headers, to_the_end=True)
        sender.join()
        assert not failed, failed
        return headers, count


def ends(client: StreamClient) -> str:
    """Read what still comes, compared or not: "closed", "reset"."""
    try:
        while client.sock.recv(PIECE):
            pass
    except ConnectionError:
        return "reset"
    return "closed"


def eventually(holds: Callable[[], bool], timeout_s: float, what: str) -> None:
    deadline = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)
