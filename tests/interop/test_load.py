"""Load tools against the gateway: every request answered, every answer 2xx, from many connections that are kept.

127.0.0.1 is never-block, so that no mandate touches it: tools that can be told where to come from use 127.0.0.2 too.
"""

from __future__ import annotations

import re
import threading
from pathlib import Path

import pytest

from tests import wanted
from tests.e2e.proxy import Proxy
from tests.interop.apps import shapes
from tests.interop.clients import run
from tests.interop.conftest import settled


@pytest.fixture(autouse=True)
def there(request: pytest.FixtureRequest) -> None:
    wanted.program(request.node.originalname.split("_")[1])


def number(pattern: str, text: str) -> int:
    match = re.search(pattern, text)
    assert match, (pattern, text)
    return int(match[1])


@pytest.mark.parametrize("source", ["127.0.0.1", "127.0.0.2"])
@pytest.mark.parametrize("how", [["-k"], [], ["-k", "-p"]], ids=["kept", "closed", "posts"])
def test_ab(front: Proxy, source: str, how: list[str], tmp_path: Path) -> None:
    body = tmp_path / "body"
    body.write_bytes(b"a=1&b=2" * 100)
    words = [*how, str(body), "-T", "application/x-www-form-urlencoded"] if "-p" in how else how
    path = f"/{'echo' if '-p' in how else 'small'}?ab-{source}-{len(how)}"
    # -l: the echo names an id, and so may its length differ
    done = run(
        ["ab", "-l", "-q", "-n", "1000", "-c", "32", "-B", source, *words, f"http://127.0.0.1:{front.port}{path}"]
    )
    text = done.stdout.decode()
    assert number(r"Complete requests:\s+(\d+)", text) == 1000
    assert number(r"Failed requests:\s+(\d+)", text) == 0
    assert "Non-2xx" not in text, text
    if how == ["-k"]:
        assert number(r"Keep-Alive requests:\s+(\d+)", text) == 1000, text
    settled(front)


def test_wrk(front: Proxy) -> None:
    text = run(["wrk", "-t2", "-c64", "-d2s", f"http://127.0.0.1:{front.port}/small?wrk"]).stdout.decode()
    assert number(r"(\d+) requests in", text) > 100, text
    assert "Socket errors" not in text and "Non-2xx" not in text, text
    settled(front)


def test_h2load(front: Proxy) -> None:
    words = ["h2load", "--h1", "-n2000", "-c50", "-t1", f"http://127.0.0.1:{front.port}/small?h2load"]
    text = run(words).stdout.decode()
    counts = "requests: 2000 total, 2000 started, 2000 done, 2000 succeeded, 0 failed, 0 errored, 0 timeout"
    assert counts in text, text
    assert "status codes: 2000 2xx, 0 3xx, 0 4xx, 0 5xx" in text, text
    settled(front)


def test_h2load_of_large_bodies(front: Proxy) -> None:
    words = ["h2load", "--h1", "-n60", "-c12", "-t1", f"http://127.0.0.1:{front.port}/large"]
    text = run(words).stdout.decode()
    assert "60 succeeded, 0 failed, 0 errored, 0 timeout" in text, text
    assert number(r"traffic: .*\((\d+)\) data", text) >= 60 * len(shapes.LARGE), text
    settled(front)


def test_curl_many_at_once_from_a_judged_address(front: Proxy) -> None:
    """Programs beside each other, each with many transfers at once; the records say that all were passed."""
    problems: list[BaseException] = []

    def one(number: int) -> None:
        words = ["curl", "--silent", "--show-error", "--fail", "--parallel", "--interface", "127.0.0.3"]
        for i in range(20):
            words += ["--output", "/dev/null", f"http://127.0.0.1:{front.port}/gzip?curl-{number}-{i}"]
        try:
            run(words)
        except BaseException as error:  # shown by the test, not by a thread
            problems.append(error)

    threads = [threading.Thread(target=one, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not problems, problems[0]
    records = front.lines("/gzip", 80)
    assert len(records) == 80
    assert {(line["client.ip"], line["http.response.status_code"]) for line in records} == {("127.0.0.3", 200)}
    settled(front)
