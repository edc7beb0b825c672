"""The attack of the bench scenario `drop`: where it may go, what its frames are, and how its results are shown."""

from __future__ import annotations

import ctypes
import ipaddress
import json
import socket
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bench.load.guard import LoadRefused
from bench.macro import report
from bench.macro.drop import DROP, frames
from bench.macro.drop.attack import (
    BENCHMARKS,
    GATE,
    SECONDS_CEILING,
    SOURCES,
    Attack,
    demand_closed_network,
    demand_short,
)
from bench.macro.drop.calls import Calls
from bench.macro.drop.stand import demand
from bench.macro.measure import Rounds
from bench.macro.scenario import METRICS, Effort, Place, Run
from bench.macro.scenarios import LONG, SMOKE
from bench.macro.systems import ROOT, WAYS, BenchError, version
from scrubber.enforce import bpf
from tests.net.xdp_stage import demand_bpf

DEVICE = "far0"


def spec_of(**attack: Any) -> str:
    """What an attacker is told."""
    macs = {"own_mac": "020000000002", "gate_mac": "020000000001"}
    return json.dumps({"attack": {"sources": SOURCES} | attack, "device": DEVICE, "connects": False, **macs})


def attacker(spec: str, said: str = "") -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "bench.macro.drop.attacker", spec]
    return subprocess.run(argv, input=said, capture_output=True, text=True, timeout=60, check=False, cwd=ROOT)


class TestBounds:
    @pytest.mark.parametrize(
        "wrong",
        [
            {"target": "192.0.2.1"},
            {"target": "127.0.0.1"},
            {"target": "gate.example"},
            {"target": "198.18.64.7"},
            {"sources": "10.0.0.0/24"},
            {"sources": "198.18.64.0/21"},
            {"sources": "0.0.0.0/0"},
            {"sources": "198.17.252.0/22"},
            {"sources": "2001:db8::/120"},
            {"port": 0},
            {"port": 65536},
        ],
        ids=str,
    )
    def test_foreign_ends_are_refused(self, wrong: dict[str, Any]) -> None:
        Attack(SOURCES)
        with pytest.raises(LoadRefused):
            Attack(**({"sources": SOURCES} | wrong))

    @pytest.mark.parametrize("wrong", [{"target": "192.0.2.1"}, {"sources": "10.0.0.0/24"}], ids=str)
    def test_the_process_refuses_them_itself(self, wrong: dict[str, Any]) -> None:
        done = attacker(spec_of(**wrong), "wired\n1\n")
        assert done.returncode != 0
        assert done.stdout == ""
        assert "LoadRefused" in done.stderr

    @pytest.mark.parametrize("seconds", [0.0, -1.0, SECONDS_CEILING + 0.1, float("inf"), float("nan")])
    def test_without_an_end_nothing_starts(self, seconds: float) -> None:
        with pytest.raises(LoadRefused):
            demand_short(seconds)
        with pytest.raises(LoadRefused):
            Calls(Attack(SOURCES)).run(seconds)

    def test_no_attack_in_a_network_that_leads_elsewhere(self) -> None:
        with pytest.raises(LoadRefused, match=f"wants {DEVICE} alone"):
            demand_closed_network(DEVICE)

    def test_the_process_attacks_in_a_network_of_its_own_or_not_at_all(self) -> None:
        done = attacker(spec_of(), "wired\n1\n")
        assert done.returncode != 0
        assert "no network namespace" in done.stderr or "this network has no way out" in done.stderr

    def test_who_sends_and_who_drops_share_no_core(self, tmp_path: Path) -> None:
        with pytest.raises(BenchError, match=r"root|two cores"):
            DROP.run("nft", Place(tmp_path, 0, 0, Effort.quick()))

    def test_what_was_not_dropped_is_no_figure(self) -> None:
        demand(990, 1000, "")
        for part, whole in ((989, 1000), (0, 0)):
            with pytest.raises(BenchError, match="so few"):
                demand(part, whole, "so few")


class TestFrames:
    def made(self, attack: Attack, count: int) -> list[bytes]:
        """What the program makes of its frame, run by run."""
        demand_bpf()
        frame, sums = frames.syn(attack, bytes(6), bytes(6))
        program = bpf.load_xdp(frames.program(attack, sums, 1), "bench_tried")
        content, out = (ctypes.create_string_buffer(frame, len(frame)) for _ in range(2))
        found = []
        for _ in range(count):
            places = (len(frame), len(frame), bpf.address(content), bpf.address(out))
            bpf.call(10, bpf.attributes("IIIIQQIIIIQQIII", program, 0, *places, 1, 0, 0, 0, 0, 0, 0, 0, 0))
            found.append(out.raw)
        return found

    @pytest.mark.parametrize("attack", [Attack(SOURCES), Attack("198.19.255.0/25", "198.18.0.7", 65535)])
    def test_sources_vary_and_checksums_hold(self, attack: Attack) -> None:
        made = self.made(attack, 400)
        sources, ports = set(), set()
        for frame in made:
            ip, tcp = frame[14:34], frame[34:54]
            source, target = ipaddress.IPv4Address(ip[12:16]), ipaddress.IPv4Address(ip[16:20])
            assert source in ipaddress.IPv4Network(attack.sources)
            assert (str(target), struct.unpack("!H", tcp[2:4])[0]) == (attack.target, attack.port)
            assert tcp[13] == 2, "a SYN"
            pseudo = ip[12:20] + struct.pack("!HH", socket.IPPROTO_TCP, len(tcp))
            assert frames.folded(ip) == frames.folded(pseudo + tcp) == 0xFFFF
            sources.add(source)
            ports.add(tcp[:2])
        assert len(sources) > 50
        assert len(ports) > 300

    def test_all_sources_of_an_attack_are_blocked(self) -> None:
        addresses = Attack(SOURCES).addresses()
        assert len(set(addresses)) == 1024
        assert all(ipaddress.IPv4Address(each) in BENCHMARKS for each in addresses)
        assert GATE not in addresses


class TestResults:
    def test_it_is_a_scenario_that_no_smoke_runs(self) -> None:
        assert DROP in LONG
        assert DROP.name not in SMOKE
        assert DROP.systems == WAYS

    def test_a_table_without_us_has_no_ratios(self) -> None:
        runs = {way: [Run({"packets_per_s": 2e6, "cpu_ns": 400.0})] for way in WAYS}
        about = {**report.machine(), "proxy_core": 0, "load_core": 1}
        tree = report.results([Rounds(DROP, runs)], about)
        head, _, *lines = report.table(tree, "drop")
        assert head == f"| | unit | {' | '.join(WAYS)} |"
        assert [line.split(" | ")[0] for line in lines] == ["| packets_per_s", "| cpu_ns"]
        assert set(tree["versions"].values()) == {version("scrubber")}
        assert report.markdown(tree).count(version("scrubber")) == 1

    def test_the_method_explains_what_is_shown_of_connections(self) -> None:
        assert all(f"`{name}`" in DROP.method for name in METRICS if name.endswith("_ns_connection"))
