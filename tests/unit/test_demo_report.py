"""The demo's report: its figures from known rows, and every condition failing where it should."""
from __future__ import annotations

import dataclasses
import ipaddress
import json
import random
import re
import socket
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from bench.demo import plan as plans
from bench.demo import report, story
from bench.demo.chart import draw as draw_chart
from bench.demo.figures import Figures, Sample, percentile, share
from bench.demo.gateway import area_limit, port_or_free, sample_of, write_files
from bench.demo.screen import Screen, closing, rates
from bench.demo.site import build, expectations, password_is
from bench.load.tally import COLUMNS
from scrubber.admin import metrics
from tests.e2e.support import environment
from tests.unit.files import ROOT

PLAN = plans.draw(1, 140)
LIMIT = report.AreaLimit(500, 500)
KINDS = {kind.name: kind for kind in plans.KINDS}
FAST = [kind.name for kind in plans.KINDS if report.fast_flood(kind)]


def row(**columns: int) -> list[int]:
    return [columns.get(name, 0) for name in COLUMNS]


def good_run(plan: plans.Plan = PLAN) -> Figures:
    """A run in which everything went as it should."""
    figures = Figures()
    rng = random.Random(3)
    people = [[rng.uniform(0, 39_999), rng.uniform(1, 9), "", "127.7.7.7"] for _ in range(11_000)]
    figures.hear_people({"type": "people", "rows": people})
    for kind in FAST:
        for second in range(10, 37):
            served = 300 if second < 12 else 2
            counts = [kind, second, *row(attempted=3000, sent=3000, served=served, reset=3000 - served)]
            figures.hear_attack("flood-0", {"type": "attack", "rows": [counts], "lifetimes": {}})
    senders = [[kind, address, 27 * 100] for kind in FAST for address in plan.attackers[kind]]
    figures.hear_attack("flood-0", {"type": "senders", "rows": senders})
    slow = [["slow", second, *row(attempted=500, sent=500, served=100, throttled=400)] for second in range(10, 37)]
    bare = ("slowloris", "silent", "churn")
    held = [[kind, second, *row(attempted=9, reset=9, open=5)] for kind in bare for second in (10, 12)]
    lifetimes = {"slowloris": [5.0, 5.1], "silent": [5.0]}
    figures.hear_attack("flood-2", {"type": "attack", "rows": slow + held, "lifetimes": lifetimes})
    origin = [[second + 1000, client, 2] for second in range(12, 37) for client in list(plan.people)[:120]]
    origin += [[second + 1000, client, 1] for second in range(12, 37) for client in plan.attackers["slow"][:100]]
    figures.hear_origin({"type": "clients", "rows": origin, "served": 9, "cpu_s": 1.0}, 1000)
    figures.samples.append(Sample(30.0, served=10_000, throttled=5, denied=6, dropped=7, blocks=110))
    return figures


def failed(figures: Figures, limit: report.AreaLimit | None = LIMIT, plan: plans.Plan = PLAN) -> set[str]:
    built = report.build(plan, figures, limit, {})
    assert built["passed"] == all(one["met"] for one in built["conditions"])
    return {one["name"] for one in built["conditions"] if not one["met"]}


def test_a_good_run_passes_and_has_the_promised_fields() -> None:
    built = json.loads(json.dumps(report.build(PLAN, good_run(), LIMIT, {"machine": {}, "versions": {}})))
    assert built["passed"] is True
    assert built["people"]["requests"] == 11_000
    assert built["people"]["success"] == 1.0
    assert set(built["people"]["latency_ms_p99"]) >= {"before", "under_flood"}
    assert built["attack"]["fast_addresses"] == sum(KINDS[kind].addresses for kind in FAST)
    assert built["attack"]["kinds"]["get"]["addresses_sent"] == KINDS["get"].addresses
    assert built["attack"]["requests"] == 27 * (4 * 3000 + 500)
    assert built["attack"]["served_share_after_2s"] == pytest.approx(2 / 3000, abs=1e-6)
    assert set(built["attack"]["kinds"]) == set(KINDS)
    slow = built["attack"]["kinds"]["slow"]
    assert slow["served_per_s_after_2s"] == 100
    assert slow["served_share_after_2s"] == 0.2
    assert built["attack"]["kinds"]["slowloris"]["connection_s_max"] == 5.1
    assert built["area"]["slow_flood_per_s"] == 100
    assert built["area"]["people_per_s"] == 240
    assert built["gateway"]["blocks"] == 110


def lose_people(figures: Figures, second: int, count: int) -> None:
    rows = [[second * 1000.0 + i, 5000.0, "timeout", f"127.8.8.{i % 3}"] for i in range(count)]
    figures.hear_people({"type": "people", "rows": rows})


def serve_flood(kind: str, served: int) -> Callable[[Figures], None]:
    def change(figures: Figures) -> None:
        counts = [kind, 20, *row(attempted=3000, sent=3000, served=served)]
        figures.hear_attack("flood-0", {"type": "attack", "rows": [counts], "lifetimes": {}})
    return change


def test_too_few_people_fail() -> None:
    figures = good_run()
    figures.people.clear()
    figures.asked = 0
    lose = failed(figures)
    assert {"people were there", "people got through", "people got through under the flood"} <= lose


def test_one_person_in_a_thousand_may_fail_and_no_more() -> None:
    figures = good_run()
    lose_people(figures, 2, 11)
    assert failed(figures) == set()
    lose_people(figures, 2, 2)
    assert failed(figures) == {"people got through"}
    assert report.build(PLAN, figures, LIMIT, {})["people"]["people_with_failures"] == 3


def test_losses_under_the_flood_cannot_hide_behind_calm_minutes() -> None:
    figures = good_run()
    lose_people(figures, 15, 9)
    assert failed(figures) == {"people got through under the flood"}


@pytest.mark.parametrize("kind", FAST)
def test_each_fast_flood_is_judged_alone(kind: str) -> None:
    figures = good_run()
    serve_flood(kind, 800)(figures)
    assert failed(figures) == {f"{kind} was not served"}


def test_all_fast_floods_together_are_judged() -> None:
    figures = good_run()
    for kind in FAST:
        serve_flood(kind, 800)(figures)
    assert "the flood was not served" in failed(figures)


def test_the_first_two_seconds_do_not_count() -> None:
    figures = good_run()
    counts = ["get", 11, *row(attempted=3000, sent=3000, served=3000)]
    figures.hear_attack("flood-0", {"type": "attack", "rows": [counts], "lifetimes": {}})
    assert failed(figures) == set()


def test_what_the_origin_saw_counts_where_it_is_more() -> None:
    """Served, though the client never read the answer."""
    figures = good_run()
    figures.origin_rows += [(20, PLAN.attackers["search"][0], 800)]
    assert failed(figures) == {"search was not served"}


def test_a_flood_that_never_came_is_no_success() -> None:
    figures = good_run()
    for key in [key for key in figures.attack if key[1] == "login"]:
        del figures.attack[key]
    assert failed(figures) == {"login was not served"}


def silence(figures: Figures, count: int, sent: int) -> None:
    """So many addresses of the fast floods sent no more than that."""
    everyone = [(kind, address) for kind in FAST for address in PLAN.attackers[kind]]
    for flood, source in everyone[:count]:
        figures.sent_by[flood][source] = sent


@pytest.mark.parametrize("sent", [0, 27 * report.FAST_PER_S])
def test_addresses_that_did_not_flood_are_not_counted(sent: int) -> None:
    """The plan may promise what it likes: an address counts that really sent more than one client may."""
    figures = good_run()
    planned = sum(len(PLAN.attackers[kind]) for kind in FAST)
    silence(figures, planned - 100, sent)
    assert failed(figures) == set()
    silence(figures, planned - 99, sent)
    assert failed(figures) == {"the flood came"}
    attack = report.build(PLAN, figures, LIMIT, {})["attack"]
    assert attack["fast_addresses"] == 99
    assert attack["fast_requests_per_s_an_address"] == {"least": sent / 27, "p50": 100.0}


def test_fast_is_beyond_what_the_mandate_lets_one_client_have() -> None:
    mandate = tomllib.loads((ROOT / "configs" / "demo-mandate.toml").read_text())
    (flood,) = [rule for rule in mandate["rule"] if rule["name"] == "flood"]
    assert flood["limit"].startswith(f"{report.FAST_PER_S}/s ")


def test_more_at_the_origin_than_the_area_limit_allows() -> None:
    figures = good_run()
    figures.origin_rows += [(20, PLAN.attackers["slow"][0], 500 * 25 + 500 - 25 * 340 + 1)]
    assert failed(figures) == {"the area's limit held"}
    assert failed(good_run(), limit=None) == {"the area's limit held"}


def test_an_origin_that_said_nothing_is_no_success() -> None:
    figures = good_run()
    figures.origin_rows.clear()
    assert failed(figures) == {"the area's limit held"}


def test_reports_of_two_processes_add_up_and_a_row_heard_twice_does_not() -> None:
    figures = Figures()
    for process in ("flood-0", "flood-1", "flood-1"):
        rows = [["get", 10, *row(attempted=5, served=1, open=3)]]
        figures.hear_attack(process, {"type": "attack", "rows": rows, "lifetimes": {}})
    assert figures.rows(["get"], 10, 11) == row(attempted=10, served=2, open=3)
    assert figures.rows(["get"], 11, 20) == row()


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=300), st.sampled_from([0.5, 0.9, 0.99, 1.0]))
def test_percentile_is_the_least_value_that_enough_do_not_exceed(values: list[float], part: float) -> None:
    got = percentile(values, part)
    assert got in values
    assert sum(value <= got for value in values) >= part * len(values) - 1e-9
    below = [value for value in values if value < got]
    assert not below or sum(value <= max(below) for value in values) < part * len(values)


def test_nothing_of_nothing() -> None:
    assert percentile([], 0.99) == 0.0
    assert share(0, 0) == 0.0


def test_addresses_are_all_different_all_loopback_and_tell_nothing() -> None:
    for seed in range(5):
        plan = plans.draw(seed, 140)
        everyone = [*plan.people, *(address for addresses in plan.attackers.values() for address in addresses)]
        assert len(set(everyone)) == len(everyone) == 140 + sum(kind.addresses for kind in plans.KINDS)
        assert all(ipaddress.ip_address(address) in ipaddress.ip_network("127.0.0.0/8") for address in everyone)
        assert not any(address.startswith("127.0.") for address in everyone)
        fast = [address for kind in FAST for address in plan.attackers[kind]]
        second = sorted(int(address.split(".")[1]) for address in fast)
        assert second[0] < 40
        assert second[-1] > 215, "attackers are spread over the whole range, as people are"


def test_the_plan_is_what_the_demo_promises() -> None:
    fast = [kind for kind in plans.KINDS if report.fast_flood(kind)]
    assert sum(kind.addresses for kind in fast) >= 100
    assert all(kind.rate_per_s >= 150 for kind in fast)
    assert len(PLAN.people) >= 120
    assert all(0 <= start_s <= 4 for start_s in PLAN.people.values())
    assert PLAN.flood.start_s == 10
    assert PLAN.seconds <= 42
    slow = KINDS["slow"]
    limit = area_limit()
    assert limit is not None
    assert slow.below_limits
    assert slow.rate_per_s * 10 < limit.per_s
    assert slow.asks_per_s() > limit.per_s, "alone more than the origin may carry"
    specs = PLAN.flood_specs(0, 8088)
    attacks = [attack for spec in specs for attack in spec["attacks"]]
    for kind in plans.KINDS:
        sources = [source for attack in attacks if attack["kind"] == kind.name for source in attack["sources"]]
        assert sorted(sources) == sorted(PLAN.attackers[kind.name])
    assert all(spec["seconds_max"] < 60 for spec in specs)


def test_the_gateway_is_told_nothing_of_who_is_who(tmp_path: Path) -> None:
    file = write_files(tmp_path, 18088, 18001)
    text = file.read_text() + (tmp_path / "demo-mandate.toml").read_text()
    assert set(re.findall(r"\d+\.\d+\.\d+\.\d+(?::\d+)?", text)) == {"127.0.0.1:18088", "127.0.0.1:18001"}
    assert "agent" not in text.lower()
    assert "fingerprint" not in text


def test_the_files_of_a_run_have_no_problems(tmp_path: Path) -> None:
    file = write_files(tmp_path, 18088, 18001)
    command = [sys.executable, "-m", "scrubber", "check", str(file), str(tmp_path / "demo-mandate.toml")]
    checked = subprocess.run(command, capture_output=True, text=True, check=False, env=environment())
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_a_taken_port_is_replaced_by_a_free_one() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        other = port_or_free(port)
        assert other != port
        with socket.create_server(("127.0.0.1", other)):
            pass


def test_people_expect_exactly_what_the_site_serves() -> None:
    site, again = build(), build()
    expect = expectations(site)
    assert expect == expectations(again)
    asked = {"GET " + path for page in expect["pages"] for path in (page["path"], *page["assets"])}
    asked |= {"GET " + path for path in (*expect["shared"], *expect["searches"], expect["account"])} | {"POST /login"}
    assert asked == set(expect["expect"])
    assert password_is("correct-horse")
    assert not password_is("wrong")
    for page in expect["pages"]:
        body = site.get(page["path"])
        assert body is not None
        assert all(path.encode() in body.body for path in (*page["assets"], *expect["shared"]))


def test_the_screen_the_line_and_the_closing_table_say_what_is() -> None:
    figures = good_run()
    later = Sample(20.0, served=500, throttled=50, dropped=9000, blocks=110, rush=True)
    figures.samples = [Sample(19.0, served=100), later]
    assert rates(figures.samples)["served"] == 400
    console = Console(width=140, record=True, file=open("/dev/null", "w", encoding="utf-8"))  # noqa: SIM115
    screen = Screen(PLAN, figures, console)
    line = screen.line(21.0)
    assert "served 400/s" in line
    assert "blocked 110" in line
    assert "dropped 9000/s" in line
    console.print(screen.picture(21.0))
    built = report.build(PLAN, figures, LIMIT, {})
    closing(built, console)
    text = console.export_text()
    for word in ("throttled", "slowloris", "latency p99", "110 sources", "people got through", "met"):
        assert word in text
    figures.people.clear()
    figures.asked = 0
    closing(report.build(PLAN, figures, LIMIT, {}), console)
    assert "FAILED people were there" in console.export_text()


def test_a_sample_reads_the_gateways_own_exposition() -> None:
    text = metrics.Text()
    text.counter("scrubber_served", "-", [({"area": "portal"}, 70)])
    verdicts = [({"area": "portal", "verdict": word}, 10 + n) for n, word in enumerate(metrics.VERDICTS)]
    text.counter("scrubber_verdicts", "-", verdicts)
    dropped = [({"reason": "blocked"}, 1000), ({"reason": "cap_client"}, 200), ({"reason": "rule"}, 30)]
    text.counter("scrubber_connections_dropped", "-", dropped)
    text.gauge("scrubber_blocks", "-", [({}, 9)])
    text.gauge("scrubber_rush", "-", [({"area": "portal"}, 1)])
    sample = sample_of(str(text), 3.0)
    assert sample == Sample(3.0, served=70, throttled=11, denied=14, dropped=1245, blocks=9, rush=True)


@pytest.mark.parametrize(
    ("at_s", "says"), [(-1, "starting"), (5, "calm"), (11, "flood"), (38, "over"), (50, "counting")]
)
def test_the_story_follows_the_phases(at_s: float, says: str) -> None:
    assert says in story.now(PLAN, good_run(), at_s)


def test_the_chart_is_a_picture(tmp_path: Path) -> None:
    figures = good_run()
    built: dict[str, Any] = report.build(PLAN, figures, LIMIT, {})
    draw_chart(tmp_path / "chart.png", PLAN, figures, built)
    assert (tmp_path / "chart.png").read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    empty = dataclasses.replace(PLAN)
    draw_chart(tmp_path / "empty.png", empty, Figures(), report.build(PLAN, Figures(), None, {}))
    assert (tmp_path / "empty.png").stat().st_size > 10_000
