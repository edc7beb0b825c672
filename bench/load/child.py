"""How a load process talks to whoever started it: a spec on stdin (one JSON line), reports on stdout (JSON lines).

Invariants: when stdin ends, the child stops, so no load outlives whoever asked for it; stdout carries reports only.
"""
import json
import os
import select
import sys
from typing import Any

REPORT_NS = 250_000_000  # how often a child reports


def read_spec() -> dict[str, Any]:
    """The one line that says what to do. Unbuffered: stdin is asked again, later, whether to stop."""
    line = bytearray()
    while not line.endswith(b"\n"):
        piece = os.read(0, 65536)
        if not piece:
            raise SystemExit("no spec on stdin: this is started by bench.demo, or by hand with one line of JSON")
        line += piece
    spec: dict[str, Any] = json.loads(line)
    return spec


def report(message: dict[str, Any]) -> None:
    """One line to the parent. A parent that is gone ends this process."""
    try:
        sys.stdout.write(json.dumps(message, separators=(",", ":")) + "\n")
        sys.stdout.flush()
    except BrokenPipeError:
        os._exit(0)


def told_to_stop() -> bool:
    """stdin has ended, or said anything at all: stop."""
    readable, _, _ = select.select([0], [], [], 0)
    return bool(readable)
