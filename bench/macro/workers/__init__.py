"""One worker and two: what the second one brings, and what it costs."""

from __future__ import annotations

from dataclasses import dataclass

from bench.macro.clean import PEOPLE, complaint
from bench.macro.load import ask
from bench.macro.procs import Meter, usable_cores
from bench.macro.scenario import Place, Run
from bench.macro.systems import CLEAN, SYSTEMS, BenchError, origin, system


@dataclass(frozen=True, slots=True)
class Workers:
    """`clean` with one worker (process, thread) on one core and with two on two."""

    name: str = "workers"
    title: str = "One worker and two"
    method: str = (
        "The load of `clean` on one worker on one core, then on two on two. With fewer than four cores load, origin "
        "and second worker share one, and the speedup says nothing: CPU a request does."
    )
    systems: tuple[str, ...] = SYSTEMS

    def run(self, name: str, place: Place) -> Run:
        rates, cpu = [], []
        with origin(place.scratch, place.load_core) as port:
            for count in (1, 2):
                values: dict[str, object] = {"ORIGIN": port, "WORKERS": count}
                pinned = [place.proxy_core, *[core for core in usable_cores() if core != place.proxy_core]][:count]
                with system(name, CLEAN, place.scratch, pinned, values) as running:
                    ask(running.port, PEOPLE, place.effort.warm, place.load_core)
                    meter = Meter(running.process.pid, place.proxy_core)
                    outcome = ask(running.port, PEOPLE, place.effort.load, place.load_core)
                    use = meter.stop()
                if said := complaint(outcome):
                    raise BenchError(f"{self.name}, {name}: {said}: {outcome}")
                rates.append(outcome.requests / outcome.seconds)
                cpu.append(use.cpu_ns / 1e3 / outcome.requests)
        return Run(
            {
                "cpu_us_1": cpu[0],
                "cpu_us_2": cpu[1],
                "throughput_1_per_s": rates[0],
                "throughput_2_per_s": rates[1],
                "speedup": rates[1] / rates[0],
            }
        )


WORKERS = Workers()
