"""Routes of a running gateway, with real clients and real origins: answers, pools, edits, pages, reloads."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from tests.e2e.conftest import GatewayFactory
from tests.e2e.support import ROOT, Gateway, Origin, environment, gateway_text, until
from tests.e2e.wire import Wire

AREA = """
error_pages = {{ default = "error.html" }}
response_headers = {{ set = {{ X-Frame-Options = "DENY" }} }}
[area.request_headers]
set = {{ X-Area = "{{area}}", X-Who = "{{client_ip}} {{request_id}} {{scheme}} {{host}}" }}
remove = ["X-Debug"]
[[area.pool]]
name = "api"
origins = ["127.0.0.1:{api}"]
[[area.pool]]
name = "dead"
origins = ["127.0.0.1:1"]
[[area.route]]
path = "/robots.txt"
file = "robots.txt"
[[area.route]]
path_prefix = "/old/"
redirect = {{ to = "http://127.0.0.1:{api}{{path}}{{query}}", status = 307 }}
[[area.route]]
path_re = '^/item/([0-9]+)$'
pool = "api"
rewrite = "/things/$1/show"
[[area.route]]
path_prefix = "/api/"
pool = "api"
rewrite = {{ strip_prefix = "/api" }}
body_bytes_max = "1KiB"
[[area.route]]
path_prefix = "/dead"
pool = "dead"
[[area.route]]
path = "/teapot"
answer = {{ status = 418, content_type = "application/json", body = '{{"id": "{{request_id}}"}}' }}
"""


@pytest.fixture
def api(origins: Callable[..., Origin]) -> Origin:
    return origins("api")


@pytest.fixture
def routed(gateway: GatewayFactory, origin: Origin, api: Origin, tmp_path: Path) -> Gateway:
    (tmp_path / "g").mkdir()
    (tmp_path / "g" / "robots.txt").write_text("User-agent: *\n")
    (tmp_path / "g" / "error.html").write_text("<h1>{status}</h1>{request_id}")
    return gateway(area=AREA.format(api=api.port), directory=tmp_path / "g")


def test_a_real_client_meets_every_kind_of_route(routed: Gateway, api: Origin) -> None:
    with httpx.Client(base_url=routed.url(""), follow_redirects=False) as client:
        robots = client.get("/robots.txt")
        assert (robots.status_code, robots.text) == (200, "User-agent: *\n")
        again = client.get("/robots.txt", headers={"If-None-Match": robots.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")
        assert client.head("/robots.txt").headers["content-length"] == "14"
        moved = client.post("/old/x%20y?q=1", content=b"abc", follow_redirects=True)
        assert moved.status_code == 200
        echoed = moved.json()
        assert (echoed["origin"], echoed["method"], echoed["target"]) == ("api", "POST", "/old/x%20y?q=1")
        assert echoed["body_bytes"] == 3
        shown = client.get("/item/42?full").json()
        assert (shown["origin"], shown["target"]) == ("api", "/things/42/show?full")
        assert client.get("/api/a/./b").json()["target"] == "/a/b"
        assert client.get("/item/x").json()["origin"] == "origin"
        tea = client.get("/teapot")
        assert tea.status_code == 418
        assert tea.json() == {"id": tea.headers["x-request-id"]}
        for answer in (robots, moved, tea, client.get("/")):
            where = answer.history[0] if answer.history else answer
            assert where.headers["x-frame-options"] == "DENY"
    totals = until(lambda: (a := routed.status()["areas"][0])["served"] >= 4 and a)
    assert totals["served"] == 4, "what routes answer is not the origin's"


def test_headers_are_edited_on_the_way(routed: Gateway) -> None:
    with httpx.Client(base_url=routed.url("")) as client:
        answer = client.get("/", headers={"X-Debug": "1", "x-area": "forged", "Host": "site.test"})
    fields = {name.lower(): value for name, value in answer.json()["headers"]}
    assert fields["x-area"] == "site"
    assert fields["x-who"] == f"127.0.0.1 {answer.headers['x-request-id']} http site.test"
    assert "x-debug" not in fields


def test_error_pages_stand_in_for_plain_answers(routed: Gateway) -> None:
    with httpx.Client(base_url=routed.url("")) as client:
        page = client.get("/dead")
        assert page.status_code == 502
        assert page.text == f"<h1>502</h1>{page.headers['x-request-id']}"
        assert page.headers["content-type"] == "text/html; charset=utf-8"
        details = client.get("/dead", headers={"Accept": "application/json"})
        assert details.headers["content-type"] == "application/problem+json"
        assert details.json()["status"] == 502
        assert client.post("/api/sink", content=b"x" * 1025).status_code == 413
        assert client.post("/api/sink", content=b"x" * 1024).json()["body_bytes"] == 1024


def test_answers_of_routes_are_pipelined_and_logged(routed: Gateway) -> None:
    with Wire(routed.port, source="127.0.0.2") as wire:
        for target in ("/teapot", "/robots.txt", "/", "/robots.txt"):
            wire.send(f"GET {target} HTTP/1.1\r\nHost: site.test\r\n\r\n".encode())
        assert [wire.answer().status for _ in range(4)] == [418, 200, 200, 200]
        wire.send(b"POST /teapot HTTP/1.1\r\nHost: site.test\r\nContent-Length: 1000000\r\n\r\nx")
        refused = wire.answer()
        assert (refused.status, refused.one("connection")) == (418, "close")
        assert wire.ends() in ("closed", "reset")
    lines = until(lambda: len(found := [ln for ln in routed.log_lines() if "url.path" in ln]) >= 5 and found)
    tea = next(line for line in lines if line["url.path"] == "/teapot")
    assert tea["http.response.status_code"] == 418
    assert tea["scrubber.verdict"] == "PASS"


def test_a_reload_swaps_routes_under_traffic(gateway: GatewayFactory, origin: Origin) -> None:
    route = "[[area.route]]\npath_re = '^/page/([a-z]+)$'\nanswer = { body = \"%s\" }\n"
    running = gateway(area=route % ("0" * 30000))
    seen: set[str] = set()
    problems: list[str] = []
    done = threading.Event()

    def ask() -> None:
        with httpx.Client(base_url=running.url("")) as client:
            while not done.is_set():
                answer = client.get("/page/x")
                if answer.status_code != 200 or len(answer.text) != 30000 or len(set(answer.text)) != 1:
                    problems.append(f"{answer.status_code} {answer.text[:80]}")
                seen.add(answer.text[:1])

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        for generation in range(1, 6):
            running.file.write_text(gateway_text(origin.port, area=route % (str(generation) * 30000)))
            assert running.cli("reload").returncode == 0
            until(lambda wanted=str(generation): wanted in seen)  # type: ignore[misc]
    finally:
        done.set()
        for thread in threads:
            thread.join()
    assert problems == []
    # A bad pattern keeps the routes that are there.
    running.file.write_text(gateway_text(origin.port, area="[[area.route]]\npath_re = '('\n"))
    refused = running.cli("reload")
    assert refused.returncode == 1
    assert "missing )" in refused.stderr
    assert running.get("/page/y") == (200, b"5" * 30000)


def test_maintenance_comes_and_goes_with_a_reload(gateway: GatewayFactory, origin: Origin, tmp_path: Path) -> None:
    (tmp_path / "g").mkdir()
    (tmp_path / "g" / "soon.html").write_text("<p>soon</p>")
    running = gateway(directory=tmp_path / "g")
    assert running.get("/")[0] == 200
    closed = """
maintenance = { file = "soon.html", retry_after = "90s", allow = ["127.0.0.7"] }
[[area.route]]
path = "/health"
maintenance = false
"""
    running.file.write_text(gateway_text(origin.port, area=closed))
    assert running.cli("reload").returncode == 0
    until(lambda: running.get("/", source="127.0.0.2") == (503, b"<p>soon</p>"))
    assert running.get("/", source="127.0.0.7")[0] == 200
    assert json.loads(running.get("/health")[1])["origin"] == "origin"
    assert httpx.get(running.url("/")).headers["retry-after"] == "90"
    (tmp_path / "g" / "soon.html").write_text("x" * 70000)
    refused = running.cli("reload")
    assert refused.returncode == 1
    assert "is larger than 65536 bytes" in refused.stderr
    running.file.write_text(gateway_text(origin.port))
    assert running.cli("reload").returncode == 0
    until(lambda: running.get("/")[0] == 200)


def test_check_says_what_is_wrong_with_routes(tmp_path: Path) -> None:
    bad = ROOT / "tests" / "fixtures" / "bad" / "gateway-routes.toml"
    done = subprocess.run(
        [sys.executable, "-m", "scrubber", "check", str(bad)],
        capture_output=True,
        text=True,
        env=environment(),
        check=False,
    )
    assert done.returncode == 1
    assert "invalid perl operator: (?!" in done.stdout
    assert "never matches: route[23] takes all of it" in done.stdout
