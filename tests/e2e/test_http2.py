"""HTTP/2 towards clients: heads both ways, what comes with each answer, pages, cache, TLS, who the client is."""

from __future__ import annotations

import json
import re
import shutil
import ssl
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from h2.settings import SettingCodes

from tests.e2e.certificates import authority, signed
from tests.e2e.proxy import Proxy
from tests.e2e.recorder import Exchange, Request, raw, respond
from tests.e2e.support import open_way
from tests.e2e.test_proxy_protocol import v2
from tests.e2e.wire import Wire, fetch
from tests.e2e.wire2 import Answer, Wire2

TRUSTED = "127.0.3.1"  # its X-Forwarded-For is believed
PEER = "127.0.9.1"  # names its client by the PROXY protocol
PROTOCOL_ERROR = 1
OURS = re.compile("[0-9a-f]{16}")

LISTENER = f'http2 = true\ntrusted_proxies = ["{TRUSTED}"]\nproxy_protocol = ["{PEER}"]\n'
GATEWAY = 'via = "edge"\nvia_response = true\n[memory]\ncache = "4MiB"\n'
EXTRA = """
[area.cache]
enabled = true
cache_status = true
[area.tls]
certificates = {certificates}
[[area.pool]]
name = "dead"
origins = ["127.0.0.1:1"]
[[area.route]]
path_prefix = "/dead"
pool = "dead"
[[area.route]]
path = "/robots.txt"
file = "robots.txt"
[[area.route]]
path_prefix = "/old/"
redirect = {{ to = "https://site.test/new{{path}}{{query}}", status = 308 }}
[[area.route]]
path = "/teapot"
answer = {{ status = 418, content_type = "application/json", body = '{{"id": "{{request_id}}"}}' }}
[[area]]
name = "closed"
hosts = ["closed.test"]
origins = ["127.0.0.1:1"]
maintenance = {{ file = "soon.html", retry_after = "90s" }}
[[listener]]
address = "127.0.0.1:0"
tls = true
[[listener]]
address = "127.0.0.1:0"
tls = true
http2 = false
"""
SOON = b"<p>soon</p>" * 3000


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    """The module's gateway; ports: clear text, TLS, TLS without HTTP/2."""
    home = tmp_path_factory.mktemp("http2")
    open_way(home)
    (home / "robots.txt").write_bytes(b"User-agent: *\n" * 4000)
    (home / "soon.html").write_bytes(SOON)
    signed("site.test").write(home, "site")
    text = EXTRA.format(certificates=f'{{ chain = "{home}/site.pem", key = "{home}/site.key" }}')
    for name in ("robots.txt", "soon.html"):
        text = text.replace(f'"{name}"', f'"{home}/{name}"')
    with Proxy(gateway=GATEWAY, listener=LISTENER, extra=text, areas=("site", "closed")) as found:
        yield found
        found.whole()
        assert not found.gauge("http2_connections")
        assert not found.gauge("http2_streams")
        assert not found.gauge("http2_session_bytes")
        assert not found.origin.malformed


@pytest.fixture
def wire(site: Proxy) -> Iterator[Wire2]:
    with Wire2(site.port) as found:
        yield found


def trusting(*protocols: str) -> ssl.SSLContext:
    context = ssl.create_default_context(cadata=authority().pem.decode())
    if protocols:
        context.set_alpn_protocols(protocols)
    return context


def plain(answer: Answer) -> tuple[int, bytes, bool, int | None]:
    return answer.status, bytes(answer.body), answer.ended, answer.reset


WHOLE = (200, b"ok", True, None)


# ── requests ──


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "PROPFIND", "M-SEARCH"])
def test_methods_pass_unchanged(site: Proxy, wire: Wire2, method: str) -> None:
    assert plain(wire.answer(wire.request("/method", method))) == WHOLE
    assert site.origin.last("/method").line == f"{method} /method HTTP/1.1"


def test_the_target_reaches_the_origin_as_it_was_sent(site: Proxy, wire: Wire2) -> None:
    target = "/a%2Fb//c/./d;p=1?q=%20x&y=/../z?"
    assert wire.get(target).status == 200
    assert site.origin.requests[-1].target == target
    assert wire.answer(wire.request("*", "OPTIONS")).status == 200
    assert site.origin.requests[-1].line == "OPTIONS * HTTP/1.1"


def test_the_head_at_the_origin(site: Proxy, wire: Wire2) -> None:
    """Fields in their order, Host first; what is ours behind them."""
    given = [("x-first", "1"), ("accept", "*/*"), ("x-empty", ""), ("x-tab", "a\tb"), ("user-agent", "t/1")]
    given += [("x-twice", "1"), ("x-between", "caf\xe9"), ("x-twice", "2"), ("te", "trailers")]
    wire.get("/head?x=1", [(name, value.encode("latin-1")) for name, value in given])
    request = site.origin.last("/head")
    names = [name for name, _ in request.headers]
    assert names[0] == "host"
    assert request.one("host") == "site.test"
    kept = [(name, value) for name, value in request.headers if name in {name for name, _ in given}]
    assert kept == [(name, value) for name, value in given if name != "te"], "hop by hop: it is for us"
    assert request.one("via") == "2.0 edge"
    assert request.one("x-forwarded-for") == "127.0.0.1"
    assert request.one("x-forwarded-proto") == "http"
    assert OURS.fullmatch(request.one("x-request-id") or "")
    assert not {"te", "transfer-encoding", "content-length", "upgrade", "http2-settings"} & set(names)


def test_cookies_become_one_field(site: Proxy, wire: Wire2) -> None:
    """RFC 9113 8.2.3: where the first one stood."""
    wire.get("/cookies", [("x-a", "1"), ("cookie", "a=1"), ("x-b", "2"), ("cookie", "b=2; c=3"), ("cookie", "d=4")])
    request = site.origin.last("/cookies")
    assert request.all("cookie") == ["a=1; b=2; c=3; d=4"]
    assert [name for name, _ in request.headers if name in ("x-a", "cookie", "x-b")] == ["x-a", "cookie", "x-b"]


def test_host_stands_in_for_authority(site: Proxy, wire: Wire2) -> None:
    def fields(path: str) -> list[tuple[str, str]]:
        return [(":method", "GET"), (":scheme", "http"), (":path", path)]

    assert wire.answer(wire.ask([*fields("/host"), ("host", "site.test")])).status == 200
    assert site.origin.last("/host").all("host") == ["site.test"]
    both = [*fields("/both"), (":authority", "SITE.test"), ("host", "site.test")]
    assert wire.answer(wire.ask(both)).status == 200, "the same, in letters of another case"
    assert len(site.origin.last("/both").all("host")) == 1
    assert wire.answer(wire.ask(fields("/none"))).reset == PROTOCOL_ERROR
    assert site.origin.of("/none") == []


def test_request_trailers_are_read_and_end_here(site: Proxy, wire: Wire2) -> None:
    for length in ([], [("content-length", "4")]):
        stream = wire.request("/trailers", "POST", length, end=False)
        wire.send(stream, b"body")
        wire.h2.send_headers(stream, [("x-sum", "1"), ("cookie", "c=1")], end_stream=True)
        wire.flush()
        assert plain(wire.answer(stream)) == WHOLE
        request = site.origin.last("/trailers")
        assert (request.body, request.complete, request.trailers) == (b"body", True, [])
        assert request.one("x-sum") is None


def test_expect_100_continue(site: Proxy, wire: Wire2) -> None:
    """The origin says it, before a byte of the body is there."""
    site.origin.on_head["/expect"] = raw(b"HTTP/1.1 100 Continue\r\n\r\n")
    stream = wire.request("/expect", "POST", [("expect", "100-continue"), ("content-length", "4")], end=False)
    wire.until(lambda: wire.answers[stream].interim, "100")
    assert [fields[0] for fields in wire.answers[stream].interim] == [(":status", "100")]
    wire.send(stream, b"body", end=True)
    assert plain(wire.answer(stream)) == WHOLE
    assert site.origin.last("/expect").body == b"body"
    assert site.origin.last("/expect").one("expect") == "100-continue"
    assert wire.answer(wire.request("/expect2", "POST", [("expect", "x")], end=False)).status == 417


def test_priorities_of_the_older_kind_change_nothing(site: Proxy, wire: Wire2) -> None:
    """As browsers send them with a head: read over, and no part of the fingerprint."""
    assert wire.get("/plain").status == 200
    with Wire2(site.port) as other:
        for stream, depends_on in ((1, 0), (3, 1)):
            more = {"priority_weight": 256, "priority_depends_on": depends_on, "priority_exclusive": True}
            other.answers[stream] = Answer()
            other.h2.send_headers(stream, other.fields("/weighed"), end_stream=True, **more)
            other.flush()
            assert plain(other.answer(stream)) == WHOLE
    assert site.lines("/weighed")[0]["scrubber.http2"] == site.lines("/plain")[0]["scrubber.http2"]


# ── answers ──


def test_the_head_of_an_answer(site: Proxy, wire: Wire2) -> None:
    said = "X-B: 1\r\nSet-Cookie: a=1; Path=/\r\nX-A:  two \r\nSet-Cookie: b=2\r\nServer: o\r\nX-Empty:\r\n"
    said += "Connection: keep-alive, X-Gone\r\nX-Gone: 1\r\nKeep-Alive: timeout=5\r\n"
    said += "Proxy-Connection: x\r\nUpgrade: h2c\r\n"
    site.origin.answers["/said"] = respond(headers=said)
    answer = wire.get("/said")
    assert plain(answer) == WHOLE
    names = [name for name, _ in answer.headers]
    assert names[0] == ":status"
    assert [name for name in names if name in ("x-b", "set-cookie", "x-a")] == [
        "x-b",
        "set-cookie",
        "x-a",
        "set-cookie",
    ]
    assert answer.all("set-cookie") == ["a=1; Path=/", "b=2"]
    assert (answer.one("x-a"), answer.one("server"), answer.one("x-empty")) == ("two", "o", "")
    assert (answer.one("content-length"), answer.one("via")) == ("2", "1.1 edge")
    assert OURS.fullmatch(answer.one("x-request-id") or "")
    assert answer.one("date")
    hop = {"connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade", "x-gone"}
    assert not hop & set(names)
    assert all(name == name.lower() for name in names)


@pytest.mark.parametrize("length", [True, False])
def test_head_has_no_body(site: Proxy, wire: Wire2, length: bool) -> None:
    said = b"Content-Length: 10\r\n" if length else b"Transfer-Encoding: chunked\r\n"
    site.origin.answers["/only"] = raw(b"HTTP/1.1 200 OK\r\n" + said + b"\r\n")
    answer = wire.answer(wire.request("/only", "HEAD"))
    assert plain(answer) == (200, b"", True, None)
    assert answer.one("content-length") == ("10" if length else None)


@pytest.mark.parametrize("status", ["204 No Content", "304 Not Modified", "205 Reset Content"])
def test_answers_without_a_body(site: Proxy, wire: Wire2, status: str) -> None:
    more = "Content-Length: 0\r\n" if status.startswith("205") else 'ETag: "x"\r\n'
    site.origin.answers["/bare"] = raw(f"HTTP/1.1 {status}\r\n{more}\r\n".encode())
    assert plain(wire.get("/bare")) == (int(status[:3]), b"", True, None)
    assert wire.get("/").status == 200


def test_an_empty_answer(site: Proxy, wire: Wire2) -> None:
    site.origin.answers["/empty"] = respond(b"")
    answer = wire.get("/empty")
    assert plain(answer) == (200, b"", True, None)
    assert answer.one("content-length") == "0"


def test_interim_answers_come_before_the_final_one(site: Proxy, wire: Wire2) -> None:
    hints = b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\nConnection: close\r\n\r\n"
    site.origin.answers["/hints"] = raw(
        hints, hints.replace(b"a.css", b"b.css") + b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", pause_s=0.05
    )
    answer = wire.get("/hints")
    assert plain(answer) == WHOLE
    assert [dict(fields)[":status"] for fields in answer.interim] == ["103", "103"]
    assert [dict(fields)["link"] for fields in answer.interim] == ["</a.css>; rel=preload", "</b.css>; rel=preload"]
    assert all("connection" not in dict(fields) for fields in answer.interim)


@pytest.mark.parametrize("pieces", [1, 50])
def test_a_chunked_answer(site: Proxy, wire: Wire2, pieces: int) -> None:
    body = b"".join(b"%x\r\n%s\r\n" % (1000, b"c" * 1000) for _ in range(pieces)) + b"0\r\nX-T: 1\r\n\r\n"
    site.origin.answers["/chunked"] = raw(
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-T\r\n\r\n", body
    )
    answer = wire.get("/chunked")
    assert plain(answer) == (200, b"c" * 1000 * pieces, True, None)
    assert answer.one("content-length") is None


def test_an_answer_that_ends_with_its_connection(site: Proxy, wire: Wire2) -> None:
    site.origin.answers["/close"] = raw(b"HTTP/1.0 200 OK\r\n\r\n", b"up to the end", close=True)
    assert plain(wire.get("/close")) == (200, b"up to the end", True, None)


@pytest.mark.parametrize(
    "cut",
    [b"Content-Length: 10\r\n\r\nhalf", b"Transfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n"],
    ids=["length", "chunked"],
)
def test_an_answer_that_breaks_off_is_a_reset(site: Proxy, wire: Wire2, cut: bytes) -> None:
    """And nobody takes it for whole; the connection goes on."""
    site.origin.answers["/cut"] = raw(b"HTTP/1.1 200 OK\r\n" + cut, close=True)
    answer = wire.get("/cut")
    assert (answer.status, answer.ended) == (200, False)
    assert answer.reset
    assert wire.get("/").status == 200


@pytest.mark.parametrize(
    "bad",
    [
        b"HTTP/1.1 200 OK\r\nX: a\x00b\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nBad Name: x\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        b"not HTTP at all\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
    ],
)
def test_an_origin_s_malformed_answer_is_502(site: Proxy, wire: Wire2, bad: bytes) -> None:
    site.origin.answers["/bad"] = raw(bad, close=True)
    answer = wire.get("/bad")
    assert (answer.status, answer.ended) == (502, True)


def test_fields_that_http2_would_not_take_do_not_break_the_answer(site: Proxy, wire: Wire2) -> None:
    """A hundred of them, long ones, and bytes beyond ASCII."""
    said = "".join(f"X-{i}: {'v' * 90}\r\n" for i in range(90)) + "X-Latin: caf\xe9\r\n"
    site.origin.answers["/many"] = respond(headers=said)
    answer = wire.get("/many")
    assert plain(answer) == WHOLE
    assert answer.one("x-89") == "v" * 90
    assert answer.one("x-latin") == "caf\xe9"


# ── our own answers ──


def test_error_pages_and_problems(wire: Wire2) -> None:
    page = wire.get("/dead")
    assert (page.status, page.ended) == (502, True)
    assert (page.one("content-type") or "").startswith("text/")
    assert len(page.body) == int(page.one("content-length") or 0)
    problem = wire.get("/dead", [("accept", "application/json")])
    assert problem.one("content-type") == "application/problem+json"
    assert json.loads(problem.body)["status"] == 502
    assert (problem.one("x-request-id") or "-") in problem.body.decode()
    assert plain(wire.answer(wire.request("/dead", "HEAD")))[:3] == (502, b"", True)


def test_routes_answer(wire: Wire2) -> None:
    robots = wire.get("/robots.txt")
    assert (robots.status, bytes(robots.body)) == (200, b"User-agent: *\n" * 4000)
    tag = robots.one("etag")
    assert tag
    assert plain(wire.get("/robots.txt", [("if-none-match", tag)])) == (304, b"", True, None)
    moved = wire.get("/old/x%20y?q=1")
    assert (moved.status, moved.one("location")) == (308, "https://site.test/new/old/x%20y?q=1")
    teapot = wire.get("/teapot")
    assert (teapot.status, json.loads(teapot.body)["id"]) == (418, teapot.one("x-request-id"))


def test_maintenance_and_unknown_hosts(wire: Wire2) -> None:
    soon = wire.get(host="closed.test")
    assert (soon.status, soon.one("retry-after"), bytes(soon.body)) == (503, "90", SOON)
    assert wire.get("/").status == 200, "the same connection, another area"


# ── cache ──


def test_both_versions_share_the_cache(site: Proxy, wire: Wire2) -> None:
    site.origin.answers["/kept"] = respond(b"k" * 200_000, headers='Cache-Control: max-age=60\r\nETag: "k"\r\n')
    assert bytes(wire.get("/kept").body) == b"k" * 200_000
    again = wire.get("/kept")
    assert (again.status, bytes(again.body)) == (200, b"k" * 200_000)
    assert "hit" in (again.one("cache-status") or "")
    assert again.one("age")
    older = fetch(site.port, "/kept")
    assert (older.body, older.one("age") is not None) == (b"k" * 200_000, True)
    assert plain(wire.get("/kept", [("if-none-match", '"k"')])) == (304, b"", True, None)
    assert plain(wire.answer(wire.request("/kept", "HEAD"))) == (200, b"", True, None)
    assert len(site.origin.of("/kept")) == 1
    assert fetch(site.port, "/kept1").status == 200
    lines = site.lines("/kept", 5)
    assert [line["scrubber.cache"] for line in lines] == ["miss", *["hit"] * 4]
    assert [line["http.version"] for line in lines] == ["2", "2", "1.1", "2", "2"]


def test_streams_that_ask_for_the_same_ask_the_origin_once(site: Proxy, wire: Wire2) -> None:
    def slowly(exchange: Exchange) -> None:
        time.sleep(0.2)
        respond(b"c" * 5000, headers="Cache-Control: max-age=60\r\n")(exchange)

    site.origin.answers["/crowd"] = slowly
    streams = [wire.request("/crowd") for _ in range(40)]
    assert {plain(wire.answer(stream)) for stream in streams} == {(200, b"c" * 5000, True, None)}
    assert len(site.origin.of("/crowd")) == 1


# ── connections ──


def test_what_the_server_says_first(site: Proxy, wire: Wire2) -> None:
    assert wire.get("/").status == 200
    assert wire.server[SettingCodes.MAX_CONCURRENT_STREAMS] == 100
    assert wire.server[SettingCodes.ENABLE_CONNECT_PROTOCOL] == 1
    assert wire.server[SettingCodes.MAX_HEADER_LIST_SIZE] == 16384
    assert wire.server[9] == 1, "RFC 9218: no priorities of RFC 7540"


@pytest.mark.parametrize("size", [1, 7, 13, 14, 15, 23, 25, 33])
def test_a_preface_in_pieces(site: Proxy, size: int) -> None:
    with Wire2(site.port, begin=False) as wire:
        wire.h2.initiate_connection()
        data = wire.h2.data_to_send()
        for at in range(0, 50, size):
            wire.raw(data[at : min(at + size, 50)])
            time.sleep(0.001)
        wire.raw(data[min(50, len(data)) :] if len(data) > 50 else b"")
        assert wire.get("/").status == 200


def test_http1_is_spoken_besides(site: Proxy) -> None:
    assert fetch(site.port).status == 200
    with Wire(site.port) as old:
        assert (
            old.get("/", "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n").status
            == 200
        )
        assert site.origin.requests[-1].one("http2-settings") is None
        assert old.get("/").status == 200
    with Wire(site.port) as old:
        old.send(b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n")
        assert old.answer().status in (400, 501, 505)


def test_a_preface_where_http2_is_off(site: Proxy) -> None:
    with Wire2(site.running.ports[2], tls=trusting(), begin=False) as wire:
        wire.h2.initiate_connection()
        wire.raw(wire.h2.data_to_send())
        assert wire.sock.recv(12).startswith(b"HTTP/1.1 ")


def test_over_tls_the_client_chooses(site: Proxy) -> None:
    _, both, old = site.running.ports
    with Wire2(both, tls=trusting("h2", "http/1.1")) as wire:
        assert wire.sock.selected_alpn_protocol() == "h2"  # type: ignore[attr-defined]
        site.origin.answers["/big"] = respond(b"t" * 500_000)
        assert bytes(wire.get("/big").body) == b"t" * 500_000
        stream = wire.request("/up", "POST", body=b"u" * 300_000)
        assert plain(wire.answer(stream)) == WHOLE
        request = site.origin.last("/up")
        assert (request.body, request.one("x-forwarded-proto")) == (b"u" * 300_000, "https")
        (line,) = site.lines("/up")
        assert (line["http.version"], line["tls.next_protocol"]) == ("2", "h2")
        assert re.fullmatch("[0-9a-f]{16}", str(line["scrubber.http2"]))
        assert str(line["tls.client.ja4"]).startswith("t13d")
    for port, offered in ((both, ("http/1.1",)), (both, ()), (old, ("h2", "http/1.1"))):
        with Wire2(port, tls=trusting(*offered), begin=False) as wire:
            assert wire.sock.selected_alpn_protocol() == ("http/1.1" if offered else None)  # type: ignore[attr-defined]
            wire.raw(b"GET / HTTP/1.1\r\nHost: site.test\r\n\r\n")
            assert wire.sock.recv(12) == b"HTTP/1.1 200"


def test_curl(site: Proxy, tmp_path: Path) -> None:
    """By prior knowledge; and over TLS, where one connection serves all of it."""
    curl = shutil.which("curl")
    if curl is None:
        pytest.skip("no curl")
    (tmp_path / "authority.pem").write_bytes(authority().pem)
    said = [
        curl,
        "-sS",
        "-w",
        "%{http_version} %{http_code} %{num_connects}\n",
        "--cacert",
        str(tmp_path / "authority.pem"),
    ]
    known = [*said, "--http2-prior-knowledge", "-o", "/dev/null", f"http://127.0.0.1:{site.port}/curl"]
    done = subprocess.run([*known, "-d", "x" * 100_000], capture_output=True, text=True, check=True)
    assert done.stdout == "2 200 1\n"
    assert site.origin.last("/curl").body == b"x" * 100_000
    port = site.running.ports[1]
    urls = [w for i in range(3) for w in ("-o", "/dev/null", f"https://site.test:{port}/curl/{i}")]
    done = subprocess.run(
        [*said, "--resolve", f"site.test:{port}:127.0.0.1", *urls], capture_output=True, text=True, check=True
    )
    assert done.stdout == "2 200 1\n2 200 0\n2 200 0\n"


# ── who the client is ──


def addressed(site: Proxy, path: str) -> tuple[Request, dict[str, object]]:
    return site.origin.last(path), site.lines(path)[-1]


def test_a_proxy_header_before_the_preface(site: Proxy) -> None:
    header = v2("203.0.113.9", 4711)
    for how in ("at once", "in pieces"):
        path = f"/named/{how[3:]}"
        with Wire2(site.port, source=PEER, begin=False) as wire:
            wire.h2.initiate_connection()
            data = header + wire.h2.data_to_send()
            for piece in [data] if how == "at once" else [data[:20], data[20:70], data[70:]]:
                wire.raw(piece)
                time.sleep(0.02)
            assert wire.get(path).status == 200
            assert wire.get(path).status == 200
        request, line = addressed(site, path)
        assert request.one("x-forwarded-for") == "203.0.113.9"
        assert (line["client.ip"], line["scrubber.proof"], line["scrubber.proxy.ip"]) == ("203.0.113.9", "proxy", PEER)


def test_a_trusted_proxy_s_clients(site: Proxy) -> None:
    """Each stream has its own; a stranger's word counts for nothing."""
    with Wire2(site.port, source=TRUSTED) as wire:
        clients = [f"203.0.113.{i}" for i in range(5)]
        streams = [
            wire.request(
                f"/chain/{c}",
                headers=[("x-forwarded-for", c), ("x-request-id", f"id-{c}"), ("x-forwarded-proto", "https")],
            )
            for c in clients
        ]
        answers = [wire.answer(stream) for stream in streams]
    for client, answer in zip(clients, answers, strict=True):
        request, line = addressed(site, f"/chain/{client}")
        assert (line["client.ip"], line["scrubber.proof"]) == (client, "chain")
        assert answer.one("x-request-id") == request.one("x-request-id") == f"id-{client}"
        assert request.one("x-forwarded-for") == f"{client}, {TRUSTED}"
    with Wire2(site.port, source="127.0.3.2") as wire:
        assert wire.get("/strange", [("x-forwarded-for", "203.0.113.1")]).status == 200
    _, line = addressed(site, "/strange")
    assert line["client.ip"] == "127.0.3.2"


def test_the_account_of_a_request(site: Proxy, wire: Wire2) -> None:
    stream = wire.request("/account", "POST", [("user-agent", "t/2"), ("referer", "http://a.test/")], body=b"b" * 1000)
    assert plain(wire.answer(stream)) == WHOLE
    (line,) = site.lines("/account")
    assert (line["http.request.method"], line["http.version"], line["url.domain"]) == ("POST", "2", "site.test")
    assert (line["http.response.status_code"], line["scrubber.verdict"]) == (200, "PASS")
    assert (line["http.request.body.bytes"], line["http.response.body.bytes"]) == (1000, 2)
    assert (line["user_agent.original"], line["http.request.referrer"]) == ("t/2", "http://a.test/")
    assert line["source.port"] == wire.sock.getsockname()[1]
    assert line["http.request.id"] == wire.answers[stream].one("x-request-id")
    assert "error.code" not in line
    assert "event.outcome" not in line
    again = wire.get("/account2")
    assert again.one("x-request-id") != wire.answers[stream].one("x-request-id")
    assert site.lines("/account2")[0]["scrubber.http2"] == line["scrubber.http2"]
    assert site.metric("scrubber_http2_opened_total") >= 1
