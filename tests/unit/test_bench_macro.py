"""The pure parts of the bench: statistics, parsing, rendering; no load tool leaves loopback or runs without an end."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import json
import os
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.load.guard import Bounds, LoadRefused
from bench.macro import native, procs, report, stats
from bench.macro.load import Ask, Outcome, spec_of
from bench.macro.measure import Rounds, Run, difference
from bench.macro.scenario import mostly
from bench.macro.scenarios import SCENARIOS
from bench.macro.systems import SYSTEMS, fill, free_port

OUTCOME = Outcome(1000, 2.0, 1000, 0, 0, 0, 1.5, 4.5)
ROUND = Run(OUTCOME, cpu_ns=20_000_000, core_ns=30_000_000, task_ns=21_000_000, steal_ns=0, wall_ns=2_000_000_000)


def rounds() -> Rounds:
    """Ours takes 20, 30, 40 µs in three rounds; nginx always twice, haproxy half of it."""
    ours = [dataclasses.replace(ROUND, cpu_ns=n * 1_000_000) for n in (20, 30, 40)]
    twice = [dataclasses.replace(run, cpu_ns=2 * run.cpu_ns, core_ns=2 * run.core_ns) for run in ours]
    half = [dataclasses.replace(run, cpu_ns=run.cpu_ns // 2) for run in ours]
    return Rounds(SCENARIOS["clean"], {"scrubber": ours, "nginx": twice, "haproxy": half})


class TestStats:
    def test_ratio_is_taken_round_by_round(self) -> None:
        ratio = stats.paired_ratio([10, 20, 90], [20, 40, 100])
        assert ratio.value == 0.5
        assert (ratio.low, ratio.high) == (0.5, 0.9)

    @given(st.lists(st.floats(0.1, 1e6), min_size=1, max_size=12), st.floats(0.01, 100))
    def test_a_constant_ratio_has_no_width(self, theirs: list[float], factor: float) -> None:
        ratio = stats.paired_ratio([value * factor for value in theirs], theirs)
        assert ratio.low == pytest.approx(factor)
        assert ratio.high == pytest.approx(factor)

    @given(st.lists(st.floats(0.1, 1e6), min_size=1, max_size=12))
    def test_the_interval_is_within_what_was_measured(self, values: list[float]) -> None:
        low, high = stats.bootstrap_median(values, 200)
        assert min(values) <= low <= high <= max(values)
        assert stats.bootstrap_median(values, 200) == (low, high)

    @pytest.mark.parametrize(("ours", "theirs"), [([], []), ([1.0], [1.0, 2.0]), ([1.0], [0.0])])
    def test_what_does_not_pair_is_refused(self, ours: list[float], theirs: list[float]) -> None:
        with pytest.raises(ValueError, match=r"pair|nothing"):
            stats.paired_ratio(ours, theirs)


class TestProc:
    def test_core_line(self) -> None:
        tick = procs.TICK_NS
        assert procs.parse_core_line("cpu0 1 2 3 40 50 6 7 8 9 10") == procs.CoreTime(
            19 * tick, 6 * tick, 90 * tick, 8 * tick
        )

    def test_schedstat(self) -> None:
        assert procs.parse_schedstat("123456789 42 7\n") == 123456789

    def test_our_own_time_grows_with_work(self) -> None:
        before = procs.cpu_ns([os.getpid()])
        sum(i * i for i in range(300_000))
        assert procs.cpu_ns([os.getpid()]) > before

    def test_descendants(self) -> None:
        child = subprocess.Popen(["sh", "-c", "sleep 30 & wait"])
        try:
            for _ in range(200):
                below = procs.descendants(os.getpid())
                if len(procs.descendants(child.pid)) == 2:
                    break
            assert {os.getpid(), child.pid} <= set(below)
            assert len(procs.descendants(child.pid)) == 2
        finally:
            for pid in reversed(procs.descendants(child.pid)):
                os.kill(pid, 15)
            child.wait()

    def test_difference(self) -> None:
        assert difference(procs.CoreTime(10, 5, 20, 1), procs.CoreTime(40, 15, 25, 3)) == (30, 10, 2, 37)


class TestRun:
    def test_metrics(self) -> None:
        assert ROUND.metrics() == {
            "cpu_us": 20.0,
            "core_busy_us": 30.0,
            "throughput_per_s": 500.0,
            "latency_ms_p50": 1.5,
            "latency_ms_p99": 4.5,
        }

    def test_a_tool_without_latency_gives_no_latency_row(self) -> None:
        assert "latency_ms_p50" not in dataclasses.replace(ROUND, outcome=Outcome(10, 1, 0, 0, 10, 0)).metrics()

    def test_disturbance(self) -> None:
        assert ROUND.disturbance() == ""
        assert "stolen" in dataclasses.replace(ROUND, steal_ns=200_000_000).disturbance()
        assert "others" in dataclasses.replace(ROUND, task_ns=1_000_000_000).disturbance()
        assert dataclasses.replace(ROUND, core_ns=1_000_000_000).disturbance() == "", "softirq is nobody's"

    @pytest.mark.parametrize("name", SCENARIOS)
    def test_a_scenario_takes_only_what_it_measures(self, name: str) -> None:
        good = Outcome(1000, 1, 1000, 0, 0, 0)
        refused = Outcome(1000, 1, 1, 999, 0, 0)
        cut = Outcome(1000, 1, 0, 0, 1000, 0)
        failed = Outcome(1000, 1, 0, 0, 0, 1000)
        expected = {"reject": refused, "banned": cut}.get(name, good)
        for outcome in (good, refused, cut, failed, Outcome(0, 1, 0, 0, 0, 0)):
            assert (SCENARIOS[name].complaint(outcome) == "") is (outcome is expected), outcome

    def test_mostly(self) -> None:
        assert mostly(995, 1000)
        assert not mostly(994, 1000)
        assert not mostly(0, 0)


class TestReport:
    def tree(self) -> dict[str, object]:
        about = {**report.machine(), "proxy_core": 0, "load_core": 1}
        tree = report.results([rounds()], [], about)
        return tree

    def test_rows(self) -> None:
        rows = report.rows_of(rounds())
        ours = next(row for row in rows if (row["system"], row["metric"]) == ("scrubber", "cpu_us"))
        assert (ours["value"], ours["min"], ours["max"], ours["runs"]) == (30.0, 20.0, 40.0, 3)
        assert ours["ratio_to"] == {"nginx": 0.5, "haproxy": 2.0}
        assert ours["ratio_95"]["nginx"] == [0.5, 0.5]
        assert all(row["ratio_to"] == {} for row in rows if row["system"] != "scrubber")

    def test_markdown_says_what_was_measured(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(report, "version", lambda name: f"{name} 1.0")
        about = {**report.machine(), "proxy_core": 0, "load_core": 0}
        tree = report.results([rounds()], ["scrubber", "nginx"], about)
        text = report.markdown(tree)
        assert text.index("In each round") < text.index("| cpu_us |")
        assert "0.50 [0.50, 0.50]" in text
        assert "2.00 [2.00, 2.00]" in text
        assert "nginx 1.0" in text
        assert "one core only" in text

    def test_files(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(report, "version", lambda name: f"{name} 1.0")
        tree = report.results([rounds()], ["scrubber"], report.machine())
        report.write(tree, tmp_path)
        assert json.loads((tmp_path / "results.json").read_text())["rows"] == tree["rows"]
        assert (tmp_path / "RESULTS.md").read_text().startswith("# Results")
        if (tmp_path / "cpu.png").exists():
            assert (tmp_path / "cpu.png").read_bytes().startswith(b"\x89PNG")


class TestConfigs:
    @pytest.mark.parametrize("name", SCENARIOS)
    def test_each_scenario_has_a_file_for_each_system(self, name: str) -> None:
        folder = SCENARIOS[name].configs
        values = {"PORT": 1, "ORIGIN": 2, "DIR": "/x", "LOG_PORT": 3, "SPLICE": ""}
        for file in ("scrubber.toml", "mandate.toml", "nginx.conf", "haproxy.cfg"):
            assert "@" not in fill((folder / file).read_text(), values).replace("ring@access", "")
        assert len(SYSTEMS) == 3

    def test_a_name_without_a_value_is_an_error(self) -> None:
        with pytest.raises(KeyError):
            fill("listen @NOWHERE@;", {})


class Answering:
    """A server that gives each request the next of these answers (b"": none) and closes after it where it says so."""

    def __init__(self, answers: list[bytes]) -> None:
        self.answers = itertools.cycle(answers)
        self.server = socket.create_server(("127.0.0.1", 0))
        self.port: int = self.server.getsockname()[1]
        self.sources: set[str] = set()
        self.connections = 0
        self.requests: list[bytes] = []
        threading.Thread(target=self.accept, daemon=True).start()

    def __enter__(self) -> Answering:
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown(socket.SHUT_RDWR)  # wakes who waits in accept
        self.server.close()

    def accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                sock, address = self.server.accept()
                self.sources.add(address[0])
                self.connections += 1
                threading.Thread(target=self.serve, args=(sock,), daemon=True).start()

    def serve(self, sock: socket.socket) -> None:
        with sock, contextlib.suppress(OSError):
            data = b""
            while piece := sock.recv(65536):
                data += piece
                while b"\r\n\r\n" in data:
                    request, data = data.split(b"\r\n\r\n", 1)
                    self.requests.append(request)
                    answer = next(self.answers)
                    sock.sendall(answer)
                    if not answer or b"close" in answer:
                        return


def reply(status: str, body: bytes = b"", more: str = "") -> bytes:
    return f"HTTP/1.1 {status}\r\n{more}Content-Length: {len(body)}\r\n\r\n".encode() + body


class TestLoad:
    @pytest.mark.parametrize("host", ["192.0.2.1", "localhost", "example.org", "0.0.0.0", "::ffff:192.0.2.1", ""])
    def test_what_is_not_loopback_is_refused(self, host: str) -> None:
        with pytest.raises(LoadRefused):
            spec_of(host, 80, Ask(("127.0.0.1",), 1, True), Bounds(1, 1))
        with pytest.raises(LoadRefused):
            Ask((host,), 1, True)
        for target, source in ((host, "127.0.0.1"), ("127.0.0.1", host)):
            with pytest.raises(ValueError, match="127"):
                native.load(target, 80, [source], 1, b"x", True, 1, 1.0)

    @pytest.mark.parametrize(("count", "seconds"), [(0, 1.0), (10**9, 1.0), (1, 0.0), (1, 1e9)])
    def test_a_load_without_an_end_is_refused(self, count: int, seconds: float) -> None:
        with pytest.raises(LoadRefused):
            Bounds(count, seconds)
        with pytest.raises(ValueError, match="end"):
            native.load("127.0.0.1", 80, ["127.0.0.1"], 1, b"x", True, count, seconds)

    @pytest.mark.parametrize("kept", [True, False])
    def test_answers_are_counted_by_kind(self, kept: bool) -> None:
        with Answering([reply("200 OK", b"x" * 100_000), reply("302 Found"), reply("429 No", b"no"), b""]) as server:
            what = Ask(("127.0.66.1", "127.0.66.2"), 1, kept)
            found = native.load("127.0.0.1", server.port, list(what.sources), 1, what.request(), kept, 40, 10.0)
            assert [found[k] for k in ("requests", "good", "refused", "cut", "errors")] == [40, 20, 10, 10, 0]
            assert len(server.requests) == 40
            assert server.connections == (10 if kept else 40)
            assert server.sources == {"127.0.66.1", "127.0.66.2"}
            assert 0 < found["latency_ms_p50"] <= found["latency_ms_p99"] < 5000

    def test_a_server_that_closes_gets_a_new_connection(self) -> None:
        with Answering([reply("200 OK", b"ok", "Connection: close\r\n")]) as server:
            found = native.load("127.0.0.1", server.port, ["127.0.0.1"], 3, Ask((), 3, True).request(), True, 30, 10.0)
            assert (found["requests"], found["good"]) == (30, 30)
            assert server.connections == 30

    def test_it_ends_when_its_time_is_over(self) -> None:
        with Answering([reply("200 OK")]) as server:
            request = Ask((), 2, True).request()
            found = native.load("127.0.0.1", server.port, ["127.0.0.1"], 2, request, True, 10**6, 0.2)
            assert found["requests"] == found["good"] > 0
            assert found["seconds"] < 5

    def test_nobody_there_is_an_error_and_not_a_refusal(self) -> None:
        found = native.load("127.0.0.1", free_port(), ["127.0.0.1"], 2, b"x", False, 10, 2.0)
        assert (found["errors"], found["cut"]) == (10, 0)

    @pytest.mark.parametrize(
        "broken",
        [
            b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\nX: close\r\n\r\nabc",
            b"nonsense\r\n\r\nclose",
            b"HTTP/1.1 200 OK\r\nX: close\r\n\r\n",
        ],
    )
    def test_a_broken_answer_is_an_error(self, broken: bytes) -> None:
        with Answering([broken]) as server:
            found = native.load("127.0.0.1", server.port, ["127.0.0.1"], 1, Ask((), 1, True).request(), True, 5, 5.0)
            assert (found["requests"], found["errors"]) == (5, 5)


class TestOrigin:
    @pytest.fixture
    def port(self) -> Iterator[int]:
        stop, stopper = socket.socketpair()
        with socket.create_server(("127.0.0.1", 0)) as listener, stop, stopper:
            listener.setblocking(False)
            args = (listener.fileno(), stop.fileno(), reply("200 OK", b"page"))
            thread = threading.Thread(target=native.serve, args=args)
            thread.start()
            yield listener.getsockname()[1]
            stopper.send(b"x")
            thread.join(5)
            assert not thread.is_alive()

    def test_each_request_is_answered_once(self, port: int) -> None:
        with socket.create_connection(("127.0.0.1", port), timeout=5) as sock:
            post = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 30000\r\n\r\n"
            get = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
            sock.sendall(get + get[:10])
            sock.sendall(get[10:] + post)
            sock.sendall((b"GET / HTTP/1.1\r\n\r\n" * 1700)[:30000])
            sock.sendall(get)
            data = b""
            while data.count(b"page") < 4:
                data += sock.recv(65536)
            sock.settimeout(0.2)
            with pytest.raises(TimeoutError):
                sock.recv(1)
        assert data == reply("200 OK", b"page") * 4

    def test_under_the_load_tool(self, port: int) -> None:
        found = native.load("127.0.0.1", port, ["127.0.0.1"], 16, Ask((), 1, True).request(), True, 3000, 20.0)
        assert (found["good"], found["errors"]) == (3000, 0)
