"""From a block in the table to the drop in the kernel, through supervisor and enforcer as they are."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass

from bench.macro.scenario import Place, Run
from bench.macro.systems import ROOT, BenchError, program

BLOCKS_PER_S = 1000


@dataclass(frozen=True, slots=True)
class Propagate:
    """Measured in a process of its own (bench.macro.propagate.chain): the supervisor, which starts the enforcer."""

    name: str = "propagate"
    title: str = "From a block to the kernel"
    method: str = (
        f"{BLOCKS_PER_S:,} blocks a second are put into the block table, one after the other, each of another client. "
        "The time ends when the kernel tells a listener (nft monitor) that the drop is there; the listener's way is "
        "in it. Supervisor's side, enforcer and nftables are the gateway's, in a network namespace of their own."
    )
    systems: tuple[str, ...] = ("scrubber",)

    def run(self, name: str, place: Place) -> Run:
        if os.geteuid() != 0:
            raise BenchError("it takes root: a network namespace, and CAP_NET_ADMIN in it")
        program("nft", "nftables")
        seconds = 1 if place.effort.smoke else 8
        chain = [sys.executable, "-m", "bench.macro.propagate.chain"]
        argv = [*chain, str(place.scratch), str(BLOCKS_PER_S), str(seconds)]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=120, check=False, cwd=ROOT)
        if done.returncode:
            raise BenchError(f"propagate, {name}: {done.stderr.strip()[-500:]}")
        return Run(json.loads(done.stdout))


PROPAGATE = Propagate()
