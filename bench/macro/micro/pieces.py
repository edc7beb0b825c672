"""The pieces of the core that a request goes through, each as a loop without Python in between.

`python -m bench.macro.micro.pieces PIECE COUNT` runs one, for callgrind.
"""

from __future__ import annotations

import ipaddress
import random
import sys
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path

from bench.macro.core import HEAD, judge
from scrubber import _native
from scrubber.mandate.prefixes import compile_prefixes

MANDATE = Path(__file__).parent / "mandate.toml"
PREFIXES = 100_000


@cache
def the_judge() -> _native.ProbeJudge:
    return judge(MANDATE)


@cache
def prefixes() -> tuple[_native.ProbePrefixes, bytes]:
    """A table of random prefixes, and addresses of which about half are in it (16 bytes each)."""
    rng = random.Random(7)
    nets = {ipaddress.IPv4Network((rng.getrandbits(32) >> 8 << 8, 24)): 1 for _ in range(PREFIXES)}
    inside = [int(net.network_address) + 5 for net in rng.sample(list(nets), 512)]
    mixed = inside + [rng.getrandbits(32) for _ in inside]
    rng.shuffle(mixed)
    packed = b"".join(bytes(10) + b"\xff\xff" + number.to_bytes(4, "big") for number in mixed)
    return _native.ProbePrefixes(compile_prefixes({str(net): 1 for net in nets}, 1)), packed


def admit(count: int) -> object:
    return _native.probe_loop_judge(the_judge(), HEAD, count, time.monotonic_ns(), 1000)


# name: what it is, the function that callgrind looks at, and the loop.
PIECES: dict[str, tuple[str, str, Callable[[int], object]]] = {
    "parse": (
        f"a browser's head of {len(HEAD)} bytes",
        "probe_loop_parse",
        lambda count: _native.probe_loop_parse(HEAD, count),
    ),
    "fingerprint": (
        "of that head",
        "probe_loop_fingerprint",
        lambda count: _native.probe_loop_fingerprint(HEAD, count),
    ),
    "match": (
        "the conditions of eight rules",
        "probe_loop_match",
        lambda count: _native.probe_loop_match(the_judge(), HEAD, count),
    ),
    "admit": ("the whole judge under those eight rules, and the account at the end", "probe_loop_judge", admit),
    "prefix": (
        f"a look-up among {PREFIXES:,} prefixes",
        "probe_loop_prefixes",
        lambda count: _native.probe_loop_prefixes(*prefixes(), count),
    ),
}

if __name__ == "__main__":
    PIECES[sys.argv[1]][2](int(sys.argv[2]))
