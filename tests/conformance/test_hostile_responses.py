"""Origins that answer wrongly, through a running gateway: the client gets 502 or an answer that visibly breaks off,
never a wrong or a repaired one; and a connection with anything left over serves nobody again."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator, Sequence

import pytest

from tests.e2e.proxy import Proxy
from tests.e2e.recorder import Exchange, Gone
from tests.e2e.support import SLOW
from tests.e2e.wire import Answer, Closed, Wire, fetch
from tests.reference import refused

STOLEN = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nSTOLEN"  # what must never answer another request
OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"
EARLY_HINTS = b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n"
SWITCHED = b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n"
NUMBERS = itertools.count()
CLOSED_WITHIN_S = 3.0 * SLOW  # far below the time for which an idle connection is kept

BAD_HEADS: dict[str, bytes] = {
    **{name: start + b"\r\n\r\n" for name, (start, _) in refused.STATUS_LINES.items()},
    **{
        name: OK + b"".join(line + b"\r\n" for line in lines) + b"\r\n"
        for name, (lines, _) in refused.RESPONSE_FIELDS.items()
    },
    "204 with a length": b"HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\nhello",
    "204 with chunks": b"HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "103 with a length": b"HTTP/1.1 103 Early Hints\r\nContent-Length: 5\r\n\r\nhello",
    "100 with chunks": b"HTTP/1.1 100 Continue\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "HTTP/1.0 with chunks": b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "LF LF": b"HTTP/1.1 200 OK\nContent-Length: 0\n\n",
    "CR CR LF": b"HTTP/1.1 200 OK\r\r\nContent-Length: 0\r\n\r\n",
    "a bare CR": b"HTTP/1.1 200 OK\r\nX: a\rContent-Length: 0\r\n\r\n",
    "a head without an end": OK + b"X: " + b"a" * 70_000,
    "fields without an end": OK + b"X: a\r\n" * 20_000,
    "interim answers without an end": EARLY_HINTS * 500,
    "interim answers, then a good one": EARLY_HINTS * 17 + b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
    "a bad one behind an interim one": EARLY_HINTS + b"HTTP/1.1 200 OK\r\nContent-Length: +0\r\n\r\n",
    "101 that nobody asked for": SWITCHED,
    "101 without a protocol": b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
    "the request, echoed": b"GET / HTTP/1.1\r\nHost: site.test\r\n\r\n",
}

BROKEN_BODIES: dict[str, bytes] = {
    **{f"chunk {data!r}": CHUNKED + b"2\r\nab\r\n" + data for data in refused.CHUNKS},
    **{f"trailer {data!r}": CHUNKED + b"2\r\nab\r\n0\r\n" + data + b"\r\n" for data in refused.TRAILERS},
    "an endless trailer section": CHUNKED + b"0\r\n" + b"X: y\r\n" * 2000,
}

# Pieces with a pause between them, the method, and the body that the client must get.
LEFT_OVER: dict[str, tuple[Sequence[bytes], str, bytes]] = {
    "behind a length": ([OK + b"Content-Length: 2\r\n\r\nok" + STOLEN], "GET", b"ok"),
    "a byte behind a length": ([OK + b"Content-Length: 2\r\n\r\nok!"], "GET", b"ok"),
    "an empty line behind a length": ([OK + b"Content-Length: 2\r\n\r\nok\r\n"], "GET", b"ok"),
    "behind chunks": ([CHUNKED + b"2\r\nok\r\n0\r\n\r\n" + STOLEN], "GET", b"ok"),
    "behind nothing": ([OK + b"Content-Length: 0\r\n\r\n" + STOLEN], "GET", b""),
    "behind a large body": (
        [OK + b"Content-Length: 3000000\r\n\r\n" + b"x" * 3_000_000 + STOLEN],
        "GET",
        b"x" * 3_000_000,
    ),
    "a body for HEAD": ([OK + b"Content-Length: 2\r\n\r\nok"], "HEAD", b""),
    "chunks for HEAD": ([CHUNKED + b"2\r\nok\r\n0\r\n\r\n"], "HEAD", b""),
    "a body for 204": ([b"HTTP/1.1 204 No Content\r\n\r\nbody"], "GET", b""),
    "a body for 304": ([b"HTTP/1.1 304 Not Modified\r\nContent-Length: 4\r\n\r\nbody"], "GET", b""),
    "an answer behind 304": ([b"HTTP/1.1 304 Not Modified\r\n\r\n" + STOLEN], "GET", b""),
    "late, behind a length": ([OK + b"Content-Length: 2\r\n\r\nok", STOLEN], "GET", b"ok"),
    "late, behind chunks": ([CHUNKED + b"2\r\nok\r\n0\r\n\r\n", STOLEN], "GET", b"ok"),
    "late, an interim one": ([OK + b"Content-Length: 2\r\n\r\nok", EARLY_HINTS], "GET", b"ok"),
    "late, an empty line": ([OK + b"Content-Length: 2\r\n\r\nok", b"\r\n"], "GET", b"ok"),
    "late, a body for HEAD": ([OK + b"Content-Length: 6\r\n\r\n", b"STOLEN"], "HEAD", b""),
    "late, a body for 304": ([b"HTTP/1.1 304 Not Modified\r\nContent-Length: 6\r\n\r\n", b"STOLEN"], "GET", b""),
    "it says close": ([OK + b"Connection: close\r\nContent-Length: 2\r\n\r\nok"], "GET", b"ok"),
    "HTTP/1.0": ([b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok"], "GET", b"ok"),
}


@pytest.fixture(scope="module")
def found(proxy: type[Proxy]) -> Iterator[Proxy]:
    with proxy(area='upgrade = ["websocket"]', limits='read_timeout = "20s"') as running:
        yield running
        running.whole()


class Hostile:
    """An answer that is given once; then the origin waits for the gateway to end the connection, as it has to."""

    def __init__(self, found: Proxy, pieces: Sequence[bytes], *, pause_s: float = 0.0, early: bool = False) -> None:
        self.origin = found.origin
        self.path = f"/case/{next(NUMBERS)}"
        self.pieces, self.pause_s = pieces, pause_s
        self.closed: bool | None = None
        (self.origin.on_head if early else self.origin.answers)[self.path] = self.answer

    def answer(self, exchange: Exchange) -> None:
        for i, piece in enumerate(self.pieces):
            if i:
                time.sleep(self.pause_s)
            try:
                exchange.send(piece)
            except Gone:
                self.closed = True
                raise
        end = time.monotonic() + CLOSED_WITHIN_S
        closed = False
        while not closed and time.monotonic() < end:  # what is still to come of the request is read off
            closed = exchange.closed_by_gateway(end - time.monotonic())
        self.closed = closed
        raise Gone

    def problem(self, port: int) -> str:
        """What is wrong afterwards: the next request has to be answered, by another connection than this one."""
        (request,) = self.origin.of(self.path)
        after = fetch(port, f"{self.path}/after")
        end = time.monotonic() + CLOSED_WITHIN_S + 1
        while self.closed is None and time.monotonic() < end:
            time.sleep(0.005)
        if (after.status, after.body) != (200, b"ok"):
            return f"the next request got {after.status} {after.body!r}"
        if self.origin.last(f"{self.path}/after").connection == request.connection:
            return "the connection was used again"
        return "" if self.closed else "the connection was kept open"


def ask(wire: Wire, path: str, method: str = "GET", version: str = "1.1") -> Answer:
    wire.send(f"{method} {path} HTTP/{version}\r\nHost: site.test\r\n\r\n".encode())
    return wire.answer(method)


def outcome(port: int, path: str, version: str = "1.1") -> str:
    try:
        with Wire(port) as wire:
            answer = ask(wire, path, version=version)
    except Closed as error:
        return "reset" if error.reset else "broken off"
    return f"{answer.status} {answer.body[:40]!r}" if answer.status < 500 else str(answer.status)


@pytest.mark.parametrize("version", ["1.1", "1.0"])
def test_what_is_no_answer_is_a_502(found: Proxy, version: str) -> None:
    problems = {}
    for name, data in BAD_HEADS.items():
        hostile = Hostile(found, [data + STOLEN])
        said = outcome(found.port, hostile.path, version)
        problem = hostile.problem(found.port) if said == "502" else said
        if problem:
            problems[name] = problem
    assert not problems


def test_what_is_no_answer_is_a_502_byte_by_byte(found: Proxy) -> None:
    problems = {}
    for name in ("length and chunked", "obs-fold", "NUL", "LF LF", "HTTP/1.2", "101 without a protocol"):
        pieces = [bytes([byte]) for byte in BAD_HEADS[name]]
        hostile = Hostile(found, pieces, pause_s=0.001)
        said = outcome(found.port, hostile.path)
        problem = hostile.problem(found.port) if said == "502" else said
        if problem:
            problems[name] = problem
    assert not problems


@pytest.mark.parametrize("version", ["1.1", "1.0"])
def test_a_body_that_goes_wrong_breaks_off(found: Proxy, version: str) -> None:
    """Towards HTTP/1.0, where the end of the connection would be the end of the body, by a reset."""
    problems = {}
    for name, data in BROKEN_BODIES.items():
        hostile = Hostile(found, [data + STOLEN])
        said = outcome(found.port, hostile.path, version)
        expected = ("broken off", "reset") if version == "1.1" else ("reset",)
        problem = hostile.problem(found.port) if said in expected else said
        if problem:
            problems[name] = problem
    assert not problems


@pytest.mark.parametrize("version", ["1.1", "1.0"])
def test_a_body_that_ends_early_breaks_off(found: Proxy, version: str) -> None:
    bodies = {
        "length": OK + b"Content-Length: 10\r\n\r\nfive!",
        "no byte of it": OK + b"Content-Length: 10\r\n\r\n",
        "a large one": OK + b"Content-Length: 9000000\r\n\r\n" + b"x" * 3_000_000,
        "in a chunk": CHUNKED + b"a\r\nfive!",
        "behind a chunk": CHUNKED + b"5\r\nfive!\r\n",
        "before the last line": CHUNKED + b"5\r\nfive!\r\n0\r\n",
        "in a trailer": CHUNKED + b"5\r\nfive!\r\n0\r\nX: y",
    }
    problems = {}
    for name, data in bodies.items():
        for end in (Exchange.close, Exchange.reset):

            def answer(exchange: Exchange, data: bytes = data, end: Callable[[Exchange], None] = end) -> None:
                exchange.send(data)
                end(exchange)

            path = f"/cut/{version}/{name.replace(' ', '-')}"
            found.origin.answers[path] = answer
            said = outcome(found.port, path, version)
            if said not in (("broken off", "reset") if version == "1.1" else ("reset",)) and said != "502":
                problems[f"{name}, {end.__name__}"] = said
    assert not problems


def test_a_body_up_to_the_close_that_is_reset_breaks_off(found: Proxy) -> None:
    def answer(exchange: Exchange) -> None:
        exchange.send(OK + b"\r\nhalf of it")
        time.sleep(0.05)
        exchange.reset()

    found.origin.answers["/until-close"] = answer
    for version in ("1.1", "1.0"):
        said = outcome(found.port, "/until-close", version)
        assert said in ("broken off", "reset"), version


def test_none_at_all_is_a_502(found: Proxy) -> None:
    for end in (Exchange.close, Exchange.reset):
        found.origin.answers["/none"] = end
        assert fetch(found.port, "/none").status == 502
        assert fetch(found.port, "/after-none").status == 200
        found.origin.answers["/half"] = lambda exchange, end=end: (exchange.send(OK + b"X: y"), end(exchange))  # type: ignore[misc]
        assert fetch(found.port, "/half").status == 502


def test_what_is_left_over_serves_nobody(found: Proxy) -> None:
    problems = {}
    for name, (pieces, method, body) in LEFT_OVER.items():
        if len(pieces) > 1:
            continue
        hostile = Hostile(found, pieces)
        with Wire(found.port) as wire:
            answer = ask(wire, hostile.path, method)
            if answer.body != body or answer.status >= 400:
                problems[name] = f"{answer.status} {answer.body[:40]!r}"
                continue
            # The same client's next request, at once.
            again = ask(wire, "/again", method)
            if again.status != 200 or again.body != (b"ok" if method == "GET" else b""):
                problems[name] = f"the same client got {again.status} {again.body!r}"
                continue
        if problem := hostile.problem(found.port):
            problems[name] = problem
    assert not problems


def test_what_comes_late_ends_the_connection(found: Proxy) -> None:
    """Unasked for, on a connection that is idle: nobody gets it, and the connection is closed."""
    problems = {}
    for name, (pieces, method, _) in LEFT_OVER.items():
        if len(pieces) == 1:
            continue
        hostile = Hostile(found, pieces, pause_s=0.03)
        with Wire(found.port) as wire:
            ask(wire, hostile.path, method)
        time.sleep(0.08)
        if problem := hostile.problem(found.port):
            problems[name] = problem
    assert not problems


@pytest.mark.parametrize(
    "framing", [b"Content-Length: 100000\r\n\r\n", b"Transfer-Encoding: chunked\r\n\r\na\r\n0123456789\r\n"]
)
def test_an_answer_before_the_request_is_done_is_the_last_one(found: Proxy, framing: bytes) -> None:
    """Both connections end with it: what else the client sends is no request, what else the origin sends no answer."""
    smuggled = b"GET /smuggled HTTP/1.1\r\nHost: site.test\r\n\r\n"
    for data in (OK, b"HTTP/1.1 413 Content Too Large\r\n"):
        hostile = Hostile(found, [data + b"Content-Length: 2\r\n\r\nok" + STOLEN], early=True)
        with Wire(found.port) as wire:
            wire.send(f"POST {hostile.path} HTTP/1.1\r\nHost: site.test\r\n".encode() + framing)
            answer = wire.answer("POST")
            assert (answer.status, answer.body, answer.one("connection")) == (int(data.split()[1]), b"ok", "close")
            try:
                wire.send(smuggled)
                wire.finish()
            except ConnectionError:
                pass
            assert wire.ends() != "open"
        assert not hostile.problem(found.port)
    assert not found.origin.of("/smuggled")
