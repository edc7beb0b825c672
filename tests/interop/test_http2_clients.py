"""Programs that speak HTTP/2, through the gateway: over TLS as they choose it, in clear text by prior knowledge.

What HTTP/1.1 gives them straight from the origin, HTTP/2 has to give them as well (same.py).
"""

from __future__ import annotations

import asyncio
import collections
import hashlib
import itertools
import json
import re
import socket
import ssl
from pathlib import Path
from typing import Any

import aiohttp
import h2.config
import h2.connection
import h2.events
import httpx
import pytest

from tests import wanted
from tests.e2e.support import SLOW
from tests.interop import battery
from tests.interop.apps import shapes
from tests.interop.clients import HERE, STREAM_PIECE, Client, Curl, Httpx, run
from tests.interop.conftest import Program, Secure, settled
from tests.interop.same import check_all

BATTERY = [*battery.of_any_origin(), *battery.of_applications(), *battery.of_clients()]
LARGE_SHA = hashlib.sha256(shapes.LARGE).hexdigest()
AT_ONCE = 100
# An absolute Location names http, as the origin is asked: that port speaks TLS.
ELSEWHERE = {"follow-absolute"}
# curl expects 100 of its own accord, but not over HTTP/2.
UNASKED = ["--header", "Expect:"]
numbers = itertools.count()


def client_of(name: str, secure: Secure) -> tuple[Client, Client, int]:
    """The client as it is straight, as it is through the gateway, and the port for that."""
    if name.startswith("curl"):
        wanted.program("curl")
        if name == "curl-prior-knowledge":
            return Curl(before=UNASKED), Curl(before=["--http2-prior-knowledge"]), secure.clear
        version = ["--http2"] if name == "curl-http2" else ["--http1.1", *UNASKED]
        return Curl(before=UNASKED), Curl("https", ["--cacert", str(secure.authority), *version]), secure.port
    if name == "httpx-prior-knowledge":
        return Httpx(), Httpx(http1=False, http2=True), secure.clear
    return Httpx(), Httpx("https", http2=True, verify=secure.context()), secure.port


CLIENTS = ["curl-http2", "httpx-http2", "httpx-prior-knowledge"]


@pytest.mark.parametrize("name", [*CLIENTS, "curl-http1"])
def test_answers_are_the_same(name: str, secure: Secure, shaped: Program, tmp_path: Path) -> None:
    straight, through, port = client_of(name, secure)
    without = ELSEWHERE | ({"expect"} if name.startswith("curl") else set())
    calls = [call for call in straight.calls(BATTERY) if call.name not in without]
    before = secure.front.metric("scrubber_connections_accepted_total")
    logged = sum(line.get("url.path") == "/hints" for line in secure.front.running.log_lines())
    found = []
    for each, to in (straight, shaped.port), (through, port):
        (directory := tmp_path / str(to)).mkdir()
        found.append(each.run(calls, to, directory, None if to == shaped.port else "127.0.0.2"))
    check_all(found[0], found[1], calls, (shaped.port, port))
    opened = secure.front.metric("scrubber_connections_accepted_total") - before
    assert opened == 1, "connections are not reused"
    version = "1.1" if name == "curl-http1" else "2"
    assert secure.lines("/hints", logged + 1)[-1]["http.version"] == version
    settled(secure.front)


@pytest.mark.parametrize("name", [*CLIENTS, "curl-prior-knowledge"])
def test_streams_stream(name: str, secure: Secure, shaped: Program) -> None:
    """The second piece is sent only after the client had the first: whoever holds back waits for ever."""
    _, through, port = client_of(name, secure)
    key = f"h2-{next(numbers)}"
    found, opened = b"", False
    for piece in through.stream(port, f"/gate/{key}"):
        found += piece
        if found == b"first\n" and not opened:
            run(["curl", "--silent", f"http://127.0.0.1:{shaped.port}/open/{key}"])
            opened = True
    assert opened and found == b"first\nsecond\n"


def test_curl_many_at_once(secure: Secure, tmp_path: Path) -> None:
    """Downloads and uploads beside each other, over one connection."""
    wanted.program("curl")
    (tmp_path / "up").write_bytes(shapes.LARGE)
    base = f"https://127.0.0.1:{secure.port}"
    words = ["curl", "--parallel", "--parallel-max", "40"]
    for i in range(40):
        words += ["--next"] if i else []
        words += ["--http2", "--cacert", str(secure.authority), "--silent", "--show-error", "--fail"]
        words += ["--output", str(tmp_path / f"{i}"), "--write-out", "%{http_version} %{num_connects}\n"]
        words += ["--data-binary", f"@{tmp_path}/up", f"{base}/echo"] if i % 8 == 7 else []
        words += [f"{base}/large"] if i % 8 == 3 else [f"{base}/small?{i}"] if i % 8 != 7 else []
    said = run(words).stdout.decode().splitlines()
    assert [line.split()[0] for line in said] == ["2"] * 40
    assert sum(int(line.split()[1]) for line in said) == 1
    for i in range(40):
        got = (tmp_path / f"{i}").read_bytes()
        if i % 8 == 7:
            assert json.loads(got)["body_sha256"] == LARGE_SHA
        else:
            assert got == (shapes.LARGE if i % 8 == 3 else shapes.SMALL)
    settled(secure.front)


def test_curl_by_prior_knowledge(secure: Secure, tmp_path: Path) -> None:
    """A call each: curl 7.88 cannot use such a connection twice, with any server."""
    wanted.program("curl")
    (tmp_path / "up").write_bytes(shapes.LARGE)
    words = ["curl", "--http2-prior-knowledge", "--silent", "--show-error", "--fail"]
    base = f"http://127.0.0.1:{secure.clear}"
    assert run([*words, f"{base}/large"]).stdout == shapes.LARGE
    said = json.loads(run([*words, "--data-binary", f"@{tmp_path}/up", f"{base}/echo"]).stdout)
    assert said["body_sha256"] == LARGE_SHA
    # It may ask to be upgraded, too (RFC 7540 3.2, gone from RFC 9113): it is answered as if it had not.
    text = run(["curl", "--http2", "--silent", "--include", f"{base}/small"]).stdout.decode()
    assert text.startswith("HTTP/1.1 200"), text


def path_of(number: int) -> str:
    return "/large" if number % 25 == 24 else f"/echo?{number}"


def check_answer(number: int, status: int, body: bytes) -> None:
    assert status == 200
    if path_of(number) == "/large":
        assert hashlib.sha256(body).hexdigest() == LARGE_SHA
    else:
        assert json.loads(body)["target"] == path_of(number)


async def test_httpx_many_at_once(secure: Secure) -> None:
    limits = httpx.Limits(max_connections=1)
    async with httpx.AsyncClient(
        http2=True, verify=secure.context(), limits=limits, trust_env=False, timeout=30 * SLOW
    ) as client:
        base = f"https://127.0.0.1:{secure.port}"
        answers = await asyncio.gather(*(client.get(base + path_of(i)) for i in range(AT_ONCE)))
        for i, answer in enumerate(answers):
            assert answer.http_version == "HTTP/2"
            check_answer(i, answer.status_code, answer.content)


async def test_aiohttp_beside_them(secure: Secure) -> None:
    """It speaks HTTP/1.1 alone: at the same port."""
    connector = aiohttp.TCPConnector(limit=20, ssl=secure.context("http/1.1"))
    limit = aiohttp.ClientTimeout(total=30 * SLOW)
    async with aiohttp.ClientSession(connector=connector, timeout=limit) as session:

        async def one(number: int) -> None:
            async with session.get(f"https://127.0.0.1:{secure.port}{path_of(number)}") as answer:
                check_answer(number, answer.status, await answer.read())

        await asyncio.gather(*(one(i) for i in range(AT_ONCE)))
        async with session.post(f"https://127.0.0.1:{secure.port}/echo", data=shapes.LARGE) as answer:
            assert json.loads(await answer.read())["body_sha256"] == LARGE_SHA


@pytest.mark.parametrize("clear", [False, True], ids=["tls", "prior-knowledge"])
@pytest.mark.parametrize(
    ("count", "path", "how"),
    [
        (2000, "/small?h2load", ["-c8", "-m50"]),
        (2000, "/small?h2load", ["-c40", "-m1"]),
        (24, "/large", ["-c4", "-m6"]),
    ],
    ids=["streams", "connections", "bodies"],
)
def test_h2load(secure: Secure, count: int, path: str, how: list[str], clear: bool) -> None:
    wanted.program("h2load")
    base = f"http://127.0.0.1:{secure.clear}" if clear else f"https://127.0.0.1:{secure.port}"
    text = run(["h2load", f"-n{count}", "-t1", *how, base + path]).stdout.decode()
    assert f"Application protocol: {'h2c' if clear else 'h2'}" in text, text
    assert f"{count} done, {count} succeeded, 0 failed, 0 errored, 0 timeout" in text, text
    assert f"status codes: {count} 2xx, 0 3xx, 0 4xx, 0 5xx" in text, text
    if path == "/large":
        data = re.search(r"traffic: .*\((\d+)\) data", text)
        assert data and int(data[1]) == count * len(shapes.LARGE), text
    settled(secure.front)


def test_nghttp(secure: Secure) -> None:
    """What we announce, as it reads it; its dependency tree (RFC 7540), which nobody follows any more, does no harm."""
    wanted.program("nghttp")
    text = run(["nghttp", "-nv", "--no-verify-peer", f"https://127.0.0.1:{secure.port}/small"]).stdout.decode()
    announced, _, rest = re.sub(r"\x1b\[[0-9;]*m", "", text).partition("recv SETTINGS frame")[2].partition("[  0.")
    settings = {name: int(value) for name, value in re.findall(r"\[(SETTINGS_\w+|UNKNOWN)\(0x0.\):(\d+)\]", announced)}
    assert settings["SETTINGS_MAX_CONCURRENT_STREAMS"] == 100
    assert "SETTINGS_INITIAL_WINDOW_SIZE" in settings
    assert re.search(r"\(0x08\):1\]", announced), announced  # ENABLE_CONNECT_PROTOCOL
    assert re.search(r"\(0x09\):1\]", announced), announced  # NO_RFC7540_PRIORITIES
    assert "The negotiated protocol: h2" in text
    assert re.search(r"recv .*:status.*: 200", rest), text
    assert "END_STREAM" in rest.partition("recv DATA frame")[2], text


def test_node(secure: Secure) -> None:
    wanted.program("node")
    for url, authority in (
        (f"https://127.0.0.1:{secure.port}", str(secure.authority)),
        (f"http://127.0.0.1:{secure.clear}", ""),
    ):
        said = json.loads(run(["node", str(HERE / "http2.mjs"), url, authority, "60"]).stdout)
        assert collections.Counter((each["status"], each["bytes"], each["sha256"]) for each in said["answers"]) == {
            (200, len(shapes.SMALL), hashlib.sha256(shapes.SMALL).hexdigest()): 54,
            (200, len(shapes.LARGE), LARGE_SHA): 6,
        }
        assert said["upload"]["status"] == 200
        assert said["ping"]
        assert said["protocol"] == ("h2" if authority else "h2c")
        assert said["settings"]["enableConnectProtocol"] is True
        assert said["settings"]["maxConcurrentStreams"] == 100
    settled(secure.front)


# ── a client of our own, on the h2 package: what the others do not do ──


class Session:
    """One connection. Bodies are sent as the windows let them, all streams in turn."""

    def __init__(self, secure: Secure) -> None:
        raw = socket.create_connection(("127.0.0.1", secure.port), 30 * SLOW)
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock: ssl.SSLSocket = secure.context("h2").wrap_socket(raw, server_hostname="site.test")
        assert self.sock.selected_alpn_protocol() == "h2"
        self.host = f"site.test:{secure.port}"
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="utf-8"))
        self.h2.initiate_connection()
        self.bodies: dict[int, bytes] = {}  # still to be sent
        self.answers: dict[int, bytes] = {}
        self.status: dict[int, str] = {}
        self.ended: set[int] = set()
        self.resets: dict[int, int] = {}
        self.other: list[h2.events.Event] = []

    def ask(self, path: str, body: bytes = b"", method: str = "GET") -> int:
        stream = self.h2.get_next_available_stream_id()
        fields = [(":method", method), (":scheme", "https"), (":authority", self.host), (":path", path)]
        self.h2.send_headers(stream, fields, end_stream=not body)
        self.answers[stream] = b""
        if body:
            self.bodies[stream] = body
        return stream

    def pump(self) -> None:
        """What may be sent, then what comes."""
        for stream, body in list(self.bodies.items()):
            room = min(self.h2.local_flow_control_window(stream), self.h2.max_outbound_frame_size, STREAM_PIECE)
            if room > 0:
                self.h2.send_data(stream, body[:room], end_stream=len(body) <= room)
                self.bodies[stream] = body[room:]
                if not self.bodies[stream]:
                    del self.bodies[stream]
        self.sock.sendall(self.h2.data_to_send())
        may_go_on = any(self.h2.local_flow_control_window(stream) > 0 for stream in self.bodies)
        self.sock.settimeout(0.001 if may_go_on else 30 * SLOW)
        try:
            data = self.sock.recv(262144)
        except TimeoutError:
            assert may_go_on
            return
        assert data, "closed"
        for event in self.h2.receive_data(data):
            self.take(event)

    def take(self, event: Any) -> None:
        if isinstance(event, h2.events.ResponseReceived):
            self.status[event.stream_id] = dict(event.headers)[":status"]
        elif isinstance(event, h2.events.DataReceived):
            self.answers[event.stream_id] += event.data
            self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        elif isinstance(event, h2.events.StreamEnded):
            self.ended.add(event.stream_id)
        elif isinstance(event, h2.events.StreamReset):
            self.resets[event.stream_id] = event.error_code
        else:
            self.other.append(event)

    def until_ended(self, *streams: int) -> None:
        while not set(streams) <= self.ended | self.resets.keys():
            self.pump()

    def close(self) -> None:
        self.h2.close_connection()
        self.sock.sendall(self.h2.data_to_send())
        self.sock.close()


def test_bodies_of_many_streams_do_not_mix(secure: Secure) -> None:
    session = Session(secure)
    bodies = {n: bytes([n]) * (1000 + n * 3001) for n in range(100)}
    streams = {session.ask("/echo", body, "POST"): body for body in bodies.values()}
    session.until_ended(*streams)
    assert not session.resets
    for stream, body in streams.items():
        said = json.loads(session.answers[stream])
        assert (said["body_bytes"], said["body_sha256"]) == (len(body), hashlib.sha256(body).hexdigest())
    session.close()
    settled(secure.front)


def test_resets_leave_the_others_alone(secure: Secure) -> None:
    """Half of the requests, uploads and downloads, are given up on their way."""
    session = Session(secure)
    kept, left = [], []
    for n in range(40):
        stream = session.ask("/echo", shapes.LARGE[:200_000], "POST") if n % 2 else session.ask("/large")
        (kept if n % 4 < 2 else left).append(stream)
    for n in range(60):
        session.pump()
        if n % 3 == 0 and left:
            stream = left.pop()
            session.bodies.pop(stream, None)
            if stream not in session.ended:
                session.h2.reset_stream(stream, 8)
    session.until_ended(*kept)
    assert not session.resets
    assert {session.status[stream] for stream in kept} == {"200"}
    for stream in kept:
        assert len(session.answers[stream]) == len(shapes.LARGE) or b"200000" in session.answers[stream]
    session.h2.ping(b"are you?")
    again = session.ask("/small")
    session.until_ended(again)
    assert session.answers[again] == shapes.SMALL
    while not any(isinstance(event, h2.events.PingAckReceived) for event in session.other):
        session.pump()
    session.close()
    settled(secure.front)


def test_a_window_that_opens_slowly(secure: Secure) -> None:
    """A stream's window of 1000 bytes, opened a little at a time, holds up neither that answer nor another."""
    session = Session(secure)
    session.h2.update_settings({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: 1000})
    slow = session.ask("/large")
    fast = [session.ask("/small") for _ in range(5)]
    session.until_ended(*fast)
    assert all(session.answers[stream] == shapes.SMALL for stream in fast)
    session.until_ended(session.ask("/small"))
    session.h2.increment_flow_control_window(2**23, slow)
    session.h2.increment_flow_control_window(2**23)
    session.until_ended(slow)
    assert session.answers[slow] == shapes.LARGE
    session.close()
    settled(secure.front)


def test_http_is_sent_to_https(secure: Secure) -> None:
    wanted.program("curl")
    where = ["--resolve", f"moved.test:{secure.clear}:127.0.0.1", "--resolve", f"moved.test:{secure.port}:127.0.0.1"]
    words = ["curl", "--silent", "--show-error", "--location", "--cacert", str(secure.authority), *where]
    for version, first in ("--http1.1", "1.1"), ("--http2-prior-knowledge", "2"):
        said = run(
            [*words, version, "--dump-header", "-", f"http://moved.test:{secure.clear}/echo?a=b"]
        ).stdout.decode()
        assert said.startswith(f"HTTP/{first} 308"), said
        assert json.loads(said.rpartition("\n")[2])["target"] == "/echo?a=b"
