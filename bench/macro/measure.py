"""One run of one system under one scenario, and the paired rounds of them.

Invariants: in each round every system runs once, one after the other, each freshly started on the proxy's core while
load and origin have the other; figures are differences over the load alone, after a warm-up; an outcome that a scenario
does not accept is an error, never a row.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bench.load.guard import Bounds
from bench.macro.load import Outcome, ask
from bench.macro.procs import CoreTime, core_time, cores, cpu_ns, descendants
from bench.macro.scenario import Scenario
from bench.macro.systems import BenchError, origin, system

METRICS = {
    "cpu_us": "µs a request",
    "core_busy_us": "µs a request",
    "throughput_per_s": "requests a second",
    "cpu_s_per_gb": "s a GB",
    "core_busy_s_per_gb": "s a GB",
    "throughput_gb_per_s": "GB a second",
    "latency_ms_p50": "ms",
    "latency_ms_p99": "ms",
}
FOREIGN_MAX = 0.05  # share of the proxy's core that others may take before a run is called disturbed
STEAL_MAX = 0.02


@dataclass(frozen=True, slots=True)
class Effort:
    """How much a run does."""

    warm: Bounds
    load: Bounds

    @staticmethod
    def full() -> Effort:
        return Effort(Bounds(2_000_000, 1), Bounds(2_000_000, 6))

    @staticmethod
    def smoke() -> Effort:
        return Effort(Bounds(100, 1), Bounds(300, 1))


@dataclass(frozen=True, slots=True)
class Run:
    """What one system did in one round."""

    outcome: Outcome
    cpu_ns: int  # of the proxy's processes
    core_ns: int  # the proxy's core was busy, whoever made it so
    task_ns: int  # of this, in processes: the proxy's own and any other
    steal_ns: int
    wall_ns: int
    body_bytes: int = 0  # that each request moved

    def metrics(self) -> dict[str, float]:
        if self.body_bytes:
            gb = self.outcome.requests * self.body_bytes / 1e9
            return {
                "cpu_s_per_gb": self.cpu_ns / 1e9 / gb,
                "core_busy_s_per_gb": self.core_ns / 1e9 / gb,
                "throughput_gb_per_s": gb / self.outcome.seconds,
            }
        found = {
            "cpu_us": self.cpu_ns / 1e3 / self.outcome.requests,
            "core_busy_us": self.core_ns / 1e3 / self.outcome.requests,
            "throughput_per_s": self.outcome.requests / self.outcome.seconds,
        }
        if self.outcome.latency_ms_p99:
            found["latency_ms_p50"] = self.outcome.latency_ms_p50
            found["latency_ms_p99"] = self.outcome.latency_ms_p99
        return found

    def told(self) -> str:
        """The figures that count, in a few words."""
        return ", ".join(f"{value:.3g} {METRICS[name]}" for name, value in list(self.metrics().items())[:3])

    def disturbance(self) -> str:
        """What else had the proxy's core meanwhile; empty where it had it to itself."""
        said = []
        steal = self.steal_ns / max(self.wall_ns, 1)
        if steal > STEAL_MAX:
            said.append(f"{steal:.0%} of the core was stolen")
        foreign = (self.task_ns - self.cpu_ns) / max(self.wall_ns, 1)
        if foreign > FOREIGN_MAX:
            said.append(f"others had {foreign:.0%} of the core")
        return ", ".join(said)


@dataclass(slots=True)
class Rounds:
    """All runs of a scenario: round i of each system stands at index i."""

    scenario: Scenario
    runs: dict[str, list[Run]] = field(default_factory=dict)

    def warnings(self) -> list[str]:
        return [
            f"{self.scenario.name}, {name}, round {i + 1}: {said}"
            for name, runs in self.runs.items()
            for i, run in enumerate(runs)
            if (said := run.disturbance())
        ]


def difference(before: CoreTime, after: CoreTime) -> tuple[int, int, int, int]:
    """Busy, task, steal and wall time between two readings of a core, ns."""
    busy, steal = after.busy_ns - before.busy_ns, after.steal_ns - before.steal_ns
    return busy, after.task_ns - before.task_ns, steal, busy + steal + after.idle_ns - before.idle_ns


def run_once(scenario: Scenario, name: str, origin_port: int, scratch: Path, effort: Effort) -> Run:
    """Start the system, warm it up, measure it under load, end it."""
    proxy_core, load_core = cores()
    more = {"ORIGIN": origin_port, "SPLICE": scenario.splice}
    with system(name, scenario.configs, scratch, proxy_core, more) as running:
        scenario.prepare(running)
        ask(running.port, scenario.asks, effort.warm, load_core)
        pids = descendants(running.process.pid)
        core_before, cpu_before = core_time(proxy_core), cpu_ns(pids)
        outcome = ask(running.port, scenario.asks, effort.load, load_core)
        cpu_after, core_after = cpu_ns(pids), core_time(proxy_core)
        if pids != descendants(running.process.pid):
            raise BenchError(f"{name}: processes came or went during the run", "look into its log")
    if complaint := scenario.complaint(outcome):
        raise BenchError(f"{scenario.name}, {name}: {complaint}: {outcome}")
    return Run(outcome, cpu_after - cpu_before, *difference(core_before, core_after), scenario.body_bytes)


def measure(
    scenarios: Sequence[Scenario], systems: Sequence[str], rounds: int, effort: Effort, tell: Callable[[str], None]
) -> list[Rounds]:
    """Every scenario in paired rounds: A B C, A B C, …"""
    found = []
    _, load_core = cores()
    with tempfile.TemporaryDirectory(prefix="bench-") as directory:
        scratch = Path(directory)
        scratch.chmod(0o755)  # a system that drops to another user must reach its own files
        for scenario in scenarios:
            record = Rounds(scenario, {name: [] for name in systems})
            with origin(scratch, load_core, scenario.page_bytes) as origin_port:
                for i in range(rounds):
                    for name in systems:
                        run = run_once(scenario, name, origin_port, scratch, effort)
                        record.runs[name].append(run)
                        tell(f"{scenario.name} {i + 1}/{rounds} {name}: {run.told()}")
            found.append(record)
    return found
