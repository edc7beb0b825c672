"""The engine hosted in the test's own process: real sockets, real shared memory, a compiled policy."""

from __future__ import annotations

import contextlib
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
from scrubber.mandate.compile import compile_policy
from scrubber.mandate.load import load_all
from scrubber.mandate.slots import assign_area_ids
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
    "cache": 1 << 22,
    "origins": 1,
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

    def close(self) -> None:
        with contextlib.suppress(OSError):  # closed before
            self.listener.shutdown(socket.SHUT_RDWR)  # wakes who waits in accept
        self.listener.close()
        self.join(5)

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

    def __init__(
        self, tmp_path: Path, origin_port: int, *, rules: str, area: str, workers: int, top: str, listener: str
    ) -> None:
        (tmp_path / "mandate.toml").write_text(MANDATE + rules)
        (tmp_path / "gateway.toml").write_text(
            f"""
mandates = ["mandate.toml"]
allow_unsigned = true
workers = {workers}
{top}
[[listener]]
address = "127.0.0.1:0"
{listener}
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
        for fd in fds.values():
            os.close(fd)
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self.listener.setblocking(False)
        self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 16384)  # so that a slow reader is felt
        self.port = self.listener.getsockname()[1]
        self.generation = 0
        self.engine = _native.Engine(
            self.memory,
            self.policy(),
            [(self.listener.fileno(), 0)],
            {"origins_max": 64, "buffers_max": 256},
        )
        self.lock = threading.Lock()
        self.start()

    def start(self) -> None:
        self.running = True
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
        # From an address like any other: 127.0.0.1 is ours and never blocked.
        return socket.create_connection(("127.0.0.1", self.port), timeout=5, source_address=("127.0.0.2", 0))

    def ask(self, data: bytes) -> bytes:
        """Everything that comes back until the gateway closes or 0.5 s of silence."""
        with self.connect() as s:
            s.sendall(data)
            s.settimeout(0.5)
            return read_all(s)

    def lines(self) -> list[bytes]:
        return [line for _, data, _ in self.memory.ring_read(0, 1 << 20) for line in data.splitlines()]

    def stop(self) -> None:
        self.running = False
        self.thread.join(5)

    def close(self) -> None:
        self.stop()
        self.listener.close()


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
    running.close()


@pytest.fixture
def bench(tmp_path: Path, origin: TinyOrigin) -> Iterator[Callable[..., Bench]]:
    made: list[Bench] = []

    def make(
        rules: str = "", area: str = "", workers: int = 1, top: str = "", port: int = 0, *, listener: str = ""
    ) -> Bench:
        settings = {"rules": rules, "area": area, "top": top, "listener": listener}
        made.append(Bench(tmp_path, port or origin.port, workers=workers, **settings))
        return made[-1]

    yield make
    for each in made:
        with each.lock:
            each.engine.drain(0.2)
        deadline = time.monotonic() + 3
        while not each.engine.drained and time.monotonic() < deadline:
            time.sleep(0.02)
        time.sleep(0.1)
        each.close()
        assert each.engine.left() == {}
        assert each.memory.gauges(0)["connections"] == 0
        assert each.memory.gauges(0)["requests"] == 0
