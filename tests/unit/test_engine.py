"""The engine in this process: real sockets, real shared memory, a compiled policy. After every test all pools must be whole."""

from __future__ import annotations

import contextlib
import json
import os
import select
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from scrubber import _native
from scrubber.mandate.compile import assign_area_ids, compile_policy
from scrubber.mandate.load import load_all
from scrubber.server.memfd import sealed

CAPACITIES = {
    "control": 1,
    "limiter": 4096,
    "ladder": 1024,
    "known": 1024,
    "blocks": 1024,
    "totals": 1,
    "gauges": 1024,
    "rings": 1 << 20,
}

MANDATE = """
[mandate]
id = "test"
serial = 1
authority = "test"
basis = "test"
not_before = 2026-01-01T00:00:00Z
expires = 2099-01-01T00:00:00Z
on_expiry = "limits"
areas = ["site"]
powers = ["observe", "throttle", "tarpit", "deny", "drop", "block"]

[proportion]
block_ttl_max = "1h"
blocks_max = 100
clients_share_max = "50%"
"""


class TinyOrigin(threading.Thread):
    """Answers each request by what its path says: /NNN bytes of body; counts what it saw."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.requests: list[bytes] = []
        self.respond: Callable[[bytes], bytes | None] = lambda head: b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
        self.start()

    def run(self) -> None:
        while True:
            try:
                conn, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self.serve, args=(conn,), daemon=True).start()

    def serve(self, conn: socket.socket) -> None:
        data = b""
        with conn, contextlib.suppress(OSError):
            while True:
                while b"\r\n\r\n" not in data:
                    more = conn.recv(65536)
                    if not more:
                        return
                    data += more
                head, data = data.split(b"\r\n\r\n", 1)
                self.requests.append(head)
                for line in head.split(b"\r\n"):
                    if line.lower().startswith(b"content-length:"):
                        need = int(line.split(b":")[1])
                        while len(data) < need:
                            more = conn.recv(65536)
                            if not more:
                                return
                            data += more
                        data = data[need:]
                answer = self.respond(head)
                if answer is None:
                    return
                conn.sendall(answer)


class Bench:
    """An engine, its memory and its listener, driven by a thread."""

    def __init__(self, tmp_path: Path, origin_port: int, rules: str, area: str, workers: int, top: str) -> None:
        (tmp_path / "mandate.toml").write_text(MANDATE + rules)
        (tmp_path / "gateway.toml").write_text(
            f"""
mandates = ["mandate.toml"]
allow_unsigned = true
workers = {workers}
{top}
[[listener]]
address = "127.0.0.1:0"
[[area]]
name = "site"
default = true
origins = ["127.0.0.1:{origin_port}"]
{area}
"""
        )
        loaded = load_all(tmp_path / "gateway.toml")
        assert loaded.gateway is not None, loaded.problems
        self.gateway, self.mandates = loaded.gateway, loaded.mandates
        self.area_ids = assign_area_ids(self.gateway, {})
        fds = {}
        for kind, capacity in CAPACITIES.items():
            fd = os.memfd_create(kind)
            _native.region_init(fd, kind, capacity, workers)
            fds[kind] = fd
        self.memory = _native.Memory(fds, 0)
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self.listener.setblocking(False)
        self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 16384)  # so that a slow reader is felt
        self.port = self.listener.getsockname()[1]
        self.generation = 0
        self.engine = _native.Engine(
            self.memory,
            self.policy(),
            [(self.listener.fileno(), 0)],
            {"origins_max": 64, "buffers_max": 256, "access_log": True},
        )
        self.running = True
        self.lock = threading.Lock()
        self.thread = threading.Thread(target=self.loop, daemon=True)
        self.thread.start()

    def policy(self) -> Any:
        self.generation += 1
        compiled = compile_policy(self.gateway, self.mandates, generation=self.generation, area_ids=self.area_ids)
        fd = sealed("policy", compiled.image)
        prefix_fds = [sealed("prefixes", image) for image in compiled.prefix_images]
        try:
            return _native.Policy(fd, prefix_fds)
        finally:
            for each in (fd, *prefix_fds):
                os.close(each)

    def loop(self) -> None:
        poll = select.poll()
        poll.register(self.engine.fileno(), select.POLLIN)
        more = False
        while self.running:
            if not more:
                poll.poll(50)
            with self.lock:
                more = self.engine.run_pass()

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=5)

    def ask(self, data: bytes) -> bytes:
        """Everything that comes back until the gateway closes or 0.5 s of silence."""
        with self.connect() as s:
            s.sendall(data)
            s.settimeout(0.5)
            return read_all(s)

    def lines(self) -> list[bytes]:
        return [payload for _, payload in self.memory.ring_read(0, 1 << 20)]

    def stop(self) -> None:
        self.running = False
        self.thread.join(5)


def read_all(s: socket.socket) -> bytes:
    out = b""
    with contextlib.suppress(TimeoutError, ConnectionResetError):
        while data := s.recv(65536):
            out += data
    return out


@pytest.fixture
def origin() -> Iterator[TinyOrigin]:
    running = TinyOrigin()
    yield running
    running.listener.close()


@pytest.fixture
def bench(tmp_path: Path, origin: TinyOrigin) -> Iterator[Callable[..., Bench]]:
    made: list[Bench] = []

    def make(rules: str = "", area: str = "", workers: int = 1, top: str = "", port: int = 0) -> Bench:
        made.append(Bench(tmp_path, port or origin.port, rules, area, workers, top))
        return made[-1]

    yield make
    for each in made:
        with each.lock:
            each.engine.drain(0.2)
        deadline = time.monotonic() + 3
        while not each.engine.drained and time.monotonic() < deadline:
            time.sleep(0.02)
        time.sleep(0.1)
        each.stop()
        taken = {name: used for name, (used, _) in each.engine.pools().items()}
        assert {name: taken[name] for name in ("clients", "exchanges", "buffers")} == {
            "clients": 0,
            "exchanges": 0,
            "buffers": 0,
        }
        assert each.memory.gauges(0)["connections"] == 0
        assert each.memory.gauges(0)["requests"] == 0


GET = b"GET /a?b=c HTTP/1.1\r\nHost: example.org\r\n\r\n"


def test_a_request_reaches_the_origin_and_its_answer_the_client(
    bench: Callable[..., Bench], origin: TinyOrigin
) -> None:
    answer = bench().ask(GET)
    head, body = answer.split(b"\r\n\r\n", 1)
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    assert body == b"ok"
    assert origin.requests[0].startswith(b"GET /a?b=c HTTP/1.1\r\nHost: example.org\r\n")
    assert b"X-Forwarded-For: 127.0.0.1\r\n" in origin.requests[0] + b"\r\n"


def test_pipelined_requests_are_answered_in_order(bench: Callable[..., Bench], origin: TinyOrigin) -> None:
    origin.respond = lambda head: b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n" + head.split(b" ")[1][1:3]
    answer = bench().ask(b"".join(b"GET /%02d HTTP/1.1\r\nHost: a\r\n\r\n" % i for i in range(40)))
    assert [part[:2] for part in answer.split(b"\r\n\r\n")[1:]] == [b"%02d" % i for i in range(40)]


def test_bad_bytes_are_refused_once_and_never_forwarded(bench: Callable[..., Bench], origin: TinyOrigin) -> None:
    answer = bench().ask(b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n" + GET)
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert answer.count(b"HTTP/1.1") == 1
    assert origin.requests == []


def test_a_chunked_answer_is_framed_anew(bench: Callable[..., Bench], origin: TinyOrigin) -> None:
    origin.respond = lambda head: b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n2\r\nde\r\n0\r\nT: v\r\n\r\n"
    answer = bench().ask(GET)
    assert answer.endswith(b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n")


def test_a_large_body_arrives_whole_through_a_slow_reader(bench: Callable[..., Bench], origin: TinyOrigin) -> None:
    body = os.urandom(1_000_000)
    origin.respond = lambda head: b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body
    running = bench()
    with running.connect() as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
        s.sendall(GET)
        got = bytearray()
        while len(got) < len(body):
            got += s.recv(65536)
            time.sleep(0.0005)
        s.settimeout(0.3)
        got += read_all(s)
    assert bytes(got).partition(b"\r\n\r\n")[2] == body


def test_a_dead_origin_is_a_502(bench: Callable[..., Bench]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    assert bench(port=port).ask(GET).startswith(b"HTTP/1.1 502 ")


def test_an_origin_that_breaks_off_breaks_the_answer_off(bench: Callable[..., Bench], origin: TinyOrigin) -> None:
    def half(head: bytes) -> bytes | None:
        if len(origin.requests) > 1:
            return None
        return b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf"

    origin.respond = half
    running = bench()
    with running.connect() as s:
        s.sendall(GET)
        s.settimeout(1)
        first = s.recv(65536)
        assert first.endswith(b"half")


def test_throttle_answers_429_and_the_connection_stays(bench: Callable[..., Bench], origin: TinyOrigin) -> None:
    running = bench(rules='[[rule]]\nname = "r"\nper = "client"\nlimit = "2/min burst 2"\nthen = ["throttle"]\n')
    answer = running.ask(GET * 5)
    assert answer.count(b"HTTP/1.1 200") == 2
    assert answer.count(b"HTTP/1.1 429") == 3
    assert b"Retry-After: " in answer
    assert len(origin.requests) == 2


def test_block_shuts_out_new_connections_with_a_reset(bench: Callable[..., Bench]) -> None:
    running = bench(rules='[[rule]]\nname = "r"\nper = "client"\nlimit = "1/min burst 1"\nthen = ["block 1m"]\n')
    running.ask(GET)
    running.ask(GET)
    with pytest.raises(ConnectionResetError), running.connect() as s:
        s.sendall(GET)
        s.recv(1)
    assert running.memory.totals([0])["dropped_blocked"] >= 1
    (block,) = running.memory.blocks()
    assert block["source"] == "127.0.0.1"


def test_a_swap_loses_nothing_and_frees_the_old_policy(bench: Callable[..., Bench]) -> None:
    running = bench()
    with running.connect() as s:
        for turn in range(20):
            s.sendall(GET)
            assert s.recv(65536).startswith(b"HTTP/1.1 200")
            with running.lock:
                running.engine.swap(running.policy())
            assert running.memory.gauges(0)["generation"] == turn + 2


def test_an_access_line_is_json_whatever_the_client_sent(bench: Callable[..., Bench]) -> None:
    running = bench()
    running.ask(b'GET /%00%22 HTTP/1.1\r\nHost: a\r\nUser-Agent: "\xff\\\tx\r\n\r\n')
    lines = [json.loads(line) for line in running.lines()]
    assert lines[-1]["user_agent.original"] == '"\xff\\\tx'
    assert lines[-1]["url.path"] == "/%00%22"
    assert lines[-1]["http.response.status_code"] == 200
