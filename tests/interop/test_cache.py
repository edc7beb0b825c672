"""Behind the cache, set as in configs/cache.toml: clients and origins that people use see what they see without it."""

from __future__ import annotations

import contextlib
import gzip
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests import wanted
from tests.e2e.proxy import Proxy
from tests.e2e.support import until
from tests.interop import battery
from tests.interop.apps import shapes
from tests.interop.clients import CLIENTS, Client, Raw, run
from tests.interop.conftest import CACHE_MEMORY, Program, cache_example, settled
from tests.interop.origins import KINDS, Kind, Nginx
from tests.interop.same import RESPONSE_KEPT, check_all

BATTERY = [*battery.of_any_origin(), *battery.of_applications(), *battery.of_clients()]


@pytest.fixture(scope="module")
def cached(shaped: Program) -> Iterator[Proxy]:
    extra = cache_example().replace('ttl_default = "1s"', 'ttl_default = "1m"')  # a client may take a second to start
    with Proxy(workers=2, gateway=CACHE_MEMORY, origins=[f"127.0.0.1:{shaped.port}"], extra=extra) as found:
        yield found
        settled(found)


def hits(found: Proxy) -> float:
    return found.metric("scrubber_cache_requests_total", result="hit")


@pytest.mark.parametrize("client", CLIENTS, ids=[client.name for client in CLIENTS])
def test_clients_see_no_difference(client: Client, cached: Proxy, shaped: Program, tmp_path: Path) -> None:
    """The first time answers are kept, the second time they come from there."""
    client.needs()
    calls = client.calls(BATTERY)
    assert cached.running.cli("purge", "--area", "site").returncode == 0  # what another client was answered
    before = hits(cached)
    found = []
    for where, port in ("straight", shaped.port), ("first", cached.port), ("second", cached.port):
        (tmp_path / where).mkdir()
        found.append(client.run(calls, port, tmp_path / where))
    for through in found[1:]:
        check_all(found[0], through, calls, (shaped.port, cached.port), RESPONSE_KEPT)
    assert hits(cached) > before
    settled(cached)


@pytest.mark.parametrize("kind", KINDS, ids=[kind.name for kind in KINDS])
def test_answers_of_origins_are_the_same(kind: Kind, tmp_path: Path) -> None:
    kind.needs()
    calls = [*battery.of_any_origin(), *battery.of_applications()]
    calls = [call for call in calls if call.name not in kind.cannot]
    origin = kind.start(tmp_path)
    try:
        where = [f"127.0.0.1:{origin.port}"]
        with Proxy(workers=2, gateway=CACHE_MEMORY, origins=where, extra=cache_example()) as found:
            straight = Raw().run(calls, origin.port, tmp_path)
            for _ in range(2):
                through = Raw().run(calls, found.port, tmp_path)
                check_all(straight, through, calls, (origin.port, found.port), RESPONSE_KEPT)
            assert hits(found) > 0
            settled(found)
    finally:
        origin.stop()


# ── nginx's own words about freshness, and what curl makes of them ──


class Fetched:
    """An answer as curl wrote it down."""

    def __init__(self, status: int, head: str, body: bytes) -> None:
        self.status, self.body = status, body
        pairs = [line.partition(":") for line in head.splitlines()[1:]]
        self.headers = {name.lower(): value.strip() for name, _, value in pairs if name}

    @property
    def did(self) -> str:
        return self.headers["cache-status"].removeprefix("scrubber; ").partition("; ")[0]


@pytest.fixture
def curl(tmp_path: Path) -> Callable[..., Fetched]:
    program = wanted.program("curl")

    def fetch(url: str, *words: str) -> Fetched:
        head, body = tmp_path / "head", tmp_path / "body"
        body.write_bytes(b"")
        what = ["--silent", "--show-error", "--dump-header", str(head), "--output", str(body), *words]
        done = run([program, *what, "--write-out", "%{http_code}", url])
        return Fetched(int(done.stdout), head.read_text("latin-1"), body.read_bytes())

    return fetch


@pytest.fixture
def before_nginx(tmp_path: Path) -> Iterator[Callable[[str], Proxy]]:
    """nginx with a line of configuration more, and a gateway that tells what its cache did, before it."""
    Nginx().needs()
    cache = '[area.cache]\nenabled = true\ncache_status = true\nstale_max = "0s"\n'
    with contextlib.ExitStack() as stack:

        def start(line: str) -> Proxy:
            origin = Nginx(f"gzip_proxied any; {line}", logs=True).start(tmp_path / "nginx")
            stack.callback(origin.stop)
            where = [f"127.0.0.1:{origin.port}"]
            return stack.enter_context(Proxy(workers=1, gateway=CACHE_MEMORY, origins=where, extra=cache))

        (tmp_path / "nginx").mkdir()
        yield start


def asked(tmp_path: Path, count: int) -> list[str]:
    """Statuses that nginx answered with, once there are that many."""

    def statuses() -> list[str]:
        return re.findall(r'HTTP/1\.1" (\d{3}) ', (tmp_path / "nginx" / "access.log").read_text())

    until(lambda: len(statuses()) >= count, 10, "requests in nginx's log")
    return statuses()


def test_expires_and_conditions_by_etag_and_date(
    before_nginx: Callable[[str], Proxy], curl: Callable[..., Fetched], tmp_path: Path
) -> None:
    """What a client has already it is not sent again, and nginx is not asked for that."""
    found = before_nginx("expires 1h;")
    url = f"http://127.0.0.1:{found.port}/small"
    etag = tmp_path / "etag"
    first = curl(url, "--etag-save", str(etag))
    assert (first.status, first.body, first.did) == (200, shapes.SMALL, "fwd=miss")
    assert first.headers["cache-control"] == "max-age=3600" and "expires" in first.headers
    second = curl(url)
    assert (second.status, second.body, second.did) == (200, shapes.SMALL, "hit")
    kept = ("etag", "last-modified", "expires", "cache-control", "date", "content-type", "content-length")
    assert [second.headers[name] for name in kept] == [first.headers[name] for name in kept]
    assert 0 <= int(second.headers["age"]) < 60
    by_etag = curl(url, "--etag-compare", str(etag))
    assert (by_etag.status, by_etag.body, by_etag.did) == (304, b"", "hit")
    assert by_etag.headers["etag"] == first.headers["etag"]
    date = first.headers["last-modified"]
    assert curl(url, "--time-cond", date).status == 304
    assert curl(url, "--header", 'If-None-Match: "other"').body == shapes.SMALL
    assert curl(url, "--header", f"If-Modified-Since: {date}", "--header", 'If-None-Match: "other"').status == 200
    head = curl(url, "--head")
    assert (head.status, head.headers["content-length"], head.did) == (200, str(len(shapes.SMALL)), "hit")
    assert found.metric("scrubber_cache_requests_total", result="miss") == 1
    assert asked(tmp_path, 1) == ["200"]


def test_an_answer_past_its_freshness_is_asked_for_by_its_validator(
    before_nginx: Callable[[str], Proxy], curl: Callable[..., Fetched], tmp_path: Path
) -> None:
    """nginx says 304, and what was kept is fresh again."""
    found = before_nginx("expires 1s;")
    url = f"http://127.0.0.1:{found.port}/small"
    first = curl(url)
    time.sleep(2.1)
    again = curl(url)
    assert (again.status, again.body, again.did) == (200, shapes.SMALL, "fwd=stale")
    assert again.headers["date"] != first.headers["date"]
    assert again.headers["expires"] != first.headers["expires"]
    assert asked(tmp_path, 2) == ["200", "304"]
    assert curl(url).body == shapes.SMALL


def test_vary_keeps_codings_apart(
    before_nginx: Callable[[str], Proxy], curl: Callable[..., Fetched], tmp_path: Path
) -> None:
    found = before_nginx("expires 1h; gzip_vary on;")
    url = f"http://127.0.0.1:{found.port}/gzip"
    plain = curl(url)
    assert (plain.headers["vary"], plain.headers.get("content-encoding")) == ("Accept-Encoding", None)
    packed = curl(url, "--header", "Accept-Encoding: gzip")
    assert (packed.headers["content-encoding"], packed.did) == ("gzip", "fwd=miss")
    assert gzip.decompress(packed.body) == plain.body == shapes.SMALL * 500
    assert (curl(url).did, curl(url).body) == ("hit", plain.body)
    again = curl(url, "--header", "Accept-Encoding: gzip")
    assert (again.did, again.body, again.headers["content-encoding"]) == ("hit", packed.body, "gzip")
    assert asked(tmp_path, 2) == ["200", "200"]
