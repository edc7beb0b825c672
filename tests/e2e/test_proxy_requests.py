"""One request in, one answer out, byte for byte: methods, framings, persistence, order, interim answers, versions."""

from __future__ import annotations

import hashlib
import random

import pytest

from tests.e2e.proxy import Proxy
from tests.e2e.recorder import Exchange, raw, respond
from tests.e2e.wire import Closed, Wire, fetch

SIZES = [0, 1, 65535, 65536, 65537, 10 * 1024 * 1024]


def noise(size: int) -> bytes:
    """Reproducible bytes in which nothing repeats: a lost or doubled piece shows."""
    return random.Random(size).randbytes(size)


def chunked(data: bytes, piece: int = 16384, trailers: bytes = b"") -> bytes:
    pieces = [data[i : i + piece] for i in range(0, len(data), piece)]
    return b"".join(b"%x\r\n%s\r\n" % (len(p), p) for p in pieces) + b"0\r\n" + trailers + b"\r\n"


def same(got: bytes, expected: bytes) -> bool:
    """Compared by length and digest, so that a failure does not print megabytes."""
    return (len(got), hashlib.sha256(got).hexdigest()) == (len(expected), hashlib.sha256(expected).hexdigest())


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "PROPFIND", "M-SEARCH"])
def test_methods_pass_unchanged(site: Proxy, method: str) -> None:
    with Wire(site.port) as wire:
        wire.send(f"{method} /method HTTP/1.1\r\nHost: site.test\r\nContent-Length: 0\r\n\r\n".encode())
        assert wire.answer(method).status == 200
    assert site.origin.last("/method").method == method


@pytest.mark.parametrize("method", ["CONNECT", "TRACE"])
def test_refused_methods_never_arrive(site: Proxy, method: str) -> None:
    before = len(site.origin.requests)
    with Wire(site.port) as wire:
        target = "site.test:80" if method == "CONNECT" else "/"
        wire.send(f"{method} {target} HTTP/1.1\r\nHost: site.test\r\n\r\n".encode())
        assert wire.answer(method).status in (400, 405, 501)
        assert wire.ends() == "closed"
    assert len(site.origin.requests) == before


def test_options_asterisk(site: Proxy) -> None:
    with Wire(site.port) as wire:
        wire.send(b"OPTIONS * HTTP/1.1\r\nHost: site.test\r\n\r\n")
        assert wire.answer("OPTIONS").status == 200
    assert site.origin.last("*").line == "OPTIONS * HTTP/1.1"


def test_target_reaches_the_origin_as_it_was_sent(site: Proxy) -> None:
    target = "/a%2Fb//c/./d;p=1?q=%20x&y=/../z"
    assert fetch(site.port, target).status == 200
    assert site.origin.requests[-1].target == target


def test_absolute_form_is_reduced_and_its_host_rules(site: Proxy) -> None:
    with Wire(site.port) as wire:
        wire.send(b"GET http://site.test/absolute?x=1 HTTP/1.1\r\nHost: site.test\r\n\r\n")
        assert wire.answer().status == 200
    request = site.origin.last("/absolute")
    assert request.target == "/absolute?x=1"
    assert request.one("host") == "site.test"


def test_keep_alive_on_both_sides(proxy: type[Proxy]) -> None:
    with proxy() as site:
        with Wire(site.port) as wire:
            for i in range(20):
                answer = wire.get(f"/keep/{i}")
                assert answer.status == 200
                assert answer.one("connection") != "close"
        assert [r.target for r in site.origin.requests] == [f"/keep/{i}" for i in range(20)]
        assert {r.connection for r in site.origin.requests} == {0}, (
            "one client after the other needs one origin connection"
        )
        with Wire(site.port) as wire:
            assert wire.get("/again").status == 200
        assert site.origin.last("/again").connection == 0, "the pool outlives the client's connection"


def test_connection_close_is_honoured(site: Proxy) -> None:
    with Wire(site.port) as wire:
        answer = wire.get("/close", "Connection: close\r\n")
        assert answer.status == 200
        assert answer.one("connection") == "close"
        assert wire.ends() == "closed"


def test_an_origin_that_closes_each_time_is_no_harm(proxy: type[Proxy]) -> None:
    with proxy() as site:
        site.origin.answers["/once"] = raw(
            b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok", close=True
        )
        with Wire(site.port) as wire:
            for _ in range(5):
                answer = wire.get("/once")
                assert (answer.status, answer.body) == (200, b"ok")
                assert answer.one("connection") != "close", "the origin's connection is not the client's"
        assert [r.connection for r in site.origin.requests] == [0, 1, 2, 3, 4]


def test_pipelined_requests_are_answered_in_order(site: Proxy) -> None:
    count = 50
    site.origin.answers["/pipe"] = lambda x: respond(x.request.target.encode())(x)
    with Wire(site.port) as wire:
        wire.send(b"".join(f"GET /pipe?{i} HTTP/1.1\r\nHost: site.test\r\n\r\n".encode() for i in range(count)))
        bodies = [wire.answer().body for _ in range(count)]
    assert bodies == [f"/pipe?{i}".encode() for i in range(count)]
    assert [r.target for r in site.origin.of("/pipe")] == [f"/pipe?{i}" for i in range(count)]


def test_pipelined_posts_keep_their_bodies(site: Proxy) -> None:
    bodies = [noise(n) for n in (0, 1, 100, 20000, 3)]
    site.origin.answers["/pipe-post"] = lambda x: respond(x.request.body)(x)
    data = b""
    for i, body in enumerate(bodies):
        head = b"POST /pipe-post HTTP/1.1\r\nHost: site.test\r\n"
        if i % 2:
            data += head + b"Transfer-Encoding: chunked\r\n\r\n" + chunked(body, 700)
        else:
            data += head + b"Content-Length: %d\r\n\r\n" % len(body) + body
    with Wire(site.port) as wire:
        wire.send(data)
        answers = [wire.answer("POST").body for _ in bodies]
    assert all(same(got, sent) for got, sent in zip(answers, bodies, strict=True))


def test_a_request_that_comes_byte_by_byte(site: Proxy) -> None:
    request = b"POST /bytewise HTTP/1.1\r\nHost: site.test\r\nTransfer-Encoding: chunked\r\n\r\n"
    request += b"5\r\nhello\r\n0\r\nX-T: 1\r\n\r\n"
    with Wire(site.port) as wire:
        for i in range(len(request)):
            wire.send(request[i : i + 1])
        assert wire.answer("POST").status == 200
    assert site.origin.last("/bytewise").body == b"hello"


def test_an_answer_that_comes_byte_by_byte(site: Proxy) -> None:
    text = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"
    site.origin.answers["/bytewise-down"] = raw(*[text[i : i + 1] for i in range(len(text))], pause_s=0.002)
    assert fetch(site.port, "/bytewise-down").body == b"hello"


def test_head_has_length_and_no_body(site: Proxy) -> None:
    site.origin.answers["/head"] = respond(b"x" * 1000)
    with Wire(site.port) as wire:
        for _ in range(3):  # on one connection: a body where none belongs would spoil the next answer
            wire.send(b"HEAD /head HTTP/1.1\r\nHost: site.test\r\n\r\n")
            answer = wire.answer("HEAD")
            assert answer.status == 200
            assert answer.one("content-length") == "1000"
        assert wire.get("/head").body == b"x" * 1000


@pytest.mark.parametrize("status", ["204 No Content", "304 Not Modified"])
def test_answers_that_have_no_body(site: Proxy, status: str) -> None:
    site.origin.answers["/none"] = raw(f'HTTP/1.1 {status}\r\nETag: "a"\r\n\r\n'.encode())
    with Wire(site.port) as wire:
        for _ in range(3):
            answer = wire.get("/none")
            assert answer.status == int(status[:3])
            assert answer.one("etag") == '"a"'
            assert answer.body == b""


@pytest.mark.parametrize("size", SIZES)
def test_body_up_by_length(site: Proxy, size: int) -> None:
    body = noise(size)
    with Wire(site.port) as wire:
        wire.send(b"POST /up HTTP/1.1\r\nHost: site.test\r\nContent-Length: %d\r\n\r\n" % size, body)
        assert wire.answer("POST").status == 200
    request = site.origin.last("/up")
    assert same(request.body, body)
    assert request.one("content-length") == str(size)
    assert request.one("transfer-encoding") is None


@pytest.mark.parametrize("size", SIZES)
def test_body_up_chunked(site: Proxy, size: int) -> None:
    body = noise(size)
    with Wire(site.port) as wire:
        wire.send(b"POST /up-chunked HTTP/1.1\r\nHost: site.test\r\nTransfer-Encoding: chunked\r\n\r\n", chunked(body))
        assert wire.answer("POST").status == 200
    request = site.origin.last("/up-chunked")
    assert same(request.body, body)
    assert request.complete
    assert request.one("content-length") is None


@pytest.mark.parametrize("size", SIZES)
def test_body_down_by_length(site: Proxy, size: int) -> None:
    body = noise(size)
    site.origin.answers["/down"] = respond(body)
    answer = fetch(site.port, "/down")
    assert same(answer.body, body)
    assert answer.one("content-length") == str(size)


@pytest.mark.parametrize("size", SIZES)
def test_body_down_chunked(site: Proxy, size: int) -> None:
    body = noise(size)
    site.origin.answers["/down-chunked"] = raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", chunked(body))
    with Wire(site.port) as wire:
        for _ in range(2 if size < 1_000_000 else 1):
            answer = wire.get("/down-chunked")
            assert answer.chunked
            assert same(answer.body, body)


@pytest.mark.parametrize("size", SIZES)
def test_body_down_until_close(site: Proxy, size: int) -> None:
    body = noise(size)
    site.origin.answers["/until-close"] = raw(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n", body, close=True)
    answer = fetch(site.port, "/until-close")
    assert same(answer.body, body)


def test_both_directions_at_once(site: Proxy) -> None:
    """The origin answers while the request is still coming: neither direction waits for the other."""
    body = noise(300_000)

    def echo(exchange: Exchange) -> None:
        exchange.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        exchange.send(b"5\r\nfirst\r\n")

    site.origin.on_head["/duplex"] = echo
    site.origin.answers["/duplex"] = raw(b"4\r\nlast\r\n0\r\n\r\n")
    with Wire(site.port) as wire:
        wire.send(b"POST /duplex HTTP/1.1\r\nHost: site.test\r\nContent-Length: %d\r\n\r\n" % len(body), body[:1000])
        head = wire.head()
        assert head.status == 200
        while b"first" not in wire.data:
            wire.need()
        wire.send(body[1000:])
        wire.body_of(head, "POST")
        assert head.body == b"firstlast"
    assert same(site.origin.last("/duplex").body, body)


def test_trailers_are_dropped_up_and_down(site: Proxy) -> None:
    """RFC 9110 6.5.1 lets a recipient do that; nobody is promised any, and none becomes a header."""
    site.origin.answers["/trailers"] = raw(
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Down\r\n\r\n"
        + chunked(b"down", trailers=b"X-Down: 2\r\n")
    )
    with Wire(site.port) as wire:
        wire.send(b"POST /trailers HTTP/1.1\r\nHost: site.test\r\nTransfer-Encoding: chunked\r\nTE: trailers\r\n\r\n")
        wire.send(chunked(b"up", trailers=b"X-Up: 1\r\n"))
        answer = wire.answer("POST")
        assert answer.body == b"down"
        assert wire.get("/after").status == 200
    up = site.origin.last("/trailers")
    assert up.body == b"up"
    assert (up.trailers, answer.trailers) == ([], [])
    assert [up.one(name) for name in ("x-up", "trailer", "te")] == [None] * 3
    assert [answer.one(name) for name in ("x-down", "trailer")] == [None] * 2


def test_expect_continue_reaches_the_client_before_the_body(site: Proxy) -> None:
    def go_on(exchange: Exchange) -> None:
        if exchange.request.one("expect") is not None:
            exchange.send(b"HTTP/1.1 100 Continue\r\n\r\n")

    site.origin.on_head["/expect"] = go_on
    with Wire(site.port) as wire:
        wire.send(b"POST /expect HTTP/1.1\r\nHost: site.test\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n")
        assert wire.head().status == 100
        wire.send(b"hello")
        assert wire.answer("POST").status == 200
        assert wire.get("/after").status == 200
    assert site.origin.last("/expect").body == b"hello"


def test_a_body_that_does_not_wait_for_the_continue(site: Proxy) -> None:
    with Wire(site.port) as wire:
        wire.send(
            b"POST /expect-none HTTP/1.1\r\nHost: site.test\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\nhello"
        )
        assert wire.answer("POST").status == 200
        assert wire.get("/after").status == 200
    assert site.origin.last("/expect-none").body == b"hello"


def test_an_unknown_expectation_is_417(site: Proxy) -> None:
    before = len(site.origin.requests)
    with Wire(site.port) as wire:
        wire.send(b"POST / HTTP/1.1\r\nHost: site.test\r\nContent-Length: 5\r\nExpect: a-miracle\r\n\r\nhello")
        assert wire.answer("POST").status == 417
    assert len(site.origin.requests) == before


def test_early_hints_reach_clients_of_1_1_only(site: Proxy) -> None:
    site.origin.answers["/hints"] = raw(
        b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
    )
    with Wire(site.port) as wire:
        wire.send(b"GET /hints HTTP/1.1\r\nHost: site.test\r\n\r\n")
        first = wire.head()
        assert (first.status, first.one("link")) == (103, "</a.css>; rel=preload")
        assert wire.answer().body == b"ok"
    with Wire(site.port) as wire:
        wire.send(b"GET /hints HTTP/1.0\r\nHost: site.test\r\n\r\n")
        assert wire.head().status == 200


def test_http_1_0_client(site: Proxy) -> None:
    with Wire(site.port) as wire:
        wire.send(b"GET /old HTTP/1.0\r\nHost: site.test\r\n\r\n")
        answer = wire.answer()
        assert (answer.status, answer.body) == (200, b"ok")
        assert wire.ends() == "closed"
    assert site.origin.last("/old").line.endswith("HTTP/1.1")


def test_http_1_0_client_with_keep_alive(site: Proxy) -> None:
    with Wire(site.port) as wire:
        for _ in range(2):
            wire.send(b"GET /old-keep HTTP/1.0\r\nHost: site.test\r\nConnection: keep-alive\r\n\r\n")
            answer = wire.answer()
            assert answer.status == 200
            if answer.one("connection") != "keep-alive":
                assert wire.ends() == "closed"  # it may refuse; then it must not leave the client waiting
                return


def test_http_1_0_client_never_sees_chunks(site: Proxy) -> None:
    site.origin.answers["/old-chunked"] = raw(
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunked(b"hello" * 1000, 77)
    )
    with Wire(site.port) as wire:
        wire.send(b"GET /old-chunked HTTP/1.0\r\nHost: site.test\r\nConnection: keep-alive\r\n\r\n")
        answer = wire.answer()
        assert answer.one("transfer-encoding") is None
        assert answer.body == b"hello" * 1000


def test_http_1_0_origin(site: Proxy) -> None:
    site.origin.answers["/origin-old"] = raw(
        b"HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\n\r\nold but whole", close=True
    )
    with Wire(site.port) as wire:
        answer = wire.get("/origin-old")
        assert (answer.status, answer.body, answer.version) == (200, b"old but whole", "HTTP/1.1")


def test_empty_lines_before_a_request_are_forgiven_and_no_more(site: Proxy) -> None:
    """RFC 9112 2.2: at least one empty line before the request line is ignored."""
    with Wire(site.port) as wire:
        wire.send(b"\r\nGET /empty-line HTTP/1.1\r\nHost: site.test\r\n\r\n")
        assert wire.answer().status in (200, 400)
        assert len(site.origin.of("/empty-line")) <= 1


def test_an_early_answer_ends_the_upload(site: Proxy) -> None:
    """An origin that answers without reading: the client gets that, and the rest of its body becomes no request."""

    def refuse(exchange: Exchange) -> None:
        exchange.send(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno")
        exchange.close()

    site.origin.on_head["/early"] = refuse
    hidden = b"GET /hidden HTTP/1.1\r\nHost: site.test\r\n\r\n"
    with Wire(site.port) as wire:
        wire.send(b"POST /early HTTP/1.1\r\nHost: site.test\r\nContent-Length: 1000000\r\n\r\n" + hidden)
        try:
            answer = wire.answer("POST")
            assert (answer.status, answer.body) == (403, b"no")
        except Closed as error:
            assert error.data == b"" or error.data.startswith(b"HTTP/1.1 403")
    assert not site.origin.of("/hidden")


def test_one_request_in_is_one_request_out(proxy: type[Proxy]) -> None:
    """Nothing is sent twice, nothing is invented: what a mixed run asks for is exactly what arrives."""
    rng = random.Random(7)
    sent: list[str] = []
    with proxy() as site:
        for connection in range(10):
            with Wire(site.port, source=f"127.0.1.{connection + 1}") as wire:
                for i in range(20):
                    target = f"/mix/{connection}/{i}"
                    body = noise(rng.choice((0, 1, 5000)))
                    if rng.random() < 0.5:
                        wire.get(target)
                    else:
                        wire.send(b"POST %s HTTP/1.1\r\nHost: site.test\r\n" % target.encode())
                        wire.send(b"Content-Length: %d\r\n\r\n" % len(body), body)
                        assert wire.answer("POST").status == 200
                    sent.append(target)
        assert sorted(r.target for r in site.origin.requests) == sorted(sent)
        assert not site.origin.malformed
