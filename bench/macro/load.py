"""The load tools of the bench: wrk for requests on kept connections, bench.macro.connect for a connection each.

Owns: their processes, pinned beside the origin. Invariants: a target is a loopback address or it is refused
(bench.load.guard); a run is bounded in seconds and requests; what came back is counted by kind, so that a scenario can
insist on what it measures.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.load.guard import REQUESTS_CEILING, SECONDS_CEILING, Bounds, loopback
from bench.macro.systems import ROOT, BenchError, program

LUA = Path(__file__).parent / "wrk.lua"

# What a browser sends along (Firefox 115, a page of the site itself).
BROWSER = {
    "User-Agent": "Mozilla/5.0 (X11; Linux x86_64; rv:109.0) Gecko/20100101 Firefox/115.0",
    "Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8",
    "Accept-Language": "en-US,en;q=0.5",
    "Accept-Encoding": "gzip, deflate, br",
    "Referer": "http://site.test/",
    "Cookie": "session=6f1ed002ab5595859014ebf0951522d9; theme=dark",
    "Upgrade-Insecure-Requests": "1",
    "Sec-Fetch-Dest": "document",
    "Sec-Fetch-Mode": "navigate",
    "Sec-Fetch-Site": "same-origin",
}


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a load run saw. Latencies in ms; 0 where the tool does not measure them."""

    requests: int
    seconds: float
    good: int  # 2xx and 3xx
    refused: int  # 4xx and 5xx
    cut: int  # closed or reset without an answer
    errors: int  # connect failures, timeouts, broken answers
    latency_ms_p50: float = 0.0
    latency_ms_p99: float = 0.0


def parse_wrk(text: str) -> Outcome:
    """The JSON line of wrk.lua at the end of wrk's output. BenchError where it is missing."""
    lines = [line for line in text.splitlines() if line.startswith("{")]
    if not lines:
        raise BenchError(f"wrk gave no figures: {text.strip()[-500:]}")
    found = json.loads(lines[-1])
    errors = int(found["connect"] + found["read"] + found["write"] + found["timeout"])
    return Outcome(
        requests=int(found["requests"]),
        seconds=found["us"] / 1e6,
        good=int(found["requests"] - found["status"]),
        refused=int(found["status"]),
        cut=0,
        errors=errors,
        latency_ms_p50=found["p50_us"] / 1e3,
        latency_ms_p99=found["p99_us"] / 1e3,
    )


def wrk_argv(host: str, port: int, connections: int, bounds: Bounds) -> list[str]:
    """wrk's command line; LoadRefused for a target that is not loopback."""
    headers = [word for name, value in BROWSER.items() for word in ("-H", f"{name}: {value}")]
    seconds = max(1, round(bounds.seconds_max))
    return [
        *(program("wrk"), "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "5s", "--latency", "-s", str(LUA)),
        *("-H", "Host: site.test", *headers, f"http://{loopback(host)}:{port}/page?id=7", "--"),
        str(bounds.requests_max if bounds.requests_max < REQUESTS_CEILING else 0),
    ]


def wrk(port: int, connections: int, bounds: Bounds, core: int) -> Outcome:
    """Keep-alive GETs of a browser on so many connections."""
    argv = ["taskset", "-c", str(core), *wrk_argv("127.0.0.1", port, connections, bounds)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=SECONDS_CEILING + 30, check=False)
    if done.returncode:
        raise BenchError(f"wrk ended with {done.returncode}: {done.stderr.strip()[-500:]}")
    return parse_wrk(done.stdout)


def connect(port: int, sources: Sequence[str], connections: int, bounds: Bounds, core: int) -> Outcome:
    """A new connection and one GET each, from these source addresses in turn, so many at a time."""
    spec = {
        "target": "127.0.0.1",
        "port": port,
        "sources": list(sources),
        "connections": connections,
        "requests_max": bounds.requests_max,
        "seconds_max": bounds.seconds_max,
        "headers": {"Host": "site.test", **BROWSER},
    }
    argv = ["taskset", "-c", str(core), sys.executable, "-m", "bench.macro.connect", json.dumps(spec)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=SECONDS_CEILING + 30, check=False, cwd=ROOT)
    if done.returncode:
        raise BenchError(f"bench.macro.connect ended with {done.returncode}: {done.stderr.strip()[-500:]}")
    return Outcome(**json.loads(done.stdout))
