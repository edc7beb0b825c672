"""`python -m bench.macro.drop.stand WAY DIRECTORY GATE_CORE ATTACKER_CORE SECONDS SOURCES`: one way, measured once.

This process has the gate's network, and what drops in it; the attacker is a child with a network of its own. Figures
are differences from before an attack to after it. Invariant: what cannot be vouched for is an error, never a figure.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.macro.drop import ways, wire
from bench.macro.drop.attack import SECONDS_CEILING, Attack
from bench.macro.procs import Meter, core_time, difference
from bench.macro.scenario import Run
from bench.macro.systems import ROOT, BenchError

WARM, REST = 0.25, 0.33  # of an attack's time: one before it that does not count, how busy the core is by itself
ENOUGH = 0.99  # of the packets that came in
SETTLE_S = 0.1  # until the last packets are through
PATIENCE_S = 20.0


@dataclass(frozen=True, slots=True)
class Cores:
    gate: int
    attacker: int


class Attacker:
    """The process that attacks; it ends when its input does."""

    def __init__(self, attack: Attack, device: str, *, connects: bool) -> None:
        macs = {"own_mac": wire.ATTACKER_MAC.hex(), "gate_mac": wire.GATE_MAC.hex()}
        spec = {"attack": dataclasses.asdict(attack), "device": device, "connects": connects, **macs}
        argv = [sys.executable, "-m", "bench.macro.drop.attacker", json.dumps(spec)]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(argv, stdin=pipe, stdout=pipe, stderr=pipe, text=True, cwd=ROOT)
        self.heard()

    def ask(self, line: str) -> dict[str, Any]:
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # `heard` says why
            self.process.stdin.write(line + "\n")
            self.process.stdin.flush()
        return self.heard()

    def heard(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            _, error = self.process.communicate(timeout=PATIENCE_S)
            raise BenchError(f"the attacker: {error.strip().splitlines()[-1] if error else 'ended'}")
        return dict(json.loads(line))

    def end(self) -> None:
        try:
            self.process.communicate(timeout=SECONDS_CEILING + PATIENCE_S)
        finally:
            self.process.kill()
            self.process.wait()


@dataclass(frozen=True, slots=True)
class Found:
    """What an attack of `seconds` did. Times in ns: of the gate's NAPI thread, of the gateway's processes where there
    is one, of the core beyond what it does by itself."""

    seconds: float
    sent: int  # frames, or connections that were begun
    received: int
    done: int  # dropped or, without anybody who drops, answered; connections: reset
    napi_ns: int
    gateway_ns: int
    core_ns: float
    core_share: float
    disturbed: str


class Stand:
    def __init__(self, directory: Path, cores: Cores) -> None:
        self._directory, self._cores = directory, cores
        os.sched_setaffinity(0, {cores.attacker})  # and all that it starts, but what is told otherwise
        wire.own_network(directory / "sys")
        self._wire = wire.Wire(directory / "sys")

    @contextlib.contextmanager
    def wired(self, attack: Attack, *, connects: bool) -> Iterator[Attacker]:
        """An attacker at the other end."""
        attacker = Attacker(attack, self._wire.far, connects=connects)
        try:
            self._wire.lead_to(attacker.process.pid, answers=connects)
            attacker.ask("wired")
            yield attacker
        finally:
            attacker.end()

    def attacked(self, attacker: Attacker, seconds: float, done: Callable[[], int], gateway: int = 0) -> Found:
        """After a shorter attack that is not counted."""
        napi = self._wire.pin(self._cores.gate, self._cores.attacker)
        attacker.ask(str(seconds * WARM))
        time.sleep(SETTLE_S)
        resting = core_time(self._cores.gate)
        time.sleep(seconds * REST)
        busy_ns, _, _, wall_ns = difference(resting, core_time(self._cores.gate))
        before, done_before, napi_before = self._wire.arrived(), done(), wire.thread_ns(napi)
        meter = Meter(gateway or napi, self._cores.gate)
        told = attacker.ask(str(seconds))
        use = meter.stop()
        napi_ns = wire.thread_ns(napi) - napi_before
        time.sleep(SETTLE_S)
        after, done_after = self._wire.arrived(), done()
        received = after.taken - before.taken
        if use.pids_changed:
            raise BenchError("processes came or went during the run", "look into the gateway's log")
        whole = dataclasses.replace(use, cpu_ns=use.cpu_ns + napi_ns) if gateway else use
        return Found(
            seconds=told["seconds"],
            sent=told.get("begun", received + after.lost - before.lost),
            received=received,
            done=told.get("reset", done_after - done_before),
            napi_ns=napi_ns,
            gateway_ns=use.cpu_ns if gateway else 0,
            core_ns=use.core_ns - use.wall_ns * busy_ns / max(wall_ns, 1),
            core_share=use.core_ns / max(use.wall_ns, 1),
            disturbed=whole.disturbance(),
        )

    def flooded(self, way: str, seconds: float, sources: str) -> Run:
        """By frames."""
        attack = Attack(sources)
        with contextlib.ExitStack() as stack:
            attacker = stack.enter_context(self.wired(attack, connects=False))
            if way == "none":
                stack.enter_context(ways.listening(attack))
                found = self.attacked(attacker, seconds, lambda: wire.protocol_counts("Tcp")["OutSegs"])
            else:
                opened = stack.enter_context(ways.backend(way, attack, self._wire.gate))
                found = self.attacked(attacker, seconds, lambda: ways.dropped(opened))
        what = "answered" if way == "none" else "dropped"
        demand(found.done, found.received, f"of {found.received:,} packets it {what} {found.done:,}")
        dropping = {} if way == "none" else {"dropped_per_s": found.done / found.seconds}
        return Run(figures(found) | dropping, found.disturbed)

    def called(self, seconds: float, sources: str) -> Run:
        """By connections, which a gateway resets."""
        with ways.gateway(Attack(sources).addresses(), self._directory, self._cores.gate) as running:
            attack = Attack(sources, port=running.port)
            with self.wired(attack, connects=True) as attacker:
                found = self.attacked(attacker, seconds, lambda: 0, running.process.pid)
        demand(found.done, found.sent, f"of {found.sent:,} connections it reset {found.done:,}")
        connections = {
            "reset_per_s": found.done / found.seconds,
            "cpu_ns_connection": (found.napi_ns + found.gateway_ns) / found.done,
            "gateway_ns_connection": found.gateway_ns / found.done,
        }
        return Run(figures(found) | connections, found.disturbed)


def demand(part: int, whole: int, said: str) -> None:
    if not whole or part < ENOUGH * whole:
        raise BenchError(said)


def figures(found: Found) -> dict[str, float]:
    """Of any way, by packets that came in."""
    return {
        "packets_per_s": found.received / found.seconds,
        "cpu_ns": (found.napi_ns + found.gateway_ns) / found.received,
        "core_busy_ns": found.core_ns / found.received,
        "core_share": found.core_share,
        "sent_per_s": found.sent / found.seconds,
    }


def main() -> None:
    way, directory, gate_core, attacker_core, seconds, sources = sys.argv[1:]
    try:
        stand = Stand(Path(directory), Cores(int(gate_core), int(attacker_core)))
        proxy = way == "proxy"
        run = stand.called(float(seconds), sources) if proxy else stand.flooded(way, float(seconds), sources)
    except BenchError as error:
        sys.exit(str(error))
    print(json.dumps({"metrics": dict(run.metrics), "disturbed": run.disturbed}))


if __name__ == "__main__":
    main()
