"""Routes in a hosted engine: what is answered here, what an origin gets, what a client gets back."""

from __future__ import annotations

import os
import re
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.unit.hosted import Bench, TinyOrigin, bench, origin, read_all  # noqa: F401 - fixtures

Bencher = Callable[..., Bench]


def get(target: str, more: str = "", method: str = "GET", version: str = "1.1") -> bytes:
    return f"{method} {target} HTTP/{version}\r\nHost: site.test\r\n{more}\r\n".encode()


def parsed(answer: bytes) -> tuple[int, dict[str, str], bytes]:
    head, _, body = answer.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    pairs = [line.split(": ", 1) for line in lines]
    fields = {name.lower(): value for name, value in pairs}
    assert len(fields) + (head.count(b"X-Frame-Options") == 2) == len(pairs), f"a field came twice: {lines}"
    return int(first.split(" ")[1]), fields, body


def ask(b: Bench, target: str, more: str = "", method: str = "GET") -> tuple[int, dict[str, str], bytes]:
    return parsed(b.ask(get(target, more + "Connection: close\r\n", method)))


def sent(o: TinyOrigin) -> tuple[str, dict[str, list[str]]]:
    """Target and fields of the last request that the origin got."""
    first, *lines = o.requests[-1].decode("latin-1").split("\r\n")
    fields: dict[str, list[str]] = {}
    for line in lines:
        name, value = line.split(": ", 1)
        fields.setdefault(name.lower(), []).append(value)
    return first.split(" ")[1], fields


ROUTES = """
request_headers.set = {{ X-Area = "{{area}}", X-Who = "{{client_ip}} {{scheme}} {{host}}" }}
request_headers.remove = ["X-Debug"]
response_headers = {{ set = {{ X-Frame-Options = "DENY" }}, remove = ["X-Powered-By"] }}
error_pages = {{ "413" = "big.html", default = "error.html" }}
[[area.pool]]
name = "api"
origins = ["127.0.0.1:{other}"]
[[area.route]]
path = "/gone"
answer = {{ status = 410, body = "gone, request {{request_id}}\\n" }}
[[area.route]]
path_prefix = "/old/"
redirect = {{ to = "https://example.org/new{{path}}{{query}}", status = 308 }}
[[area.route]]
path_re = '^/user/([0-9]+)/(.*)$'
method = ["GET", "HEAD"]
redirect = "/u/$1?rest=$2"
[[area.route]]
path = "/robots.txt"
file = "robots.txt"
[[area.route]]
path = "/large"
file = "large.txt"
[[area.route]]
path_prefix = "/api/"
pool = "api"
rewrite = {{ strip_prefix = "/api", add_prefix = "/v2" }}
body_bytes_max = "10B"
request_headers = {{ set = {{ X-Area = "api" }}, add = {{ X-Tag = ["a", "b"] }} }}
response_headers = {{ add = {{ X-Frame-Options = "SAMEORIGIN" }} }}
[[area.route]]
path_prefix = "/closed/"
maintenance = {{ file = "closed.html", retry_after = "1h", allow = ["127.0.0.9"] }}
[[area.route]]
path_re = '^/re/([a-z]+)/([a-z]+)$'
rewrite = "/swapped/$2/$1"
"""


@pytest.fixture
def other() -> Any:
    running = TinyOrigin()
    yield running
    running.close()


@pytest.fixture
def routed(bench: Bencher, tmp_path: Path, other: TinyOrigin) -> Bench:  # noqa: F811
    (tmp_path / "robots.txt").write_text("User-agent: *\nDisallow: /\n")
    os.utime(tmp_path / "robots.txt", (1_700_000_000, 1_700_000_000))
    (tmp_path / "large.txt").write_bytes(bytes(range(256)) * 256)
    (tmp_path / "big.html").write_text("<p>too big {request_id} {status}</p><style>p {color: red}</style>")
    (tmp_path / "error.html").write_text("<p>error {status}, case [{case}]</p>")
    (tmp_path / "closed.html").write_text("<p>back soon {request_id}</p>")
    return bench(area=ROUTES.format(other=other.port))


def test_a_fixed_answer_never_reaches_the_origin(routed: Bench, origin: TinyOrigin) -> None:  # noqa: F811
    status, fields, body = ask(routed, "/gone")
    assert status == 410
    assert body == f"gone, request {fields['x-request-id']}\n".encode()
    assert fields["content-type"] == "text/plain; charset=utf-8"
    assert fields["x-frame-options"] == "DENY"
    assert not origin.requests


def test_fixed_answers_keep_the_connection_and_are_pipelined(routed: Bench) -> None:
    answer = routed.ask(get("/gone") + get("/gone", method="HEAD") + get("/", "Connection: close\r\n"))
    heads = answer.split(b"HTTP/1.1 ")[1:]
    assert [h[:3] for h in heads] == [b"410", b"410", b"200"]
    assert heads[1].endswith(b"\r\n\r\n"), "HEAD has no body"
    assert b"Content-Length: 31" in heads[0] and b"Content-Length: 31" in heads[1]


def test_an_unread_body_ends_the_connection(routed: Bench) -> None:
    status, fields, _ = parsed(routed.ask(get("/gone", "Content-Length: 9\r\n", "POST") + b"123456789" + get("/gone")))
    assert (status, fields["connection"]) == (410, "close")


def test_redirects_carry_path_and_query_but_nothing_else_of_the_client(routed: Bench) -> None:
    status, fields, body = ask(routed, "/old/a%20b/%0d%0aSet-Cookie:x?q=%22<x>")
    assert (status, body, fields["content-length"]) == (308, b"", "0")
    assert fields["location"] == "https://example.org/new/old/a%20b/%0d%0aSet-Cookie:x?q=%22%3Cx%3E"
    assert "set-cookie" not in fields


def test_groups_of_a_pattern_are_filled_in(routed: Bench) -> None:
    status, fields, _ = ask(routed, "/user/42/x%2Fy")
    assert (status, fields["location"]) == (302, "/u/42?rest=x/y")
    assert ask(routed, "/user/42/x", method="POST")[0] == 200, "another method goes to the origin"


def test_a_file_has_validators(routed: Bench) -> None:
    status, fields, body = ask(routed, "/robots.txt")
    assert (status, body) == (200, b"User-agent: *\nDisallow: /\n")
    assert fields["content-type"] == "text/plain; charset=utf-8"
    assert fields["last-modified"] == "Tue, 14 Nov 2023 22:13:20 GMT"
    etag = fields["etag"]
    assert re.fullmatch(r'"[0-9a-f]{32}"', etag)
    for more, expected in (
        (f"If-None-Match: {etag}\r\n", 304),
        (f'If-None-Match: "x", W/{etag}\r\n', 304),
        ("If-None-Match: *\r\n", 304),
        (f'If-None-Match: "x"\r\nIf-None-Match: {etag}\r\n', 304),
        (f'If-None-Match: "x{etag[1:]}\r\n', 200),
        (f"If-None-Match: {etag[:-1]}\r\n", 200),
        ("If-Modified-Since: Tue, 14 Nov 2023 22:13:20 GMT\r\n", 304),
        ("If-Modified-Since: Tue, 14 Nov 2023 22:13:19 GMT\r\n", 200),
        ("If-Modified-Since: Sunday, 14-Nov-23 22:13:20 GMT\r\n", 200),
        ('If-None-Match: "x"\r\nIf-Modified-Since: Tue, 14 Nov 2023 22:13:20 GMT\r\n', 200),
    ):
        status, fields, body = ask(routed, "/robots.txt", more)
        assert (status, bool(body)) == (expected, expected == 200), more
        assert fields["etag"] == etag
    assert ask(routed, "/robots.txt", method="HEAD")[1]["content-length"] == "26"
    status, fields, body = ask(routed, "/robots.txt", method="DELETE")
    assert (status, fields["allow"], body) == (405, "GET, HEAD", b"")


def test_a_large_file_goes_to_a_slow_reader_whole(routed: Bench) -> None:
    expected = bytes(range(256)) * 256
    s = routed.connect()
    with s:
        s.sendall(get("/large") + get("/large", method="HEAD") + get("/large", "Connection: close\r\n"))
        time.sleep(0.3)  # both sides' socket buffers are full by now
        s.settimeout(5)
        answer = b""
        while piece := s.recv(5000):
            answer += piece
            time.sleep(0.002)
    _, _, rest = answer.partition(b"\r\n\r\n")
    assert rest[:65536] == expected
    second, _, rest = rest[65536:].partition(b"\r\n\r\n")
    assert second.startswith(b"HTTP/1.1 200") and b"Content-Length: 65536" in second
    assert rest.startswith(b"HTTP/1.1 200") and rest.endswith(expected)


def test_a_large_file_given_up_leaves_nothing_behind(routed: Bench) -> None:
    for _ in range(5):
        s = routed.connect()
        s.sendall(get("/large") * 8)
        time.sleep(0.05)
        s.close()
    assert ask(routed, "/gone")[0] == 410  # the fixture looks at the pools


def test_a_pool_of_a_route_gets_the_rewritten_path(routed: Bench, origin: TinyOrigin, other: TinyOrigin) -> None:  # noqa: F811
    assert ask(routed, "/api/x/../y%20z;p=1?q=%2e&r")[0] == 200
    assert sent(other)[0] == "/v2/y%20z?q=%2e&r"
    assert not origin.requests
    assert ask(routed, "/api/%2541/%C3%a4%3f")[0] == 200
    assert sent(other)[0] == "/v2/%2541/%C3%A4%3F", "an escape of an escape stays one"
    assert ask(routed, "/re/ab/cd?x")[0] == 200
    assert sent(origin)[0] == "/swapped/cd/ab?x"


def test_edits_of_area_and_route_towards_the_origin(routed: Bench, origin: TinyOrigin, other: TinyOrigin) -> None:  # noqa: F811
    more = "X-Debug: 1\r\nx-area: forged\r\nX-Tag: own\r\nX-Other: stays\r\n"
    ask(routed, "/", more)
    _, fields = sent(origin)
    assert fields["x-area"] == ["site"]
    assert fields["x-who"] == ["127.0.0.2 http site.test"]
    assert (fields["x-tag"], fields["x-other"]) == (["own"], ["stays"])
    assert "x-debug" not in fields
    ask(routed, "/api/", more)
    _, fields = sent(other)
    assert fields["x-area"] == ["api"]
    assert fields["x-tag"] == ["own", "a", "b"]
    assert fields["x-who"] == ["127.0.0.2 http site.test"]
    assert "x-debug" not in fields


def test_edits_towards_the_client(routed: Bench, origin: TinyOrigin, other: TinyOrigin) -> None:  # noqa: F811
    origin.respond = other.respond = lambda head: (
        b"HTTP/1.1 200 OK\r\nx-powered-by: x\r\nX-Frame-Options: none\r\nContent-Length: 2\r\n\r\nok"
    )
    _, fields, _ = ask(routed, "/")
    assert fields["x-frame-options"] == "DENY"
    assert "x-powered-by" not in fields
    answer = routed.ask(get("/api/", "Connection: close\r\n"))
    assert answer.count(b"X-Frame-Options: ") == 2
    assert b"X-Frame-Options: DENY\r\nX-Frame-Options: SAMEORIGIN\r\n" in answer


def test_a_body_too_large_for_its_route(routed: Bench, other: TinyOrigin) -> None:
    status, fields, body = parsed(routed.ask(get("/api/", "Content-Length: 11\r\n", "POST") + b"12345678901"))
    assert status == 413
    assert body == f"<p>too big {fields['x-request-id']} 413</p><style>p {{color: red}}</style>".encode()
    assert fields["content-type"] == "text/html; charset=utf-8"
    assert fields["cache-control"] == "no-store"
    assert not other.requests
    chunked = get("/api/", "Transfer-Encoding: chunked\r\n", "POST") + b"6\r\n123456\r\n6\r\n123456\r\n0\r\n\r\n"
    assert parsed(routed.ask(chunked))[0] == 413
    assert ask(routed, "/api/", "Content-Length: 0\r\n", "POST")[0] == 200


def test_json_clients_get_problem_details_instead_of_error_pages(routed: Bench) -> None:
    request = get("/api/", "Content-Length: 11\r\nAccept: application/json\r\n", "POST") + b"12345678901"
    status, fields, body = parsed(routed.ask(request))
    assert (status, fields["content-type"]) == (413, "application/problem+json")
    assert b'"status":413' in body


def test_the_default_error_page_knows_its_status(routed: Bench, origin: TinyOrigin) -> None:  # noqa: F811
    origin.respond = lambda head: None
    status, _, body = ask(routed, "/")
    assert (status, body) == (502, b"<p>error 502, case []</p>")


def test_maintenance_lets_through_whom_it_names(routed: Bench, origin: TinyOrigin) -> None:  # noqa: F811
    status, fields, body = ask(routed, "/closed/x")
    assert (status, fields["retry-after"]) == (503, "3600")
    assert body == f"<p>back soon {fields['x-request-id']}</p>".encode()
    status, fields, body = ask(routed, "/closed/x", "Accept: application/json\r\n")
    assert (status, fields["retry-after"], body[:1]) == (503, "3600", b"{")
    assert not origin.requests
    with socket.create_connection(("127.0.0.1", routed.port), timeout=5, source_address=("127.0.0.9", 0)) as s:
        s.sendall(get("/closed/x", "Connection: close\r\n"))
        assert parsed(read_all(s))[0] == 200


def test_an_area_closed_but_for_a_route(bench: Bencher, origin: TinyOrigin) -> None:  # noqa: F811
    b = bench(area='maintenance = true\n[[area.route]]\npath = "/health"\nmaintenance = false\n')
    status, fields, body = ask(b, "/")
    assert (status, fields["retry-after"]) == (503, "600")
    assert body.startswith(b"503 Service Unavailable\n")
    assert ask(b, "/health")[0] == 200
    totals = b.memory.totals([0])["areas"][0]
    assert (totals["served"], totals["answered"], totals["origin_errors"]) == (1, 0, 0)


def test_what_routes_answer_is_counted_apart(routed: Bench, origin: TinyOrigin) -> None:  # noqa: F811
    for target in ("/gone", "/robots.txt", "/old/", "/closed/", "/"):
        ask(routed, target)
    time.sleep(0.1)
    totals = routed.memory.totals([0])["areas"][0]
    assert (totals["requests"], totals["served"], totals["answered"], totals["origin_errors"]) == (5, 1, 3, 0)


def test_rules_come_before_routes(bench: Bencher, origin: TinyOrigin) -> None:  # noqa: F811
    rules = '[[rule]]\nname = "no"\nwhen = { path = "/gone" }\nper = "client"\nlimit = "1/h burst 1"\nthen = ["deny"]\n'
    b = bench(rules=rules, area='[[area.route]]\npath = "/gone"\nanswer = { status = 410 }\n')
    assert [ask(b, "/gone")[0] for _ in range(3)] == [410, 403, 403]


def test_a_reload_changes_routes_between_two_passes(bench: Bencher, origin: TinyOrigin) -> None:  # noqa: F811
    b = bench(area="[[area.route]]\npath_re = '^/x$'\nanswer = { body = \"one\" }\n")
    with b.connect() as s:
        s.settimeout(5)
        s.sendall(get("/x"))
        assert s.recv(65536).endswith(b"one")
        (area,) = b.gateway.areas
        (route,) = area.routes
        for body in ("two", "three", ""):
            answer = msgspec.structs.replace(route.answer, body=body)
            routes = (msgspec.structs.replace(route, answer=answer),) if body else ()
            b.gateway = msgspec.structs.replace(b.gateway, areas=(msgspec.structs.replace(area, routes=routes),))
            with b.lock:
                b.engine.swap(b.policy())
            s.sendall(get("/x"))
            assert s.recv(65536).endswith(body.encode() or b"ok")


def test_a_read_timeout_of_a_route(bench: Bencher, origin: TinyOrigin) -> None:  # noqa: F811
    def respond(head: bytes) -> bytes:
        time.sleep(0.6)
        return b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"

    origin.respond = respond
    area = (
        '[[area.route]]\npath = "/fast"\nread_timeout = "100ms"\n[[area.route]]\npath = "/slow"\nread_timeout = "20s"\n'
    )
    b = bench(area=area + '[area.limits]\nread_timeout = "10s"\n')
    with b.connect() as s:
        s.settimeout(8)
        s.sendall(get("/fast", "Connection: close\r\n"))
        assert parsed(read_all(s))[0] == 504
    with b.connect() as s:
        s.settimeout(8)
        s.sendall(get("/slow", "Connection: close\r\n"))
        assert parsed(read_all(s))[0] == 200


@pytest.mark.parametrize("path", ["/api/" + "x" * 2043, "/" + "a/" * 1100 + "secret/x", "/" + "%61" * 2047 + ".php"])
def test_a_path_longer_than_what_routes_see_is_refused(
    routed: Bench,
    origin: TinyOrigin,  # noqa: F811
    other: TinyOrigin,
    path: str,
) -> None:
    assert ask(routed, path)[0] == 414
    assert not origin.requests
    assert not other.requests
    assert b'"error.code":"path_too_long"' in routed.lines()[-1]
    assert ask(routed, "/" + "./" * 1500 + "a/../" * 600 + "x")[0] == 200  # it is short where dot segments are gone
    assert ask(routed, "/" + "x" * 2046)[0] == 200
