"""The cache of a running gateway: several workers, real origins, reloads, dead workers, purge."""

from __future__ import annotations

import itertools
import os
import re
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from tests.e2e.proxy import Proxy
from tests.e2e.recorder import Exchange, Recorder, respond
from tests.e2e.support import SLOW, until
from tests.e2e.wire import Answer, Wire, fetch

MEMORY = '[memory]\ncache = "4MiB"\n'
ON = '[area.cache]\nenabled = true\ncache_status = true\nttl_default = "60s"\nwait = "1m"\n'


def slowly(pause_s: float, body: bytes, headers: str = "") -> Callable[[Exchange], None]:
    def answer(exchange: Exchange) -> None:
        time.sleep(pause_s)
        respond(body, headers=headers)(exchange)

    return answer


def crowd(port: int, count: int, path: str, *fields: str, method: str = "GET") -> list[tuple[int, bytes]]:
    """That many clients at once, each on a connection of its own and from an address of its own."""
    lines = "".join(f"{line}\r\n" for line in (f"{method} {path} HTTP/1.1", "Host: site.test", *fields, ""))

    def one(i: int) -> tuple[int, bytes]:
        source = f"127.0.{20 + i // 250}.{i % 250 + 1}"
        with Wire(port, source=source, timeout_s=60 * SLOW) as wire:
            wire.send(lines.encode())
            answer = wire.answer(method)
            return answer.status, answer.body

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(one, range(count)))


def test_five_hundred_clients_reach_a_slow_origin_once(proxy: type[Proxy]) -> None:
    with proxy(workers=3, gateway=MEMORY, extra=ON) as found:
        found.origin.answers["/page"] = slowly(2.0, b"the page")
        answers = crowd(found.port, 500, "/page")
        assert answers == [(200, b"the page")] * 500
        assert len(found.origin.of("/page")) == 1
        until(lambda: found.metric("scrubber_cache_requests_total") == 500, 10, "all counted")
        assert found.metric("scrubber_cache_requests_total", result="miss") == 1
        collapsed = found.metric("scrubber_cache_requests_total", result="collapsed")
        assert collapsed + found.metric("scrubber_cache_requests_total", result="hit") == 499
        assert collapsed > 100
        assert found.metric("scrubber_cache_stored_total") == 1
        assert found.metric("scrubber_cache_sent_bytes_total") == 499 * 8
        status = found.running.status()["areas"][0]["cache"]
        assert (status["misses"], status["stored"]) == (1, 1)
        lines = found.lines("/page", 500)
        assert {line["scrubber.cache"] for line in lines} <= {"miss", "collapsed", "hit"}
        found.whole()


HANDSHAKE = ("Connection: Upgrade", "Upgrade: websocket")
HARMLESS: dict[str, tuple[str, ...]] = {
    "If-Match": ('If-Match: "a"',),
    "If-Unmodified-Since": ("If-Unmodified-Since: Sun, 06 Nov 1994 08:49:37 GMT",),
    "Expect": ("Expect: 100-continue",),
    "Content-Length": ("Content-Length: 0",),
    "Upgrade": HANDSHAKE,
    "Upgrade, version alone": (*HANDSHAKE, "Sec-WebSocket-Version: 13"),
    "Upgrade, no listed protocol": (
        "Connection: Upgrade", "Upgrade: h2c", "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
    ),
    "no-store": ("Cache-Control: no-store",),
    "Range": ("Range: bytes=0-0",),
}  # fmt: skip
ALONE = ("no-store", "Range")  # what they fetch themselves is nobody else's


def test_no_harmless_field_defeats_it(proxy: type[Proxy]) -> None:
    """The flood asks with it: with nothing kept, the origin answers once; with a page kept, never."""
    with proxy(workers=2, gateway=MEMORY, extra=ON) as found:
        for number, (name, fields) in enumerate({"HEAD": (), "HEAD, Expect": HARMLESS["Expect"], **HARMLESS}.items()):
            path, method = f"/{number}", name.split(",")[0] if name.startswith("HEAD") else "GET"
            found.origin.answers[path] = slowly(0.5, b"the page", "Cache-Control: max-age=60\r\n")
            body = b"" if method == "HEAD" else b"the page"
            if name in ALONE:
                first = threading.Thread(target=fetch, args=(found.port, path))
                first.start()
                until(lambda path=path: found.origin.of(path))  # type: ignore[misc]
            assert crowd(found.port, 50, path, *fields, method=method) == [(200, body)] * 50, name
            assert len(found.origin.of(path)) == 1, name
            assert crowd(found.port, 10, path, *fields, method=method) == [(200, body)] * 10, name
            assert crowd(found.port, 10, path) == [(200, b"the page")] * 10, name
            assert len(found.origin.of(path)) == 1, name
        found.whole()


def test_a_real_handshake_reaches_the_origin(proxy: type[Proxy]) -> None:
    """Beside a kept page of the same URL."""
    with proxy(gateway=MEMORY, extra=ON) as found:
        assert fetch(found.port, "/page").status == 200
        key = ("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", "Sec-WebSocket-Version: 13")
        assert crowd(found.port, 3, "/page", *HANDSHAKE, *key) == [(200, b"ok")] * 3
        asked = found.origin.of("/page")
        assert [request.one("upgrade") for request in asked] == [None, "websocket", "websocket", "websocket"]
        assert fetch(found.port, "/page").one("age") is not None


def test_what_is_kept_outlives_a_reload_and_a_worker(proxy: type[Proxy]) -> None:
    with proxy(workers=2, gateway=MEMORY, extra=ON) as found:
        assert fetch(found.port, "/kept").status == 200
        found.reload("""
[[rule]]
name = "other"
per = "client"
limit = "90000/s burst 90000"
then = ["throttle"]
""")
        assert fetch(found.port, "/kept").one("age") is not None
        for slot in range(2):
            pid = found.running.worker_pid(slot)
            os.kill(pid, signal.SIGKILL)
            until(lambda slot=slot, pid=pid: found.running.worker_pid(slot) not in (0, pid), 10)  # type: ignore[misc]
        for _ in range(6):
            until(lambda: fetch(found.port, "/kept").status == 200, 10)
        assert len(found.origin.of("/kept")) == 1


def test_a_shorter_ttl_max_binds_what_is_kept(proxy: type[Proxy]) -> None:
    with proxy(workers=2, gateway=MEMORY, extra=ON) as found:
        found.origin.answers["/kept"] = respond(b"kept", headers="Cache-Control: max-age=600\r\n")
        fetch(found.port, "/kept")
        assert fetch(found.port, "/kept").one("age") is not None
        file = found.directory / "gateway.toml"
        file.write_text(file.read_text().replace("cache_status = true", 'cache_status = true\nttl_max = "2s"'))
        assert found.running.cli("reload").returncode == 0
        time.sleep(2.1)
        assert fetch(found.port, "/kept").one("age") is None
        again = fetch(found.port, "/kept")
        assert again.one("age") is not None
        assert re.search(r"; hit; ttl=[012]$", str(again.one("cache-status")))
        assert len(found.origin.of("/kept")) == 2


def test_a_worker_that_dies_fetching_is_replaced_by_one_who_waits(proxy: type[Proxy]) -> None:
    with proxy(workers=2, gateway=MEMORY, extra=ON) as found:
        go = threading.Event()

        def held(exchange: Exchange) -> None:
            go.wait(60)
            respond(b"at last")(exchange)

        found.origin.answers["/held"] = held
        fetching: dict[int, int] = {}
        with ThreadPoolExecutor(24) as pool:

            def one(i: int) -> int:
                try:
                    with Wire(found.port, source=f"127.0.9.{i + 1}", timeout_s=60) as wire:
                        return wire.get("/held").status
                except Exception:
                    return 0  # of the worker that was killed

            asked = [pool.submit(one, i) for i in range(24)]  # of 24, some at either worker
            until(lambda: len(found.origin.of("/held")) == 1, 10)
            time.sleep(0.5)
            for slot in range(2):
                pid = found.running.worker_pid(slot)
                fetching[slot] = found.origin.open
                if found.metric("scrubber_origin_connections", worker=str(slot)):
                    os.kill(pid, signal.SIGKILL)
                    break
            # Its claim lapses, one of the others asks, and so does nobody else.
            until(lambda: len(found.origin.of("/held")) >= 2 or all(each.done() for each in asked), 20)
            go.set()
            statuses = [each.result() for each in asked]
        assert set(statuses) <= {0, 200}
        assert 200 in statuses, "some waited at the worker that lives"
        assert len(found.origin.of("/held")) == 2
        until(lambda: fetch(found.port, "/held").status == 200, 10)


def test_stale_while_the_origin_is_dead_then_fresh_again(proxy: type[Proxy]) -> None:
    area = '[area.cache]\nenabled = true\nttl_default = "1s"\nstale_max = "5m"\n'
    with proxy(workers=2, gateway=MEMORY, extra=area) as found:
        found.origin.default = respond(b"before")
        assert fetch(found.port, "/news").body == b"before"
        time.sleep(1.2)
        found.origin.stop_listening()
        found.origin.close_connections()
        answers = crowd(found.port, 60, "/news")
        assert answers == [(200, b"before")] * 60
        assert fetch(found.port, "/unknown").status == 502
        stale = until(lambda: found.metric("scrubber_cache_requests_total", result="stale"), 10)
        assert stale >= 1
        with Recorder(port=found.origin.port) as again:
            again.default = respond(b"after")
            until(lambda: fetch(found.port, "/news").body == b"after", 10, "the origin is back: nothing old is given")
            assert fetch(found.port, "/unknown").status == 200
            assert again.of("/news")


def test_memory_is_what_it_was_over_many_urls(proxy: type[Proxy]) -> None:
    with proxy(workers=2, gateway='[memory]\ncache = "1MiB"\n', extra=ON) as found:
        found.origin.default = respond(bytes(10_000))
        with Wire(found.port, source="127.0.4.4") as wire:
            for i in range(50):
                assert wire.get(f"/{i}").status == 200
            before = found.rss_bytes()
            for i in range(600):
                assert wire.get(f"/flood?{i}").status == 200
        assert found.rss_bytes() < before + 8 * 1024 * 1024
        assert found.metric("scrubber_cache_used_bytes") == found.metric("scrubber_cache_bytes") == 1 << 20
        found.whole()


def test_rules_come_before_the_cache(proxy: type[Proxy]) -> None:
    rule = '[[rule]]\nname = "few"\nper = "client"\nlimit = "3/min burst 3"\nthen = ["throttle"]\n'
    with proxy(rules=rule, gateway=MEMORY, extra=ON) as found, Wire(found.port, source="127.0.6.6") as wire:
        assert [wire.get("/page").status for _ in range(5)] == [200, 200, 200, 429, 429]
        assert len(found.origin.of("/page")) == 1


def test_an_account_s_answer_is_nobody_else_s(proxy: type[Proxy]) -> None:
    """The field that `account` names says whose request it is, as Authorization and Cookie do."""
    with proxy(workers=2, gateway=MEMORY, extra=ON, area='account = "header:X-User"') as found:
        cacheable = "Cache-Control: max-age=60\r\n"

        def personal(exchange: Exchange) -> None:
            user = exchange.request.one("x-user") or "nobody"
            respond(f"for {user}".encode(), headers=cacheable)(exchange)

        found.origin.answers["/mine"] = personal
        found.origin.answers["/all"] = respond(b"for all", headers="Cache-Control: public, max-age=60\r\n")

        def ask(path: str, user: str = "") -> bytes:
            with Wire(found.port) as wire:
                return wire.get(path, f"X-User: {user}\r\n" if user else "").body

        for user in ("alice", "bob", "", "bob", ""):
            assert ask("/mine", user) == f"for {user or 'nobody'}".encode()
        assert len(found.origin.of("/mine")) == 4  # nobody's was kept
        for user in ("alice", "bob", ""):
            assert ask("/all", user) == b"for all"
        assert len(found.origin.of("/all")) == 1


def test_purge(proxy: type[Proxy]) -> None:
    with proxy(workers=2, gateway=MEMORY, extra=ON) as found:
        fetch(found.port, "/a?x=1")
        fetch(found.port, "/b")
        done = found.running.cli("purge", "http://site.test/a?x=1")
        assert done.returncode == 0, done.stderr
        assert "1" in done.stdout
        fetch(found.port, "/a?x=1")
        fetch(found.port, "/b")
        assert (len(found.origin.of("/a")), len(found.origin.of("/b"))) == (2, 1)
        assert found.running.cli("purge", "--area", "site").returncode == 0
        fetch(found.port, "/a?x=1")
        fetch(found.port, "/b")
        assert (len(found.origin.of("/a")), len(found.origin.of("/b"))) == (3, 2)
        assert found.running.cli("purge", "--area", "nowhere").returncode != 0
        assert found.running.cli("purge", "not a url").returncode != 0
        acts = found.running.admin("GET", "/v1/acts")[1]["acts"]
        assert any(act["event.action"] == "purge" for act in acts)


@pytest.mark.parametrize("enabled", [False, True])
def test_without_memory_it_is_off(proxy: type[Proxy], enabled: bool) -> None:
    with proxy(extra=ON if enabled else "") as found:
        for _ in range(3):
            assert fetch(found.port, "/page").one("age") is None
        assert len(found.origin.of("/page")) == 3


# ── whose answers are whose ──

KEEP = "Cache-Control: max-age=60\r\n"


def told(field: str, headers: str) -> Callable[[Exchange], None]:
    """An answer that says what the request's field was."""

    def answer(exchange: Exchange) -> None:
        respond((exchange.request.one(field) or "nobody").encode(), headers=headers)(exchange)

    return answer


@pytest.mark.parametrize("field", ["Authorization", "Cookie"])
def test_who_says_who_it_is_is_given_nothing_of_others(proxy: type[Proxy], field: str) -> None:
    """But for what the answer calls public."""
    with proxy(workers=2, gateway=MEMORY, extra=ON) as found:

        def ask(path: str, who: str = "") -> bytes:
            return fetch(found.port, path, f"{field}: {who}\r\n" if who else "").body

        words = ("", "Cache-Control: max-age=60\r\n", "Cache-Control: s-maxage=60, must-revalidate\r\n")
        for number, headers in enumerate(words):
            path = f"/mine/{number}"
            found.origin.answers[path] = told(field, headers)
            order = ("", "a=alice", "b=bob", "", "a=alice")
            assert [ask(path, who) for who in order] == [(who or "nobody").encode() for who in order], headers
            assert len(found.origin.of(path)) == 4, "who says nothing shares"
        found.origin.answers["/all"] = told(field, "Cache-Control: public, max-age=60\r\n")
        assert [ask("/all", who) for who in ("a=alice", "b=bob", "")] == [b"a=alice"] * 3
        assert len(found.origin.of("/all")) == 1


def test_what_sets_a_cookie_or_is_private_is_for_one_only(proxy: type[Proxy]) -> None:
    with proxy(workers=2, gateway=MEMORY, extra=ON) as found:
        numbers = itertools.count()

        def numbered(headers: str) -> Callable[[Exchange], None]:
            def answer(exchange: Exchange) -> None:
                respond(b"x", headers=headers.format(n=next(numbers)))(exchange)

            return answer

        for path, headers in (
            ("/set", KEEP + "Set-Cookie: session={n}; HttpOnly\r\n"),
            ("/set-public", "Cache-Control: public, max-age=60\r\nSet-Cookie: session={n}\r\n"),
            ("/private", "Cache-Control: private, max-age=60\r\nX-Number: {n}\r\n"),
            ("/no-store", "Cache-Control: no-store\r\nX-Number: {n}\r\n"),
        ):
            found.origin.answers[path] = numbered(headers)
            answers = [fetch(found.port, path) for _ in range(4)]
            given = {(answer.all("set-cookie") + answer.all("x-number"))[0] for answer in answers}
            assert len(given) == 4, (path, given)
            assert not any(answer.all("age") for answer in answers)


def test_what_an_answer_varies_by_keeps_it_apart(proxy: type[Proxy]) -> None:
    with proxy(workers=2, gateway=MEMORY, extra=ON) as found:
        found.origin.answers["/lang"] = told("Accept-Language", KEEP + "Vary: Accept-Language\r\n")
        found.origin.answers["/any"] = told("Accept-Language", KEEP + "Vary: *\r\n")
        order = ("de", "fr", "", "fr", "de", "")
        for path, asked in (("/lang", 3), ("/any", 6)):
            bodies = [fetch(found.port, path, f"Accept-Language: {x}\r\n" if x else "").body for x in order]
            assert bodies == [(x or "nobody").encode() for x in order]
            assert len(found.origin.of(path)) == asked


# ── a rush, a reload ──


def test_in_a_rush_only_one_waits_for_the_origin(proxy: type[Proxy]) -> None:
    """A page past its freshness: others wait for what one fetches in calm, and are given the old one in a rush."""
    rule = '[[rule]]\nname = "crowd"\nper = "area"\nlimit = "20/s burst 40"\nthen = ["throttle"]\n'
    area = '[area.cache]\nenabled = true\ncache_status = true\nttl_default = "1s"\nstale_max = "5m"\n'
    with proxy(rules=rule, gateway=MEMORY, extra=area) as found, ThreadPoolExecutor(2) as pool:
        go = threading.Event()

        def held(exchange: Exchange) -> None:
            go.wait(60)
            respond(b"new")(exchange)

        def ask(source: str) -> Answer:
            """Until the limit has room for a newcomer."""
            with Wire(found.port, source=source, timeout_s=60) as wire:
                return until(lambda: (answer := wire.get("/page")).status == 200 and answer, 20)

        def both_ask(asked: int) -> tuple[Future[Answer], Future[Answer]]:
            go.clear()
            first = pool.submit(ask, "127.0.7.1")
            until(lambda: len(found.origin.of("/page")) == asked, 20)
            return first, pool.submit(ask, "127.0.7.2")

        found.origin.answers["/page"] = respond(b"old")
        assert ask("127.0.7.1").body == b"old"
        found.origin.answers["/page"] = held
        time.sleep(1.2)
        first, second = both_ask(2)
        time.sleep(0.5)
        assert not second.done(), "in calm: it waits for what the first fetches"
        go.set()
        assert {first.result().body, second.result().body} == {b"new"}

        with Wire(found.port, source="127.0.7.3") as wire:
            assert 429 in [wire.get(f"/flood?{i}").status for i in range(80)]
        until(lambda: found.metric("scrubber_rush", area="site") == 1, 10, "a rush")
        time.sleep(2.2)  # over by a whole second
        first, second = both_ask(3)
        stale = second.result(20 * SLOW)
        assert not first.done()
        assert (stale.body, int(stale.one("age") or 0) >= 1) == (b"new", True)
        assert (stale.one("cache-status") or "").startswith("scrubber; hit; ttl=-")
        assert found.metric("scrubber_cache_requests_total", result="stale") == 1
        go.set()
        assert first.result().status == 200
        assert len(found.origin.of("/page")) == 3


def test_a_reload_changes_what_is_kept_from_then_on(proxy: type[Proxy]) -> None:
    """Every key of [area.cache]; what was kept under the former ones stays, with the freshness that it had then.

    But for a shorter ttl_max."""
    with proxy(workers=2, gateway=MEMORY, extra=ON) as found:
        text = found.running.file.read_text()

        def reload(old: str, new: str) -> None:
            assert old in text
            found.running.file.write_text(text.replace(old, new))
            done = found.running.cli("reload")
            assert done.returncode == 0, done.stderr

        def did(path: str, headers: str = "") -> str:
            said = fetch(found.port, path, headers).one("cache-status") or "nothing"
            return said.removeprefix("scrubber; ").partition("; ttl")[0]

        assert [did("/kept"), did("/kept")] == ["fwd=miss; stored", "hit"]
        reload("enabled = true", "enabled = false")
        assert [did("/kept"), did("/off"), did("/off")] == ["nothing"] * 3
        reload("cache_status = true", "cache_status = false")
        assert fetch(found.port, "/kept").one("age") is not None
        assert did("/kept") == "nothing"
        reload("cache_status = true", 'cache_status = true\nclient_no_cache = "honour"')
        assert [did("/kept"), did("/kept", "Cache-Control: no-cache\r\n")] == ["hit", "fwd=miss; stored"]
        reload("cache_status = true", 'cache_status = true\nobject_bytes_max = "1B"')
        assert [did("/large"), did("/large") != "hit", did("/kept")] == ["fwd=miss", True, "hit"]
        reload('ttl_default = "60s"', 'ttl_default = "0s"')
        assert [did("/silent"), did("/silent") != "hit", did("/kept")] == ["fwd=miss", True, "hit"]
        reload('wait = "1m"', 'wait = "2s"\nwait_max = 10')
        found.running.file.write_text(text.replace('cache = "4MiB"', 'cache = "8MiB"'))
        refused = found.running.cli("reload")
        assert refused.returncode == 1
        assert "memory" in refused.stderr and "scrubber upgrade" in refused.stderr
        assert did("/kept") == "hit"
        reload("cache_status = true", 'cache_status = true\nttl_max = "1s"\nstale_max = "0s"')
        assert did("/short") == "fwd=miss; stored"
        time.sleep(1.2)
        assert [did("/short"), did("/kept")] == ["fwd=miss; stored"] * 2
