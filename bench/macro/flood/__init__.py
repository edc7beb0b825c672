"""People under attack: whether they get through, and how soon, with each system's best protection."""

from __future__ import annotations

import functools
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from bench.load.guard import Bounds
from bench.macro.clean import PEOPLE as CLOSED
from bench.macro.flood.attacks import ATTACKS, Scene
from bench.macro.load import Ask, Asking, ask
from bench.macro.scenario import Place, Run
from bench.macro.systems import CLEAN, SYSTEMS, origin, system

VISITORS = tuple(f"127.0.72.{i}" for i in range(1, 201))
PEOPLE_SHARE, ATTACK_SHARE = 0.1, 0.5  # of what the machine can carry
AREA_FACTOR = 2  # what the origin is said to carry, in people's requests
HERE = Path(__file__).parent


@functools.cache
def capacity_per_s(proxy_core: int, load_core: int, seconds: float) -> float:
    """What the machine carries: the least of the systems' throughput under `clean`'s load. Measured once."""
    found = []
    with tempfile.TemporaryDirectory(prefix="bench-") as directory:
        scratch = Path(directory)
        scratch.chmod(0o755)
        for name in SYSTEMS:
            with (
                origin(scratch, load_core) as port,
                system(name, CLEAN, scratch, (proxy_core,), {"ORIGIN": port}) as running,
            ):
                outcome = ask(running.port, CLOSED, Bounds(2_000_000, seconds), load_core)
                found.append(outcome.good / outcome.seconds)
    return min(found)


@dataclass(frozen=True, slots=True)
class Flood:
    """One kind of attack."""

    attack: str
    systems: tuple[str, ...] = SYSTEMS

    @property
    def name(self) -> str:
        return f"flood-{self.attack}"

    @property
    def title(self) -> str:
        return f"People under attack: {self.attack}"

    @property
    def method(self) -> str:
        return (
            f"{ATTACKS[self.attack][0]}. {len(VISITORS)} people ask at a fixed rate, {PEOPLE_SHARE:.0%} of what the "
            "machine carries (the slowest system's throughput under `clean`), whether or not they are answered in "
            f"time; attacks of requests send another {ATTACK_SHARE:.0%} of it. First the people alone "
            "(`latency_ms_p99_calm`), then both. `lost` is what people asked and were not given; `attack_served` the "
            "share of the attack's requests that were. Each system has its best protection: limits a client that lead "
            "to closed doors, short deadlines, caps on connections; Scrubber alone a limit on all together, which "
            "sheds newcomers first (in the others it would meet people as it meets the flood)."
        )

    def run(self, name: str, place: Place) -> Run:
        smoke = place.effort.smoke
        capacity = capacity_per_s(place.proxy_core, place.load_core, 0.3 if smoke else 2.0)
        rate = 200.0 if smoke else PEOPLE_SHARE * capacity
        people = Ask(VISITORS, len(VISITORS), kept=True, rate_per_s=rate)
        values = {"AREA": int(AREA_FACTOR * rate)}
        calm_s, flood_s = (0.5, 1.0) if smoke else (5.0, 6.0)  # after 3 s in good standing a client is known
        with (
            origin(place.scratch, place.load_core) as port,
            system(name, HERE, place.scratch, (place.proxy_core,), {"ORIGIN": port, **values}) as running,
        ):
            calm = ask(running.port, people, Bounds(200_000, calm_s), place.load_core)
            attack_rate = 500.0 if smoke else ATTACK_SHARE * capacity
            scene = Scene(running.port, flood_s + 1, attack_rate, place.load_core, place.scratch)
            with ATTACKS[self.attack][1](scene) as attack:
                time.sleep(0.0 if smoke else 0.5)
                asking = Asking(running.port, people, Bounds(200_000, flood_s), place.load_core)
                found, sent = asking.outcome(), attack()
        figures = {
            "people_success": found.good / found.requests,
            "lost": found.requests - found.good,
            "requests": found.requests,
            "latency_ms_p99": found.latency_ms_p99,
            "latency_ms_p99_calm": calm.latency_ms_p99,
        }
        if sent is not None:
            figures["attack_served"] = sent.good / sent.requests
        return Run(figures)


FLOODS = tuple(Flood(attack) for attack in ATTACKS)
