"""Habits of programs that a proxy can spoil: early refusals of uploads, offers to upgrade, long heads, compression."""

from __future__ import annotations

import http.client
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests import wanted
from tests.e2e.proxy import Proxy
from tests.e2e.recorder import Exchange, respond
from tests.e2e.support import SLOW
from tests.e2e.wire import Wire, fetch
from tests.interop.apps import shapes
from tests.interop.clients import run
from tests.interop.conftest import Program, settled
from tests.interop.origins import Nginx


@pytest.fixture
def nginx(tmp_path: Path) -> Iterator[Callable[[str], Program]]:
    """nginx with a line of configuration more."""
    running: list[Program] = []
    Nginx().needs()

    def start(line: str) -> Program:
        kind = Nginx(line)
        directory = tmp_path / f"nginx{len(running)}"
        directory.mkdir()
        running.append(kind.start(directory))
        return running[-1]

    yield start
    for each in running:
        each.stop()


def upload(port: int, path: str, size: int, **headers: str) -> tuple[int, bytes]:
    """POST by http.client, which sends the whole body before it looks for an answer."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20 * SLOW)
    try:
        connection.request("POST", path, b"u" * size, headers)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


@pytest.mark.parametrize("size", [100_000, 3_000_000])
def test_an_upload_that_nginx_refuses_early_gets_its_answer(nginx: Callable[[str], Program], size: int) -> None:
    """413 comes after the head, while the body is still on its way: the client must see it, not a broken connection."""
    origin = nginx("client_max_body_size 50k;")
    straight = upload(origin.port, "/small", size)
    assert straight[0] == 413
    with Proxy(workers=2, origins=[f"127.0.0.1:{origin.port}"]) as front:
        for _ in range(20):
            assert upload(front.port, "/small", size) == straight
        settled(front)


def test_curl_does_not_send_what_was_refused_before(nginx: Callable[[str], Program], tmp_path: Path) -> None:
    """Expect: 100-continue, and a refusal instead: nothing of the body is sent, straight or through the gateway."""
    wanted.program("curl")
    origin = nginx("client_max_body_size 50k;")
    body = tmp_path / "body"
    body.write_bytes(b"u" * 3_000_000)
    with Proxy(workers=2, origins=[f"127.0.0.1:{origin.port}"]) as front:
        for port in origin.port, front.port:
            words = ["curl", "--silent", "--output", "/dev/null", "--header", "Expect: 100-continue"]
            words += [
                "--expect100-timeout",
                "20",
                "--data-binary",
                f"@{body}",
                "--write-out",
                "%{http_code} %{size_upload}",
            ]
            done = run([*words, f"http://127.0.0.1:{port}/small"])
            assert done.stdout == b"413 0", (port, done.stdout)
        settled(front)


def test_an_offer_of_http2_is_left_alone(front: Proxy, shaped: Program) -> None:
    """curl --http2 asks for `Upgrade: h2c`, as Java's client does: who does not take it answers as without it."""
    wanted.program("curl")
    if b"HTTP2" not in run(["curl", "--version"]).stdout:
        pytest.skip("this curl knows no HTTP/2")
    words = ["curl", "--silent", "--fail", "--http2", "--write-out", "%{http_version} %{http_code} %{num_connects}\n"]
    for port in shaped.port, front.port:
        url = f"http://127.0.0.1:{port}"
        done = run([*words, "--output", "/dev/null", "--output", "/dev/null", f"{url}/small", f"{url}/gzip"])
        assert done.stdout == b"1.1 200 1\n1.1 200 0\n", (port, done.stdout)
    settled(front)


def test_limits_on_requests_do_not_bind_answers() -> None:
    """An operator who allows small heads and few fields speaks of clients: the origin's own answers pass."""
    limits = "line_bytes_max = 512\nhead_bytes_max = 1024\nheaders_max = 8"
    fields = "".join(f"X-Field-{i}: {'v' * 60}\r\n" for i in range(40))
    with Proxy(limits=limits) as front:
        front.origin.answers["/many"] = respond(b"many", headers=fields)
        front.origin.answers["/long"] = respond(b"long", headers=f"Content-Security-Policy: {'v' * 12_000}\r\n")
        assert fetch(front.port, "/many").body == b"many"
        answer = fetch(front.port, "/long")
        assert (answer.status, answer.body, len(answer.one("content-security-policy") or "")) == (200, b"long", 12_000)
        assert fetch(front.port, "/many", f"X-Long: {'v' * 600}\r\n").status == 431
        front.whole()


def test_nginx_compresses_for_a_proxy_only_where_it_is_told(nginx: Callable[[str], Program]) -> None:
    """A request with Via is a proxy's to nginx, whose default is to compress nothing for proxies (gzip_proxied off).

    Either nginx is told, or the area sends no Via.
    """
    asked = "Accept-Encoding: gzip\r\n"
    told, untold = nginx("gzip_proxied any;"), nginx("gzip_proxied off;")
    with Proxy(workers=2, origins=[f"127.0.0.1:{told.port}"]) as front:
        assert fetch(front.port, "/gzip", asked).one("content-encoding") == "gzip"
    with Proxy(workers=2, origins=[f"127.0.0.1:{untold.port}"]) as front:
        assert fetch(front.port, "/gzip", asked).body == shapes.SMALL * 500
    with Proxy(workers=2, origins=[f"127.0.0.1:{untold.port}"], area='via = ""') as front:
        assert fetch(front.port, "/gzip", asked).one("content-encoding") == "gzip"


def test_an_origin_that_answers_before_the_body_keeps_its_words(tmp_path: Path) -> None:
    """401 at once, the rest of the upload unread, and a close: what came before the close is the answer."""

    def refuse(exchange: Exchange) -> None:
        exchange.send(b"HTTP/1.1 401 Unauthorized\r\nConnection: close\r\nContent-Length: 9\r\n\r\nnot today")
        exchange.sock.shutdown(socket.SHUT_WR)
        exchange.sock.settimeout(5 * SLOW)
        while exchange.sock.recv(65536):  # lingers, as servers do
            pass
        exchange.close()

    with Proxy(workers=2) as front:
        front.origin.on_head["/upload"] = refuse
        for _ in range(10):
            assert upload(front.port, "/upload", 2_000_000) == (401, b"not today")
        with Wire(front.port) as wire:
            wire.send(b"POST /upload HTTP/1.1\r\nHost: site.test\r\nContent-Length: 100\r\n\r\n")
            assert wire.answer().body == b"not today"
            assert wire.ends() == "closed"
        settled(front)


def test_a_client_that_leaves_in_the_middle_leaves_nothing_behind(front: Proxy) -> None:
    wanted.program("curl")
    found = []
    for _ in range(10):
        words = ["curl", "--silent", f"http://127.0.0.1:{front.port}/large"]
        found.append(subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL))
    for each in found:
        assert each.stdout is not None
        assert len(each.stdout.read(65536)) == 65536
        each.stdout.close()  # "failure writing output to destination"
    assert {each.wait(20 * SLOW) for each in found} == {23}
    settled(front)
