"""The paired rounds of scenarios: in each round every system runs once, one after the other, always in one order."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

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
    scenarios: Sequence[Scenario], wanted: Sequence[str], rounds: int, effort: Effort, tell: Callable[[str], None]
) -> list[Rounds]:
    """Every scenario in paired rounds: A B C, A B C, … `wanted`: only these systems; empty: all of each scenario."""
    found = []
    with tempfile.TemporaryDirectory(prefix="bench-") as directory:
        scratch = Path(directory)
        scratch.chmod(0o755)  # a system that drops to another user must reach its own files
        place = Place(scratch, *cores(), effort)
        for scenario in scenarios:
            record = Rounds(scenario, {name: [] for name in scenario.systems if not wanted or name in wanted})
            for i in range(rounds):
                for name, runs in record.runs.items():
                    runs.append(scenario.run(name, place))
                    tell(f"{scenario.name} {i + 1}/{rounds} {name}: {runs[-1].told()}")
            if record.runs:
                found.append(record)
    return found
