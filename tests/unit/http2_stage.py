"""An engine whose listener speaks HTTP/2 in clear text, and a scripted origin behind it; one thread drives both.

What comes out of it is checked as it comes: frames towards the client (`Answers`), HTTP/1.1 towards the origin (h11).
"""

from __future__ import annotations

import contextlib
import socket
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h11
import hpack

from scrubber import _native
from scrubber.mandate.load import load_all
from tests.conformance.http2_peer import (
    ACK,
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    PREFACE,
    PUSH_PROMISE,
    RST_STREAM,
    SETTINGS,
    frame,
    headers,
    settings,
)
from tests.unit.files import HEAD, MINIMAL_GATEWAY, NOW, write
from tests.unit.images import compiled, opened
from tests.unit.regions import make_memory

FRAME_BYTES_MAX = 16384
PASSES_MAX = 200
QUIET_PASSES = 3  # in a row: what one wrote is an edge in the next


@dataclass(frozen=True)
class Answer:
    """What the origin says to a request. early: to its head, before the body has come."""

    data: bytes
    close: bool = False
    early: bool = False
    switches: bool = False


OK = Answer(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
TORN = b"torn"  # of a body that breaks off: no stream that was given it may end in order


class OriginEnd:
    """One connection of the gateway's, read by h11: what it refuses is an error of ours."""

    def __init__(self, conn: socket.socket, answer: Callable[[h11.Request], Answer]) -> None:
        self.conn = conn
        self.answer = answer
        self.reader = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 18)
        self.out = b""
        self.given: Answer | None = None
        self.body = b""
        self.requests: list[tuple[h11.Request, bytes]] = []
        self.switched = False
        self.echo = True  # where it has switched
        self.seen = b""  # then
        self.over = False

    def step(self) -> bool:
        """True: something moved."""
        moved = False
        try:
            while data := self.conn.recv(1 << 18):
                moved = True
                if self.switched:
                    self.seen += data
                    self.out += data * self.echo
                else:
                    self.reader.receive_data(data)
                    self.read()
            self.over = True
        except BlockingIOError:
            pass
        except OSError:
            self.over = True
        return self.send() or moved

    def read(self) -> None:
        while True:
            event = self.reader.next_event()
            if isinstance(event, h11.Request):
                self.requests.append((event, b""))
                self.given = self.answer(event)
                if self.given.early:
                    self.out += self.given.data
            elif isinstance(event, h11.Data):
                request, body = self.requests[-1]
                self.requests[-1] = (request, body + bytes(event.data))
            elif isinstance(event, h11.EndOfMessage):
                if self.next():
                    return
            else:
                return

    def next(self) -> bool:
        """The request is whole. True: nothing more is read as HTTP."""
        assert self.given is not None
        if not self.given.early:
            self.out += self.given.data
        if self.given.switches and self.reader.their_state is h11.MIGHT_SWITCH_PROTOCOL:
            self.switched = True
            return True
        self.reader.send(h11.Response(status_code=200, headers=[("Content-Length", "0")]))
        self.reader.send(h11.EndOfMessage())
        if self.reader.our_state is not h11.DONE or self.reader.their_state is not h11.DONE:
            return True
        self.reader.start_next_cycle()
        return False

    def send(self) -> bool:
        try:
            while self.out:
                self.out = self.out[self.conn.send(self.out) :]
        except BlockingIOError:
            return False
        except OSError:
            self.over = True
        if self.given is not None and self.given.close and not self.out:
            self.over = True
        if self.over:
            self.conn.close()
        return self.over


@dataclass
class Told:
    """What one stream was told."""

    head: dict[bytes, bytes] | None = None
    interim: list[dict[bytes, bytes]] = field(default_factory=list)
    body: bytes = b""
    ended: bool = False
    code: int | None = None


class Answers:
    """Frames that the gateway sends, each looked at as it comes. AssertionError: it is not what RFC 9113 has."""

    def __init__(self) -> None:
        self.rest = b""
        self.kinds: list[int] = []
        self.streams: dict[int, Told] = {}
        self.decoder = hpack.Decoder(max_header_list_size=1 << 20)
        self.block: tuple[int, bytes, bool] | None = None
        self.goaway: tuple[int, int] | None = None
        self.pongs = 0

    def feed(self, data: bytes) -> None:
        data = self.rest + data
        at = 0
        while len(data) - at >= 9:
            length = int.from_bytes(data[at : at + 3])
            assert length <= FRAME_BYTES_MAX
            if len(data) - at < 9 + length:
                break
            self.take(data[at + 3], data[at + 4], int.from_bytes(data[at + 5 : at + 9]), data[at + 9 : at + 9 + length])
            at += 9 + length
        self.rest = data[at:]

    def take(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        assert kind <= CONTINUATION
        assert kind != PUSH_PROMISE
        assert self.kinds or (kind == SETTINGS and not flags & ACK), "SETTINGS come first"
        assert (kind == CONTINUATION) == (self.block is not None), "a field section is of one piece"
        self.kinds.append(kind)
        if kind in (SETTINGS, GOAWAY) or kind == 6:
            assert stream == 0
        if kind == GOAWAY:
            self.goaway = (int.from_bytes(payload[:4]), int.from_bytes(payload[4:8]))
        elif kind == 6:
            assert flags & ACK
            assert len(payload) == 8
            self.pongs += 1
        elif kind in (HEADERS, CONTINUATION):
            self.fields(kind, flags, stream, payload)
        elif kind == DATA:
            told = self.streams[stream]
            assert not flags & ~END_STREAM
            assert told.head is not None
            assert not told.ended and told.code is None
            told.body += payload
            if flags & END_STREAM:
                self.end(told)
        elif kind == RST_STREAM:
            assert stream & 1
            told = self.streams.setdefault(stream, Told())
            assert told.code is None
            told.code = int.from_bytes(payload)

    def fields(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if kind == HEADERS:
            assert stream & 1
            assert not flags & ~(END_STREAM | END_HEADERS)
            self.block = (stream, b"", bool(flags & END_STREAM))
        assert self.block is not None
        assert self.block[0] == stream
        self.block = (stream, self.block[1] + payload, self.block[2])
        if not flags & END_HEADERS:
            return
        _, block, ended = self.block
        self.block = None
        told = self.streams.setdefault(stream, Told())
        assert told.head is None and told.code is None
        found = [(bytes(name), bytes(value)) for name, value in self.decoder.decode(block, raw=True)]
        assert found[0][0] == b":status"
        assert found[0][1].isdigit() and len(found[0][1]) == 3
        for name, value in found[1:]:
            assert name == name.lower() and name[:1] != b":", name
            assert not value[:1].isspace() and not value[-1:].isspace(), (name, value)
            assert name not in (b"connection", b"transfer-encoding", b"keep-alive", b"upgrade", b"proxy-connection")
        if found[0][1][:1] == b"1":
            assert not ended
            told.interim.append(dict(found))
            return
        told.head = dict(found)
        if ended:
            self.end(told)

    @staticmethod
    def end(told: Told) -> None:
        told.ended = True
        assert TORN not in told.body, "a body that broke off was given as a whole one"
        length = (told.head or {}).get(b"content-length")
        # Without a byte: an answer to HEAD, or one that has none.
        if length is not None and told.body:
            assert len(told.body) == int(length)


class Peer:
    """A client of the stage: nothing is sent that was not asked for."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.setblocking(False)
        self.sock.connect(stage.path)
        self.answers = Answers()
        self.encoder = hpack.Encoder()
        self.over = False

    def send(self, data: bytes) -> bool:
        """False: the gateway takes no more."""
        for _ in range(PASSES_MAX):
            try:
                data = data[self.sock.send(data) :]
            except BlockingIOError:
                self.stage.passes(1)
            except OSError:
                return False
            if not data:
                return True
        return False

    def read(self) -> bool:
        """True: something came."""
        came = False
        try:
            while not self.over:
                data = self.sock.recv(1 << 18)
                if data:
                    self.answers.feed(data)
                    came = True
                else:
                    self.over = True
        except BlockingIOError:
            pass
        except OSError:
            self.over = True
        return came

    def settle(self, most: int = PASSES_MAX) -> None:
        """Until nothing moves any more."""
        quiet = 0
        for _ in range(most):
            more = self.stage.passes(1)
            quiet = 0 if self.read() or more else quiet + 1
            if quiet == QUIET_PASSES:
                return

    def start(self) -> None:
        """Both sides' SETTINGS."""
        self.send(PREFACE + settings())
        self.settle()
        self.send(frame(SETTINGS, 0, flags=ACK))

    def block(self, fields: Iterable[tuple[str, str]]) -> bytes:
        return bytes(self.encoder.encode(fields))

    def ask(self, stream: int, path: str = "/", *more: tuple[str, str], method: str = "GET", last: bool = True) -> None:
        fields = [(":method", method), (":scheme", "http"), (":path", path), (":authority", "a.example"), *more]
        self.send(headers(stream, self.block(fields), end_stream=last))

    def told(self, stream: int) -> Told:
        return self.answers.streams.get(stream, Told())

    def close(self) -> None:
        self.sock.close()


GATEWAY = MINIMAL_GATEWAY.replace('address = "127.0.0.1:0"', 'address = "127.0.0.1:0"\nhttp2 = true')


class Stage:
    """`answer` is asked for what the origin says; None: it refuses connections."""

    def __init__(
        self, area: str = "", top: str = "", rules: str = "", buffers: int = 512, cache: int = 1 << 20
    ) -> None:
        self.folder = tempfile.TemporaryDirectory(prefix="http2")
        folder = Path(self.folder.name)
        self.path = str(folder / "s")
        origin = str(folder / "o")
        gateway = top + GATEWAY.replace("127.0.0.1:8000", f"unix:{origin}") + area.replace("ORIGIN", f"unix:{origin}")
        loaded = load_all(write(folder, gateway, m=HEAD + rules), now=NOW)
        assert loaded.gateway is not None, loaded.problems
        self.policy = compiled(loaded)
        self.memory: _native.Memory = make_memory(cache=cache)[0]
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(self.path)
        self.origin = socket.socket(socket.AF_UNIX)
        self.origin.bind(origin)
        for each in (self.listener, self.origin):
            each.setblocking(False)
            each.listen(256)
        self.ends: list[OriginEnd] = []
        self.answer: Callable[[h11.Request], Answer] = lambda request: OK
        sizes = {"connections_max": 64, "origins_max": 64, "buffers_max": buffers}
        self.engine = _native.Engine(self.memory, opened(self.policy), [(self.listener.fileno(), 0)], sizes)

    def passes(self, count: int) -> bool:
        """True: there is work left."""
        more = False
        for _ in range(count):
            more = self.engine.run_pass()
            more = self.serve() or more
        return more

    def answered(self, request: h11.Request) -> Answer:
        return self.answer(request)

    def serve(self) -> bool:
        moved = False
        with contextlib.suppress(BlockingIOError):
            while True:
                conn, _ = self.origin.accept()
                conn.setblocking(False)
                self.ends.append(OriginEnd(conn, self.answered))
        for end in self.ends:
            if not end.over:
                moved = end.step() or moved
        return moved

    def requests(self) -> list[tuple[h11.Request, bytes]]:
        """Whole or not, with what came of the body."""
        return [each for end in self.ends for each in end.requests]

    def gauges(self) -> dict[str, Any]:
        return self.memory.gauges(0)

    def totals(self) -> dict[str, Any]:
        return self.memory.totals([0])

    def lines(self) -> list[bytes]:
        return [line for _, data, _ in self.memory.ring_read(0, 1 << 20) for line in data.splitlines()]

    def whole(self) -> None:
        """Every client is gone: nothing of theirs is left."""
        for end in self.ends:
            end.conn.close()
        self.ends.clear()
        for _ in range(PASSES_MAX):
            self.engine.run_pass()
            if self.engine.drained:
                break
        assert self.engine.drained
        assert self.engine.left() == {}
        gauges = self.gauges()
        for name in (
            "connections",
            "requests",
            "http2_connections",
            "http2_streams",
            "http2_bytes",
            "tunnels",
            "tarpit",
        ):
            assert gauges[name] == 0, (name, gauges[name])

    def close(self) -> None:
        del self.engine
        for each in (self.listener, self.origin):
            each.close()
        self.folder.cleanup()
