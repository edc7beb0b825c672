"""Abuse of HTTP/2 in the bench: what is sent, who sends it, who asks meanwhile, and what is made of it."""

from __future__ import annotations

import contextlib
import json
import select
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h2.config
import h2.connection
import h2.events
import hpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.load import h2_people, h2_shapes
from bench.load.guard import LoadRefused, Route
from bench.load.h2_abuse import Ended, Heard, abuse
from bench.load.h2_shapes import ABUSES, GOAWAY, HEADERS, PREFACE, RST_STREAM, Site, frame, integer
from bench.macro import h2_abuse, report
from bench.macro.aims import judged
from bench.macro.h2_abuse import ATTACKS, HERE, figures_of
from bench.macro.measure import Rounds
from bench.macro.scenario import Run
from bench.macro.scenarios import GROUPS, SCENARIOS, SMOKE
from bench.macro.systems import DEFAULTS, BenchError, certificate, files_of, fill, free_port
from tests.e2e.support import environment

SITE = Site()
# Attacks whose point is that a frame is not whole, or that are no HTTP/2.
PARTIAL = {"slow-preface", "slow-settings", "slow-head", "huge-frame", "never-read-http1"}


def frames(data: bytes) -> list[tuple[int, int, bytes]]:
    """Kind, stream and payload of each; nothing may be left over."""
    found, at = [], 0
    while at < len(data):
        end = at + 9 + int.from_bytes(data[at : at + 3])
        assert end <= len(data), "a frame that is not whole"
        found.append((data[at + 3], int.from_bytes(data[at + 5 : at + 9]), data[at + 9 : end]))
        at = end
    return found


class TestShapes:
    def test_integers_as_in_rfc_7541(self) -> None:
        assert integer(10, 5) == b"\x0a"
        assert integer(1337, 5) == b"\x1f\x9a\x0a"
        assert integer(42, 8) == b"\x2a"

    @given(st.integers(0, 2**31), st.integers(1, 8))
    def test_integers_come_back(self, value: int, bits: int) -> None:
        assert hpack.hpack.decode_integer(integer(value, bits), bits)[0] == value

    def test_heads(self) -> None:
        asked = hpack.Decoder().decode(Site(secure=True).block("/a", "POST", h2_shapes.literal(b"x-a", b"1")))
        assert [tuple(field) for field in asked] == [
            (":method", "POST"),
            (":scheme", "https"),
            (":path", "/a"),
            (":authority", "site.test"),
            ("x-a", "1"),
        ]

    @pytest.mark.parametrize("name", ABUSES)
    def test_each_ends_by_itself(self, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(h2_shapes, "ROUNDS", 3)
        how = ABUSES[name]
        pieces = list(how.pieces(SITE))
        assert 1 <= len(pieces) <= 3000
        assert how.what
        if name in PARTIAL:
            return
        assert pieces[0].startswith(PREFACE)
        for piece in (pieces[0][len(PREFACE) :], *pieces[1:]):
            assert frames(piece)

    def test_rapid_reset_is_that(self) -> None:
        pieces = ABUSES["rapid-reset"].pieces(SITE)
        next(pieces)
        found = frames(next(pieces)) + frames(next(pieces))
        assert [kind for kind, *_ in found] == [HEADERS, RST_STREAM] * (len(found) // 2)
        assert [stream for _, stream, _ in found[::2]] == [stream for _, stream, _ in found[1::2]]
        assert [stream for _, stream, _ in found[::2]] == list(range(1, len(found), 2))

    def test_a_bomb_is_one(self) -> None:
        pieces = ABUSES["table-bomb"].pieces(SITE)
        decoder = hpack.Decoder(max_header_list_size=2**30)
        blocks = [payload for piece in (next(pieces)[len(PREFACE) :], next(pieces)) for _, _, payload in frames(piece)]
        decoder.decode(blocks[-2])
        fields = decoder.decode(blocks[-1])
        assert sum(len(name) + len(value) for name, value in fields) > 1000 * len(blocks[-1])


class TestHeard:
    said = (
        frame(4, 0, b"")
        + frame(HEADERS, 1, b"\x88", 5)
        + frame(0, 1, b"x" * 300, 1)
        + frame(RST_STREAM, 3, bytes(4))
        + frame(GOAWAY, 0, bytes(4) + b"\0\0\0\x0b" + b"why")
    )

    @given(st.lists(st.integers(1, 60), max_size=30))
    def test_however_it_comes(self, sizes: list[int]) -> None:
        heard, at = Heard(), 0
        for size in [*sizes, len(self.said)]:
            heard.take(self.said[at : at + size])
            at += size
        assert (heard.goaway, heard.resets, heard.answers) == (11, 1, 1)

    def test_nothing_yet(self) -> None:
        heard = Heard()
        heard.take(self.said[:-1])
        assert (heard.goaway, heard.resets, heard.answers) == (-1, 1, 1)


@contextlib.contextmanager
def serving(serve: Callable[[socket.socket], None], secure: bool = False) -> Iterator[int]:
    """A server that does that to each connection; its port."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)

    def take(sock: socket.socket) -> None:
        with contextlib.suppress(OSError), sock:
            serve(context.wrap_socket(sock, server_side=True) if secure else sock)

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=take, args=(listener.accept()[0],), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        if secure:
            chain, key = certificate("ecdsa")
            with contextlib.ExitStack() as stack:
                path = stack.enter_context(_written(chain + key))
                context.load_cert_chain(path)
            context.set_alpn_protocols(["h2"])
        threading.Thread(target=accept, daemon=True).start()
        try:
            yield listener.getsockname()[1]
        finally:
            listener.shutdown(socket.SHUT_RDWR)


@contextlib.contextmanager
def _written(content: bytes) -> Iterator[str]:
    with tempfile.NamedTemporaryFile() as file:
        file.write(content)
        file.flush()
        yield file.name


def until_it_has_sent(count: int, answer: bytes = b"") -> Callable[[socket.socket], None]:
    def serve(sock: socket.socket) -> None:
        taken = 0
        while taken < count and (piece := sock.recv(65_536)):
            taken += len(piece)
        sock.sendall(answer)
        sock.shutdown(socket.SHUT_WR)
        while sock.recv(65_536):
            pass

    return serve


def attacked(port: int, name: str = "ping", seconds: float = 5.0, secure: bool = False) -> Ended:
    return abuse(ABUSES[name], Route("127.0.86.1", "127.0.0.1", port), Site(secure=secure), seconds)


class TestAbuser:
    def test_it_is_told_why_it_ends(self) -> None:
        with serving(until_it_has_sent(50_000, TestHeard.said)) as port:
            ended = attacked(port)
        assert (ended.goaway, ended.over, ended.failed) == (11, True, "")
        assert 0 < ended.after_s <= ended.closed_s < 5
        assert ended.sent_bytes >= 50_000

    def test_over_tls(self) -> None:
        with serving(until_it_has_sent(50_000, TestHeard.said), secure=True) as port:
            ended = attacked(port, secure=True)
        assert (ended.goaway, ended.over, ended.failed) == (11, True, "")

    def test_an_end_without_a_word(self) -> None:
        with serving(until_it_has_sent(5000)) as port:
            ended = attacked(port)
        assert (ended.goaway, ended.over) == (-1, True)

    def test_goodbye_without_an_error_is_no_end(self) -> None:
        goodbye = frame(GOAWAY, 0, bytes(8))

        def serve(sock: socket.socket) -> None:
            sock.sendall(goodbye)
            while sock.recv(65_536):
                pass

        with serving(serve) as port:
            ended = attacked(port, seconds=0.4)
        assert (ended.goaway, ended.over) == (0, False)

    def test_who_is_let_do_it_is_not_ended(self) -> None:
        with serving(until_it_has_sent(1 << 40)) as port:
            ended = attacked(port, seconds=0.4)
        assert (ended.over, ended.goaway, ended.closed_s) == (False, -1, -1)
        assert ended.sent_bytes > 100_000

    def test_one_that_reads_nothing_sees_the_end(self) -> None:
        with serving(until_it_has_sent(100, b"x" * 1_000_000)) as port:
            assert not attacked(port, "never-read", 0.3).over

        def cut(sock: socket.socket) -> None:
            sock.recv(100)

        with serving(cut) as port:
            assert attacked(port, "never-read").over

    def test_nobody_there(self) -> None:
        ended = attacked(free_port())
        assert ended.failed
        assert not ended.over

    def test_no_h2_there(self) -> None:
        with serving(until_it_has_sent(100)) as port:
            assert attacked(port, secure=True, seconds=2).failed

    def test_a_run_without_an_end_is_refused(self) -> None:
        with pytest.raises(LoadRefused):
            attacked(free_port(), seconds=1e6)

    @pytest.mark.parametrize("wrong", [{"target": "192.0.2.1"}, {"source": "192.0.2.7"}, {"seconds_max": 1e9}])
    @pytest.mark.parametrize("module", ["bench.load.h2_abuse", "bench.load.h2_people"])
    def test_the_processes_refuse_to_leave_loopback(self, module: str, wrong: dict[str, Any]) -> None:
        spec = {"target": "127.0.0.1", "port": 80, "source": "127.0.0.2", "abuse": "ping", "nice": 0, "site": {}}
        spec |= {"requests_max": 1, "seconds_max": 0.1, "rate_per_s": 10} | wrong
        spec["sources"] = [spec["source"]]
        done = subprocess.run(
            [sys.executable, "-m", module],
            input=json.dumps(spec) + "\n",
            cwd=Path(__file__).parents[2],
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
            env=environment(),
        )
        assert done.returncode != 0
        assert "LoadRefused" in done.stderr


def answering(turn: Callable[[h2.connection.H2Connection, int], None]) -> Callable[[socket.socket], None]:
    """A server of HTTP/2 that does that for each request."""

    def serve(sock: socket.socket) -> None:
        conn = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False))
        conn.initiate_connection()
        sock.sendall(conn.data_to_send())
        while piece := sock.recv(65_536):
            for event in conn.receive_data(piece):
                if isinstance(event, h2.events.RequestReceived):
                    turn(conn, event.stream_id)
            sock.sendall(conn.data_to_send())

    return serve


class Thrown(Exception):
    """Out of a connection."""


def answer(conn: h2.connection.H2Connection, stream: int, status: str = "200") -> None:
    conn.send_headers(stream, [(":status", status), ("server", "a test")])
    conn.send_data(stream, b"x" * 3000, end_stream=True)


def asked(port: int, **more: Any) -> dict[str, Any]:
    spec = {"target": "127.0.0.1", "port": port, "sources": ["127.0.72.1", "127.0.72.2"], "rate_per_s": 100}
    spec |= {"requests_max": 40, "seconds_max": 5, "site": {"secure": True}}
    return h2_people.run(spec | more)


@pytest.fixture(autouse=True)
def never_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(h2_people, "told_to_stop", lambda: False)


class TestPeople:
    def test_all_are_answered(self) -> None:
        with serving(answering(answer), secure=True) as port:
            found = asked(port)
        assert (found["requests"], found["good"], found["errors"], found["cut"]) == (40, 40, 0, 0)
        assert 0 < found["latency_ms_p50"] <= found["latency_ms_p99"] < 2000
        assert 0.35 <= found["seconds"] < 4

    def test_what_is_no_page_is_counted_by_kind(self) -> None:
        def turn(conn: h2.connection.H2Connection, stream: int) -> None:
            if stream % 8 == 1:
                conn.reset_stream(stream)
            else:
                answer(conn, stream, "429" if stream % 8 == 3 else "200")

        with serving(answering(turn), secure=True) as port:
            found = asked(port)
        assert (found["good"], found["refused"], found["cut"], found["errors"]) == (20, 10, 10, 0)

    def test_who_is_thrown_out_comes_back(self) -> None:
        met = set()

        def turn(conn: h2.connection.H2Connection, stream: int) -> None:
            met.add(conn)
            if stream < 7:
                answer(conn, stream)
            else:
                raise OSError

        with serving(answering(turn), secure=True) as port:
            found = asked(port)
        # How much is asked on a connection until its end is seen, time decides.
        assert found["good"] + found["cut"] == 40
        assert found["errors"] == 0
        assert len(met) > 2
        assert 2 * 3 < found["good"] <= 3 * len(met)
        assert found["cut"] >= len(met) - 2, "each but the last two ended with one that was lost"

    def test_who_asks_before_the_end_is_seen_comes_back(self) -> None:
        def serve(sock: socket.socket) -> None:
            with contextlib.suppress(Thrown):
                answering(once)(sock)

        def once(conn: h2.connection.H2Connection, stream: int) -> None:
            if stream > 1:
                raise Thrown
            answer(conn, stream)

        with serving(serve, secure=True) as port, select.epoll() as poll:
            tally = h2_people.Tally()
            person = h2_people.Person(Route("127.0.72.1", "127.0.0.1", port), Site(secure=True), tally, poll)

            def heard(good: int) -> None:
                for number, events in poll.poll(5):
                    assert person.sock is not None
                    assert number == person.sock.fileno()
                    person.step(events)
                if tally.good < good:
                    heard(good)

            person.ask(0.0)
            heard(1)
            first, asked_on_it = person.sock, 0
            while person.sock is first:
                person.ask(0.0)
                asked_on_it += 1
                time.sleep(0.01)
            assert tally.cut == asked_on_it
            person.ask(0.0)
            heard(2)

    def test_no_answer_is_an_error(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(h2_people, "LATE_S", 0.2)
        with serving(answering(lambda *_: None), secure=True) as port:
            found = asked(port)
        assert (found["good"], found["errors"]) == (0, 40)

    def test_nobody_there(self) -> None:
        found = asked(free_port())
        assert (found["requests"], found["good"], found["errors"]) == (40, 0, 40)


class TestFigures:
    def test_all_ended(self) -> None:
        ends = [Ended(after_s=0.2), Ended(after_s=0.5, began_s=5.9), Ended(failed="refused")]
        assert figures_of(ends, 6) == {"abusers_ended": 1.0, "abusers_refused": 1.0, "ended_s": 0.5}

    def test_who_was_not_ended_has_no_time(self) -> None:
        assert figures_of([Ended(after_s=0.2), Ended()], 6) == {"abusers_ended": 0.5, "abusers_refused": 0.0}

    def test_who_came_at_the_last_moment_is_not_judged(self) -> None:
        assert figures_of([Ended(after_s=0.2), Ended(began_s=5.8)], 6)["abusers_ended"] == 1.0

    def test_nobody_got_in(self) -> None:
        with pytest.raises(BenchError, match="no abuser"):
            figures_of([Ended(failed="refused")], 6)


class TestScenario:
    def test_names(self) -> None:
        assert set(ATTACKS) <= set(ABUSES)
        assert GROUPS["h2-abuse"] == tuple(f"h2-abuse-{attack}" for attack in ATTACKS)
        assert {"h2-abuse-rapid-reset", "h2-abuse-windows-held"} == {name for name in SMOKE if "h2-abuse" in name}
        assert len({SCENARIOS[name].method for name in GROUPS["h2-abuse"]}) == len(ATTACKS)

    def test_each_file_has_all_its_values(self) -> None:
        found = files_of(HERE)
        assert {path.parent for path in found} == {HERE}
        for path in found:
            filled = fill(path.read_text(), {"PORT": 1, "ORIGIN": 2, "DIR": "/x", "LOG_PORT": 3, **DEFAULTS})
            assert "@" not in filled.replace("ring@access", "")

    def test_a_process_without_a_report_is_an_error(self) -> None:
        spec = h2_abuse.people_of(free_port(), h2_abuse.Bounds(1, 1), 0)  # no rate: it fails
        with h2_abuse.processes("bench.load.h2_people", [spec], 0) as (people,):  # noqa: SIM117
            with pytest.raises(BenchError, match="without a report"):
                h2_abuse.said(people)

    def rows(self, name: str, **figures: float) -> list[dict[str, Any]]:
        return [
            {"scenario": name, "system": "scrubber", "metric": metric, "value": value, "min": value}
            for metric, value in figures.items()
        ]

    @pytest.mark.parametrize(
        ("attack", "ended_s", "said"),
        [("ping", 0.9, "met"), ("ping", 1.5, "missed by 50%"), ("windows-held", 1.5, "met")],
    )
    def test_aims(self, attack: str, ended_s: float, said: str) -> None:
        figures = {"people_success": 1.0, "latency_ms_p99": 12.0, "latency_ms_p99_calm": 3.0}
        rows = self.rows(f"h2-abuse-{attack}", **figures, abusers_ended=1.0, ended_s=ended_s)
        assert [(aim.metric, word) for aim, *_, word in judged(rows, 2)] == [
            ("people_success", "met"),
            ("latency_ms_p99", "met"),
            ("abusers_ended", "met"),
            ("ended_s", said),
        ]

    def test_who_ends_nobody_misses(self) -> None:
        rows = self.rows("h2-abuse-ping", abusers_ended=0.5)
        assert [word for *_, word in judged(rows, 2)] == ["missed by 50.00%"]

    def test_not_ended_is_said(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(report, "version", str)
        ours, theirs = {"abusers_ended": 1.0, "ended_s": 0.2}, {"abusers_ended": 0.0}
        rounds = Rounds(SCENARIOS["h2-abuse-ping"], {"scrubber": [Run(ours)], "nginx": [Run(theirs)]})
        lines = report.table(report.results([rounds], report.machine()), "h2-abuse-ping")
        assert any(line.startswith("| ended_s ") and "| not ended |" in line for line in lines)
