"""One decision of a limit a client: Scrubber's limiter against the packages `limits` and `aiolimiter`."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass

from bench.macro.scenario import Place, Run
from bench.macro.systems import ROOT, BenchError


@dataclass(frozen=True, slots=True)
class Decide:
    """Measured inside a process of its own on the proxy's core (bench.macro.decide.checks)."""

    name: str = "decide"
    title: str = "One decision"
    method: str = (
        "From a client's address to pass or not, under one limit a client, in the program itself. Hot: one client over "
        "and over; cold: a million clients (ten million) in an order in which no cache can help. Bytes a source: what "
        "the table takes up (Scrubber: 16 bytes a cell and its free room; `held`: clients that still have a cell after "
        "all have come) or what the process grew by (`limits` with memory storage and fixed windows, its fastest; "
        "`aiolimiter` with a limiter a client in a dict). `ns_judge_hot` is Scrubber's whole judge: blocks, known "
        "clients, every rule, the account at the end."
    )
    systems: tuple[str, ...] = ("scrubber", "limits", "aiolimiter")

    def run(self, name: str, place: Place) -> Run:
        argv = ["taskset", "-c", str(place.proxy_core), sys.executable, "-m", "bench.macro.decide.checks", name]
        argv += ["--smoke"] if place.effort.smoke else []
        done = subprocess.run(argv, capture_output=True, text=True, timeout=900, check=False, cwd=ROOT)
        if done.returncode:
            raise BenchError(f"decide, {name}: {done.stderr.strip()[-500:]}")
        return Run(json.loads(done.stdout))


DECIDE = Decide()
