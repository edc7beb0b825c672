"""What a scenario is: a purpose, a load, and what must come back for its figures to count."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bench.macro.load import Ask, Outcome
from bench.macro.systems import Running


@dataclass(frozen=True, slots=True)
class Scenario:
    """One kind of traffic. `configs`: the folder with scrubber.toml, mandate.toml, nginx.conf, haproxy.cfg."""

    name: str
    title: str
    method: str  # one sentence for the results: what is sent, what each system does with it
    configs: Path
    asks: Ask
    complaint: Callable[[Outcome], str]  # why an outcome does not count; empty: it does
    prepare: Callable[[Running], None] = lambda _: None  # after the start, before the load
    splice: str = "no "  # before HAProxy's `option splice-auto`, where its configuration has it
    page_bytes: int = 0  # of the origin's answer; 0: about 1 KB
    body_bytes: int = 0  # that a request moves, where what counts is CPU a GB; 0: CPU a request counts


def mostly(part: int, whole: int) -> bool:
    """At least 99.5 %, and something at all."""
    return whole > 0 and part >= 0.995 * whole
