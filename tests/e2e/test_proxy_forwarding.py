"""What is forwarded is written by us; what a client claims about others is replaced; which area answers for whom."""

from __future__ import annotations

import email.utils
import json
import re
import socket
import time
from collections.abc import Iterator

import pytest

from tests.e2e.proxy import Proxy
from tests.e2e.recorder import Recorder, raw, respond
from tests.e2e.wire import Wire, fetch


def test_forwarded_fields_are_ours(site: Proxy) -> None:
    assert fetch(site.port, "/ours", source="127.0.2.9").status == 200
    request = site.origin.last("/ours")
    assert request.one("x-forwarded-for") == "127.0.2.9"
    assert request.one("x-forwarded-proto") == "http"
    assert request.one("x-forwarded-host") == "site.test"
    forwarded = request.one("forwarded")
    assert forwarded is not None
    pairs = dict(pair.split("=", 1) for pair in forwarded.replace('"', "").split(";"))
    assert pairs["for"] == "127.0.2.9"
    assert pairs["proto"] == "http"
    assert pairs["host"] == "site.test"


def test_forged_fields_of_a_stranger_are_replaced(site: Proxy) -> None:
    forged = (
        "X-Forwarded-For: 198.51.100.1\r\nX-Forwarded-For: 127.0.0.1, 10.0.0.1\r\nX-Forwarded-Proto: https\r\n"
        "X-Forwarded-Host: evil.test\r\nX-Forwarded-Port: 1\r\nForwarded: for=198.51.100.1;proto=https\r\n"
        "X-Real-IP: 198.51.100.1\r\n"
    )
    assert fetch(site.port, "/forged", forged, source="127.0.2.10").status == 200
    request = site.origin.last("/forged")
    assert request.one("x-forwarded-for") == "127.0.2.10"
    assert request.one("x-forwarded-proto") == "http"
    assert request.one("x-forwarded-host") == "site.test"
    assert b"198.51.100.1" not in request.head
    assert b"evil.test" not in request.head


def test_spellings_that_a_lax_origin_reads_alike_are_not_passed_on(site: Proxy) -> None:
    """CGI and WSGI read X_Forwarded_For and X-Forwarded-For as one variable."""
    fetch(site.port, "/underscore", "X_Forwarded_For: 198.51.100.7\r\n")
    assert all(b"198.51.100.7" not in request.head for request in site.origin.of("/underscore"))


def test_hop_by_hop_fields_are_dropped(site: Proxy) -> None:
    hop = (
        "Connection: keep-alive, X-Named, Keep-Alive\r\nKeep-Alive: timeout=5\r\nX-Named: secret\r\n"
        "Proxy-Connection: keep-alive\r\nTE: trailers\r\nX-Stays: here\r\n"
    )
    assert fetch(site.port, "/hop", hop).status == 200
    request = site.origin.last("/hop")
    for name in ("keep-alive", "x-named", "proxy-connection"):
        assert request.one(name) is None, name
    assert "X-Named" not in (request.one("connection") or "")
    assert request.one("x-stays") == "here"


def test_hop_by_hop_fields_of_the_answer_are_dropped(site: Proxy) -> None:
    site.origin.answers["/hop-down"] = raw(
        b"HTTP/1.1 200 OK\r\nConnection: X-Named\r\nX-Named: secret\r\nKeep-Alive: timeout=5\r\n"
        b"Proxy-Connection: close\r\nX-Stays: here\r\nContent-Length: 0\r\n\r\n"
    )
    answer = fetch(site.port, "/hop-down")
    for name in ("x-named", "keep-alive", "proxy-connection"):
        assert answer.one(name) is None, name
    assert answer.one("x-stays") == "here"


def test_what_an_origin_asks_of_a_proxy_is_not_asked_of_the_client(site: Proxy) -> None:
    site.origin.answers["/proxy-auth"] = raw(
        b"HTTP/1.1 407 Ask\r\nProxy-Authenticate: Basic realm=x\r\nWWW-Authenticate: Basic realm=y\r\n"
        b"Content-Length: 0\r\n\r\n"
    )
    answer = fetch(site.port, "/proxy-auth", "Proxy-Authorization: Basic eA==\r\n")
    assert (answer.status, answer.one("www-authenticate")) == (407, "Basic realm=y")
    assert answer.one("proxy-authenticate") is None
    assert site.origin.last("/proxy-auth").one("proxy-authorization") is None


class TestDate:
    def test_an_answer_without_one_gets_it(self, site: Proxy) -> None:
        """RFC 9110 6.6.1."""
        site.origin.answers["/dateless"] = raw(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        dates = fetch(site.port, "/dateless").all("date")
        assert len(dates) == 1
        assert abs(email.utils.parsedate_to_datetime(dates[0]).timestamp() - time.time()) < 10

    def test_the_origin_s_own_stays(self, site: Proxy) -> None:
        own = "Sun, 06 Nov 1994 08:49:37 GMT"
        site.origin.answers["/dated"] = raw(f"HTTP/1.1 200 OK\r\nDate: {own}\r\nContent-Length: 0\r\n\r\n".encode())
        assert fetch(site.port, "/dated").all("date") == [own]


def test_a_host_that_nobody_named_is_not_forwarded(site: Proxy) -> None:
    with Wire(site.port, source="127.0.2.12") as wire:
        wire.send(b"GET /hostless HTTP/1.0\r\n\r\n")
        assert wire.answer().status == 200
    request = site.origin.last("/hostless")
    assert request.one("x-forwarded-host") is None
    assert request.one("forwarded") == "for=127.0.2.12;proto=http"


@pytest.mark.parametrize("name", ["Host", "Content-Length", "X-Forwarded-For", "Forwarded"])
def test_connection_may_not_name_what_we_need(site: Proxy, name: str) -> None:
    """Naming a field that we write or frame by must not remove it (or the request is refused)."""
    before = len(site.origin.requests)
    with Wire(site.port, source="127.0.2.11") as wire:
        wire.send(
            f"POST /named HTTP/1.1\r\nHost: site.test\r\nConnection: {name}\r\nContent-Length: 2\r\n\r\nok".encode()
        )
        status = wire.answer("POST").status
    assert status in (200, 400)
    for request in site.origin.requests[before:]:
        assert request.one("host") == "site.test"
        assert request.body == b"ok"
        assert request.one("x-forwarded-for") == "127.0.2.11"
        assert request.one("forwarded") is not None


def test_end_to_end_fields_arrive_in_order_and_unchanged(site: Proxy) -> None:
    fields = [
        ("x-a", "1"),
        ("x-b", 'quoted "a, b"; c'),
        ("x-a", "2"),
        ("x-latin", "caf\xe9"),
        ("x-empty", ""),
        ("cookie", "a=b; c=d"),
    ]
    assert fetch(site.port, "/fields", "".join(f"{n}: {v}\r\n" for n, v in fields)).status == 200
    names = {n for n, _ in fields}
    assert [pair for pair in site.origin.last("/fields").headers if pair[0] in names] == fields


def test_fields_of_the_answer_arrive_in_order_and_unchanged(site: Proxy) -> None:
    fields = [
        ("set-cookie", "a=1; Path=/"),
        ("set-cookie", "b=2"),
        ("x-a", "\xfc"),
        ("etag", '"x"'),
        ("location", "/there"),
    ]
    head = "HTTP/1.1 302 Moved  Along\r\n" + "".join(f"{n}: {v}\r\n" for n, v in fields) + "Content-Length: 0\r\n\r\n"
    site.origin.answers["/fields-down"] = raw(head.encode("latin-1"))
    answer = fetch(site.port, "/fields-down")
    names = {n for n, _ in fields}
    assert [pair for pair in answer.headers if pair[0] in names] == fields
    assert answer.status == 302


def test_white_space_around_values_is_not_passed_on(site: Proxy) -> None:
    with Wire(site.port) as wire:
        wire.send(b"GET /space HTTP/1.1\r\nHost: site.test\r\nX-Space: \t value \t \r\n\r\n")
        assert wire.answer().status == 200
    head = site.origin.last("/space").head
    assert re.search(rb"(?i)\r\nx-space: value\r\n", head)


class TestTrustedProxies:
    """A chain of trusted proxies is walked hop by hop, from the socket outwards."""

    @pytest.fixture(scope="class")
    @classmethod
    def behind(cls, proxy: type[Proxy]) -> Iterator[Proxy]:
        with proxy(listener='trusted_proxies = ["127.0.3.1", "127.0.3.2", "10.9.0.0/16"]') as found:
            yield found

    def seen(self, behind: Proxy, source: str, headers: str) -> str | None:
        with Wire(behind.port, source=source) as wire:
            assert wire.get("/chain", headers).status == 200
        return behind.origin.last("/chain").one("x-forwarded-for")

    @pytest.mark.parametrize(
        ("source", "headers", "expected"),
        [
            ("127.0.3.9", "X-Forwarded-For: 203.0.113.1\r\n", "127.0.3.9"),
            ("127.0.3.1", "", "127.0.3.1"),
            ("127.0.3.1", "X-Forwarded-For: 203.0.113.1\r\n", "203.0.113.1, 127.0.3.1"),
            ("127.0.3.1", "X-Forwarded-For: 203.0.113.1, 127.0.3.2\r\n", "203.0.113.1, 127.0.3.2, 127.0.3.1"),
            (
                "127.0.3.2",
                "X-Forwarded-For: 203.0.113.1\r\nX-Forwarded-For: 10.9.1.1\r\n",
                "203.0.113.1, 10.9.1.1, 127.0.3.2",
            ),
        ],
    )
    def test_chain(self, behind: Proxy, source: str, headers: str, expected: str) -> None:
        assert self.seen(behind, source, headers) == expected

    @pytest.mark.parametrize(
        ("headers", "expected"),
        [
            ("X-Forwarded-For: 2001:db8::1\r\n", "2001:db8::1, 127.0.3.1"),
            ("X-Forwarded-For: [2001:db8::1]:4711\r\n", "2001:db8::1, 127.0.3.1"),
            ("X-Forwarded-For: ::ffff:203.0.113.1\r\n", "203.0.113.1, 127.0.3.1"),
            ("X-Forwarded-For: 203.0.113.1:80, ::ffff:10.9.1.1\r\n", "203.0.113.1, 10.9.1.1, 127.0.3.1"),
            ("X-Forwarded-For: 203.0.113.1, fe80::1%eth0\r\n", "127.0.3.1"),
            ("X-Forwarded-For: 203.0.113.1, unknown\r\n", "127.0.3.1"),
            ("X-Forwarded-For: 203.0.113.1, _hidden, 127.0.3.2\r\n", "127.0.3.2, 127.0.3.1"),
            ('Forwarded: for="[2001:db8::1]:4711";proto=https\r\n', "2001:db8::1, 127.0.3.1"),
            ("Forwarded: for=203.0.113.1, for=_hidden\r\n", "127.0.3.1"),
        ],
    )
    def test_forms_of_a_hop(self, behind: Proxy, headers: str, expected: str) -> None:
        """Every sound form is read; an obfuscated name, a zone id or rubbish ends the walk at the last proven hop."""
        assert self.seen(behind, "127.0.3.1", headers) == expected

    @pytest.mark.parametrize(
        ("headers", "proto", "host", "forwarded"),
        [
            (
                'Forwarded: for="[2001:db8::1]:99";proto=https;host=abc, for=127.0.3.2\r\n',
                "https",
                "abc",
                'for="[2001:db8::1]";proto=https;host="abc", for=127.0.3.2, for=127.0.3.1;proto=http;host="site.test"',
            ),
            (
                "Forwarded: for=203.0.113.9;proto=https;host=claimed, for=203.0.113.1\r\n",
                "http",
                "site.test",
                'for=203.0.113.1, for=127.0.3.1;proto=http;host="site.test"',
            ),
            (
                "X-Forwarded-For: 203.0.113.1, 10.9.1.1\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: a.test\r\n",
                "https",
                "a.test",
                'for=203.0.113.1;proto=https;host="a.test", for=10.9.1.1, for=127.0.3.1;proto=http;host="site.test"',
            ),
            (
                'X-Forwarded-For: 203.0.113.1\r\nX-Forwarded-Proto: https, http\r\nX-Forwarded-Host: a";b="\r\n',
                "https, http",
                'a";b="',
                'for=203.0.113.1, for=127.0.3.1;proto=http;host="site.test"',
            ),
            (
                "X-Forwarded-For: 203.0.113.1\r\nForwarded: for=203.0.113.1;proto=https;host=evil\r\n",
                "http",
                "site.test",
                'for=203.0.113.1, for=127.0.3.1;proto=http;host="site.test"',
            ),
        ],
    )
    def test_how_the_client_came_is_kept(
        self, behind: Proxy, headers: str, proto: str, host: str, forwarded: str
    ) -> None:
        """Of the element that names the client; what stands beyond it, or in the other field, is a claim."""
        assert fetch(behind.port, "/came", headers, source="127.0.3.1").status == 200
        request = behind.origin.last("/came")
        assert (request.all("x-forwarded-proto"), request.all("x-forwarded-host")) == ([proto], [host])
        assert request.all("forwarded") == [forwarded]

    def test_a_client_that_came_by_https_is_known_as_such(self, proxy: type[Proxy]) -> None:
        edits = 'request_headers = { set = { X-Scheme = "{scheme}" } }'
        with proxy(listener='trusted_proxies = ["127.0.3.1"]', area=edits) as found:
            for proto in ("https", "http"):
                fetch(found.port, "/scheme", f"Forwarded: for=203.0.113.1;proto={proto}\r\n", source="127.0.3.1")
                assert found.origin.last("/scheme").one("x-scheme") == proto

    def test_each_listener_trusts_its_own(self, proxy: type[Proxy]) -> None:
        other = '[[listener]]\naddress = "127.0.0.1:0"\ntrusted_proxies = ["127.0.3.1"]'
        with proxy(address="[::1]:0", listener=f'trusted_proxies = ["::1"]\n{other}') as found:
            six, four = (int(url.rpartition(":")[2]) for url in found.running.status()["listeners"])
            for port, how, expected in (
                (six, {"host": "::1"}, "203.0.113.1, ::1"),
                (four, {"source": "127.0.3.1"}, "203.0.113.1, 127.0.3.1"),
                (four, {"source": "127.0.3.2"}, "127.0.3.2"),
            ):
                with Wire(port, **how) as wire:
                    assert wire.get("/own", "X-Forwarded-For: 203.0.113.1\r\n").status == 200
                assert found.origin.last("/own").one("x-forwarded-for") == expected

    def test_what_the_first_stranger_claims_is_cut(self, behind: Proxy) -> None:
        """203.0.113.1 is the client that the trusted hop saw; what stands left of it is its own word."""
        seen = self.seen(behind, "127.0.3.1", "X-Forwarded-For: 203.0.113.66, 203.0.113.1\r\n")
        assert seen is not None
        assert seen.split(", ")[-2:] == ["203.0.113.1", "127.0.3.1"]
        assert "203.0.113.66" not in seen


class TestAreas:
    """Who serves whom: the Host decides, a default catches the rest, nobody else's host is answered for."""

    @pytest.fixture(scope="class")
    @classmethod
    def two(cls, proxy: type[Proxy]) -> Iterator[Proxy]:
        with Recorder() as other:
            other.default = respond(b"other")
            area = (
                f'\n[[area]]\nname = "other"\nhosts = ["other.test", "*.other.test"]\norigins = ["{other.address}"]\n'
            )
            with proxy(default=False, extra=area) as found:
                yield found

    @pytest.mark.parametrize(
        ("host", "body"),
        [
            ("site.test", b"ok"),
            ("SITE.Test", b"ok"),
            ("site.test:8080", b"ok"),
            ("other.test", b"other"),
            ("deep.below.other.test", b"other"),
        ],
    )
    def test_host_chooses_the_area(self, two: Proxy, host: str, body: bytes) -> None:
        assert fetch(two.port, "/", host=host).body == body

    @pytest.mark.parametrize("host", ["unknown.test", "notother.test", "site.test.evil.test", "127.0.0.1", "[::1]"])
    def test_unknown_host_is_421(self, two: Proxy, host: str) -> None:
        before = len(two.origin.requests)
        assert fetch(two.port, "/", host=host).status == 421
        assert len(two.origin.requests) == before

    def test_each_request_of_a_connection_chooses_anew(self, two: Proxy) -> None:
        with Wire(two.port) as wire:
            assert [wire.get("/", host=h).body for h in ("site.test", "other.test", "site.test")] == [
                b"ok",
                b"other",
                b"ok",
            ]

    def test_the_default_area_answers_for_the_rest(self, site: Proxy) -> None:
        assert fetch(site.port, "/default", host="whatever.test").status == 200
        assert site.origin.last("/default").one("host") == "whatever.test"

    def test_the_origins_own_host_where_the_clients_is_not_kept(self, proxy: type[Proxy]) -> None:
        with proxy(area="keep_host = false") as found:
            assert fetch(found.port, "/host").status == 200
            request = found.origin.last("/host")
            assert request.one("host") == found.origin.address
            assert request.one("x-forwarded-host") == "site.test"


def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as sock:
            sock.bind(("::1", 0))
    except OSError:
        return False
    return True


@pytest.mark.skipif(not has_ipv6(), reason="no IPv6 loopback here")
def test_ipv6_listener_and_ipv6_origin(proxy: type[Proxy]) -> None:
    with proxy(address="[::1]:0", origin_host="::1") as found, Wire(found.port, host="::1") as wire:
        assert wire.get("/six", host="[::1]").status == 200
        request = found.origin.last("/six")
        assert request.one("x-forwarded-for") == "::1"
        assert 'for="[::1]"' in (request.one("forwarded") or "")


class TestErrorPages:
    """Plain and short, JSON (RFC 9457) where asked for, each with a request id, nothing of the request in it."""

    KINDS = (("application/json", "application/problem+json"), ("text/html", "text/plain; charset=utf-8"))

    @pytest.fixture(scope="class")
    @classmethod
    def dead(cls, proxy: type[Proxy]) -> Iterator[Proxy]:
        with proxy() as found:
            found.origin.stop_listening()
            yield found

    def test_plain(self, dead: Proxy) -> None:
        answer = fetch(dead.port, "/<script>")
        assert answer.status == 502
        assert (answer.one("content-type") or "").startswith("text/plain")
        request_id = answer.one("x-request-id")
        assert request_id
        assert request_id.encode() in answer.body
        assert len(answer.body) < 1000
        assert b"script" not in answer.body

    def test_json(self, dead: Proxy) -> None:
        answer = fetch(dead.port, "/", "Accept: application/json\r\n")
        assert answer.status == 502
        assert answer.one("content-type") == "application/problem+json"
        problem = json.loads(answer.body)
        assert problem["status"] == 502
        assert problem["title"]
        request_id = answer.one("x-request-id")
        assert request_id
        assert request_id in answer.body.decode()

    @pytest.mark.parametrize(
        ("head", "status"),
        [
            ("TRACE / HTTP/1.1\r\nHost: a\r\n{}", 501),
            ("GET / HTTP/2.0\r\nHost: a\r\n{}", 505),
            ("GET / HTTP/1.1\r\nHost: a\r\nExpect: else\r\n{}", 417),
            ("GET / HTTP/1.1\r\nHost: a\r\n{}Bad Name: x\r\n", 400),
            ("GET / HTTP/1.1\r\n{}", 400),
            ("GET /" + "a" * 9000 + " HTTP/1.1\r\nHost: a\r\n{}", 414),
            ("GET / HTTP/1.1\r\nHost: a\r\n{}" + "X: y\r\n" * 200, 431),
            ("GET / HTTP/1.1\r\nHost: a\r\n{}" + f"X: {'y' * 4000}\r\n" * 8, 431),
        ],
    )
    def test_a_refused_head_is_answered_as_it_asks(self, dead: Proxy, head: str, status: int) -> None:
        for accept, kind in self.KINDS:
            with Wire(dead.port) as wire:
                wire.send((head.format(f"Accept: {accept}\r\n") + "\r\n").encode())
                answer = wire.answer()
                assert (answer.status, answer.one("content-type")) == (status, kind)
                assert wire.ends() != "open"
            assert kind.startswith("text") or json.loads(answer.body)["status"] == status

    def test_so_is_a_late_one(self, proxy: type[Proxy]) -> None:
        with proxy(limits='head_timeout = "300ms"') as found:
            for accept, kind in self.KINDS:
                with Wire(found.port) as wire:
                    wire.send(f"GET / HTTP/1.1\r\nHost: site.test\r\nAccept: {accept}\r\nX-Ne".encode())
                    answer = wire.answer()
                    assert (answer.status, answer.one("content-type")) == (408, kind)

    def test_ids_differ(self, dead: Proxy) -> None:
        ids = {fetch(dead.port, "/").one("x-request-id") for _ in range(20)}
        assert len(ids) == 20

    def test_head_has_no_body(self, dead: Proxy) -> None:
        with Wire(dead.port) as wire:
            wire.send(b"HEAD / HTTP/1.1\r\nHost: site.test\r\nConnection: close\r\n\r\n")
            answer = wire.answer("HEAD")
            assert answer.status == 502
            assert wire.rest() == b""
