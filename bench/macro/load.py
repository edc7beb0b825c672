"""The load of the bench: requests of a browser on kept connections, or a connection for each; messages on WebSockets;
TLS handshakes.

Run as `python -m bench.macro.load SPEC` (JSON) it is the process that asks, and prints an Outcome; `Asking` starts that
process, pinned beside the origin. Invariants: source and target are loopback or it refuses (bench.load.guard, and again
in the native tool); a run is bounded in seconds and requests; what came back is counted by kind, so that a scenario can
insist on what it measures.
"""

from __future__ import annotations

import json
import struct
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from bench.load.guard import SECONDS_CEILING, Bounds, loopback, raise_nofile
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
    retried: int = 0  # at a rate: asked again, as a kept connection had ended without a word
    handshakes: int = 0  # over TLS
    resumed: int = 0  # of these
    cpu_s: float = 0.0  # what the load itself took
    said: str = ""  # of the first failure


@dataclass(frozen=True, slots=True)
class Ask:
    """What to ask: from which addresses in turn, on how many connections, kept or a new one for each request.

    `body_bytes`: it is a POST with such a body. `rate_per_s`: so many in all, whether or not they are answered in time;
    0: each connection asks again as soon as it is answered. `message_bytes`: it is a WebSocket, and what counts is a
    message of that size and its echo. `head`: another request than a browser's for a page. `tls`: over TLS, each
    connection's handshake such a one; where connections are not kept, handshakes are all there is, and what counts.
    `streams`: requests at once on a connection, in HTTP/2 (bench.macro.h2.tool).
    """

    sources: tuple[str, ...]
    connections: int
    kept: bool
    body_bytes: int = 0
    rate_per_s: float = 0.0
    message_bytes: int = 0
    head: str = ""
    tls: Literal["", "full", "resumed"] = ""
    streams: int = 1

    def __post_init__(self) -> None:
        for source in self.sources:
            loopback(source)

    def request(self) -> bytes:
        """The bytes of one request."""
        if self.head:
            return self.head.encode("latin-1")
        fields = [*BROWSER.items()]
        if self.message_bytes:
            fields += [("Connection", "Upgrade"), ("Upgrade", "websocket"), ("Sec-WebSocket-Version", "13")]
            fields += [("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==")]  # the one that the native origin knows
        if not self.kept:
            fields += [("Connection", "close")]
        if self.body_bytes:
            fields += [("Content-Type", "application/octet-stream"), ("Content-Length", str(self.body_bytes))]
        lines = "".join(f"{name}: {value}\r\n" for name, value in fields)
        method = "POST" if self.body_bytes else "GET"
        return f"{method} /page?id=7 HTTP/1.1\r\n{lines}\r\n".encode("latin-1") + BODY[: self.body_bytes]

    def message(self) -> tuple[bytes, bytes]:
        """A binary frame of a client and its echo (RFC 6455 5.2); empty where it is no WebSocket."""
        if not self.message_bytes:
            return b"", b""
        payload, mask = BODY[: self.message_bytes], b"\x5a\xa5\x3c\xc3"
        count = len(payload)
        size = bytes([count]) if count < 126 else b"\x7e" + struct.pack(">H", count)
        masked = bytes(byte ^ mask[i & 3] for i, byte in enumerate(payload))
        return b"\x82" + bytes([size[0] | 0x80]) + size[1:] + mask + masked, b"\x82" + size + payload


def spec_of(host: str, port: int, what: Ask, bounds: Bounds) -> dict[str, Any]:
    """The process's spec; LoadRefused for a target that is not loopback."""
    return {"target": loopback(host), "port": port, "ask": asdict(what), **asdict(bounds)}


class Asking:
    """A load against 127.0.0.1 on that core, in a process of its own, begun when made."""

    def __init__(self, port: int, what: Ask, bounds: Bounds, core: int) -> None:
        spec = json.dumps(spec_of("127.0.0.1", port, what, bounds))
        argv = ["taskset", "-c", str(core), sys.executable, "-m", "bench.macro.load", spec]
        self.process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT)

    def outcome(self) -> Outcome:
        """What it saw, when it has ended."""
        try:
            said, error = self.process.communicate(timeout=SECONDS_CEILING + 30)
        finally:
            self.process.kill()
        if self.process.returncode:
            raise BenchError(f"the load ended with {self.process.returncode}: {error.strip()[-500:]}")
        return Outcome(**json.loads(said))


def ask(port: int, what: Ask, bounds: Bounds, core: int) -> Outcome:
    """Run a load to its end."""
    return Asking(port, what, bounds, core).outcome()


def main(argv: Sequence[str]) -> None:
    """The process that asks."""
    spec = json.loads(argv[0])
    what = Ask(**spec["ask"])
    bounds = Bounds(spec["requests_max"], spec["seconds_max"])
    raise_nofile()
    began = time.process_time()
    tool = over_tls if what.tls else in_clear_text
    found = tool(loopback(spec["target"]), spec["port"], what, bounds)
    print(json.dumps({**found, "cpu_s": time.process_time() - began}))


def over_tls(target: str, port: int, what: Ask, bounds: Bounds) -> dict[str, float | str]:
    from bench.macro import native_tls  # noqa: PLC0415 - only the process that asks needs the native tools

    return native_tls.load(
        target,
        port,
        list(what.sources),
        what.connections,
        what.request() if what.kept else b"",
        what.tls == "resumed",
        bounds.requests_max,
        bounds.seconds_max,
    )


def in_clear_text(target: str, port: int, what: Ask, bounds: Bounds) -> dict[str, float]:
    from bench.macro import native  # noqa: PLC0415

    message, reply = what.message()
    return native.load(
        target,
        port,
        list(what.sources),
        what.connections,
        what.request(),
        what.kept,
        bounds.requests_max,
        bounds.seconds_max,
        what.rate_per_s,
        message,
        reply,
    )


if __name__ == "__main__":
    main(sys.argv[1:])
