"""People over HTTP/2 while others abuse it: whether they get through, how soon, and when the abusers are thrown out."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bench.load.guard import SECONDS_CEILING, Bounds, loopback
from bench.load.h2_abuse import Ended
from bench.load.h2_shapes import ABUSES, Site
from bench.macro.procs import Meter
from bench.macro.scenario import Place, Run
from bench.macro.systems import ROOT, SYSTEMS, BenchError, origin, system
from bench.macro.tls_clean import ECDSA, SAME

VISITORS = tuple(f"127.0.72.{i}" for i in range(1, 41))
ABUSERS = tuple(f"127.0.86.{i}" for i in range(1, 5))
RATE_PER_S = 200.0
PAGE_BYTES = 4096
NICE = 10  # abusers, on the core that people and origin have as well
WHOLE_S = 1.5  # who came later than this before the end cannot be said not to have been thrown out
HERE = Path(__file__).parent
SITE = Site(page="/page?id=7", large="/large", late="/late", sink="/sink", secure=True)

# Without those whose end is a deadline of the configuration, and of several of one kind one.
ATTACKS = (
    "rapid-reset",
    "made-reset-window",
    "made-reset-name",
    "beyond-streams-unacknowledged",
    "continuation",
    "continuation-empty",
    "ping",
    "settings",
    "priority",
    "priority-update",
    "data-empty",
    "data-padded",
    "window-update",
    "unknown",
    "goaway",
    "table-bomb",
    "table-flapping",
    "small-fields",
    "windows-held",
    "connection-window-held",
    "dribble",
)


def started(module: str, spec: dict[str, Any], core: int) -> subprocess.Popen[str]:
    """A load process on that core, its spec said. Its stdin stays open: where that ends, it ends."""
    loopback(spec["target"])
    argv = ["taskset", "-c", str(core), sys.executable, "-m", module]
    process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    assert process.stdin is not None
    process.stdin.write(json.dumps(spec) + "\n")
    process.stdin.flush()
    return process


def said(process: subprocess.Popen[str]) -> dict[str, Any]:
    """Its one report. BenchError: there is none."""
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        raise BenchError(f"{process.args!r} ended with {process.wait(SECONDS_CEILING)} and without a report")
    found: dict[str, Any] = json.loads(line)
    return found


@contextlib.contextmanager
def processes(module: str, specs: Sequence[dict[str, Any]], core: int) -> Iterator[list[subprocess.Popen[str]]]:
    running = [started(module, spec, core) for spec in specs]
    try:
        yield running
    finally:
        for process in running:
            process.kill()
            process.wait()


def people_of(port: int, bounds: Bounds, rate_per_s: float) -> dict[str, Any]:
    where = {"target": "127.0.0.1", "port": port, "sources": VISITORS, "site": asdict(SITE)}
    return {**where, "rate_per_s": rate_per_s, **asdict(bounds)}


def abuser_of(attack: str, port: int, source: str, bounds: Bounds) -> dict[str, Any]:
    where = {"target": "127.0.0.1", "port": port, "source": source, "site": asdict(SITE)}
    return {**where, "abuse": attack, "nice": NICE, **asdict(bounds)}


def asked(port: int, bounds: Bounds, rate_per_s: float, core: int) -> dict[str, Any]:
    """People from their beginning to their end."""
    with processes("bench.load.h2_people", [people_of(port, bounds, rate_per_s)], core) as (people,):
        return said(people)


def figures_of(ends: Sequence[Ended], seconds: float) -> dict[str, float]:
    """Of the connections that had long enough: the share that was ended, and the longest that it took where all were.
    `abusers_refused`: those that were not let in any more."""
    came = [each for each in ends if not each.failed]
    if not came:
        raise BenchError("no abuser ever got in", "look at its first complaint: " + str(ends[:1]))
    judged = [each for each in came if each.over or seconds - each.began_s >= WHOLE_S]
    found = {
        "abusers_ended": sum(each.over for each in judged) / len(judged) if judged else 0.0,
        "abusers_refused": float(len(ends) - len(came)),
    }
    if judged and all(each.over for each in judged):
        found["ended_s"] = max(each.after_s for each in judged)
    return found


@dataclass(frozen=True, slots=True)
class H2Abuse:
    """One kind of abuse."""

    attack: str
    systems: tuple[str, ...] = SYSTEMS

    @property
    def name(self) -> str:
        return f"h2-abuse-{self.attack}"

    @property
    def title(self) -> str:
        return f"People over HTTP/2 beside abuse of it: {self.attack}"

    @property
    def method(self) -> str:
        return (
            f"{ABUSES[self.attack].what}: {len(ABUSERS)} clients do so as fast as they can, and come back as soon as "
            f"they are thrown out. {len(VISITORS)} people ask for a page at {RATE_PER_S:.0f} a second in all, each on "
            f"a connection of its own that is kept, over HTTP/2 and {SAME}; latency counts from when a request was "
            "due, but not of each one's first. First the people alone (`_calm`), then both. `ended_s` is the longest "
            "that an abuser's connection lasted from its first byte to GOAWAY with an error or to its end, "
            "`abusers_ended` the share of them that were ended at all, `abusers_refused` how often one was not let in "
            "again. Each system has its best protection, as in `flood`; Scrubber's mandate closes the door on who was "
            "ended for abuse three times."
        )

    def run(self, name: str, place: Place) -> Run:
        smoke = place.effort.smoke
        calm_s, abuse_s = (1.0, 2.0) if smoke else (4.0, 6.0)
        rate = 80.0 if smoke else RATE_PER_S
        with (
            origin(place.scratch, place.load_core, PAGE_BYTES) as port,
            system(name, HERE, place.scratch, (place.proxy_core,), {"ORIGIN": port, **ECDSA}) as running,
        ):
            meter = Meter(running.process.pid, place.proxy_core)
            calm = asked(running.port, Bounds(100_000, calm_s), rate, place.load_core)
            calm_use = meter.stop()
            bounds = Bounds(10_000, abuse_s + 0.5)
            specs = [abuser_of(self.attack, running.port, source, bounds) for source in ABUSERS]
            with processes("bench.load.h2_abuse", specs, place.load_core) as abusers:
                time.sleep(0.0 if smoke else 0.4)  # until they have begun
                meter = Meter(running.process.pid, place.proxy_core)
                found = asked(running.port, Bounds(100_000, abuse_s), rate, place.load_core)
                use = meter.stop()
                ends = [Ended(**each) for abuser in abusers for each in said(abuser)["connections"]]
        return Run(
            {
                "people_success": found["good"] / found["requests"],
                "latency_ms_p99": found["latency_ms_p99"],
                "latency_ms_p99_calm": calm["latency_ms_p99"],
                **figures_of(ends, bounds.seconds_max),
                "lost": found["requests"] - found["good"],
                "requests": found["requests"],
                "core_share": use.cpu_ns / use.wall_ns,
                "core_share_calm": calm_use.cpu_ns / calm_use.wall_ns,
            }
        )


H2_ABUSES = tuple(H2Abuse(attack) for attack in ATTACKS)
