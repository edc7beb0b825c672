"""What a scenario is: a purpose, a load, and what must come back for its figures to count."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bench.load.guard import Bounds
from bench.macro.load import Outcome
from bench.macro.systems import Running


@dataclass(frozen=True, slots=True)
class Scenario:
    """One kind of traffic. `configs`: the folder with scrubber.toml, mandate.toml, nginx.conf, haproxy.cfg."""

    name: str
    title: str
    method: str  # one sentence for the results: what is sent, what each system does with it
    configs: Path
    load: Callable[[int, Bounds, int], Outcome]  # port, bounds, core of the load
    complaint: Callable[[Outcome], str]  # why an outcome does not count; empty: it does
    prepare: Callable[[Running], None] = lambda _: None  # after the start, before the load


def mostly(part: int, whole: int) -> bool:
    """At least 99.5 %, and something at all."""
    return whole > 0 and part >= 0.995 * whole
