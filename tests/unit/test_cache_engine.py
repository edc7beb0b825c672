"""The cache in an engine of the test's own process: real sockets, every pool whole after."""

from __future__ import annotations

import email.utils
import socket
import struct
import threading
import time
from collections.abc import Callable

import pytest

from tests.unit.caching import MICRO, ON, answer, counted, get, get_slowly
from tests.unit.hosted import Bench, TinyOrigin, bench, origin, read_all

__all__ = ["bench", "origin"]

class TestHits:
    def test_the_second_request_does_not_reach_the_origin(
        self, bench: Callable[..., Bench], origin: TinyOrigin
    ) -> None:
        running = bench(area=ON)
        counted(origin, "Cache-Control: max-age=60", 'ETag: "v1"', "X-Custom: yes", "Content-Type: text/html")
        first = get(running)
        assert first[0] == 200
        assert first[2] == b"page 1"
        assert "age" not in first[1]
        assert first[1]["cache-status"] == "scrubber; fwd=miss; stored"
        status, fields, body = get(running)
        assert (status, body) == (200, b"page 1")
        assert fields["age"] == "0"
        assert fields["x-custom"] == "yes"
        assert fields["content-type"] == "text/html"
        assert fields["content-length"] == "6"
        assert "date" in fields
        assert fields["cache-status"].startswith("scrubber; hit; ttl=")
        assert fields["x-request-id"] != first[1]["x-request-id"]
        assert len(origin.requests) == 1
        said = [line for line in running.lines() if b"scrubber.cache" in line]
        assert b'"scrubber.cache":"miss"' in said[0]
        assert b'"scrubber.cache":"hit"' in said[1]
        totals = running.memory.totals([0])["areas"][0]
        assert (totals["cache_hits"], totals["cache_misses"], totals["cache_stored"]) == (1, 1, 1)
        assert totals["cache_bytes"] == 6
        assert totals["served"] == 2

    @pytest.mark.parametrize(
        "asked",
        [
            'If-None-Match: "v1"',
            'If-None-Match: "x", W/"v1"',
            f"If-Modified-Since: {email.utils.formatdate(2e9, usegmt=True)}",
        ],
    )
    def test_conditions_are_met_here(self, bench: Callable[..., Bench], origin: TinyOrigin, asked: str) -> None:
        running = bench(area=ON)
        modified = email.utils.formatdate(1e9, usegmt=True)
        counted(origin, "Cache-Control: max-age=60", 'ETag: "v1"', f"Last-Modified: {modified}", "Content-Type: a/b")
        get(running)
        status, fields, body = get(running, "/", asked)
        assert (status, body) == (304, b"")
        assert fields["etag"] == '"v1"'
        assert "content-type" not in fields
        assert "content-length" not in fields
        assert get(running, "/", 'If-None-Match: "other"')[0] == 200
        assert len(origin.requests) == 1

    def test_chunked_answers_are_kept_with_their_length(self, bench: Callable[..., Bench], origin: TinyOrigin) -> None:
        running = bench(area=ON)
        origin.respond = lambda _: (
            b"HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nTransfer-Encoding: chunked\r\nTrailer: X-T\r\n\r\n"
            b"5\r\nhello\r\n6\r\n world\r\n0\r\nX-T: 1\r\n\r\n"
        )
        assert b"hello" in get(running)[2]
        status, fields, body = get(running)
        assert (status, body) == (200, b"hello world")
        assert fields["content-length"] == "11"
        assert "transfer-encoding" not in fields
        assert len(origin.requests) == 1

    @pytest.mark.parametrize("length", [0, 1, 16383, 16384, 16385, 24576, 200_000, 262_144])
    def test_bodies_are_the_same_byte_for_byte(
        self, bench: Callable[..., Bench], origin: TinyOrigin, length: int
    ) -> None:
        running = bench(area=ON)
        body = bytes(i * 7 & 0xFF for i in range(length))
        origin.respond = lambda _: answer("Cache-Control: max-age=60", body=body)
        assert get(running)[2] == body
        assert get(running)[2] == body
        assert get(running)[2] == body
        assert len(origin.requests) == 1

    def test_larger_ones_are_passed_through(self, bench: Callable[..., Bench], origin: TinyOrigin) -> None:
        running = bench(area=ON)
        body = bytes(262_145)
        origin.respond = lambda _: answer("Cache-Control: max-age=60", body=body)
        chunked = b"HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nTransfer-Encoding: chunked\r\n\r\n"
        for _ in range(2):
            assert get(running)[2] == body
        origin.respond = lambda _: chunked + b"50000\r\n" + bytes(0x50000) + b"\r\n0\r\n\r\n"
        for _ in range(2):
            assert len(get(running, "/chunked")[2]) > 0x50000
        assert len(origin.requests) == 4

    def test_a_slow_reader_of_what_is_kept_holds_little(self, bench: Callable[..., Bench], origin: TinyOrigin) -> None:
        running = bench(area=ON)
        body = bytes(i & 0xFF for i in range(256)) * 1024
        origin.respond = lambda _: answer("Cache-Control: max-age=60", body=body)
        get(running)
        with socket.socket() as s:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            s.bind(("127.0.0.2", 0))
            s.settimeout(5)
            s.connect(("127.0.0.1", running.port))
            s.sendall(b"GET / HTTP/1.1\r\nHost: site.test\r\nConnection: close\r\n\r\n")
            time.sleep(0.3)
            assert running.engine.pools()["buffers"][0] <= 12
            assert read_all(s).endswith(body)
        assert len(origin.requests) == 1


class TestNotKept:
    @pytest.mark.parametrize(
        "fields",
        [
            (),
            ("Cache-Control: no-store, max-age=60",),
            ("Cache-Control: private, max-age=60",),
            ("Cache-Control: max-age=60", "Set-Cookie: session=1"),
            ("Cache-Control: max-age=60", "Vary: *"),
        ],
    )
    def test_answers(self, bench: Callable[..., Bench], origin: TinyOrigin, fields: tuple[str, ...]) -> None:
        running = bench(area=ON)
        counted(origin, *fields)
        assert [get(running)[2] for _ in range(3)] == [b"page 1", b"page 2", b"page 3"]

    def test_credentials_without_public(self, bench: Callable[..., Bench], origin: TinyOrigin) -> None:
        running = bench(area=ON)
        counted(origin, "Cache-Control: max-age=60")
        for field in ("Cookie: session=1", "Authorization: Basic eDp5"):
            before = len(origin.requests)
            get(running, "/secret", field)
            get(running, "/secret", field)
            assert len(origin.requests) == before + 2
        # Nor is what was kept for others given to them.
        get(running)
        before = len(origin.requests)
        assert get(running, "/", "Cookie: a=b")[1].get("age") is None
        assert len(origin.requests) == before + 1

    def test_credentials_with_public(self, bench: Callable[..., Bench], origin: TinyOrigin) -> None:
        running = bench(area=ON)
        counted(origin, "Cache-Control: public, max-age=60")
        get(running, "/", "Cookie: a=b")
        assert get(running, "/", "Cookie: c=d")[2] == b"page 1"
        assert get(running)[2] == b"page 1"

    def test_truncated_answers(self, bench: Callable[..., Bench], origin: TinyOrigin) -> None:
        running = bench(area=ON + '[area.limits]\nread_timeout = "300ms"\n')
        origin.respond = lambda _: b"HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: 100\r\n\r\nhalf"
        assert get(running)[2] == b"half"
        origin.respond = lambda _: (
            b"HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n"
        )
        assert b"half" in get(running)[2]
        counted(origin, "Cache-Control: max-age=60")
        assert get(running)[2] == b"page 1"
        assert get(running)[2] == b"page 1"

    def test_until_the_connection_ends_is_no_length(self, bench: Callable[..., Bench], origin: TinyOrigin) -> None:
        running = bench(area=ON)
        origin.respond = lambda _: b"HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\n\r\nto the end"
        with running.connect() as s:
            s.sendall(b"GET / HTTP/1.1\r\nHost: site.test\r\nConnection: close\r\n\r\n")
            s.settimeout(0.5)
            assert b"to the end" in read_all(s)
        assert running.memory.totals([0])["areas"][0]["cache_stored"] == 0

    def test_an_area_without_it(self, bench: Callable[..., Bench], origin: TinyOrigin) -> None:
        running = bench()
        counted(origin, "Cache-Control: max-age=60")
        assert [get(running)[2] for _ in range(2)] == [b"page 1", b"page 2"]
        assert not any(b"scrubber.cache" in line for line in running.lines())


class TestKeys:
    """What is not in the key has no say in the answer."""

    def test_each_url_has_its_own(self, bench: Callable[..., Bench], origin: TinyOrigin) -> None:
        running = bench(area=ON)
        counted(origin, "Cache-Control: max-age=60")
        urls = ["/", "/?", "/?a", "/?a=1", "/a", "/A", "/a/", "//a", "/./a", "/%61", "/a;b", "/a%2fb"]
        answers = [get(running, url)[2] for url in urls]
        assert len(set(answers)) == len(urls)
        assert [get(running, url)[2] for url in urls] == answers

    def test_hosts(self, bench: Callable[..., Bench], origin: TinyOrigin) -> None:
        running = bench(area=ON)
        counted(origin, "Cache-Control: max-age=60")
        assert get(running, host="site.test")[2] == b"page 1"
        assert get(running, host="SITE.Test")[2] == b"page 1"
        assert get(running, host="other.test")[2] == b"page 2"
        assert get(running, host="site.test:8080")[2] == b"page 3"

    @pytest.mark.parametrize(
        "field",
        [
            "X-Forwarded-Host: evil.test",
            "X-Forwarded-Proto: https",
            "X-Forwarded-Scheme: https",
            "X-Forwarded-Prefix: /evil",
            "X-Forwarded-Server: evil.test",
            "X-Forwarded-Port: 444",
            "Forwarded: host=evil.test",
            "X-Original-URL: /evil",
            "X-Rewrite-URL: /evil",
            "X-Original-Host: evil.test",
            "X-Host: evil.test",
            "X-HTTP-Method-Override: POST",
            "X-HTTP-Host-Override: evil.test",
        ],
    )
    def test_unkeyed_fields_do_not_reach_the_origin(
        self, bench: Callable[..., Bench], origin: TinyOrigin, field: str
    ) -> None:
        running = bench(area=ON)
        counted(origin, "Cache-Control: max-age=60")
        get(running, "/", field)
        assert field.split(": ")[1].encode() not in origin.requests[0].replace(b"HTTP/1.1", b"")
        assert b"evil" not in origin.requests[0]
        assert get(running)[2] == b"page 1"

    def test_a_body_that_is_in_no_key_is_not_kept(self, bench: Callable[..., Bench], origin: TinyOrigin) -> None:
        running = bench(area=ON)
        counted(origin, "Cache-Control: max-age=60")
        with running.connect() as s:
            s.sendall(b"GET / HTTP/1.1\r\nHost: site.test\r\nContent-Length: 4\r\nConnection: close\r\n\r\nevil")
            read_all(s)
        assert get(running)[2] == b"page 2"

    def test_vary(self, bench: Callable[..., Bench], origin: TinyOrigin) -> None:
        running = bench(area=ON)
        counted(origin, "Cache-Control: max-age=60", "Vary: Accept-Language, accept-encoding")
        german, english = "Accept-Language: de", "Accept-Language: en"
        first = get(running, "/", german)[2]
        assert get(running, "/", german)[2] == first
        second = get(running, "/", english)[2]
        assert second != first
        third = get(running, "/", german, "Accept-Encoding: gzip")[2]
        plain = get(running)[2]
        assert len({first, second, third, plain}) == 4
        assert get(running, "/", german)[2] == first
        assert get(running, "/", english)[2] == second
        assert get(running, "/", german, "Accept-Encoding: gzip")[2] == third
        assert get(running)[2] == plain
        assert len(origin.requests) == 4

    def test_an_encoding_goes_only_to_those_who_take_it(self, bench: Callable[..., Bench], origin: TinyOrigin) -> None:
        running = bench(area=ON)

        def respond(head: bytes) -> bytes:
            if b"gzip" in head:
                return answer("Cache-Control: max-age=60", "Vary: Accept-Encoding", "Content-Encoding: gzip", body=b"Z")
            return answer("Cache-Control: max-age=60", "Vary: Accept-Encoding", body=b"plain")

        origin.respond = respond
        assert get(running, "/", "Accept-Encoding: gzip")[2] == b"Z"
        assert get(running)[2] == b"plain"
        status, fields, body = get(running, "/", "Accept-Encoding: gzip")
        assert (status, body, fields["content-encoding"]) == (200, b"Z", "gzip")
        assert len(origin.requests) == 2


class TestInvalidation:
    """RFC 9111 4.4."""

    @pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "STRANGE"])
    def test_a_change_voids_what_is_kept(self, bench: Callable[..., Bench], origin: TinyOrigin, method: str) -> None:
        running = bench(area=ON)
        counted(origin, "Cache-Control: max-age=60")
        get(running, "/thing")
        get(running, "/other")
        get(running, "/thing", "Content-Length: 0", method=method)
        assert get(running, "/thing")[2] == b"page 4"
        assert get(running, "/other")[2] == b"page 2"

    def test_a_refused_one_does_not(self, bench: Callable[..., Bench], origin: TinyOrigin) -> None:
        running = bench(area=ON)
        counted(origin, "Cache-Control: max-age=60")
        get(running, "/thing")
        origin.respond = lambda _: answer(status="403 No")
        get(running, "/thing", "Content-Length: 0", method="POST")
        assert get(running, "/thing")[2] == b"page 1"

    @pytest.mark.parametrize("where", ["/thing", "http://site.test/thing", "http://SITE.test/thing"])
    def test_location_of_the_same_host(self, bench: Callable[..., Bench], origin: TinyOrigin, where: str) -> None:
        running = bench(area=ON)
        counted(origin, "Cache-Control: max-age=60")
        get(running, "/thing")
        origin.respond = lambda _: answer(f"Location: {where}", status="303 See Other")
        get(running, "/", "Content-Length: 0", method="POST")
        counted(origin, "Cache-Control: max-age=60", body=b"new")
        assert get(running, "/thing")[2] == b"new 1"

    def test_location_of_another_host(self, bench: Callable[..., Bench], origin: TinyOrigin) -> None:
        running = bench(area=ON)
        counted(origin, "Cache-Control: max-age=60")
        get(running, "/thing")
        origin.respond = lambda _: answer("Location: http://other.test/thing", status="303 See Other")
        get(running, "/", "Content-Length: 0", method="POST")
        assert get(running, "/thing")[2] == b"page 1"

    def test_purge(self, bench: Callable[..., Bench], origin: TinyOrigin) -> None:
        running = bench(area=ON)
        counted(origin, "Cache-Control: max-age=60", "Vary: Accept")
        get(running, "/thing")
        get(running, "/thing", "Accept: text/html")
        get(running, "/other")
        assert running.memory.cache_purge(0, b"site.test", b"/thing") == 3  # two answers, and what they vary by
        assert get(running, "/thing")[2] == b"page 4"
        assert get(running, "/other")[2] == b"page 3"
        running.memory.cache_purge(0)
        assert get(running, "/other")[2] == b"page 5"
        assert running.memory.cache_state()["bytes"] == 1 << 22


class TestStale:
    def test_revalidated_by_etag(self, bench: Callable[..., Bench], origin: TinyOrigin) -> None:
        running = bench(area=ON)
        origin.respond = lambda _: answer("Cache-Control: max-age=1", 'ETag: "v1"', "X-Kind: old", body=b"page")
        get(running)
        time.sleep(1.1)

        def respond(head: bytes) -> bytes:
            assert b'If-None-Match: "v1"' in head
            return b'HTTP/1.1 304 Not Modified\r\nETag: "v1"\r\nCache-Control: max-age=60\r\nX-Kind: new\r\n\r\n'

        origin.respond = respond
        status, fields, body = get(running, "/", 'If-None-Match: "mine"')
        assert (status, body) == (200, b"page")
        assert b'"mine"' not in origin.requests[-1]
        assert fields["x-kind"] == "new"
        assert fields["cache-status"] == "scrubber; fwd=stale"
        for _ in range(2):
            status, fields, body = get(running)
            assert (status, body, fields["x-kind"], fields["cache-control"]) == (200, b"page", "new", "max-age=60")
        assert len(origin.requests) == 2

    def test_revalidated_by_last_modified_and_replaced(self, bench: Callable[..., Bench], origin: TinyOrigin) -> None:
        running = bench(area=ON)
        modified = email.utils.formatdate(1e9, usegmt=True)
        counted(origin, "Cache-Control: max-age=1", f"Last-Modified: {modified}")
        get(running)
        time.sleep(1.1)
        assert get(running)[2] == b"page 2"
        assert f"If-Modified-Since: {modified}".encode() in origin.requests[-1]
        assert get(running)[2] == b"page 2"

    @pytest.mark.parametrize("control", ["max-age=1", "max-age=1, must-revalidate", "s-maxage=1"])
    def test_while_the_origin_is_dead(self, bench: Callable[..., Bench], origin: TinyOrigin, control: str) -> None:
        running = bench(area=ON)
        counted(origin, f"Cache-Control: {control}")
        get(running)
        origin.respond = lambda _: None
        origin.close()
        time.sleep(1.1)
        for _ in range(3):
            status, fields, body = get(running)
            if control == "max-age=1":
                assert (status, body) == (200, b"page 1")
                assert fields["age"] == "1"
                assert fields["cache-status"].startswith("scrubber; hit; ttl=")
            else:
                assert status == 502
        assert get(running, "/never-seen")[0] == 502

    def test_stale_if_error(self, bench: Callable[..., Bench], origin: TinyOrigin) -> None:
        running = bench(area=ON + 'stale_max = "0s"\n')
        counted(origin, "Cache-Control: max-age=1, stale-if-error=60")
        get(running)
        get(running, "/plain")
        counted(origin, "Cache-Control: max-age=1")
        get(running, "/plain2")
        time.sleep(1.1)
        origin.respond = lambda _: answer(status="500 Oh", body=b"broken")
        assert get(running)[2] == b"page 1"
        assert get(running, "/plain2")[0] == 500

    def test_stale_while_revalidate(self, bench: Callable[..., Bench], origin: TinyOrigin) -> None:
        running = bench(area=ON)
        counted(origin, "Cache-Control: max-age=1, stale-while-revalidate=60")
        get(running)
        time.sleep(1.1)
        go = threading.Event()

        def slow(_: bytes) -> bytes:
            go.wait(10)
            return answer("Cache-Control: max-age=60", body=b"new")

        origin.respond = slow
        found: list[bytes] = []
        first = threading.Thread(target=lambda: found.append(get_slowly(running)))
        first.start()
        until = time.monotonic() + 5
        while len(origin.requests) < 2 and time.monotonic() < until:
            time.sleep(0.01)
        status, fields, body = get(running)
        assert (status, body) == (200, b"page 1")
        assert int(fields["age"]) >= 1
        go.set()
        first.join()
        assert found[0].endswith(b"new")
        assert get(running)[2] == b"new"
        assert len(origin.requests) == 2


class TestCollapsing:
    def many(self, running: Bench, count: int, path: str = "/") -> list[bytes]:
        found: list[bytes] = []
        threads = [threading.Thread(target=lambda: found.append(get_slowly(running, path))) for _ in range(count)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return found

    def test_many_ask_once(self, bench: Callable[..., Bench], origin: TinyOrigin) -> None:
        running = bench(area=MICRO)

        def slow(_: bytes) -> bytes:
            time.sleep(0.3)
            return answer(body=b"once")

        origin.respond = slow
        found = self.many(running, 40)
        assert len(origin.requests) == 1
        assert all(each.endswith(b"once") for each in found)
        assert len(found) == 40
        totals = running.memory.totals([0])["areas"][0]
        assert totals["cache_misses"] == 1
        assert totals["cache_collapsed"] + totals["cache_hits"] == 39
        assert totals["cache_collapsed"] > 0

    def test_an_answer_that_is_stale_when_it_comes_is_still_theirs(
        self, bench: Callable[..., Bench], origin: TinyOrigin
    ) -> None:
        running = bench(area=ON)

        def slow(_: bytes) -> bytes:
            time.sleep(1.3)
            return answer("Cache-Control: max-age=1", body=b"once")

        origin.respond = slow
        found = self.many(running, 20)
        assert len(origin.requests) == 1
        assert all(each.endswith(b"once") for each in found)

    def test_what_cannot_be_kept_is_not_waited_for_twice(self, bench: Callable[..., Bench], origin: TinyOrigin) -> None:
        running = bench(area=ON)

        def slow(_: bytes) -> bytes:
            time.sleep(0.3)
            return answer("Cache-Control: private", body=b"own")

        origin.respond = slow
        began = time.monotonic()
        found = self.many(running, 10)
        assert all(each.endswith(b"own") for each in found)
        assert len(origin.requests) == 10
        assert time.monotonic() - began < 2.5  # not one after the other
        # When it can be kept after all, it is, and people are given it.
        counted(origin, "Cache-Control: max-age=60")
        assert get(running)[2] == b"page 1"
        assert get(running)[2] == b"page 1"

    def test_the_one_who_fetches_may_go(self, bench: Callable[..., Bench], origin: TinyOrigin) -> None:
        running = bench(area=MICRO)
        go = threading.Event()

        def slow(_: bytes) -> bytes:
            go.wait(10)
            return answer(body=b"once")

        origin.respond = slow
        s = running.connect()
        s.sendall(b"GET / HTTP/1.1\r\nHost: site.test\r\n\r\n")
        until = time.monotonic() + 5
        while not origin.requests and time.monotonic() < until:
            time.sleep(0.01)
        found: list[bytes] = []
        waiting = threading.Thread(target=lambda: found.append(get_slowly(running)))
        waiting.start()
        time.sleep(0.2)
        s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        s.close()
        time.sleep(0.2)
        go.set()
        waiting.join()
        assert found[0].endswith(b"once")
        assert len(origin.requests) == 2

    def test_a_slow_reader_who_fetches_holds_up_nobody(self, bench: Callable[..., Bench], origin: TinyOrigin) -> None:
        running = bench(area=MICRO)
        body = bytes(i & 0xFF for i in range(256)) * 1000
        origin.respond = lambda _: answer(body=body)
        with socket.socket() as slow:
            slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            slow.bind(("127.0.0.2", 0))
            slow.settimeout(10)
            slow.connect(("127.0.0.1", running.port))
            slow.sendall(b"GET / HTTP/1.1\r\nHost: site.test\r\nConnection: close\r\n\r\n")
            time.sleep(0.3)
            status, fields, found = get(running)
            assert (status, found == body) == (200, True)
            assert "age" in fields
            assert len(origin.requests) == 1
            assert read_all(slow).endswith(body)

    def test_too_many_who_wait(self, bench: Callable[..., Bench], origin: TinyOrigin) -> None:
        running = bench(area=MICRO + "wait_max = 4\n")

        def slow(_: bytes) -> bytes:
            time.sleep(0.5)
            return answer(body=b"once")

        origin.respond = slow
        found = self.many(running, 12)
        served = [each for each in found if each.endswith(b"once")]
        assert 4 <= len(served) < 12  # the one who fetches, three newcomers, and who came when it was there
        assert all(b" 503 " in each for each in found if each not in served)
        assert len(origin.requests) == 1

    def test_a_failure_is_everybodys(self, bench: Callable[..., Bench], origin: TinyOrigin) -> None:
        running = bench(area=MICRO + '[area.limits]\nread_timeout = "500ms"\n')

        def never(_: bytes) -> bytes:
            time.sleep(1.5)
            return answer(body=b"late")

        origin.respond = never
        found = self.many(running, 10)
        assert all(b" 504 " in each or b" 502 " in each for each in found)
        assert len(origin.requests) == 1


def test_memory_is_bounded_over_many_urls(bench: Callable[..., Bench], origin: TinyOrigin) -> None:
    running = bench(area=ON)
    origin.respond = lambda _: answer("Cache-Control: max-age=60", body=bytes(100_000))
    with running.connect() as s:
        for i in range(120):
            s.sendall(f"GET /{i} HTTP/1.1\r\nHost: site.test\r\n\r\n".encode())
            got = b""
            while len(got) < 100_000:
                got += s.recv(262144)
    state = running.memory.cache_state()
    assert state["used"] == state["bytes"] == 1 << 22
    before = len(origin.requests)
    get(running, "/119")
    assert len(origin.requests) == before
    get(running, "/0")
    assert len(origin.requests) == before + 1
