"""Abuse of HTTP/2 against one gateway: it is ended, and said to be what it is; people are served meanwhile; who only
uses HTTP/2 a lot is left alone."""

from __future__ import annotations

import contextlib
import subprocess
import time
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context

import pytest

from bench.load.guard import LoadRefused, Route
from bench.load.h2_abuse import Ended, abuse
from bench.load.h2_shapes import ABUSES, Site
from tests.e2e.attacks import Memory, People
from tests.e2e.certificates import signed
from tests.e2e.conftest import RUN
from tests.e2e.h2_attacks import HABITS, PeopleOfHttp2, address, attack, habit
from tests.e2e.support import GENEROUS, SANITIZED, SLOW, Gateway, Origin, gateway_text, mandate_text, trouble, until
from tests.wanted import program

pytestmark = pytest.mark.timeout(120)

HEAD_S, WRITE_S, GRACE_S, IDLE_S = 3 * SLOW, 3 * SLOW, 3 * SLOW, 10 * SLOW
TOP = """
[limits]
connections_client_max = 256
"""
AREA = f"""
[area.limits]
head_timeout = "{HEAD_S}s"
idle_timeout = "{IDLE_S}s"
write_timeout = "{WRITE_S}s"
body_grace = "{GRACE_S}s"
body_rate_min = "30000B/s"
body_bytes_max = "64MiB"
origin_connections_max = 1024
[area.tls]
"""
TLS = """
[[listener]]
address = "127.0.0.1:0"
tls = true
"""
AGAIN = """
[[rule]]
name = "again"
per = "client"
limit = "2 abuses/10min"
then = ["block 1m"]
"""
ENOUGH_S = 7.5 * SLOW
SLACK_S = 1.0 * SLOW
CHECK_S = 1.0  # how often slow ones are looked at
MEMORY_BYTES = 96 << 20  # of a worker, for a hundred abusers at once: a session of one is 1 MiB at most

NONE, PROTOCOL, FLOW_CONTROL, STREAM_CLOSED, FRAME_SIZE, CALM = -1, 1, 3, 5, 6, 11


@dataclass(frozen=True)
class Wanted:
    """How it ends: by which `error.code` of the access line and which code of GOAWAY (or the end alone), and how soon
    besides the second that is allowed."""

    reason: str
    code: int = CALM
    after_s: float = 0.0


RESETS, BOMB, EMPTY, MANY = (Wanted(f"http2_{word}") for word in ("resets", "header_bomb", "empty_data", "priorities"))
WINDOWS, UNKNOWN, SETTINGS = (Wanted(f"http2_{word}") for word in ("window_updates", "unknown_frames", "settings"))
PINGS, CONTINUATIONS = Wanted("http2_pings"), Wanted("http2_continuations")
HELD, LATE = Wanted("http2_windows_held", after_s=0.8 + CHECK_S), Wanted("http2_late", after_s=HEAD_S)
UNREAD = Wanted("", NONE, GRACE_S + CHECK_S + 1.0)  # the kernel takes a little of it all the same


def broken(code: int) -> Wanted:
    return Wanted("http2_broken", code)


# Where two are named, frames of one kind stand for two things; what is seen first depends on what is read at once.
WANTED: dict[str, tuple[Wanted, ...]] = {
    "rapid-reset": (RESETS,),
    "made-reset-window": (RESETS, WINDOWS),
    "made-reset-zero": (broken(PROTOCOL), WINDOWS),
    "made-reset-data": (broken(STREAM_CLOSED),),
    "made-reset-headers": (broken(STREAM_CLOSED),),
    "made-reset-priority": (broken(FRAME_SIZE), MANY),
    "made-reset-self": (broken(PROTOCOL),),
    "made-reset-length": (RESETS,),
    "made-reset-name": (RESETS,),
    "made-reset-empty": (RESETS,),
    "data-beyond-window": (broken(FLOW_CONTROL), RESETS),
    "continuation": (CONTINUATIONS,),
    "continuation-empty": (CONTINUATIONS,),
    "ping": (PINGS,),
    "ping-ack": (PINGS,),
    "settings": (SETTINGS,),
    "settings-empty": (SETTINGS,),
    "settings-ack": (broken(PROTOCOL),),
    "priority": (MANY,),
    "priority-update": (MANY,),
    "priority-update-idle": (MANY,),
    "data-empty": (EMPTY,),
    "data-padded": (EMPTY,),
    "data-padding": (EMPTY,),
    "window-update": (WINDOWS,),
    "unknown": (UNKNOWN,),
    "goaway": (UNKNOWN,),
    "reset-idle": (broken(PROTOCOL),),
    "windows-held": (HELD,),
    "connection-window-held": (HELD,),
    "dribble": (HELD, WINDOWS),
    "table-bomb": (BOMB,),
    "table-bomb-small": (BOMB,),
    "table-flapping": (RESETS,),
    "small-fields": (BOMB,),
    "huge-field": (BOMB,),
    "empty-names": (RESETS,),
    "beyond-streams": (broken(PROTOCOL),),
    "beyond-streams-unacknowledged": (RESETS,),
    "push": (broken(PROTOCOL), UNKNOWN),
    "huge-frame": (broken(FRAME_SIZE),),
    "never-read": (UNREAD,),
    "never-read-http1": (UNREAD,),
    "slow-preface": (Wanted("", NONE, HEAD_S), LATE),
    "slow-settings": (LATE,),
    "slow-head": (LATE,),
}
# Each request of it is ended, and the connection only where nothing more comes.
REQUESTS_ALONE = {"slow-bodies"}


@pytest.fixture(scope="module")
def running(origin: Origin, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    directory = tmp_path_factory.mktemp("abused")
    certificates = f"certificates = {signed('site.test', '127.0.0.1').write(directory, 'site')}\n"
    text = gateway_text(origin.port, workers=1, top=TOP, listener="http2 = true", area=AREA + certificates, more=TLS)
    made = Gateway(directory, text, mandate_text(GENEROUS + AGAIN), RUN, {})
    try:
        made.wait_ready()
        yield made
        assert made.stop() == 0
        assert not trouble(made.stderr), made.stderr
    finally:
        made.kill()


def count_of(running: Gateway) -> int:
    return int(running.metric("scrubber_http2_refused_total"))


def reasons(running: Gateway, network: str) -> dict[str, list[str]]:
    """`error.code` of connections that were ended, by source. A request that is refused has a status as well."""
    found = defaultdict(list)
    for line in running.log_lines():
        source = line.get("source.ip", "")
        if source.startswith(network) and "error.code" in line and "http.response.status_code" not in line:
            found[source].append(line["error.code"])
    return found


def whole(running: Gateway) -> None:
    until(running.pools_whole, 10, "a pool that is not whole")
    assert running.metric("scrubber_http2_session_bytes") == 0
    assert running.metric("scrubber_http2_streams") == 0


@dataclass(frozen=True)
class Siege:
    """All attacks at once, in clear text and over TLS: by name and whether over TLS."""

    ends: dict[tuple[str, bool], Ended]
    reasons: dict[str, list[str]]
    refused: int  # connections, as the gateway counts them
    grown_bytes: int
    people: People
    people2: PeopleOfHttp2

    def codes(self, name: str, secure: bool) -> list[str]:
        return self.reasons.get(address(name, int(secure)), [])


@pytest.fixture(scope="module")
def siege(running: Gateway) -> Siege:
    pid, before, names = running.worker_pid(), count_of(running), list(ABUSES)
    ends: dict[tuple[str, bool], Ended] = {}
    with (
        People(running.port, 1) as people,
        PeopleOfHttp2(running.ports) as people2,
        Memory(pid) as memory,
        # Each in a process of its own: people here shall wait for the gateway alone.
        ProcessPoolExecutor(2, get_context("spawn")) as both,
    ):
        doing = {
            secure: both.submit(attack, names, running.ports[secure], Site(secure=secure), int(secure), ENOUGH_S)
            for secure in (False, True)
        }
        for secure, each in doing.items():
            ends |= {(name, secure): ended for name, ended in each.result().items()}
        time.sleep(0.3)
    assert running.worker_pid() == pid
    whole(running)
    expected = sum(any(each.reason for each in WANTED.get(name, ())) for name in ABUSES) * 2
    with contextlib.suppress(AssertionError):  # each test looks for its own
        until(lambda: sum(map(len, reasons(running, "127.2.").values())) >= expected, 3)
    grown = memory.most_bytes - memory.began_bytes
    return Siege(ends, reasons(running, "127.2."), count_of(running) - before, grown, people, people2)


@pytest.mark.parametrize("secure", [False, True], ids=["clear", "tls"])
@pytest.mark.parametrize("name", WANTED)
def test_it_is_ended(siege: Siege, name: str, secure: bool) -> None:
    ended, wanted = siege.ends[name, secure], WANTED[name]
    assert not ended.failed
    assert ended.over, "not ended"
    assert ended.closed_s >= 0, "told so, and not ended"
    said = siege.codes(name, secure)
    fitting = [each for each in wanted if said == [each.reason] * bool(each.reason)]
    assert fitting, f"{said}, not {' or '.join(each.reason for each in wanted)}"
    # What stands unread on its way when the connection ends may take GOAWAY with it.
    assert ended.goaway in (NONE, *(each.code for each in fitting))
    assert ended.after_s <= max(each.after_s for each in fitting) + 1.0 + SLACK_S


def test_most_are_told_why(siege: Siege) -> None:
    told = [ended.goaway > 0 for (name, _), ended in siege.ends.items() if WANTED.get(name, (UNREAD,))[0].reason]
    assert sum(told) >= 0.9 * len(told)


@pytest.mark.parametrize("secure", [False, True], ids=["clear", "tls"])
def test_slow_bodies_are_ended_one_by_one(siege: Siege, secure: bool) -> None:
    ended = siege.ends["slow-bodies", secure]
    assert ended.answers == 50
    assert siege.codes("slow-bodies", secure) == []


def test_every_attack_is_judged(siege: Siege) -> None:
    assert set(WANTED) | REQUESTS_ALONE == set(ABUSES)
    assert siege.refused == sum(map(len, siege.reasons.values()))


def test_people_are_served_meanwhile(siege: Siege) -> None:
    assert not siege.people.failures, siege.people.failures[:5]
    assert not siege.people2.failures, siege.people2.failures[:5]
    assert siege.people.served >= 20
    assert siege.people2.served >= 40


@pytest.mark.skipif(SANITIZED, reason="AddressSanitizer keeps what was freed")
def test_memory_stays_within_bounds(siege: Siege) -> None:
    assert siege.grown_bytes <= MEMORY_BYTES


def test_who_does_it_again_is_blocked(running: Gateway) -> None:
    """And nobody else."""
    source = "127.2.9.9"
    route = Route(source, "127.0.0.1", running.port)
    for _ in range(3):
        ended = abuse(ABUSES["rapid-reset"], route, Site(), 2.0 * SLOW)
        assert ended.over
    blocks = until(lambda: running.admin("GET", "/v1/blocks")[1]["blocks"], 5, "a block")
    assert [(each["source"], each["rule"]) for each in blocks] == [(source, "test/again")]
    assert abuse(ABUSES["ping"], route, Site(), 2.0 * SLOW).goaway == NONE, "it was listened to"
    assert running.get("/status/200", source="127.2.9.10") == (200, b"as asked")
    assert running.admin("DELETE", f"/v1/blocks?source={source}&reason=over")[0] == 200


@pytest.fixture(scope="module")
def visits(running: Gateway) -> Iterator[dict[tuple[str, bool], str]]:
    """What went wrong with each habit, all at once; afterwards nobody was taken for an abuser."""
    before = count_of(running)
    with ThreadPoolExecutor(2 * len(HABITS)) as pool:
        doing = {
            (name, secure): pool.submit(habit, name, running.ports[secure], secure)
            for name in HABITS
            for secure in (False, True)
        }
        yield {key: each.result() for key, each in doing.items()}
    whole(running)
    assert reasons(running, "127.4.") == {}
    assert count_of(running) == before


@pytest.mark.parametrize("secure", [False, True], ids=["clear", "tls"])
@pytest.mark.parametrize("name", HABITS)
def test_heavy_use_is_no_abuse(visits: dict[tuple[str, bool], str], name: str, secure: bool) -> None:
    assert visits[name, secure] == ""


def test_h2load_is_no_abuse(running: Gateway) -> None:
    """Thousands of requests, a hundred at once on each connection."""
    before = count_of(running)
    h2load = [program("h2load"), "-n", "3000", "-c", "3", "-m", "100", "-t", "1", running.url("/status/200")]
    done = subprocess.run(h2load, capture_output=True, text=True, timeout=60 * SLOW, check=False)
    assert "3000 succeeded" in done.stdout, done.stdout + done.stderr
    assert "3000 2xx" in done.stdout
    assert count_of(running) == before
    whole(running)


@pytest.mark.parametrize("host", ["192.0.2.1", "localhost", "0.0.0.0"])
def test_attacks_leave_loopback_in_no_direction(host: str) -> None:
    for source, target in (("127.2.0.1", host), (host, "127.0.0.1")):
        with pytest.raises(LoadRefused):
            Route(source, target, 80)
    with pytest.raises(LoadRefused):
        abuse(ABUSES["ping"], Route("127.2.0.1", "127.0.0.1", 80), Site(), 1e6)
