"""One attacking process (`python -m bench.load.flood`, spec on stdin, see child.py): request floods, held connections.

Invariant: it is nicer than people, gateway and origin: the machine is theirs first, and an attack for which no time is
left is counted as not sent.
"""
import gc
import os
import random
from collections.abc import Callable
from typing import Any

from bench.load.child import read_spec, report
from bench.load.guard import Bounds, Meter, raise_nofile
from bench.load.hold import Churn, Hold
from bench.load.http_flood import Requests
from bench.load.loop import Attack, Loop

KINDS: dict[str, Callable[[Loop, dict[str, Any], random.Random], Attack]] = {
    "requests": Requests, "hold": Hold, "churn": Churn,
}


def main() -> None:
    """Run as a process of its own."""
    spec = read_spec()
    os.nice(int(spec["nice"]))
    raise_nofile()
    loop = Loop(spec["t0_ns"], Meter(Bounds(spec["requests_max"], spec["seconds_max"]), spec["t0_ns"]))
    rng = random.Random(spec["seed"])
    attacks = [KINDS[attack["how"]](loop, attack, rng) for attack in spec["attacks"]]
    gc.collect()
    gc.freeze()
    loop.run(attacks)
    report({"type": "done"})


if __name__ == "__main__":
    main()
