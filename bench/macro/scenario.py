"""What a scenario is: a purpose, the systems that it compares, and how one of them is measured once.

Owns: the metrics and their units. Invariant: what a run cannot vouch for is a BenchError, never a figure.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from bench.load.guard import Bounds

METRICS = {
    "cpu_us": "µs a request",
    "core_busy_us": "µs a request",
    "load_cpu_us": "µs a request, of the load",
    "throughput_per_s": "requests a second",
    "cpu_s_per_gb": "s a GB",
    "core_busy_s_per_gb": "s a GB",
    "throughput_gb_per_s": "GB a second",
    "latency_ms_p50": "ms",
    "latency_ms_p99": "ms",
    "latency_ms_p99_calm": "ms",
    "connections": "connections",
    "idle_bytes": "bytes a connection",
    "memory_mib": "MiB, all processes",
    "ns_hot": "ns a check",
    "ns_cold_1m": "ns a check",
    "ns_cold_10m": "ns a check",
    "bytes_source_1m": "bytes a source",
    "bytes_source_10m": "bytes a source",
    "cpu_us_1": "µs a request, one worker",
    "cpu_us_2": "µs a request, two workers",
    "throughput_1_per_s": "requests a second, one worker",
    "throughput_2_per_s": "requests a second, two workers",
    "speedup": "two workers / one",
    "reloads": "reloads",
    "requests": "requests",
    "lost": "requests",
    "retried": "requests",
    "people_success": "share",
    "attack_served": "share",
    "ended_s": "s, the longest of the abusers' connections",
    "abusers_ended": "share of their connections",
    "abusers_refused": "connections",
    "core_share": "share of the proxy's core",
    "core_share_calm": "share of the proxy's core",
    "held_1m": "share of the clients",
    "held_10m": "share of the clients",
    "ns_judge_hot": "ns a request",
    "to_kernel_ms_p50": "ms",
    "to_kernel_ms_p99": "ms",
    "to_kernel_ms_max": "ms",
    "blocks_per_s": "blocks a second",
    "to_upstream_ms_p50": "ms",
    "to_upstream_ms_p99": "ms",
    "to_upstream_ms_max": "ms",
    "sent_per_s": "packets a second, sent (proxy: connections)",
    "packets_per_s": "packets a second, that came in",
    "dropped_per_s": "packets a second, dropped",
    "cpu_ns": "ns a packet that came in",
    "core_busy_ns": "ns a packet that came in",
    "reset_per_s": "connections a second",
    "cpu_ns_connection": "ns a connection",
    "gateway_ns_connection": "ns a connection",
    **{f"ns_{piece}": "ns" for piece in ("parse", "fingerprint", "match", "admit", "prefix")},
    **{f"instructions_{piece}": "instructions" for piece in ("parse", "fingerprint", "match", "admit", "prefix")},
}


@dataclass(frozen=True, slots=True)
class Effort:
    """How much a run does. `smoke`: just enough to see that everything works."""

    warm: Bounds
    load: Bounds
    smoke: bool = False

    @staticmethod
    def full() -> Effort:
        return Effort(Bounds(2_000_000, 1), Bounds(2_000_000, 6))

    @staticmethod
    def quick() -> Effort:
        return Effort(Bounds(100, 1), Bounds(300, 1), smoke=True)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a run happens: a directory for its files, the proxy's core, the core of load and origin."""

    scratch: Path
    proxy_core: int
    load_core: int
    effort: Effort


@dataclass(frozen=True, slots=True)
class Run:
    """What one system did in one round. `disturbed`: what else had the proxy's core meanwhile; empty: nothing."""

    metrics: Mapping[str, float]
    disturbed: str = ""

    def told(self) -> str:
        """The figures that count, in a few words."""
        return ", ".join(f"{name} {value:.3g}" for name, value in list(self.metrics.items())[:3])


class Scenario(Protocol):
    """`method`: what is sent and what each system does with it, for the results."""

    @property
    def name(self) -> str: ...
    @property
    def title(self) -> str: ...
    @property
    def method(self) -> str: ...
    @property
    def systems(self) -> tuple[str, ...]: ...

    def run(self, system: str, place: Place) -> Run:
        """Measure it once, from its start to its end. BenchError: it did not do what the scenario measures."""


def mostly(part: int, whole: int) -> bool:
    """At least 99.5 %, and something at all."""
    return whole > 0 and part >= 0.995 * whole
