"""From a block to the drop in the kernel, and from an order to the provider's, through all processes as they are."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from bench.macro.scenario import Place, Run
from bench.macro.systems import ROOT, BenchError, program

BLOCKS_PER_S = 1000


@dataclass(frozen=True, slots=True)
class Propagate:
    """Measured in processes of their own (bench.macro.propagate.chain, upstream): the supervisor, which starts the
    enforcer."""

    name: str = "propagate"
    title: str = "From a block to the kernel, and from an order to the provider's"
    method: str = (
        f"{BLOCKS_PER_S:,} blocks a second are put into the block table, one after the other, each of another client. "
        "The time ends when the kernel tells a listener (nft monitor) that the drop is there; the listener's way is "
        "in it. Supervisor's side, enforcer and nftables are the gateway's, in a network namespace of their own. "
        "`to_upstream`: victim blackholes, one after the other, each from the order until the kernel of the provider's "
        "router tells a listener (ip monitor) that it drops; BIRD 2 runs at both ends of one wire."
    )
    systems: tuple[str, ...] = ("scrubber",)

    def run(self, name: str, place: Place) -> Run:
        if os.geteuid() != 0:
            raise BenchError("it takes root: a network namespace, and CAP_NET_ADMIN in it")
        program("nft", "nftables")
        program("bird", "bird2")
        seconds, orders = (1, 3) if place.effort.smoke else (8, 100)
        to_kernel = _run("chain", place.scratch, BLOCKS_PER_S, seconds)
        return Run(to_kernel | _run("upstream", place.scratch, orders))


def _run(module: str, scratch: Path, *numbers: int) -> dict[str, float]:
    with tempfile.TemporaryDirectory(dir=scratch) as directory:
        argv = [sys.executable, "-m", f"bench.macro.propagate.{module}", directory, *map(str, numbers)]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=120, check=False, cwd=ROOT)
    if done.returncode:
        raise BenchError(f"propagate, {module}: {done.stderr.strip()[-500:]}")
    return dict(json.loads(done.stdout))


PROPAGATE = Propagate()
