"""The attacks of `flood`, each a process beside the people's.

Requests come from the native load, connections from bench.load.flood and from slowhttptest. Invariants: from and to
loopback alone; bounded in seconds and requests; ended with the run by their own pids.
"""

from __future__ import annotations

import contextlib
import json
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from bench.load.guard import Bounds, loopback
from bench.load.shapes import SHAPES
from bench.macro.load import BROWSER, Ask, Asking, Outcome
from bench.macro.systems import ROOT, program

HOST = BROWSER["Host"]
FAST = tuple(f"127.0.{80 + i // 55}.{i % 55 + 1}" for i in range(110))
MANY = tuple(f"127.0.{90 + i // 250}.{i % 250 + 1}" for i in range(2000))
HOLDERS = tuple(f"127.0.85.{i}" for i in range(1, 51))


@dataclass(frozen=True, slots=True)
class Scene:
    """Where an attack goes, for how long, and how much a second it may send."""

    port: int
    seconds: float
    rate_per_s: float
    core: int
    scratch: Path


Attack = Callable[[Scene], contextlib.AbstractContextManager[Callable[[], Outcome | None]]]


def requests(shape: str, sources: tuple[str, ...]) -> Attack:
    """Requests of that shape at the scene's rate. What it yields gives their outcome."""
    head = SHAPES[shape](HOST, random.Random(7))().decode("latin-1")

    @contextlib.contextmanager
    def run(scene: Scene) -> Iterator[Callable[[], Outcome]]:
        what = Ask(sources, min(1024, 2 * len(sources)), kept=True, rate_per_s=scene.rate_per_s, head=head)
        asking = Asking(scene.port, what, Bounds(2_000_000, scene.seconds), scene.core)
        try:
            yield asking.outcome
        finally:
            asking.process.kill()
            asking.process.wait()

    return run


def connections(how: str, count: int, rate_per_s: float = 0.0, drip_s: float = 0.0) -> Attack:
    """So many connections a source that are held, with or without a byte now and then, or that come and go."""

    @contextlib.contextmanager
    def run(scene: Scene) -> Iterator[Callable[[], None]]:
        attack: dict[str, object] = {"kind": how, "how": how, "host": HOST, "target": "127.0.0.1", "port": scene.port}
        attack |= {"sources": HOLDERS, "connections": count, "rate_per_s": rate_per_s, "drip_s": drip_s}
        attack |= {"reopen_s": 1.0, "spread_s": 1.0, "keep_s": 0.05, "start_s": 0, "stop_s": scene.seconds}
        spec: dict[str, object] = {"t0_ns": time.monotonic_ns(), "seed": 7, "nice": 5, "requests_max": 200_000}
        spec |= {"seconds_max": scene.seconds + 1, "attacks": [attack]}
        argv = ["taskset", "-c", str(scene.core), sys.executable, "-m", "bench.load.flood"]
        process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, cwd=ROOT)
        try:
            assert process.stdin is not None
            process.stdin.write(json.dumps(spec).encode() + b"\n")
            process.stdin.flush()
            yield lambda: None
        finally:
            process.kill()
            process.wait()

    return run


def slowhttptest(*options: str) -> Attack:
    """slowhttptest in one of its modes, a thousand connections."""

    @contextlib.contextmanager
    def run(scene: Scene) -> Iterator[Callable[[], None]]:
        url = f"http://{loopback('127.0.0.1')}:{scene.port}/"
        bounds = ["-c", "1000", "-r", "500", "-p", "2", "-l", str(int(scene.seconds) + 1)]
        argv = ["taskset", "-c", str(scene.core), program("slowhttptest"), *options, *bounds, "-u", url]
        null = subprocess.DEVNULL
        process = subprocess.Popen(argv, stdin=null, stdout=null, stderr=null, cwd=scene.scratch)
        try:
            yield lambda: None
        finally:
            process.kill()
            process.wait()

    return run


# name: what it is, and how it is made.
ATTACKS: dict[str, tuple[str, Attack]] = {
    "get": ("one page over and over, from 110 addresses", requests("plain", FAST)),
    "search": ("searches that no cache has seen, from 110 addresses", requests("search", FAST)),
    "login": ("password guesses, from 110 addresses", requests("login", FAST)),
    "browser": ("a browser's requests to the byte, from 110 addresses", requests("browser", FAST)),
    "slow": ("a browser's requests, from 2,000 addresses, each below every limit", requests("browser", MANY)),
    "slowloris": ("1,500 heads that never end", connections("hold", 30, drip_s=1.0)),
    "silent": ("1,500 connections without a byte", connections("hold", 30)),
    "churn": ("2,500 connections a second, opened and closed", connections("churn", 1, rate_per_s=50)),
    "slow-headers": ("slowhttptest -H", slowhttptest("-H")),
    "slow-body": ("slowhttptest -B", slowhttptest("-B", "-s", "100000")),
    "range": ("slowhttptest -R", slowhttptest("-R")),
    "slow-read": ("slowhttptest -X", slowhttptest("-X", "-k", "3", "-n", "1", "-w", "64", "-y", "128", "-z", "32")),
}
