"""The paired rounds of a scenario: in each round every system runs once, one after the other, always in one order, each
in a network of its own where we may make one."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bench.macro.network import fresh_network
from bench.macro.procs import cores
from bench.macro.scenario import Effort, Place, Run, Scenario


@dataclass(slots=True)
class Rounds:
    """All runs of a scenario: round i of each system stands at index i."""

    scenario: Scenario
    runs: dict[str, list[Run]] = field(default_factory=dict)

    def warnings(self) -> list[str]:
        return [
            f"{self.scenario.name}, {name}, round {i + 1}: {run.disturbed}"
            for name, runs in self.runs.items()
            for i, run in enumerate(runs)
            if run.disturbed
        ]


def measure(
    scenario: Scenario, wanted: Sequence[str], rounds: int, effort: Effort, tell: Callable[[str], None]
) -> Rounds:
    """A scenario in paired rounds: A B C, A B C, … `wanted`: only these systems; empty: all that it compares."""
    record = Rounds(scenario, {name: [] for name in scenario.systems if not wanted or name in wanted})
    with tempfile.TemporaryDirectory(prefix="bench-") as directory:
        scratch = Path(directory)
        scratch.chmod(0o755)  # a system that drops to another user must reach its own files
        place = Place(scratch, *cores(), effort)
        for i in range(rounds):
            for name, runs in record.runs.items():
                fresh_network()
                runs.append(scenario.run(name, place))
                tell(f"{scenario.name} {i + 1}/{rounds} {name}: {runs[-1].told()}")
    return record
