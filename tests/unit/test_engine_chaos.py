"""Clients and origins that break off, reset and lie at random moments: nothing leaks, no body is altered."""

from __future__ import annotations

import contextlib
import hashlib
import random
import select
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

import hpack
import pytest

from tests.conformance.http2_peer import (
    ACK,
    PREFACE,
    SETTINGS,
    data,
    frame,
    headers,
    rst_stream,
    settings,
    window_update,
)
from tests.unit.hosted import Bench, bench, origin
from tests.unit.http2_stage import Answers, Told

__all__ = ["bench", "origin"]

SEEDS = (1, 2, 3)
CLIENTS = 6
REQUESTS = 40
MODES = ("length", "length", "chunked", "chunked", "close", "interim", "extra", "half", "reset", "early", "silent")
HONEST = {"length", "chunked", "close", "interim"}


def body_of(number: int, size: int) -> bytes:
    return (hashlib.sha256(b"%d" % number).digest() * (size // 32 + 1))[:size]


def reset(conn: socket.socket) -> None:
    conn.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def send_split(conn: socket.socket, data: bytes, rng: random.Random, stop_at: int | None = None) -> bool:
    """All of it in random pieces; False: stopped on the way."""
    sent = 0
    while sent < len(data):
        piece = data[sent : sent + rng.choice((1, 7, 300, 5000, 70000))]
        if stop_at is not None and sent + len(piece) > stop_at:
            conn.sendall(piece[: max(0, stop_at - sent)])
            return False
        conn.sendall(piece)
        sent += len(piece)
    return True


def chunk(data: bytes, rng: random.Random) -> bytes:
    out = b""
    while data:
        n = rng.choice((1, 10, 4000, 30000))
        piece, data = data[:n], data[n:]
        out += b"%x%s\r\n%s\r\n" % (len(piece), rng.choice((b"", b";a=b")), piece)
    return out + b"0\r\n" + rng.choice((b"", b"X-Sum: 1\r\n")) + b"\r\n"


class ChaosOrigin(threading.Thread):
    """Does what the target asks for: /MODE/NUMBER/SIZE. Echoes the digest of the request's body in a header."""

    def __init__(self, seed: int) -> None:
        super().__init__(daemon=True)
        self.seed = seed
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.port = self.listener.getsockname()[1]
        self.start()

    def run(self) -> None:
        count = 0
        with contextlib.suppress(OSError):
            while True:
                conn, _ = self.listener.accept()
                count += 1
                threading.Thread(
                    target=self.serve, args=(conn, random.Random(self.seed * 1000 + count)), daemon=True
                ).start()

    def serve(self, conn: socket.socket, rng: random.Random) -> None:
        stream = conn.makefile("rb")
        with conn, stream, contextlib.suppress(OSError, ValueError, IndexError):
            while line := stream.readline():
                headers = {}
                while (field := stream.readline()) != b"\r\n":
                    name, _, value = field.partition(b":")
                    headers[name.lower()] = value.strip()
                _, mode, number, size = line.split(b" ")[1].decode().split("/")
                if mode == "early":
                    conn.sendall(b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
                    return
                body = self.read_body(stream, headers)
                if not self.answer(
                    conn, rng, mode, body_of(int(number), int(size)), hashlib.sha256(body).hexdigest().encode()
                ):
                    return

    @staticmethod
    def read_body(stream: object, headers: dict[bytes, bytes]) -> bytes:
        read = stream.read  # type: ignore[attr-defined]
        if b"transfer-encoding" not in headers:
            return bytes(read(int(headers.get(b"content-length", b"0"))))
        body = b""
        while size := int(stream.readline(), 16):  # type: ignore[attr-defined]
            body += read(size)
            read(2)
        read(2)
        return body

    @staticmethod
    def answer(conn: socket.socket, rng: random.Random, mode: str, body: bytes, digest: bytes) -> bool:
        """True: the connection may go on."""
        ok = b"HTTP/1.1 200 OK\r\nX-Digest: " + digest + b"\r\n"
        length = ok + b"Content-Length: %d\r\n\r\n" % len(body)
        if mode == "interim":
            conn.sendall(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n")
        if mode in ("length", "interim"):
            return send_split(conn, length + body, rng)
        if mode == "chunked":
            return send_split(conn, ok + b"Transfer-Encoding: chunked\r\n\r\n" + chunk(body, rng), rng)
        if mode == "close":
            send_split(conn, ok + b"\r\n" + body, rng)
        elif mode == "extra":
            conn.sendall(length + body + b"HTTP/1.1 200 OK\r\nX-Digest: stray\r\nContent-Length: 0\r\n\r\n")
            return True
        elif mode == "half":
            conn.sendall((length + body)[: rng.randrange(len(length) + len(body))])
        elif mode == "reset":
            conn.sendall((length + body)[: (len(length) + len(body)) // 2])
            reset(conn)
        return False


class ChaosClient(threading.Thread):
    """Sends requests, some broken off; keeps every discrepancy it sees."""

    def __init__(self, running: Bench, seed: int) -> None:
        super().__init__(daemon=True)
        self.running = running
        self.rng = random.Random(seed)
        self.wrong: list[str] = []
        self.whole = 0
        self.start()

    def run(self) -> None:
        done = 0
        while done < REQUESTS:
            with self.running.connect() as conn, contextlib.suppress(OSError):
                conn.settimeout(10)
                while done < REQUESTS:
                    done += 1
                    if not self.one(conn):
                        break

    def one(self, conn: socket.socket) -> bool:
        rng = self.rng
        mode, number = rng.choice(MODES), rng.randrange(1 << 30)
        size = rng.choice((0, 1, 5000, 65536, 200_000))
        body = body_of(number + 1, rng.choice((0, 0, 1, 3000, 100_000)))
        head = b"%s /%s/%d/%d HTTP/1.1\r\nHost: a\r\n" % (b"POST" if body else b"GET", mode.encode(), number, size)
        if not body:
            data = head + b"\r\n"
        elif rng.random() < 0.5:
            data = head + b"Content-Length: %d\r\n\r\n" % len(body) + body
        else:
            data = head + b"Transfer-Encoding: chunked\r\n\r\n" + chunk(body, rng)
        fate = rng.random()
        if fate < 0.15:
            send_split(conn, data, rng, stop_at=rng.randrange(len(data)))
            if rng.random() < 0.5:
                reset(conn)
            return False
        send_split(conn, data, rng)
        if fate < 0.25:
            conn.recv(rng.choice((1, 1000, 50_000)))
            if rng.random() < 0.5:
                reset(conn)
            return False
        return self.check(conn, mode, body_of(number, size), body)

    def check(self, conn: socket.socket, mode: str, expected: bytes, sent: bytes) -> bool:
        stream = conn.makefile("rb")
        status, headers = self.head(stream)
        while status == 103:
            status, headers = self.head(stream)
        if headers.get(b"transfer-encoding") == b"chunked":
            got = b""
            while size := int(stream.readline() or b"0", 16):
                got += stream.read(size)
                stream.read(2)
            stream.readline()
        else:
            got = stream.read(int(headers.get(b"content-length", b"0")))
        if mode in HONEST or mode == "extra":
            if status != 200 or got != expected:
                self.wrong.append(f"{mode}: {status}, {len(got)} of {len(expected)} bytes")
            elif headers[b"x-digest"] != hashlib.sha256(sent).hexdigest().encode():
                self.wrong.append(f"{mode}: the origin saw another body")
            else:
                self.whole += 1
        return b"connection" not in headers

    @staticmethod
    def head(stream: object) -> tuple[int, dict[bytes, bytes]]:
        line = stream.readline()  # type: ignore[attr-defined]
        if not line:
            raise ConnectionResetError
        headers = {}
        while (field := stream.readline()) not in (b"\r\n", b""):  # type: ignore[attr-defined]
            name, _, value = field.partition(b":")
            headers[name.lower()] = value.strip()
        return int(line.split(b" ")[1]), headers


@pytest.fixture(params=SEEDS)
def chaos(request: pytest.FixtureRequest) -> Iterator[ChaosOrigin]:
    running = ChaosOrigin(request.param)
    yield running
    running.listener.shutdown(socket.SHUT_RDWR)  # wakes who waits in accept
    running.listener.close()


def test_nothing_leaks_and_no_answer_is_anothers(bench: Callable[..., Bench], chaos: ChaosOrigin) -> None:
    running = bench(port=chaos.port, area='[area.limits]\norigin_connections_max = 3\nread_timeout = "3s"')
    clients = [ChaosClient(running, chaos.seed * 100 + i) for i in range(CLIENTS)]
    deadline = time.monotonic() + 50
    for each in clients:
        each.join(max(0.1, deadline - time.monotonic()))
    assert not any(each.is_alive() for each in clients)
    assert [each.wrong for each in clients] == [[]] * CLIENTS
    assert sum(each.whole for each in clients) > REQUESTS


class Asked(NamedTuple):
    """One request: what the origin is to do, its number, and the bodies both ways."""

    mode: str
    number: int
    expected: bytes
    sent: bytes


class ChaosStreams(threading.Thread):
    """As ChaosClient, by HTTP/2: several streams at a time, windows that open bit by bit, broken off anywhere."""

    def __init__(self, running: Bench, seed: int) -> None:
        super().__init__(daemon=True)
        self.running = running
        self.rng = random.Random(seed)
        self.wrong: list[str] = []
        self.whole = 0
        self.start()

    def run(self) -> None:
        done = 0
        while done < REQUESTS:
            with self.running.connect() as conn:
                done += self.converse(conn)

    def converse(self, conn: socket.socket) -> int:
        """One connection; how many requests it was asked."""
        rng = self.rng
        self.answers, self.encoder = Answers(), hpack.Encoder()
        self.given: dict[int, int] = {}
        out = PREFACE + settings((4, rng.choice((9000, 30_000, 65_535, 1 << 20)))) + frame(SETTINGS, 0, flags=ACK)
        stream = 1
        with contextlib.suppress(OSError):
            for _ in range(rng.choice((1, 3, 8))):
                batch = {stream + 2 * n: self.request() for n in range(rng.randrange(1, 5))}
                stream += 2 * len(batch)
                out += self.frames_of(batch)
                fate = rng.random()
                if fate < 0.15:
                    self.exchange(conn, out[: rng.randrange(len(out))], set())
                    if rng.random() < 0.5:
                        reset(conn)
                    break
                gone = {each for each in batch if fate < 0.35 and rng.random() < 0.5}
                out += b"".join(rst_stream(each) for each in gone)
                self.exchange(conn, out, set(batch) - gone)
                out = b""
                for each in set(batch) - gone:
                    self.check(self.answers.streams.get(each, Told()), batch[each])
        return stream // 2

    def request(self) -> Asked:
        rng = self.rng
        number, size = rng.randrange(1 << 30), rng.choice((0, 1, 5000, 65_536, 200_000))
        sent = body_of(number + 1, rng.choice((0, 0, 1, 3000, 60_000)))
        return Asked(rng.choice(MODES), number, body_of(number, size), sent)

    def frames_of(self, batch: dict[int, Asked]) -> bytes:
        """The requests, and the frames of their bodies mixed."""
        out, parts = b"", []
        for stream, each in batch.items():
            method = "POST" if each.sent else "GET"
            path = f"/{each.mode}/{each.number}/{len(each.expected)}"
            fields = [(":method", method), (":scheme", "http"), (":authority", "a"), (":path", path)]
            if each.sent and self.rng.random() < 0.5:
                fields.append(("content-length", str(len(each.sent))))
            out += headers(stream, self.encoder.encode(fields), end_stream=not each.sent)
            step = self.rng.choice((7000, 16_384))
            ends = range(step, len(each.sent) + step, step) if each.sent else ()
            parts.append([data(stream, each.sent[at - step : at], end_stream=at >= len(each.sent)) for at in ends])
        while any(parts):
            out += self.rng.choice([each for each in parts if each]).pop(0)
        return out

    def exchange(self, conn: socket.socket, out: bytes, wanted: set[int]) -> None:
        """Send it in pieces and read meanwhile, until these streams have ended."""
        conn.setblocking(False)
        until = time.monotonic() + 10
        while out or not all(self.over(stream) for stream in wanted):
            readable, writable, _ = select.select([conn], [conn] if out else [], [], 0.5)
            if writable:
                out = out[conn.send(out[: self.rng.choice((1, 9, 300, 5000, 70_000))]) :]
            if readable:
                got = conn.recv(65_536)
                if not got:
                    raise ConnectionResetError
                self.answers.feed(got)
                out += self.windows()
            if time.monotonic() > until:
                self.wrong.append("no answer in time")
                return

    def over(self, stream: int) -> bool:
        told = self.answers.streams.get(stream)
        return told is not None and (told.ended or told.code is not None)

    def windows(self) -> bytes:
        """As much more as was taken, of each stream and of the connection."""
        out, total = b"", 0
        for stream, told in self.answers.streams.items():
            came = len(told.body) - self.given.get(stream, 0)
            self.given[stream] = len(told.body)
            if came and not self.over(stream):
                out += window_update(stream, came)
            total += came
        return out + (window_update(0, total) if total else b"")

    def check(self, told: Told, asked: Asked) -> None:
        if asked.mode not in HONEST and asked.mode != "extra":
            return
        head = told.head or {}
        if head.get(b":status") != b"200" or told.body != asked.expected or not told.ended:
            self.wrong.append(f"{asked.mode}: {head}, {told.code}, {len(told.body)} of {len(asked.expected)} bytes")
        elif head[b"x-digest"] != hashlib.sha256(asked.sent).hexdigest().encode():
            self.wrong.append(f"{asked.mode}: the origin saw another body")
        else:
            self.whole += 1


def test_nothing_leaks_of_streams_either(bench: Callable[..., Bench], chaos: ChaosOrigin) -> None:
    limits = '[area.limits]\norigin_connections_max = 6\nread_timeout = "3s"\norigin_wait = "20s"'
    running = bench(port=chaos.port, area=limits, listener="http2 = true")
    clients = [ChaosStreams(running, chaos.seed * 100 + i) for i in range(4)]
    others = [ChaosClient(running, chaos.seed * 1000 + i) for i in range(2)]
    deadline = time.monotonic() + 50
    for each in (*clients, *others):
        each.join(max(0.1, deadline - time.monotonic()))
    assert not any(each.is_alive() for each in (*clients, *others))
    assert [each.wrong for each in (*clients, *others)] == [[]] * 6
    assert sum(each.whole for each in clients) > REQUESTS
    gauges = running.memory.gauges(0)
    assert running.memory.totals([0])["http2_streams"] > 2 * REQUESTS
    assert gauges["http2_connections"] <= 4
