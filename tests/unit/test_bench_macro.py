"""The pure parts of the bench: statistics, parsing, rendering; no load tool leaves loopback or runs without an end."""

from __future__ import annotations

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
from bench.macro import measure as measuring
from bench.macro import native, procs, report, stats
from bench.macro.aims import judged
from bench.macro.body import BODY_DOWN
from bench.macro.clean import CLEAN, PEOPLE
from bench.macro.flood.attacks import ATTACKS
from bench.macro.held import held
from bench.macro.load import Ask, Asking, Outcome, spec_of
from bench.macro.measure import Rounds
from bench.macro.network import fresh_network
from bench.macro.procs import Use, difference
from bench.macro.scenario import METRICS, Effort, Place, Run, mostly
from bench.macro.scenarios import GROUPS, SCENARIOS, TRAFFIC
from bench.macro.systems import DEFAULTS, BenchError, files_of, fill, free_port
from tests.unit.answering import Answering, native_origin, reply
from tests.wanted import lacking

OUTCOME = Outcome(1000, 2.0, 1000, 0, 0, 0, 1.5, 4.5)
USE = Use(cpu_ns=20_000_000, core_ns=30_000_000, task_ns=21_000_000, steal_ns=0, wall_ns=2_000_000_000)


def rounds(name: str = "clean") -> Rounds:
    """Ours takes 20, 30, 40 µs in three rounds; nginx always twice, haproxy half of it. One of ours was disturbed."""
    ours = [Run({"cpu_us": value}, "others had it" if value > 35 else "") for value in (20.0, 30.0, 40.0)]
    twice = [Run({"cpu_us": 2 * run.metrics["cpu_us"]}) for run in ours]
    half = [Run({"cpu_us": run.metrics["cpu_us"] / 2}) for run in ours]
    return Rounds(SCENARIOS[name], {"scrubber": ours, "nginx": twice, "haproxy": half})


TRAFFIC_BY_NAME = {scenario.name: scenario for scenario in TRAFFIC}


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
    def test_figures(self) -> None:
        assert CLEAN.figures(OUTCOME, USE) == {
            "cpu_us": 20.0,
            "core_busy_us": 30.0,
            "throughput_per_s": 500.0,
            "latency_ms_p50": 1.5,
            "latency_ms_p99": 4.5,
        }

    def test_figures_of_bodies_are_a_gigabyte(self) -> None:
        found = BODY_DOWN.figures(OUTCOME, USE)
        gb = 1000 * BODY_DOWN.body_bytes / 1e9
        assert found["cpu_s_per_gb"] == pytest.approx(0.02 / gb)
        assert found["throughput_gb_per_s"] == pytest.approx(gb / 2)

    def test_a_tool_without_latency_gives_no_latency_row(self) -> None:
        assert "latency_ms_p50" not in CLEAN.figures(Outcome(10, 1, 0, 0, 10, 0), USE)

    def test_what_the_load_took_is_told_apart(self) -> None:
        found = CLEAN.figures(dataclasses.replace(OUTCOME, cpu_s=0.05), USE)
        assert (found["cpu_us"], found["load_cpu_us"]) == (20.0, pytest.approx(50.0))

    def test_disturbance(self) -> None:
        assert USE.disturbance() == ""
        assert "stolen" in dataclasses.replace(USE, steal_ns=200_000_000).disturbance()
        assert "others" in dataclasses.replace(USE, task_ns=1_000_000_000).disturbance()
        assert dataclasses.replace(USE, core_ns=1_000_000_000).disturbance() == "", "softirq is nobody's"

    def test_a_meter_sees_work_and_who_came(self) -> None:
        meter = procs.Meter(os.getpid(), procs.cores()[0])
        sum(i * i for i in range(300_000))
        assert meter.stop().cpu_ns > 1_000_000
        child = subprocess.Popen(["sleep", "30"])
        try:
            assert meter.stop().pids_changed
        finally:
            child.kill()
            child.wait()

    def test_memory_is_counted(self) -> None:
        before = procs.memory_bytes([os.getpid()])
        kept = bytearray(os.urandom(1 << 20) * 32)
        assert 30 << 20 < procs.memory_bytes([os.getpid()]) - before < 80 << 20
        assert len(kept) == 32 << 20

    @pytest.mark.parametrize("name", [scenario.name for scenario in TRAFFIC])
    def test_a_scenario_takes_only_what_it_measures(self, name: str) -> None:
        good = Outcome(1000, 1, 1000, 0, 0, 0)
        refused = Outcome(1000, 1, 1, 999, 0, 0)
        cut = Outcome(1000, 1, 0, 0, 1000, 0)
        failed = Outcome(1000, 1, 0, 0, 0, 1000)
        full = Outcome(1000, 1, 1000, 0, 0, 0, handshakes=1000)
        resumed = dataclasses.replace(full, resumed=1000)
        mixed = dataclasses.replace(full, resumed=999)
        if name.startswith("tls-handshake"):
            good, others = (resumed, full) if name.endswith("resumed") else (full, resumed)
        else:
            others = refused
        expected = {"reject": refused, "banned": cut}.get(name, good)
        both = [mixed] if name.startswith("tls-handshake") else []
        for outcome in (good, others, refused, cut, failed, Outcome(0, 1, 0, 0, 0, 0), *both):
            assert (TRAFFIC_BY_NAME[name].complaint(outcome) == "") is (outcome is expected), outcome

    def test_mostly(self) -> None:
        assert mostly(995, 1000)
        assert not mostly(994, 1000)
        assert not mostly(0, 0)


@pytest.fixture
def versions(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """What each system says of its version."""
    said = {"scrubber": "scrubber 1.0", "nginx": "nginx 1.0", "haproxy": "haproxy 1.0"}
    monkeypatch.setattr(report, "version", said.__getitem__)
    return said


class TestReport:
    def test_rows(self) -> None:
        rows = report.rows_of(rounds())
        ours = next(row for row in rows if (row["system"], row["metric"]) == ("scrubber", "cpu_us"))
        assert (ours["value"], ours["min"], ours["max"], ours["runs"]) == (30.0, 20.0, 40.0, 3)
        assert ours["ratio_to"] == {"nginx": 0.5, "haproxy": 2.0}
        assert ours["ratio_95"]["nginx"] == [0.5, 0.5]
        assert all(row["ratio_to"] == {} for row in rows if row["system"] != "scrubber")

    def test_markdown_says_what_was_measured(self, versions: dict[str, str]) -> None:
        about = {**report.machine(), "proxy_core": 0, "load_core": 0}
        text = report.markdown(report.results([rounds()], about), ["cpu.png"])
        assert text.index("In each round") < text.index("| cpu_us |")
        assert "0.50 [0.50, 0.50]" in text
        assert "2.00 [2.00, 2.00]" in text
        assert all(said in text for said in versions.values())
        assert "one core only" in text
        assert "clean, scrubber, round 3: others had it" in text
        assert "![cpu](cpu.png)" in text

    def test_files(self, tmp_path: Path, versions: dict[str, str]) -> None:
        del versions
        flood = dataclasses.replace(rounds("flood-get"), runs={"nginx": [Run({"people_success": 1.0})]})
        tree = report.results([rounds(), flood], report.machine())
        report.write(tree, tmp_path)
        assert json.loads((tmp_path / "results.json").read_text())["rows"] == tree["rows"]
        assert (tmp_path / "RESULTS.md").read_text().startswith("# Results")
        assert not (tmp_path / "handshake.png").exists()
        for name in ("cpu.png", "flood.png"):
            assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")

    def test_what_was_not_measured_anew_is_kept(self, versions: dict[str, str]) -> None:
        former = report.results([rounds("post"), rounds("clean")], report.machine())
        tree = report.results([rounds("reject"), rounds("clean")], report.machine())
        both = report.merged(former, tree, list(SCENARIOS))
        assert list(both["scenarios"]) == ["clean", "post", "reject"]
        assert [row["scenario"] for row in both["rows"]] == ["clean"] * 3 + ["post"] * 3 + ["reject"] * 3
        versions["nginx"] = "nginx 2.0"
        assert (
            report.merged(former, report.results([rounds()], report.machine()), list(SCENARIOS))["rows"]
            == tree["rows"][3:]
        )

    def test_what_was_measured_elsewhere_says_so(self, versions: dict[str, str]) -> None:
        del versions
        elsewhere = {**report.machine(), "cpu": "another"}
        former = report.results([rounds("post"), rounds("clean")], elsewhere)
        tree = report.results([rounds("reject")], report.machine())
        both = report.merged(former, tree, list(SCENARIOS))
        text = report.markdown(both)
        assert "\nanother, " in text, "where most of it was measured"
        assert text.count("**On ") == 1
        assert text.index("## reject") < text.index("**On ")
        del former["scenarios"]["post"]["machine"]  # as results once were
        assert report.merged(former, tree, list(SCENARIOS))["scenarios"]["post"]["machine"] == elsewhere

    def test_handshakes_have_a_picture_of_their_own(self) -> None:
        shown = {plot.file: plot.shows for plot in report.PLOTS}
        for name in SCENARIOS:
            assert shown["handshake.png"](name) is name.startswith("tls-handshake")
            assert shown["cpu.png"](name) is not shown["handshake.png"](name)


class TestAims:
    def rows(self, *found: tuple[str, str, str, float]) -> list[dict[str, object]]:
        return [
            {"scenario": scenario, "system": system, "metric": metric, "value": value, "min": value * 0.9}
            for scenario, system, metric, value in found
        ]

    def test_against_the_best_run_of_a_peer(self) -> None:
        rows = self.rows(("clean", "scrubber", "cpu_us", 12.6), ("clean", "nginx", "cpu_us", 20.0))
        ((aim, value, paired, wanted, said),) = judged(rows, 2)
        assert (aim.what, value, paired, wanted, said) == ("cpu_us / nginx", pytest.approx(0.7), None, 0.7, "met")
        rows[0] |= {"value": 14.4, "ratio_to": {"nginx": 0.75}}
        ((_, value, paired, _, said),) = judged(rows, 2)
        assert (value, paired, said) == (pytest.approx(0.8), 0.75, "missed by 14%")

    @pytest.mark.parametrize(
        ("name", "ours", "said"),
        [
            ("tls-handshake-full", 94.0, ["met"]),
            ("tls-handshake-resumed", 104.0, ["missed by 10%"]),
            ("tls-clean", 72.0, ["met", "missed by 11%"]),
            ("h2", 64.0, ["met", "met"]),
        ],
    )
    def test_over_tls(self, name: str, ours: float, said: list[str]) -> None:
        rows = self.rows((name, "scrubber", "cpu_us", ours))
        rows += self.rows((name, "nginx", "cpu_us", 100.0), (name, "haproxy", "cpu_us", 90.0))
        assert [each[-1] for each in judged(rows, 2)] == said

    def test_as_it_is(self) -> None:
        rows = self.rows(("idle", "scrubber", "idle_bytes", 1100), ("idle", "nginx", "idle_bytes", 500))
        assert [(aim.what, said) for aim, *_, said in judged(rows, 2)] == [("idle_bytes", "missed by 7%")]

    @pytest.mark.parametrize(
        ("calm", "attacked", "success", "said"),
        [
            (1.0, 10.9, 1.0, ["met", "met"]),
            (20.0, 39.0, 0.9991, ["met", "met"]),
            (20.0, 41.0, 1.0, ["met", "missed by 2%"]),
            (1.0, 5.0, 0.99, ["missed by 0.90%", "met"]),
        ],
    )
    def test_people_under_attack(
        self, calm: float, attacked: float, success: float, said: list[str], versions: dict[str, str]
    ) -> None:
        del versions
        rows = self.rows(
            ("flood-get", "scrubber", "people_success", success),
            ("flood-get", "scrubber", "latency_ms_p99", attacked),
            ("flood-get", "scrubber", "latency_ms_p99_calm", calm),
        )
        assert [each[-1] for each in judged(rows, 2)] == said
        text = report.markdown(report.results([rounds()], report.machine()) | {"rows": rows, "scenarios": {}})
        assert "| flood-get | people_success | ≥ 0.999 |" in text

    def test_a_second_worker_is_judged_where_there_is_a_core_for_it(self) -> None:
        rows = self.rows(("workers", "scrubber", "speedup", 1.2))
        assert judged(rows, 2) == []
        assert [said for *_, said in judged(rows, 4)] == ["missed by 29.41%"]

    def test_what_was_not_measured_is_not_judged(self) -> None:
        assert judged(self.rows(("clean", "nginx", "cpu_us", 20.0)), 2) == []


class TestMeasure:
    def test_rounds_are_paired_and_theft_is_told_of(self, monkeypatch: pytest.MonkeyPatch) -> None:
        order: list[str] = []

        class Quick:
            name, title, method, systems = "quick", "Quick", "Nothing.", ("scrubber", "nginx")

            def run(self, system: str, place: Place) -> Run:
                order.append(system)
                return Run({"cpu_us": 1.0})

        stolen = iter(range(0, 10**12, 10**9))
        monkeypatch.setattr(measuring, "fresh_network", lambda: False)  # tests after this one want the origin they had
        monkeypatch.setattr(measuring, "core_time", lambda core: procs.CoreTime(0, 0, 0, next(stolen)))
        found = measuring.measure(Quick(), (), 2, Effort.quick(), lambda line: None)
        assert order == ["scrubber", "nginx", "scrubber", "nginx"]
        assert len(found.warnings()) == 4
        assert "stolen" in found.warnings()[0]
        assert list(measuring.measure(Quick(), ("nginx",), 1, Effort.quick(), lambda line: None).runs) == ["nginx"]


class TestNetwork:
    def test_a_fresh_one_has_its_own_loopback_alone(self) -> None:
        found: list[object] = []

        def inside() -> None:
            if not fresh_network():
                found.append(None)
                return
            with socket.create_server(("127.0.0.1", 0)) as server:
                with socket.create_connection(server.getsockname(), timeout=5) as sock:
                    found.append(sock.getsockname()[0])
                found.append(os.readlink("/proc/thread-self/ns/net"))

        before = os.readlink("/proc/thread-self/ns/net")
        thread = threading.Thread(target=inside)  # what it changes ends with it
        thread.start()
        thread.join(20)
        if found == [None]:
            lacking("a network namespace of our own", "run as root")
        assert found[0] == "127.0.0.1"
        assert found[1] != before == os.readlink("/proc/thread-self/ns/net")


class TestConfigs:
    @pytest.mark.parametrize("folder", [*{scenario.configs for scenario in TRAFFIC}, CLEAN.configs.parent / "flood"])
    def test_each_file_has_all_its_values(self, folder: Path) -> None:
        values = {"PORT": 1, "ORIGIN": 2, "DIR": "/x", "LOG_PORT": 3, "AREA": 4, **DEFAULTS}
        found = files_of(folder)
        assert [path.name for path in found] == ["scrubber.toml", "mandate.toml", "nginx.conf", "haproxy.cfg"]
        for path in found:
            assert "@" not in fill(path.read_text(), values).replace("ring@access", "")

    def test_a_name_without_a_value_is_an_error(self) -> None:
        with pytest.raises(KeyError):
            fill("listen @NOWHERE@;", {})

    def test_names(self) -> None:
        assert set(itertools.chain(*GROUPS.values())) < set(SCENARIOS)
        assert {f"flood-{name}" for name in ATTACKS} == set(GROUPS["flood"])
        assert all(scenario.method and scenario.title for scenario in SCENARIOS.values())
        assert all(unit for unit in METRICS.values())


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


class TestAtARate:
    def test_as_many_as_it_says(self) -> None:
        with Answering([reply("200 OK")]) as server:
            found = native.load(
                "127.0.0.1", server.port, ["127.0.66.1"], 8, Ask((), 8, True).request(), True, 10**6, 1.0, 200
            )
        assert 195 <= found["requests"] <= 201
        assert (found["good"], found["retried"]) == (found["requests"], 0)

    def test_no_more_than_it_may(self) -> None:
        with Answering([reply("200 OK")]) as server:
            request = Ask((), 8, True).request()
            found = native.load("127.0.0.1", server.port, ["127.0.66.1"], 8, request, True, 20, 5.0, 1000)
        assert (found["requests"], found["good"]) == (20, 20)
        assert found["seconds"] < 2

    @pytest.mark.parametrize("kept", [True, False])
    def test_what_has_no_answer_is_counted(self, kept: bool) -> None:
        with Answering([reply("200 OK"), b""]) as server:
            request = Ask((), 1, kept).request()
            found = native.load("127.0.0.1", server.port, ["127.0.66.1"], 1, request, kept, 40, 5.0, 200)
        # A kept connection that ends without a word is not the request's failure: it is asked once more, on a new one.
        assert (found["requests"], found["cut"], found["retried"]) == ((40, 0, 39) if kept else (40, 20, 0))

    def test_latency_counts_from_when_it_was_due(self) -> None:
        slow, seen = Answering([reply("200 OK")]), threading.Event()
        serve = slow.serve

        def late(sock: socket.socket) -> None:
            seen.wait(0.5)
            serve(sock)

        slow.serve = late  # type: ignore[method-assign]
        with slow:
            request = Ask((), 1, True).request()
            found = native.load("127.0.0.1", slow.port, ["127.0.66.1"], 1, request, True, 50, 2.0, 100)
        assert found["good"] == 50
        assert found["latency_ms_p99"] > 300
        assert found["latency_ms_p50"] > 100

    def test_nobody_there(self) -> None:
        found = native.load("127.0.0.1", free_port(), ["127.0.66.1"], 4, b"x", True, 50, 2.0, 100)
        assert (found["requests"], found["errors"]) == (50, 50)

    def test_what_was_due_and_never_begun_is_an_error(self) -> None:
        with Answering([b"HTTP/1.1 200 OK\r\n"]) as server:  # and nothing more
            request = Ask((), 2, True).request()
            found = native.load("127.0.0.1", server.port, ["127.0.66.1"], 2, request, True, 10**6, 0.5, 100)
        assert found["good"] == 0
        assert 48 <= found["errors"] <= 51


class TestMessages:
    @pytest.mark.parametrize("nbytes", [1, 125, 126, 4000])
    def test_the_origin_sends_each_back(self, nbytes: int) -> None:
        what = Ask(("127.0.66.1",), 4, True, message_bytes=nbytes)
        with native_origin() as port:
            message, echo = what.message()
            args = ("127.0.0.1", port, ["127.0.66.1"], 4, what.request(), True, 500, 10.0, 0.0, message, echo)
            found = native.load(*args)
            assert (found["requests"], found["good"]) == (500, 500)
            wrong = native.load(*args[:-1], echo[:-1] + b"?")
            assert wrong["good"] == 0
            assert wrong["errors"] + wrong["cut"] == wrong["requests"]

    def test_frames(self) -> None:
        message, echo = Ask((), 1, True, message_bytes=300).message()
        assert (message[:4], echo[:4]) == (b"\x82\xfe\x01\x2c", b"\x82\x7e\x01\x2c")
        mask = message[4:8]
        assert bytes(byte ^ mask[i & 3] for i, byte in enumerate(message[8:])) == echo[4:]

    def test_a_refusal_is_one(self) -> None:
        what = Ask(("127.0.66.1",), 1, True, message_bytes=5)
        with Answering([reply("403 No")]) as server:
            found = native.load(
                "127.0.0.1", server.port, ["127.0.66.1"], 1, what.request(), True, 5, 5.0, 0.0, *what.message()
            )
        assert (found["requests"], found["refused"]) == (5, 5)


class TestProcesses:
    def test_a_load_beside_us(self) -> None:
        with native_origin() as port:
            what = dataclasses.replace(PEOPLE, connections=2)
            outcome = Asking(port, what, Bounds(50, 5), procs.cores()[1]).outcome()
        assert (outcome.requests, outcome.good) == (50, 50)

    def test_held_connections_stay_or_it_says_so(self) -> None:
        what = dataclasses.replace(PEOPLE, connections=20)
        with native_origin() as port, held(port, what, procs.cores()[1]):
            pass
        with Answering([reply("200 OK", b"", "Connection: close\r\n")]) as server:  # noqa: SIM117
            with pytest.raises(BenchError, match="did not stay"), held(server.port, what, procs.cores()[1]):
                pass
        broken = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\nX: close\r\n\r\nabc"
        with Answering([broken]) as server:  # noqa: SIM117
            with pytest.raises(BenchError, match="not every"), held(server.port, what, procs.cores()[1]):
                pass
        with Answering([reply("503 No")]) as server:  # noqa: SIM117
            with pytest.raises(BenchError, match="not every"), held(server.port, what, procs.cores()[1]):
                pass


class TestOrigin:
    @pytest.fixture
    def port(self) -> Iterator[int]:
        with native_origin() as port:
            yield port

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
