"""No load tool leaves loopback, and each run ends: the guard's word, and the real processes'."""
from __future__ import annotations

import ast
import asyncio
import contextlib
import ipaddress
import json
import random
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from bench.load.browsers import BROWSERS
from bench.load.guard import (
    REQUESTS_CEILING,
    SECONDS_CEILING,
    Bounds,
    LoadRefused,
    Meter,
    Route,
    loopback,
    raise_nofile,
)
from bench.load.shapes import SHAPES
from tests.e2e.support import environment

ROOT = Path(__file__).parents[2]
LOAD = sorted((ROOT / "bench" / "load").glob("*.py"))


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2", "127.255.255.254", "127.1.2.3", "::1"])
def test_loopback_is_allowed(host: str) -> None:
    assert loopback(host) == host


@pytest.mark.parametrize(
    "host",
    [str(ipaddress.IPv4Address(0)), "128.0.0.1", "126.255.255.255", "10.0.0.1", "192.168.1.1", "169.254.1.1", "8.8.8.8",
     "224.0.0.1", "255.255.255.255", "::", "::2", "fe80::1", "::ffff:127.0.0.1", "::ffff:8.8.8.8", "::1%lo",
     "2001:db8::1", "localhost", "example.org", "", "127.1", "2130706433", "127.0.0.1:80",
     "127.0.0.0/8", "127.0.0.01", " 127.0.0.1",
     "198.18.0.1", "198.19.255.254", "203.0.113.10", "192.0.2.1"],  # of the demo's networks: only there
)  # fmt: skip
def test_everything_else_is_refused(host: str) -> None:
    with pytest.raises(LoadRefused) as refused:
        loopback(host)
    assert "127.0.0.0/8" in refused.value.hint
    for source, target in ((host, "127.0.0.1"), ("127.0.0.1", host)):
        with pytest.raises(LoadRefused):
            Route(source, target, 80)


def test_a_route_has_one_family_and_a_port() -> None:
    with pytest.raises(LoadRefused, match="families"):
        Route("127.0.0.1", "::1", 80)
    for port in (0, -1, 65536):
        with pytest.raises(LoadRefused, match="port"):
            Route("127.0.0.2", "127.0.0.1", port)


def test_a_route_connects_from_its_source() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        sock = Route("127.45.6.7", "127.0.0.1", server.getsockname()[1]).open()
        accepted, peer = server.accept()
        assert peer[0] == "127.45.6.7" == sock.getsockname()[0]
        accepted.close()
        sock.close()


def test_a_refused_connect_leaves_no_socket_behind() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(20):
        with contextlib.suppress(ConnectionRefusedError):
            Route("127.0.0.3", "127.0.0.1", port).open().close()
    assert len(list(Path("/proc/self/fd").iterdir())) == before


@pytest.mark.parametrize(
    ("requests_max", "seconds_max"),
    [(0, 1), (-1, 1), (REQUESTS_CEILING + 1, 1), (1, 0), (1, -1), (1, SECONDS_CEILING + 0.1), (1, float("inf")),
     (1, float("nan"))],
)  # fmt: skip
def test_a_run_without_an_end_is_refused(requests_max: int, seconds_max: float) -> None:
    with pytest.raises(LoadRefused):
        Bounds(requests_max, seconds_max)


def test_the_meter_stops_at_either_bound() -> None:
    meter = Meter(Bounds(3, 10), start_ns=0)
    assert [meter.take() for _ in range(5)] == [True, True, True, False, False]
    assert meter.spent(0)
    meter = Meter(Bounds(3, 10), start_ns=0)
    assert not meter.spent(9_999_999_999)
    assert meter.spent(10_000_000_000)


def test_open_files_are_raised_to_the_hard_limit() -> None:
    assert raise_nofile() >= 256


def test_only_the_guard_makes_sockets() -> None:
    """No module of bench/load opens a connection but through Route, whatever it calls it."""
    makers = {"socket", "create_connection", "open_connection", "socketpair", "fromfd", "connect", "connect_ex",
              "create_server", "create_datagram_endpoint", "sock_connect", "sendto", "getaddrinfo"}  # fmt: skip
    assert len(LOAD) > 8
    for file in LOAD:
        tree = ast.parse(file.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = [alias.name for alias in node.names] + [getattr(node, "module", None) or ""]
                assert not {n.split(".")[0] for n in names} & {"aiohttp", "httpx", "requests", "urllib", "http"}, file
            if not isinstance(node, ast.Call) or file.name == "guard.py":
                continue
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if name == "create_connection":  # the loop's, over a socket that a Route has opened
                assert any(k.arg == "sock" and ast.unparse(k.value).endswith("route.open()") for k in node.keywords)
            else:
                assert name not in makers, f"{file.name}:{node.lineno} makes a socket of its own"


def spec_of_flood(target: str, port: int, source: str = "127.9.9.9", **more: Any) -> dict[str, Any]:
    attack = {
        "kind": "get", "how": "requests", "shape": "plain", "host": "portal.example", "target": target, "port": port,
        "sources": [source, "127.9.9.10"], "rate_per_s": 200, "connections_max": 4, "connect_s": 8.0, "start_s": 0,
        "stop_s": 30,
    }  # fmt: skip
    spec = {
        "t0_ns": time.monotonic_ns(), "seed": 1, "nice": 0, "requests_max": 40, "seconds_max": 20,
        "attacks": [attack],
    }  # fmt: skip
    return spec | more


def spec_of_people(target: str, port: int, source: str = "127.9.9.9") -> dict[str, Any]:
    site = {
        "target": target, "port": port, "host": "portal.example", "think_s": [0.1, 0.2], "seconds": 1,
        "pages": [{"path": "/", "assets": ["/a.png"]}], "shared": [], "searches": ["/"], "login": "/", "account": "/",
        "expect": {f"{method} {path}": [200, 2, "", ""] for method in ("GET", "POST") for path in ("/", "/a.png")},
    }  # fmt: skip
    people = [{"source": source, "browser": 0, "start_s": 0.0}]
    return {"t0_ns": time.monotonic_ns(), "seed": 1, "requests_max": 100, "seconds_max": 5, "site": site,
            "people": people}  # fmt: skip


@pytest.mark.parametrize(
    ("module", "spec"),
    [
        ("bench.load.flood", spec_of_flood("192.0.2.1", 80)),
        ("bench.load.flood", spec_of_flood("127.0.0.1", 80, source="192.0.2.7")),
        ("bench.load.flood", spec_of_flood("203.0.113.10", 80, source="198.18.0.7")),
        ("bench.load.flood", spec_of_flood("127.0.0.1", 80, seconds_max=1e9)),
        ("bench.load.people", spec_of_people("192.0.2.1", 80)),
        ("bench.load.people", spec_of_people("127.0.0.1", 80, source="192.0.2.7")),
    ],
)
def test_the_processes_refuse_to_leave_loopback(module: str, spec: dict[str, Any]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", module], input=json.dumps(spec) + "\n", cwd=ROOT, capture_output=True, text=True,
        timeout=30, check=False, env=environment(),
    )  # fmt: skip
    assert done.returncode != 0
    assert "LoadRefused" in done.stderr


class Server:
    """A server that answers 200, counts requests and whom they came from; `status` may be changed."""

    def __init__(self) -> None:
        self.requests = 0
        self.peers: set[str] = set()
        self.status = "200 OK"
        self.port = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.peers.add(writer.get_extra_info("peername")[0])
        try:
            while True:
                await reader.readuntil(b"\r\n\r\n")
                self.requests += 1
                writer.write(f"HTTP/1.1 {self.status}\r\nContent-Length: 2\r\n\r\nok".encode())
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    one = Server()
    listening = await asyncio.start_server(one.serve, "127.0.0.1", 0)
    one.port = listening.sockets[0].getsockname()[1]
    yield one
    listening.close()


async def run_load(module: str, spec: dict[str, Any], *, stop_after_s: float | None = None) -> list[dict[str, Any]]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", module, cwd=ROOT, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(json.dumps(spec).encode() + b"\n")
    await process.stdin.drain()
    if stop_after_s is not None:
        await asyncio.sleep(stop_after_s)
        process.stdin.close()
    out = await asyncio.wait_for(process.stdout.read(), 30)
    assert await process.wait() == 0
    return [json.loads(line) for line in out.splitlines()]


def rows(messages: list[dict[str, Any]]) -> dict[str, int]:
    """The latest value of every row, summed by column."""
    heard = [row for message in messages if message["type"] == "attack" for row in message["rows"]]
    latest = {(row[0], row[1]): row[2:] for row in heard}
    names = ("attempted", "sent", "served", "throttled", "denied", "other", "reset", "refused", "timeouts")
    return {name: sum(row[i] for row in latest.values()) for i, name in enumerate(names)}


async def test_a_flood_makes_no_request_beyond_its_bound(server: Server) -> None:
    counts = rows(await run_load("bench.load.flood", spec_of_flood("127.0.0.1", server.port)))
    assert counts["attempted"] == 40
    assert server.requests <= 40
    assert 0 < counts["served"] <= 40
    assert server.peers <= {"127.9.9.9", "127.9.9.10"}


async def test_a_flood_says_who_sent_how_much(server: Server) -> None:
    messages = await run_load("bench.load.flood", spec_of_flood("127.0.0.1", server.port))
    (senders,) = [message["rows"] for message in messages if message["type"] == "senders"]
    assert {address for _, address, _ in senders} == server.peers
    assert sum(sent for *_, sent in senders) == rows(messages)["sent"]


async def test_who_cannot_send_is_no_sender() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    messages = await run_load("bench.load.flood", spec_of_flood("127.0.0.1", port))
    assert [message["rows"] for message in messages if message["type"] == "senders"] == [[]]


async def test_who_meets_silence_tries_again_and_has_sent_all_the_same() -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full, contextlib.ExitStack() as waiting:
        for _ in range(4):
            client = waiting.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex(full.getsockname())
        spec = spec_of_flood("127.0.0.1", full.getsockname()[1])
        spec["attacks"][0]["connect_s"] = 0.05
        messages = await run_load("bench.load.flood", spec)
    counts = rows(messages)
    assert counts["timeouts"] > 8, "more than there are connections: each was given up in time"
    assert counts["sent"] == counts["served"] == 0
    (senders,) = [message["rows"] for message in messages if message["type"] == "senders"]
    assert sum(sent for *_, sent in senders) == counts["timeouts"]


@pytest.mark.parametrize(("status", "column"), [("429 No", "throttled"), ("403 No", "denied"), ("503 No", "other")])
async def test_a_flood_counts_what_it_was_told(server: Server, status: str, column: str) -> None:
    server.status = status
    counts = rows(await run_load("bench.load.flood", spec_of_flood("127.0.0.1", server.port)))
    assert counts[column] > 0
    assert counts["served"] == 0


async def test_a_flood_against_nobody_is_refused() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    counts = rows(await run_load("bench.load.flood", spec_of_flood("127.0.0.1", port)))
    assert counts["refused"] == 40
    assert counts["served"] == 0


async def test_load_stops_when_its_parent_is_gone(server: Server) -> None:
    spec = spec_of_flood("127.0.0.1", server.port, requests_max=100_000, seconds_max=60)
    before = time.monotonic()
    await run_load("bench.load.flood", spec, stop_after_s=1.0)
    assert time.monotonic() - before < 20


async def test_held_connections_are_counted_and_end(server: Server) -> None:
    common = {"host": "portal.example", "target": "127.0.0.1", "port": server.port, "start_s": 0, "stop_s": 2,
              "sources": ["127.9.9.9"], "shape": ""}  # fmt: skip
    hold = {"connections": 5, "reopen_s": 1.0, "spread_s": 0.2}
    spec = spec_of_flood("127.0.0.1", server.port, requests_max=500, seconds_max=2.5)
    spec["attacks"] = [
        common | hold | {"kind": "slowloris", "how": "hold", "drip_s": 0.2},
        common | hold | {"kind": "silent", "how": "hold", "drip_s": 0.0},
        common | {"kind": "churn", "how": "churn", "rate_per_s": 20, "keep_s": 0.05},
    ]
    spec["t0_ns"] = time.monotonic_ns()
    messages = await run_load("bench.load.flood", spec)
    latest = {(r[0], r[1]): r[2:] for m in messages if m["type"] == "attack" for r in m["rows"]}
    most_open = {kind: max(row[-1] for (name, _), row in latest.items() if name == kind) for kind, _ in latest}
    assert most_open["slowloris"] == 5
    assert most_open["silent"] == 5
    assert sum(row[0] for (kind, _), row in latest.items() if kind == "churn") > 10
    assert server.requests == 0, "a head that never ends must never end"


async def test_people_count_a_wrong_body_as_a_failure(server: Server) -> None:
    spec = spec_of_people("127.0.0.1", server.port)
    spec["t0_ns"] = time.monotonic_ns()
    messages = await run_load("bench.load.people", spec)
    words = {row[2] for message in messages if message["type"] == "people" for row in message["rows"]}
    assert words == {"body", "page"}
    assert server.peers == {"127.9.9.9"}


@pytest.mark.parametrize("shape", sorted(SHAPES))
def test_shapes_are_whole_requests(shape: str) -> None:
    rng = random.Random(7)
    make = SHAPES[shape]("portal.example", rng)
    for _ in range(50):
        head, separator, body = make().partition(b"\r\n\r\n")
        assert separator
        fields = [line.split(b": ", 1) for line in head.split(b"\r\n")[1:]]
        lengths = [int(value) for name, value in fields if name == b"Content-Length"]
        assert lengths == ([len(body)] if body else [])
        assert b"\r\nHost: portal.example\r\n" in head + b"\r\n"


def test_the_imitating_flood_sends_what_browsers_send() -> None:
    make = SHAPES["browser"]("portal.example", random.Random(1))
    real = {one.head("GET", "portal.example", "/", page=True) for one in BROWSERS}
    assert real <= {make() for _ in range(400)}
