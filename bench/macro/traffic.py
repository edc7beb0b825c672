"""Scenarios of HTTP traffic against a proxy: each system freshly started, warmed up, asked for some seconds.

Invariants: figures are differences over the load alone; an outcome that the scenario does not accept is an error, never
a row.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from bench.load.guard import Bounds
from bench.macro.load import Ask, Outcome, ask
from bench.macro.procs import Meter, Use
from bench.macro.scenario import Place, Run
from bench.macro.systems import SYSTEMS, BenchError, Running, origin, system


@dataclass(frozen=True, slots=True)
class Traffic:
    """One kind of traffic. `configs`: the folder with scrubber.toml, mandate.toml, nginx.conf, haproxy.cfg."""

    name: str
    title: str
    method: str
    configs: Path
    asks: Ask
    complaint: Callable[[Outcome], str]  # why an outcome does not count; empty: it does
    tool: Callable[[int, Ask, Bounds, int], Outcome] = ask  # what asks
    prepare: Callable[[Running], None] = lambda _: None  # after the start, before the load
    values: dict[str, object] = field(default_factory=dict)  # for the configurations
    page_bytes: int = 0  # of the origin's answer; 0: about 1 KB
    body_bytes: int = 0  # that a request moves, where what counts is CPU a GB; 0: CPU a request counts
    systems: tuple[str, ...] = SYSTEMS

    def run(self, name: str, place: Place) -> Run:
        """Start the system, warm it up, measure it under load, end it."""
        with origin(place.scratch, place.load_core, self.page_bytes) as origin_port:
            values = {"ORIGIN": origin_port, **self.values}
            with system(name, self.configs, place.scratch, (place.proxy_core,), values) as running:
                self.prepare(running)
                self.tool(running.port, self.asks, place.effort.warm, place.load_core)
                meter = Meter(running.process.pid, place.proxy_core)
                outcome = self.tool(running.port, self.asks, place.effort.load, place.load_core)
                use = meter.stop()
        if use.pids_changed:
            raise BenchError(f"{name}: processes came or went during the run", "look into its log")
        if complaint := self.complaint(outcome):
            raise BenchError(f"{self.name}, {name}: {complaint}: {outcome}")
        return Run(self.figures(outcome, use), use.disturbance())

    def figures(self, outcome: Outcome, use: Use) -> dict[str, float]:
        if self.body_bytes:
            gb = outcome.requests * self.body_bytes / 1e9
            return {
                "cpu_s_per_gb": use.cpu_ns / 1e9 / gb,
                "core_busy_s_per_gb": use.core_ns / 1e9 / gb,
                "throughput_gb_per_s": gb / outcome.seconds,
            }
        found = {
            "cpu_us": use.cpu_ns / 1e3 / outcome.requests,
            "core_busy_us": use.core_ns / 1e3 / outcome.requests,
            "throughput_per_s": outcome.requests / outcome.seconds,
        }
        if outcome.cpu_s:
            found["load_cpu_us"] = outcome.cpu_s * 1e6 / outcome.requests
        if outcome.latency_ms_p99:
            found["latency_ms_p50"] = outcome.latency_ms_p50
            found["latency_ms_p99"] = outcome.latency_ms_p99
        return found
