"""Programs that people use: curl, aiohttp, httpx, requests, wrk; before nginx and aiohttp; on one and two workers."""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import aiohttp
import httpx
import pytest
import requests

from tests import wanted
from tests.e2e.proxy import Proxy
from tests.e2e.support import Origin, until

SIZES = (0, 1, 65535, 65537, 10 * 1024 * 1024)


class Nginx:
    """nginx as an origin: files of known sizes, an upload sink, keep-alive with a short life."""

    def __init__(self, directory: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]
        self.directory = directory
        root = directory / "www"
        root.mkdir()
        for size in SIZES:
            (root / str(size)).write_bytes(hashlib.sha256(str(size).encode()).digest() * (size // 32 + 1))
            os.truncate(root / str(size), size)
        config = directory / "nginx.conf"
        config.write_text(f"""
daemon off; master_process off; worker_processes 1; pid {directory}/pid; error_log {directory}/error.log;
events {{ worker_connections 512; }}
http {{
  access_log off; default_type application/octet-stream; client_max_body_size 64m;
  client_body_temp_path {directory}/body; proxy_temp_path {directory}/p; fastcgi_temp_path {directory}/f;
  uwsgi_temp_path {directory}/u; scgi_temp_path {directory}/s;
  keepalive_requests 50; etag on; gzip on; gzip_min_length 100; gzip_types application/octet-stream;
  server {{
    listen 127.0.0.1:{self.port}; root {root};
    location = /moved {{ return 301 /1; }}
    location = /gone {{ return 410; }}
    location /teapot {{ return 418 "short"; }}
  }}
}}
""")
        words = [wanted.program("nginx"), "-c", str(config), "-p", str(directory), "-e", str(directory / "start.log")]
        self.process = subprocess.Popen(words)
        until(self.listens, 10, "nginx listens")

    def listens(self) -> bool:
        assert self.process.poll() is None, (self.directory / "start.log").read_text()
        try:
            return requests.get(f"http://127.0.0.1:{self.port}/1", timeout=5).status_code == 200
        except requests.ConnectionError:
            return False

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(10)


@pytest.fixture(scope="module")
def nginx(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nginx]:
    running = Nginx(tmp_path_factory.mktemp("nginx"))
    yield running
    running.stop()


@pytest.fixture(scope="module", params=[1, 2], ids=["one-worker", "two-workers"])
def before_nginx(nginx: Nginx, proxy: type[Proxy], request: pytest.FixtureRequest) -> Iterator[Proxy]:
    with proxy(origins=[f"127.0.0.1:{nginx.port}"], workers=request.param) as found:
        yield found


@pytest.fixture(scope="module", params=[1, 2], ids=["one-worker", "two-workers"])
def before_aiohttp(proxy: type[Proxy], origin: Origin, request: pytest.FixtureRequest) -> Iterator[Proxy]:
    with proxy(origins=[f"127.0.0.1:{origin.port}"], workers=request.param) as found:
        yield found


def expected(size: int) -> str:
    data = (hashlib.sha256(str(size).encode()).digest() * (size // 32 + 1))[:size]
    return hashlib.sha256(data).hexdigest()


def curl(*args: str, data: bytes | None = None) -> subprocess.CompletedProcess[bytes]:
    words = [wanted.program("curl"), "-sS", "--max-time", "30", *args]
    return subprocess.run(words, input=data, capture_output=True, check=False)


def test_curl_fetches_files_whole(before_nginx: Proxy) -> None:
    for size in SIZES:
        done = curl(f"http://127.0.0.1:{before_nginx.port}/{size}")
        assert done.returncode == 0, done.stderr
        assert hashlib.sha256(done.stdout).hexdigest() == expected(size)


def test_curl_reuses_its_connection(before_nginx: Proxy) -> None:
    url = f"http://127.0.0.1:{before_nginx.port}/1"
    done = curl("-v", url, url, url)
    assert done.returncode == 0
    assert done.stderr.count(b"Re-using existing connection") == 2


def test_curl_ranges_conditions_compression_redirects(before_nginx: Proxy) -> None:
    base = f"http://127.0.0.1:{before_nginx.port}"
    assert curl("-r", "10-19", f"{base}/65537").stdout == (hashlib.sha256(b"65537").digest() * 2)[10:20]
    etag = re.search(rb'(?i)etag: (".*?")', curl("-I", f"{base}/1").stdout)
    assert etag is not None
    assert b" 304 " in curl("-i", "-H", f"If-None-Match: {etag[1].decode()}", f"{base}/1").stdout
    assert hashlib.sha256(curl("--compressed", f"{base}/65537").stdout).hexdigest() == expected(65537)
    assert curl("-L", "-o", "/dev/null", "-w", "%{http_code} %{num_redirects}", f"{base}/moved").stdout == b"200 1"
    assert curl("-o", "/dev/null", "-w", "%{http_code}", f"{base}/gone").stdout == b"410"


def test_curl_http_1_0(before_nginx: Proxy) -> None:
    done = curl("-0", f"http://127.0.0.1:{before_nginx.port}/65537")
    assert hashlib.sha256(done.stdout).hexdigest() == expected(65537)


@pytest.mark.parametrize(
    "how",
    [["-H", "Expect: 100-continue"], ["-H", "Transfer-Encoding: chunked"], []],
    ids=["expect", "chunked", "plain"],
)
def test_curl_uploads(before_aiohttp: Proxy, how: list[str]) -> None:
    data = os.urandom(3_000_000)
    done = curl(*how, "--data-binary", "@-", f"http://127.0.0.1:{before_aiohttp.port}/sink", data=data)
    assert done.returncode == 0, done.stderr
    assert hashlib.sha256(data).hexdigest().encode() in done.stdout


async def test_aiohttp_many_at_once(before_aiohttp: Proxy) -> None:
    base = f"http://127.0.0.1:{before_aiohttp.port}"

    async def one(session: aiohttp.ClientSession, i: int) -> None:
        size = (i * 7919) % 40_000
        async with session.get(f"{base}/{'bytes' if i % 2 else 'chunked'}/{size}") as response:
            body = await response.read()
            assert (response.status, len(body)) == (200, size)

    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=40), timeout=aiohttp.ClientTimeout(30)
    ) as session:
        await asyncio.gather(*(one(session, i) for i in range(300)))


async def test_aiohttp_streams_up(before_aiohttp: Proxy) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for i in range(50):
            yield bytes([i]) * 10_000

    async with (
        aiohttp.ClientSession() as session,
        session.post(f"http://127.0.0.1:{before_aiohttp.port}/sink", data=pieces()) as response,
    ):
        found = await response.json()
    digest = hashlib.sha256(b"".join(bytes([i]) * 10_000 for i in range(50))).hexdigest()
    assert found == {"body_bytes": 500_000, "body_sha256": digest}


def test_httpx_keep_alive_and_streams(before_aiohttp: Proxy) -> None:
    with httpx.Client(base_url=f"http://127.0.0.1:{before_aiohttp.port}", timeout=30) as client:
        for i in range(20):
            assert client.get(f"/echo/{i}").json()["target"] == f"/echo/{i}"
        with client.stream("GET", "/chunked/300000") as response:
            assert sum(len(piece) for piece in response.iter_bytes()) == 300_000
        found = client.post("/sink", content=(b"x" * 1000 for _ in range(100))).json()
        assert found["body_bytes"] == 100_000


def test_requests_forms_cookies_and_files(before_aiohttp: Proxy) -> None:
    base = f"http://127.0.0.1:{before_aiohttp.port}"
    with requests.Session() as session:
        session.cookies.set("a", "b")
        echo = session.post(f"{base}/form?x=%C3%A9", data={"k": "v" * 100}, timeout=30).json()
        assert (echo["method"], echo["target"], echo["body_bytes"]) == ("POST", "/form?x=%C3%A9", 102)
        assert ["Cookie", "a=b"] in [[name.title(), value] for name, value in echo["headers"]]
        upload = session.post(f"{base}/sink", files={"f": ("n", b"z" * 200_000)}, timeout=30).json()
        assert upload["body_bytes"] > 200_000
        assert session.head(f"{base}/bytes/500", timeout=30).headers["Content-Length"] == "500"


def test_wrk_bounded(before_nginx: Proxy) -> None:
    """A second of load on many connections: no error, and as many requests as the origin's own log would show."""
    url = f"http://127.0.0.1:{before_nginx.port}/1"
    done = subprocess.run(
        [wanted.program("wrk"), "-t1", "-c16", "-d1s", url],
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    assert "Non-2xx" not in done.stdout
    assert "Socket errors" not in done.stdout, done.stdout
    count = re.search(r"(\d+) requests in", done.stdout)
    assert count is not None
    assert int(count[1]) > 100


def test_event_stream_is_not_held_back(before_aiohttp: Proxy) -> None:
    """Each piece is passed on when it comes, not when the answer is complete."""
    with (
        httpx.Client(timeout=30) as client,
        client.stream("GET", f"http://127.0.0.1:{before_aiohttp.port}/drip/5/0.2") as response,
    ):
        began, arrivals = time.monotonic(), []
        for _ in response.iter_raw():
            arrivals.append(time.monotonic() - began)
    assert len(arrivals) >= 4
    assert arrivals[-1] - arrivals[0] > 0.5
