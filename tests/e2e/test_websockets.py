"""WebSockets through the tunnel with a real library on both ends, after the sections of Autobahn's suite.

What a client sees is what it sees without the gateway, frame for frame. Where Autobahn's own suite is at hand (`make
wstest`), it runs too.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import socket
import struct
import subprocess
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.frames import Frame, Opcode
from websockets.http11 import Request
from websockets.server import ServerProtocol
from websockets.sync.client import connect
from websockets.sync.server import Server, ServerConnection, serve
from websockets.typing import Origin, Subprotocol

from tests.e2e.proxy import Proxy
from tests.e2e.support import ROOT, SLOW

MIB = 1 << 20
TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10


def echo(connection: ServerConnection) -> None:
    try:
        for message in connection:
            connection.send(message)
    except ConnectionClosed:
        pass


def choose(_: ServerConnection, offered: Sequence[Subprotocol]) -> Subprotocol | None:
    return next((name for name in offered if name == "other"), None)


class Ends:
    """An echo server, straight and through a gateway."""

    def __init__(self, server: Server, proxy: Proxy) -> None:
        self.proxy = proxy
        self.ports = {"straight": int(server.socket.getsockname()[1]), "through": proxy.port}

    def url(self, way: str, path: str = "/") -> str:
        return f"ws://127.0.0.1:{self.ports[way]}{path}"


@pytest.fixture(scope="module")
def ends() -> Iterator[Ends]:
    with serve(echo, "127.0.0.1", 0, max_size=64 * MIB, ping_interval=None, select_subprotocol=choose) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        with Proxy(origins=[f"127.0.0.1:{server.socket.getsockname()[1]}"], workers=2) as proxy:
            yield Ends(server, proxy)
            proxy.whole()
            assert proxy.gauge("tunnels") == 0
        server.shutdown()
        thread.join()


# ── whole messages, by the library on both ends ──

SIZES = (0, 1, 125, 126, 127, 128, 65535, 65536, 65537, MIB, 4 * MIB + 1)


@pytest.mark.parametrize("compression", [None, "deflate"])
@pytest.mark.parametrize("size", SIZES)
def test_messages_of_any_size(ends: Ends, size: int, compression: str | None) -> None:
    """1.1, 1.2, 9.1, 9.2, 12: text and binary, plain and with permessage-deflate."""
    noise = random.Random(size).randbytes(size)
    text = ("grüße κόσμε 𝄞 " * (size // 20 + 1))[:size]
    with connect(ends.url("through"), max_size=64 * MIB, compression=compression, ping_interval=None) as socket_:
        extensions = socket_.response.headers.get("Sec-WebSocket-Extensions", "") if socket_.response else ""
        assert ("permessage-deflate" in extensions) == (compression is not None)
        for message in (noise, text, noise):
            socket_.send(message)
            assert socket_.recv(timeout=20 * SLOW) == message


def test_many_messages_without_waiting(ends: Ends) -> None:
    """9.7, 9.8: a thousand before the first is read."""
    with connect(ends.url("through"), ping_interval=None) as socket_:
        sent = [random.Random(i).randbytes(i) for i in range(1000)]
        sender = threading.Thread(target=lambda: [socket_.send(message) for message in sent], daemon=True)
        sender.start()
        assert [socket_.recv(timeout=20 * SLOW) for _ in sent] == sent
        sender.join()


def test_fragments_keep_their_bounds(ends: Ends) -> None:
    """5: the server answers whole; the fragments of a streamed message reach it as they are sent."""
    with connect(ends.url("through"), compression=None) as socket_:
        socket_.send(["one ", "two ", "", "three"])
        assert socket_.recv(timeout=10) == "one two three"
        socket_.send(iter([b"a" * 70_000, b"b" * 3]))
        assert socket_.recv(timeout=10) == b"a" * 70_000 + b"bbb"


def test_pings_are_answered_by_the_other_end(ends: Ends) -> None:
    """2: with any payload, many at once."""
    with connect(ends.url("through"), ping_interval=None) as socket_:
        waiting = [socket_.ping(bytes([i]) * i) for i in range(1, 126)]
        assert all(pong.wait(10 * SLOW) for pong in waiting)


@pytest.mark.parametrize("code", [1000, 1001, 1003, 1007, 1011, 3000, 4999])
def test_a_close_by_the_client_reaches_the_server(ends: Ends, code: int) -> None:
    """7: and its answer comes back, code and reason."""
    with connect(ends.url("through")) as socket_:
        socket_.close(code, "grüß")
        assert socket_.protocol.close_rcvd is not None
        assert (socket_.protocol.close_rcvd.code, socket_.protocol.close_rcvd.reason) == (code, "grüß")


def test_heads_of_the_handshake_pass(ends: Ends) -> None:
    seen = {}
    for way in ends.ports:
        with connect(
            ends.url(way), subprotocols=[Subprotocol("none"), Subprotocol("other")], origin=Origin("http://site.test")
        ) as socket_:
            assert socket_.response is not None
            names = ("Upgrade", "Sec-WebSocket-Extensions", "Sec-WebSocket-Protocol")
            seen[way] = [socket_.response.headers.get(name) for name in names]
            assert socket_.subprotocol == "other"
    assert seen["through"] == seen["straight"]


def test_a_handshake_that_the_server_refuses(ends: Ends) -> None:
    for way in ends.ports:
        with pytest.raises(InvalidStatus) as refused:
            connect(ends.url(way), additional_headers={"Sec-WebSocket-Version": "99"})
        assert refused.value.response.status_code in (400, 426)


# ── frames as bytes, before a server whose answers depend on nothing else: the same as without the gateway ──


class Strict:
    """Echoes messages by the library's protocol alone, one thread a connection, byte after byte: so what it answers to
    the same bytes is always the same, however they arrive."""

    def __init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self.listener.getsockname()[1])
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                sock, _ = self.listener.accept()
                threading.Thread(target=self.serve, args=(sock,), daemon=True).start()

    def serve(self, sock: socket.socket) -> None:
        protocol, message = ServerProtocol(), [Frame(Opcode.CONT, b"")]
        with sock, contextlib.suppress(OSError):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            while data := sock.recv(65536):
                for byte in data:
                    protocol.receive_data(bytes([byte]))
                    for event in protocol.events_received():
                        self.answer(protocol, event, message)
                    sock.sendall(b"".join(protocol.data_to_send()))
                    if protocol.close_expected():
                        sock.shutdown(socket.SHUT_WR)
                        while sock.recv(65536):
                            pass  # a close with bytes unread would be a reset
                        return

    def answer(self, protocol: ServerProtocol, event: object, message: list[Frame]) -> None:
        if isinstance(event, Request):
            protocol.send_response(protocol.accept(event))
        elif isinstance(event, Frame) and event.opcode in (Opcode.TEXT, Opcode.BINARY, Opcode.CONT):
            kind = message[0].opcode if event.opcode is Opcode.CONT else event.opcode
            message[0] = Frame(kind, (message[0].data if event.opcode is Opcode.CONT else b"") + event.data)
            if event.fin and kind is Opcode.BINARY:
                protocol.send_binary(message[0].data)
            elif event.fin:
                try:
                    message[0].data.decode()
                    protocol.send_text(message[0].data)
                except UnicodeDecodeError:
                    protocol.fail(1007, "no UTF-8")


@pytest.fixture(scope="module")
def strict() -> Iterator[dict[str, int]]:
    """Ports: straight and through a gateway."""
    server = Strict()
    with Proxy(origins=[f"127.0.0.1:{server.port}"]) as proxy:
        yield {"straight": server.port, "through": proxy.port}
        proxy.whole()
    server.listener.close()


def frame(
    opcode: int, payload: bytes = b"", *, fin: bool = True, rsv: int = 0, mask: bytes | None = b"\x37\xfa\x21\x3d"
) -> bytes:
    first = (0x80 if fin else 0) | rsv << 4 | opcode
    size = len(payload)
    head = struct.pack("!BB", first, size) if size < 126 else struct.pack("!BBH", first, 126, size)
    if size > 65535:
        head = struct.pack("!BBQ", first, 127, size)
    if mask is None:
        return head
    masked = bytes(b ^ mask[i % 4] for i, b in enumerate(payload))
    return head[:1] + bytes([head[1] | 0x80]) + head[2:] + mask + masked


BYE = frame(CLOSE, struct.pack("!H", 1000))


def closing(code: int, reason: bytes = b"") -> bytes:
    return frame(CLOSE, struct.pack("!H", code) + reason)


FRAMES = {
    "1 empty text": frame(TEXT) + BYE,
    "1 sixteen bits of length": frame(BINARY, b"\xfe" * 300) + BYE,
    "1 a length longer than it need be": b"\x82\xff" + struct.pack("!Q", 5) + b"\0\0\0\0hello" + BYE,
    "2 ping without payload": frame(PING) + BYE,
    "2 ping of 125": frame(PING, b"\xfe" * 125) + BYE,
    "2 ping of 126": frame(PING, b"\xfe" * 126) + BYE,
    "2 pong unasked": frame(PONG, b"what") + frame(PING, b"this") + BYE,
    "2 ten pings": b"".join(frame(PING, b"%d" % i) for i in range(10)) + BYE,
    **{f"3 reserved bits {rsv}": frame(TEXT, b"x", rsv=rsv) + BYE for rsv in range(1, 8)},
    **{f"4 reserved opcode {op}": frame(op, b"x") + BYE for op in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15)},
    "5 fragments": frame(TEXT, b"one ", fin=False) + frame(0, b"two") + BYE,
    "5 a ping between fragments": frame(TEXT, b"one ", fin=False) + frame(PING, b"!") + frame(0, b"two") + BYE,
    "5 a fragmented ping": frame(PING, b"a", fin=False) + frame(0, b"b") + BYE,
    "5 a continuation of nothing": frame(0, b"two") + BYE,
    "5 a text within a text": frame(TEXT, b"one ", fin=False) + frame(TEXT, b"two") + BYE,
    "6 UTF-8 in one piece": frame(TEXT, "κόσμε𝄞".encode()) + BYE,
    "6 a letter over two fragments": frame(TEXT, b"\xce", fin=False) + frame(0, b"\xba") + BYE,
    "6 no UTF-8": frame(TEXT, b"\xce\xba\xe1\xbd\xb9\xcf\x83\xed\xa0\x80") + BYE,
    "6 an unfinished letter": frame(TEXT, b"\xf0\x90\x80") + BYE,
    "6 beyond Unicode": frame(TEXT, b"\xf4\x90\x80\x80") + BYE,
    "7 close without a code": frame(CLOSE),
    "7 close of one byte": frame(CLOSE, b"\x03"),
    "7 close with a reason": closing(1000, b"enough"),
    "7 a reason of 123": closing(1000, b"*" * 123),
    "7 a reason of 124": closing(1000, b"*" * 124),
    "7 a reason that is no UTF-8": closing(1000, b"\xce\xba\xed\xa0\x80"),
    "7 a message behind the close": BYE + frame(TEXT, b"late"),
    "7 a ping behind the close": BYE + frame(PING, b"late"),
    **{
        f"7 code {code}": closing(code)
        for code in (1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999)
    },
    **{f"7 bad code {code}": closing(code) for code in (0, 999, 1004, 1005, 1006, 1016, 1100, 2000, 2999, 5000, 65535)},
    "8 without a mask": frame(TEXT, b"bare", mask=None) + BYE,
    "8 a mask of zeros": frame(TEXT, b"thin", mask=b"\0\0\0\0") + BYE,
}


def transcript(port: int, data: bytes, step: int) -> bytes:
    """All that comes back for these bytes, sent so many at a time, until the connection ends."""
    with socket.create_connection(("127.0.0.1", port), timeout=10 * SLOW) as wire:
        wire.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        wire.sendall(
            b"GET / HTTP/1.1\r\nHost: site.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        )
        found = b""
        while b"\r\n\r\n" not in found:
            found += wire.recv(65536)
        assert found.startswith(b"HTTP/1.1 101 "), found
        found = found.split(b"\r\n\r\n", 1)[1]
        try:
            for start in range(0, len(data), step):
                wire.sendall(data[start : start + step])
            while piece := wire.recv(65536):
                found += piece
        except ConnectionError:
            pass  # the server did not read what came behind its close
        return found


@pytest.mark.parametrize("step", [1, 1 << 20], ids=["byte by byte", "at once"])
@pytest.mark.parametrize("name", FRAMES)
def test_the_same_frames_come_back(strict: dict[str, int], name: str, step: int) -> None:
    seen = {way: transcript(port, FRAMES[name], step) for way, port in strict.items()}
    assert seen["through"] == seen["straight"]
    assert seen["straight"], "the server said something"


# ── Autobahn's own suite (Python 2): installed by `make wstest` into build/wstest ──

CASES = [
    "1.*",
    "2.*",
    "3.*",
    "4.*",
    "5.*",
    "6.1.*",
    "6.4.*",
    "6.20.*",
    "7.*",
    "9.1.1",
    "9.2.1",
    "9.3.1",
    "9.5.1",
    "10.*",
    "12.1.1",
    "12.2.1",
]


def python2() -> str | None:
    """A Python 2.7 that runs."""
    found = [shutil.which("python2.7"), *map(str, Path.home().glob(".pyenv/versions/2.7.*/bin/python"))]
    for each in found:
        if each and subprocess.run([each, "-c", "pass"], capture_output=True).returncode == 0:
            return each
    return None


@pytest.mark.timeout(300)
def test_autobahn_s_suite_sees_no_difference(ends: Ends, tmp_path: Path) -> None:
    program, packages = python2(), ROOT / "build" / "wstest"
    if program is None or not packages.is_dir():
        pytest.skip("Autobahn's suite needs Python 2.7 and `make wstest`")
    servers = [{"agent": way, "url": ends.url(way)} for way in ends.ports]
    spec = {
        "outdir": str(tmp_path / "out"),
        "servers": servers,
        "cases": CASES,
        "exclude-cases": [],
        "exclude-agent-cases": {},
    }
    (tmp_path / "spec.json").write_text(json.dumps(spec))
    script = f"import site; site.addsitedir({str(packages)!r}); from autobahntestsuite.wstest import run; run()"
    command = [program, "-c", script, "-m", "fuzzingclient", "-s", str(tmp_path / "spec.json")]
    env = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=280, cwd=tmp_path, env=env)
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads((tmp_path / "out" / "index.json").read_text())
    # NON-STRICT passes too: which of the two depends on when the server's threads run.
    words = {
        way: {n: (c["behavior"].replace("NON-STRICT", "OK"), c["behaviorClose"]) for n, c in found[way].items()}
        for way in ends.ports
    }
    assert len(words["through"]) > 100
    assert words["through"] == words["straight"]
    assert sum(behavior == "OK" for behavior, _ in words["through"].values()) > 100
