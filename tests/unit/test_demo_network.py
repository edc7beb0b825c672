"""The demo in networks of its own, without any: its plan, its files, what report, screen and chart make of it."""

from __future__ import annotations

import dataclasses
import ipaddress
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from bench.demo import network, report, story
from bench.demo import plan as plans
from bench.demo.chart import draw as draw_chart
from bench.demo.chart import steps
from bench.demo.figures import Figures, Sample, Victim
from bench.demo.gateway import sample_of, write_files
from bench.demo.screen import Screen, closing
from bench.demo.upstream import detail_of
from scrubber.admin import metrics
from tests.e2e.support import environment
from tests.unit.test_demo_report import LIMIT, good_run, row

PLAN = plans.draw(1, 140, place=plans.NETWORK)
KERNEL, UPSTREAM = "blocked sources ended in the kernel", "the provider dropped what went to the victim"


def good() -> Figures:
    """A run in which everything went as it should."""
    figures = good_run(PLAN)
    figures.samples = [
        Sample(at, blocks=120, in_force=120, kernel_packets=int(max(0, at - 11)) * 16_000) for at in range(10, 40)
    ]
    tried = [["victim", second, *row(attempted=400)] for second in range(10, 37)]
    figures.hear_attack("flood-2", {"type": "attack", "rows": tried, "lifetimes": {}})
    counted = [(at / 2, max(0, min(at, 56) - 20) * 200) for at in range(78)]
    figures.victim = Victim(counted, asked_s=27.9, status=201, dropped_s=28.0)
    return figures


def failed(figures: Figures) -> set[str]:
    built = report.build(PLAN, figures, LIMIT, {})
    assert built["passed"] == all(one["met"] for one in built["conditions"])
    return {one["name"] for one in built["conditions"] if not one["met"]}


def test_addresses_are_all_of_one_pool_and_none_is_ours() -> None:
    ours = ipaddress.ip_network(network.PROTECTED)
    for seed in range(5):
        plan = plans.draw(seed, 140, place=plans.NETWORK)
        everyone = [*plan.people, *(address for addresses in plan.attackers.values() for address in addresses)]
        assert len(set(everyone)) == len(everyone) == 140 + sum(kind.addresses for kind in plan.place.kinds)
        assert all(ipaddress.ip_address(address) in ipaddress.ip_network(network.POOL) for address in everyone)
        assert not any(ipaddress.ip_address(address) in ours for address in everyone)
        for some in (list(plan.people), plan.attackers["get"], plan.attackers["victim"]):
            second = [int(address.split(".")[1]) for address in some]
            assert set(second) == {18, 19}, "people and attackers are spread over the whole range"


def test_the_plan_has_a_victim_that_is_not_the_site() -> None:
    specs = PLAN.flood_specs(0, 8088)
    attacks = {attack["kind"]: attack for spec in specs for attack in spec["attacks"]}
    assert {name for name, attack in attacks.items() if attack["target"] == network.VICTIM} == {"victim"}
    assert {attack["target"] for name, attack in attacks.items() if name != "victim"} == {network.SITE}
    assert PLAN.people_spec(0, 8088, {})["site"]["target"] == network.SITE
    assert PLAN.flood.start_s + 5 < PLAN.give_up_s < PLAN.flood.stop_s - 5, "there is time to measure before and after"
    quickest = min(kind.connections / plans.NETWORK.connect_s for kind in plans.KINDS if kind.rate_per_s >= 150)
    assert quickest >= 150, "who is dropped goes on at full rate"


def test_on_loopback_there_is_no_victim() -> None:
    plan = plans.draw(1, 140)
    assert "victim" not in plan.attackers
    assert all(attack["target"] == "127.0.0.1" for spec in plan.flood_specs(0, 1) for attack in spec["attacks"])
    built = report.build(plan, good_run(), LIMIT, {})
    assert built["kernel"] is built["upstream"] is None
    assert not {KERNEL, UPSTREAM} & {one["name"] for one in built["conditions"]}


def test_the_gateway_is_told_nothing_of_who_is_who(tmp_path: Path) -> None:
    file = write_files(tmp_path, 8088, 8001, enforced=True)
    text = file.read_text() + (tmp_path / "demo-mandate.toml").read_text()
    ends = {network.GATEWAY_END, network.UPSTREAM_END, network.PROTECTED}
    assert set(re.findall(r"\d+\.\d+\.\d+\.\d+(?:[:/]\d+)?", text)) == {"203.0.113.10:8088", "127.0.0.1:8001", *ends}


def test_the_files_of_a_run_have_no_problems_and_make_a_session(tmp_path: Path) -> None:
    file = write_files(tmp_path, 8088, 8001, enforced=True)
    for words in (["check", str(file), str(tmp_path / "demo-mandate.toml")], ["enforce", "bird-config", str(file)]):
        command = [sys.executable, "-m", "scrubber", *words]
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment())
        assert done.returncode == 0, done.stdout + done.stderr
    assert f"neighbor {network.UPSTREAM_END} as 64513;" in done.stdout


def test_a_good_run_passes_and_says_what_was_kept_from_the_gateway() -> None:
    assert failed(good()) == set()
    built = json.loads(json.dumps(report.build(PLAN, good(), LIMIT, {"left_out": ""})))
    assert built["kernel"]["in_force"] == built["kernel"]["blocked"] == 120
    assert built["kernel"]["packets_per_s_after_2s"] == 16_000
    assert built["upstream"]["packets_per_s"] == {"before": 400, "after": 0}
    assert built["upstream"]["dropped_after_s"] == 0.1
    assert built["upstream"]["tried_per_s_after"] == 400
    assert built["attack"]["kinds"]["victim"]["requests"] == 27 * 400


def sampled(**values: int) -> Callable[[Figures], None]:
    """The gateway said this, all the time."""

    def change(figures: Figures) -> None:
        figures.samples = [dataclasses.replace(one, **values) for one in figures.samples]

    return change


def nobody_dropped(figures: Figures) -> None:
    figures.victim.dropped_s = None


def no_answer(figures: Figures) -> None:
    figures.victim.status, figures.victim.dropped_s = 0, None


def still_comes(figures: Figures) -> None:
    figures.victim.counted = [(at / 2, at * 200) for at in range(78)]


def nothing_sent_after(figures: Figures) -> None:
    for key in [key for key in figures.attack if key[1] == "victim" and key[2] >= 28]:
        del figures.attack[key]


def nothing_came(figures: Figures) -> None:
    figures.victim.counted = [(at / 2, 0) for at in range(78)]


def never_asked(figures: Figures) -> None:
    figures.victim = Victim(figures.victim.counted)


def silent_gateway(figures: Figures) -> None:
    figures.samples.clear()


@pytest.mark.parametrize(
    ("change", "condition"),
    [
        (sampled(in_force=107), KERNEL),
        (sampled(kernel_packets=5), KERNEL),  # nothing more in all the time
        (sampled(blocks=0, in_force=0), KERNEL),
        (silent_gateway, KERNEL),
        (nobody_dropped, UPSTREAM),
        (no_answer, UPSTREAM),
        (still_comes, UPSTREAM),
        (nothing_sent_after, UPSTREAM),
        (nothing_came, UPSTREAM),
        (never_asked, UPSTREAM),
    ],
)
def test_what_was_not_measured_or_not_reached_fails(change: Callable[[Figures], None], condition: str) -> None:
    figures = good()
    change(figures)
    assert failed(figures) == {condition}


def test_a_refusal_fails_and_says_why() -> None:
    figures = good()
    figures.victim = Victim(figures.victim.counted, 27.9, 409, "the gateway answered 409, no clause allows it")
    assert failed(figures) == {UPSTREAM}
    assert "could not be given up: the gateway answered 409, no" in Screen(PLAN, figures, Console()).line(30.0)


def test_one_in_a_hundred_packets_may_still_come() -> None:
    figures = good()
    last = figures.victim.counted[-1][1]
    figures.victim.counted = [(at, n + (at > 30) * 30) for at, n in figures.victim.counted]
    assert failed(figures) == set()
    figures.victim.counted = [(at, n + (at > 30) * 30) for at, n in figures.victim.counted]
    assert figures.victim.counted[-1][1] == last + 60
    assert failed(figures) == {UPSTREAM}


def test_the_screen_the_line_and_the_closing_table_say_what_is() -> None:
    figures = good()
    console = Console(width=150, record=True, file=open("/dev/null", "w", encoding="utf-8"))  # noqa: SIM115
    screen = Screen(PLAN, figures, console)
    assert "kernel 120 drops 16000/s" in screen.line(40.0)
    assert "upstream: 203.0.113.66 given up" in screen.line(40.0)
    figures.victim.asked_s = None
    console.print(screen.picture(20.0))
    figures.victim.asked_s = 27.9
    console.print(screen.picture(35.0))
    built = report.build(PLAN, figures, LIMIT, {})
    closing(built, console)
    text = console.export_text()
    for said in (
        "where nothing is served, takes 400 packets/s",
        "drops what 120 blocked sources send",
        "203.0.113.66 given up, the provider drops it",
        "203.0.113.66 given up at 28 s, dropped by the provider's kernel 100 ms later",
        "before 400/s, after 0/s",
        "kernel: 120 of 120 blocked sources; 448,000 of their packets dropped",
    ):
        assert said in text
    figures.victim.dropped_s = None
    closing(report.build(PLAN, figures, LIMIT, {}), console)
    assert "203.0.113.66 could not be given up: the provider does not drop it" in console.export_text()


def test_a_sample_reads_what_the_kernel_drops() -> None:
    text = metrics.Text()
    text.gauge("scrubber_kernel_drops", "-", [({"backend": "nft"}, 100), ({"backend": "xdp"}, 20)])
    text.counter("scrubber_kernel_dropped_packets", "-", [({}, 77)])
    assert sample_of(str(text), 3.0) == Sample(3.0, in_force=120, kernel_packets=77)


def test_counts_become_rates() -> None:
    assert steps([(0.0, 0), (0.5, 100), (1.0, 300), (1.01, 301), (2.0, 300)], 1.0) == ([0.5, 1.5], [300.0, 0.0])
    assert Victim([(1.0, 10), (2.0, 30), (4.0, 90)]).per_s(1.5, 5.0) == 30
    assert Victim([(1.0, 10)]).per_s(0.0, 5.0) == 0.0


def test_an_act_says_whom_it_meets() -> None:
    act = {"event.action": "blackhole", "scrubber.measure": "blackhole", "scrubber.target": network.VICTIM}
    assert story.act_text(act | {"scrubber.ttl_s": 20.0}) == "blackhole 203.0.113.66 for 20 s"


def test_a_refusal_is_read_whatever_it_is() -> None:
    assert detail_of('{"status": 409, "detail": "not ours"}') == "not ours"
    assert detail_of("Bad Gateway") == "Bad Gateway"


def test_the_chart_is_a_picture(tmp_path: Path) -> None:
    figures = good()
    draw_chart(tmp_path / "chart.png", PLAN, figures, report.build(PLAN, figures, LIMIT, {}))
    draw_chart(tmp_path / "empty.png", PLAN, Figures(), report.build(PLAN, Figures(), None, {}))
    for name in ("chart.png", "empty.png"):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
