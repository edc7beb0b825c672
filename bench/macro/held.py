"""Connections that have asked once and are kept: `python -m bench.macro.held SPEC` opens them, says so, and holds on to
them until its stdin closes.

Invariants: source and target are loopback or it refuses (bench.load.guard); a connection that was not answered, or did
not stay, is told of.
"""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict

from bench.load.guard import Bounds, Route, raise_nofile
from bench.macro.load import Ask
from bench.macro.systems import ROOT, BenchError

ANSWER_S = 10.0


@contextlib.contextmanager
def held(port: int, what: Ask, core: int) -> Iterator[None]:
    """All connections of `what` to 127.0.0.1, each answered once and idle since. BenchError: not all of them."""
    spec = json.dumps({"port": port, "ask": asdict(what)})
    argv = ["taskset", "-c", str(core), sys.executable, "-m", "bench.macro.held", spec]
    process = subprocess.Popen(
        argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT
    )
    try:
        assert process.stdout is not None
        if not process.stdout.readline():
            raise BenchError(f"not every connection was answered: {process.communicate()[1].strip()[-500:]}")
        yield
        said, error = process.communicate(timeout=60)
        if process.returncode or said.strip() != "all":
            raise BenchError(f"connections did not stay: {said} {error.strip()[-500:]}")
    finally:
        process.kill()
        process.wait()


def answered(sock: socket.socket) -> None:
    """Read one whole answer; ValueError, OSError: there is none."""
    data = b""
    while b"\r\n\r\n" not in data:
        piece = sock.recv(65536)
        if not piece:
            raise ValueError(f"closed after {data!r}")
        data += piece
    head, body = data.split(b"\r\n\r\n", 1)
    if not head.startswith(b"HTTP/1.1 200"):
        raise ValueError(f"answered {head[:40]!r}")
    left = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0]) - len(body)
    while left:
        piece = sock.recv(min(left, 65536))
        if not piece:
            raise ValueError(f"closed {left} bytes before its end")
        left -= len(piece)


def quiet(sock: socket.socket) -> bool:
    """It is still open, and nothing came."""
    sock.setblocking(False)
    try:
        sock.recv(1)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def main(argv: Sequence[str]) -> None:
    """The process that holds them."""
    spec = json.loads(argv[0])
    what = Ask(**spec["ask"])
    Bounds(what.connections, 60)
    raise_nofile()
    request, kept = what.request(), []
    for number in range(what.connections):
        sock = Route(what.sources[number % len(what.sources)], "127.0.0.1", spec["port"]).open()
        sock.settimeout(ANSWER_S)
        sock.sendall(request)
        answered(sock)
        kept.append(sock)
    print("held", flush=True)
    sys.stdin.read()
    print("all" if all(map(quiet, kept)) else f"{sum(map(quiet, kept))} of {len(kept)}")


if __name__ == "__main__":
    main(sys.argv[1:])
