"""The paired rounds of a scenario: in each round every system runs once, one after the other, always in one order, each
in a network of its own where we may make one."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bench.macro.network import fresh_network
from bench.macro.procs import STEAL_MAX, core_time, cores, difference
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
                runs.append(watched(scenario, name, place))
                tell(f"{scenario.name} {i + 1}/{rounds} {name}: {runs[-1].told()}")
    return record


def watched(scenario: Scenario, name: str, place: Place) -> Run:
    """One run; disturbed, too, where much of a core was stolen from its start to its end."""
    used = {place.proxy_core: "proxy's", place.load_core: "load's"}
    before = {core: core_time(core) for core in used}
    run = scenario.run(name, place)
    said = [run.disturbed] if run.disturbed else []
    for core, whose in used.items():
        _, _, steal, wall = difference(before[core], core_time(core))
        if steal > STEAL_MAX * wall and "stolen" not in run.disturbed:
            said.append(f"{steal / wall:.0%} of the {whose} core was stolen")
    return dataclasses.replace(run, disturbed=", ".join(said))
