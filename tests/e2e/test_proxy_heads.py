"""What heads say of the gateway and of a request: ids, Via, Server; and what they may ask for: ranges, Expect."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from tests.e2e.proxy import Proxy
from tests.e2e.recorder import raw, respond
from tests.e2e.wire import Wire, fetch

TRUSTED = "127.0.6.1"
OURS = re.compile("[0-9a-f]{16}")


class TestRequestIds:
    @pytest.fixture(scope="class")
    @classmethod
    def trusting(cls) -> Iterator[Proxy]:
        with Proxy(listener=f'trusted_proxies = ["{TRUSTED}"]') as found:
            yield found

    def ids(self, found: Proxy, path: str, headers: str, source: str = TRUSTED) -> str:
        """The id of one request, once it is the same in the answer, at the origin and in the log."""
        answer = fetch(found.port, path, headers, source=source)
        name = answer.one("x-request-id")
        assert name
        assert found.origin.last(path).all("x-request-id") == [name]
        assert found.lines(path)[-1]["http.request.id"] == name
        return name

    @pytest.mark.parametrize(
        "given",
        ["a", "x" * 128, "550e8400-e29b-41d4-a716-446655440000", "Zm9v+/Zg==", "urn:uuid:1@edge", "!#$%&'*+-.^_`|~"],
    )
    def test_a_trusted_proxy_s_id_is_taken_over(self, trusting: Proxy, given: str) -> None:
        path = f"/taken/{abs(hash(given))}"
        assert self.ids(trusting, path, f"X-Request-Id: {given}\r\nX-Forwarded-For: 203.0.113.1\r\n") == given

    def test_a_trusted_proxy_s_own_request_keeps_its_id(self, trusting: Proxy) -> None:
        assert self.ids(trusting, "/own", "X-Request-Id: probe-1\r\n") == "probe-1"

    @pytest.mark.parametrize("number", range(9))
    def test_what_is_not_sound_is_replaced(self, trusting: Proxy, number: int) -> None:
        lines = [
            "X-Request-Id:\r\n",
            f"X-Request-Id: {'x' * 129}\r\n",
            "X-Request-Id: two words\r\n",
            'X-Request-Id: "quoted"\r\n',
            "X-Request-Id: back\\slash\r\n",
            "X-Request-Id: <b>\r\n",
            "X-Request-Id: caf\xe9\r\n",
            "X-Request-Id: a\r\nX-Request-Id: a\r\n",
            "X-Request-Id: a,b\r\n",
        ]
        assert OURS.fullmatch(self.ids(trusting, f"/replaced/{number}", lines[number]))

    def test_a_client_s_id_is_not_believed(self, trusting: Proxy) -> None:
        assert OURS.fullmatch(self.ids(trusting, "/client", "X-Request-Id: mine\r\n", source="127.0.6.9"))

    def test_each_request_of_a_connection_has_its_own(self, trusting: Proxy) -> None:
        with Wire(trusting.port, source=TRUSTED) as wire:
            found = [wire.get("/", f"X-Request-Id: r{i}\r\n" if i % 2 else "").one("x-request-id") for i in range(4)]
        assert found[1::2] == ["r1", "r3"]
        assert all(OURS.fullmatch(each or "") for each in found[::2])

    @pytest.mark.parametrize("accept", ["text/html", "application/json"])
    def test_error_pages_say_it(self, proxy: type[Proxy], accept: str) -> None:
        rules = '[[rule]]\nname = "none"\nper = "client"\nlimit = "1/min burst 1"\nthen = ["throttle"]\n'
        with proxy(rules=rules, listener=f'trusted_proxies = ["{TRUSTED}"]') as found:
            given = "r" * 128
            for _ in range(2):
                answer = fetch(
                    found.port,
                    "/page",
                    f"Accept: {accept}\r\nX-Request-Id: {given}\r\nX-Forwarded-For: 203.0.113.4\r\n",
                    source=TRUSTED,
                )
            assert answer.status == 429
            assert answer.one("x-request-id") == given
            assert given.encode() in answer.body
            assert found.lines("/page", 2)[-1]["http.request.id"] == given

    def test_the_origin_s_own_id_does_not_replace_it(self, trusting: Proxy) -> None:
        trusting.origin.answers["/other"] = respond(headers="X-Request-Id: of-the-origin\r\n")
        assert self.ids(trusting, "/other", "X-Request-Id: given\r\n") == "given"

    @pytest.mark.parametrize("source", [TRUSTED, "127.0.6.9"])
    def test_trace_context_passes_untouched(self, trusting: Proxy, source: str) -> None:
        parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
        fetch(trusting.port, "/trace", f"traceparent: {parent}\r\ntracestate: a=1,b=2\r\n", source=source)
        request = trusting.origin.last("/trace")
        assert (request.one("traceparent"), request.one("tracestate")) == (parent, "a=1,b=2")


class TestVia:
    def test_by_default_the_origin_is_told_and_the_client_not(self, site: Proxy) -> None:
        answer = fetch(site.port, "/via")
        assert site.origin.last("/via").all("via") == ["1.1 scrubber"]
        assert answer.all("via") == []

    def test_ours_comes_behind_the_others(self, site: Proxy) -> None:
        fetch(site.port, "/behind", "Via: 1.0 fred, 1.1 p.example.net\r\nVia: 2 third\r\n")
        assert site.origin.last("/behind").all("via") == ["1.0 fred, 1.1 p.example.net, 2 third, 1.1 scrubber"]

    def test_the_version_is_the_message_s(self, site: Proxy) -> None:
        with Wire(site.port) as wire:
            wire.send(b"GET /old HTTP/1.0\r\nHost: site.test\r\n\r\n")
            assert wire.answer().status == 200
        assert site.origin.last("/old").all("via") == ["1.0 scrubber"]

    def test_a_pseudonym_both_ways(self, proxy: type[Proxy]) -> None:
        with proxy(gateway='via = "edge-1:443"\nvia_response = true') as found:
            found.origin.answers["/old"] = raw(
                b"HTTP/1.0 200 OK\r\nVia: 1.1 inner\r\nContent-Length: 2\r\n\r\nok", close=True
            )
            assert fetch(found.port, "/").all("via") == ["1.1 edge-1:443"]
            assert fetch(found.port, "/old").all("via") == ["1.1 inner, 1.0 edge-1:443"]
            assert found.origin.last("/").all("via") == ["1.1 edge-1:443"]

    def test_none_of_ours(self, proxy: type[Proxy]) -> None:
        with proxy(gateway='via = ""\nvia_response = true') as found:
            found.origin.answers["/inner"] = respond(headers="Via: 1.1 inner\r\n")
            assert fetch(found.port, "/").all("via") == []
            assert fetch(found.port, "/inner", "Via: 1.1 cdn\r\n").all("via") == ["1.1 inner"]
            assert found.origin.last("/").all("via") == []
            assert found.origin.last("/inner").all("via") == ["1.1 cdn"]

    def test_an_area_s_own(self, proxy: type[Proxy]) -> None:
        with proxy(gateway='via = "gate"', area='via = "portal"\nvia_response = true') as found:
            assert fetch(found.port, "/").all("via") == ["1.1 portal"]
            assert found.origin.last("/").all("via") == ["1.1 portal"]


class TestServer:
    def servers(self, found: Proxy) -> tuple[list[str], list[str], list[str]]:
        """Of an answer with the field, of one without, and of one that is ours."""
        found.origin.answers["/with"] = respond(headers="Server: nginx/1.22.1\r\n")
        ours = fetch(found.port, "/", "Expect: x\r\n")
        assert ours.status == 417
        return (*(fetch(found.port, path).all("server") for path in ("/with", "/without")), ours.all("server"))

    def test_kept_by_default(self, proxy: type[Proxy]) -> None:
        with proxy() as found:
            assert self.servers(found) == (["nginx/1.22.1"], [], [])

    def test_hidden(self, proxy: type[Proxy]) -> None:
        with proxy(gateway='server = "hide"') as found:
            assert self.servers(found) == ([], [], [])

    def test_another_text(self, proxy: type[Proxy]) -> None:
        with proxy(gateway='server = "Portal (of the ministry)"') as found:
            assert self.servers(found) == (["Portal (of the ministry)"],) * 3

    def test_an_area_s_own_and_reloaded(self, proxy: type[Proxy]) -> None:
        with proxy(gateway='server = "hide"', area='server = "keep"') as found:
            assert self.servers(found) == (["nginx/1.22.1"], [], [])
            file = found.directory / "gateway.toml"
            file.write_text(file.read_text().replace('server = "keep"', 'server = "x"'))
            assert found.running.cli("reload").returncode == 0
            assert self.servers(found) == (["x"],) * 3


def ranges(count: int) -> str:
    return "bytes=" + ",".join(f"{i * 10}-{i * 10 + 4}" for i in range(count))


class TestRanges:
    @pytest.mark.parametrize(
        "value", ["bytes=0-99", "bytes=-5", "bytes=0-", "items=1", "bytes=9-2", ranges(2), ranges(16)]
    )
    def test_as_many_as_people_need_pass_untouched(self, site: Proxy, value: str) -> None:
        body = b"--b\r\nContent-Range: bytes 0-4/100\r\n\r\nhello\r\n--b--\r\n"
        site.origin.answers["/part"] = respond(
            body, "206 Partial Content", 'Content-Type: multipart/byteranges; boundary=b\r\nETag: "e"\r\n'
        )
        answer = fetch(site.port, "/part", f'Range: {value}\r\nIf-Range: "e"\r\n')
        assert (answer.status, answer.body) == (206, body)
        assert answer.one("content-type") == "multipart/byteranges; boundary=b"
        request = site.origin.last("/part")
        assert (request.all("range"), request.one("if-range")) == ([value], '"e"')

    @pytest.mark.parametrize(
        "headers",
        [
            f"Range: {ranges(17)}\r\n",
            f"Range: bytes=0-{',0-' * 999}\r\n",
            f"Range: bytes={',' * 16}\r\n",
            f"Range: {ranges(10)}\r\nrange: {ranges(10)}\r\n",
        ],
    )
    def test_more_are_refused(self, site: Proxy, headers: str) -> None:
        before = len(site.origin.of("/many"))
        lines = len([r for r in site.running.log_lines() if r.get("url.path") == "/many"])
        with Wire(site.port) as wire:
            assert wire.get("/many", headers).status == 416
            assert wire.get("/after").status == 200, "the connection lives on"
        assert len(site.origin.of("/many")) == before
        assert site.lines("/many", lines + 1)[-1]["error.code"] == "too_many_ranges"

    def test_the_limit_is_the_area_s(self, proxy: type[Proxy]) -> None:
        with proxy(limits="ranges_max = 1") as found:
            assert fetch(found.port, "/", f"Range: {ranges(1)}\r\n").status == 200
            assert fetch(found.port, "/", f"Range: {ranges(2)}\r\n").status == 416


class TestExpect:
    @pytest.mark.parametrize("value", ["101-switching", "100-continue, x", "x", "", "100-Continue "])
    def test_nothing_but_100_continue(self, site: Proxy, value: str) -> None:
        sound = value.strip().lower() == "100-continue"
        before = len(site.origin.of("/expect"))
        answer = fetch(site.port, "/expect", f"Expect: {value}\r\n")
        assert answer.status == (200 if sound else 417)
        assert len(site.origin.of("/expect")) == before + sound

    def test_refused_before_the_body(self, site: Proxy) -> None:
        with Wire(site.port) as wire:
            wire.send(b"POST /body HTTP/1.1\r\nHost: site.test\r\nContent-Length: 5\r\nExpect: 200-ok\r\n\r\n")
            assert wire.answer().status == 417
            assert wire.ends() == "closed"
        assert site.origin.of("/body") == []

    def test_one_of_several(self, site: Proxy) -> None:
        assert fetch(site.port, "/", "Expect: 100-continue\r\nExpect: other\r\n").status == 417
