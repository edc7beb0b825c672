"""Bodies of any size that nobody holds: made and compared by position.

Owns the pattern (pseudo-random, of a prime length, repeated, so that a byte says where it stands), framing both ways,
an origin that takes and gives such bodies (and one that does neither), and a client's side. Invariants: every byte
received is compared; nothing grows with the size of a body.
"""

from __future__ import annotations

import contextlib
import random
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

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
            # As bytes: two memoryviews are compared one item at a time, twenty times as slowly.
            same = bytes(take) == bytes(piece_at(position, len(take)))
            assert same, f"other bytes between {position} and {position + len(take)}"
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
    """What the origin does with the next requests: how it answers, and where it breaks off (of ORIGIN_STAGES)."""

    framing: str = "length"
    size: int = 2
    status: int = 200
    keep_alive: bool = True
    read: Pace = FAST
    write: Pace = FAST
    abort: str = ""
    hold: threading.Event | None = None  # it answers once this is set
    taken: list[int] = field(default_factory=list)  # bytes of each request's body that came, all of them compared
    aborted: threading.Event = field(default_factory=threading.Event)


# Where an origin breaks off. It resets the connection, but for "end in body" (an orderly end) and "early answer" (a
# whole one, and then it reads off what still comes). One more is "in the answer, stuck": when nobody takes any more.
ORIGIN_STAGES = (
    "at once",
    "after the head",
    "in the request",
    "early answer",
    "early answer, reset",
    "before the answer",
    "in its head",
    "after its head",
    "in a chunk line",
    "in a chunk",
    "in the answer",
    "end in body",
)
IN_CHUNKS = ("in a chunk line", "in a chunk")  # with chunks, "in the answer" is between two of them
STUCK_S = 0.1


class StreamOrigin:
    """Plain sockets and threads; one `plan` at a time."""

    def __init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.port: int = self.listener.getsockname()[1]
        self.plan = Plan()
        self.faults: list[str] = []
        self.socks: set[socket.socket] = set()
        self.lock = threading.Lock()
        threading.Thread(target=self.accept, daemon=True).start()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def open(self) -> int:
        return len(self.socks)

    def accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                sock, _ = self.listener.accept()
                if self.plan.abort == "at once":
                    self.plan.aborted.set()
                    reset(sock)
                    continue
                with self.lock:
                    self.socks.add(sock)
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
                self.socks.discard(sock)

    def close_connections(self) -> None:
        """In good order: what the gateway keeps open is gone."""
        with self.lock:
            socks = list(self.socks)
        for sock in socks:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    def exchange(self, sock: socket.socket, reader: Reader) -> bool:
        """One request and its answer. False: the connection ends here."""
        line, headers = reader.head()
        plan = self.plan
        reader.pace = plan.read
        assert line.endswith(" HTTP/1.1"), line
        if plan.abort in ("after the head", "in the request") or plan.abort.startswith("early"):
            return self.break_off(sock, reader, plan)
        plan.taken.append(reader.body(headers, to_the_end=False))
        if plan.hold is not None:
            plan.hold.wait(30)
        if plan.abort == "before the answer":
            plan.aborted.set()
            return reset(sock)
        head = answer_head(plan, plan.taken[-1])
        bodiless = line.startswith("HEAD ") or plan.status in (204, 304)
        if bodiless or not plan.abort:
            sock.sendall(head)
            if not bodiless:
                send_body(sock, plan.framing, plan.size, plan.write)
            return plan.keep_alive and (bodiless or plan.framing != "close")
        return self.break_off_answer(sock, plan, head)

    def break_off(self, sock: socket.socket, reader: Reader, plan: Plan) -> bool:
        """While the request comes."""
        if plan.abort == "in the request" and not reader.data:
            reader.more()
        if plan.abort.startswith("early"):
            sock.sendall(answer_head(replace(plan, keep_alive=False), 0))
            send_body(sock, plan.framing, plan.size)
        plan.aborted.set()
        if plan.abort != "early answer":
            return reset(sock)
        sock.shutdown(socket.SHUT_WR)
        while sock.recv(PIECE):
            pass
        return False

    def break_off_answer(self, sock: socket.socket, plan: Plan, head: bytes) -> bool:
        """While the answer goes."""
        half = plan.size // 2
        if plan.abort == "in its head":
            sock.sendall(head[:-2])
        elif plan.abort == "in the answer, stuck":
            sock.settimeout(STUCK_S)
            with contextlib.suppress(TimeoutError):
                sock.sendall(head)
                send_body(sock, plan.framing, plan.size)
                self.faults.append("somebody read all of it")
        else:
            sock.sendall(head)
            send_body(sock, plan.framing, plan.size, plan.write, stop_at=0 if plan.abort == "after its head" else half)
            if plan.abort in IN_CHUNKS:
                sock.sendall(b"1" if plan.abort == "in a chunk line" else b"1000\r\n" + piece_at(half, 0x800))
        plan.aborted.set()
        return reset(sock) if plan.abort != "end in body" else False

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()


class Deaf:
    """An origin whose backlog is full: a connection to it neither comes about nor fails."""

    def __init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=0)
        self.port: int = self.listener.getsockname()[1]
        self.waiting = [socket.socket() for _ in range(4)]
        for sock in self.waiting:
            sock.setblocking(False)
            sock.connect_ex(("127.0.0.1", self.port))

    def hear(self) -> socket.socket:
        """From now on it takes connections; the first one that says something."""
        for sock in self.waiting:
            sock.close()
        self.listener.settimeout(10)
        while True:
            sock, _ = self.listener.accept()
            sock.settimeout(10)
            if sock.recv(1, socket.MSG_PEEK):
                return sock
            sock.close()

    def close(self) -> None:
        for sock in (*self.waiting, self.listener):
            sock.close()


def answer_head(plan: Plan, taken: int) -> bytes:
    head = f"HTTP/1.1 {plan.status} Said\r\n"
    if plan.framing == "length" and plan.status != 204:
        head += f"Content-Length: {plan.size}\r\n"
    elif plan.framing == "chunked" and plan.status != 204:
        head += "Transfer-Encoding: chunked\r\n"
    head += f"X-Taken: {taken}\r\n" + ("" if plan.keep_alive else "Connection: close\r\n")
    return head.encode() + b"\r\n"


def reset(sock: socket.socket) -> bool:
    """End abruptly (RST)."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()
    return False


def request_head(
    minor: int, framing: str, size: int, *, keep_alive: bool, method: str = "", path: str = "/stream"
) -> bytes:
    head = f"{method or ('GET' if framing == 'none' else 'POST')} {path} HTTP/1.{minor}\r\nHost: site.test\r\n"
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

    def send(
        self,
        minor: int,
        framing: str,
        size: int,
        *,
        keep_alive: bool,
        stop_at: int | None = None,
        method: str = "",
        path: str = "/stream",
    ) -> None:
        self.sock.sendall(request_head(minor, framing, size, keep_alive=keep_alive, method=method, path=path))
        if framing != "none":
            send_body(self.sock, framing, size, self.write, stop_at)

    def sending(self, *what: Any, **how: Any) -> Callable[[], OSError | None]:
        """`send`, beside whatever else is done. What is returned waits for its end, and says what it failed of."""
        failed: list[OSError] = []

        def send() -> None:
            try:
                self.send(*what, **how)
            except OSError as error:
                failed.append(error)

        sender = threading.Thread(target=send, daemon=True)
        sender.start()

        def end() -> OSError | None:
            sender.join()
            return failed[0] if failed else None

        return end

    def exchange(
        self, minor: int, framing: str, size: int, *, keep_alive: bool, method: str = "", status: int = 200
    ) -> tuple[dict[str, str], int]:
        """One request with a body of that size, sent while the answer is read: the answer's headers and body size."""
        sent = self.sending(minor, framing, size, keep_alive=keep_alive, method=method)
        line, headers = self.reader.head()
        assert line.split(" ")[1] == str(status), line
        bodiless = method == "HEAD" or status in (204, 304)
        count = 0 if bodiless else self.reader.body(headers, to_the_end=True)
        failed = sent()
        assert failed is None, failed
        return headers, count

    def attempt(self, minor: int, framing: str, size: int, *, keep_alive: bool) -> tuple[int, int | None]:
        """The same where it may be cut: the status, 0 without one; the body's size (None: not whole, or no 200)."""
        sent = self.sending(minor, framing, size, keep_alive=keep_alive)
        status, headers, count = 0, dict[str, str](), None
        with contextlib.suppress(Ended):
            line, headers = self.reader.head()
            status = int(line.split(" ")[1])
            count = self.reader.body(headers, to_the_end=True) if status == 200 else None
        delimited = "content-length" in headers or "transfer-encoding" in headers
        # The kernel tells a reset once, to whoever asks first: perhaps it was the sender.
        cut = sent() is not None and not delimited
        return status, None if cut else count


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
