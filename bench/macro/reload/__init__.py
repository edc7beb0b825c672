"""Reloads under people's requests: what is lost, what is late."""

from __future__ import annotations

import dataclasses
import signal
import time
from dataclasses import dataclass

from bench.load.guard import Bounds
from bench.macro.clean import PEOPLE
from bench.macro.load import Asking, ask
from bench.macro.procs import descendants
from bench.macro.scenario import Place, Run
from bench.macro.systems import CLEAN, SYSTEMS, BenchError, Running, origin, system

RATE_PER_S = 5_000.0
EVERY_S = 1.0
SIGNALS = {"scrubber": signal.SIGHUP, "nginx": signal.SIGHUP, "haproxy": signal.SIGUSR2}


class Seen:
    """How often a system has read its files anew: Scrubber says so, the others start new processes for it."""

    def __init__(self, running: Running) -> None:
        self.running = running
        self.pids = set(descendants(running.process.pid))
        self.reloads = 0

    def look(self) -> None:
        if self.running.name == "scrubber":
            self.reloads = (self.running.directory / "said").read_bytes().count(b"reload: policy")
            return
        new = set(descendants(self.running.process.pid)) - self.pids
        self.pids |= new
        self.reloads += bool(new)


@dataclass(frozen=True, slots=True)
class Reload:
    """`clean`'s configurations, told again and again to read them anew."""

    name: str = "reload"
    title: str = "Reloads under load"
    method: str = (
        f"{RATE_PER_S:,.0f} requests a second, whether or not they are answered in time, on 64 kept connections, first "
        "undisturbed (`latency_ms_p99_calm`), then with a reload each second. A request on a kept connection that "
        "ends without a word is asked once more, as browsers do (`retried`); `lost` is what was not answered even so. "
        "Latency counts from when a request was due."
    )
    systems: tuple[str, ...] = SYSTEMS

    def run(self, name: str, place: Place) -> Run:
        seconds = 2 if place.effort.smoke else 8
        people = dataclasses.replace(PEOPLE, rate_per_s=200.0 if place.effort.smoke else RATE_PER_S)
        with (
            origin(place.scratch, place.load_core) as port,
            system(name, CLEAN, place.scratch, (place.proxy_core,), {"ORIGIN": port}) as running,
        ):
            ask(running.port, people, Bounds(100_000, 1), place.load_core)
            calm = ask(running.port, people, Bounds(100_000, seconds / 2), place.load_core)
            seen = Seen(running)
            asking = Asking(running.port, people, Bounds(100_000, seconds), place.load_core)
            end, told = time.monotonic() + seconds - EVERY_S / 2, 0
            while time.monotonic() < end:
                time.sleep(EVERY_S)
                seen.look()  # what the last one has brought
                running.process.send_signal(SIGNALS[name])
                told += 1
            outcome = asking.outcome()
            seen.look()
        if seen.reloads < told - 1:
            raise BenchError(f"{self.name}, {name}: told {told} times, it read its files {seen.reloads} times")
        return Run(
            {
                "reloads": seen.reloads,
                "requests": outcome.requests,
                "lost": outcome.requests - outcome.good,
                "retried": outcome.retried,
                "latency_ms_p99": outcome.latency_ms_p99,
                "latency_ms_p99_calm": calm.latency_ms_p99,
            }
        )


RELOAD = Reload()
