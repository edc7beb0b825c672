"""Programs that people run, behind the gateway: answers as straight, whatever their habits with connections are."""

from __future__ import annotations

import contextlib
import os
import random
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.e2e.proxy import Proxy
from tests.e2e.support import SLOW, until
from tests.e2e.wire import Closed, Wire
from tests.interop import battery
from tests.interop.apps import shapes
from tests.interop.clients import Raw
from tests.interop.conftest import Program, settled
from tests.interop.origins import KINDS, Kind
from tests.interop.same import Call, check_all

BATTERY = [*battery.of_any_origin(), *battery.of_applications()]
Starter = Callable[..., Program]


@pytest.fixture(scope="module", params=KINDS, ids=[kind.name for kind in KINDS])
def kind(request: pytest.FixtureRequest) -> Kind:
    found: Kind = request.param
    found.needs()
    return found


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Starter]:
    """Starts origins, and ends them."""
    running: list[Program] = []

    def begin(kind: Kind, **how: object) -> Program:
        directory = tmp_path / f"{kind.name}{len(running)}"
        directory.mkdir()
        running.append(kind.start(directory, **how))  # type: ignore[arg-type]
        return running[-1]

    yield begin
    for each in running:
        each.stop()


def before(*origins: Program, **how: object) -> Proxy:
    return Proxy(workers=2, origins=[f"127.0.0.1:{each.port}" for each in origins], **how)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def standing(kind: Kind, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Program, Proxy]]:
    """An origin of this kind and a gateway before it, for all tests that leave both as they were."""
    origin = kind.start(tmp_path_factory.mktemp(kind.name), idle_s=max(1.0, kind.idle_s_min))
    try:
        with before(origin) as front:
            yield origin, front
    finally:
        origin.stop()


def test_answers_are_the_same(kind: Kind, standing: tuple[Program, Proxy], tmp_path: Path) -> None:
    origin, front = standing
    calls = [call for call in BATTERY if call.name not in kind.cannot]
    client = Raw()
    straight = client.run(calls, origin.port, tmp_path)
    through = client.run(calls, front.port, tmp_path)
    check_all(straight, through, calls, (origin.port, front.port))
    settled(front)


# --- connections that origins end -----------------------------------------------


def gets(port: int, count: int, pause_s: Callable[[], float], methods: str = "GET") -> list[int]:
    """Statuses of `count` requests on one connection to the gateway, a pause before each."""
    found = []
    wire = Wire(port)
    try:
        for _ in range(count):
            time.sleep(pause_s())
            wire.send(f"{methods} /small HTTP/1.1\r\nHost: site.test\r\n\r\n".encode())
            answer = wire.answer(methods)
            found.append(answer.status)
            if methods == "GET":
                assert answer.body == (shapes.SMALL if answer.status == 200 else answer.body)
            if "close" in answer.all("connection"):
                wire.sock.close()
                wire = Wire(port)
    finally:
        wire.sock.close()
    return found


def beside_each_other(how: Callable[[], None], count: int) -> None:
    """`how` in that many threads; what any of them raised is raised here."""
    problems: list[BaseException] = []

    def one() -> None:
        try:
            how()
        except BaseException as error:  # raised again below
            problems.append(error)

    threads = [threading.Thread(target=one) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if problems:
        raise problems[0]


def test_no_request_fails_where_the_origin_ends_idle_connections_first(kind: Kind, start: Starter) -> None:
    """The origin ends a kept connection after a few ms (those that can), about when the next request is sent on it."""
    if kind.idle_s_min >= 1:
        pytest.skip("cannot be told to keep connections for less than a second: see the next test")
    idle_s = kind.idle_s_min
    origin = start(kind, idle_s=idle_s)
    chance = random.Random(7)
    # On a busy machine nearly every reuse may meet an end: that is what is tried here, not the budget.
    with before(origin, area='retry_budget = "100%"') as front:

        def one() -> None:
            statuses = gets(front.port, 80, lambda: chance.uniform(idle_s * 0.6, idle_s * 1.6))
            assert statuses == [200] * 80, statuses

        beside_each_other(one, 4)
        connects = front.metric("scrubber_origin_connects_total")
        assert connects > 4, "no kept connection ended: the test shows nothing"
        settled(front)


def test_no_request_fails_after_the_origin_has_ended_idle_connections(standing: tuple[Program, Proxy]) -> None:
    """They are kept for a second: the next request comes at about that time."""
    _, front = standing

    def one() -> None:
        pauses = iter([0.0, random.uniform(0.97, 1.03)])
        assert gets(front.port, 2, lambda: next(pauses)) == [200] * 2

    beside_each_other(one, 12)
    settled(front)


# --- restarts -----------------------------------------------


class Traffic:
    """GETs and HEADs through the gateway for as long as the context lasts. `statuses`: what came."""

    def __init__(self, port: int, threads: int = 4, pause_s: float = 0.002) -> None:
        self.port = port
        self.pause_s = pause_s
        self.statuses: list[int] = []
        self.broken: list[BaseException] = []
        self.ended = threading.Event()
        self.threads = [threading.Thread(target=self.one) for _ in range(threads)]

    def one(self) -> None:
        wire = Wire(self.port)
        while not self.ended.is_set():
            try:
                answer = wire.get("/small")
            except (Closed, OSError, AssertionError) as error:
                self.broken.append(error)
                wire.sock.close()
                wire = Wire(self.port)
                continue
            self.statuses.append(answer.status)
            if "close" in answer.all("connection"):
                wire.sock.close()
                wire = Wire(self.port)
            time.sleep(self.pause_s)
        wire.sock.close()

    def __enter__(self) -> Traffic:
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.ended.set()
        for thread in self.threads:
            thread.join(20 * SLOW)

    def further(self, count: int = 50, status: int = 200) -> None:
        """Until that many further answers of that status came."""
        seen = len(self.statuses)
        until(lambda: self.statuses[seen:].count(status) >= count, 20, f"{count} answers of {status}")

    def all_served(self) -> None:
        assert not self.broken, self.broken[:3]
        bad = [status for status in self.statuses if status != 200]
        assert not bad and len(self.statuses) > 100, (len(bad), len(self.statuses), bad[:10])


def test_a_graceful_reload_of_the_origin_loses_no_request(kind: Kind, standing: tuple[Program, Proxy]) -> None:
    origin, front = standing
    if not kind.graceful:
        pytest.skip("has no reload of its own")
    with Traffic(front.port) as traffic:
        for _ in range(2):
            traffic.further()
            kind.reload(origin)
        traffic.further()
    traffic.all_served()
    settled(front)


def test_one_of_two_origins_restarted_loses_no_request(kind: Kind, start: Starter) -> None:
    """Ended in good order and started anew on its port, while the other one takes what it cannot."""
    first, second = start(kind), start(kind)
    with before(first, second) as front:
        with Traffic(front.port) as traffic:
            traffic.further()
            first.stop(kind.ending)
            traffic.further()
            again = start(kind, port=first.port)
            traffic.further()
        traffic.all_served()
        assert again.port == first.port
        settled(front)


def test_killed_and_started_again(kind: Kind, start: Starter) -> None:
    """While the only origin is away clients get 502, never a hanging or a broken answer; afterwards all is well."""
    first = start(kind)
    with before(first) as front:
        with Traffic(front.port) as traffic:
            traffic.further()
            for pid in [*family(first.process.pid)]:
                kill(pid)
            traffic.further(20, 502)
            assert set(traffic.statuses) == {200, 502}, set(traffic.statuses)
            start(kind, port=first.port)
            traffic.further(1)
            seen = len(traffic.statuses)
            traffic.further(100)
        assert set(traffic.statuses[seen:]) == {200}
        # What was being answered when the origin died could only break off.
        assert len(traffic.broken) <= 4, traffic.broken
        settled(front)


def family(pid: int) -> list[int]:
    """A process that a test started, and its children."""
    found = [pid]
    for each in found:
        path = Path(f"/proc/{each}/task/{each}/children")
        found += [int(child) for child in path.read_text().split()] if path.exists() else []
    return found


def kill(pid: int) -> None:

    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def test_an_origin_that_boots_slowly_is_waited_for(start: Starter) -> None:
    """gunicorn listens before its workers can answer: what is asked meanwhile waits in its queue."""
    kind = next(kind for kind in KINDS if kind.name == "gunicorn-gthread")
    kind.needs()
    origin = start(kind, ORIGIN_BOOT_S="1.5")
    with before(origin) as front:
        beside_each_other(lambda: _served(front.port), 8)
        settled(front)


def _served(port: int) -> None:
    assert gets(port, 2, lambda: 0.0) == [200, 200]


# --- what only some of them do -----------------------------------------------


def test_interim_answers_and_trailers_of_node(start: Starter, tmp_path: Path) -> None:
    kind = next(kind for kind in KINDS if kind.name == "node")
    kind.needs()
    origin = start(kind)
    calls = [Call("hints", "/hints"), Call("close", "/close"), Call("drip", "/drip"), Call("after", "/small")]
    with before(origin) as front:
        straight = Raw().run(calls, origin.port, tmp_path)
        through = Raw().run(calls, front.port, tmp_path)
        check_all(straight, through, calls, (origin.port, front.port))
        assert through[0].interim == [(103, "</style.css>; rel=preload; as=style"), (102, "")]
        with Wire(front.port) as wire:
            answer = wire.get("/chunked")
            assert answer.body == b"".join(b"piece %d\n" % i * (i + 1) for i in range(20))
            assert answer.trailers == []  # decoded and framed anew: trailers end at the gateway
        settled(front)


def test_heads_near_the_limit(kind: Kind, standing: tuple[Program, Proxy]) -> None:
    """What the origin takes straight passes through the gateway too, up to its own limit, which is said and kept."""
    origin, front = standing
    # Of each program's own: a field of 8 KiB (gunicorn, nginx), 16 KiB in all (Node).
    for lengths in [7000], [7000, 4000, 2500]:
        fields = "".join(f"X-Piece-{i}: {'c' * length}\r\n" for i, length in enumerate(lengths))
        for port in origin.port, front.port:
            with Wire(port) as wire:
                wire.send(f"GET /small HTTP/1.1\r\nHost: site.test\r\n{fields}\r\n".encode())
                assert wire.answer().status == 200, (port, lengths)
    with Wire(front.port) as wire:
        wire.send(b"GET /small HTTP/1.1\r\nHost: site.test\r\nX-Long: " + b"v" * 20_000 + b"\r\n\r\n")
        assert wire.answer().status == 431
    settled(front)


def test_answers_stream_piece_by_piece(kind: Kind, standing: tuple[Program, Proxy]) -> None:
    if "chunked" in kind.cannot:
        pytest.skip("serves files")
    with Wire(standing[1].port) as wire:
        wire.send(b"GET /drip HTTP/1.1\r\nHost: site.test\r\n\r\n")
        answer = wire.head()
        assert answer.one("transfer-encoding") == "chunked" and answer.one("content-length") is None
        assert wire.chunks(answer) == b"".join(shapes.PIECES)
        assert re.fullmatch(r"[0-9a-f]{16,32}", answer.one("x-request-id") or "")
