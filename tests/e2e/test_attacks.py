"""Attacks on time and memory, one after the other against one gateway: each connection is cut off within the seconds
that the gateway file says, memory stays within what it allows, and people are served meanwhile."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.attacks import NEVER, Attack, Memory, People, attack
from tests.e2e.conftest import RUN
from tests.e2e.support import SLOW, Gateway, Origin, gateway_text, mandate_text, trouble, until
from tests.wanted import program

pytestmark = pytest.mark.timeout(180)

CONNECTIONS_MAX = 4096
BUFFER_BYTES = 24 * 1024
TOP = f"""
[limits]
connections_max = {CONNECTIONS_MAX}
connections_client_max = 1024
"""
AREA = """
[area.limits]
head_timeout = "1s"
idle_timeout = "1s"
body_bytes_max = "1MiB"
body_grace = "500ms"
body_rate_min = "2000B/s"
write_timeout = "1s"
origin_connections_max = 512
[area.tunnel]
idle_timeout = "1s"
total_max = 500
"""
LONGEST_S = 1.0  # of these, and what a body may have been slow for before that is known
SLACK_S = 1.5 * SLOW

POST = b"POST /sink HTTP/1.1\r\nHost: site.test\r\n"
GET = b"GET %b HTTP/1.1\r\nHost: site.test\r\n\r\n"
UPGRADE = (
    b"GET /ws HTTP/1.1\r\nHost: site.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
TEN_GIB = GET % b"/flow/10737418240"
# What it does, how many connections, and how many of the configured seconds it may take.
ATTACKS = {
    "slowloris": (Attack(b"GET / HTTP/1.1\r\nHost: site.test\r\n", b"X-a: b\r\n"), 1000, 1),
    "slow letters": (Attack(b"GET / HTTP/1.1\r\nHost: site.test\r\nX: ", b"a"), 1000, 1),
    "slow POST": (Attack(POST + b"Content-Length: 100000\r\n\r\n", b"x"), 400, 2),
    "slow chunks": (Attack(POST + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n"), 400, 2),
    "endless chunked": (
        Attack(POST + b"Transfer-Encoding: chunked\r\n\r\n", b"4000\r\n" + b"x" * 16384 + b"\r\n", 0.01),
        50,
        2,
    ),
    "endless extension": (Attack(POST + b"Transfer-Encoding: chunked\r\n\r\n1;", b"x" * 4096, 0.01), 400, 1),
    "endless trailers": (Attack(POST + b"Transfer-Encoding: chunked\r\n\r\n0\r\n", b"X-a: b\r\n" * 100, 0.01), 400, 1),
    "header bomb": (Attack(b"GET / HTTP/1.1\r\nHost: site.test\r\n", b"X-a: b\r\n" * 500, 0.01), 400, 1),
    "long line": (Attack(b"GET /", b"a" * 4096, 0.01), 400, 1),
    "silence": (Attack(), 3000, 1),
    "half a line": (Attack(b"GET"), 1000, 1),
    "idle keep-alive": (Attack(GET % b"/status/200"), 400, 1),
    "slow read": (Attack(GET % b"/flow/50000000", reads=200), 100, 3),
    "never reads 10 GiB": (Attack(TEN_GIB, reads=NEVER), 60, 2),
    "pipelining, never reads": (Attack(GET % b"/bytes/4000" * 20, GET % b"/bytes/4000" * 20, 0.02, NEVER), 16, 2),
    "idle WebSockets": (Attack(UPGRADE), 400, 1),
}


@pytest.fixture(scope="module")
def running(origin: Origin, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    directory = tmp_path_factory.mktemp("attacked")
    text = gateway_text(origin.port, workers=1, top=TOP, area=AREA)
    made = Gateway(directory, text, mandate_text(), RUN, {})
    try:
        made.wait_ready()
        yield made
        assert made.stop() == 0
        assert not trouble(made.stderr), made.stderr
    finally:
        made.kill()


def whole(running: Gateway) -> None:
    """Nothing stays of those who are cut off: no connection, nothing of any pool."""
    until(running.pools_whole, LONGEST_S + 10, "a pool that is not whole")


@pytest.mark.parametrize("name", ATTACKS)
def test_it_is_cut_off_in_time_and_people_are_served(running: Gateway, name: str) -> None:
    how, count, times = ATTACKS[name]
    allowed_s = times * LONGEST_S + SLACK_S
    pid = running.worker_pid()
    with People(running.port) as people, Memory(pid) as memory:
        ends = attack(running.port, how, count, allowed_s + 5 * SLOW)
        time.sleep(0.5)
    assert (ends.outlived, ends.refused) == (0, 0)
    assert max(ends.lived_s) <= allowed_s
    assert not people.failures, people.failures[:5]
    assert people.served >= 10
    assert memory.most_bytes - memory.began_bytes <= CONNECTIONS_MAX * BUFFER_BYTES
    assert running.worker_pid() == pid
    whole(running)


def test_connections_that_come_and_go(running: Gateway) -> None:
    """With bytes and without: opened and left as fast as one thread can."""
    with People(running.port) as people:
        for opening in (b"", b"GET / HT", GET % b"/status/200"):
            for _ in range(5):
                attack(running.port, Attack(opening, reads=NEVER), 400, 0.01)
    assert not people.failures, people.failures[:5]
    whole(running)


def test_more_than_there_are_places_for(running: Gateway) -> None:
    """Silent ones make room: nobody who asks for something is turned away."""
    with People(running.port) as people:
        ends = attack(running.port, Attack(), CONNECTIONS_MAX + 500, 2 * LONGEST_S + SLACK_S)
    assert ends.outlived == 0
    assert not people.failures, people.failures[:5]
    whole(running)


MODES = {
    "slow headers": ["-H"],
    "slow body": ["-B", "-s", "100000"],
    "range": ["-R"],
    "slow read": ["-X", "-k", "3", "-n", "1", "-w", "64", "-y", "128", "-z", "32"],
}


def test_slowhttptest_in_all_its_modes_at_once(running: Gateway, tmp_path: Path) -> None:
    """While the tool still holds on to its connections, nothing is left of them here."""
    tools = {}
    with People(running.port) as people:
        try:
            for mode, options in MODES.items():
                url = running.url("/flow/3000000" if mode == "slow read" else "/status/200")
                command = [program("slowhttptest"), *options, "-c", "200", "-r", "200", "-p", "2", "-l", "30"]
                with (tmp_path / mode).open("wb") as said:
                    tools[mode] = subprocess.Popen([*command, "-u", url], stdout=said, stderr=said, cwd=tmp_path)
            until(lambda: running.metric("scrubber_connections") > 200, 10, "they have begun")
            time.sleep(1 + 3 * LONGEST_S + SLACK_S)  # until all have come, and what they may take
        finally:
            still = {mode for mode, tool in tools.items() if tool.poll() is None}
            people.stop()
            whole(running)
            for tool in tools.values():
                tool.terminate()
                tool.wait()
    for mode in MODES:
        text = (tmp_path / mode).read_text()
        assert mode in still or "No open connections left" in text, text[-2000:]
    assert not people.failures, people.failures[:5]
    assert people.served >= 50
