"""The load of the bench: requests of a browser on kept connections, or a connection for each.

Run as `python -m bench.macro.load SPEC` (JSON) it is the process that asks, and prints an Outcome; `ask` starts that
process, pinned beside the origin. Invariants: source and target are loopback or it refuses (bench.load.guard, and again
in the native tool); a run is bounded in seconds and requests; what came back is counted by kind, so that a scenario can
insist on what it measures.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from bench.load.guard import SECONDS_CEILING, Bounds, loopback
from bench.macro.systems import ROOT, BenchError

# What a browser sends along (Firefox 115, a page of the site itself).
BROWSER = {
    "Host": "site.test",
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

BODY = bytes(range(256)) * (40 * 1024)  # 10 MiB


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run saw. Latencies in ms, of answered requests; 0 where none was."""

    requests: int
    seconds: float
    good: int  # 2xx and 3xx
    refused: int  # 4xx and 5xx
    cut: int  # closed or reset without an answer
    errors: int  # nobody there, answers that broke off, no answer in time
    latency_ms_p50: float = 0.0
    latency_ms_p99: float = 0.0


@dataclass(frozen=True, slots=True)
class Ask:
    """What to ask: from which addresses in turn, on how many connections, kept or a new one for each request; with a
    body of so many bytes it is a POST."""

    sources: tuple[str, ...]
    connections: int
    kept: bool
    body_bytes: int = 0

    def __post_init__(self) -> None:
        for source in self.sources:
            loopback(source)

    def request(self) -> bytes:
        """The bytes of one request."""
        fields = [*BROWSER.items(), *([] if self.kept else [("Connection", "close")])]
        if self.body_bytes:
            fields += [("Content-Type", "application/octet-stream"), ("Content-Length", str(self.body_bytes))]
        lines = "".join(f"{name}: {value}\r\n" for name, value in fields)
        method = "POST" if self.body_bytes else "GET"
        return f"{method} /page?id=7 HTTP/1.1\r\n{lines}\r\n".encode("latin-1") + BODY[: self.body_bytes]


def spec_of(host: str, port: int, what: Ask, bounds: Bounds) -> dict[str, Any]:
    """The process's spec; LoadRefused for a target that is not loopback."""
    return {
        "target": loopback(host),
        "port": port,
        "sources": list(what.sources),
        "connections": what.connections,
        "body_bytes": what.body_bytes,
        "kept": what.kept,
        "requests_max": bounds.requests_max,
        "seconds_max": bounds.seconds_max,
    }


def ask(port: int, what: Ask, bounds: Bounds, core: int) -> Outcome:
    """Run the load against 127.0.0.1 on that core, in a process of its own."""
    spec = json.dumps(spec_of("127.0.0.1", port, what, bounds))
    argv = ["taskset", "-c", str(core), sys.executable, "-m", "bench.macro.load", spec]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=SECONDS_CEILING + 30, check=False, cwd=ROOT)
    if done.returncode:
        raise BenchError(f"the load ended with {done.returncode}: {done.stderr.strip()[-500:]}")
    return Outcome(**json.loads(done.stdout))


def main(argv: Sequence[str]) -> None:
    """The process that asks."""
    from bench.macro import native  # noqa: PLC0415 - only this process needs the native tool

    spec = json.loads(argv[0])
    Bounds(spec["requests_max"], spec["seconds_max"])
    what = Ask(tuple(spec["sources"]), spec["connections"], spec["kept"], spec.pop("body_bytes"))
    spec["request"] = what.request()
    print(json.dumps(native.load(**spec)))


if __name__ == "__main__":
    main(sys.argv[1:])
