"""HTTP/2 sessions: bytes from a client to an engine in this process, and what its origin is made to say.

Two bytes say how (`Way`), the others are what the client sends behind its preface. What comes out is checked by
tests/unit/http2_stage.py.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Iterator
from dataclasses import dataclass

import h11
import hpack

from tests.conformance.http2_peer import (
    ACK,
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    HEADERS,
    PADDED,
    PREFACE,
    PRIORITIZED,
    PUSH_PROMISE,
    SETTINGS,
    continuation,
    data,
    frame,
    goaway,
    headers,
    ping,
    priority,
    priority_fields,
    rst_stream,
    settings,
    window_update,
)
from tests.unit.http2_stage import TORN, Answer, Peer, Stage

PRIORITY_UPDATE = 16
RUNS_A_STAGE = 4000

LONG_FIELDS = b"".join(b"X-%d: %0150d\r\n" % (n, n) for n in range(100))
ANSWERS = (
    Answer(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-Id: a \t\r\n\r\nok"),
    Answer(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2;a\r\nde\r\n0\r\nX: y\r\n\r\n"),
    Answer(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nuntil it ends", close=True),
    Answer(b"HTTP/1.1 204 No Content\r\n\r\n"),
    Answer(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 404 No\r\nContent-Length: 1\r\n\r\n!"),
    Answer(b"HTTP/1.1 200 OK\r\nContent-Length: 150000\r\n\r\n" + bytes(150000)),
    Answer(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n" + TORN, close=True),
    Answer(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\n" + TORN + b"\r\n", close=True),
    Answer(b"no HTTP\r\n\r\n"),
    Answer(b"", close=True),
    Answer(b"HTTP/1.1 101 Switching\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n\x81\x02hi", switches=True),
    Answer(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", close=True, early=True),
    Answer(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nyes", early=True),
    Answer(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n" + LONG_FIELDS + b"\r\n"),
    Answer(b""),
    Answer(b"HTTP/1.1 304 Not Modified\r\nETag: \"a\"\r\nContent-Length: 9\r\n\r\n"),
)  # fmt: skip


@dataclass(frozen=True)
class Way:
    """How the bytes are sent, and what is answered."""

    script: int  # which answer is the first
    stays: bool  # and whether it is that for every request
    pieces: int  # how the bytes are cut: 0 not at all, 1 to 3 evenly, beyond: at random from this seed
    deaf: bool  # the client reads nothing until the end
    half: bool  # and says that it has said all

    @classmethod
    def of(cls, how: bytes) -> Way:
        return cls(how[0] & 15, bool(how[0] & 16), how[1] & 31, bool(how[0] & 32), bool(how[0] & 64))

    def packed(self) -> bytes:
        return bytes((self.script | self.stays << 4 | self.deaf << 5 | self.half << 6, self.pieces))

    def cut(self, whole: bytes) -> Iterator[bytes]:
        rng = random.Random(self.pieces)
        at = 0
        while at < len(whole):
            sizes = (len(whole), 1 if len(whole) < 200 else 7, 9, 40)
            n = sizes[self.pieces] if self.pieces < 4 else rng.choice((1, 5, 9, 13, 60, 400, 3000))
            yield whole[at : at + n]
            at += n


class Host:
    """One stage for many inputs; made anew now and then."""

    def __init__(self) -> None:
        self.stage: Stage | None = None
        self.runs = 0

    def fresh(self) -> Stage:
        if self.stage is None or self.runs >= RUNS_A_STAGE:
            if self.stage is not None:
                self.stage.close()
            self.stage, self.runs = Stage(area="[area.limits]\norigin_connections_max = 3\nheaders_max = 100\n"), 0
        self.runs += 1
        if self.runs % 16 == 0:
            self.stage.lines()
        return self.stage


HOST = Host()


def session(given: bytes) -> None:
    """Frames as RFC 9113 has them towards the client, whole requests towards the origin, and nothing left behind."""
    way = Way.of(given[:2].ljust(2, b"\0"))
    stage = HOST.fresh()
    asked = 0

    def answer(request: h11.Request) -> Answer:
        nonlocal asked
        asked += 1
        return ANSWERS[way.script if way.stays else (way.script + asked - 1) % len(ANSWERS)]

    stage.answer = answer
    peer = Peer(stage)
    try:
        for piece in way.cut(PREFACE + given[2:]):
            if not peer.send(piece):
                break
            stage.passes(1)
            if not way.deaf:
                peer.read()
        if way.half:
            peer.sock.shutdown(1)
        peer.settle()
    finally:
        peer.close()
        try:
            stage.whole()
        except AssertionError:
            HOST.stage = None
            raise


def bytes_of_frames(whole: bytes) -> Iterator[tuple[int, int, int]]:
    """Kind, flags and stream of each frame."""
    at = 0
    while len(whole) - at >= 9:
        yield whole[at + 3], whole[at + 4], int.from_bytes(whole[at + 5 : at + 9])
        at += 9 + int.from_bytes(whole[at : at + 3])


def fields(method: str = "GET", path: str = "/", *more: tuple[str, str]) -> list[tuple[str, str]]:
    return [(":method", method), (":scheme", "http"), (":authority", "a.example"), (":path", path), *more]


def sequences() -> Iterator[bytes]:
    """What clients say behind their preface, in order and out of it."""
    encoder = hpack.Encoder()

    def block(*arguments: object) -> bytes:
        return bytes(encoder.encode(fields(*arguments)))  # type: ignore[arg-type]

    begin = settings() + frame(SETTINGS, 0, flags=ACK)
    post = headers(1, block("POST", "/p", ("content-length", "4")), end_stream=False)
    yield begin + headers(1, block())
    yield begin + b"".join(
        headers(n, block("GET", f"/{n}", ("cookie", "a=b"), ("cookie", "c=d"))) for n in range(1, 40, 2)
    )
    yield begin + post + data(1, b"body")
    yield begin + headers(1, block("POST", "/c"), end_stream=False) + data(1, b"abc", end_stream=False) + data(1, b"")
    yield (
        begin
        + headers(1, block("POST"), end_stream=False)
        + data(1, bytes(16000), end_stream=False) * 3
        + data(1, b"x")
    )
    trailers = bytes(encoder.encode([("x-sum", "1")]))
    yield begin + headers(1, block("POST"), end_stream=False) + data(1, b"abc", end_stream=False) + headers(1, trailers)
    yield begin + frame(DATA, 1, b"\x03abc" + bytes(3), PADDED)
    connect = fields("CONNECT", "/ws", (":protocol", "websocket"), ("sec-websocket-version", "13"))
    connect.sort(key=lambda one: one[0][:1] != ":")
    tunnel = headers(1, bytes(hpack.Encoder().encode(connect)), end_stream=False)
    yield begin + tunnel + data(1, b"\x81\x85abcdhello", end_stream=False) + data(1, b"\x88\x80abcd")
    yield begin + tunnel + data(1, b"\x81\x85abcdhello", end_stream=False) + rst_stream(1)
    yield begin + headers(1, block()) + rst_stream(1) + headers(3, block())
    yield begin + post + rst_stream(1) + data(1, b"late")
    yield begin + b"".join(headers(n, block()) + rst_stream(n) for n in range(1, 60, 2))
    whole = block("GET", "/long", ("x-a", "b" * 300))
    yield (
        begin
        + headers(1, whole[:5], end_headers=False)
        + continuation(1, whole[5:9], end_headers=False)
        + continuation(1, whole[9:])
    )
    yield (
        settings((4, 0))
        + headers(1, bytes(hpack.Encoder().encode(fields())))
        + window_update(1, 1)
        + settings((4, 100))
    )
    yield settings((4, 1)) + b"".join(headers(n, bytes(hpack.Encoder().encode(fields()))) for n in range(1, 30, 2))
    yield settings((1, 0), (1, 4096), (2, 0), (3, 100), (5, 1 << 20), (6, 1 << 16), (0x1A2A, 7)) + window_update(
        0, 1 << 20
    )
    yield (
        begin
        + b"".join(priority(n, 0, 16) for n in (3, 5, 7))
        + frame(PRIORITY_UPDATE, 0, struct.pack(">I", 1) + b"u=1, i")
    )
    yield begin + headers(1, priority_fields(0, 10) + block(), end_headers=True)
    yield begin + frame(
        HEADERS,
        1,
        b"\x02" + priority_fields(3, 5) + block() + bytes(2),
        PADDED | PRIORITIZED | END_HEADERS | END_STREAM,
    )
    yield begin + ping(b"12345678") * 3 + ping(b"12345678") * 60
    yield begin + settings() * 12
    yield begin + headers(1, block()) + goaway(0) + headers(3, block())
    yield begin + frame(PUSH_PROMISE, 1, bytes(4))
    yield begin + frame(0x16, 0, b"what")
    yield begin + frame(CONTINUATION, 1, b"\x82", END_HEADERS)
    yield begin + headers(1, block("GET", "/", ("Upper", "x")))
    yield (
        begin
        + headers(1, block("GET", "/", ("connection", "close")))
        + headers(3, block("GET", "/", ("te", "trailers")))
    )
    yield begin + headers(2, block()) + headers(1, block())
    yield begin + headers(5, block()) + headers(3, block()) + data(3, b"x")
    yield begin + data(1, b"") * 60
    yield b""
    yield from compressions()


def compressions() -> Iterator[bytes]:
    """HPACK at its limits (RFC 7541): sizes, integers, Huffman, tables, lists that grow when they are read."""
    begin = settings() + frame(SETTINGS, 0, flags=ACK)
    request = b"\x82\x86\x84\x41\x01a"
    yield begin + headers(1, b"\x20" + request) + headers(3, b"\x3f\xe1\x1f" + request)
    yield begin + headers(1, b"\x3f\xe2\x1f" + request)
    yield begin + headers(1, request + b"\x20")
    yield begin + headers(1, b"\xff\xff\xff\xff\xff\x0f")
    yield begin + headers(1, request + b"\x7f\x80\x80\x80\x80\x80\x00")
    yield begin + headers(1, b"\x82\x86\x84\x41\x8c\xf1\xe3\xc2\xe5\xf2\x3a\x6b\xa0\xab\x90\xf4\xff")
    yield begin + headers(1, request + b"\x00\x81\xff\x81\xff")
    yield begin + headers(1, request + b"\x00\x84\xff\xff\xff\xff\x00")
    churn = b"".join(b"\x40\x03x-%c\x10" % (97 + n % 26) + bytes([65 + n % 26]) * 16 for n in range(150))
    yield begin + headers(1, request + churn) + headers(3, request + b"\xbe\xbf\xc0")
    bomb = b"\x40\x01a\x7f\xc1\x1e" + b"b" * 4000
    yield begin + headers(1, request + bomb + b"\xbe" * 10)
    yield begin + headers(1, request + bomb + b"\xbe" * 40)
    yield begin + b"".join(headers(n, request + bomb + b"\xbe" * 10) for n in range(1, 16, 2))
    yield begin + headers(1, request + b"\xbe")
    yield begin + headers(1, b"\x80")
    yield begin + headers(1, request + b"\x10\x03x-a\x01b\x0f\x0d\x011")


def seeds() -> Iterator[bytes]:
    for number, each in enumerate(sequences()):
        for turn in range(2):
            way = Way((number * 3 + turn) % 16, turn == 1, (number + 2 * turn) % 8, False, number % 5 == 4)
            yield way.packed() + each[: BYTES_MAX - 2]
    for script in range(len(ANSWERS)):
        yield Way(script, True, 0, script % 4 == 3, False).packed() + next(sequences())


BYTES_MAX = 8192


def words() -> Iterator[bytes]:
    for kind in (*range(10), PRIORITY_UPDATE, 0x16):
        for stream in (0, 1, 3):
            yield frame(kind, stream)
        yield frame(kind, 1, b"", END_STREAM | END_HEADERS)
    yield from (
        window_update(0, 1 << 16),
        window_update(1, 1),
        rst_stream(1),
        ping(bytes(8)),
        goaway(0),
        settings((4, 0)),
    )
    yield from (
        b"\x82\x86\x84\x41\x01a",
        b"\x83",
        b"\x85",
        b"\x20",
        b"\x3f\xe1\x1f",
        b"\xbe",
        b"\x40\x01a\x01b",
        b"\x0f\x0d\x011",
    )
    yield from (
        b"\x00\x0a:authority",
        b"\x00\x09:protocol\x09websocket",
        b"\x00\x07:method\x07CONNECT",
        b"\x60\x03a=b",
        b"\x00\x02te\x08trailers",
    )
