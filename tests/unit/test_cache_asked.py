"""What a request says, and how far a cache hears it: HEAD, conditions, expectations, Cache-Control, in an engine."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from tests.unit.caching import ON, answer, counted, get
from tests.unit.hosted import Bench, TinyOrigin, bench, origin

__all__ = ["bench", "origin"]


class TestHead:
    def test_head_is_answered_from_a_kept_get(self, bench: Callable[..., Bench], origin: TinyOrigin) -> None:
        running = bench(area=ON)
        counted(origin, "Cache-Control: max-age=60")
        get(running)
        status, fields, body = get(running, method="HEAD")
        assert (status, body) == (200, b"")
        assert fields["content-length"] == "6"
        assert len(origin.requests) == 1

    def test_head_fetches_for_all(self, bench: Callable[..., Bench], origin: TinyOrigin) -> None:
        running = bench(area=ON)
        counted(origin, "Cache-Control: max-age=60")
        status, fields, body = get(running, method="HEAD")
        assert (status, body) == (200, b"")
        assert fields["content-length"] == "6"
        assert fields["cache-status"] == "scrubber; fwd=miss; stored"
        assert origin.requests[0].startswith(b"GET / HTTP/1.1\r\nHost: site.test\r\n")
        assert get(running)[2] == b"page 1"
        assert get(running, method="HEAD")[1]["age"] == "0"
        assert len(origin.requests) == 1
        said = [line for line in running.lines() if b"scrubber.cache" in line]
        assert b'"http.request.method":"HEAD"' in said[0]
        assert b'"http.response.body.bytes":0' in said[0]

    @pytest.mark.parametrize("framing", ["length", "chunked", "close", "private"])
    def test_a_head_of_what_cannot_be_kept_gets_its_head_alone(
        self, bench: Callable[..., Bench], origin: TinyOrigin, framing: str
    ) -> None:
        """And nobody reads the rest; the connection serves the next request."""
        running = bench(area=ON)
        sent = [0]
        control = "private" if framing == "private" else "max-age=60"

        def respond(head: bytes) -> bytes | None:
            fields = ["HTTP/1.1 200 OK", f"Cache-Control: {control}"]
            fields += ["Transfer-Encoding: chunked"] if framing == "chunked" else []
            fields += ["Content-Length: 5000000"] if framing in ("length", "private") else []
            sent[0] += 1
            body = b"4c4b40\r\n" + bytes(5_000_000) + b"\r\n0\r\n\r\n" if framing == "chunked" else bytes(5_000_000)
            return "\r\n".join([*fields, "", ""]).encode() + (b"" if head.startswith(b"HEAD") else body)

        origin.respond = respond
        with running.connect() as s:
            for _ in range(3):
                s.sendall(b"HEAD / HTTP/1.1\r\nHost: site.test\r\n\r\n")
                data = b""
                while b"\r\n\r\n" not in data:
                    data += s.recv(65536)
                assert data.startswith(b"HTTP/1.1 200 OK\r\n")
                assert data.endswith(b"\r\n\r\n")
                assert (b"Content-Length: 5000000" in data) == (framing in ("length", "private"))
                assert b"ransfer-" not in data or origin.requests[-1].startswith(b"HEAD")
        methods = [request.split(b" ")[0] for request in origin.requests]
        # Once as GET, to see; then for a minute as it came.
        assert methods == [b"GET", b"HEAD", b"HEAD"]
        assert running.memory.totals([0])["areas"][0]["cache_stored"] == 0

    def test_a_head_fetches_again_what_is_stale(self, bench: Callable[..., Bench], origin: TinyOrigin) -> None:
        running = bench(area=ON)
        origin.respond = lambda _: answer("Cache-Control: max-age=1", 'ETag: "v1"', body=b"page")
        get(running)
        time.sleep(1.1)
        origin.respond = lambda _: b'HTTP/1.1 304 Not Modified\r\nETag: "v1"\r\nCache-Control: max-age=60\r\n\r\n'
        status, fields, body = get(running, method="HEAD")
        assert (status, body, fields["content-length"]) == (200, b"", "4")
        assert b'If-None-Match: "v1"' in origin.requests[-1]
        assert get(running)[2] == b"page"
        assert len(origin.requests) == 2

    def test_an_error_for_a_head_has_no_body(self, bench: Callable[..., Bench], origin: TinyOrigin) -> None:
        running = bench(area=ON)
        origin.respond = lambda _: None
        status, fields, body = get(running, method="HEAD")
        assert (status, body) == (502, b"")
        assert int(fields["content-length"]) > 0


class TestOverlooked:
    """RFC 9110 7.8, 10.1.1, 13.1; RFC 9111 5.2.1.5."""

    @pytest.mark.parametrize(
        "field",
        [
            'If-Match: "other"',
            "If-Unmodified-Since: Sun, 06 Nov 1994 08:49:37 GMT",
            "Expect: 100-continue",
            "Content-Length: 0",
            "Upgrade: websocket",
            "Cache-Control: no-store",
            "Range: bytes=0-0",
        ],
    )
    def test_nothing_harmless_passes_what_is_kept(
        self, bench: Callable[..., Bench], origin: TinyOrigin, field: str
    ) -> None:
        running = bench(area=ON)
        counted(origin, "Cache-Control: max-age=60", 'ETag: "v1"')
        get(running)
        for method in ("GET", "HEAD"):
            status, fields, body = get(running, "/", field, method=method)
            assert (status, body) == (200, b"page 1" if method == "GET" else b"")
            assert fields["age"] == "0"
        assert len(origin.requests) == 1

    @pytest.mark.parametrize(
        "field", ['If-Match: "mine"', "If-Unmodified-Since: Sun, 06 Nov 1994 08:49:37 GMT", "Expect: 100-continue"]
    )
    def test_what_is_fetched_for_all_knows_no_condition(
        self, bench: Callable[..., Bench], origin: TinyOrigin, field: str
    ) -> None:
        running = bench(area=ON)
        counted(origin, "Cache-Control: max-age=60")
        assert get(running, "/", field)[2] == b"page 1"
        assert field.encode() not in origin.requests[0]
        assert get(running)[2] == b"page 1"

    def test_a_condition_that_passes_by_is_the_origin_s(self, bench: Callable[..., Bench], origin: TinyOrigin) -> None:
        """With credentials nothing is fetched for all; and what the origin says to that is for nobody else."""
        running = bench(area=ON)
        origin.respond = lambda _: answer("Cache-Control: public, max-age=60", status="412 Precondition Failed")
        assert get(running, "/", "Cookie: a=b", 'If-Match: "mine"')[0] == 412
        assert b'If-Match: "mine"' in origin.requests[0]
        counted(origin, "Cache-Control: max-age=60")
        assert get(running)[2] == b"page 1"

    def test_a_range_of_what_is_kept_is_all_of_it(self, bench: Callable[..., Bench], origin: TinyOrigin) -> None:
        running = bench(area=ON)
        counted(origin, "Cache-Control: max-age=60")
        get(running, "/", "Range: bytes=0-1")  # not kept: passed on as it is
        assert b"Range: bytes=0-1" in origin.requests[0]
        get(running)
        status, _, body = get(running, "/", "Range: bytes=0-1")
        assert (status, body) == (200, b"page 2")
        assert len(origin.requests) == 2


class TestClientsWishes:
    @pytest.mark.parametrize("field", ["Cache-Control: no-cache", "Cache-Control: max-age=0", "Pragma: no-cache"])
    def test_nobody_gets_past_the_cache_by_asking(
        self, bench: Callable[..., Bench], origin: TinyOrigin, field: str
    ) -> None:
        running = bench(area=ON)
        counted(origin, "Cache-Control: max-age=60")
        get(running)
        assert get(running, "/", field)[2] == b"page 1"

    def test_but_where_it_is_honoured(self, bench: Callable[..., Bench], origin: TinyOrigin) -> None:
        running = bench(area=ON + 'client_no_cache = "honour"\n')
        counted(origin, "Cache-Control: max-age=60")
        get(running)
        assert get(running, "/", "Cache-Control: no-cache")[2] == b"page 2"
        assert b"no-cache" in origin.requests[1]
        assert get(running)[2] == b"page 2"

    def test_no_store_keeps_nothing(self, bench: Callable[..., Bench], origin: TinyOrigin) -> None:
        running = bench(area=ON)
        counted(origin, "Cache-Control: max-age=60")
        get(running, "/", "Cache-Control: no-store")
        assert get(running)[2] == b"page 2"
        # It says nothing of what was kept before (RFC 9111 5.2.1.5).
        assert get(running, "/", "Cache-Control: no-store")[2] == b"page 2"

    def test_only_if_cached(self, bench: Callable[..., Bench], origin: TinyOrigin) -> None:
        running = bench(area=ON)
        counted(origin, "Cache-Control: max-age=60")
        assert get(running, "/", "Cache-Control: only-if-cached")[0] == 504
        assert not origin.requests
        get(running)
        assert get(running, "/", "Cache-Control: only-if-cached")[2] == b"page 1"
