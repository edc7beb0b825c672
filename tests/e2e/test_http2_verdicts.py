"""Verdicts over HTTP/2: each request is judged as any other, whatever its connection carries besides; and what ends a
connection: floods of frames, blocks, abuses."""

from __future__ import annotations

import json
import ssl
import time
from collections.abc import Callable, Iterator

import pytest
from h2.settings import SettingCodes, Settings

from tests.e2e.certificates import authority, signed
from tests.e2e.proxy import Proxy
from tests.e2e.recorder import Exchange, respond
from tests.e2e.support import open_way, until
from tests.e2e.wire import Closed, Wire
from tests.e2e.wire2 import Wire2, frame
from tests.reference.fingerprint import fingerprint
from tests.reference.siphash import siphash

TRUSTED = "127.0.3.1"
CALM = 11  # ENHANCE_YOUR_CALM
OTHER = {int(SettingCodes.INITIAL_WINDOW_SIZE): 70_000}
STRANGE = [("user-agent", "strange/1"), ("accept-language", "x"), ("accept", "*/*")]


def settings_of(more: dict[int, int]) -> Settings:
    """As a Wire2 sends them."""
    return Settings(client=True, initial_values={SettingCodes.ENABLE_PUSH: 0, **more})


def printed(more: dict[int, int]) -> str:
    """A Wire2's HTTP/2 fingerprint, as docs/fingerprints.md has it: SETTINGS, neither window nor priorities."""
    text = "".join(f"s{int(code)}:{value}\n" for code, value in settings_of(more).items()) + "msap"
    return f"{siphash(0, 0, text.encode(), compress=1, finish=3):016x}"


def rule(name: str, then: str, limit: str = "", per: str = "client", when: str = "") -> str:
    asked = f'path = "/{name}*"{", " if when else ""}{when}'
    how = f'limit = "{limit}"\n' if limit else ""
    return f'[[rule]]\nname = "{name}"\nper = "{per}"\n{how}when = {{ {asked} }}\nthen = [{then}]\n'


RULES = "".join(
    (
        rule("throttle", '"throttle"', "3/min burst 3"),
        rule("deny", '"deny"'),
        rule("drop", '"drop"'),
        rule("tarpit", '"tarpit"'),
        rule("concurrent", '"throttle"', "2 concurrent"),
        rule("connections", '"throttle"', "1 connections/min burst 1"),
        rule("block", '"block 10m"', "2/min burst 2"),
        rule("when", '"deny"', when=f'http2 = "{printed(OTHER)}"'),
        rule("perhttp2", '"throttle"', "2/min burst 2", per="http2"),
        rule("order", '"deny"', when=f'fingerprint = "{fingerprint(2, [("host", ""), *STRANGE])}"'),
        rule("perorder", '"throttle"', "2/min burst 2", per="fingerprint"),
        rule("perja", '"throttle"', "2/min burst 2", per="ja4"),
        '[[rule]]\nname = "abuses"\nper = "client"\nlimit = "1 abuses/1min"\nthen = ["block 1m"]\n',
    )
)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    """Ports: clear text, TLS."""
    home = tmp_path_factory.mktemp("verdicts")
    open_way(home)
    signed("site.test").write(home, "site")
    with Proxy(
        rules=RULES,
        listener=f'http2 = true\ntrusted_proxies = ["{TRUSTED}"]\n',
        limits='tarpit_time = "300ms"',
        extra=f'''
[area.tls]
certificates = {{ chain = "{home}/site.pem", key = "{home}/site.key" }}
[[listener]]
address = "127.0.0.1:0"
tls = true
''',
    ) as found:
        yield found
        found.whole()
        assert not found.gauge("http2_connections")
        assert not found.gauge("http2_session_bytes")
        assert not found.origin.malformed


@pytest.fixture
def wire(site: Proxy, request: pytest.FixtureRequest) -> Iterator[Wire2]:
    """From an address of the test's own."""
    with Wire2(site.port, source=own(request)) as found:
        yield found


def own(request: pytest.FixtureRequest, number: int = 0) -> str:
    """An address that no other test here has."""
    seed = sum(request.node.name.encode())
    return f"127.0.{60 + seed % 180}.{1 + (seed // 180 + number * 50) % 250}"


def slowly(exchange: Exchange) -> None:
    time.sleep(0.4)
    respond()(exchange)


def outcome(port: int, source: str) -> int | str:
    """Of a connection of its own, HTTP/1.1."""
    try:
        with Wire(port, source=source) as found:
            return found.get("/").status
    except (Closed, ConnectionError):
        return "reset"


# ── measures ──


def test_throttle(site: Proxy, wire: Wire2) -> None:
    """Counted by request, not by connection, for both versions together; the connection is not touched."""
    answers = [wire.get("/throttle") for _ in range(4)]
    assert [answer.status for answer in answers] == [200, 200, 200, 429]
    assert int(answers[3].one("retry-after") or 0) > 0
    assert answers[3].one("connection") is None
    assert wire.get("/").status == 200
    source = wire.sock.getsockname()[0]
    with Wire2(site.port, source=source) as other:
        assert other.get("/throttle").status == 429
    with Wire(site.port, source=source) as old:
        assert old.get("/throttle").status == 429
    assert wire.alive()


def test_many_at_once_are_many(wire: Wire2) -> None:
    streams = [wire.request("/throttle/at-once") for _ in range(30)]
    statuses = sorted(wire.answer(stream).status for stream in streams)
    assert statuses == [200] * 3 + [429] * 27


def test_deny(site: Proxy, wire: Wire2) -> None:
    assert wire.get("/deny").status == 403
    denied = wire.get("/deny", [("accept", "application/json")])
    assert (denied.status, denied.one("content-type")) == (403, "application/problem+json")
    assert json.loads(denied.body)["status"] == 403
    stream = wire.request("/deny", "POST", body=b"x" * 200_000)
    assert wire.answer(stream).status == 403
    assert wire.get("/").status == 200
    assert site.origin.of("/deny") == []
    line = site.lines("/deny", 3)[0]
    assert (line["scrubber.verdict"], line["rule.name"], line["http.version"]) == ("DENY", "test/deny", "2")


def test_drop_ends_the_connection(site: Proxy, wire: Wire2) -> None:
    """All of it: it is the client's own."""
    site.origin.answers["/slow"] = slowly
    slow = wire.request("/slow")
    until(lambda: site.origin.of("/slow"))
    drop = wire.request("/drop")
    assert wire.over() == "reset"
    assert not wire.answers[slow].headers
    assert not wire.answers[drop].headers
    assert site.lines("/drop")[0]["scrubber.verdict"] == "DROP"


def test_tarpit(site: Proxy, wire: Wire2) -> None:
    """Held, then refused; the rest of the connection goes on meanwhile, and afterwards."""
    held = [wire.request("/tarpit") for _ in range(3)]
    taken_back = wire.request("/tarpit")
    with_body = wire.request("/tarpit", "POST", body=b"x" * 50_000)
    assert wire.get("/").status == 200
    assert not any(wire.answers[stream].headers for stream in held)
    wire.reset(taken_back)
    assert [wire.answer(stream).status for stream in (*held, with_body)] == [429] * 4
    assert wire.get("/").status == 200
    assert site.origin.of("/tarpit") == []
    until(lambda: all(not child.get("tarpit") for child in site.running.status()["children"]))


def test_concurrent(site: Proxy, wire: Wire2) -> None:
    site.origin.answers["/concurrent"] = slowly
    streams = [wire.request("/concurrent") for _ in range(4)]
    assert sorted(wire.answer(stream).status for stream in streams) == [200, 200, 429, 429]
    assert wire.get("/concurrent").status == 200, "what ended does not count"
    aborted = [wire.request("/concurrent") for _ in range(2)]
    until(lambda: len(site.origin.of("/concurrent")) == 5)
    for stream in aborted:
        wire.reset(stream)
    until(lambda: site.gauge("requests_in_flight") == 0)
    assert wire.get("/concurrent").status == 200, "what was reset does not count"


def test_connections_are_counted_once(site: Proxy, wire: Wire2) -> None:
    assert [wire.get("/connections").status for _ in range(4)] == [200] * 4
    with Wire2(site.port, source=wire.sock.getsockname()[0]) as other:
        assert other.get("/connections").status == 429


def test_a_block_ends_every_connection_of_its_source(site: Proxy, wire: Wire2) -> None:
    source = wire.sock.getsockname()[0]
    with Wire2(site.port, source=source) as other:
        assert other.get("/").status == 200
        assert [wire.get("/block").status for _ in range(2)] == [200] * 2
        wire.request("/block")
        assert wire.over() == "reset"
        other.request("/")
        assert other.over() == "reset"
    assert outcome(site.port, source) == "reset"
    assert source in [block["source"] for block in site.blocks()]


def test_a_block_by_hand(site: Proxy, wire: Wire2) -> None:
    source = wire.sock.getsockname()[0]
    assert wire.get("/").status == 200
    assert site.running.admin("POST", "/v1/blocks", {"source": source, "ttl_s": 60, "reason": "a test"})[0] == 201
    wire.request("/")
    assert wire.over() == "reset"
    assert outcome(site.port, source) == "reset"
    assert site.running.admin("DELETE", f"/v1/blocks?source={source}&reason=done")[0] == 200
    assert outcome(site.port, source) == 200


def test_behind_a_trusted_proxy_only_the_client_is_refused(site: Proxy) -> None:
    """The connection carries others as well."""
    with Wire2(site.port, source=TRUSTED) as wire:
        slow = wire.request("/slow", headers=[("x-forwarded-for", "203.0.113.1")])
        site.origin.answers["/slow"] = slowly
        mine = [("x-forwarded-for", "203.0.113.2")]
        assert wire.get("/drop", mine).status == 403
        assert [wire.get("/block", mine).status for _ in range(3)] == [200, 200, 403]
        assert wire.get("/", mine).status == 403
        assert wire.get("/", [("x-forwarded-for", "203.0.113.3")]).status == 200
        assert wire.answer(slow).status == 200
    assert "203.0.113.2" in [block["source"] for block in site.blocks()]


# ── fingerprints ──


def test_the_way_it_speaks_is_a_condition(site: Proxy, wire: Wire2) -> None:
    assert wire.get("/when").status == 200
    source = wire.sock.getsockname()[0]
    with Wire2(site.port, source=source, settings=OTHER) as other:
        assert other.get("/when").status == 403
        assert other.get("/").status == 200
    with Wire(site.port, source=source) as old:
        assert old.get("/when").status == 200, "never over HTTP/1.1"
    lines = site.lines("/when", 3)
    assert [line.get("scrubber.http2") for line in lines] == [printed({}), printed(OTHER), None]


def test_the_way_it_speaks_is_a_key(site: Proxy, request: pytest.FixtureRequest) -> None:
    """Of many addresses together."""
    statuses = []
    for i in range(3):
        with Wire2(site.port, source=own(request, i)) as wire:
            statuses.append(wire.get("/perhttp2").status)
    assert statuses == [200, 200, 429]
    with Wire2(site.port, source=own(request), settings=OTHER) as wire:
        assert wire.get("/perhttp2").status == 200
    with Wire(site.port, source=own(request)) as old:
        assert [old.get("/perhttp2").status for _ in range(4)] == [200] * 4


def test_windows_and_priorities_are_part_of_it(site: Proxy) -> None:
    text = "".join(f"s{int(code)}:{value}\n" for code, value in settings_of({}).items())
    with Wire2(site.port) as wire:
        wire.raw(frame(8, 0, (15_663_105).to_bytes(4)))
        wire.raw(frame(2, 3, b"\x80\0\0\0\x1f") + frame(2, 5, b"\0\0\0\x03\xff"))
        assert wire.get("/printed").status == 200
        wire.raw(frame(8, 0, (5).to_bytes(4)))
        assert wire.get("/printed").status == 200
    text += "w15663105:0\np3:31\nd0:1\np5:255\nd3:0\nmsap"
    wanted = f"{siphash(0, 0, text.encode(), compress=1, finish=3):016x}"
    assert [line["scrubber.http2"] for line in site.lines("/printed", 2)] == [wanted] * 2


def test_header_order(site: Proxy, wire: Wire2) -> None:
    assert wire.get("/order", STRANGE).status == 403
    assert wire.get("/order", STRANGE[::-1]).status == 200
    assert site.lines("/order", 2)[0]["scrubber.fingerprint"] == fingerprint(2, [("host", ""), *STRANGE])
    assert [wire.get("/perorder", STRANGE).status for _ in range(3)] == [200, 200, 429]
    assert wire.get("/perorder", STRANGE[:2]).status == 200


def test_ja4(site: Proxy, request: pytest.FixtureRequest) -> None:
    def asked(number: int, ciphers: str = "") -> int:
        context = ssl.create_default_context(cadata=authority().pem.decode())
        context.set_alpn_protocols(["h2"])
        if ciphers:
            context.set_ciphers(ciphers)
        with Wire2(site.running.ports[1], source=own(request, number), tls=context) as wire:
            return wire.get("/perja").status

    assert [asked(i) for i in range(3)] == [200, 200, 429]
    assert asked(0, "ECDHE-ECDSA-AES128-GCM-SHA256") == 200
    lines = site.lines("/perja", 4)
    assert len({line["tls.client.ja4"] for line in lines}) == 2
    assert all(str(line["tls.client.ja4"])[8:10] == "h2" for line in lines)


# ── what ends a connection ──


def resets(wire: Wire2) -> None:
    for _ in range(230):
        stream = wire.h2.get_next_available_stream_id()
        wire.h2.send_headers(stream, wire.fields("/reset"), end_stream=True)
        wire.h2.reset_stream(stream)
    wire.flush()


def malformed(wire: Wire2) -> None:
    """Streams that we have to reset (CVE-2025-8671)."""
    for _ in range(230):
        stream = wire.h2.get_next_available_stream_id()
        wire.h2.send_headers(stream, [*wire.fields("/reset"), ("connection", "close")], end_stream=True)
        wire.flush()
        wire.more(0)


def continuations(wire: Wire2) -> None:
    wire.raw(frame(1, 1, b"", 1) + frame(9, 1) * 20)


def bombs(wire: Wire2) -> None:
    for _ in range(8):
        wire.request("/bomb", headers=[("x", "y" * 3000)] * 10)


def bomb(wire: Wire2) -> None:
    """One byte a field, each of three thousand."""
    wire.request("/bomb", headers=[("x", "y" * 3000)] * 50)


def empty(wire: Wire2) -> None:
    stream = wire.request("/empty", "POST", end=False)
    wire.raw(frame(0, stream) * 60)


def held(wire: Wire2) -> None:
    wire.raw(frame(4, 0, b"\0\4\0\0\0\0"))  # windows of nothing
    for _ in range(12):
        wire.request("/held")


FLOODS: dict[str, tuple[Callable[[Wire2], None], ...]] = {
    "http2_resets": (resets, malformed),
    "http2_continuations": (continuations,),
    "http2_header_bomb": (bombs, bomb),
    "http2_pings": (lambda wire: wire.raw(frame(6, 0, bytes(8)) * 60),),
    "http2_settings": (lambda wire: wire.raw(frame(4, 0) * 12),),
    "http2_priorities": (
        lambda wire: wire.raw(frame(2, 9, b"\0\0\0\0\x10") * 410),
        lambda wire: wire.raw(frame(16, 0, b"\0\0\0\1u=1") * 410),
    ),
    "http2_empty_data": (empty,),
    "http2_window_updates": (lambda wire: wire.raw(frame(8, 0, b"\0\0\0\1") * 1010),),
    "http2_unknown_frames": (lambda wire: wire.raw(frame(0x16, 0, b"x") * 60),),
    "http2_windows_held": (held,),
}


def ended_for(site: Proxy, port: int) -> list[object]:
    """What the log says of the end of a connection, by its client's port."""

    def found() -> list[object]:
        codes = [
            line["error.code"]
            for line in site.running.log_lines()
            if line.get("source.port") == port and "error.code" in line
        ]
        return [code for code in codes if str(code).startswith("http2_")]

    return until(found)


@pytest.mark.parametrize(("code", "flood"), [(code, flood) for code, floods in FLOODS.items() for flood in floods])
def test_a_flood_ends_its_connection(site: Proxy, code: str, flood: Callable[[Wire2], None]) -> None:
    """GOAWAY that says why, a line in the log; nobody else notices."""
    site.origin.answers["/held"] = respond(b"h" * 1000)
    before = site.metric("scrubber_http2_refused_total")
    with Wire2(site.port) as wire, Wire2(site.port) as other:
        assert other.get("/").status == 200
        flood(wire)
        wire.over()
        assert [code for _, code in wire.goaways] == [CALM]
        assert other.get("/").status == 200
        port = wire.sock.getsockname()[1]
    assert ended_for(site, port) == [code]
    until(lambda: site.metric("scrubber_http2_refused_total") == before + 1)


def test_over_tls_it_is_told_as_well(site: Proxy) -> None:
    context = ssl.create_default_context(cadata=authority().pem.decode())
    context.set_alpn_protocols(["h2"])
    with Wire2(site.running.ports[1], tls=context) as wire:
        assert wire.get("/").status == 200
        port = wire.sock.getsockname()[1]
        wire.raw(frame(6, 0, bytes(8)) * 60)
        wire.over()
        assert [code for _, code in wire.goaways] == [CALM]
    assert ended_for(site, port) == ["http2_pings"]


def test_what_is_against_the_protocol_ends_its_connection(site: Proxy) -> None:
    with Wire2(site.port) as wire:
        assert wire.get("/").status == 200
        wire.raw(frame(0, 0, b"x"))
        wire.over()
        assert [code for _, code in wire.goaways] == [1]
        port = wire.sock.getsockname()[1]
    assert ended_for(site, port) == ["http2_broken"]


def test_abuses_block_who_repeats_them(site: Proxy, request: pytest.FixtureRequest) -> None:
    source = own(request)
    for _ in range(2):
        assert outcome(site.port, source) == 200
        with Wire2(site.port, source=source) as wire:
            resets(wire)
            wire.over()
    until(lambda: outcome(site.port, source) == "reset")
    assert source in [block["source"] for block in site.blocks()]
    with Wire2(site.port) as wire:
        for _ in range(2):
            assert wire.get("/").status == 200, "127.0.0.1 is our own"
