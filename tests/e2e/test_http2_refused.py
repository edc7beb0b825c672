"""Requests in HTTP/2's form that have to be refused: another one could be hidden in what they become as HTTP/1.1.

The attempts are those of the literature, above all Kettle, "HTTP/2: The Sequel is Always Worse" (2021), and Jabiyev et
al., "FRAMESHIFTER: Security Implications of HTTP/2-to-HTTP/1 Conversion Anomalies" (USENIX Security 2022).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.conformance.through import unsound
from tests.e2e.proxy import Proxy
from tests.e2e.support import until
from tests.e2e.wire2 import Answer, Field, Wire2, frame

SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: site.test\r\n\r\n"
CHUNKS_END = b"0\r\n\r\n" + SMUGGLED
PROTOCOL_ERROR = 1
BASE: dict[str, str | bytes] = {":method": "POST", ":scheme": "http", ":authority": "site.test", ":path": "/case"}


@dataclass(frozen=True, slots=True)
class Attempt:
    fields: tuple[Field, ...]
    body: bytes | None = None  # None: END_STREAM with the head
    trailers: tuple[Field, ...] = ()
    begins: bool = False  # the head is sound: the origin may have seen it, and not the end of its body


def with_(*more: Field, body: bytes | None = None, without: str = "", **kept: bool) -> Attempt:
    """A sound request and these fields behind it."""
    base = [(name, value) for name, value in BASE.items() if name != without]
    return Attempt((*base, *more), body, **kept)


def pseudo(name: str, value: str | bytes, body: bytes | None = None) -> Attempt:
    """A sound request with another value in one of its pseudo-headers."""
    return Attempt(tuple({**BASE, name: value}.items()), body)


def raw_order(*fields: Field) -> Attempt:
    return Attempt(fields)


def length(value: str, *more: Field, body: bytes | None = SMUGGLED, begins: bool = False) -> Attempt:
    return with_(("content-length", value), *more, body=body, begins=begins)


M, S, A, P = BASE.items()
SPLIT = b" HTTP/1.1\r\nHost: site.test\r\n\r\nGET /smuggled HTTP/1.1\r\nX-A: b"

ATTEMPTS: dict[str, Attempt] = {
    # H2.CL: a length that is not the body's
    "length 0, body": length("0"),
    "length shorter": length("5", begins=True),
    "length longer": length("500", begins=True),
    "length longer, no DATA at all": length("5", body=None),
    "length longer, empty DATA": length("5", body=b"", begins=True),
    "lengths differ": length("5", ("content-length", str(len(SMUGGLED)))),
    "lengths differ, right one first": length(str(len(SMUGGLED)), ("content-length", "0")),
    "lengths alike": length("5", ("content-length", "5"), body=b"12345"),
    "length twice in one": length("5, 5", body=b"12345"),
    "length signed": length("+5", body=b"12345"),
    "length negative": length("-1", body=b"12345"),
    "length in hex": length("0x5", body=b"12345"),
    "length with a point": length("5.0", body=b"12345"),
    "length empty": length("", body=b"12345"),
    "length of letters": length("five", body=b"12345"),
    "length, NUL": length("5\0", body=b"12345"),
    "length beyond 64 bits": length("18446744073709551621", body=b"12345"),
    "length beyond 63 bits": length("9223372036854775813", body=b"12345"),
    "length, a line end": with_(("content-length", b"5\r\n\r\nGET /smuggled HTTP/1.1"), body=b"12345"),
    # H2.TE: chunks
    "chunked": with_(("transfer-encoding", "chunked"), body=CHUNKS_END),
    "chunked and a length": length("5", ("transfer-encoding", "chunked"), body=CHUNKS_END),
    "Chunked": with_(("transfer-encoding", "Chunked"), body=CHUNKS_END),
    "identity": with_(("transfer-encoding", "identity"), body=CHUNKS_END),
    "gzip, chunked": with_(("transfer-encoding", "gzip, chunked"), body=CHUNKS_END),
    "Transfer-Encoding": with_(("Transfer-Encoding", "chunked"), body=CHUNKS_END),
    "transfer-encoding, space": with_(("transfer-encoding ", "chunked"), body=CHUNKS_END),
    "transfer-encoding, tab": with_(("transfer-encoding\t", "chunked"), body=CHUNKS_END),
    "space, transfer-encoding": with_((" transfer-encoding", "chunked"), body=CHUNKS_END),
    "transfer-encoding, colon": with_(("transfer-encoding:", "chunked"), body=CHUNKS_END),
    "transfer-encoding, NUL": with_((b"transfer-encoding\0", "chunked"), body=CHUNKS_END),
    "te gzip": with_(("te", "gzip")),
    "te trailers and more": with_(("te", "trailers, chunked")),
    "te by injection": with_(("te", b"trailers\r\ntransfer-encoding: chunked"), body=CHUNKS_END),
    # names
    "name with a line end": with_((b"x\r\ntransfer-encoding: chunked\r\ny", "z"), body=CHUNKS_END),
    "name with LF": with_((b"x\ntransfer-encoding", "chunked"), body=CHUNKS_END),
    "name with CR": with_((b"x\rtransfer-encoding", "chunked"), body=CHUNKS_END),
    "name with a colon": with_(("transfer-encoding: chunked\r\nx", "y"), body=CHUNKS_END),
    "name with a colon alone": with_(("x:y", "z")),
    "name with a space": with_(("x y", "z")),
    "name with NUL": with_((b"x\0y", "z")),
    "name with DEL": with_((b"x\x7fy", "z")),
    "name beyond ASCII": with_((b"x\xe9", "z")),
    "name in upper case": with_(("X-Upper", "z")),
    "name empty": with_(("", "z")),
    "name of quotes": with_(('x"', "z")),
    "name of a whole request": with_((b"host: a\r\n\r\nGET /smuggled HTTP/1.1\r\nx", "y")),
    # values
    "value with a line end": with_(("x", b"y\r\ntransfer-encoding: chunked"), body=CHUNKS_END),
    "value with LF": with_(("x", b"y\ntransfer-encoding: chunked"), body=CHUNKS_END),
    "value with CR": with_(("x", b"y\rtransfer-encoding: chunked"), body=CHUNKS_END),
    "value with a request": with_(("x", b"y\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: site.test")),
    "value with NUL": with_(("x", b"y\0z")),
    "value with DEL": with_(("x", b"y\x7fz")),
    "value with a control": with_(("x", b"y\x01z")),
    "value that begins with LF": with_(("x", b"\ny")),
    "value that ends with CR": with_(("x", b"y\r")),
    "cookie with a line end": with_(("cookie", "a=1"), ("cookie", b"b=2\r\nx: y")),
    "cookie with NUL": with_(("cookie", b"a=\0")),
    "user-agent with a line end": with_(("user-agent", b"y\r\nx: y")),
    # :path
    "path with a request line": pseudo(":path", b"/" + SPLIT),
    "path with a space": pseudo(":path", "/a b"),
    "path with a version": pseudo(":path", "/smuggled HTTP/1.1"),
    "path with LF": pseudo(":path", b"/a\nx: y"),
    "path with CR": pseudo(":path", b"/a\rb"),
    "path with NUL": pseudo(":path", b"/a\0"),
    "path with a tab": pseudo(":path", "/a\tb"),
    "path with DEL": pseudo(":path", b"/a\x7f"),
    "path that begins with a space": pseudo(":path", " /a"),
    "path without a slash": pseudo(":path", "smuggled"),
    "path empty": pseudo(":path", ""),
    "path absolute": pseudo(":path", "http://site.test/smuggled"),
    "path absolute, another host": pseudo(":path", "http://other.test/smuggled"),
    "path an authority": pseudo(":path", "site.test:80"),
    "path by query alone": pseudo(":path", "?smuggled"),
    "path asterisk": pseudo(":path", "*"),
    "path asterisk and more": pseudo(":path", "*/smuggled"),
    "path missing": with_(without=":path"),
    "path twice": with_((":path", "/smuggled")),
    # :method
    "method with a request line": pseudo(":method", b"GET /smuggled HTTP/1.1\r\nX-A: b\r\n\r\nGET"),
    "method with a target": pseudo(":method", "GET /smuggled"),
    "method with LF": pseudo(":method", b"GET\n"),
    "method with NUL": pseudo(":method", b"GET\0"),
    "method with a colon": pseudo(":method", "GET:"),
    "method beyond ASCII": pseudo(":method", b"GET\xe9"),
    "method empty": pseudo(":method", ""),
    "method missing": with_(without=":method"),
    "method twice": with_((":method", "GET")),
    # :scheme
    "scheme with a target": pseudo(":scheme", "http://site.test/smuggled?"),
    "scheme with a line end": pseudo(":scheme", b"http\r\nx: y"),
    "scheme with a space": pseudo(":scheme", "http "),
    "scheme empty": pseudo(":scheme", ""),
    "scheme missing": with_(without=":scheme"),
    "scheme twice": with_((":scheme", "https")),
    # :authority and host
    "authority with a line end": pseudo(":authority", b"site.test\r\ntransfer-encoding: chunked", CHUNKS_END),
    "authority with a request": pseudo(":authority", b"site.test\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a"),
    "authority with LF": pseudo(":authority", b"site.test\nx: y"),
    "authority with NUL": pseudo(":authority", b"site.test\0"),
    "authority with a space": pseudo(":authority", "site.test other.test"),
    "authority with a path": pseudo(":authority", "site.test/smuggled"),
    "authority with userinfo": pseudo(":authority", "site.test@other.test"),
    "authority with a comma": pseudo(":authority", "site.test,other.test"),
    "authority with a bad port": pseudo(":authority", "site.test:80a"),
    "authority with two ports": pseudo(":authority", "site.test:80:90"),
    "authority twice": with_((":authority", "other.test")),
    "authority missing, host twice": with_(("host", "site.test"), ("host", "other.test"), without=":authority"),
    "authority missing": with_(without=":authority"),
    "host differs": with_(("host", "other.test")),
    "host differs by its port": with_(("host", "site.test:81")),
    "host empty": with_(("host", "")),
    "host twice": with_(("host", "site.test"), ("host", "site.test")),
    "host with a line end": with_(("host", b"site.test\r\nx: y")),
    # pseudo-headers
    "pseudo unknown": with_((":smuggled", "1")),
    "pseudo of an answer": with_((":status", "200")),
    "pseudo empty": with_((":", "1")),
    "pseudo in upper case": raw_order(M, S, A, (":Path", "/smuggled")),
    "pseudo behind a field": raw_order(M, S, A, ("x", "y"), P),
    "pseudo with a space": raw_order(M, S, A, P, (":path ", "/smuggled")),
    "protocol without CONNECT": with_((":protocol", "websocket")),
    "only fields": raw_order(("x", "y")),
    # connection-specific
    "connection close": with_(("connection", "close")),
    "connection names a field": with_(("connection", "x-forwarded-for")),
    "Connection": with_(("Connection", "keep-alive")),
    "keep-alive": with_(("keep-alive", "timeout=5")),
    "proxy-connection": with_(("proxy-connection", "keep-alive")),
    "upgrade": with_(("upgrade", "websocket")),
    "upgrade h2c": with_(("upgrade", "h2c"), ("http2-settings", "AAMAAABkAAQAAP__"), ("connection", "upgrade")),
    # trailers
    "pseudo in trailers": Attempt(tuple(BASE.items()), b"x", ((":path", "/smuggled"),), True),
    "line end in trailers": Attempt(tuple(BASE.items()), b"x", ((b"x\r\n\r\nGET /smuggled HTTP/1.1\r\ny", "z"),), True),
    "connection in trailers": Attempt(tuple(BASE.items()), b"x", (("connection", "close"),), True),
    "chunked in trailers": Attempt(tuple(BASE.items()), b"x", (("transfer-encoding", "chunked"),), True),
}
METHODS = {  # sound, and not for us
    "CONNECT": (raw_order((":method", "CONNECT"), (":authority", "site.test:80")), {501, 405}),
    "CONNECT with a path": (raw_order((":method", "CONNECT"), S, A, P), {501, 400}),
    "CONNECT for another protocol": (raw_order((":method", "CONNECT"), (":protocol", "connect-udp"), S, A, P), {501}),
    "TRACE": (pseudo(":method", "TRACE"), {501, 405}),
}


@pytest.fixture(scope="module")
def site() -> Iterator[Proxy]:
    with Proxy(listener="http2 = true") as found:
        found.origin.received = {}
        yield found
        found.whole()
        assert not found.gauge("http2_session_bytes")


@pytest.fixture(autouse=True)
def nothing_arrived(site: Proxy) -> Iterator[None]:
    """Whatever was sent: the origin has read exactly the requests that somebody meant."""
    yield
    site.origin.close_connections()
    site.whole()
    assert not site.origin.malformed
    assert not site.origin.of("/smuggled")
    if site.origin.received:
        assert not unsound(site.origin)


def attempt(wire: Wire2, one: Attempt) -> Answer:
    stream = wire.ask(one.fields, end=one.body is None, flush=one.body is None)
    if one.body is not None:
        # At once, so that nothing of it is forwarded before all of it has been looked at.
        wire.raw(wire.h2.data_to_send() + frame(0, stream, one.body, 0 if one.trailers else 1))
    if one.trailers:
        wire.h2.send_headers(stream, list(one.trailers), end_stream=True)
        wire.flush()
    return wire.answer(stream)


def test_each_is_refused_and_nothing_of_it_arrives(site: Proxy) -> None:
    """By RST_STREAM, or by an answer of ours; the other requests of the connection go on."""
    wrong = []
    for name, one in ATTEMPTS.items():
        before = len(site.origin.requests)
        with Wire2(site.port) as wire:
            answer = attempt(wire, one)
            refused = answer.status in (400, 421) or (not answer.headers and answer.reset == PROTOCOL_ERROR)
            good = wire.get("/good")
        arrived = [(r.line, r.complete) for r in site.origin.requests[before:] if r.target != "/good"]
        allowed = [("POST /case HTTP/1.1", False)] if one.begins else []
        if not refused or good.status != 200 or arrived not in ([], allowed):
            wrong.append(f"{name}: {answer.status} {answer.reset} {wire.closed} {wire.goaways} {good.status} {arrived}")
        if one.begins:
            site.whole()  # what began may arrive later, and is not the next one's
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("answered", [True, False])
def test_what_comes_behind_the_length_goes_nowhere(site: Proxy, answered: bool) -> None:
    """Also where the request was whole and forwarded before it turned out that more follows."""
    before = len(site.origin.requests)
    with Wire2(site.port) as wire:
        stream = wire.request("/five", "POST", [("content-length", "5")], end=False)
        wire.raw(frame(0, stream, b"12345"))
        if answered:
            assert wire.answer(stream).status == 200
        wire.raw(frame(0, stream, SMUGGLED, 1))
        wire.answer(stream)
        assert wire.get("/good").status == 200
    seen = [request.target for request in site.origin.requests[before:]]
    assert seen in (["/five", "/good"], ["/good"])
    assert all(request.body == b"12345" for request in site.origin.of("/five") if request.complete)
    assert not answered or site.origin.last("/five").complete


def test_methods_that_are_not_for_us(site: Proxy) -> None:
    for name, (one, statuses) in METHODS.items():
        before = len(site.origin.requests)
        with Wire2(site.port) as wire:
            answer = attempt(wire, one)
            assert answer.status in statuses or answer.reset == PROTOCOL_ERROR, f"{name}: {answer}"
            assert wire.get("/good").status == 200
        assert len(site.origin.requests) == before + 1


def test_a_plain_connect_is_501(site: Proxy) -> None:
    with Wire2(site.port) as wire:
        assert attempt(wire, METHODS["CONNECT"][0]).status == 501


def large(count: int, size: int) -> list[Field]:
    return [(f"x-{i}", "v" * size) for i in range(count)]


@pytest.mark.parametrize(
    ("fields", "path", "status"),
    [
        (large(101, 1), "/case", 431),
        (large(120, 1), "/case", 431),
        (large(140, 1), "/case", 431),
        (large(1, 16_500), "/case", 431),
        (large(10, 1_650), "/case", 431),
        (large(2, 12_500), "/case", 431),
        (large(1, 25_000), "/case", 431),
        ([], "/" + "p" * 9_000, 414),
        ([], "/" + "p" * 2_100, 414),
        ([], "/" + "p" * 17_000, 431),
    ],
)
def test_what_is_too_much(site: Proxy, fields: list[Field], path: str, status: int) -> None:
    before = len(site.origin.requests)
    with Wire2(site.port) as wire:
        answer = wire.get(path, fields)
        assert answer.status in (status, 414 if path != "/case" else status), answer
        assert answer.ended
        assert wire.get("/good").status == 200
    assert len(site.origin.requests) == before + 1


def test_crumbs_count_as_one_field_where_http1_has_them_so(site: Proxy) -> None:
    """Browsers send each cookie as a field of its own (RFC 9113 8.2.3): sixty of them are one field to the origin."""
    with Wire2(site.port) as wire:
        crumbs = [("cookie", f"c{i}=v") for i in range(60)]
        assert wire.get("/good", [*crumbs, *large(60, 1)]).status == 200
    assert site.origin.last("/good").all("cookie") == ["; ".join(value for _, value in crumbs)]


def test_refusals_are_in_the_log_and_answer_as_they_are_asked(site: Proxy) -> None:
    with Wire2(site.port) as wire:
        answer = wire.get("/case", [*large(101, 1), ("accept", "application/json")])
        assert answer.status == 431
        assert answer.one("x-request-id")
        assert answer.one("connection") is None
    asked = answer.one("x-request-id")
    until(lambda: [line for line in site.running.log_lines() if line["http.request.id"] == asked])
    (line,) = [line for line in site.running.log_lines() if line["http.request.id"] == asked]
    assert (line["http.response.status_code"], line["error.code"]) == (431, "too_many_headers")


def test_sound_requests_of_unusual_form_pass(site: Proxy) -> None:
    """What must not be taken for one of the above."""
    sound = {
        "scheme https": pseudo(":scheme", "https"),
        "lower-case method": pseudo(":method", "report"),
        "two slashes": pseudo(":path", "//case"),
        "an absolute URL in a query": pseudo(":path", "/case?u=http://other.test/"),
        "bytes beyond ASCII in a value": with_(("x", b"caf\xc3\xa9")),
        "a tab in a value": with_(("x", "a\tb")),
        "te trailers": with_(("te", "trailers")),
        "Te Trailers": with_(("te", "Trailers")),
        "a host that is the same": with_(("host", "site.test")),
        "a port": pseudo(":authority", "site.test:8080"),
        "a trailing dot": pseudo(":authority", "site.test."),
        "content-length 0": with_(("content-length", "0")),
        "content-length 0, empty DATA": with_(("content-length", "0"), body=b""),
        "zeros before a length": with_(("content-length", "005"), body=b"12345"),
        "pseudo-headers in another order": raw_order(P, A, M, S),
        "empty DATA": with_(body=b""),
    }
    wrong = []
    for name, one in sound.items():
        with Wire2(site.port) as wire:
            answer = attempt(wire, one)
            if (answer.status, answer.ended) != (200, True):
                wrong.append(f"{name}: {answer.status} {answer.reset} {wire.goaways}")
    assert not wrong, "\n".join(wrong)
